"""What keeps a step from being evaluated at guesses: effects, and inner loops that a guess may never end."""

from collections.abc import Sequence
from typing import Any

import jax
from jax.extend.core import Jaxpr, JaxprEqn, Literal

from jaxpar.core.pure.alone import every_equation, inner_jaxprs


def obstacle(jaxpr: Jaxpr, states: Sequence[bool]) -> str | None:
    """Why a step cannot be evaluated at guesses, in words; None if it can. `states` marks the inputs that are guesses.

    A parallel solve evaluates a step more often than once, in no order, at states that the computation never has. So a
    step must have no effect, must not wait for other devices or samples, and must end whatever its state is.
    """
    watched = jax.config.jax_debug_key_reuse  # type: ignore[attr-defined]
    if watched and any(map(_is_key, (*jaxpr.constvars, *jaxpr.invars))):
        return "would use its random keys in every round, which jax_debug_key_reuse forbids; turn that off here"
    for eqn in every_equation(jaxpr):
        kinds = {type(effect).__name__ for effect in eqn.effects} if not list(inner_jaxprs(eqn)) else set()
        if "NamedAxisEffect" in kinds:
            if eqn.primitive.name != "axis_index":
                return f"communicates along a named axis ({eqn.primitive.name})"
        elif kinds & {"ReadEffect", "WriteEffect", "AccumEffect"}:
            return f"reads or writes a mutable reference ({eqn.primitive.name})"
        elif kinds:
            return f"has an effect ({eqn.primitive.name})"
    if _endless(jaxpr, states)[1]:
        return (
            "holds a while loop whose end depends on the state, and a guess may never end it; give the loop a counter "
            "with a bound"
        )
    return None


def _is_key(atom: Any) -> bool:
    dtype = getattr(atom.aval, "dtype", None)  # references have none
    return dtype is not None and jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key)


def dependents(jaxpr: Jaxpr, marked: Sequence[bool]) -> list[bool]:
    """Which results depend on the marked inputs."""
    return _endless(jaxpr, marked)[0]


def _endless(jaxpr: Jaxpr, marked: Sequence[bool]) -> tuple[list[bool], bool]:
    """Which results depend on the marked inputs, and whether a while loop may run on for ever because of them."""
    tainted = {var for var, mark in zip(jaxpr.invars, marked, strict=True) if mark}
    endless = False
    for eqn in jaxpr.eqns:
        marks = [not isinstance(atom, Literal) and atom in tainted for atom in eqn.invars]
        if any(marks):
            results, inside = _through(eqn, marks)
            endless |= inside
            tainted.update(var for var, mark in zip(eqn.outvars, results, strict=True) if mark)
    return [not isinstance(atom, Literal) and atom in tainted for atom in jaxpr.outvars], endless


def _through(eqn: JaxprEqn, marks: list[bool]) -> tuple[list[bool], bool]:
    name, parameters = eqn.primitive.name, eqn.params
    if name == "while":
        ends = parameters["cond_nconsts"], parameters["cond_nconsts"] + parameters["body_nconsts"]
        of_cond, of_body, carry = marks[: ends[0]], marks[ends[0] : ends[1]], marks[ends[1] :]
        condition, body = parameters["cond_jaxpr"].jaxpr, parameters["body_jaxpr"].jaxpr
        carry, endless = _fixed(body, of_body, carry, [])
        (decides,), inside = _endless(condition, [*of_cond, *carry])
        return carry, endless | inside | (decides and not _bounded(condition, body, [*of_cond, *carry], len(of_body)))
    if name == "scan":
        inner = parameters["jaxpr"].jaxpr
        constants, carried = _sizes_of_scan(parameters)
        consts, carry, inputs = marks[:constants], marks[constants:][:carried], marks[constants + carried :]
        carry, endless = _fixed(inner, consts, carry, inputs)
        results, _ = _endless(inner, [*consts, *carry, *inputs])
        return results, endless
    if name == "cond":
        selector, operands = marks[0], marks[1:]
        branches = [_endless(branch.jaxpr, operands) for branch in parameters["branches"]]
        results = [selector or any(marks) for marks in zip(*(of for of, _ in branches), strict=True)]
        return results, any(endless for _, endless in branches)
    endless = False
    for inner in inner_jaxprs(eqn):
        same = len(inner.invars) == len(marks)
        results, inside = _endless(inner, marks if same else [True] * len(inner.invars))
        endless |= inside
        if same and name == "jit":
            return results, endless
    return [True] * len(eqn.outvars), endless


def _sizes_of_scan(parameters: dict[str, Any]) -> tuple[int, int]:
    """How many constants and carried values a scan has, in the words of any release of JAX."""
    if "ft_in" in parameters:  # as in JAX 0.12
        constants, carried, _ = map(len, parameters["ft_in"].unpack())
        return constants, carried
    return parameters["num_consts"], parameters["num_carry"]


def _fixed(body: Jaxpr, consts: list[bool], carry: list[bool], inputs: list[bool]) -> tuple[list[bool], bool]:
    """Which of a loop's carried values come to depend on what is marked."""
    while True:
        results, endless = _endless(body, [*consts, *carry, *inputs])
        after = [old or new for old, new in zip(carry, results[: len(carry)], strict=True)]
        if after == carry:
            return carry, endless
        carry = after


def _bounded(condition: Jaxpr, body: Jaxpr, marks: list[bool], consts: int) -> bool:
    """Whether a loop goes on only while a counter that the marked values do not touch says so too."""
    makers = {var: eqn for eqn in condition.eqns for var in eqn.outvars}

    def source(atom: Any) -> Any:
        """The variable that an atom is another dtype of."""
        while atom in makers and makers[atom].primitive.name == "convert_element_type":
            atom = makers[atom].invars[0]
        return atom

    parts, conjuncts = [condition.outvars[0]], []
    while parts:
        eqn = makers.get(source(parts.pop()))
        if eqn is not None and eqn.primitive.name == "and":
            parts += [atom for atom in eqn.invars if not isinstance(atom, Literal)]
        elif eqn is not None:
            conjuncts.append((eqn.primitive.name, [atom for atom in eqn.invars if not isinstance(atom, Literal)]))
    count = len(body.outvars)
    moving = {
        var
        for var, before, after in zip(condition.invars[-count:], body.invars[consts:], body.outvars, strict=True)
        if before is not after
    }
    untouched = {var for var, mark in zip(condition.invars, marks, strict=True) if not mark}
    return any(
        name in ("lt", "le", "gt", "ge")
        and any(source(atom) in moving for atom in atoms)
        and all(source(atom) in untouched for atom in atoms)
        for name, atoms in conjuncts
    )
