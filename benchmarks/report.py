"""Records as Markdown: one table for each group of cases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

COSTS = ("torch.add", "residual", "without")
"""Baselines of which ours is a multiple; than the others it is so many times faster."""


def duration(milliseconds: float) -> str:
    """Three digits in the unit that suits."""
    if milliseconds < 1:
        return f"{1e3 * milliseconds:.3g} us"
    return f"{milliseconds:.3g} ms" if milliseconds < 1000 else f"{milliseconds:.0f} ms"


def ratio(name: str, baseline: Mapping[str, float]) -> str:
    """``3.3x (2.9-3.6)``: median and spread over the rounds."""
    middle, low, high = (baseline[key] for key in ("ratio", "ratio_p10", "ratio_p90"))
    if name in COSTS:
        middle, low, high = 1 / middle, 1 / high, 1 / low
    return f"{middle:.3g}x ({low:.3g}-{high:.3g})"


def row(record: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """The cells of one case; ``names``: the baselines of its group."""
    name = record["name"].partition("/")[2]
    if "error" in record:
        return [name, f"failed: {record['error']}", *[""] * (5 + len(names))]
    roof = record.get("roofline")
    cells = [
        name,
        duration(record["median_ms"]),
        f"{duration(record['p10_ms'])}-{duration(record['p90_ms'])}",
        f"{record['ns_per_token']:.4g}" if "ns_per_token" in record else "",
        f"{record['gb_per_s']:.3g}" if "gb_per_s" in record else "",
        f"{record['gflop_per_s']:.3g}" if "gflop_per_s" in record else "",
        f"{roof['percent']:.0f}% ({roof['bound']})" if roof else "",
    ]
    for baseline in names:
        found = record["baselines"].get(baseline)
        cells.append(ratio(baseline, found) if found else "")
    return cells


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """The cases of one group."""
    names = list(dict.fromkeys(name for r in records for name in r.get("baselines", {})))
    heads = [f"times {name}" if name in COSTS else f"faster than {name}" for name in names]
    head = ["case", "median", "p10-p90", "ns/token", "GB/s", "GFLOP/s", "of the roof", *heads]
    lines = [head, ["---"] * len(head), *(row(record, names) for record in records)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def notes(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Each reason why a baseline is missing, once, with the number of cases."""
    count: dict[str, int] = {}
    for record in records:
        for name, reason in record.get("notes", {}).items():
            said = f"{name}: {reason}"
            count[said] = count.get(said, 0) + 1
    return [f"- {said} ({cases} case{'s' if cases > 1 else ''})" for said, cases in count.items()]


def gates(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """What the limits say."""
    return [
        f"- {record['name']}: {record['gate']['share']:+.2%} of a step on average "
        f"(limit {record['gate']['limit']:.1%}): "
        f"{'holds' if record['gate']['holds'] else 'too dear'}"
        for record in records
        if "gate" in record
    ]


def markdown(result: Mapping[str, Any]) -> str:
    """The whole result."""
    environment, cases = result["environment"], result["cases"]
    changed = " with changes" if environment.get("modified") else ""
    parts = [
        "# Benchmarks",
        f"{environment['started']}, {environment.get('gpu') or environment['cpu']} "
        f"({environment['cpu_capability']}), {environment['threads']} threads, torch "
        f"{environment['torch']}, Python {environment['python']}, commit "
        f"{environment['commit']}{changed}.",
        f"`{' '.join(environment['command'])}`; medians of {result['rounds']} paired rounds. "
        "Of the roof: the least time by measured copy bandwidth and matrix-product rate over ours.",
    ]
    if any(record.get("clock") == "device" for record in cases):
        parts.append(
            f"By the GPU's own clock, {result['cache']} cache, host time left out, except in the "
            "groups host, step and probe and the training steps."
        )
    for threads, roof in result["roofs"].items():
        copies = ", ".join(
            f"{int(size) / 2**20:g} MiB {rate:.3g}" for size, rate in roof["copy_gb_per_s"].items()
        )
        products = ", ".join(
            f"{name} {rate:.3g}" for name, rate in roof["product_gflop_per_s"].items()
        )
        parts.append(
            f"Roof, {threads} threads: copies, GB/s: {copies}; products, GFLOP/s: {products}."
        )
    groups = dict.fromkeys(record["name"].partition("/")[0] for record in cases)
    for group in groups:
        of_group = [r for r in cases if r["name"].partition("/")[0] == group]
        parts += [f"## {group}", table(of_group)]
    for title, lines in (("Limits", gates(cases)), ("Not measured", notes(cases))):
        if lines:
            parts += [f"## {title}", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"
