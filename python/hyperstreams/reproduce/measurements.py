"""Slow measurements on finished runs, made one by one before a figure that shows them is drawn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .progress import duration


@dataclass(frozen=True)
class Measurement:
    """Something that ``make`` measures and keeps at ``path``; of one ``kind`` all take about as
    long. ``finished``: it is there already, and ``make`` would only read it."""

    kind: str
    label: str
    path: Path
    finished: bool
    make: Callable[[], object]


def make_missing(
    measurements: Sequence[Measurement],
    *,
    quiet: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Make what is not there, each once, and print a line for each: how long it took, what is left.

    Everything is kept as it is made: the same call after an interruption makes the rest.
    """
    missing = list({m.path: m for m in measurements if not m.finished}.values())
    seconds: dict[str, list[float]] = {}
    for index, measurement in enumerate(missing):
        began = clock()
        measurement.make()
        seconds.setdefault(measurement.kind, []).append(clock() - began)
        if not quiet:
            rest = missing[index + 1 :]
            left = f", about {duration(time_left(rest, seconds))} left" if rest else ""
            print(
                f"[{index + 1}/{len(missing)}] {measurement.label}  "
                f"{duration(seconds[measurement.kind][-1])}{left}",
                flush=True,
            )


def time_left(rest: Sequence[Measurement], seconds: dict[str, list[float]]) -> float:
    """Mean of its kind for each of ``rest``; of all, where none of its kind has been timed."""
    known = [value for values in seconds.values() for value in values]
    return sum(statistics.mean(seconds.get(measurement.kind, known)) for measurement in rest)
