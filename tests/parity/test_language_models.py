"""Published language models against transformers' own classes, random weights of small size, from saved files."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxpar import InputError
from jaxpar.decoding import Drafter, PromptLookup, compiled, decode
from jaxpar.models import Compute
from jaxpar.pretrained import chat_text, end_tokens, load, load_tokenizer
from jaxpar.pretrained.files import Source, Tensor
from jaxpar.pretrained.load import abstract_module
from jaxpar.pretrained.places import places

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

ALIKE = {
    "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "bos_token_id": None, "eos_token_id": None,
    "pad_token_id": None,
}  # fmt: skip
STRETCH = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
           "original_max_position_embeddings": 16}  # fmt: skip
SMALL = {
    "gpt2": ("GPT2", {"vocab_size": 40, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4,
                      "bos_token_id": None, "eos_token_id": None}),
    "llama": ("Llama", {**ALIKE, "rms_norm_eps": 1e-5, "tie_word_embeddings": False}),
    "llama 3": ("Llama", {**ALIKE, "rope_theta": 500_000.0, "rope_scaling": STRETCH, "tie_word_embeddings": True}),
    "mistral": ("Mistral", {**ALIKE, "sliding_window": 48, "tie_word_embeddings": False}),
    "qwen 2": ("Qwen2", {**ALIKE, "rope_theta": 1e6, "tie_word_embeddings": True}),
    "qwen 3": ("Qwen3", {**ALIKE, "head_dim": 16, "tie_word_embeddings": False}),
}  # fmt: skip
TOKENS = np.random.default_rng(0).integers(0, 40, (3, 30))


def of(kind, settings):
    config = getattr(transformers, f"{kind}Config")(**settings)
    return getattr(transformers, f"{kind}LMHeadModel" if kind == "GPT2" else f"{kind}ForCausalLM")(config)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Each model by theirs and by ours, saved by theirs and loaded by ours."""
    made = {}

    def pair(name):
        if name not in made:
            torch.manual_seed(0)
            theirs = of(*SMALL[name]).eval()
            with torch.no_grad():
                for weight in theirs.parameters():
                    weight.add_(0.1 * torch.randn_like(weight))
            folder = tmp_path_factory.mktemp("model")
            theirs.save_pretrained(folder, safe_serialization=True)
            made[name] = theirs, load(folder)
        return made[name]

    return pair


@pytest.mark.parametrize("name", SMALL)
def test_logits(pairs, name):
    theirs, ours = pairs(name)
    with torch.no_grad():
        wanted = theirs(torch.from_numpy(TOKENS)).logits.numpy()
    np.testing.assert_allclose(ours(jnp.asarray(TOKENS)), wanted, atol=2e-5)


@pytest.mark.parametrize("name", SMALL)
def test_greedy_text(pairs, name):
    theirs, ours = pairs(name)
    prompt = torch.from_numpy(TOKENS[:1, :12])
    with torch.no_grad():
        asked = {"max_new_tokens": 20, "do_sample": False, "pad_token_id": 0}
        wanted = theirs.generate(prompt, attention_mask=torch.ones_like(prompt), **asked)[0].numpy()
    for drafter in (Drafter(), PromptLookup(4)):
        found = decode(ours, jnp.asarray(TOKENS[:1, :12]), jnp.asarray([12]), 20, drafter)
        np.testing.assert_array_equal(found.tokens[0, :32], wanted)


def test_one_by_one_is_as_fast_as_theirs(tmp_path):
    """Greedy, batch 1, in one process, in turns: 12.6 million weights, of which each token reads all."""
    sizes = {
        "vocab_size": 256, "hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 4,
        "num_attention_heads": 8, "num_key_value_heads": 4, "max_position_embeddings": 512,
    }  # fmt: skip
    torch.manual_seed(0)
    theirs = of("Llama", {**ALIKE, **sizes, "tie_word_embeddings": True}).eval()
    theirs.save_pretrained(tmp_path, safe_serialization=True)
    ours, new = load(tmp_path), 128
    prompt = np.random.default_rng(0).integers(0, 256, (1, 64))
    arguments = jnp.asarray(prompt), jnp.asarray([64])
    run = compiled(lambda prompts, lengths: decode(ours, prompts, lengths, new).tokens, *arguments)
    asked = {"max_new_tokens": new, "do_sample": False, "pad_token_id": 0}
    seconds = {"ours": [], "theirs": []}
    with torch.no_grad():
        for turn in range(6):
            begun = time.perf_counter()
            found = np.asarray(run(*arguments))
            half = time.perf_counter()
            read = torch.ones(1, 64, dtype=torch.int64)
            wanted = theirs.generate(torch.from_numpy(prompt), attention_mask=read, **asked).numpy()
            if turn:  # the first one compiles
                seconds["ours"].append(half - begun)
                seconds["theirs"].append(time.perf_counter() - half)
    np.testing.assert_array_equal(found[:, : 64 + new], wanted)
    print({name: f"{new / np.median(taken):.0f} tokens per second" for name, taken in seconds.items()})
    assert np.median(seconds["ours"]) <= np.median(seconds["theirs"])


def test_a_text_goes_through_its_tokenizer(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    model.train_from_iterator(["the cat sat on the mat, and the dog on the log"] * 20, trainer)
    size = {"vocab_size": model.get_vocab_size(), "eos_token_id": 7}
    theirs = of("Llama", {**ALIKE, **size, "tie_word_embeddings": True})
    theirs.save_pretrained(tmp_path, safe_serialization=True)
    with pytest.raises(InputError, match=r"tokenizer.json is missing"):
        load_tokenizer(tmp_path)
    model.save(str(tmp_path / "tokenizer.json"))
    found = load_tokenizer(tmp_path)
    tokens = found.encode("the cat on the log").ids
    assert len(tokens) < 12
    assert found.decode(tokens) == "the cat on the log"
    assert end_tokens(tmp_path) == (7,)
    assert max(tokens) < load(tmp_path).vocabulary
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="is no tokenizer"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_published_in_bfloat16_stay_so(dtype, tmp_path):
    torch.manual_seed(0)
    theirs = of("Llama", {**ALIKE, "tie_word_embeddings": False}).eval().to(torch.bfloat16)
    theirs.save_pretrained(tmp_path, safe_serialization=True)
    ours = load(tmp_path, compute=Compute(dtype=dtype), weights="published")
    assert ours.head.kernel[...].dtype == jnp.bfloat16
    theirs = theirs.to(getattr(torch, dtype))
    with torch.no_grad():
        wanted = theirs(torch.from_numpy(TOKENS)).logits.float().numpy()
    with jax.numpy_dtype_promotion("standard"):
        found = ours(jnp.asarray(TOKENS))
    largest = np.abs(wanted).max()
    np.testing.assert_allclose(found, wanted, atol=(1e-5 if dtype == "float32" else 0.03) * largest)


CHATS = {
    "llama 3": "{{ bos_token }}{% for message in messages %}{{ '<|start|>' + message['role'] + '<|end|>\n\n' + "
               "message['content'] | trim + '<|eot|>' }}{% endfor %}"
               "{% if add_generation_prompt %}{{ '<|start|>assistant<|end|>\n\n' }}{% endif %}",
    "mistral": "{{ bos_token }}\n{%- for message in messages %}\n    {%- if (message['role'] == 'user') != "
               "(loop.index0 % 2 == 0) %}\n        {{- raise_exception('roles must alternate') }}\n    {%- endif %}\n"
               "    {%- if message['role'] == 'user' %}\n        {{- '[INST] ' + message['content'] + ' [/INST]' }}\n"
               "    {%- else %}\n        {{- message['content'] + eos_token }}\n    {%- endif %}\n{%- endfor %}\n",
    "lists": "{% set ns = namespace(count=0) %}{% for message in messages %}{% set ns.count = ns.count + 1 %}\n"
             "  {# whitespace goes #}\n{{ ns.count }}: {{ message | tojson }}\n{% endfor %}{{ pad_token }}",
}  # fmt: skip


@pytest.mark.parametrize("name", CHATS)
def test_chats_are_the_texts_that_theirs_are(name, tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<s>": 0, "</s>": 1, "?": 2}, unk_token="?"))
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_object=model, bos_token="<s>", eos_token="</s>", chat_template=CHATS[name]
    )
    of("Llama", {**ALIKE, "tie_word_embeddings": False}).save_pretrained(tmp_path, safe_serialization=True)
    theirs.save_pretrained(tmp_path)
    chat = [{"role": "user", "content": " What is <3>? "}, {"role": "assistant", "content": "A \u00e9"},
            {"role": "user", "content": "Why?"}]  # fmt: skip
    wanted = theirs.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert chat_text(tmp_path, chat) == wanted


PUBLISHED = {
    "gpt2": ("GPT2", {}),
    "llama 3.1 8b": ("Llama", {
        "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131072, "rope_theta": 500000.0,
        "rope_scaling": {**STRETCH, "factor": 8.0, "original_max_position_embeddings": 8192}, "rms_norm_eps": 1e-5}),
    "mistral 7b v0.1": ("Mistral", {"max_position_embeddings": 32768, "rms_norm_eps": 1e-5}),
    "qwen 2.5 0.5b": ("Qwen2", {
        "vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
        "num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": True, "rope_theta": 1e6}),
    "qwen 3 0.6b": ("Qwen3", {
        "vocab_size": 151936, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": True}),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_full_size(name, tmp_path):
    """Names and shapes of every tensor as published; no weight is made."""
    with torch.device("meta"):
        theirs = of(*PUBLISHED[name])
    theirs.config.architectures = [type(theirs).__name__]
    theirs.config.save_pretrained(tmp_path)
    tensors = {name: Tensor(tmp_path, tuple(found.shape), "F32", None) for name, found in theirs.state_dict().items()}
    family, module = abstract_module(Source(tmp_path / "config.json", ()))
    state = nnx.split(module)[1]
    found = places(state, tensors, family.spell, family.unused, tmp_path)
    assert len(found) == len(jax.tree.leaves(state))
