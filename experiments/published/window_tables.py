"""What a window of steps costs, as lines to read and as Markdown."""

from typing import Any

MISSING = "does not fit into memory"

ALONE = (
    "**One evaluation of each window, alone**, whatever the weights are. How much cheaper a step is in the window than "
    "by itself is the most that drawing with this window can gain: a method that evaluates every step once, and costs "
    "nothing itself."
)
CHAINS = "**Whole chains**, with the solver of the configuration."
RANDOM = (
    " The weights are random, so rounds, evaluations and times faster say little of a trained model; seconds per "
    "evaluation and share of peak are as they would be."
)


def evaluation_line(row: dict[str, Any]) -> str:
    if not row["fits"]:
        return f"window {row['window']:<4} alone {MISSING}"
    return (
        f"window {row['window']:<4} alone {row['seconds'] * 1e3:9.3f} ms per evaluation, "
        f"{_rate(row)[0]} TFLOP/s{_share(row)}, can gain {row['bound']:.1f}x at most"
    )


def tables(report: dict[str, Any]) -> str:
    """Both tables, and what each means."""
    peak, versions = report["peak_flops_per_second_and_device"], report["versions"]
    lines = [
        f"{report['experiment']}: {report['weights']} weights, {report['weights_count']:,} of them, "
        f"batch 1, in {report['dtype']}",
        f"on {report['devices_used']} x {report['device']} ({report['host']}), "
        + ", ".join(f"{name} {number}" for name, number in versions.items()),
        "",
        f"One step's evaluation is {report['flops_per_evaluation'] / 1e9:,.3f} GFLOP of products and convolutions. "
        + (
            f"Peak: {peak / 1e12:,.0f} TFLOP/s per device, dense bfloat16."
            if peak
            else "The device's peak is not known."
        ),
        "",
        ALONE,
        "",
        "| window | ms per evaluation | ms per step | can gain at most | TFLOP/s per device | share of peak |",
        "|---:|---:|---:|---:|---:|---:|",
        *map(_evaluation, report["evaluations"]),
        "",
        CHAINS + (RANDOM if report["weights"] == "random" else ""),
        "",
        "| steps | window | seconds | times faster | rounds | evaluations | TFLOP/s per device | share of peak "
        "| largest difference | residual | status |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for chain in report["chains"]:
        lines += [_sequential(chain), *map(_parallel, chain["windows"])]
    return "\n".join(lines) + "\n"


def _evaluation(row: dict[str, Any]) -> str:
    if not row["fits"]:
        return _line(row["window"], MISSING, "", "", "", "")
    milliseconds = row["seconds"] * 1e3
    return _line(
        row["window"], f"{milliseconds:.3f}", f"{milliseconds / row['window']:.3f}", f"{row['bound']:.1f}x", *_rate(row)
    )


def _sequential(found: dict[str, Any]) -> str:
    row = found["sequential"]
    evaluations = f"{row['evaluations']:.0f}"
    return _line(
        found["steps"], "`lax.scan`", f"{row['seconds']:.4f}", "1.00x", evaluations, evaluations, *_rate(row),
        "0", "0", row["status"],
    )  # fmt: skip


def _parallel(row: dict[str, Any]) -> str:
    if not row["fits"]:
        return _line(row["steps"], row["window"], MISSING, *[""] * 8)
    return _line(
        row["steps"], row["window"], f"{row['seconds_parallel_median']:.4f}", f"{row['speed_up']:.2f}x",
        row["rounds_max"], f"{row['evaluations_median']:.0f}", *_rate(row),
        f"{row['largest_difference']:.4f}", f"{row['residual']:.4f}", row["status"],
    )  # fmt: skip


def _rate(row: dict[str, Any]) -> tuple[str, str]:
    """TFLOP/s, and their share of the peak."""
    share = row["utilisation"]
    return f"{row['flops_per_second_and_device'] / 1e12:.3f}", "" if share is None else f"{share:.1%}"


def _share(row: dict[str, Any]) -> str:
    return "" if row["utilisation"] is None else f", {row['utilisation']:.1%} of peak"


def _line(*cells: Any) -> str:
    return f"| {' | '.join(map(str, cells))} |"
