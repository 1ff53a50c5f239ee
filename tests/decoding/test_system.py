"""A text as a system of equations, and models that only look causal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpar import Blocks, Equal, InputError, Jacobi, Sequential, Sliding, Solver, Status, solve
from jaxpar.decoding import Drafter, Law, PromptLookup, check_language_model, decode, fastest, text_system
from tests.decoding.models import shaken
from tests.stages import slowly

NEW = 20
PROMPT = jnp.asarray([3, 1, 4, 1, 5])


@pytest.mark.parametrize("law", [Law(temperature=0.9, top_k=5), *slowly([Law(temperature=0.0)])])
def test_the_engine_decodes_the_same_text(law):
    model, key = shaken(), jax.random.key(3)
    want = decode(model, PROMPT[None], jnp.asarray([5]), NEW, law=law, keys=key[None]).tokens[0, 5 : 5 + NEW]
    for solver in (Sequential(), *(Solver(Jacobi(), Equal(), window) for window in (Sliding(6), Blocks(5)))):
        solution = solve(text_system(model, PROMPT, NEW, 6, law, key), solver)
        np.testing.assert_array_equal(solution.states, want)
        assert solution.status == Status.CONVERGED


class Seer:
    """A model that reads one token ahead."""

    def __init__(self, model):
        self.model, self.vocabulary, self.context = model, model.vocabulary, model.context
        self.empty_cache = model.empty_cache

    def following(self, tokens, cache, window):
        ahead = jnp.eye(len(tokens), dtype=bool) | jnp.eye(len(tokens), k=1, dtype=bool)
        return self.model.following(tokens, cache, window._replace(sees=ahead | jnp.tril(ahead)))


def test_a_model_that_reads_ahead_is_found_out():
    check_language_model(shaken())
    with pytest.raises(
        InputError, match=r"the model is not causal: its logits after token . change by .* with token ."
    ):
        check_language_model(Seer(shaken()), 8)


def test_the_fastest_is_told():
    comparison = fastest(
        shaken(), PROMPT[None, None], jnp.asarray([[5]]), NEW, {"lookup": PromptLookup(3), "none": Drafter()}
    )
    assert set(comparison.seconds) == {"sequential", "lookup", "none"}
    assert comparison.tokens == {"sequential": NEW, "lookup": NEW, "none": NEW}
    assert comparison.chosen in str(comparison)
