"""Scales, plans, the run cache, costs, and the commands that train what a figure wants."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hyperstreams.cli import main
from hyperstreams.cli_train import main as train_main
from hyperstreams.diagnostics import capture
from hyperstreams.models import GPT, GPTConfig, parameter_table
from hyperstreams.reproduce import claims_report, plans
from hyperstreams.reproduce.cache import RunCache, train_command, unique
from hyperstreams.reproduce.causal import EXPERIMENTS
from hyperstreams.reproduce.claims_report import feature_shares
from hyperstreams.reproduce.cost import cost_table, estimate, measured_rate, run_cost
from hyperstreams.reproduce.figures import FIGURES, figure_at_scale, printed_plan
from hyperstreams.reproduce.labels import config_labels
from hyperstreams.reproduce.progress import duration
from hyperstreams.reproduce.reproduction import describe_scale, reproduce, wanted_runs
from hyperstreams.reproduce.runs import open_runs
from hyperstreams.reproduce.scales import SCALES, SEEDS, Scale, get_scale
from hyperstreams.train import NonFiniteError, RunError, read_metrics, run_training


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def scale(tmp_path_factory: pytest.TempPathFactory) -> Scale:
    text = tmp_path_factory.mktemp("text") / "text.txt"
    text.write_text("streams are read, mixed and written; " * 1500)
    return SCALES["smoke"].on(dataset=str(text), width=16, block_size=16)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> RunCache:
    return RunCache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def folders(scale: Scale, cache: RunCache) -> list[Path]:
    return cache.train(plans.baseline_and_lss(scale), quiet=True)


@pytest.mark.parametrize("name", list(SCALES))
def test_every_plan_can_be_built_at_every_scale(name: str) -> None:
    scale = get_scale(name)
    plans_of_figures = {spec.name: spec.plan(scale) for spec in FIGURES.values()}
    assert all(plans_of_figures.values())
    for config in unique([c for plan in plans_of_figures.values() for c in plan]):
        assert config.steps % scale.steps == 0
        assert config.seed in SEEDS
        if config.seed == SEEDS[0]:
            assert parameter_table(config.model)["total"] > 0


def test_plans_are_what_the_figures_say() -> None:
    tiny = get_scale("tiny")
    counts = [(c.model.connection, c.model.n_streams) for c in plans.stream_counts(tiny)]
    assert counts == [
        *(("kromhc", 2), ("mhc", 2), ("mhc_lite", 2)),
        *(("kromhc", 4), ("mhc", 4), ("mhc_lite", 4)),
        *(("kromhc", 8), ("mhc", 8), ("kromhc", 16), ("mhc", 16)),
    ]
    assert [c.seed for c in plans.seeds(tiny)] == list(SEEDS)
    lengths = [[c.steps for c in FIGURES[name].plan(tiny)] for name in ("fig9", "fig10", "fig11")]
    assert lengths == [[600, 600], [1200, 1200], [2400, 2400]]
    assert [c.model.expand for c in FIGURES["fig9"].plan(tiny)] == ["replicate", "learned_scale"]
    cells = {(c.lr, c.connection_lr_multiplier) for c in plans.phase(tiny)}
    assert len(cells) == 9
    assert len(plans.phase(tiny)) == 18


def test_figures_share_runs() -> None:
    tiny = get_scale("tiny")
    asked = [config for spec in FIGURES.values() for config in spec.plan(tiny)]
    shared = wanted_runs(tiny, list(FIGURES))
    assert len({config.fingerprint() for config in shared}) == len(shared)
    assert {c.fingerprint() for c in shared} >= {c.fingerprint() for c in asked}
    assert len(shared) < len(asked)
    assert len(unique([tiny.config(), tiny.config(lr=5e-3)])) == 1


def test_a_run_is_trained_once_and_found_again(
    scale: Scale, cache: RunCache, folders: list[Path]
) -> None:
    assert [json.loads((f / "config.json").read_text())["expand"] for f in folders] == [
        "replicate",
        "learned_scale",
    ]
    stamps = [(f / "summary.json").stat().st_mtime_ns for f in folders]
    assert cache.train(plans.baseline_and_lss(scale), quiet=True) == folders
    assert cache.missing(plans.baseline_and_lss(scale)) == []
    assert [(f / "summary.json").stat().st_mtime_ns for f in folders] == stamps
    assert len(cache.missing(plans.seeds(scale))) == 1  # seed 0 is the baseline


def test_an_interrupted_run_continues_to_the_same_weights(
    scale: Scale, folders: list[Path], tmp_path: Path
) -> None:
    other = RunCache(tmp_path)
    config = other.place(scale.config())

    class Stopped(Exception):
        pass

    def stop(model: GPT, step: int) -> None:
        if step == 4:
            raise Stopped

    with pytest.raises(Stopped):
        run_training(config, progress=False, on_checkpoint=stop)
    assert len(other.missing([config])) == 1
    (folder,) = other.train([config], quiet=True)
    ours, theirs = (read_metrics(f, "eval") for f in (folder, folders[0]))
    assert ours == theirs
    runs = open_runs([folder, folders[0]])
    assert runs[0].checkpoint_sha256 == runs[1].checkpoint_sha256


def test_streams_are_captured_on_the_way(scale: Scale, folders: list[Path]) -> None:
    run = open_runs(folders[:1])[0]
    steps = [step for step, _ in run.history]
    assert steps == list(range(9))
    batches = list(run.data.eval_batches(16, 16))
    last = capture(run.loaded.model, batches)
    assert torch.equal(run.history[-1][1].sums, last.sums)
    assert not torch.equal(run.history[0][1].sums, last.sums)


def test_watching_a_run_changes_nothing(scale: Scale, folders: list[Path], tmp_path: Path) -> None:
    config = replace(scale.config(), out_dir=str(tmp_path / "plain"))
    run_training(config, progress=False)
    runs = open_runs([tmp_path / "plain", folders[0]])
    assert runs[0].checkpoint_sha256 == runs[1].checkpoint_sha256
    assert runs[0].history == []


def test_costs_are_counted_and_called_estimates(
    scale: Scale, cache: RunCache, folders: list[Path]
) -> None:
    config = scale.config()
    cost = run_cost(config)
    assert cost.tokens == 8 * 4 * 16
    assert cost.parameters == parameter_table(config.model)["total"]
    assert cost.operations > 6 * cost.tokens * 12 * 2 * 16**2
    placed = [cache.place(c) for c in plans.baseline_and_lss(scale)]
    assert "all 2 runs are there" in estimate(scale, placed, [])
    text = estimate(scale, placed, placed[:1])
    assert "1 runs to train, 1 there" in text
    assert "from the speed of the finished ones" in text
    assert measured_rate(placed) is not None
    cold = estimate(SCALES["tiny"], [], [SCALES["tiny"].config()])
    assert "estimated" in cold
    assert "assumed 6e+10 operations/s of two CPU cores" in cold
    table = cost_table(SCALES["paper"], [SCALES["paper"].config()], ["mHC-lite"])
    assert "1,310,720,000" in table
    assert "an assumption about one H100-class GPU" in table
    assert [duration(s) for s in (42, 600, 7200)] == ["42 s", "10 min", "2 h"]


def test_paper_scale_prints_commands_that_train_those_very_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["figure", "fig9", "--scale", "paper", "--runs", str(tmp_path)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    commands = [line for line in printed.splitlines() if line.startswith("hyperstreams train")]
    assert len(commands) == 2
    assert not list(tmp_path.iterdir())
    taken: list[Any] = []

    def record(config: Any, **options: Any) -> Any:
        taken.append(config)
        raise RunError("recorded")

    monkeypatch.setattr("hyperstreams.cli_train.run_training", record)
    wanted = [RunCache(tmp_path).place(c) for c in FIGURES["fig9"].plan(SCALES["paper"])]
    for command in commands:
        with pytest.raises(RunError, match="recorded"):
            train_main(shlex.split(command)[2:])
    assert [c.fingerprint() for c in taken] == [c.fingerprint() for c in wanted]
    assert [c.run_dir() for c in taken] == [c.run_dir() for c in wanted]
    assert train_command(wanted[0]) == commands[0]
    assert "2 of 2 runs are not there" in printed_plan(
        ["fig9"], wanted, SCALES["paper"], RunCache(tmp_path)
    )


def test_a_figure_trains_what_it_wants(
    scale: Scale, cache: RunCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = figure_at_scale("fig8", scale, cache=cache, out=tmp_path)
    assert "estimated" in capsys.readouterr().out
    details = json.loads(paths[3].read_text())
    assert details["number_of_runs"] == 2
    assert "mean and sample standard deviation over the seeds" in details["aggregation"]
    assert "2 runs (seeds 0, 1)" in details["caption"]


def test_reproduce_makes_a_page_with_the_claims(
    scale: Scale, cache: RunCache, tmp_path: Path
) -> None:
    made = reproduce(scale, tmp_path, cache=cache, figures=["fig8"], quiet=True)
    page = made.report.read_text()
    assert [claim.key for claim in made.claims] == ["K1", "K2", "K3", "K4", "K5", "K6"]
    assert {claim.outcome for claim in made.claims} == {"inconclusive"}  # two seeds
    assert "at least 3 are needed" in page
    assert "not measured" in page
    assert describe_scale(scale) in page
    assert page.count("data:image/png;base64,") == 1
    record = json.loads((tmp_path / "claims.json").read_text())
    assert record["thresholds"]["late mixing"] == {"wanted": "low", "support": 0.05, "refute": 0.25}
    assert len(record["claims"]) == 6
    assert (tmp_path / "claims.csv").read_text().count("\n") == 1 + 14


@pytest.mark.slow
def test_a_second_call_trains_and_measures_nothing(
    scale: Scale,
    cache: RunCache,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    figures, scale = ["fig5", "interventions"], replace(scale, n_seeds=1)
    first = reproduce(scale, tmp_path / "first", cache=cache, figures=figures)
    lines = [
        line for line in capsys.readouterr().out.splitlines() if re.match(r"\[\d+/11\] ", line)
    ]
    # Coders of figure 5; two runs, each trained and untrained.
    assert len([line for line in lines if ": crosscoder " in line]) == 7
    assert len([line for line in lines if ": interventions, " in line]) == 4
    assert all(re.search(r" about \d+ (s|min) left$", line) for line in lines[:-1])

    def again(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("trained or measured again")

    monkeypatch.setattr("hyperstreams.reproduce.cache.run_training", again)
    monkeypatch.setattr("hyperstreams.reproduce.crosscoder.train_crosscoder", again)
    monkeypatch.setattr("hyperstreams.reproduce.runs.capture", again)
    for name in EXPERIMENTS:
        monkeypatch.setitem(EXPERIMENTS, name, again)
    second = reproduce(scale, tmp_path / "second", cache=cache, figures=figures)
    assert not re.search(r"^\[", capsys.readouterr().out, re.MULTILINE)
    assert second.claims == first.claims
    for name in (*(f"figures/{name}.csv" for name in figures), "claims.csv", "claims.json"):
        assert (tmp_path / "second" / name).read_bytes() == (tmp_path / "first" / name).read_bytes()


def test_commands_find_or_train_and_say_what_stopped_them(
    scale: Scale,
    cache: RunCache,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(SCALES, "smoke", scale)
    where = ["--scale", "smoke", "--runs", str(cache.root), "--out", str(tmp_path)]
    assert main(["figure", "fig8", *where, "--quiet"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == str(tmp_path / "fig8.png")
    assert main(["reproduce", "--figures", "fig8", *where]) == 0
    printed = capsys.readouterr().out
    assert "reproduce: claims K1 to K6 and fig8; scale smoke" in printed
    assert "K6 inconclusive: Learned Stream Scaling lowers dominance and loss" in printed
    assert "hyperstreams reproduce --figures fig8" in (tmp_path / "report.html").read_text()

    def stopped(*arguments: Any, **options: Any) -> Any:
        raise InterruptedError("SIGINT")

    monkeypatch.setattr(RunCache, "train", stopped)
    for command in (["figure", "fig8"], ["reproduce", "--figures", "fig8"]):
        assert main([*command, *where, "--quiet"]) == 130
        assert "the same command continues" in capsys.readouterr().err
    assert (
        main(["reproduce", "--scale", "paper", "--figures", "fig9", "--runs", str(tmp_path)]) == 0
    )
    assert "claims, fig9 at scale paper" in capsys.readouterr().out


def test_feature_shares_come_with_their_controls(
    scale: Scale, cache: RunCache, folders: list[Path]
) -> None:
    runs = open_runs(folders[:1])
    shares, left_out = feature_shares(runs)
    assert left_out == ""
    assert {key: len(values) for key, values in shares.items()} == {
        "trained": 1,
        "shuffled": 1,
        "random": 1,
    }
    assert all(0.25 <= values[0] <= 1 for values in shares.values())
    means = [
        json.loads(path.read_text())["coders"]["joint"]["mean_max_share"]
        for path in (folders[0] / "crosscoder").glob("joint-*/result.json")
    ]
    assert {values[0] for values in shares.values()} <= set(means)
    assert feature_shares([]) == ({}, "")


def test_a_coder_without_live_features_costs_its_seed_only(
    cache: RunCache, folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = open_runs(folders[:1])
    runs = [runs[0], replace(runs[0])]
    dead: set[int] = {id(runs[1])}

    def made(run: Any, job: Any, out: Path) -> Any:
        empty = id(run) in dead and job.control == "shuffled"
        return SimpleNamespace(coders={"joint": {"mean_max_share": float("nan") if empty else 0.5}})

    monkeypatch.setattr(claims_report, "run_job", made)
    shares, left_out = feature_shares(runs)
    assert shares == {"trained": [0.5], "shuffled": [0.5], "random": [0.5]}
    assert left_out == "Left out, no live feature in a coder: seed 0 (shuffled)."
    claim = claims_report.claim_k5(shares, left_out)
    assert left_out in claims_report.verdict_words(claim, "planted")
    dead.add(id(runs[0]))
    shares, left_out = feature_shares(runs)
    assert shares == {}
    words = claims_report.verdict_words(claims_report.claim_k5(shares, left_out), "planted")
    assert "not measured. Left out, no live feature in a coder: seed 0 (shuffled), seed 0" in words
    assert "No crosscoder was trained" not in words


def test_labels_say_what_differs() -> None:
    tiny = get_scale("tiny")
    assert config_labels(plans.baseline_and_lss(tiny)) == ["mHC-lite", "mHC-lite + LSS"]
    assert config_labels(plans.seeds(tiny))[1] == "mHC-lite, seed 1"
    assert config_labels(plans.stream_counts(tiny))[:2] == ["KromHC, n = 2", "mHC, n = 2"]
    assert config_labels(plans.phase(tiny))[-1] == "mHC-lite, lr 0.005, connections x10, seed 1"
    assert config_labels([tiny.config(), tiny.config(budget=2)])[1] == "mHC-lite, 1,200 steps"


def test_a_run_that_diverges_is_named(scale: Scale, tmp_path: Path) -> None:
    config = scale.config(lr=1e30, grad_clip=None)
    with pytest.raises(NonFiniteError, match=r"^mHC-lite \(.*mhc_lite-seed0-.*not finite at step"):
        RunCache(tmp_path).train([config], quiet=True)


def test_bad_requests_are_worded(scale: Scale, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="scale: expected one of smoke, tiny, small, paper"):
        get_scale("huge")
    with pytest.raises(RunError, match="runs are missing and are not trained here"):
        reproduce(SCALES["paper"], tmp_path, cache=RunCache(tmp_path), figures=["fig9"])
    assert GPTConfig.preset("tiny").n_layer == SCALES["tiny"].config().model.n_layer
