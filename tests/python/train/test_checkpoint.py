"""Checkpoints: readable without pickled code, and whole at every moment of their writing."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hyperstreams.train import MissingExtraError, RunError, TrainConfig, load_run, run_training
from hyperstreams.train import checkpoint as module
from hyperstreams.train.checkpoint import (
    find_checkpoint,
    load_state,
    load_weights,
    save_checkpoint,
)
from safetensors.torch import load_file
from torch import nn

Make = Callable[..., TrainConfig]


class Crash(BaseException):
    """The process dies here."""


def one_parameter(value: float) -> nn.Module:
    linear = nn.Linear(1, 1, bias=False)
    nn.init.constant_(linear.weight, value)
    return linear


def crash_at(monkeypatch: pytest.MonkeyPatch, count: int) -> list[str]:
    """Let ``count`` file operations of a save happen and crash at the next."""
    done: list[str] = []

    def wrap(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def operation(*arguments: Any, **options: Any) -> Any:
            if len(done) == count:
                raise Crash
            done.append(name)
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, operation)

    wrap(module, "write_json")
    wrap(module, "sync")
    wrap(torch, "save")
    wrap(os, "rename")
    wrap(shutil, "rmtree")
    wrap(Path, "mkdir")
    return done


def test_a_crash_at_any_moment_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainConfig()
    for count in range(100):
        run_dir = tmp_path / str(count)
        run_dir.mkdir()
        save_checkpoint(run_dir, model=one_parameter(1.0), config=config, state={"step": 1})
        with monkeypatch.context() as patch:
            operations = crash_at(patch, count)
            try:
                save_checkpoint(run_dir, model=one_parameter(2.0), config=config, state={"step": 2})
                finished = True
            except Crash:
                finished = False
        found = find_checkpoint(run_dir)
        assert found is not None, operations
        model = one_parameter(0.0)
        load_weights(found, model)
        step = load_state(found)["step"]
        assert model.state_dict()["weight"].item() == step
        assert step == 2 or not finished
        # The next save cleans up whatever the crash left behind.
        save_checkpoint(run_dir, model=one_parameter(3.0), config=config, state={"step": 3})
        assert load_state(run_dir / "checkpoint")["step"] == 3
        assert [path.name for path in run_dir.iterdir()] == ["checkpoint"]
        if finished:
            assert count >= 10  # mkdir, save, 4 x sync, write, 2 x rename, rmtree
            return
    pytest.fail("a save never finished")


def test_files_of_a_run(make_config: Make) -> None:
    config = make_config(connection="mhc_lite", expand="learned_scale")
    summary = run_training(config, progress=False)
    run_dir = Path(summary.out_dir)
    names = {path.relative_to(run_dir).as_posix() for path in run_dir.rglob("*") if path.is_file()}
    assert names == {
        "config.json",
        "data.json",
        "environment.json",
        "metrics.jsonl",
        "summary.json",
        "checkpoint/config.json",
        "checkpoint/model.safetensors",
        "checkpoint/training_state.pt",
    }
    weights = load_file(run_dir / "checkpoint" / "model.safetensors")
    run = load_run(run_dir)
    assert not run.model.training
    assert run.step == 12
    assert run.config == config.with_vocabulary(256)
    loaded = run.model.state_dict()
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[name], weights[name]) for name in weights)


def test_load_run_words_what_is_missing(make_config: Make, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run directory"):
        load_run(tmp_path)
    summary = run_training(make_config(), progress=False)
    weights = Path(summary.out_dir) / "checkpoint" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    shutil.rmtree(weights.parent)
    with pytest.raises(RunError, match="no checkpoint yet"):
        load_run(summary.out_dir)
    weights.parent.mkdir()
    weights.write_bytes(data)
    with pytest.raises(RunError, match=r"config.json: cannot be read"):
        load_run(summary.out_dir)


def test_text_that_changed_since_is_noticed(make_config: Make, tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("some text of mine\n" * 100)
    config = make_config(dataset=str(path))
    summary = run_training(config, progress=False)
    path.write_text("some other text\n" * 100)
    run = load_run(summary.out_dir)
    assert run.tokenizer.decode(run.tokenizer.encode("abc")) == "abc"
    with pytest.raises(RunError, match="has changed since the run"):
        _ = run.data
    with pytest.raises(RunError, match="not the one this run began with"):
        run_training(config, resume=True, progress=False)


def test_without_safetensors_the_run_does_not_begin(
    make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    config = make_config()
    with pytest.raises(MissingExtraError, match=r"hyperstreams\[train\]"):
        run_training(config, progress=False)
    assert not config.run_dir().exists()
