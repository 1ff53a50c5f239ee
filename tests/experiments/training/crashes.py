"""Kills a training run again and again, and checks that nothing is lost: python -m tests.experiments.training.crashes.

    python -m tests.experiments.training.crashes --workdir=runs/crashes --kills=50 --seed=0

Starts `experiments.train` in a process of its own, ends it with SIGKILL at a random moment, of its start as of its
training, looks whether every checkpoint that is there can be read, and starts it again. In the end it lets the run
finish and compares its weights, bit for bit, with those of a run that nobody disturbed. Exit status 1 if any of it
fails.
"""

import json
import shutil
import signal
import subprocess
import sys
import time
from argparse import Namespace
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from experiments._frame.launch import OneLineParser, with_one_line_errors
from experiments._frame.workdirs import LOCK, opened
from experiments._frame.workload import open_checkpoints
from experiments.images.assembly import assemble
from experiments.images.config import Experiment
from jaxpar import InputError
from jaxpar.checks import number, whole
from jaxpar.training import UNREADABLE, TrainState

SAVE_EVERY = 20
FOREVER = 10**6


@dataclass(frozen=True)
class Life:
    """One start of the run, until it was killed.

    Attributes:
      seconds: that it lived.
      resumed: the step it went on from; -1 if it was killed before it said so.
      reached: the last step it is known to have made.
      saved: the newest checkpoint it left.
      unreadable: checkpoints that cannot be read.
    """

    seconds: float
    resumed: int
    reached: int
    saved: int
    unreadable: list[int]


def settings(steps: int) -> Experiment:
    """A small run that saves often, at a rate that does not depend on its length."""
    config = Experiment(name="crashes")
    config.model.mlp.width, config.model.mlp.hidden, config.model.mlp.blocks = 512, 1024, 2
    config.optimizer.schedule = "constant"
    config.loop.steps, config.loop.save_every, config.loop.evaluate_every = steps, SAVE_EVERY, FOREVER
    config.loop.report_every = 1
    return config


def get_config(variant: str) -> Experiment:
    """What the processes read: this file is their --config, the number of steps its variant."""
    return settings(int(variant))


def start(workdir: Path, steps: int) -> subprocess.Popen:
    words = [f"--config={__file__}:{steps}", f"--workdir={workdir}"]
    with (workdir.parent / f"{workdir.name}.log").open("ab") as log:
        return subprocess.Popen([sys.executable, "-m", "experiments.train", *words], stdout=log, stderr=log)


def live_and_die(workdir: Path, seconds: float) -> Life:
    """Starts the run, kills it after so many seconds, and looks at what it left."""
    before = saved_steps(workdir)
    process = start(workdir, FOREVER)
    try:
        process.wait(seconds)
        raise RuntimeError(f"the run ended by itself, with status {process.returncode}; see {workdir}.log")
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
    unreadable = unreadable_steps(workdir)
    reached = last_reported(workdir)
    resumed = max(before, default=0) if reached > max(before, default=0) else -1
    return Life(seconds, resumed, reached, max(saved_steps(workdir), default=0), unreadable)


def unreadable_steps(workdir: Path) -> list[int]:
    """Of the checkpoints in a workdir, those that cannot be restored as they were saved.

    Looked at in a copy, so that what a kill left lying about stays for the next start to deal with.
    """
    workload, copy = assemble(settings(FOREVER)).workload, workdir.parent / "looked at"
    shutil.rmtree(copy, ignore_errors=True)
    if not workdir.exists():
        return []
    shutil.copytree(workdir, copy)
    bad = []
    with closing(open_checkpoints(workload, copy)) as checkpoints:
        for step in checkpoints.steps():
            try:
                checkpoints.load(step, workload.trainer.abstract)
            except UNREADABLE:
                bad.append(step)
    return bad


def saved_steps(workdir: Path) -> list[int]:
    folder = workdir / "checkpoints"
    return [int(entry.name) for entry in folder.iterdir() if entry.name.isdigit()] if folder.is_dir() else []


def last_reported(workdir: Path) -> int:
    path = workdir / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.is_file() else []
    return json.loads(lines[-1])["step"] if lines else 0


def final(workdir: Path, steps: int) -> TrainState:
    """The state at the end of a run that is let finish."""
    process = start(workdir, steps)
    if process.wait() != 0:
        raise RuntimeError(f"the run ended with status {process.returncode}; see {workdir}.log")
    workload = assemble(settings(steps)).workload
    with closing(open_checkpoints(workload, workdir)) as checkpoints:
        restored = checkpoints.restore(workload.trainer.abstract)
    if restored is None or restored.step != steps:
        raise RuntimeError(f"{workdir} has no checkpoint of step {steps}")
    return restored.state


def same_bits(one: TrainState, other: TrainState) -> bool:
    def bits(leaf):
        return np.asarray(jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf)

    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(bits(a).tobytes() == bits(b).tobytes() for a, b in pairs)


def main() -> None:
    parser = OneLineParser(description="kill a training run at random moments, and check that nothing is lost")
    parser.add_argument("--workdir", default="runs/crashes")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longest", type=float, default=0.0, help="seconds of the longest life; 0 to find out")
    asked = parser.parse_args()
    whole("--kills", asked.kills, 1, 10**6)
    whole("--seed", asked.seed, 0, 2**32 - 1)
    number("--longest", asked.longest, 0.0, 1e6)
    with opened(asked.workdir, "crashes") as folder:
        if any(entry.name != LOCK for entry in folder.iterdir()):
            raise InputError(f"--workdir={asked.workdir} is not empty; give a new folder")
        kill_and_compare(asked, folder.absolute())


def kill_and_compare(asked: Namespace, workdir: Path) -> None:
    """All lives of a run, the comparison, and the report; ends the program with its exit status."""
    random = np.random.default_rng(asked.seed)
    longest = asked.longest or 2.0 * seconds_to_second_save(workdir / "trial")
    lives = []
    for _ in tqdm(range(asked.kills), desc="kills", unit="kill", dynamic_ncols=True):
        lives.append(live_and_die(workdir / "killed", float(random.uniform(0, longest))))
    steps = (lives[-1].reached // SAVE_EVERY + 2) * SAVE_EVERY
    same = same_bits(final(workdir / "killed", steps), final(workdir / "undisturbed", steps))
    report = summary(lives, steps, same)
    (workdir / "crashes.json").write_text(json.dumps({**report, "lives": list(map(asdict, lives))}, indent=2) + "\n")
    for name, value in report.items():
        print(f"{name.replace('_', ' '):<42} {value}")
    print(f"wrote crashes.json to {asked.workdir}")
    faults = report["unreadable_checkpoints"] + report["checkpoints_lost"] + report["saves_lost_but_the_one_under_way"]
    sys.exit(0 if same and not faults else 1)


def seconds_to_second_save(workdir: Path) -> float:
    """How long a start takes until two checkpoints are there."""
    begun = time.perf_counter()
    process = start(workdir, FOREVER)
    while len(saved_steps(workdir)) < 2:
        time.sleep(0.05)
        if process.poll() is not None:
            raise RuntimeError(f"the run ended by itself, with status {process.returncode}; see {workdir}.log")
    process.kill()
    process.wait()
    return time.perf_counter() - begun


def summary(lives: list[Life], steps: int, same: bool) -> dict[str, int | bool]:
    """What became of the checkpoints and of the steps between them."""
    newest = [life.saved for life in lives]
    trained = [life for life in lives if life.resumed >= 0]
    begun = [life.reached // SAVE_EVERY * SAVE_EVERY for life in trained]  # the newest save may be under way
    return {
        "kills": len(lives),
        "kills_while_training": len(trained),
        "unreadable_checkpoints": sum(len(life.unreadable) for life in lives),
        "checkpoints_lost": sum(after < before for before, after in pairwise(newest)),
        "save_interval": SAVE_EVERY,
        "most_steps_made_again": max((life.reached - life.saved for life in trained), default=0),
        "kills_during_a_save": sum(life.saved < save for life, save in zip(trained, begun, strict=True)),
        "saves_lost_but_the_one_under_way": sum(
            life.saved < save - SAVE_EVERY for life, save in zip(trained, begun, strict=True)
        ),
        "steps": steps,
        "final_state_is_that_of_an_undisturbed_run": same,
    }


if __name__ == "__main__":
    with_one_line_errors(main)
