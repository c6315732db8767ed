"""The registry of figures, and the one function that makes any of them from run directories."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..train import RunError
from . import loss, mixers, states, style, usage
from .records import Row, write_figure
from .runs import CAPTURE_BATCHES, CapturedRun, open_runs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Runs = Sequence[CapturedRun]


@dataclass(frozen=True)
class FigureSpec:
    """One figure: what it is called, what it draws, and what is said under it.

    ``draw(figure, runs)`` fills an empty matplotlib figure of ``size(runs)`` inches;
    ``rows(runs)`` gives the plotted numbers. ``reading`` tells how to read the panels, ``variant``
    which of the published variants of each definition is used.
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
    needs_streams: bool = True


FIGURES: dict[str, FigureSpec] = {
    spec.name: spec
    for spec in (
        FigureSpec(
            "fig1",
            mixers.TITLE,
            "arXiv 2606.03483, figure 1, at small scale",
            "Each square is H_res averaged over tokens: how much of a source stream (column) goes "
            "into a destination (row). White is 1/n, what plain averaging would give; a red "
            "diagonal on blue is the identity. Compare trained with initial: these mixers "
            "start near the identity. On the right, the off-diagonal mass of every site, "
            "with its initial value dashed and full averaging dotted; grey where it has no effect: "
            "copies of one stream are mixed into the same copies, whatever the mixer.",
            mixers.DEFINITIONS,
            {"mixer": "token mean", "orientation": "destination_rows"},
            mixers.draw,
            mixers.rows,
            mixers.size,
        ),
        FigureSpec(
            "fig2",
            usage.TITLE,
            "arXiv 2606.03483, figure 2, at small scale",
            "Wide bars: share of each stream in what a site reads (H_pre) and where it writes "
            "(H_post), averaged over tokens. The pale bar to the left and the black dashes are the "
            "same at initialisation, where every site has a favoured stream already. On the right "
            "the effective number of streams; below the dashed line the site uses fewer streams "
            "than it was initialised to.",
            usage.DEFINITIONS,
            {"share": "weight", "average": "mean_of_ratios", "effective_streams": "entropy"},
            usage.draw,
            usage.rows,
            usage.size,
        ),
        FigureSpec(
            "fig3",
            states.IMBALANCE_TITLE,
            "arXiv 2606.03483, figure 3, at small scale (its left panel is not recoverable; norm "
            "share and cosine are ours)",
            "One line per stream, the stream with the largest mean write share thicker; dashed "
            "with a grey band (smallest to largest stream): the model at initialisation. Streams "
            "that part from the dashed line have grown apart in norm; a falling cosine says that "
            "they hold different directions. A stream with a large norm does not dominate the "
            "logits where the readout normalises every stream.",
            states.definitions(states.IMBALANCE_PANELS),
            {"norm": "token mean of L2", "norm_share": "ratio_of_means", "cosine": "raw"},
            states.draw_imbalance,
            states.imbalance_rows,
            states.imbalance_size,
        ),
        FigureSpec(
            "fig4",
            states.CURVATURE_TITLE,
            "arXiv 2606.03483, figure 4, at small scale",
            "Mean angle between one step along the token sequence and the next: 0 is a straight "
            "line, 120 degrees (dotted) independent tokens; on the right, between the states "
            "themselves (independent: 90). Dashed: the model at initialisation. The thick line is "
            "the stream written to most. Streams share their vectors, so low curvature is not "
            "evidence independent of figures 2 and 3.",
            states.definitions(states.CURVATURE_PANELS),
            {"left": "difference", "right": "position", "zero_steps": "skipped"},
            states.draw_curvature,
            states.curvature_rows,
            states.curvature_size,
        ),
        FigureSpec(
            "loss",
            loss.TITLE,
            "this package",
            "Validation loss over training, the same windows for every run; dashed: before the "
            "first step. The right panel enlarges the end. Single runs differ between seeds: "
            "curves that lie close do not rank the models.",
            loss.DEFINITIONS,
            {"split": "validation", "unit": "nats per byte"},
            loss.draw,
            loss.rows,
            loss.size,
            needs_streams=False,
        ),
    )
}
"""Every figure by the name that ``hyperstreams figure`` takes."""


def get_figure(name: str) -> FigureSpec:
    """A figure by name; an unknown one is an error that names the nearest."""
    if name not in FIGURES:
        near = get_close_matches(name, FIGURES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise RunError(f"figure: unknown name {name!r}{hint} Known: {', '.join(FIGURES)}")
    return FIGURES[name]


def make_figure(spec: FigureSpec, runs: Runs) -> Figure:
    """The drawn figure, without files."""
    with style.house_style():
        return spec.draw(style.new_figure(*spec.size(runs)), runs)


def save_figure(spec: FigureSpec, runs: Runs, out: Path) -> list[Path]:
    """Draw one figure of loaded runs and write PNG, PDF, CSV and JSON."""
    if spec.needs_streams:
        without = [f"{run.connection!r} in {run.path}" for run in runs if not run.has_streams]
        if without:
            raise RunError(
                f"figure {spec.name}: expected runs with streams, got connection "
                f"{', '.join(without)}"
            )
    details: dict[str, Any] = {
        "figure": spec.name,
        "title": spec.title,
        "source": spec.source,
        "definitions": spec.definitions,
        "variant": spec.variant,
        "orientation": "h_res[destination, source]",
        "reference": "same config rebuilt at step 0 from the same seed, on the same batches",
        "split": "validation",
        "tokens_per_run": {run.label: run.trained.tokens for run in runs if run.has_streams},
        "batches_per_run": CAPTURE_BATCHES,
        "number_of_runs": len(runs),
        "aggregation": "none: every run is drawn on its own",
        "runs": [run.record() for run in runs],
    }
    with style.house_style():
        figure = spec.draw(style.new_figure(*spec.size(runs)), runs)
        return write_figure(out, spec.name, figure, spec.rows(runs), details)


def run_figure(name: str, runs: Sequence[str | Path], out: str | Path = "figures") -> list[Path]:
    """Make one figure of finished run directories; returns the files written.

    ``hyperstreams figure NAME --run DIR [--run DIR2] --out DIR``.
    """
    spec = get_figure(name)
    if not runs:
        raise RunError(f"figure {name}: expected at least one run directory")
    style.require_matplotlib()
    return save_figure(spec, open_runs(runs), Path(out))
