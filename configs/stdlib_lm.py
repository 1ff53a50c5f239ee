"""Bytes of the Python standard library's own source, foretold by a decoder-only Transformer (Llama's parts).

Data: 11.3 million bytes of Python 3.11's library; 0.8 million of other files held out. Model: 1.8 million weights,
windows of 256 bytes. On two cores of an AMD EPYC, 1,300 steps (5.3 million bytes) take 9 min 55 s and reach 1.010 nats
per byte on the held-out files; 1.40, 1.13 and 1.04 after a quarter, a half and three quarters of them.

Another text: --config.text.path=FILE, or a folder, of whose files those named *.py are read (--config.text.suffix).
GPT-2's parts: --config.model.norm=layer --config.model.positions=learned --config.model.mlp=gelu
--config.model.bias=true --config.model.kv_heads=4.

COMMAND: python -m experiments.train --config=configs/stdlib_lm.py --workdir=runs/stdlib_lm
"""

from experiments.text.config import Language
from jaxpar import InputError


def get_config(variant: str = "") -> Language:
    """The experiment, or another size of it.

    `:tiny` is a minute's version for a first look; `:300m` one to time on an accelerator (experiments.benchmark), `:7b`
    one to plan for (experiments.plan), both with a usual vocabulary of which bytes are the first 256 tokens.
    """
    config = Language(name="stdlib_lm")
    config.model.width, config.model.hidden = 192, 576
    config.text.batch = 16
    config.optimizer.learning_rate = 3e-3
    config.optimizer.weight_decay = 0.1
    config.optimizer.second_moment = 0.98
    config.optimizer.ema = 0.99
    config.loop.steps = 1300
    config.loop.save_every = config.loop.evaluate_every = 325
    if variant == "tiny":
        config.model.width, config.model.hidden, config.model.blocks = 64, 192, 2
        config.model.length = 128
        config.loop.steps, config.loop.save_every, config.loop.evaluate_every = 200, 100, 100
    elif variant in ("12m", "draft"):
        sizes = config.model
        sizes.width, sizes.hidden, sizes.heads, sizes.kv_heads = (
            (512, 1536, 8, 4) if variant == "12m" else (96, 288, 2, 1)
        )
        sizes.blocks = 4 if variant == "12m" else 2
        sizes.length, config.text.batch = 512, 8
        config.optimizer.learning_rate = 1.5e-3 if variant == "12m" else 4e-3
        config.loop.steps = 800 if variant == "12m" else 2000
        config.loop.save_every = config.loop.evaluate_every = config.loop.steps // 4
    elif variant == "300m":
        sizes = config.model
        sizes.vocabulary, sizes.length, sizes.width, sizes.hidden, sizes.blocks = 32_000, 1024, 1024, 2816, 22
        sizes.heads = sizes.kv_heads = 8
        config.compute.dtype, config.compute.remat = "bfloat16", "dots"
        config.text.batch = 32
    elif variant == "7b":
        sizes = config.model
        sizes.vocabulary, sizes.length, sizes.width, sizes.hidden, sizes.blocks = 32_000, 2048, 4096, 11_008, 32
        sizes.heads = sizes.kv_heads = 32
        sizes.tied = False
        config.compute.dtype, config.compute.remat = "bfloat16", "full"
        config.text.batch = 256
    elif variant:
        raise InputError(f"configs/stdlib_lm.py has no variant {variant!r}; it has: tiny, 300m, 7b")
    return config
