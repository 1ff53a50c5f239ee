"""Records what every call returns, or compares it with a record: python -m tests.behaviour record|compare FILE.npz.

Integers, tokens, statuses and rounds must be equal, floats within 1e-6 of the largest of their array.
"""

import sys
from pathlib import Path

import jax
import numpy as np

from tests.behaviour.calls import CALLS

NEAR = 1e-6


def returned(name: str) -> dict[str, np.ndarray]:
    """The arrays that a call returns, each by its number."""
    return {f"{name}: {number}": np.asarray(leaf) for number, leaf in enumerate(jax.tree.leaves(CALLS[name]()))}


def difference(old: np.ndarray, new: np.ndarray) -> str | None:
    """In which way two arrays differ, in words."""
    if (old.shape, old.dtype) != (new.shape, new.dtype):
        return f"{old.dtype}{list(old.shape)} became {new.dtype}{list(new.shape)}"
    if not np.issubdtype(old.dtype, np.inexact):
        return None if (old == new).all() else f"{old.ravel()[:6]} became {new.ravel()[:6]}"
    if not (np.isfinite(old) == np.isfinite(new)).all():
        return "other entries are finite"
    known = np.isfinite(old)
    scale = np.abs(old, where=known, out=np.zeros_like(old)).max(initial=0)
    gap = np.abs(old - new, where=known, out=np.zeros_like(old)).max(initial=0)
    return None if gap <= NEAR * scale else f"differs by {gap / scale:.1e} of the largest"


def main(what: str, file: str) -> int:
    now: dict[str, np.ndarray] = {}
    for name in CALLS:
        now |= returned(name)
        print(name, flush=True)
    if what == "record":
        np.savez_compressed(Path(file), **now)
        print(f"{len(CALLS)} calls recorded in {file}")
        return 0
    with np.load(file, allow_pickle=False) as record:
        before = dict(record)
    wrong = {name: difference(before[name], now[name]) for name in before.keys() & now.keys()}
    wrong = {name: said for name, said in wrong.items() if said}
    wrong |= {name: "only before" if name in before else "only now" for name in before.keys() ^ now.keys()}
    for name, said in sorted(wrong.items()):
        print(f"DIFFERS {name}: {said}")
    print(f"{len(CALLS)} calls compared with {file}: {len(wrong)} arrays differ")
    return min(len(wrong), 1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
