"""A result as a picture: how much faster than each baseline, share of the roof, scaling curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from hyperstreams.reproduce.style import RC, RUN_COLOURS

from .report import COSTS

LARGEST = 60
"""Cases in the picture; the table has them all."""


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Write the picture; ImportError without matplotlib (the extra ``plot``)."""
    matplotlib: Any = import_module("matplotlib")
    matplotlib.use("Agg")
    pyplot: Any = import_module("matplotlib.pyplot")
    records = [record for record in result["cases"] if "error" not in record]
    compared = [r for r in records if set(r["baselines"]) - set(COSTS)][:LARGEST]
    roofs = [r for r in records if "roofline" in r][:LARGEST]
    curves = _curves(records)
    with matplotlib.rc_context(RC):
        height = max(2.5, 0.16 * len(compared), 2.2 * ((len(curves) + 1) // 2))
        figure = pyplot.figure(figsize=(11, height), layout="constrained")
        left, right = figure.subfigures(1, 2, width_ratios=(1.2, 1))
        if compared:
            _ratios(left.subplots(), compared)
        if curves:
            axes = list(right.subplots((len(curves) + 1) // 2, 2, squeeze=False).flat)
            for axis, (name, points) in zip(axes, curves.items(), strict=False):
                _curve(axis, name, points)
            for axis in axes[len(curves) :]:
                axis.set_visible(False)
        elif roofs:
            _roof(right.subplots(), roofs)
        figure.savefig(path, dpi=150)
        pyplot.close(figure)


def _ratios(axis: Any, records: Sequence[Mapping[str, Any]]) -> None:
    names = list(dict.fromkeys(n for r in records for n in r["baselines"] if n not in COSTS))
    for name, colour in zip(names, RUN_COLOURS, strict=False):
        found = [(k, r["baselines"][name]) for k, r in enumerate(records) if name in r["baselines"]]
        middle = [b["ratio"] for _, b in found]
        low = [b["ratio"] - b["ratio_p10"] for _, b in found]
        high = [b["ratio_p90"] - b["ratio"] for _, b in found]
        axis.errorbar(
            middle,
            [k for k, _ in found],
            xerr=(low, high),
            fmt="o",
            color=colour,
            elinewidth=0.8,
            label=name,
        )
    axis.axvline(1, color="black", linewidth=0.8)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("{x:g}")
    axis.tick_params(axis="x", which="minor", labelsize=5)
    axis.set_xlabel("times faster than (median, 10th to 90th percentile)")
    _labels(axis, records)
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(names), borderaxespad=0.2)


def _roof(axis: Any, records: Sequence[Mapping[str, Any]]) -> None:
    percent = [record["roofline"]["percent"] for record in records]
    axis.barh(range(len(records)), percent, color=RUN_COLOURS[0], height=0.6)
    axis.set_xlabel("percent of the roof")
    _labels(axis, records)


def _labels(axis: Any, records: Sequence[Mapping[str, Any]]) -> None:
    axis.set_yticks(range(len(records)), [record["name"] for record in records])
    axis.tick_params(axis="y", labelsize=5)
    axis.set_ylim(len(records) - 0.5, -0.5)


def _curves(records: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for record in records:
        if "curve" in record:
            name, value = record["curve"]
            found.setdefault(name, []).append((value, record["ns_per_token"]))
    return found


def _curve(axis: Any, name: str, points: Sequence[tuple[int, float]]) -> None:
    values, times = zip(*points, strict=True)
    axis.plot(values, times, "o-", color=RUN_COLOURS[2])
    axis.set(xscale="log", yscale="log", xlabel=name, ylabel="ns per token")
    axis.set_xticks(values, [str(value) for value in values])
    axis.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter("{x:g}")
    axis.tick_params(axis="y", which="minor", labelsize=5)
