"""Stopping and continuing: the same weights and the same log as without the interruption."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hyperstreams.train import RunError, TrainConfig, read_metrics, run_training
from safetensors.torch import load_file

Make = Callable[..., TrainConfig]
Command = tuple[list[str], dict[str, str]]


class Stop(Exception):
    """Raised out of a record to break a run off."""


def curve(run_dir: str | Path) -> list[dict[str, Any]]:
    """The log without what depends on the clock."""
    timing = ("ms_per_step", "tokens_per_second")
    return [
        {key: value for key, value in record.items() if key not in timing}
        for record in read_metrics(run_dir)
    ]


def weights(run_dir: str | Path) -> dict[str, torch.Tensor]:
    return load_file(Path(run_dir) / "checkpoint" / "model.safetensors")


def assert_same_run(first: str | Path, second: str | Path) -> None:
    assert curve(first) == curve(second)
    a, b = weights(first), weights(second)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    "settings",
    [
        {"connection": "residual"},
        {"connection": "mhc_lite", "expand": "learned_scale", "dropout": 0.2},
        {"connection": "mhc", "accumulation": 2, "autocast": "bfloat16", "probe_every": 3},
    ],
    ids=lambda settings: settings["connection"],
)
def test_resume_gives_the_same_bits(make_config: Make, settings: dict[str, Any]) -> None:
    whole = make_config("whole", log_every=1, checkpoint_every=3, **settings)
    run_training(whole, progress=False)
    for broken_at in (2, 5, 11):  # before the first checkpoint, after it, before the last step
        broken = make_config(f"broken{broken_at}", log_every=1, checkpoint_every=3, **settings)

        def stop(record: dict[str, Any], broken_at: int = broken_at) -> None:
            if record["kind"] == "train" and record["step"] == broken_at:
                raise Stop

        with pytest.raises(Stop):
            run_training(broken, progress=False, on_record=stop)
        torch.rand(3)  # a different global state must not matter
        summary = run_training(broken, resume=True, progress=False)
        assert summary.stopped == "finished"
        assert_same_run(whole.run_dir(), broken.run_dir())


def test_interval_means_survive_a_resume(make_config: Make) -> None:
    whole = make_config("whole", log_every=6, checkpoint_every=4)
    broken = make_config("broken", log_every=6, checkpoint_every=4)
    run_training(whole, progress=False)

    def stop(record: dict[str, Any]) -> None:
        if record["kind"] == "train":
            raise Stop

    with pytest.raises(Stop):
        run_training(broken, progress=False, on_record=stop)
    run_training(broken, resume=True, progress=False)
    assert_same_run(whole.run_dir(), broken.run_dir())


def test_a_line_cut_short_is_dropped(make_config: Make) -> None:
    config = make_config("broken")

    def stop(record: dict[str, Any]) -> None:
        if record["step"] == 6:
            raise Stop

    with pytest.raises(Stop):
        run_training(config, progress=False, on_record=stop)
    log = config.run_dir() / "metrics.jsonl"
    with log.open("a") as file:
        file.write('{"kind": "tra')
    run_training(config, resume=True, progress=False)
    run_training(make_config("whole"), progress=False)
    assert curve(config.run_dir()) == curve(make_config("whole").run_dir())
    assert [json.loads(line)["kind"] for line in log.read_text().splitlines()]


def test_finished_run_is_returned(make_config: Make) -> None:
    config = make_config()
    first = run_training(config, progress=False)
    before = (config.run_dir() / "metrics.jsonl").read_bytes()
    again = run_training(config, resume=True, progress=False, on_record=lambda record: 1 / 0)
    assert again == first
    assert (config.run_dir() / "metrics.jsonl").read_bytes() == before


def test_a_run_is_not_overwritten(make_config: Make) -> None:
    run_training(make_config(), progress=False)
    with pytest.raises(RunError, match="holds this run already; continue it with --resume"):
        run_training(make_config(), progress=False)
    with pytest.raises(RunError, match=r"different run \(lr = 0.005 there, 0.001 here\)"):
        run_training(make_config(lr=1e-3), resume=True, progress=False)


def test_another_number_of_threads_is_said(make_config: Make) -> None:
    config = make_config()

    def stop(record: dict[str, Any]) -> None:
        if record["step"] == 4:
            raise Stop

    with pytest.raises(Stop):
        run_training(config, progress=False, on_record=stop)
    torch.set_num_threads(2)
    with pytest.warns(UserWarning, match=r"another environment.*\(threads 1 at first, 2 now\)"):
        run_training(config, resume=True, progress=False)
    environment = json.loads((config.run_dir() / "environment.json").read_text())
    assert [environment["threads"], environment["resumed"][0]["threads"]] == [1, 2]


def test_runs_leave_the_callers_random_state(make_config: Make) -> None:
    state = torch.get_rng_state()
    run_training(make_config(dropout=0.1), progress=False)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_signal_saves_and_stops(make_config: Make) -> None:
    config = make_config("broken", checkpoint_every=100, log_every=1)
    handler = signal.getsignal(signal.SIGINT)

    def interrupt(record: dict[str, Any]) -> None:
        if record["kind"] == "train" and record["step"] == 5:
            os.kill(os.getpid(), signal.SIGINT)

    summary = run_training(config, progress=False, on_record=interrupt)
    assert (summary.stopped, summary.steps) == ("SIGINT", 5)
    assert signal.getsignal(signal.SIGINT) is handler
    assert not (config.run_dir() / "summary.json").exists()
    assert run_training(config, resume=True, progress=False).stopped == "finished"
    whole = make_config("whole", log_every=1)
    run_training(whole, progress=False)
    assert_same_run(whole.run_dir(), config.run_dir())


def test_a_second_interrupt_is_immediate(make_config: Make) -> None:
    def interrupt(record: dict[str, Any]) -> None:
        if record["kind"] == "train":
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_training(make_config(), progress=False, on_record=interrupt)


def long_run(micro: dict[str, Any], steps: int) -> list[str]:
    settings = {**micro, "steps": steps, "checkpoint_every": 5, "log_every": 3, "eval_every": 50}
    return [f"--{name}={value}" for name, value in settings.items()]


def start(command: Command, words: list[str]) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [*command[0], "train", *words], env=command[1], stdout=pipe, stderr=pipe, text=True
    )


def wait_for_records(process: subprocess.Popen[str], run_dir: Path, count: int) -> None:
    """Wait until the log has more than ``count`` complete lines."""
    deadline = time.monotonic() + 120
    while len(read_metrics(run_dir)) <= count:
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"no progress: {process.communicate()}")
        time.sleep(0.005)


def test_kill_9_and_resume_gives_the_same_curve(
    micro: dict[str, Any], make_config: Make, command: Command, tmp_path: Path
) -> None:
    steps = 600  # of a millisecond or more: longer than what the waits below come to
    words = long_run(micro, steps)
    run_dir = Path(micro["out_dir"])
    rng = random.Random(0)
    killed = 0
    for _ in range(2):
        before = len(read_metrics(run_dir))
        process = start(command, [*words, "--resume"] if run_dir.exists() else words)
        wait_for_records(process, run_dir, before)
        time.sleep(rng.uniform(0, 0.2))
        process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    assert killed == 2
    process = start(command, [*words, "--resume"])
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    whole = make_config("whole", steps=steps, checkpoint_every=100, log_every=3, eval_every=50)
    run_training(whole, progress=False)
    assert_same_run(whole.run_dir(), run_dir)


def test_sigterm_ends_with_a_message_and_143(micro: dict[str, Any], command: Command) -> None:
    process = start(command, long_run(micro, 1_000_000))
    wait_for_records(process, Path(micro["out_dir"]), 2)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "stopped by SIGTERM after step" in errors
    assert "--resume" in errors
    assert "Traceback" not in errors
    assert (Path(micro["out_dir"]) / "checkpoint" / "model.safetensors").exists()
