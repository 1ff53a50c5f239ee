"""Runs every program that measures something, at each precision, and gathers what they say into one file."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from experiments._frame.config_files import parted
from experiments._frame.launch import read
from experiments.device.config import Device
from experiments.device.products import DTYPES
from jaxpar import InputError

SAID = 50
"""Lines of a program's output that are kept, its last ones; all are in its log."""


def main(config: Device, workdir: Path) -> None:
    """Writes results.json and results.md, anew after each program; exits with status 1 if one of them failed.

    JAX is not asked for its devices here: the programs need the accelerator's memory to themselves.
    """
    runs = [(precision, words) for words in config.programs for precision in config.precisions]
    for _, words in runs:
        _parted(words)
    if not config.cpu and _python("default", "-c", "import jax; print(jax.default_backend())") == "cpu":
        print("there is no accelerator here, so nothing was measured; --config.cpu=true measures the CPU")
        return
    report = _started(config, workdir)
    for precision, words in tqdm(runs, desc="programs", unit="program", dynamic_ncols=True):
        name = f"{precision}: {words}"
        if report["runs"].get(name, {}).get("status") != 0:
            report["runs"][name] = _run(precision, words, workdir)
            _write(report, workdir)
    failed = [name for name, run in report["runs"].items() if run["status"] != 0]
    print(f"wrote results.md and results.json to {workdir}")
    if failed:
        print(f"{len(failed)} of {len(report['runs'])} programs failed: {'; '.join(failed)}", file=sys.stderr)
        sys.exit(1)


def _started(config: Device, workdir: Path) -> dict[str, Any]:
    """What the workdir holds already, and the device at each precision."""
    path = workdir / "results.json"
    report: dict[str, Any] = {"experiment": config.name, "machines": {}, "runs": {}}
    try:
        report |= json.loads(path.read_text()) if path.exists() else {}
    except ValueError as error:
        raise InputError(f"{path} cannot be read: {error}; take another workdir") from error
    for precision in config.precisions:
        if precision not in report["machines"]:
            print(f"measuring products at {precision} precision", flush=True)
            report["machines"][precision] = json.loads(_python(precision, "-m", "experiments.device.products"))
    return report


def _run(precision: str, words: str, workdir: Path) -> dict[str, Any]:
    """Runs one program; its folder is that of its precision and config, so that weights trained once serve all, and of
    the slice that it plans for."""
    verb, config, rest = _parted(words)
    path, variant = parted(config)
    name = Path(path).stem + f"-{variant}" * bool(variant)
    folder = workdir / precision / "-".join([name, *read(rest).flags.get("target", "").split(":")]).rstrip("-")
    folder.mkdir(parents=True, exist_ok=True)
    start = time.time()
    log = folder / f"{verb}.log"
    with log.open("w") as output:  # as it is printed: a run that is stopped leaves it
        command = ["-m", f"experiments.{verb}", *rest, f"--workdir={folder}"]
        done = _process(precision, *command, stdout=output)
    fresh = [path for path in sorted(folder.glob("*.json")) if path.stat().st_mtime >= start]
    said = log.read_text() if done.returncode == 0 else done.stderr
    return {
        "status": done.returncode,
        "seconds": time.time() - start,
        "said": said.strip().splitlines()[-SAID:],
        "reports": {path.name: json.loads(path.read_text()) for path in fresh},
    }


def _parted(words: str) -> tuple[str, str, list[str]]:
    """Verb, config and all words after the verb of a program's command line."""
    verb, *rest = words.split() or [""]
    config = read(rest).flags.get("config")
    if config is None:
        raise InputError(f"programs has {words!r}; give each as VERB --config=FILE, and changes of its settings")
    return verb, config, rest


def _python(precision: str, *words: str) -> str:
    """What a small program prints; raises InputError where JAX finds no device that works."""
    done = _process(precision, *words)
    if done.returncode:
        raise InputError(f"the device cannot be measured: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    return done.stdout.strip()


def _process(precision: str, *words: str, stdout: Any = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"JAX_DEFAULT_MATMUL_PRECISION": precision, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, *words]
    return subprocess.run(command, env=environment, stdout=stdout, stderr=subprocess.PIPE, text=True)


def _write(report: dict[str, Any], workdir: Path) -> None:
    (workdir / "results.json").write_text(json.dumps(report, indent=1) + "\n")
    (workdir / "results.md").write_text(_markdown(report))


def _markdown(report: dict[str, Any]) -> str:
    """The device, its products at each precision, and what each program said."""
    first = next(iter(report["machines"].values()))
    versions = ", ".join(f"{name} {version}" for name, version in first["versions"].items())
    lines = [
        f"# {first['device']}",
        "",
        f"{first['host']}; {versions}; {first['bytes_per_second'] / 1e12:.3f} TB/s read and written.",
        "",
        "Products of rows with 4096 x 4096 weights: microseconds (TFLOP/s; error relative to their size).",
        "",
        "| rows |" + "".join(f" {dtype}, {precision} |" for precision in report["machines"] for dtype in DTYPES),
        "|---:|" + "---:|" * len(DTYPES) * len(report["machines"]),
    ]
    columns = [_speeds(machine, dtype) for machine in report["machines"].values() for dtype in DTYPES]
    for rows in sorted(set().union(*columns)):
        lines.append(f"| {rows} | " + " | ".join(column.get(rows, "") for column in columns) + " |")
    for name, run in report["runs"].items():
        precision, _, words = name.partition(": ")
        state = "" if run["status"] == 0 else f", FAILED with status {run['status']}"
        lines += ["", f"## {words}, {precision} precision: {run['seconds']:.0f} s{state}", "", "```"]
        lines += [*run["said"], "```"]
    return "\n".join(lines) + "\n"


def _speeds(machine: dict[str, Any], dtype: str) -> dict[int, str]:
    """What a product is like, by its rows."""
    return {
        each["rows"]: f"{each['seconds'] * 1e6:.1f} ({each['flops_per_second'] / 1e12:.1f}; {each['error']:.0e})"
        for each in machine["products"]
        if each["dtype"] == dtype
    }
