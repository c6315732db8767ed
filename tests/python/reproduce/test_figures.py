"""Figures: files, numbers beside them, and the value at initialisation in every panel."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from hyperstreams.diagnostics import capture, quantity
from hyperstreams.reproduce import style
from hyperstreams.reproduce.figures import FIGURES, get_figure, make_figure, run_figure
from hyperstreams.reproduce.mixers import entry, shown_sites
from hyperstreams.reproduce.records import standard_error
from hyperstreams.reproduce.runs import CapturedRun, describe, open_runs
from hyperstreams.train import RunError
from hyperstreams.train.trainer import build_model

STREAM_FIGURES = ["fig1", "fig2", "fig3", "fig4", "fig6", "fig7"]
"""One of each that is drawn from captures; figures 9 to 11 are drawn as figure 6 is."""


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def dashed(ax: Any) -> list[Any]:
    """Lines with the look of a value at initialisation."""
    return [
        line
        for line in ax.lines
        if line.get_color() == style.REFERENCE and line.get_linestyle() == "--"
    ]


@pytest.mark.parametrize("name", STREAM_FIGURES)
def test_files_of_a_figure(
    name: str, run_dirs: dict[str, Path], stream_runs: Sequence[CapturedRun], tmp_path: Path
) -> None:
    paths = run_figure(name, [run_dirs["mhc"], run_dirs["lss"]], tmp_path)
    assert [path.name for path in paths] == [f"{name}.{s}" for s in ("png", "pdf", "csv", "json")]
    assert paths[0].read_bytes()[:4] == b"\x89PNG"
    assert paths[1].read_bytes()[:5] == b"%PDF-"

    rows = read_rows(paths[2])
    runs = {run.label: run for run in stream_runs}
    assert {row["run"] for row in rows} == {"mHC", "mHC-lite + LSS"}
    for quantity_name in {row["quantity"] for row in rows}:
        own = [row for row in rows if row["quantity"] == quantity_name]
        assert {row["phase"] for row in own} == {"initial", "trained"}
        for row in own:
            captured = getattr(runs[row["run"]], row["phase"])
            index = [captured.state_names.index(row["site"])]
            index += [int(row[key]) for key in ("stream", "other") if row[key]]
            expected = quantity(quantity_name, captured)[tuple(index)].item()
            assert float(row["value"]) == expected

    details = json.loads(paths[3].read_text())
    assert details["number_of_runs"] == 2
    assert details["aggregation"].startswith("none")
    assert "2 runs (seed 0); aggregation: none" in details["caption"]
    assert details["orientation"] == "h_res[destination, source]"
    assert set(details["definitions"]) == set(FIGURES[name].definitions)
    assert details["variant"] == FIGURES[name].variant
    for record in details["runs"]:
        weights = Path(record["run_dir"]) / "checkpoint" / "model.safetensors"
        assert record["checkpoint_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
        assert record["config"]["width"] == 16
        assert record["seed"] == 0
        assert len(record["designated_streams"]) == 4
        assert details["tokens_per_run"][record["label"]] == 8 * 16 * 16


def test_initial_capture_is_the_model_before_training(stream_runs: Sequence[CapturedRun]) -> None:
    run = stream_runs[1]
    fresh = build_model(run.loaded.config)
    again = capture(fresh, run.loaded.data.eval_batches(16, 128))
    assert torch.equal(again.sums, run.initial.sums)
    assert not torch.equal(run.initial.sums, run.trained.sums)
    share = quantity("read_share", run.initial)
    designated = run.record()["designated_streams"]
    assert share.argmax(dim=1).tolist() == designated
    assert share.amax(dim=1).tolist() == pytest.approx([0.475] * 4, abs=5e-3)
    assert quantity("off_diagonal_mass", run.initial).tolist() == pytest.approx(
        [0.00599] * 4, abs=2e-4
    )
    assert run.initial.mean_loss == pytest.approx(run.evaluations[0]["loss"], rel=0.05), (
        "other windows of the same split"
    )


def test_captures_are_kept_with_the_run(run_dirs: dict[str, Path]) -> None:
    first = open_runs([run_dirs["mhc"]])[0].trained
    files = sorted((run_dirs["mhc"] / "captures").iterdir())
    stamps = [path.stat().st_mtime_ns for path in files]
    assert torch.equal(open_runs([run_dirs["mhc"]])[0].trained.sums, first.sums)
    assert [path.stat().st_mtime_ns for path in files] == stamps


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("fig3", ["norm_share", "mean_cosine", "norm"]),
        ("fig4", ["curvature", "position_curvature"]),
    ],
)
def test_lines_and_reference_of_state_figures(
    name: str, columns: list[str], stream_runs: Sequence[CapturedRun]
) -> None:
    figure = make_figure(get_figure(name), stream_runs)
    grid = numpy.array(figure.axes, dtype=object).reshape(len(stream_runs), len(columns))
    for run, row in zip(stream_runs, grid, strict=True):
        for ax, column in zip(row, columns, strict=True):
            initial = quantity(column, run.initial).numpy()
            trained = quantity(column, run.trained).numpy()
            (reference,) = dashed(ax)
            mean = initial.mean(axis=1) if initial.ndim == 2 else initial
            assert numpy.array_equal(reference.get_ydata(), mean)
            if trained.ndim == 2:
                for stream in range(4):
                    (line,) = [x for x in ax.lines if x.get_color() == style.stream_colour(stream)]
                    assert numpy.array_equal(line.get_ydata(), trained[:, stream])


def test_mixers_are_shown_trained_and_initial(stream_runs: Sequence[CapturedRun]) -> None:
    figure = make_figure(get_figure("fig1"), stream_runs)
    maps = [ax for ax in figure.axes if ax.images]
    assert len(maps) == 4 * len(stream_runs)
    for k, run in enumerate(stream_runs):
        assert shown_sites(run.trained) == ("L0m", "L1a")
        for ax, (captured, site) in zip(
            maps[4 * k : 4 * k + 4],
            [(c, s) for s in ("L0m", "L1a") for c in (run.initial, run.trained)],
            strict=True,
        ):
            shown = numpy.asarray(ax.images[0].get_array())
            index = captured.site_names.index(site)
            assert numpy.array_equal(shown, captured.mean("h_res")[index].numpy())
            assert ax.get_title(loc="left").startswith(site)
    curves = [ax for ax in figure.axes if ax.get_title(loc="left") == "off-diagonal mass"]
    for ax, run in zip(curves, stream_runs, strict=True):
        (reference,) = dashed(ax)
        expected = quantity("off_diagonal_mass", run.initial).numpy()
        assert numpy.array_equal(reference.get_ydata(), expected)
        # Replicated streams make the first mixer invisible; scaled ones do not.
        assert bool(ax.texts) == run.replicated


def test_shares_are_stacked_to_one_beside_their_initial_values(
    stream_runs: Sequence[CapturedRun],
) -> None:
    figure = make_figure(get_figure("fig2"), stream_runs[:1])
    run = stream_runs[0]
    for ax, side in zip(figure.axes[:2], ("read", "write"), strict=True):
        bars = {bar.get_label(): bar for bar in ax.containers}
        trained = quantity(f"{side}_share", run.trained).numpy()
        for stream in range(4):
            container = bars[f"s{stream}"]
            heights = [patch.get_height() for patch in container]
            assert heights == pytest.approx(trained[:, stream].tolist())
            assert container[0].get_facecolor()[:3] == pytest.approx(
                tuple(int(style.stream_colour(stream)[k : k + 2], 16) / 255 for k in (1, 3, 5))
            )
        edges = [y for lines in ax.collections for (_, y), _ in lines.get_segments()]
        initial = quantity(f"{side}_share", run.initial).cumsum(dim=1)[:, :-1]
        assert edges == pytest.approx(initial.T.flatten().tolist())
    (reference,) = dashed(figure.axes[2])
    initial = torch.stack(
        [quantity(f"{side}_effective_streams", run.initial) for side in ("read", "write")]
    )
    assert reference.get_ydata().tolist() == pytest.approx(initial.mean(dim=0).tolist())


def test_loss_curves_take_every_run(run_dirs: dict[str, Path], tmp_path: Path) -> None:
    paths = run_figure("loss", list(run_dirs.values()), tmp_path)
    rows = read_rows(paths[2])
    logged = [
        record["nats_per_byte"]
        for name in run_dirs
        for record in map(json.loads, (run_dirs[name] / "metrics.jsonl").read_text().splitlines())
        if record["kind"] == "eval"
    ]
    assert [float(row["value"]) for row in rows] == logged
    assert [row["phase"] for row in rows].count("initial") == 4
    figure = make_figure(get_figure("loss"), open_runs(list(run_dirs.values())))
    assert len(dashed(figure.axes[0])) == 1


def test_labels_tell_runs_apart(run_dirs: dict[str, Path], tmp_path: Path) -> None:
    assert describe({"connection": "mhc_lite", "expand": "learned_scale"}) == "mHC-lite + LSS"
    assert describe({"connection": "residual", "expand": "replicate"}) == "residual"
    twice = open_runs([run_dirs["mhc"], run_dirs["mhc"]])
    assert [run.label for run in twice] == ["mHC, seed 0 (mhc-0)"] * 2


def test_bad_requests_are_worded(run_dirs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"figure: unknown name 'fig22'; did you mean 'fig2'"):
        run_figure("fig22", [run_dirs["mhc"]], tmp_path)
    with pytest.raises(RunError, match="expected at least one run"):
        run_figure("fig2", [], tmp_path)
    with pytest.raises(RunError, match="expected runs with streams, got connection 'residual'"):
        run_figure("fig2", [run_dirs["residual"]], tmp_path)
    with pytest.raises(RunError, match="not a run directory"):
        run_figure("fig2", [tmp_path], tmp_path)


def test_standard_errors_are_of_means(stream_runs: Sequence[CapturedRun]) -> None:
    captured = stream_runs[0].trained
    assert captured.batches > 1
    shares = [quantity("read_share", captured.batch(k)) for k in range(captured.batches)]
    expected = torch.stack(shares).std(dim=0) / captured.batches**0.5
    assert torch.equal(standard_error("read_share", captured), expected)
    assert standard_error("read_share", captured.batch(0)).isnan().all()
    for name in ("read_min", "mixer_max"):
        with pytest.raises(ValueError, match=f"standard_error: name: .* got '{name}'"):
            standard_error(name, captured)


def test_printed_mixer_entries() -> None:
    assert [entry(v) for v in (171.49, -12.34, 12345.6)] == ["171", "-12.3", "1.23e4"]
    assert [entry(v) for v in (0.99401, 0.9996, 0.0021, 0.000335, 0.0, -0.25, 9.6e-6)] == [
        ".994",
        "1.000",
        ".002",
        "3e-4",
        ".000",
        "-.250",
        "1e-5",
    ]


def test_style_leaves_the_users_settings_alone() -> None:
    matplotlib = style.require_matplotlib()
    before = dict(matplotlib.rcParams)
    with style.house_style():
        assert matplotlib.rcParams["axes.titlelocation"] == "left"
    assert dict(matplotlib.rcParams) == before
    colours = [style.stream_colour(s) for s in range(7)]
    assert len(set(colours)) == 7
