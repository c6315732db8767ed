"""Micro runs shared by the tests of figures, report and demo: trained once for all."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from hyperstreams.models import GPTConfig
from hyperstreams.reproduce.runs import CapturedRun, open_runs
from hyperstreams.train import TrainConfig, run_training

MODELS = {
    "residual": {"connection": "residual"},
    "mhc": {"connection": "mhc"},
    "mhc_lite": {"connection": "mhc_lite"},
    "lss": {"connection": "mhc_lite", "expand": "learned_scale"},
}


def micro_config(folder: Path, name: str, *, seed: int = 0) -> TrainConfig:
    """Two blocks of width 16 on a text file; six steps."""
    text = folder / "text.txt"
    if not text.exists():
        words = random.Random(0).choices(
            ["stream", "read", "mix", "write", "norm", "site", "token"], k=9000
        )
        text.write_text(" ".join(words))
    model = GPTConfig(n_layer=2, n_head=2, width=16, block_size=16, **MODELS[name])  # type: ignore[arg-type]
    return TrainConfig(
        out_dir=str(folder / f"{name}-{seed}"),
        seed=seed,
        dataset=str(text),
        tokenizer="byte",
        steps=6,
        batch_size=4,
        warmup_steps=2,
        lr=0.05,
        eval_every=3,
        eval_windows=8,
        log_every=2,
        model=model,
    )


@pytest.fixture(scope="session")
def make_config() -> Callable[[Path, str], TrainConfig]:
    return micro_config


@pytest.fixture(scope="session")
def run_dirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("runs")
    for name in MODELS:
        run_training(micro_config(folder, name), progress=False)
    torch.set_num_threads(threads)
    return {name: folder / f"{name}-0" for name in MODELS}


@pytest.fixture(scope="session")
def stream_runs(run_dirs: dict[str, Path]) -> Sequence[CapturedRun]:
    return open_runs([run_dirs[name] for name in ("mhc", "mhc_lite", "lss")])
