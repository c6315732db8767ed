"""Runs small enough that a whole one takes a fraction of a second."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hyperstreams
import pytest
import torch
from hyperstreams.train import TrainConfig, build_config


@pytest.fixture(autouse=True)
def _isolated(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """One thread, and a token cache that is not the user's."""
    monkeypatch.setenv("HYPERSTREAMS_CACHE", str(tmp_path_factory.getbasetemp() / "token-cache"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of 20,000 characters, a few of them outside ASCII."""
    words = ["stream", "read", "write", "mix", "site", "\n", "Übergang", "x = 1\n", "->"]
    rng = random.Random(0)
    text = ""
    while len(text) < 20_000:
        text += rng.choice(words) + " "
    path = tmp_path_factory.mktemp("text") / "input.txt"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def micro(text_file: Path, tmp_path: Path) -> dict[str, Any]:
    """Flat settings of a run of 12 steps."""
    return {
        "dataset": str(text_file),
        "out_dir": str(tmp_path / "run"),
        "steps": 12,
        "batch_size": 2,
        "warmup_steps": 3,
        "log_every": 2,
        "eval_every": 4,
        "eval_windows": 4,
        "checkpoint_every": 4,
        "block_size": 16,
        "n_layer": 1,
        "n_head": 2,
        "width": 8,
        "n_streams": 2,
    }


@pytest.fixture
def make_config(micro: dict[str, Any], tmp_path: Path) -> Callable[..., TrainConfig]:
    """A micro config in a run directory named by ``run``, with settings replaced."""

    def make(run: str = "run", **settings: Any) -> TrainConfig:
        return build_config({**micro, "out_dir": str(tmp_path / run), **settings})

    return make


@pytest.fixture
def command() -> tuple[list[str], dict[str, str]]:
    """The command line in a process of its own: words to begin with, and the environment."""
    package = Path(hyperstreams.__file__).resolve().parents[1]
    path = os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return [sys.executable, "-m", "hyperstreams"], environment
