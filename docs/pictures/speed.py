"""Draws speed.png from numbers that docs/results.md tells: python docs/pictures/speed.py"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

BARS = [
    ("an image by 1,000 DDIM steps, auto", "14.1", 14.1),
    ("an image by 100 DDIM steps, auto", "4.6", 4.6),
    ("16 actions by 100 DDIM steps", "4.6x faster", 4.6),
    ("a text of 12.6 million weights, prompt lookup", "2.99", 2.99),
    ("400 Adam steps on a radiance field", "2.6x faster", 2.6),
    ("a flow's inverse, 196 tokens", "1.6x faster", 1.6),
    ("a deep network, 500 steps, auto", "1.20x", 1.20),
    ("a GRU of 32 units, 10,000 steps, auto: lax.scan itself", "0.97x", 0.97),
]
"""What was computed, how docs/results.md writes its speed, and that speed in those of the sequential program."""


def draw(path: Path) -> None:
    figure, axes = plt.subplots(figsize=(8, 2.9), dpi=110)
    names, _, speeds = zip(*BARS, strict=True)
    bars = axes.barh(range(len(BARS)), speeds, color=["tab:blue" if speed > 1.05 else "0.6" for speed in speeds])
    axes.bar_label(bars, [f"{speed:g}x" for speed in speeds], padding=3, fontsize=8)
    axes.set_yticks(range(len(BARS)), names, fontsize=8)
    axes.invert_yaxis()
    axes.axvline(1, color="0.3", lw=0.8)
    axes.set_xlim(0, 16)
    axes.set_xlabel("times as fast as one step after the other, batch 1, two cores of an AMD EPYC", fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Software": None})


if __name__ == "__main__":
    draw(Path(__file__).with_name("speed.png"))
