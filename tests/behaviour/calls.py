"""Some seventy calls of the public surface, each small; what they return is compared, number by number."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from jaxpar import core as c
from jaxpar import decoding, diffusion, flows, models, quality, training
from tests.decoding.models import shaken
from tests.diffusion.mixture import denoiser

KEY = jax.random.key(0)
PROCESS = diffusion.VariancePreserving(1000, "linear")
FLOW = diffusion.FlowMatching()
GRID = diffusion.evenly(PROCESS, 12)
WEIGHTS = 0.3 * jax.random.normal(jax.random.key(1), (5, 5))
XS = jax.random.normal(jax.random.key(2), (40, 5))


def step(state, x):
    state = jnp.tanh(WEIGHTS @ state) + x
    return state, state.sum()


SYSTEM = c.Recurrence(step, jnp.zeros(5), XS)
DESCENT = c.Split(lambda s, x: jnp.sin(s), lambda s, g, x: (s - 0.1 * g + x, g.sum()), jnp.ones(5), 0.01 * XS)
TOLERANCE = c.Within(1e-5)


def solved(solver: Any, system: Any = SYSTEM, **more: Any) -> Any:
    """What a solution says, but for residuals, which are roundings."""
    solution = c.solve(system, solver, **more)
    return told(solution)


def told(solution: Any) -> Any:
    return {
        "states": solution.states, "outputs": solution.outputs, "final": solution.final, "status": solution.status,
        "rounds": solution.rounds, "committed": solution.committed,
    }  # fmt: skip


def gradient(solver: Any) -> Any:
    def loss(init, weights):
        def one(state, x):
            return jnp.tanh(weights @ state) + x, None

        return (c.scan(one, init, XS, solver=solver)[0] ** 2).sum()

    return jax.grad(loss, (0, 1))(jnp.ones(5), WEIGHTS)


def sampled(sampler: Any, prediction: str = "x0", process: Any = PROCESS, solver: Any = c.Sequential()) -> Any:
    told = denoiser(process, prediction)
    solution = c.solve(diffusion.sampling_system(told, sampler, KEY, (3, 3)), solver)
    return {"final": solution.final, "rounds": solution.rounds, "status": solution.status}


def method(make: Callable[..., Any]) -> Any:
    sampler = diffusion.ddim(GRID)
    return sampled(sampler, solver=make(sampler))


def of_denoiser(call: Callable[..., Any], sampler: Any, **rest: Any) -> Any:
    return call(denoiser(PROCESS, "x0"), sampler, KEY, (3, 3), **rest)


LAW = decoding.Law(temperature=0.8, top_k=6, top_p=0.9)


def decoded(make: Callable[[], Any], law: Any = LAW) -> Any:
    model, drafter = shaken(), make()
    prompts, lengths = jnp.asarray([[3, 1, 4, 1, 5], [9, 12, 12, 12, 12]]), jnp.asarray([5, 1])
    keys = jax.random.split(jax.random.key(5), 2)
    found = jax.jit(lambda keys: decoding.decode(model, prompts, lengths, 20, drafter, law=law, keys=keys))(keys)
    return {"tokens": found.tokens, "length": found.length, "rounds": found.rounds, "settled": found.settled}


def draft() -> Any:
    return shaken(3)


def tarflow(inversion: Any) -> Any:
    sizes = models.TarFlowConfig(patch=2, width=32, head=16, blocks=2, layers=1)
    graph, weights = nnx.split(models.build_tarflow(sizes, (8, 6, 2), 3, nnx.Rngs(0)))
    keys = iter(jax.random.split(jax.random.key(1), 1000))
    flow = nnx.merge(graph, jax.tree.map(lambda w: w + 0.05 * jax.random.normal(next(keys), w.shape), weights))
    image = jax.random.normal(jax.random.key(2), (8, 6, 2))
    noise, volume = flow(image[None], jnp.asarray([1]))
    back, solutions = flows.images_of(flow, noise[0], jnp.int32(1), [inversion] * 2)
    return noise, volume, back, [solution.rounds for solution in solutions]


def glow(solve: str) -> Any:
    flow = flows.build_glow(flows.GlowConfig(2, 3, 8, solve), (6, 4, 1), nnx.Rngs(0))
    image = jax.random.normal(jax.random.key(2), (1, 6, 4, 1))
    noise, volume = flow(image, jnp.zeros(1, jnp.int32))
    return noise, volume, flow.images(noise)


def wavefront() -> Any:
    kernel = flows.masked_kernel(0.3 * jax.random.normal(jax.random.key(3), (3, 3, 2, 2)))
    image = jax.random.normal(jax.random.key(4), (5, 7, 2))
    return flows.masked_convolution(image, kernel), flows.inverse_convolution(image, kernel)


def made(solver: Any) -> Any:
    sizes = models.MADEConfig(entries=20, levels=5, hidden=48, layers=2)
    noise = jax.random.gumbel(jax.random.key(1), (20, 5))
    draw = lambda logits, noise: (logits + noise).argmax().astype(jnp.int32)  # noqa: E731
    return told(c.solve(flows.drawing(models.build_made(sizes, nnx.Rngs(0)), draw, noise, jnp.int32(0)), solver))


def trained() -> Any:
    """Three steps of a small language model by the library's own step, saved and restored."""
    sizes = models.TransformerConfig(vocabulary=13, length=16, width=16, hidden=24, heads=2, kv_heads=1, blocks=1)
    graph, weights = nnx.split(models.build_transformer(sizes, nnx.Rngs(0)))
    tokens = jax.random.randint(jax.random.key(3), (4, 16), 0, 13)
    losses = []

    @jax.jit
    def one(weights):
        loss, slopes = jax.value_and_grad(lambda w: models.next_token_loss(nnx.merge(graph, w), tokens))(weights)
        return jax.tree.map(lambda w, g: w - 0.1 * g, weights, slopes), loss

    for _ in range(3):
        weights, loss = one(weights)
        losses.append(loss)
    with tempfile.TemporaryDirectory() as folder:
        state = {"weights": nnx.to_pure_dict(weights), "key": jax.random.key_data(KEY)}
        checkpoints = training.Checkpoints(Path(folder) / "checkpoints", {})
        checkpoints.save(3, state, {})
        checkpoints.close()
        asked = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)
        restored = training.Checkpoints(Path(folder) / "checkpoints", {}).restore(asked)
    return losses, restored.state, restored.step


def distilled(solver: Any) -> Any:
    with jax.numpy_dtype_promotion("standard"):
        system = diffusion.distillation(
            lambda image, key: image,
            denoiser(PROCESS, "x0"),
            PROCESS,
            optax.adam(0.02),
            jnp.zeros((2, 2)),
            KEY,
            30,
        )
        return told(c.solve(system, solver))["final"]


def packed() -> Any:
    system = c.Recurrence(step, jnp.zeros((3, 5)), jnp.stack([XS, 0.5 * XS, -XS]))
    return told(jax.jit(lambda: c.solve_packed(system, 24, c.Solver(accept=TOLERANCE, window=c.Sliding(16))))())


SAMPLERS: dict[str, Callable[[], Any]] = {
    "ddim": lambda: diffusion.ddim(GRID),
    "ddim, eta": lambda: diffusion.ddim(GRID, eta=0.5),
    "ddpm": lambda: diffusion.ddpm(GRID),
    "euler": lambda: diffusion.euler(GRID),
    "ancestral euler": lambda: diffusion.ancestral_euler(GRID),
    "exponential sde": lambda: diffusion.exponential_sde(GRID),
    "heun": lambda: diffusion.heun(GRID),
    "dpm 2S": lambda: diffusion.dpm_solver_2s(GRID),
    "dpm 2M": lambda: diffusion.dpm_solver(GRID),
    "deis": lambda: diffusion.deis(GRID),
    "plms": lambda: diffusion.plms(GRID),
    "pndm": lambda: diffusion.pndm(GRID),
    "ghvb": lambda: diffusion.ghvb(GRID),
    "unipc": lambda: diffusion.unipc(GRID),
    "accelerated ddim": lambda: diffusion.accelerated_ddim(GRID),
    "accelerated ddpm": lambda: diffusion.accelerated_ddpm(GRID),
    "edm stochastic": lambda: diffusion.edm_stochastic(GRID),
    "bdia": lambda: diffusion.bdia(GRID),
    "edict": lambda: diffusion.edict(GRID),
}
DRAFTERS: dict[str, Callable[[], Any]] = {
    "sequential": decoding.Drafter,
    "jacobi": lambda: decoding.Jacobi(c.Sliding(6)),
    "blocks": lambda: decoding.Jacobi(c.Blocks(5)),
    "prompt lookup": lambda: decoding.PromptLookup(6, 3),
    "lookahead": lambda: decoding.Lookahead(n=3, window=4, guesses=3),
    "coupled": lambda: decoding.Coupled(draft(), 3, LAW),
    "rejection": lambda: decoding.Rejection(draft(), 3, LAW),
    "several": lambda: decoding.MultiDraft(draft(), 3, LAW, count=2),
    "speculative jacobi": lambda: decoding.SpeculativeJacobi(4),
}
SOLVERS: dict[str, Any] = {
    "sequential": c.Sequential(),
    "picard": c.Solver(accept=TOLERANCE, window=c.Sliding(16)),
    "jacobi": c.Solver(c.Jacobi(), TOLERANCE, c.Blocks(8)),
    "newton": c.Solver(c.Newton(), TOLERANCE, c.Whole()),
    "diagonal newton": c.Solver(c.DiagonalNewton(1, 1.0, memory=0.5), TOLERANCE),
    "block newton": c.Solver(c.BlockNewton(), TOLERANCE),
    "anderson": c.Solver(c.Anderson(), TOLERANCE, guess=c.Extrapolate(4)),
    "damped": c.Solver(c.Damped(), TOLERANCE),
    "trust": c.Solver(c.Trust(), TOLERANCE),
    "parareal": c.Solver(c.Parareal(lambda state, x: state + x), TOLERANCE),
}
SPLITS: dict[str, Any] = {
    "replay": c.Solver(c.Replay(), TOLERANCE, c.Sliding(8)),
    "held": c.Solver(c.Replay(), TOLERANCE, c.Sliding(8), c.Held()),
    "estimated": c.Solver(c.Replay(), TOLERANCE, c.Sliding(8), c.Estimated()),
}
CALLS: dict[str, Callable[[], Any]] = {
    **{f"solve, {name}": partial(solved, solver) for name, solver in SOLVERS.items()},
    **{f"solve a split, {name}": partial(solved, solver, DESCENT) for name, solver in SPLITS.items()},
    "solve from a coarse guess": lambda: solved(
        SOLVERS["picard"], warm_start=c.coarse_guess(SYSTEM, lambda s, x: s + x.sum(axis=0), 5)
    ),
    "solve in blocks": lambda: solved(SOLVERS["picard"], c.coarsened(SYSTEM, 6)),
    "solve, unfinished": lambda: solved(c.Solver(accept=TOLERANCE, max_rounds=2), throw=False),
    "solve, with a history": lambda: c.solve(SYSTEM, c.Solver(accept=TOLERANCE, history=3)).history.frontier,
    "scan": lambda: c.scan(step, jnp.zeros(5), XS, solver=SOLVERS["newton"], reverse=True),
    "scan, by default": lambda: c.scan(step, jnp.zeros(5), XS),
    "gradient": partial(gradient, SOLVERS["picard"]),
    "gradient in parallel": partial(gradient, c.Solver("newton", TOLERANCE, derivative=c.Solver("newton", TOLERANCE))),
    "packed": packed,
    "watched": lambda: told(c.watch(SYSTEM, SOLVERS["picard"])),
    "lyapunov": lambda: c.lyapunov(SYSTEM, c.solve(SYSTEM, "newton")),
    **{f"sample, {name}": lambda make=make: sampled(make()) for name, make in SAMPLERS.items()},
    "sample, flow matching": lambda: sampled(diffusion.euler(diffusion.evenly(FLOW, 12)), "v", FLOW),
    "paradigms": partial(method, diffusion.paradigms),
    "parataa": partial(method, diffusion.parataa),
    "parasolver": partial(method, diffusion.parasolver),
    "quasi_newton": partial(method, diffusion.quasi_newton),
    "srds": lambda: c.solve(*of_denoiser(diffusion.srds, diffusion.ddim(GRID))).final,
    "reuse": lambda: of_denoiser(diffusion.reuse_then_predict, diffusion.ddim(GRID), degree=2)[:2],
    "chords": lambda: of_denoiser(diffusion.chords, diffusion.ddim(GRID), starts=(0, 3, 6))[:2],
    "speculate": lambda: of_denoiser(diffusion.speculate, diffusion.ddpm(GRID), size=4)[:2],
    "distillation": partial(distilled, c.Sequential()),
    "distillation by dreampropeller": lambda: distilled(diffusion.dreampropeller(1e-3)),
    "quality": lambda: np.float32(quality.sliced_wasserstein(XS, XS[::-1] + 0.1, KEY)),
    **{f"decode, {name}": partial(decoded, make) for name, make in DRAFTERS.items()},
    "decode, greedy": lambda: decoded(DRAFTERS["jacobi"], decoding.Law(temperature=0.0)),
    "tarflow, sequential": lambda: tarflow(flows.Inversion(c.Sequential(), "noise")),
    "tarflow, jacobi": lambda: tarflow(flows.Inversion(c.Solver(c.Jacobi(), c.Within(1e-6), c.Sliding(5)), "zeros")),
    "glow": partial(glow, "sampling"),
    "wavefront": wavefront,
    "made": partial(made, c.Solver(c.Jacobi(), c.Equal(), c.Whole())),
    "train and restore": trained,
}
