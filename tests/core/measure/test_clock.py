"""The one clock: whom it takes, and that it takes turns."""

import time

import jax.numpy as jnp

from jaxpar.core.measure.clock import fastest, in_turns, median_seconds, timed


def test_contestants_take_turns_on_every_input():
    seen = []

    def contestant(name, wait):
        def run(x):
            seen.append((name, x))
            time.sleep(wait)
            return x + 1

        return run

    timing = in_turns({"slow": contestant("slow", 0.02), "quick": contestant("quick", 0)}, [(1,), (2,), (3,)])
    assert [x for _, x in seen] == [1, 1, 2, 2, 3, 3]
    assert timing.results == {"slow": [2, 3, 4], "quick": [2, 3, 4]}
    assert timing.median("slow") >= 0.02 > timing.median("quick")
    assert timing.total("slow") >= 0.06


def test_the_usual_way_is_left_only_for_a_gain():
    seconds = {"usual": 1.0, "other": 0.92, "worse": 1.5}
    assert fastest(seconds, "usual", 0.9) == "usual"
    assert fastest(seconds, "usual", 0.95) == "other"
    assert fastest({"usual": 1.0}, "usual", 0.9) == "usual"


def test_a_call_is_timed_until_its_results_are_there():
    seconds, result = timed(lambda x: x + 1, jnp.ones(3))
    assert seconds > 0
    assert (result == 2).all()
    assert median_seconds(lambda: time.sleep(0.01)) >= 0.01
