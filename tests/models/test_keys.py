"""Keys of weights, counted where nothing is traced."""

import time

import jax
import numpy as np
import pytest
from flax import nnx

from jaxpar import InputError
from jaxpar.models import MLPConfig, ModelConfig, TarFlowConfig, TransformerConfig, UNetConfig, build
from jaxpar.models.keys import Keys
from jaxpar.settings import check_settings


def model(rngs, blocks=2):
    return build(ModelConfig(mlp=MLPConfig(width=8, hidden=8, blocks=blocks, condition=4)), (4, 4, 1), 3, rngs)


def weights(module):
    return jax.tree.leaves(nnx.split(module, nnx.Param)[1])


def test_weights_are_those_of_the_usual_keys():
    for ours, usual in zip(weights(model(Keys(3))), weights(model(nnx.Rngs(3))), strict=True):
        np.testing.assert_array_equal(ours, usual)
    traced = jax.jit(lambda key: weights(model(Keys(key))))(jax.random.key(3))
    for ours, usual in zip(traced, weights(model(nnx.Rngs(3))), strict=True):
        np.testing.assert_allclose(ours, usual, rtol=1e-6)


def test_a_deep_model_is_laid_out_in_time_that_grows_with_its_depth():
    """With a traced counter eight times the blocks take some forty times as long."""

    def seconds(blocks):
        begun = time.process_time()
        nnx.eval_shape(lambda: model(Keys(0), blocks))
        return time.process_time() - begun

    seconds(2)
    assert seconds(160) < 20 * seconds(20)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (MLPConfig(width=2**20, hidden=2**20), "the sizes of model ask for 8.8e"),
        (MLPConfig(blocks=10**12), "model.blocks is 1000000000000"),
        (TarFlowConfig(blocks=100, layers=100), "ask for 10000 layers"),
        (TransformerConfig(width=30), "model.width must be a multiple of model.heads"),
        (TransformerConfig(heads=6, kv_heads=4, width=24), "model.heads must be a multiple of model.kv_heads"),
        (TransformerConfig(width=12), "heads must be of even size"),
        (UNetConfig(groups=3), "model.channels must be multiples of model.groups"),
    ],
)
def test_sizes_that_no_memory_holds_or_heads_cannot_share_are_named(config, message):
    with pytest.raises(InputError, match=message):
        check_settings(config, "model")
