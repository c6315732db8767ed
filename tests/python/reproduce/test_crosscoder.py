"""Crosscoders of a run: the commands, what is kept, and figure 5."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hyperstreams import cli
from hyperstreams.diagnostics.crosscoder import load_crosscoder, load_latents
from hyperstreams.reproduce import crosscoder_figure, style
from hyperstreams.reproduce.crosscoder import run_job
from hyperstreams.reproduce.crosscoder_jobs import figure_jobs, recipe
from hyperstreams.reproduce.crosscoder_report import read_results
from hyperstreams.reproduce.runs import open_runs
from hyperstreams.train import TrainConfig, run_training

SHORT = ("--steps", "6", "--n_latents", "24", "--batch_size", "32")


@pytest.fixture(scope="module")
def trained_run(
    make_config: Callable[..., TrainConfig], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run whose states differ between tokens: at the other micro runs' rate they do not."""
    config = replace(make_config(tmp_path_factory.mktemp("run"), "lss"), lr=3e-3)
    run_training(config, progress=False)
    return config.run_dir()


@pytest.fixture
def run_dir(trained_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained_run, tmp_path / "run")


def test_train_and_report(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["crosscoder", "train", "--run", str(run_dir), "--controls", "shuffled", *SHORT]
    assert cli.main(command) == 0
    printed = capsys.readouterr().out
    folder = run_dir / "crosscoder"
    names = {
        "joint-batch_topk-site-none",
        "joint-batch_topk-global-none",
        "joint-batch_topk-site-shuffled",
    }
    assert {path.name.rpartition("-")[0] for path in folder.iterdir()} == names
    assert all(name in printed for name in names)

    (main,) = folder.glob("joint-batch_topk-site-none-*")
    record = json.loads((main / "result.json").read_text())
    assert record["name"] == main.name
    assert record["job"]["config"]["steps"] == 6
    assert record["job"]["config"]["seed"] == 0
    assert record["run"]["checkpoint_sha256"]
    losses = record["splice"]
    harm = losses["mean_loss"] - losses["clean_loss"]
    rest = losses["mean_loss"] - losses["spliced_loss"]
    assert losses["recovered"] == pytest.approx(rest / harm)
    coder, stored = load_crosscoder(main / "joint")
    assert coder.n_sites == 4
    assert stored["sites"] == ["0.s0", "0.s1", "0.s2", "0.s3"]
    latents = load_latents(main / "joint")
    alive = latents["density"] > 0
    torch.testing.assert_close(
        latents["share"][alive].sum(dim=1), torch.ones(int(alive.sum())).double()
    )
    assert stored["mean_max_share"] == pytest.approx(
        float(latents["share"][alive].amax(dim=1).mean())
    )
    assert sum(stored["leading_stream_counts"][0]) == int(alive.sum())

    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    assert cli.main(command) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert "  joint  step" not in capsys.readouterr().out.replace(printed, "")

    assert cli.main(["crosscoder", "report", str(run_dir)]) == 0
    table = capsys.readouterr().out
    assert table in printed or all(name in table for name in names)
    assert len(read_results(folder)) == 3


def test_another_seed_is_kept_beside_and_compared(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["crosscoder", "train", "--run", str(run_dir), "--norm", "site", *SHORT]
    for seed in ("0", "1"):
        assert cli.main([*command, "--controls", "none", "--seed", seed]) == 0
    capsys.readouterr()
    assert cli.main(["crosscoder", "report", str(run_dir)]) == 0
    folder = run_dir / "crosscoder"
    (first,) = (path.name for path in folder.glob("joint-batch_topk-site-none-[!s]*"))
    (second,) = (path.name for path in folder.glob("joint-batch_topk-site-none-seed1-*"))
    assert f"{first}/joint and {second} match one to one" in capsys.readouterr().out


@pytest.mark.parametrize(
    "changed",
    [
        {"layers": (0, 1)},
        {"windows": 4},
        {"config": {"k": 3}},
        {"config": {"n_latents": 20}},
        {"config": {"steps": 7}},
        {"config": {"lr": 1e-3}},
        {"config": {"activation": "l1", "l1_weight": 0.1}},
    ],
)
def test_every_setting_has_a_folder_of_its_own(run_dir: Path, changed: dict[str, Any]) -> None:
    (run,) = open_runs([run_dir])
    job = recipe(run)
    config = replace(job.config, **changed.get("config", {}))
    other = replace(job, **{**changed, "config": config})
    plain = replace(job, config=replace(job.config, activation=config.activation))
    assert other.name == plain.name
    assert other.folder_name(run) != plain.folder_name(run)
    assert job.folder_name(run) == recipe(run).folder_name(run)
    assert job.folder_name(run) != job.folder_name(replace(run, checkpoint_sha256="0"))


def test_what_is_there_is_kept_beside_other_settings(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["crosscoder", "train", "--run", str(run_dir), "--norm", "site", *SHORT]
    command += ["--controls", "none"]
    assert cli.main(command) == 0
    folder = run_dir / "crosscoder"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert cli.main([*command, "--k", "3"]) == 0
    assert {path: path.read_bytes() for path in before} == before
    assert {result.job.config.k for result in read_results(folder)} == {3, 4}
    capsys.readouterr()


def test_one_site_coders_are_exported(run_dir: Path) -> None:
    command = ["crosscoder", "train", "--run", str(run_dir), "--variant", "per_stream"]
    assert cli.main([*command, "--norm", "site", "--controls", "none", *SHORT]) == 0
    (folder,) = (run_dir / "crosscoder").glob("per_stream-batch_topk-site-none-*")
    for stream in range(4):
        config = json.loads((folder / f"stream{stream}" / "saelens" / "cfg.json").read_text())
        assert config["architecture"] == "jumprelu"
        assert config["metadata"]["hook_name"] == f"0.s{stream}"


def test_changed_settings_train_anew(run_dir: Path) -> None:
    (run,) = open_runs([run_dir])
    job = recipe(run)
    first = run_job(run, job, run_dir / "coders")
    again = run_job(run, job, run_dir / "coders")
    assert json.loads(json.dumps(first.record)) == again.record
    assert job.identity(run) == again.record["identity"]
    assert not list((run_dir / "coders").rglob("training_state.pt"))
    assert len({each.identity(run) for each in figure_jobs(job)}) == len(figure_jobs(job))
    assert len({each.name for each in figure_jobs(job)}) == len(figure_jobs(job))


def test_figure_5_shows_its_controls(run_dir: Path) -> None:
    runs = open_runs([run_dir])
    with style.house_style():
        figure = crosscoder_figure.draw(style.new_figure(*crosscoder_figure.size(runs)), runs)
    leading, histogram, means, scaling = figure.axes
    assert len(leading.patches) == 2 * 4
    results = crosscoder_figure.results(runs[0])
    assert [label.get_text() for label in means.get_yticklabels()] == [
        *results,
        crosscoder_figure.LEDGER,
    ]
    legend = histogram.get_legend()
    assert legend is not None
    names = {text.get_text() for text in legend.get_texts()}
    assert {"random weights", "shuffled streams", "1/n: identical streams"} <= names
    assert any(line.get_xdata()[0] == 1.0 for line in scaling.lines)  # type: ignore[index]

    rows = crosscoder_figure.rows(runs)
    for name, result in results.items():
        own = [row for row in rows if row["panel"] == f"leading stream: {name}"]
        alive = sum(record["alive"] for record in result.coders.values())
        assert sum(row["value"] for row in own) == alive
        (shown,) = [
            row
            for row in rows
            if row["panel"] == f"summary: {name}"
            and row["quantity"].endswith("mean max share")
            and row["quantity"].startswith(next(iter(result.coders)))
        ]
        assert shown["value"] == next(iter(result.coders.values()))["mean_max_share"], name
    identical = results["identical streams"].latents("share")
    assert float((identical - 0.25).abs().max()) < 0.2
    assert {row["phase"] for row in rows} == {"initial", "trained"}


def test_bad_requests_are_worded(
    run_dirs: dict[str, Path], run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = ["crosscoder", "train", "--run"]
    l1, topk = ([*train, str(run_dir), "--activation", name] for name in ("l1", "topk"))
    for arguments, message in (
        ([*train, str(run_dirs["residual"])], "connection 'residual' has no streams"),
        ([*train, str(run_dir), "--layers", "0,7"], r"layers: expected some of 0 to 1, got [0, 7]"),
        ([*train, str(run_dir), "--norm", "sites"], "norm: expected one of none, global, site"),
        ([*train, str(run_dir), "--variant", "both"], "expected one of joint, per_layer"),
        ([*train, str(run_dir), "--controls", "mixed"], "--controls: expected some of"),
        ([*l1, "--k", "4"], "--k: has no effect with --activation l1"),
        ([*topk, "--l1_weight", "0.1"], "--l1_weight: has no effect with --activation topk"),
        (
            [*train, str(run_dir), "--l1_weighting", "sum_of_norms"],
            "--l1_weighting: has no effect with --activation batch_topk",
        ),
        ([*train, str(run_dir), "--activation", "relu", "--k", "4"], "expected one of l1, topk"),
        ([*train, str(run_dir), "--layers", "a"], "expected block indices such as 0,2,4"),
        (["crosscoder", "report", str(run_dir)], "no crosscoder found"),
        (["crosscoder", "show"], "invalid choice"),
    ):
        assert cli.main(arguments) == cli.USAGE
        assert message in capsys.readouterr().err
