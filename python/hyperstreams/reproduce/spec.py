"""What a figure is: its words, how it is drawn, and the runs it needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..train import TrainConfig
from .measurements import Measurement
from .records import Row
from .runs import CapturedRun
from .scales import Scale

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Runs = Sequence[CapturedRun]
NOT_AGGREGATED = "none: every run is drawn on its own"


@dataclass(frozen=True)
class FigureSpec:
    """One figure: what it is called, what it draws, and what is said under it.

    ``draw(figure, runs)`` fills an empty matplotlib figure of ``size(runs)`` inches;
    ``rows(runs)`` gives the plotted numbers. ``reading`` tells how to read the panels, ``variant``
    which of the published variants of each definition is used, ``aggregation`` how several runs
    become one curve or number. ``plan(scale)`` lists the runs that the figure wants,
    ``measurements(runs)`` what is slow to measure on them.
    """

    name: str
    title: str
    source: str
    reading: str
    definitions: dict[str, str]
    variant: dict[str, str]
    draw: Callable[[Figure, Runs], Figure]
    rows: Callable[[Runs], list[Row]]
    size: Callable[[Runs], tuple[float, float]]
    plan: Callable[[Scale], list[TrainConfig]]
    aggregation: str = NOT_AGGREGATED
    needs_streams: bool = True
    measurements: Callable[[Runs], list[Measurement]] = lambda runs: []

    def caption(self, runs: Runs) -> str:
        """What stands under the picture: how to read it, how many runs, how aggregated."""
        seeds = sorted({run.seed for run in runs})
        many = f"{len(runs)} run{'s' if len(runs) != 1 else ''}"
        which = f"seed{'s' if len(seeds) != 1 else ''} {', '.join(map(str, seeds))}"
        return f"{self.reading} {many} ({which}); aggregation: {self.aggregation}."
