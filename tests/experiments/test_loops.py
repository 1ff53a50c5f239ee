"""The loops of workloads, as they are planned: the programs that run, for shapes."""

from dataclasses import replace

import jax
import pytest

from experiments._frame.config_files import configured
from experiments._frame.loops import Loop, Way, estimated
from experiments.flow.assembly import assemble
from experiments.flow.plan import inverse_loop
from experiments.generation.plan import text_loop
from experiments.numerals.assembly import workload
from experiments.numerals.plan import numeral_loop
from jaxpar import InputError
from jaxpar.sharding import MeshConfig, make_mesh, make_partition


def read(config, *changes):
    return configured(f"configs/{config}", list(changes))


def runs(loop):
    """That every way is a program of its arguments."""
    for way in (loop.alone, *loop.rounds.values()):
        assert jax.tree.leaves(jax.eval_shape(way.run, *way.arguments))


def test_a_text_is_decoded_by_every_drafter_that_there_is():
    partition = replace(make_partition(MeshConfig()), leading=())
    loop = text_loop(read("generate.py:tiny", ("drafter.size", "4")), partition)
    assert (loop.steps, loop.alone.steps) == (64, 1)
    assert {"jacobi", "lookup", "coupled", "rejection", "several", "self"} <= set(loop.rounds)
    assert (loop.rounds["jacobi"].steps, loop.rounds["coupled"].steps) == (5, 5)
    runs(loop)


def test_an_inverse_is_planned_with_its_draft():
    loop = inverse_loop(assemble(read("tarflow.py:tiny", ("draft.images", "16"))))
    assert loop.steps == loop.alone.steps == loop.rounds["whole"].steps == 2 * 63
    assert loop.rounds["window 16, draft"].steps == 2 * 16
    runs(loop)


def test_letters_are_planned_by_algorithm():
    config = read("numerals.py:tiny")
    loop = numeral_loop(config, workload(config))
    assert list(loop.rounds) == ["jacobi", "gauss-seidel-jacobi", "sliding"]
    runs(loop)


def test_what_computes_at_an_unknown_speed_is_refused():
    way = Way(lambda x: x + 1, (jax.ShapeDtypeStruct((4,), "float32"),), 4)
    with pytest.raises(InputError, match="how fast a cpu computes is not known here"):
        list(estimated([Loop("4 steps", 4, way, {})], make_mesh(MeshConfig())))
