"""Which parameters are decayed, under every policy, and what decay does on its own."""

from __future__ import annotations

import math

import pytest
import torch
from connection_cases import depth, used
from hyperstreams import GPT, GPTConfig
from hyperstreams import nn as hnn
from hyperstreams.models.decay import DECAY_POLICIES, decay_factor, decay_only


def build(connection: str, **options: object) -> GPT:
    n_layer = depth(connection, 1)
    return GPT(GPTConfig(n_layer=n_layer, width=16, connection=connection, **options))  # type: ignore[arg-type]


def names(model: GPT, policy: str) -> dict[str, set[str]]:
    known = {parameter: name for name, parameter in model.named_parameters()}
    groups = model.parameter_groups(weight_decay=0.3, connection_policy=policy)
    for group in groups:
        decayed = group["name"] in ("decay", "connection_decay")
        assert group["weight_decay"] == (0.3 if decayed else 0.0)
    return {group["name"]: {known[p] for p in group["params"]} for group in groups}


@pytest.mark.parametrize("policy", list(DECAY_POLICIES))
@pytest.mark.parametrize("connection", list(hnn.CONNECTIONS))
def test_every_trainable_parameter_once(connection: str, policy: str) -> None:
    model = build(connection, **used(connection, expand="learned_scale", reduce="weighted"))
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


@pytest.mark.parametrize(
    ("connection", "roles"),
    [
        (
            "vwn",
            {
                "controller": "phi",
                "static": "read mix write",
                "scale": "scale",
                "ends": "weight",
            },
        ),
        (
            "frac",
            {
                "controller": "phi",
                "static": "read mix write",
                "scale": "scale norm_weight norm_bias",
            },
        ),
        (
            "xhc",
            {
                "controller": "read_phi route phi",
                "static": "read_bias bias",
                "scale": "alpha",
            },
        ),
        ("mhc", {"controller": "phi", "matrix_static": "bias", "scale": "alpha norm_weight"}),
        ("deepseek_v4", {"controller": "phi", "static": "bias", "scale": "alpha"}),
        ("deepseek_v4_single_pass", {"controller": "phi", "static": "bias", "scale": "alpha"}),
        ("altup", {"static": "predict correct"}),
        ("denseformer", {"static": "weights"}),
        ("attention_residual", {"controller": "query", "scale": "norm_weight"}),
        ("rezero", {"scale": "alpha"}),
        ("residual_matrix", {"controller": "weight"}),
    ],
)
def test_roles(connection: str, roles: dict[str, str]) -> None:
    """As modules state them; the policies take them from there."""
    model = build(connection)
    owners = [m for m in model.modules() if isinstance(m, hnn.FullPrecisionModule)]
    stated = {o.role(n): set[str]() for o in owners for n, _ in o.named_parameters(recurse=False)}
    for owner in owners:
        for name, _ in owner.named_parameters(recurse=False):
            stated[owner.role(name)].add(name)
    assert stated == {role: set(words.split()) for role, words in roles.items()}
    for policy, decayed in (("dynamic", {"controller"}), ("no_decay", set())):
        found = names(model, policy).get("connection_decay", set())
        expected = {n for role in decayed for n in roles.get(role, "").split()}
        assert {name.rsplit(".", 1)[1] for name in found} == expected
    for name in names(model, "paper").get("connection_decay", set()):
        assert name.rsplit(".", 1)[1] not in roles.get("static", "").split()


def test_ends_have_roles_of_their_own() -> None:
    model = build("mhc", expand="learned_scale", reduce="weighted")
    assert model.expand.role("scale") == model.reduce.role("phi") == "ends"
    assert model.reduce.role("alpha") == model.reduce.role("bias") == "ends_vector"

    class Own(hnn.FullPrecisionModule):
        """A user's module that says nothing of roles."""

        def reset_parameters(self, *, generator: torch.Generator | None = None) -> None:
            """No parameters."""

    assert Own().role("gate") == "static"


def test_unknown_policy() -> None:
    with pytest.raises(ValueError, match=r"connection_policy: expected one of .*got 'published'"):
        build("mhc").parameter_groups(connection_policy="published")


def test_other_policies() -> None:
    model = build("mhc", expand="learned_scale")
    decayed = {name.rsplit(".", 1)[1] for name in names(model, "dynamic")["connection_decay"]}
    assert decayed == {"phi"}
    assert "connection" not in names(model, "all")


@pytest.mark.parametrize("policy", list(DECAY_POLICIES))
def test_decay_only_is_training_without_gradients(policy: str) -> None:
    rates = [0.1, 0.3, 0.2]
    trained, null = (build("mhc", expand="learned_scale") for _ in range(2))
    null.load_state_dict(trained.state_dict())
    optimizer = torch.optim.AdamW(
        trained.parameter_groups(weight_decay=0.5, connection_policy=policy)
    )
    for parameter in trained.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for rate in rates:
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
    decay_only(null, learning_rates=rates, weight_decay=0.5, connection_policy=policy)
    for name, value in trained.state_dict().items():
        torch.testing.assert_close(null.state_dict()[name], value, msg=name)
    moved = null.get_parameter("sites.L0a.connection.bias").abs().max().item()
    expected = decay_factor(rates, 0.5) if policy in ("paper", "all") else 1.0
    assert abs(moved - 8.0 * expected) < 1e-5


def test_published_decay() -> None:
    """Medium recipe of 2606.03483: -8 becomes -5.76 in 10,000 steps (diagnostics, trap 4)."""
    peak, warm_up, steps = 6e-4, 200, 10_000
    rates = [
        peak * (step + 1) / (warm_up + 1)
        if step < warm_up
        else peak * (0.55 + 0.45 * math.cos(math.pi * (step - warm_up) / (steps - warm_up)))
        for step in range(steps)
    ]
    assert abs(-8 * decay_factor(rates, 0.1) + 5.76) < 0.02
