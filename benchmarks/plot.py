"""A result as a picture: how much faster than each baseline, share of the roof, scaling curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hyperstreams.reproduce.style import RUN_COLOURS, house_style, new_figure

from .report import COSTS

FIRST_GROUPS = ("boundary", "sublayer", "small")
"""The groups drawn first; the others follow in the order of the tables."""
MOST_ROWS = 60
"""Of one panel; the table has every case."""


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Write the picture; ImportError without matplotlib (the extra ``plot``)."""
    with house_style():
        figure_of(result).savefig(path, dpi=150)


def figure_of(result: Mapping[str, Any]) -> Any:
    """The matplotlib figure: one panel beside another for each of the three that has cases."""
    records = [record for record in result["cases"] if "error" not in record]
    compared = rows([record for record in records if set(record["baselines"]) - set(COSTS)])
    roofs = rows([record for record in records if "roofline" in record])
    curves = _curves(records)
    panels: list[Callable[[Any], None]] = []
    if compared:
        panels.append(partial(_ratios, records=compared))
    if roofs:
        panels.append(partial(_roof, records=roofs))
    if curves:
        panels.append(partial(_scaling, curves=curves))
    count = max(1, len(panels))
    height = max(2.5, 0.16 * len(compared), 0.16 * len(roofs), 2.2 * ((len(curves) + 1) // 2))
    figure = new_figure(5.5 * count, height)
    for place, panel in zip(figure.subfigures(1, count, squeeze=False).flat, panels, strict=False):
        panel(place)
    return figure


def rows(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The records of a panel, those of ``FIRST_GROUPS`` first."""

    def rank(record: Mapping[str, Any]) -> int:
        group = record["name"].partition("/")[0]
        return FIRST_GROUPS.index(group) if group in FIRST_GROUPS else len(FIRST_GROUPS)

    return sorted(records, key=rank)[:MOST_ROWS]


def _ratios(place: Any, records: Sequence[Mapping[str, Any]]) -> None:
    from matplotlib.ticker import LogLocator

    axis = place.subplots()
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
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("")
    axis.set_xlabel("times faster than (median, 10th to 90th percentile)")
    _labels(axis, records)
    axis.legend(loc="lower left", bbox_to_anchor=(-0.3, 1), ncols=3, borderaxespad=0.2)


def _roof(place: Any, records: Sequence[Mapping[str, Any]]) -> None:
    axis = place.subplots()
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


def _scaling(place: Any, curves: Mapping[str, Sequence[tuple[int, float]]]) -> None:
    axes = list(place.subplots((len(curves) + 1) // 2, 2, squeeze=False).flat)
    for axis, (name, points) in zip(axes, curves.items(), strict=False):
        _curve(axis, name, points)
    for axis in axes[len(curves) :]:
        axis.set_visible(False)


def _curve(axis: Any, name: str, points: Sequence[tuple[int, float]]) -> None:
    values, times = zip(*points, strict=True)
    axis.plot(values, times, "o-", color=RUN_COLOURS[2])
    axis.set(xscale="log", yscale="log", xlabel=name, ylabel="ns per token")
    axis.set_xticks(values, [str(value) for value in values])
    axis.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter("{x:g}")
    axis.tick_params(axis="y", which="minor", labelsize=5)
