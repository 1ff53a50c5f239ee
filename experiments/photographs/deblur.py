"""Makes blurred photographs sharp again, by a known kernel and by one learnt through the inverse itself."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float
from tqdm import tqdm

from experiments._frame.timing import compare, machine
from experiments._frame.workload import check_single_process
from experiments.photographs.config import Deblurring
from jaxpar.models import inverse_convolution, masked_convolution
from jaxpar.plots import image_rows

Kernel = Float[Array, "size size channels channels"]
SHOWN = 6
"""Patches in the picture at most."""


def main(config: Deblurring, workdir: Path) -> None:
    check_single_process()
    train, heldout = photographs(config)
    truth = blur(config, train.shape[-1])
    keys = jax.random.split(jax.random.key(config.seed), 2)
    blurred, dim = (
        camera(images, truth, key, config.noise) for images, key in zip((train, heldout), keys, strict=True)
    )
    estimate = learn(config, train, blurred)
    restore = jax.jit(jax.vmap(inverse_convolution, (0, None)))
    rows = {"sharp": heldout, "blurred": dim, "restored": restore(dim, truth), "by learnt": restore(dim, estimate)}
    report: dict[str, Any] = {"experiment": config.name, **machine()}
    report["decibels"] = {name: decibels(images, heldout) for name, images in rows.items() if name != "sharp"}
    report["kernel_error"] = float(jnp.abs(estimate - truth).max())
    report["inverse"] = [timed(config, channels) for channels in config.channels]
    pictures = {name: 2 * np.asarray(images[:SHOWN]) - 1 for name, images in rows.items()}
    image_rows(pictures, [""] * len(heldout[:SHOWN])).savefig(workdir / "deblurred.png")
    (workdir / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    print(", ".join(f"{name} {value:.1f} dB" for name, value in report["decibels"].items()))
    print(f"learnt kernel: largest error {report['kernel_error']:.1e}")
    print("\n".join(line(config, row) for row in report["inverse"]))
    print(f"wrote deblurred.png and report.json to {workdir}")


def photographs(config: Deblurring) -> tuple[Array, Array]:
    """Patches of the first photograph to learn from, and of the second to restore, in [0, 1]; of four the busiest."""
    from sklearn.datasets import load_sample_images  # two seconds of import that only this needs

    rng, patches = np.random.default_rng(config.seed), []
    for photograph in load_sample_images().images:
        places = [
            [rng.integers(0, size - config.edge) for size in photograph.shape[:2]] for _ in range(4 * config.patches)
        ]
        candidates = np.stack([photograph[i : i + config.edge, j : j + config.edge] for i, j in places])
        busiest = np.argsort(-candidates.std(axis=(1, 2, 3)))[: config.patches]
        patches.append(jnp.asarray(candidates[busiest], jnp.float32) / 255)
    return patches[0], patches[1]


def blur(config: Deblurring, channels: int) -> Kernel:
    """A trail down and to the right that fades, the same for every channel, all taps together 1."""
    distance = np.hypot(*np.meshgrid(*[np.arange(config.size)] * 2)) * 1.5
    trail = np.exp(-distance) * (distance > 0)
    taps = config.strength * trail / max(trail.sum(), 1e-9)
    taps[0, 0] = 1.0
    return jnp.asarray(taps[..., None, None] / taps.sum() * np.eye(channels), jnp.float32)


def camera(images: Array, kernel: Kernel, key: Array, noise: float) -> Array:
    """Blurred images with noise."""
    blurred = jax.vmap(masked_convolution, (0, None))(images, kernel)
    return blurred + noise * jax.random.normal(key, images.shape)


def learn(config: Deblurring, sharp: Array, blurred: Array) -> Kernel:
    """The kernel of which the inverse makes blurred images most like the sharp ones; one for all channels."""
    channels, transform = sharp.shape[-1], optax.adam(config.rate)
    taps = jnp.zeros((config.size, config.size)).at[0, 0].set(1.0)

    def kernel_of(taps: Array) -> Kernel:
        return taps[..., None, None] * jnp.eye(channels)

    def loss(taps: Array) -> Array:
        restored = jax.vmap(inverse_convolution, (0, None))(blurred, kernel_of(taps))
        return ((restored - sharp) ** 2).mean()

    @jax.jit
    def step(taps: Array, state: Any) -> tuple[Array, Any, Array]:
        value, slope = jax.value_and_grad(loss)(taps)
        updates, state = transform.update(slope, state)
        return optax.apply_updates(taps, updates), state, value

    state = transform.init(taps)
    with tqdm(total=config.steps, desc="learning the kernel", unit="step") as bar:
        for _ in range(config.steps):
            taps, state, value = step(taps, state)
            bar.set_postfix_str(f"error {float(value):.2e}", refresh=False)
            bar.update()
    return kernel_of(taps)


def decibels(images: Array, sharp: Array) -> float:
    """Signal to noise, of grey values in [0, 1]."""
    return float(-10 * jnp.log10(((images - sharp) ** 2).mean()))


def pixel_by_pixel(image: Array, kernel: Kernel) -> Array:
    """The same inverse, one pixel after the other."""
    height, width, channels = image.shape
    size, centre = kernel.shape[0], jnp.linalg.inv(kernel[0, 0])
    inputs = image @ centre
    taps = (kernel.at[0, 0].set(0) @ centre)[::-1, ::-1]

    def step(x: Array, place: Array) -> tuple[Array, None]:
        i, j = place // width, place % width
        patch = jax.lax.dynamic_slice(x, (i, j, 0), (size, size, channels))
        value = inputs[i, j] - jnp.einsum("abc,abcd->d", patch, taps)
        return jax.lax.dynamic_update_slice(x, value[None, None], (i + size - 1, j + size - 1, 0)), None

    start = jnp.zeros((height + size - 1, width + size - 1, channels))
    return jax.lax.scan(step, start, jnp.arange(height * width))[0][size - 1 :, size - 1 :]


def timed(config: Deblurring, channels: int) -> dict[str, Any]:
    """Seconds of the inverse and of its gradient, both ways, at batch 1, with a 3x3 kernel."""
    for_image, for_kernel = jax.random.split(jax.random.key(config.seed))
    image = jax.random.normal(for_image, (config.edge, config.edge, channels))
    kernel = 0.1 / channels * jax.random.normal(for_kernel, (3, 3, channels, channels))
    kernel = kernel.at[0, 0].set(jnp.eye(channels))

    def slope(method):
        return jax.grad(lambda image, kernel: (method(image, kernel) ** 2).sum(), (0, 1))

    ways = {"wavefronts": inverse_convolution, "pixels": pixel_by_pixel}
    contestants = {name: jax.jit(way) for name, way in ways.items()}
    contestants |= {f"gradient by {name}": jax.jit(slope(way)) for name, way in ways.items()}
    timing = compare(f"{channels} channels", contestants, [(image, kernel)] * config.repeats)
    seconds = {name: timing.median(name) for name in contestants}
    a, b = (timing.results[name][0] for name in ways)
    return {"channels": channels, "seconds": seconds, "largest_difference": float(jnp.abs(a - b).max())}


def line(config: Deblurring, row: dict[str, Any]) -> str:
    seconds = row["seconds"]
    inverse, gradient = (seconds[f"{way}pixels"] / seconds[f"{way}wavefronts"] for way in ("", "gradient by "))
    return (
        f"{config.edge}x{config.edge}x{row['channels']}: {1e3 * seconds['wavefronts']:.2f} ms in wavefronts, "
        f"{inverse:.1f}x faster than pixel by pixel; its gradient {1e3 * seconds['gradient by wavefronts']:.2f} ms, "
        f"{gradient:.1f}x; largest difference {row['largest_difference']:.1e}"
    )
