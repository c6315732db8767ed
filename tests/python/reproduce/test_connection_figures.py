"""Figures of composites, unfolded contributions, cosines, coefficients over time, and the phase."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from hyperstreams.diagnostics import ledger, quantity
from hyperstreams.models import GPTConfig
from hyperstreams.reproduce import adjacent, composites, dynamics, phase, style, unfolded
from hyperstreams.reproduce.cache import Historian
from hyperstreams.reproduce.figures import FIGURES, get_figure, make_figure
from hyperstreams.reproduce.runs import CapturedRun, open_runs
from hyperstreams.reproduce.seeds import late_curves
from hyperstreams.train import RunError, TrainConfig, run_training

TRACED = ["hc-unfolded", "hc-patterns", "hc-adjacent-cosine", "mhc-gain", "spectrum", "ledger"]


@pytest.fixture(scope="module")
def hc_run(
    tmp_path_factory: pytest.TempPathFactory, make_config: Callable[[Path, str], TrainConfig]
) -> CapturedRun:
    """Unconstrained HC, captured at its checkpoints."""
    config = make_config(tmp_path_factory.mktemp("hc"), "mhc")
    model = GPTConfig(n_layer=2, n_head=2, width=16, block_size=16, connection="hc")
    config = replace(config, model=model, checkpoint_every=2)
    run_training(config, progress=False, on_checkpoint=Historian(config))
    return open_runs([config.run_dir()])[0]


@pytest.fixture(scope="module")
def runs(hc_run: CapturedRun, stream_runs: Sequence[CapturedRun]) -> list[CapturedRun]:
    """HC, mHC-lite, mHC-lite + LSS."""
    return [hc_run, *stream_runs[1:]]


def referenced(ax: Any) -> bool:
    """Whether a panel has a line of the value at initialisation, a null, or a mark in its bar."""
    looks = [(line.get_color(), line.get_linestyle()) for line in ax.lines]
    return any(c in (style.REFERENCE, style.FAINT) and dash != "-" for c, dash in looks)


@pytest.mark.parametrize("name", TRACED)
def test_drawn_with_numbers_and_references(name: str, runs: list[CapturedRun]) -> None:
    spec = get_figure(name)
    figure = make_figure(spec, runs)
    panels = [ax for ax in figure.axes if ax.lines and not ax.images and ax.get_xlabel()]
    maps = [ax for ax in figure.axes if ax.images]
    assert panels or maps
    assert all(referenced(ax) for ax in panels)
    if not panels:  # heat maps stand beside their initial selves, on one scale
        titles = [ax.get_title(loc="left") for ax in maps]
        assert sum("initial" in title for title in titles) == len(runs)
        assert sum("trained" in title for title in titles) == len(runs)
        for left, right in zip(maps[::2], maps[1::2], strict=True):
            assert left.images[0].get_clim() == right.images[0].get_clim()
    rows = spec.rows(runs)
    assert {row["phase"] for row in rows} == {"initial", "trained"}
    assert {row["run"] for row in rows} == {run.label for run in runs}
    assert all(numpy.isfinite(row["value"]) for row in rows)
    assert "3 runs (seed 0)" in spec.caption(runs)


def test_initial_hyper_connections_are_a_residual_network(hc_run: CapturedRun) -> None:
    mean, deviation = unfolded.contributions(hc_run, hc_run.initial_trace)
    torch.testing.assert_close(mean, torch.ones(5, 5, dtype=torch.float64).tril())
    assert deviation.abs().max() < 1e-6
    trained, _ = unfolded.contributions(hc_run, hc_run.trained_trace)
    assert (trained - mean).abs().max() > 0.01
    figure = make_figure(get_figure("hc-unfolded"), [hc_run])
    shown = numpy.ma.filled(figure.axes[1].images[0].get_array(), numpy.nan)
    assert numpy.allclose(numpy.nan_to_num(shown), trained.tril().numpy())
    assert numpy.isnan(shown[0, 1:]).all()


def test_ledger_shown_is_the_state(runs: list[CapturedRun]) -> None:
    for run in runs:
        found = run.trained_trace
        start = unfolded.start_of(run, found)
        exact = ledger.ledger(found.h_res.double(), found.h_post.double(), start=start)
        written = ledger.writers(
            found.streams[0].double(), found.branch_out.double(), replicated=run.replicated
        )
        rebuilt = ledger.reconstruct(exact, written)
        torch.testing.assert_close(rebuilt, found.streams.double(), atol=1e-4, rtol=1e-4)
        assert unfolded.held(run, found).shape == (4, 5)
    assert unfolded.start_of(runs[1], runs[1].trained_trace) is None
    assert unfolded.start_of(runs[2], runs[2].trained_trace) is not None  # LSS


def test_composites_of_doubly_stochastic_mixers_keep_sums(runs: list[CapturedRun]) -> None:
    hc, lite, _ = runs
    for side in ("destination", "source"):
        kept = composites.gain(lite.trained_trace, side)  # type: ignore[arg-type]
        torch.testing.assert_close(kept, torch.ones_like(kept), atol=1e-5, rtol=0)
        free = composites.gain(hc.trained_trace, side)  # type: ignore[arg-type]
        assert (free - 1).abs().max() > 1e-3
    start = composites.contraction(lite.initial_trace)
    expected = [(1 - 4 / 3 * 0.00599) ** (k + 1) for k in range(4)]
    assert start.tolist() == pytest.approx(expected, abs=1e-3)
    assert composites.eigenvalues(lite.initial_trace)[:, 0].tolist() == pytest.approx([1.0] * 4)
    rank = composites.effective_rank(lite.initial_trace)
    assert rank[0].item() == pytest.approx(1.0, abs=1e-4)  # copies
    assert rank.max() <= 4


def test_cosine_bands_hold_the_median(runs: list[CapturedRun]) -> None:
    for run in runs:
        bands = adjacent.adjacent_quantiles(run.trained_trace)
        assert bands.shape == (3, 3)
        assert (bands[:, 0] <= bands[:, 1]).all()
        assert (bands[:, 1] <= bands[:, 2]).all()
    assert adjacent.pair_names(runs[0].trained_trace) == ["L0a-L0m", "L0m-L1a", "L1a-L1m"]


def test_coefficients_over_training_are_those_of_the_checkpoints(
    hc_run: CapturedRun, stream_runs: Sequence[CapturedRun]
) -> None:
    steps, captures = dynamics.steps_of(hc_run)
    assert steps == [0, 2, 4, 6]
    figure = make_figure(get_figure("hc-beta-dynamics"), [hc_run])
    beta = dynamics.write_coefficients(captures)
    site = captures[0].site_names.index("L0m")
    for stream in range(4):
        (line,) = [x for x in figure.axes[0].lines if x.get_color() == style.stream_colour(stream)]
        assert line.get_xdata().tolist() == steps
        assert line.get_ydata().tolist() == beta[:, site, stream].tolist()
    assert all(referenced(ax) for ax in figure.axes)
    with pytest.raises(RunError, match="expected captures at several steps, got 0"):
        make_figure(get_figure("hc-beta-dynamics"), stream_runs[:1])


def test_phase_cells_average_their_seeds(
    tmp_path: Path, make_config: Callable[..., TrainConfig]
) -> None:
    folders = []
    for seed in (0, 1):
        config = make_config(tmp_path, "mhc_lite", seed=seed)
        folders.append(config.run_dir())
        run_training(config, progress=False)
    faster = replace(config, connection_lr_multiplier=10.0, out_dir=str(tmp_path / "fast"))
    run_training(faster, progress=False)
    runs = open_runs([*folders, tmp_path / "fast"])
    assert runs[2].label == "mHC-lite, connections x10, seed 1"
    grid = phase.cells(runs)
    assert {cell: len(group) for cell, group in grid.items()} == {(0.05, 1.0): 2, (0.05, 10.0): 1}
    figure = make_figure(get_figure("phase"), runs)
    panel = figure.axes[1]
    shares = [quantity("write_dominance", run.trained).mean().item() for run in runs]
    drawn = numpy.asarray(panel.images[0].get_array())
    assert drawn[0].tolist() == pytest.approx([(shares[0] + shares[1]) / 2, shares[2]])
    initial = numpy.mean([quantity("write_dominance", r.initial).mean().item() for r in runs])
    assert f"initial {initial:.2f}" in panel.get_title(loc="left")
    assert len(get_figure("phase").rows(runs)) == 3 * 4 * 2
    steps, curves = late_curves(runs[:2])
    assert steps == [3, 6]
    assert len(curves) == 2


def test_every_figure_says_how_runs_are_aggregated() -> None:
    for spec in FIGURES.values():
        assert spec.aggregation
        assert spec.source
        assert spec.definitions
