"""Every picture of the project, as a figure of Matplotlib's: `figure.savefig(path)` writes it, a notebook shows it."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxpar.extras import extra

with extra("plots", "jaxpar.plots"):
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter

INK, ACCENT, SEAM = "#22313f", "#d1495b", "#3ddc84"
CHAINS = (ACCENT, "#2e86ab", "#6a994e", "#bc6c25")


def image_rows(
    rows: dict[str, Float[np.ndarray, "count height width channels"]],
    captions: list[str],
    compared: tuple[str, str] | None = None,
) -> Figure:
    """Rows of images in [-1, 1] under one another, a name at each row and a caption over each column.

    Args:
      compared: names of two rows; the size of their difference, its largest of any channel, is a row of its own.
    """
    count, lines = len(captions), len(rows) + (compared is not None)
    width, height = 0.8 * count + 1.2, 0.95 * lines + 0.3
    if compared is not None:  # its scale lies below, and says in words what it is
        width, height = max(width, 3.6), height + 0.45
    figure = Figure(figsize=(width, height), layout="constrained", dpi=160)
    axes = figure.subplots(lines, count, squeeze=False)
    for axes_row, (name, images) in zip(axes, rows.items(), strict=False):
        for axis, image in zip(axes_row, images, strict=True):
            pixels = np.clip((image + 1) / 2, 0, 1)  # a screen shows no other values
            axis.imshow(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels, cmap="gray", vmin=0, vmax=1)
        axes_row[0].set_ylabel(name, rotation=0, ha="right", va="center", color=INK)
    if compared is not None:
        one, other = compared
        _differences(figure, axes, np.abs(rows[one] - rows[other]).max(axis=-1), f"|{one} - {other}|")
    for axis, caption in zip(axes[0], captions, strict=True):
        axis.set_title(caption, fontsize=9, color=INK)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    return figure


def _differences(figure: Figure, axes: np.ndarray, sizes: Float[np.ndarray, "count height width"], name: str) -> None:
    """The last row of images: sizes of differences, all on one scale that ends at the largest."""
    largest = float(sizes.max(initial=0.0))
    norm = Normalize(0, largest or 1.0)
    for axis, size in zip(axes[-1], sizes, strict=True):
        mappable = axis.imshow(size, cmap="magma", norm=norm)
    axes[-1, 0].set_ylabel("difference", rotation=0, ha="right", va="center", color=INK)
    bar = figure.colorbar(mappable, ax=axes, orientation="horizontal", aspect=60, pad=0.02)
    bar.set_label(f"{name}, at most {largest:.2g}; images run from -1 to 1", fontsize=8, color=INK)
    bar.ax.tick_params(labelsize=7)


def convergence(
    residuals: Float[np.ndarray, "rounds steps"],
    frontier: Int[np.ndarray, " rounds"],
    tolerance: float,
    title: str,
) -> Figure:
    """Residual per step and round as a heat map, with the line that final entries have reached.

    The last entry that a round makes final is its seam: it takes the value that the refinement expects, and its
    residual is how far that is from its step. Residuals that a round did not measure are below 0 and stay blank;
    rounds that did not happen have frontier -1.
    """
    count = int((frontier >= 0).sum())
    residuals, frontier = residuals[:count], frontier[:count]
    steps = residuals.shape[1]
    figure = Figure(figsize=(9, 3.6), layout="constrained", dpi=140)
    axis = figure.subplots()
    low, high = max(tolerance / 1e3, 1e-9), max(tolerance * 1e2, float(residuals.max(initial=0)), 1e-8)
    values = np.where(residuals < 0, np.nan, np.clip(residuals, low, high))
    mesh = axis.pcolormesh(
        np.arange(steps + 1), np.arange(count + 1) + 0.5, values, norm=LogNorm(low, high), cmap="viridis"
    )
    rounds = np.flatnonzero(residuals[np.arange(count), np.maximum(frontier - 1, 0)] >= 0)  # that measured their seam
    seams = frontier[rounds] - 0.5
    axis.vlines(
        seams, rounds + 0.55, rounds + 1.45, color=SEAM, lw=1.5, label="seam: the last step that a round makes final"
    )
    axis.step(
        np.concatenate([[0], frontier]), np.arange(count + 1) + 0.5, where="pre", color=ACCENT, lw=1.8,
        label="final up to here",
    )  # fmt: skip
    axis.set(xlim=(0, steps), ylim=(count + 0.5, 0.5), xlabel="sequential step", ylabel="round")
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_title(title, loc="left", color=INK)
    axis.legend(loc="lower left", frameon=True)
    bar = figure.colorbar(mesh, ax=axis, label="residual")
    bar.ax.axhline(tolerance, color=ACCENT, lw=1.5)
    bar.ax.set_title("red: tolerance", fontsize=8, color=ACCENT)
    return figure


def speed(rows: list[dict], title: str) -> Figure:
    """Speed-up of each solver over the sequential run as bars, with rounds and work written beside them.

    Each row has `name`, `speed_up`, `rounds` and `work` (evaluations per sequential step).
    """
    figure = Figure(figsize=(8, 0.42 * len(rows) + 1.2), layout="constrained", dpi=140)
    axis = figure.subplots()
    heights = [row["speed_up"] for row in rows]
    colors = [ACCENT if height >= 1 else "#9aa5b1" for height in heights]
    bars = axis.barh([row["name"] for row in rows], heights, color=colors)
    labels = [f"{row['speed_up']:.1f}x, {row['rounds']} rounds, work {row['work']:.1f}" for row in rows]
    axis.bar_label(bars, labels, padding=4, fontsize=8, color=INK)
    axis.axvline(1, color=INK, lw=1)
    axis.set(xlim=(0, 1.45 * max(heights)), xlabel="times faster than the sequential scan")
    axis.set_title(title, loc="left", color=INK)
    axis.invert_yaxis()
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def windows(report: dict, title: str) -> Figure:
    """Seconds of whole chains, and operations per second or their share of the peak, against the window.

    `report` has `evaluations`, a row for each window alone; `chains`, each with `steps`, `sequential` and a row for
    each of its `windows`; and `peak_flops_per_second_and_device`, None where it is not known. Rows that do not fit into
    memory are left out.
    """
    peak = report["peak_flops_per_second_and_device"]
    scale = 100 / peak if peak else 1e-12
    figure = Figure(figsize=(11, 4.2), layout="constrained", dpi=140)
    seconds, share = figure.subplots(1, 2)

    def rates(axis, rows, **style):
        points = [(row["window"], scale * row["flops_per_second_and_device"]) for row in rows if row["fits"]]
        axis.plot(*zip(*points, strict=True), **style) if points else None

    rates(share, report["evaluations"], color=INK, marker="s", ls="--", label="one evaluation, alone")
    for number, chain in enumerate(report["chains"]):
        style = {"color": CHAINS[number % len(CHAINS)], "marker": "o", "label": f"{chain['steps']} steps"}
        rows = [{"window": 1, "fits": True, **chain["sequential"]}, *chain["windows"]]
        points = [
            (row["window"], row.get("seconds_parallel_median", row.get("seconds"))) for row in rows if row["fits"]
        ]
        seconds.plot(*zip(*points, strict=True), **style)
        seconds.axhline(points[0][1], color=style["color"], lw=1, ls=":")
        rates(share, rows, **style)
    sizes = [row["window"] for row in report["evaluations"]]
    for axis in (seconds, share):
        axis.set_xscale("log", base=2)
        axis.set(xlabel="window, in steps; 1 is the sequential scan")
        axis.set_xticks(sizes, list(map(str, sizes)))
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=8)
    seconds.set(ylabel="seconds per image", yscale="log")
    seconds.yaxis.set_major_formatter("{x:g}")
    seconds.yaxis.set_minor_formatter("{x:g}")
    share.set(ylabel="share of the device's peak, %" if peak else "TFLOP/s per device", ylim=(0, None))
    figure.suptitle(title, x=0.01, ha="left", color=INK)
    return figure


def methods(problems: dict[str, dict], title: str) -> Figure:
    """Rounds against steps and seconds against the sequential run, each method a mark on each problem's line.

    Each problem has `steps` and `rows`, the sequential run first; each row `method`, `rounds`, `speed_up`, `status`.
    """
    names = list(problems)
    labels = dict.fromkeys(row["method"] for problem in problems.values() for row in problem["rows"][1:])
    figure = Figure(figsize=(11, 0.4 * len(names) + 1.8), layout="constrained", dpi=140)
    depth, speed_axis = figure.subplots(1, 2, sharey=True)
    marks = "osD^vP*X<>"
    for number, method in enumerate(labels):
        points = [
            (row["rounds"] / problem["steps"], row["speed_up"], place)
            for place, problem in enumerate(problems.values())
            for row in problem["rows"]
            if row["method"] == method and row["status"] == "CONVERGED"
        ]
        if not points:
            continue
        rounds, times, places = zip(*points, strict=True)
        style = {"marker": marks[number % len(marks)], "ls": "", "ms": 7, "alpha": 0.8, "label": method}
        depth.plot(rounds, places, **style)
        speed_axis.plot(times, places, **style)
    depth.set(xscale="log", xlabel="rounds per sequential step", yticks=range(len(names)), yticklabels=names)
    speed_axis.set(xscale="log", xlabel="times faster than the sequential scan")
    speed_axis.axvline(1, color=INK, lw=1)
    depth.invert_yaxis()
    for axis in (depth, speed_axis):
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    speed_axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.suptitle(title, x=0.01, ha="left", color=INK)
    return figure


def episodes(
    paths: dict[str, Float[np.ndarray, "count places 2"]],
    goals: Float[np.ndarray, "count 2"],
    radius: float,
    seconds: dict[str, list[float]],
    title: str,
) -> Figure:
    """Ways past a disc, seen from its centre, one panel for each who went them; and how long each plan took, in ms."""
    figure = Figure(figsize=(12, 3.4), layout="constrained", dpi=140)
    axes = figure.subplots(1, len(paths) + 1, width_ratios=[*(1.0 for _ in paths), 0.9])
    for axis, (name, routes) in zip(axes, paths.items(), strict=False):
        angles = np.linspace(0, 2 * np.pi, 100)
        axis.fill(radius * np.cos(angles), radius * np.sin(angles), color="#9aa5b1", lw=0)
        for one in routes:
            axis.plot(*one.T, color=INK, lw=0.7, alpha=0.6)
        axis.scatter(*goals.T, color=ACCENT, s=9, zorder=3, label="goals")
        axis.set(xlim=(-2.6, 2.8), ylim=(-1.6, 1.6), aspect="equal", title=name, xlabel="m")
    axes[0].legend(loc="lower left", fontsize=8)
    last, heights = axes[-1], [1000 * float(np.median(times)) for times in seconds.values()]
    bars = last.bar(list(seconds), heights, color=[INK, ACCENT], width=0.6, alpha=0.85)
    last.bar_label(bars, [f"{height:.0f} ms" for height in heights], label_type="center", color="white")
    for place, times in enumerate(seconds.values()):
        last.scatter(np.linspace(place - 0.2, place + 0.2, len(times)), 1000 * np.asarray(times), color="#9aa5b1", s=5)
    last.set(title="time to plan", ylabel="ms")
    last.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, x=0.01, ha="left", color=INK)
    return figure


RUNAWAY = 10.0
"""How many times the median sampler's largest error the scale of errors ends at."""


def cost_against_error(curves: dict[str, dict[str, list[dict[str, float]]]], title: str) -> Figure:
    """Error against rounds, evaluations and seconds: one colour a sampler, sequential runs dashed, parallel ones solid.

    `curves[sampler][run]` has a point for each number of steps: `error`, `rounds`, `evaluations`, `seconds`. The scale
    is that of most samplers: errors beyond it are triangles at its top, and the legend says how large they are.
    """
    worst = {
        sampler: max(_error(point) for points in runs.values() for point in points) for sampler, runs in curves.items()
    }
    top = RUNAWAY * float(np.median(list(worst.values())))
    figure = Figure(figsize=(13, 4.6), layout="constrained", dpi=130)
    axes = figure.subplots(1, 3, sharey=True)
    colors = colormaps["tab10"](np.arange(len(curves)) % 10)
    for color, (sampler, runs) in zip(colors, curves.items(), strict=True):
        name = sampler if worst[sampler] <= top else f"{sampler}, errors up to {worst[sampler]:.2g}"
        for run, points in runs.items():
            style: dict[str, Any] = {"ls": "--", "mfc": "white", "lw": 1} if run == "sequential" else {"lw": 1.6}
            errors = np.array([_error(point) for point in points])
            for axis, cost in zip(axes, ("rounds", "evaluations", "seconds"), strict=True):
                label = name if run != "sequential" and cost == "seconds" else None
                costs = np.array([point[cost] for point in points])
                axis.plot(costs, errors, color=color, marker="o", ms=4, label=label, **style)
                for beyond in costs[errors > top]:
                    axis.plot(beyond, top, "^", color=color, ms=6, clip_on=False, zorder=3)
    for axis, name in zip(axes, ("rounds", "evaluations of the denoiser", "seconds at batch 1"), strict=True):
        axis.set(xscale="log", yscale="log", xlabel=name)
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.grid(alpha=0.25, which="both")
        axis.spines[["top", "right"]].set_visible(False)
    if max(worst.values()) > top:
        axes[0].set_ylim(top=top)
    axes[0].set_ylabel("distance from the exact image, rms")
    lines = [Line2D([], [], color=INK, ls=ls, marker="o", ms=4, mfc=face) for ls, face in (("--", "white"), ("-", INK))]
    handles, names = axes[2].get_legend_handles_labels()
    if max(worst.values()) > top:
        lines.append(Line2D([], [], color=INK, ls="", marker="^", ms=6))
        names.insert(0, "beyond the scale")
    axes[2].legend(
        lines + handles, ["sequential", "parallel", *names], fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5)
    )
    figure.suptitle(title, x=0.01, ha="left", color=INK)
    return figure


def _error(point: dict[str, float]) -> float:
    """Of one run; infinite where its images are not finite."""
    return point["error"] if np.isfinite(point["error"]) else float("inf")


def training(lines: list[dict[str, float]], title: str) -> Figure:
    """Loss per step, on the batches and on held-out examples, from the lines of a run's metrics."""
    figure = Figure(figsize=(9, 3.6), layout="constrained", dpi=160)
    axis = figure.subplots()
    styles: dict[str, dict[str, Any]] = {
        "loss": {"label": "batch", "color": INK, "lw": 0.8, "alpha": 0.6},
        "heldout_loss": {"label": "held out", "color": ACCENT, "marker": "o", "ms": 4, "lw": 1.6},
    }
    for name, style in styles.items():
        points = [(line["step"], line[name]) for line in lines if name in line]
        if points:
            axis.plot(*zip(*points, strict=True), **style)
    axis.set(xlabel="step", ylabel="loss", yscale="log")
    axis.yaxis.set_major_formatter(ScalarFormatter())
    axis.yaxis.set_minor_formatter(ScalarFormatter())
    axis.set_title(title, loc="left", color=INK)
    axis.legend()
    axis.spines[["top", "right"]].set_visible(False)
    return figure


SHOWN_TOKENS, SHOWN_LETTERS = 72, 14


def dependencies(names: list[str], first: int, found: Any, title: str) -> Figure:
    """In which round each token was right and in which it became final, with an arc to the token that it waited on.

    Args:
      names: all tokens as text; those from `first` on were decoded, of which a page shows the first.
      found: jaxpar.decoding.Dependencies.
    """
    count = min(len(found.final), SHOWN_TOKENS)
    labels = [_visible(name) for name in names[first : first + count]]
    letters = max(map(len, labels), default=1)
    places, right, final = np.arange(count), found.right[:count], found.final[:count]
    figure = Figure(figsize=(max(0.17 * count + 1.5, 6.0), 4.2 + 0.06 * (letters - 1)), layout="constrained", dpi=160)
    axis = figure.subplots()
    axis.plot(places, places + 1, color="#b8c0c8", lw=1, ls=":", label="one token after the other")
    axis.vlines(places, right, final, color="#cdd5dc", lw=3)
    for place in places[found.waited[:count] >= 0]:
        other = found.waited[place]
        axis.annotate(
            "", (place, right[place]), (other, found.right[other]),
            arrowprops={"arrowstyle": "-", "color": CHAINS[1], "lw": 0.6, "connectionstyle": "arc3,rad=-0.2"},
        )  # fmt: skip
    axis.plot(places, final, "o", ms=4, color=INK, label="final")
    axis.plot(places, right, "o", ms=4, color=ACCENT, label="right")
    axis.set(ylabel="round", ylim=(0, float(final.max()) * 1.15 + 1), xlim=(-1, count), title=title)
    turn = 0 if letters == 1 else 90
    axis.set_xticks(places, labels, fontsize=7, family="monospace", parse_math=False, rotation=turn)
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    axis.plot([], [], color=CHAINS[1], lw=0.8, label="waited on")
    axis.legend(frameon=False, loc="upper left", ncols=4, fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def _visible(name: str) -> str:
    """A token as a label: its spaces and ends of lines to be seen, and cut where it is long."""
    text = name.replace("\n", "\u21b5").replace("\t", "\u21e5").replace(" ", "\u2423")
    text = "".join(letter if letter.isprintable() else "\u00b7" for letter in text)
    return text if len(text) <= SHOWN_LETTERS else text[: SHOWN_LETTERS - 1] + "\u2026"


def decoders(rows: list[dict], title: str) -> Figure:
    """Tokens per second of each drafter, the fastest first, and tokens that a round settles."""
    names = [row["drafter"] for row in rows]
    figure = Figure(figsize=(8.5, 0.36 * len(rows) + 1.2), layout="constrained", dpi=160)
    left, right = figure.subplots(1, 2, sharey=True)
    heights = np.arange(len(rows))
    colours = [ACCENT if row["chosen"] else "#8fa3b3" if row["promise"] == "law" else INK for row in rows]
    for axis, of_each, label in (
        (left, [row["tokens_per_second"] for row in rows], "tokens per second"),
        (right, [row["tokens_per_round"] for row in rows], "tokens per round"),
    ):
        axis.barh(heights, of_each, color=colours, height=0.65)
        for height, value in zip(heights, of_each, strict=True):
            axis.text(
                value, height, f" {value:.0f}" if value >= 100 else f" {value:.2f}", va="center", fontsize=8, color=INK
            )
        axis.set(xlabel=label, xlim=(0, max(of_each) * 1.18))
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.spines[["top", "right"]].set_visible(False)
    left.set_yticks(heights, names)
    left.invert_yaxis()
    figure.suptitle(f"{title}\nred: chosen by auto; pale: same law, other tokens", fontsize=9, color=INK)
    return figure


def work(rows: list[dict], title: str) -> Figure:
    """Where the seconds of programs go: shares of each kind of work, and of waiting for messages."""
    kinds = [*rows[0]["computing"], "waiting"]
    figure = Figure(figsize=(8.5, 0.34 * len(rows) + 1.3), layout="constrained", dpi=160)
    axis, heights = figure.subplots(), np.arange(len(rows))
    seconds = np.asarray([[*row["computing"].values(), row["waiting"] or 0.0] for row in rows])
    shares = seconds / np.maximum(seconds.sum(axis=1, keepdims=True), 1e-30)
    left = np.zeros(len(rows))
    for kind, of_each, colour in zip(kinds, shares.T, (INK, "#2e86ab", "#6a994e", "#bc6c25", ACCENT), strict=True):
        axis.barh(heights, of_each, left=left, color=colour, height=0.7, label=kind)
        left += of_each
    axis.set_yticks(heights, [f"{row['loop']} {row['way']}".strip() for row in rows], fontsize=8)
    axis.set(xlim=(0, 1), xlabel="share of a program's seconds, of whose rounds there is one")
    axis.set_ylim(len(rows) - 0.4, -0.6)
    for height, total in enumerate(seconds.sum(axis=1)):
        axis.text(1.01, height, f"{total:.2e} s", va="center", fontsize=8, color=INK)
    axis.legend(frameon=False, ncols=len(kinds), loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=9, color=INK)
    return figure
