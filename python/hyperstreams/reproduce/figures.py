"""The registry of figures, and the one function that makes any of them from run directories."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..train import COLLECTIONS, RunError, TrainConfig
from . import interventions, specs_collapse, specs_connections, specs_crosscoder, style
from .cache import RunCache, train_command, unique
from .cost import cost_table, estimate
from .labels import config_labels
from .measurements import make_missing
from .records import write_figure
from .runs import CAPTURE_BATCHES, open_runs
from .scales import Scale
from .spec import FigureSpec, Runs

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def _number(spec: FigureSpec) -> int:
    """Place of the diagnosis paper's figures, in its order; the others after them as listed."""
    digits = spec.name.removeprefix("fig")
    return int(digits) if digits.isdigit() else 12


FIGURES: dict[str, FigureSpec] = {
    spec.name: spec
    for spec in sorted(
        (
            *specs_collapse.SPECS,
            *specs_crosscoder.SPECS,
            *specs_connections.SPECS,
            interventions.SPEC,
        ),
        key=_number,
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
        "aggregation": spec.aggregation,
        "caption": spec.caption(runs),
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


def figure_runs(
    spec: FigureSpec, scale: Scale, cache: RunCache, *, quiet: bool = False
) -> list[Path]:
    """Folders of the runs that a figure wants at a scale, trained where they are missing."""
    configs = spec.plan(scale)
    if not quiet:
        placed = [cache.place(config) for config in configs]
        print(f"{spec.name}: {estimate(scale, placed, cache.missing(configs))}", flush=True)
    return cache.train(configs, quiet=quiet)


def figure_at_scale(
    name: str,
    scale: Scale,
    *,
    cache: RunCache | None = None,
    out: str | Path = "figures",
    quiet: bool = False,
) -> list[Path]:
    """Find or train what a figure wants, then make it; returns the files written.

    ``hyperstreams figure NAME --scale S``. Raises :class:`InterruptedError` after a signal; the
    same call continues.
    """
    spec = get_figure(name)
    style.require_matplotlib()
    folders = figure_runs(spec, scale, cache or RunCache(), quiet=quiet)
    device = str(scale.settings.get("device", "cpu"))
    runs = open_runs(folders, device=device)
    make_missing(spec.measurements(runs), quiet=quiet)
    return save_figure(spec, runs, Path(out))


def printed_plan(
    what: Sequence[str], configs: Sequence[TrainConfig], scale: Scale, cache: RunCache
) -> str:
    """Cost of all ``configs`` and the command of every run that is not there."""
    configs = unique(configs)
    missing = cache.missing(configs)
    parts = [f"{', '.join(what)} at scale {scale.name}: {scale.about}"]
    parts += [cost_table(scale, configs, config_labels(configs))]
    if missing:
        parts += [f"{len(missing)} of {len(configs)} runs are not there. To train them:"]
        parts += [
            f"hyperstreams prepare --dataset {Path(folder).name} {folder} --workers 8"
            for folder in dict.fromkeys(config.dataset for config in missing)
            if Path(folder).name in COLLECTIONS and not Path(folder).exists()
        ]
        parts += [train_command(config) for config in missing]
        parts += [
            "The published perplexities (WikiText-103; C4 likewise, split val), of each run:",
            "hyperstreams prepare --dataset wikitext103 data/wikitext103",
            "hyperstreams eval RUN --protocol released --dataset data/wikitext103 --split test",
        ]
    return "\n".join(parts)
