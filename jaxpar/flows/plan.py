"""How to invert a flow: which transformations converge quickly, from where, in windows of what size.

Both metrics are those of GS-Jacobi (arXiv 2505.12849, sections 4.2 and 4.3), measured on images going forward, where
nothing is sequential.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int

from jaxpar.checks import number, of_kind, whole
from jaxpar.core import InputError, Jacobi, Plan, Replay, Sequential, Sliding, Solver, Within, solve, tune
from jaxpar.core.measure.clock import in_turns
from jaxpar.documents import quoted, read_object
from jaxpar.flows.inverse import STARTS, Inversion, drafted_guess, drafts_of, inverse_of, inverted, started
from jaxpar.models import MetaBlock, TarFlow

Tokens = Float32[Array, "batch tokens elements"]

TOUGH, SIMPLE = 32, 1024
"""Windows, in tokens, of the plan that is made without a measurement: for few rounds, where windows cost little."""
TURNS = 5
"""How often two ways of inverting a block are timed."""
REFINEMENTS = {"jacobi": Jacobi(), "draft": Replay()}
"""By the names that they have in plans: Jacobi's iteration, or with a draft's corrections."""


def convergence_ranking(block: MetaBlock, tokens: Tokens, label: Int[Array, " batch"]) -> Float32[Array, ""]:
    """How hard a transformation is to invert by Jacobi's iteration: its Convergence Ranking Metric.

        mean |exp(log_scale) z| |W_log_scale| + |W_shift|                                       (equation 18)

    of tokens in the block's own order, with the spectral norms of the two halves of its last layer: an error of the
    tokens moves each token's scale by the first half, and its shift by the second.

    >>> from flax import nnx
    >>> from jaxpar.models import TarFlowConfig, build_tarflow
    >>> sizes = TarFlowConfig(patch=2, width=16, head=8, blocks=2, layers=1)
    >>> flow = build_tarflow(sizes, (4, 4, 1), 2, nnx.Rngs(0))
    >>> images, labels = jax.random.normal(jax.random.key(0), (3, 4, 4, 1)), jnp.asarray([0, 1, 2])
    >>> float(convergence_ranking(flow.blocks[0], flow.patches(images), labels))  # untrained
    0.0
    """
    _, shift = block.scale_and_shift(tokens, label)
    of_scale, of_shift = jnp.split(block.write.matrix, 2, axis=1)
    norm = jnp.sqrt(((tokens - shift) ** 2).sum(axis=(-2, -1))).mean()
    return norm * jnp.linalg.norm(of_scale, 2) + jnp.linalg.norm(of_shift, 2)


def initial_guessing(block: MetaBlock, tokens: Tokens, label: Int[Array, " batch"], start: str) -> Float32[Array, ""]:
    """How far from what they are a round of Jacobi's iteration leaves tokens: the Initial Guessing Metric (eq. 20).

    >>> from flax import nnx
    >>> from jaxpar.models import TarFlowConfig, build_tarflow
    >>> sizes = TarFlowConfig(patch=2, width=16, head=8, blocks=2, layers=1)
    >>> flow = build_tarflow(sizes, (4, 4, 1), 2, nnx.Rngs(0))
    >>> images, labels = jax.random.normal(jax.random.key(0), (3, 4, 4, 1)), jnp.asarray([0, 1, 2])
    >>> float(initial_guessing(flow.blocks[0], flow.patches(images), labels, "noise"))  # untrained
    0.0
    """
    log_scale, shift = block.scale_and_shift(tokens, label)
    noise = (tokens - shift) * jnp.exp(-log_scale)
    guess = noise if start == "noise" else jnp.zeros_like(noise).at[:, 0].set(noise[:, 0])
    log_scale, shift = block.scale_and_shift(guess, label)
    return jnp.sqrt(((noise * jnp.exp(log_scale) + shift - tokens) ** 2).sum(axis=(-2, -1))).mean()


@dataclass(frozen=True)
class BlockMetrics:
    """Of one transformation: both metrics, the second one from both starts, and its share of the first.

    >>> metrics = BlockMetrics(ranking=2.0, share=0.8, guessing={"noise": 1.0, "zeros": 0.5})
    >>> metrics.start, metrics.tough(blocks=2)
    ('zeros', True)
    """

    ranking: float
    share: float
    guessing: dict[str, float]

    @property
    def start(self) -> str:
        """The better one."""
        return min(self.guessing, key=self.guessing.__getitem__)

    def tough(self, blocks: int) -> bool:
        """Whether its share is half again what it would be if all blocks were alike."""
        return self.share > 1.5 / blocks


def measure_blocks(
    flow: TarFlow, image: Float[Array, "batch height width channels"], label: Int[Array, " batch"]
) -> list[BlockMetrics]:
    """The metrics of every block on some images, with the noise that the flow was trained with.

    Blocks that all rank 0, as those of an untrained flow do, have equal shares.

    >>> from flax import nnx
    >>> from jaxpar.models import TarFlowConfig, build_tarflow
    >>> sizes = TarFlowConfig(patch=2, width=16, head=8, blocks=2, layers=1)
    >>> flow = build_tarflow(sizes, (4, 4, 1), 2, nnx.Rngs(0))
    >>> images, labels = jax.random.normal(jax.random.key(0), (3, 4, 4, 1)), jnp.asarray([0, 1, 2])
    >>> [metrics.share for metrics in measure_blocks(flow, images, labels)]  # it is untrained: all are alike
    [0.5, 0.5]
    """
    tokens, results = flow.patches(image), []
    for block in flow.blocks:
        ordered = block.ordered(tokens)
        ranking = float(convergence_ranking(block, ordered, label))
        results.append((ranking, {start: float(initial_guessing(block, ordered, label, start)) for start in STARTS}))
        tokens = block.ordered(block(ordered, label)[0])
    total, even = sum(ranking for ranking, _ in results), 1 / len(results)
    return [BlockMetrics(ranking, ranking / total if total else even, guessing) for ranking, guessing in results]


def plan_blocks(
    metrics: Sequence[BlockMetrics], accept: Within = Within(1e-5), drafted: bool = False
) -> list[Inversion]:
    """A plan from the metrics alone: small windows where an error grows most, each block from its better start.

    For few rounds, as if a window took no longer than a step; where it does, `measured_plan` knows better. With a
    draft, whose corrections reach all tokens of a round, all windows are whole.

    >>> metrics = [BlockMetrics(ranking, ranking / 10, {"noise": 1.0, "zeros": 2.0}) for ranking in (9.0, 1.0)]
    >>> [how.solver.window.size for how in plan_blocks(metrics)]
    [32, 1024]
    """
    refine = REFINEMENTS["draft" if drafted else "jacobi"]
    return [
        Inversion(
            Solver(refine, accept, Sliding(TOUGH if score.tough(len(metrics)) and not drafted else SIMPLE)), score.start
        )
        for score in metrics
    ]


def measured_plan(
    flow: TarFlow,
    noise: Float32[Array, "tokens elements"],
    label: Int[Array, ""],
    metrics: Sequence[BlockMetrics],
    accept: Within = Within(1e-5),
    guidance: float = 0.0,
    draft: TarFlow | None = None,
) -> tuple[list[Inversion], list[Plan]]:
    """The fastest way here to invert each block, from its better start or by a draft; and what was measured of each.

    Some noise is inverted block by block, and what the blocks meet there is what each is measured on.

    >>> from flax import nnx
    >>> from jaxpar.models import TarFlowConfig, build_tarflow
    >>> sizes = TarFlowConfig(patch=2, width=16, head=8, blocks=2, layers=1)
    >>> flow = build_tarflow(sizes, (4, 4, 1), 2, nnx.Rngs(0))
    >>> images, labels = jax.random.normal(jax.random.key(0), (3, 4, 4, 1)), jnp.asarray([0, 1, 2])
    >>> noise, _ = flow(images, labels)
    >>> plan, tables = measured_plan(flow, noise[0], labels[0], measure_blocks(flow, images, labels))
    >>> len(plan), len(tables)
    (2, 2)
    """
    plan: list[Inversion] = []
    tables: list[Plan] = []
    tokens = noise
    for block, score, own in reversed(list(zip(flow.blocks, metrics, drafts_of(flow, draft), strict=True))):
        ordered = block.ordered(tokens)
        system = inverse_of(block, ordered, label, len(noise), guidance)
        plans = [tune(system, accept, refinements=[REFINEMENTS["jacobi"]], warm_start=started(ordered, score.start))]
        if own is not None:
            replay = inverse_of(block, ordered, label, len(noise), guidance, own)
            guess = drafted_guess(own, ordered, label, guidance)
            plans.append(tune(replay, accept, refinements=[REFINEMENTS["draft"]], warm_start=guess))
        ways = [Inversion(_sliding(each.solver, system.steps), score.start) for each in plans]
        best = 0 if own is None else _fastest(block, ordered, label, guidance, own, ways)
        plan.append(ways[best])
        tables.append(plans[best])
        tokens = block.ordered(jnp.concatenate([ordered[:1], solve(system, Sequential()).states]))
    return plan[::-1], tables[::-1]


def _fastest(
    block: MetaBlock,
    noise: Float32[Array, "tokens elements"],
    label: Int[Array, ""],
    guidance: float,
    draft: MetaBlock | None,
    ways: Sequence[Inversion],
) -> int:
    """Which of some ways to invert a block takes the fewest seconds, guesses included."""

    def run(how):
        return jax.jit(lambda block, draft, noise, label: inverted(block, noise, label, how, guidance, draft).states)

    runs, inputs = {str(way): run(how) for way, how in enumerate(ways)}, (block, draft, noise, label)
    for compiled in runs.values():
        jax.block_until_ready(compiled(*inputs))
    timing = in_turns(runs, [inputs] * TURNS)
    return int(min(runs, key=timing.median))


def _sliding(solver: Solver | Sequential, steps: int) -> Solver | Sequential:
    """The same with a window of a number of tokens, as plans are written."""
    return replace(solver, window=Sliding(solver.window.span(steps))) if isinstance(solver, Solver) else solver


def write_plan(path: Path, plan: Sequence[Inversion]) -> None:
    """A plan as JSON: of each block the window, 1 for the sequential run, else its tolerance and refinement, and the
    start.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "plan.json"
    >>> write_plan(path, [Inversion()])
    >>> path.read_text().count('window')
    1
    """
    of_kind("path", path, Path, "it must be a pathlib.Path")
    of_kind("plan", plan, Sequence, "it must be an Inversion for each block")
    path.write_text(json.dumps({"blocks": [_row(how) for how in plan]}, indent=2) + "\n")


def _row(how: Inversion) -> dict[str, Any]:
    if isinstance(how.solver, Sequential):
        return {"window": 1, "start": how.start}
    window, accept = how.solver.window, how.solver.accept
    if not isinstance(window, Sliding) or not isinstance(accept, Within):
        raise InputError(f"a plan of {window} and {accept} cannot be written; take Sliding windows and Within")
    refine = "draft" if how.drafted else "jacobi"
    return {"window": window.size, "atol": float(accept.atol), "start": how.start, "refine": refine}


def read_plan(path: Path) -> list[Inversion]:
    """The plan of a file that `write_plan` wrote; raises InputError, one line, for any other.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "plan.json"
    >>> write_plan(path, [Inversion()])
    >>> read_plan(path) == [Inversion()]
    True
    """
    document = read_object(of_kind("path", path, Path, "it must be a pathlib.Path"))
    rows = document.get("blocks")
    if document.keys() != {"blocks"} or not isinstance(rows, list) or not rows:
        raise InputError(f"{path} is no plan of a flow's inverse; it must be an object of blocks, a list of settings")
    return [_inversion(f"{path} is no plan of a flow's inverse: block {i}", row) for i, row in enumerate(rows)]


def _inversion(where: str, row: Any) -> Inversion:
    """How one block is inverted, by its settings in a plan."""
    of_kind(where, row, dict, "it must be an object of settings")
    window = whole(f"{where}'s window", row.get("window"), least=1)
    names = {"window", "start"} if window == 1 else {"window", "start", "atol", "refine"}
    if row.keys() != names:
        raise InputError(f"{where} sets {', '.join(map(quoted, row))}; it must set {', '.join(sorted(names))}")
    for name, choices in (("start", STARTS), ("refine", tuple(REFINEMENTS))):
        if name in names and row[name] not in choices:
            raise InputError(f"{where}'s {name} is {quoted(row[name])}; it must be one of {', '.join(choices)}")
    if window == 1:
        return Inversion(Sequential(), row["start"])
    atol = float(number(f"{where}'s atol", row["atol"], least=0.0))
    return Inversion(Solver(REFINEMENTS[row["refine"]], Within(atol), Sliding(window)), row["start"])
