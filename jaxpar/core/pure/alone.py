"""Random numbers and callbacks under `vmap`, as each entry would have them alone.

`vmap` of a function returns what the function returns for each entry, with two exceptions: keys of the generators
"rbg" and "unsafe_rbg" draw other numbers for a batch than one by one, and a `pure_callback` may refuse batches. A
parallel evaluation that met other noise than the sequential run would converge to another trajectory. So these
operations, and they alone, are mapped over the entries one after the other; all that follows from them stays parallel.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
from jax.custom_batching import sequential_vmap
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from jaxpar.core.entries import vary_along

ALIKE = ("random_wrap", "random_unwrap", "random_clone", "random_seed")
"""What is done with keys of any generator and draws nothing."""
BATCHED = "key<fry>"
"""The dtype of threefry's keys, whose numbers are the same under `vmap`."""
PINNED = "pvary"
"""What makes a value vary along an axis of a `shard_map`, and takes none that does already."""


def inner_jaxprs(eqn: JaxprEqn) -> Iterator[Jaxpr]:
    """The jaxprs among an equation's parameters."""
    for value in eqn.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, Jaxpr):
                yield item


def every_equation(jaxpr: Jaxpr) -> Iterator[JaxprEqn]:
    """The equations of a jaxpr and of all within it."""
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in inner_jaxprs(eqn):
            yield from every_equation(inner)


def draws(jaxpr: Jaxpr) -> bool:
    """Whether a batch of such programs would not do what each does alone."""
    return any(_differs(eqn) for eqn in every_equation(jaxpr))


def pins(jaxpr: Jaxpr) -> bool:
    """Whether a program asks for values that do not vary yet along an axis of a `shard_map`, as in rounds they do."""
    return any(eqn.primitive.name == PINNED for eqn in every_equation(jaxpr))


def evaluate_alone(jaxpr: Jaxpr, consts: Any, *arguments: Any) -> list[Any]:
    """`jax.core.eval_jaxpr`, in which such operations are mapped one after the other wherever `vmap` maps them."""

    def opened(eqn: JaxprEqn) -> bool:  # most of what it holds is plain arithmetic on what it draws
        return eqn.primitive.name == "jit" and any(draws(inner) or pins(inner) for inner in inner_jaxprs(eqn))

    def done(eqn: JaxprEqn, one: Any) -> Any:
        return sequential_vmap(one) if _differs(eqn) or any(map(draws, inner_jaxprs(eqn))) else one

    return evaluate(jaxpr, consts, *arguments, opened=opened, done=done)


def evaluate(jaxpr: Jaxpr, consts: Any, *arguments: Any, opened: Any, done: Any = lambda eqn, one: one) -> list[Any]:
    """`jax.core.eval_jaxpr`, inside of those inner `jit`s too that are `opened`; `done(eqn, one)` does an equation."""
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *arguments), strict=True))

    def read(atoms: Any) -> list[Any]:
        return [atom.val if isinstance(atom, Literal) else values[atom] for atom in atoms]

    for eqn in jaxpr.eqns:
        if opened(eqn):
            inner = eqn.params["jaxpr"]
            results = evaluate(inner.jaxpr, inner.consts, *read(eqn.invars), opened=opened, done=done)
        elif eqn.primitive.name == PINNED:
            results = vary_along(read(eqn.invars), frozenset(eqn.params["axes"]))
        else:
            variables = list(dict.fromkeys(atom for atom in eqn.invars if not isinstance(atom, Literal)))
            alone = jaxpr.replace(eqns=[eqn], constvars=variables, invars=[], outvars=eqn.outvars)
            one = done(eqn, partial(jax.core.eval_jaxpr, alone))
            results = one([values[variable] for variable in variables])
        values.update(zip(eqn.outvars, results, strict=True))
    return read(jaxpr.outvars)


def holds_constants(eqn: JaxprEqn) -> bool:
    """Whether an inner `jit` closes over arrays of its own, at any depth."""
    if eqn.primitive.name != "jit":
        return False
    inner = eqn.params["jaxpr"]
    return bool(inner.consts) or any(map(holds_constants, inner.jaxpr.eqns))


def drawn(draw: Callable[..., Any], key: Any, *arguments: Any) -> Any:
    """What `draw` makes of a key by itself, whatever `vmap` is around it."""
    one = draw if str(key.dtype) == BATCHED else sequential_vmap(draw)
    return one(key, *arguments)


def _differs(eqn: JaxprEqn) -> bool:
    name = eqn.primitive.name
    if name in ("rng_bit_generator", "rng_uniform"):
        return True
    if name == "pure_callback":
        return eqn.params.get("vmap_method") is None
    if not name.startswith("random_") or name in ALIKE:
        return False
    return any(
        jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key) and str(dtype) != BATCHED
        for dtype in (getattr(atom.aval, "dtype", None) for atom in eqn.invars)
    )
