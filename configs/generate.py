"""Text by a language model of bytes, trained on the Python standard library's own source, several bytes a step.

Published weights instead: --config.path=FOLDER, or a name on the Hugging Face hub, of GPT-2's, Llama's, Mistral's or
Qwen's kind, with its tokenizer.json (and --config.chat=true for a model that chats); a smaller one of the same
tokenizer drafts for it by --config.draft.path=FOLDER.

COMMAND: python -m experiments.generate --config=configs/generate.py --config.prompt="def "
"""

from experiments.generation.config import Generation
from jaxpar import InputError


def get_config(variant: str = "") -> Generation:
    """The experiment with 1.8 million weights; `:12m` with 12.6 million, `:tiny` for a first look."""
    config = Generation()
    language, draft = config.language, config.draft.language
    language.name, draft.name = "stdlib_lm", "stdlib_draft"
    for one in (language, draft):
        one.model.length, one.text.batch = 512, 8
        one.optimizer.weight_decay, one.optimizer.second_moment, one.optimizer.ema = 0.1, 0.98, 0.99
    sizes = language.model
    sizes.width, sizes.hidden = 192, 576
    language.optimizer.learning_rate = 3e-3
    language.loop.steps = 600
    sizes = draft.model
    sizes.width, sizes.hidden, sizes.blocks, sizes.heads, sizes.kv_heads = 96, 288, 1, 2, 1
    draft.optimizer.learning_rate = 6e-3
    draft.loop.steps = 600
    if variant == "12m":
        sizes = language.model
        sizes.width, sizes.hidden, sizes.heads, sizes.kv_heads = 512, 1536, 8, 4
        language.optimizer.learning_rate = 1.5e-3
        language.loop.steps = 600
        draft.loop.steps = 3000
    elif variant == "tiny":
        for one in (language, draft):
            one.model.width, one.model.hidden, one.model.heads, one.model.kv_heads = 64, 192, 2, 1
            one.model.length, one.text.batch, one.loop.steps = 128, 16, 150
        language.model.blocks, draft.model.blocks = 2, 1
        config.new, config.report.length = 64, 32
    elif variant:
        raise InputError(f"configs/generate.py has no variant {variant!r}; it has: tiny, 12m")
    for one in (language, draft):
        one.loop.save_every = one.loop.evaluate_every = one.loop.steps // 4
    return config
