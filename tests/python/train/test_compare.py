"""Comparisons: specifications, reuse of runs, and the one table."""

from __future__ import annotations

import csv
import json
import os
import signal
import statistics
from pathlib import Path
from typing import Any

import pytest
from hyperstreams.train import LoadedRun, RunError, run_comparison
from hyperstreams.train import compare as module
from hyperstreams.train.compare import format_table, parse_spec

Settings = dict[str, Any]


def settings_of(micro: Settings) -> Settings:
    return {name: value for name, value in micro.items() if name != "out_dir"} | {"steps": 4}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mhc", {"connection": "mhc"}),
        ("mhc_lite+lss", {"connection": "mhc_lite", "expand": "learned_scale"}),
        ("hc+n_streams=2+lr=1e-3", {"connection": "hc", "n_streams": 2, "lr": 1e-3}),
    ],
)
def test_specifications(text: str, expected: Settings) -> None:
    assert parse_spec(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mhc+lsss", "did you mean 'lss'?"),
        ("mhc+n_stream=2", "did you mean 'n_streams'?"),
        ("mhc+n_streams=two", "n_streams: expected int, got 'two'"),
    ],
)
def test_wrong_specifications_are_named(text: str, message: str) -> None:
    with pytest.raises(RunError) as caught:
        parse_spec(text)
    assert message in str(caught.value)


def test_every_specification_is_checked_before_the_first_run(
    micro: Settings, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    wrong: list[tuple[list[str], list[int]]] = [(["hc", "mhc_light"], [0]), ([], [0]), (["hc"], [])]
    wrong += [(["hc", "hc"], [0]), (["hc", "denseformer+lss"], [0]), (["hc", "frac+noise"], [0])]
    for specs, seeds in wrong:
        with pytest.raises(RunError):
            run_comparison(settings_of(micro), specs, seeds, out, progress=False)
    assert not out.exists()


def test_table(micro: Settings, tmp_path: Path) -> None:
    specs, seeds = ["residual", "mhc_lite+lss"], [0, 5]

    def measure(run: LoadedRun) -> dict[str, float]:
        return (
            {"streams": float(run.config.model.n_streams)} if run.config.model.has_streams else {}
        )

    done: list[tuple[str, int]] = []
    comparison = run_comparison(
        settings_of(micro),
        specs,
        seeds,
        tmp_path / "out",
        progress=False,
        measure=measure,
        on_run=lambda spec, seed, summary: done.append((spec, seed)),
    )
    assert done == [(spec, seed) for spec in specs for seed in seeds]
    first, second = comparison.rows
    assert (first["connection"], second["connection"]) == tuple(specs)
    assert second["loss_mean"] == statistics.mean(second["losses"])
    assert second["loss_spread"] == statistics.stdev(second["losses"])
    paired = [b - a for a, b in zip(first["losses"], second["losses"], strict=True)]
    assert second["difference_mean"] == statistics.mean(paired)
    assert first["difference_spread"] == 0
    assert (first["streams"], second["streams"]) == (None, 2.0)
    assert first["connection_parameters_per_sublayer"] == 0
    # mHC-lite at n = 2: phi [2 + 2 + 2!, 2 * 8], norm weight, three scales, six biases.
    assert second["connection_parameters_per_sublayer"] == 6 * 16 + 16 + 3 + 6
    assert first["parameters"] < second["parameters"]

    stored = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert stored["rows"] == comparison.rows
    assert stored["seeds"] == seeds
    with (tmp_path / "out" / "compare.csv").open() as file:
        assert [row["connection"] for row in csv.DictReader(file)] == specs
    markdown = (tmp_path / "out" / "compare.md").read_text()
    assert len({line.count("|") for line in markdown.splitlines()}) == 1
    assert f"{second['loss_mean']:.4f}" in format_table(comparison.rows)


def test_runs_are_reused_and_interrupted_ones_continued(
    micro: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(micro)
    whole = run_comparison(settings, ["residual", "hc"], [0], tmp_path / "whole", progress=False)

    def interrupted_run(config: Any, **options: Any) -> Any:
        if config.model.connection == "hc":

            def stop(record: dict[str, Any]) -> None:
                if record["kind"] == "train":
                    os.kill(os.getpid(), signal.SIGTERM)

            options["on_record"] = stop
        return original(config, **options)

    original = module.run_training
    with monkeypatch.context() as patch:
        patch.setattr(module, "run_training", interrupted_run)
        out = tmp_path / "out"
        stopped = run_comparison(settings, ["residual", "hc"], [0], out, progress=False)
    assert stopped.interrupted == "SIGTERM"
    assert not (out / "compare.json").exists()
    files = [path for path in out.rglob("residual*/**/*") if path.is_file()]
    before = {path: path.stat().st_mtime_ns for path in files}
    assert len(before) == 8
    again = run_comparison(settings, ["residual", "hc"], [0], out, progress=False)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert [row["losses"] for row in again.rows] == [row["losses"] for row in whole.rows]


def test_one_seed_has_no_spread(micro: Settings, tmp_path: Path) -> None:
    comparison = run_comparison(settings_of(micro), ["hc"], [0], tmp_path, progress=False)
    assert comparison.rows[0]["loss_spread"] is None
    assert " - " in format_table(comparison.rows)
