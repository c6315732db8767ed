"""Which parameters are decayed, under both policies."""

from __future__ import annotations

import pytest
import torch
from hyperstreams import GPT, GPTConfig
from hyperstreams import nn as hnn


def build(connection: str, **options: object) -> GPT:
    return GPT(GPTConfig(n_layer=1, width=16, connection=connection, **options))  # type: ignore[arg-type]


def names(model: GPT, policy: str) -> dict[str, set[str]]:
    known = {parameter: name for name, parameter in model.named_parameters()}
    groups = model.parameter_groups(weight_decay=0.3, connection_policy=policy)
    for group in groups:
        decayed = group["name"] in ("decay", "connection_decay")
        assert group["weight_decay"] == (0.3 if decayed else 0.0)
    return {group["name"]: {known[p] for p in group["params"]} for group in groups}


@pytest.mark.parametrize("policy", ["no_decay", "paper"])
@pytest.mark.parametrize("connection", list(hnn.CONNECTIONS))
def test_every_trainable_parameter_once(connection: str, policy: str) -> None:
    model = build(connection, expand="learned_scale", reduce="weighted")
    groups = names(model, policy)
    grouped = [name for group in groups.values() for name in group]
    assert sorted(grouped) == sorted(n for n, p in model.named_parameters() if p.requires_grad)
    torch.optim.AdamW(model.parameter_groups(connection_policy=policy), lr=1e-3)


def test_branches_follow_nanogpt() -> None:
    groups = names(build("residual", bias=True), "no_decay")
    assert set(groups) == {"decay", "no_decay"}
    assert "token_embedding.weight" in groups["decay"]
    assert "sites.L0a.branch.qkv.weight" in groups["decay"]
    assert "sites.L0a.branch.qkv.bias" in groups["no_decay"]
    assert "reduce.weight" in groups["no_decay"]


def test_connections_are_not_decayed_by_default() -> None:
    groups = names(build("mhc", expand="learned_scale", reduce="weighted"), "no_decay")
    assert set(groups) == {"decay", "no_decay", "connection"}
    assert groups["connection"] >= {
        "sites.L0a.connection.phi",
        "sites.L0m.connection.bias",
        "sites.L0m.connection.norm_weight",
        "expand.scale",
        "reduce.phi",
    }
    assert "reduce.norm.weight" in groups["no_decay"]


@pytest.mark.parametrize(
    ("connection", "static"),
    [("mhc", True), ("hc", True), ("hc_static", True), ("mhc_lite", False), ("identity", False)],
)
def test_paper_policy(connection: str, static: bool) -> None:
    groups = names(build(connection, expand="learned_scale"), "paper")
    decayed = {name.rsplit(".", 1)[1] for name in groups["connection_decay"]}
    expected = {"scale"}
    if connection != "hc_static":
        expected.add("phi")
    if static:
        expected.add("bias")
    assert decayed == expected


def test_unknown_policy() -> None:
    with pytest.raises(ValueError, match="expected 'no_decay' or 'paper', got 'published'"):
        build("mhc").parameter_groups(connection_policy="published")
