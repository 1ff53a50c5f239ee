"""What results tell of their likeness to one token after the other."""

import jax.numpy as jnp

import jaxpar
from jaxpar import Exactness
from jaxpar.decoding import Coupled, Drafter, MultiDraft, PromptLookup, Rejection, SpeculativeJacobi, decode
from tests.decoding.test_exact import Counter


def test_drafters_tell_what_they_leave_of_a_text():
    assert {each.exactness for each in (Drafter, Coupled, PromptLookup)} == {Exactness.TOKENS}
    assert {each.exactness for each in (Rejection, MultiDraft, SpeculativeJacobi)} == {Exactness.LAW}


def test_results_tell_it_too():
    prompt, length = jnp.asarray([[1, 2]]), jnp.asarray([2])
    assert decode(Counter(), prompt, length, 2).exactness == "tokens"
    assert decode(Counter(), prompt, length, 2, SpeculativeJacobi(2)).exactness == "law"
    solution = jaxpar.solve(jaxpar.Recurrence(lambda s, x: (s, None), 0.0, length=3))
    assert solution.exactness == "trajectory"
