"""Arguments of a wrong kind for what builds models, trains and cuts them: one line each, which names the argument."""

import math
import re
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from jaxpar.flows import GlowConfig, build_glow, noised, read_plan
from jaxpar.models import (
    MADEConfig,
    MLPConfig,
    ModelConfig,
    PixelCNNConfig,
    TarFlowConfig,
    TransformerConfig,
    TranslatorConfig,
    build,
    build_made,
    build_pixelcnn,
    build_policy,
    build_tarflow,
    build_transformer,
    build_translator,
    inverse_convolution,
    masked_convolution,
    masked_kernel,
    pixel_noise,
    truncated,
)
from jaxpar.sharding import make_mesh, make_partition, rule_set
from jaxpar.training import (
    DataConfig,
    MetricsFile,
    OptimizerConfig,
    TextConfig,
    batches,
    load,
    load_text,
    optimizer,
    read_metrics,
)
from tests.refusals import refusal

RNGS, SHAPE = nnx.Rngs(0), (4, 4, 1)
BUILDERS = {
    build: {"config": ModelConfig(), "image_shape": SHAPE, "classes": 2, "rngs": RNGS},
    build_policy: {"config": MLPConfig(), "action_shape": (2, 2), "observed": 3, "rngs": RNGS},
    build_tarflow: {"config": TarFlowConfig(), "image_shape": SHAPE, "classes": 2, "rngs": RNGS},
    build_transformer: {"config": TransformerConfig(), "rngs": RNGS},
    build_translator: {"config": TranslatorConfig(), "rngs": RNGS},
    build_made: {"config": MADEConfig(), "rngs": RNGS},
    build_pixelcnn: {"config": PixelCNNConfig(), "rngs": RNGS},
    build_glow: {"config": GlowConfig(), "image_shape": SHAPE, "rngs": RNGS},
}
WRONG = {
    "config": (None, "mlp", 3, DataConfig(), {}, ModelConfig, TransformerConfig),
    "image_shape": (None, 4, "4x4", (4, 4), (4, 4, 1, 1)),
    "action_shape": (None, 4, (4,), "ab,"),
    "classes": (None, "2", 2.0, math.nan, -1, True, 2**31),
    "observed": (None, "2", 2.0, math.nan, 0, -1),
    "rngs": (None, 0, "key", nnx.Rngs),
}


def names(name, *calls):
    for number, call in enumerate(calls):
        said = refusal(call)
        assert re.match(rf"{name} is .*; .+", said), (number, said)


@pytest.mark.parametrize("builder", BUILDERS, ids=lambda builder: builder.__name__)
def test_builders(builder):
    right = BUILDERS[builder]
    for argument in right:
        name = "model" if argument == "config" else argument
        names(name, *(partial(builder, **right | {argument: value}) for value in WRONG[argument]))
    if "image_shape" in right:
        names(
            "an axis of image_shape", *(partial(builder, **right | {"image_shape": (4, size, 1)}) for size in (0, 2.5))
        )


def test_sizes_without_bounds():
    names(
        "model.hidden",
        lambda: build_made(MADEConfig(hidden=2.5), RNGS),
        lambda: build_made(MADEConfig(hidden="8"), RNGS),
    )
    names("model.width", lambda: build_pixelcnn(PixelCNNConfig(width=None), RNGS))
    names("model.solve", lambda: build_glow(GlowConfig(solve=3), SHAPE, RNGS))
    names("compute", *(lambda c=c: build_transformer(TransformerConfig(), RNGS, c) for c in (None, "bfloat16", RNGS)))
    names("model", lambda: truncated(None, 1))


def test_training_and_cutting():
    for call in (make_mesh, make_partition):
        names("mesh", *(partial(call, config) for config in (None, 2, "data", DataConfig())))
    names("text", *(partial(rule_set, text) for text in (None, 3, b"zero3")))
    names("optimizer", *(partial(optimizer, config, 3) for config in (None, 1e-3, DataConfig())))
    names("steps", *(partial(optimizer, OptimizerConfig(), steps) for steps in (None, 2.5, "3", math.nan, -1)))
    names("data", *(partial(load, config) for config in (None, "digits.npz", TextConfig())))
    names("text", *(partial(load_text, config, 8) for config in (None, "text.txt", DataConfig())))
    names("length", *(partial(load_text, TextConfig(), length) for length in (None, 0, 2.5, "8", math.nan)))
    names("data", *(partial(batches, data, 2, 0) for data in (None, 3, [1, 2])))
    for call in (read_metrics, read_plan, lambda path: MetricsFile(path, 0)):
        names("path", *(partial(call, path) for path in (None, 3, b"x")))


def test_noise_and_convolutions():
    image, kernel, key = jnp.zeros(SHAPE), jnp.zeros((2, 2, 1, 1)), jax.random.key(0)
    names("image", *(lambda i=i: noised(i, key, "uniform", 0.1) for i in (None, 0.5, "x", key)))
    names("key", lambda: noised(image, 0, "uniform", 0.1), lambda: pixel_noise(None, 1, 1, 1))
    names("noise", lambda: noised(image, key, key, 0.1))
    names("deviation", *(lambda v=v: noised(image, key, "uniform", v) for v in (None, math.nan, -1.0, "x")))
    names("count", lambda: pixel_noise(key, 2.5, 1, 1))
    for call in (masked_convolution, inverse_convolution):
        names("image", *(lambda i=i, call=call: call(i, kernel) for i in (None, image[0])))
        names("kernel", *(lambda k=k, call=call: call(image, k) for k in (None, image)))
    names("kernel", lambda: masked_kernel("x"))
