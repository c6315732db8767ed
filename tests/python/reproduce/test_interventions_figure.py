"""The interventions figure: measured once per run, drawn with references, numbers beside it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy
import pytest
from hyperstreams.diagnostics import Ablate, effects
from hyperstreams.models import GPT
from hyperstreams.reproduce import style
from hyperstreams.reproduce.causal import (
    BATCH_SIZE,
    BATCHES,
    EXPERIMENTS,
    causal,
    measurements,
)
from hyperstreams.reproduce.figures import FIGURES, make_figure, run_figure
from hyperstreams.reproduce.interventions import short
from hyperstreams.reproduce.runs import CapturedRun
from matplotlib.figure import Figure


@pytest.fixture(scope="module")
def run(stream_runs: Sequence[CapturedRun]) -> CapturedRun:
    return stream_runs[0]


@pytest.fixture(scope="module")
def figure(run: CapturedRun) -> Figure:
    return make_figure(FIGURES["interventions"], [run])


def panel(figure: Figure, title: str) -> object:
    (found,) = [ax for ax in figure.axes if title in ax.get_title(loc="left")]
    return found


def test_measured_on_the_run_and_kept(run: CapturedRun) -> None:
    found = causal(run, "trained")
    table = found.ablation
    assert table.axes["state"] == (*run.loaded.model.site_names, "readout")
    assert table.tokens == BATCHES * BATCH_SIZE * 16
    batches = run.data.eval_batches(BATCH_SIZE, BATCHES * BATCH_SIZE)
    edit = {"s1 before L1a": Ablate([1], "L1a")}
    again = effects(run.loaded.model, edit, batches, routing="frozen")
    assert table.kl[:, 1, 2].tolist() == again.kl[:, 0].tolist()
    assert found.rescue.rescued_at == ("L1a", "readout")
    assert found.compression.table.details["calibration"] == "other batches"
    assert table.clean_loss.mean() < causal(run, "initial").ablation.clean_loss.mean()
    files = sorted((run.path / "captures").glob("interventions-*.json"))
    stamps = [path.stat().st_mtime_ns for path in files]
    assert len(files) == 2
    assert causal(run, "trained").mixers.kl.tolist() == found.mixers.kl.tolist()
    assert [path.stat().st_mtime_ns for path in files] == stamps


def test_each_experiment_is_kept_as_it_is_measured(
    run: CapturedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = causal(run, "trained")
    (path,) = (run.path / "captures").glob("interventions-trained-*.json")
    stored = path.read_bytes()
    path.unlink()
    begun: list[str] = []

    def stopping(name: str, last: str) -> Callable[[GPT, CapturedRun], object]:
        experiment = EXPERIMENTS[name]

        def measured(model: GPT, run: CapturedRun) -> object:
            begun.append(name)
            if name == last:
                raise KeyboardInterrupt
            return experiment(model, run)

        return measured

    with monkeypatch.context() as patch:
        for name in EXPERIMENTS:
            patch.setitem(EXPERIMENTS, name, stopping(name, "mixers"))
        with pytest.raises(KeyboardInterrupt):
            causal(run, "trained")
    assert begun == ["ablation", "rescue", "mixers"]
    assert list(json.loads(path.read_text())) == ["ablation", "rescue"]
    assert [m.finished for m in measurements([run])] == [True, False]
    with monkeypatch.context() as patch:
        for name in EXPERIMENTS:
            patch.setitem(EXPERIMENTS, name, stopping(name, "none"))
        again = causal(run, "trained")
    assert begun[3:] == ["mixers", "compression"]
    assert path.read_bytes() == stored
    assert again.compression.added_loss.tolist() == whole.compression.added_loss.tolist()
    assert [m.finished for m in measurements([run])] == [True, True]


def test_panels_show_the_tables_and_their_references(run: CapturedRun, figure: Figure) -> None:
    trained, initial = causal(run, "trained"), causal(run, "initial")
    heat = panel(figure, "one stream zeroed")
    shown = numpy.asarray(heat.images[0].get_array())
    expected = numpy.maximum(trained.ablation.mean().numpy(), 1e-4)
    assert numpy.array_equal(shown, expected)
    (bar,) = [ax for ax in figure.axes if "KL" in ax.get_ylabel()]
    marks = [line.get_ydata()[0] for line in bar.lines if len(line.get_ydata()) <= 2]
    assert marks == pytest.approx([max(initial.ablation.mean().mean().item(), 1e-4)] * 3)

    recovery = panel(figure, "recovery")
    assert len(recovery.texts) == 16
    first = initial.rescue.overall[0, 0].item()
    assert recovery.texts[0].get_text().endswith(f"({short(first)})")

    mixers = panel(figure, "mixers replaced")
    heights = [[bar.get_height() for bar in group.patches] for group in mixers.containers[1::2]]
    assert numpy.allclose(heights, trained.mixers.mean("delta_loss").numpy().T)
    dashes = [y for lines in mixers.collections[1::2] for (_, y), _ in lines.get_segments()]
    assert dashes == pytest.approx(initial.mixers.mean("delta_loss").T.flatten().tolist())

    collapse = panel(figure, "collapsed")
    curves = [line for line in collapse.lines if len(line.get_ydata()) == 4]
    drawn = numpy.stack([line.get_ydata() for line in curves])
    for k in range(2):
        assert numpy.array_equal(drawn[2 * k], trained.compression.added_loss[k].numpy())
        assert numpy.array_equal(drawn[2 * k + 1], initial.compression.added_loss[k].numpy())
        assert curves[2 * k + 1].get_linestyle() == "--"
    zero = [line for line in collapse.lines if line.get_color() == style.FAINT]
    assert [list(line.get_ydata()) for line in zero] == [[0, 0]]


def test_files(run: CapturedRun, tmp_path: Path) -> None:
    paths = run_figure("interventions", [run.path], tmp_path)
    assert [path.suffix for path in paths] == [".png", ".pdf", ".csv", ".json"]
    with paths[2].open(newline="") as file:
        rows = list(csv.DictReader(file))
    trained = causal(run, "trained")
    (row,) = [
        r
        for r in rows
        if (r["panel"], r["quantity"], r["phase"]) == ("ablation", "kl", "trained")
        and (r["site"], r["stream"]) == ("L1a", "3")
    ]
    assert float(row["value"]) == trained.ablation.mean()[3, 2].item()
    assert float(row["standard_error"]) == trained.ablation.standard_error()[3, 2].item()
    recovery = [r for r in rows if r["quantity"] == "recovery" and r["phase"] == "trained"]
    assert [float(r["value"]) for r in recovery] == trained.rescue.overall.flatten().tolist()
    details = json.loads(paths[3].read_text())
    assert set(details["definitions"]) == {"ablation", "rescue", "mixer replacement", "collapse"}
    assert details["aggregation"].startswith("none")


def test_short_numbers() -> None:
    values = (0.0123, 1.26, 2e-4, -0.31, 0.0, 12.4, 0.996, -1e-3)
    assert [short(v) for v in values] == [
        *(".01", "1.3", "2e-4", "-.31", ".00", "12", "1.0", "-1e-3"),
    ]
