"""Every connection that is no mixer around streams trains, and is compared, like the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hyperstreams import nn as hnn
from hyperstreams.train import run_comparison

FAMILIES = [n for n, c in hnn.CONNECTIONS.items() if isinstance(c, hnn.ConnectionFamily)]
DEEP = {"denseformer_4x5", "attention_residual_block"}
"""What they are in name is another connection in a model of one block."""


def test_all_of_them_learn(micro: dict[str, Any], tmp_path: Path) -> None:
    settings = {name: value for name, value in micro.items() if name != "out_dir"}
    settings |= {"steps": 40, "lr": 2e-2, "eval_every": 40, "n_streams": 4}
    specs = [f"{name}+n_layer=5" if name in DEEP else name for name in FAMILIES]
    table = run_comparison(settings, specs, [0], tmp_path / "out", progress=False).rows
    assert [row["connection"] for row in table] == specs
    losses = {row["connection"]: row["loss_mean"] for row in table}
    assert {name for name, loss in losses.items() if not loss < 4.5} == set(), losses


def test_mixture_of_experts(micro: dict[str, Any], tmp_path: Path) -> None:
    settings = {name: value for name, value in micro.items() if name != "out_dir"}
    settings |= {"mlp": "moe", "position": "rope", "n_experts": 4, "accumulation": 2, "steps": 16}
    settings |= {"lr": 2e-2}
    specs = ["residual", "mhc_lite+experts_per_token=1"]
    rows = run_comparison(settings, specs, [0], tmp_path / "out", progress=False).rows
    assert max(row["loss_mean"] for row in rows) < 5.0
