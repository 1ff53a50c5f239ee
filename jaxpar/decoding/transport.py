"""Which of several drafts becomes the token, so that its law is the target's (SpecTr, arXiv 2310.15141).

Drafts x_1 .. x_k are drawn from q independently, the token is to have the law p: a coupling, and the chance that it is
one of the drafts is its acceptance. The best coupling is a linear program of the vocabulary's size to the k + 1;
k-sequential selection comes within a factor of 1 - 1/e of it, at next to no cost.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Float64, Int, PRNGKeyArray

from jaxpar.checks import real_array, shown, whole
from jaxpar.core import InputError
from jaxpar.decoding import noise

Chances = Float32[Array, " vocabulary"]
MOST = 4096
"""Tuples of drafts that the best coupling is found for: its program is of their number squared."""


def division(p: Chances, q: Chances, count: int, halvings: int = 30) -> Float32[Array, ""]:
    """rho of k-sequential selection: 1 - (1 - beta)^k = rho beta, beta = sum of min(q, p / rho), in [1, k].

    (arXiv 2310.15141, algorithm 3 and theorem 2), by bisection: the left side less the right one falls.

    >>> p, q = jnp.asarray([0.5, 0.5]), jnp.asarray([0.25, 0.75])
    >>> 1 <= float(division(p, q, 2)) <= 2
    True
    """
    _check_laws(p, q, count)
    whole("halvings", halvings, least=0)

    def halved(_, bounds):
        low, high = bounds
        middle = (low + high) / 2
        beta = jnp.minimum(q, p / middle).sum()
        above = 1 - (1 - beta) ** count > middle * beta
        return jnp.where(above, middle, low), jnp.where(above, high, middle)

    # The upper end satisfies rho beta >= 1 - (1 - beta)^k, which is what keeps the law exact.
    return jax.lax.fori_loop(0, halvings, halved, (jnp.float32(1), jnp.float32(count)))[1]


def k_sequential(
    p: Chances, q: Chances, drafts: Int[Array, " count"], usable: Array, key: PRNGKeyArray
) -> tuple[Int[Array, ""], Array]:
    """The token, and whether it is one of the drafts: each in turn is taken with probability min(1, p / (rho q)).

    >>> p, q = jnp.asarray([0.5, 0.5]), jnp.asarray([0.25, 0.75])
    >>> drafts, usable = jnp.asarray([1, 1]), jnp.asarray([True, True])
    >>> token, taken = k_sequential(p, q, drafts, usable, jax.random.key(0))
    >>> bool(taken) == (int(token) == 1)
    True

    Args:
      p, q: laws of the token and of each draft.
      usable: which of the drafts are there to be taken; the others are as if they had never been drawn.
      key: of the decisions.
    """
    count = drafts.shape[0]
    trials = usable.sum().astype(jnp.float32)
    # With fewer drafts rho is another; all are found at once, and the right one taken.
    divisions = jnp.stack([division(p, q, max(k, 1)) for k in range(count + 1)])
    rho = divisions[usable.sum()]
    for_taking, for_rest = noise.split(key)
    chance = jnp.minimum(1, p[drafts] / (rho * jnp.maximum(q[drafts], 1e-38)))
    accepted = usable & (noise.uniform(for_taking, (count,)) < chance)
    beta = jnp.minimum(q, p / rho).sum()
    success = 1 - (1 - beta) ** trials
    rest = jnp.maximum(p - jnp.minimum(q, p / rho) * success / jnp.maximum(beta, 1e-38), 0)
    rest = jnp.where(rest.sum() > 0, rest, p)
    substitute = noise.categorical(for_rest, jnp.log(rest))
    return jnp.where(accepted.any(), drafts[jnp.argmax(accepted)], substitute), accepted.any()


def k_sequential_acceptance(p: Chances, q: Chances, count: int) -> Float32[Array, ""]:
    """The chance that k-sequential selection takes one of the drafts.

    >>> p, q = jnp.asarray([0.5, 0.5]), jnp.asarray([0.25, 0.75])
    >>> one, two = (float(k_sequential_acceptance(p, q, count)) for count in (1, 2))
    >>> round(one, 4), one < two
    (0.75, True)
    """
    _check_laws(p, q, count)
    beta = jnp.minimum(q, p / division(p, q, count)).sum()
    return 1 - (1 - beta) ** count


def _check_laws(p: Any, q: Any, count: int) -> None:
    """Raises InputError unless there are two laws of the same tokens, and a number of drafts."""
    real_array("p", p, 1)
    real_array("q", q, 1)
    if len(p) != len(q):
        raise InputError(f"q is {shown(q)}; it must be a law of {len(p)} tokens, as p is")
    whole("count", count, least=1)


Law = Float64[np.ndarray, " vocabulary"]


def optimal_acceptance(p: Law, q: Law, count: int) -> float:
    """That of the best coupling, by linear programming; for a handful of tokens and drafts (eq. 5).

    >>> import numpy as np
    >>> p, q = np.asarray([0.5, 0.5]), np.asarray([0.25, 0.75])
    >>> round(optimal_acceptance(p, q, 1), 4)
    0.75
    """
    from scipy.optimize import linprog  # half a second of import that only this needs

    _check_laws(p, q, count)
    p, q, size = np.asarray(p), np.asarray(q), len(p)
    if size ** min(count, 64) > MOST:
        raise InputError(f"{count} drafts of {size} tokens: too many for a linear program of at most {MOST} tuples")
    tuples = list(itertools.product(range(size), repeat=count))
    law = np.array([np.prod(q[list(drafts)]) for drafts in tuples])
    # chosen[tuple, token]: the token's law given the drafts; its mean over them is p, of which the last entry follows.
    cost = np.array(
        [-chance * (token in drafts) for drafts, chance in zip(tuples, law, strict=True) for token in range(size)]
    )
    of_drafts = np.kron(np.eye(len(tuples)), np.ones(size))
    of_token = np.kron(law, np.eye(size))[:-1]
    marginals = np.concatenate([np.ones(len(tuples)), p[:-1]])
    solution = linprog(cost, A_eq=np.vstack([of_drafts, of_token]), b_eq=marginals, method="highs")
    return -float(solution.fun)
