"""What a step holds beyond its arrays where weights are shared out: read in the compiled program."""

import jax
import numpy as np
import pytest

from tests.experiments.training.test_meshes import language, workload


def needs(remat):
    """Bytes of all weights of a deep model, and of a device's workspace where a batch weighs next to nothing."""
    config = language(fsdp=8)
    sizes = config.model
    sizes.length, sizes.width, sizes.hidden, sizes.heads, sizes.kv_heads, sizes.blocks = 4, 64, 256, 2, 2, 6
    config.text.batch, config.text.path, config.compute.remat = 8, __file__, remat
    work = workload(config)
    trainer = work.trainer
    batch = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=trainer.batch_sharding),
        work.train.take(np.arange(work.batch)),
    )
    compiled = trainer.step.lower(trainer.abstract, batch).compile()
    whole = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(trainer.abstract.params))
    return whole, compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.slow
def test_only_with_remat_a_step_does_without_a_whole_copy_of_the_weights():
    """Between steps a device has an eighth of them; in a step what was gathered stays until its gradient is there."""
    whole, workspace = needs("none")
    assert workspace > whole
    assert needs("full")[1] < 0.75 * whole
