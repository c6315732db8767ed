"""Models with every baseline connection: starts, casts, compilation."""

from __future__ import annotations

import math

import pytest
import torch
from connection_cases import depth
from hyperstreams import GPT, GPTConfig
from hyperstreams import nn as hnn
from torch import Tensor

BASELINES = [name for name, c in hnn.CONNECTIONS.items() if isinstance(c, hnn.ConnectionFamily)]


def build(connection: str, **overrides: object) -> GPT:
    sizes = {
        "n_layer": depth(connection, 3),
        "n_head": 2,
        "width": 16,
        "block_size": 12,
        "vocab_size": 32,
    }
    config = GPTConfig(**{**sizes, "connection": connection, **overrides})  # type: ignore[arg-type]
    return GPT(config, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def tokens() -> Tensor:
    return torch.randint(32, (3, 12), generator=torch.Generator().manual_seed(1))


def test_baselines_are_there() -> None:
    assert set(BASELINES) >= {
        "residual", "post_norm", "deepnorm", "rezero", "parallel", "residual_dual", "altup",
        "denseformer", "denseformer_4x5", "attention_residual", "attention_residual_block",
        "residual_matrix",
    }  # fmt: skip


@pytest.mark.parametrize("connection", ["altup", "denseformer", "denseformer_4x5"])
def test_start_as_the_plain_model(connection: str, tokens: Tensor) -> None:
    """DenseFormer's averages and AltUp's scalars (as chosen here) start as the identity."""
    options = {"reduce": "mean"} if connection == "altup" else {}
    model = build(connection, **options)
    plain = build("residual", n_layer=model.config.n_layer)
    torch.testing.assert_close(model(tokens)[0], plain(tokens)[0])


def test_rezero_starts_as_the_identity(tokens: Tensor) -> None:
    model = build("rezero")
    h = model.token_embedding(tokens) + model.position_embedding.weight[:12]
    expected = model.reduce(h) @ model.token_embedding.weight.T
    torch.testing.assert_close(model(tokens)[0], expected, rtol=0, atol=1e-6)
    model(tokens, tokens)[1].backward()
    alpha, branch = model.sites["L0a"].alpha, model.sites["L0a"].branch
    assert alpha.grad.item() != 0.0
    assert not branch.output.weight.grad.any()


def test_who_owns_the_norm() -> None:
    """Post-Norm models have as many norms as Pre-Norm ones, less the final one (ResiDual keeps)."""
    counts = {
        name: sum(isinstance(m, torch.nn.LayerNorm) for m in build(name).modules())
        for name in ("residual", "post_norm", "deepnorm", "residual_dual", "rezero", "parallel")
    }
    assert counts == {
        "residual": 7, "post_norm": 6, "deepnorm": 6, "residual_dual": 7, "rezero": 1, "parallel": 7
    }  # fmt: skip


def test_initial_values_of_deepnorm() -> None:
    """Xavier-normal; gain 1 for queries and keys, beta for values, outputs and MLPs."""
    model = build("deepnorm", width=96)
    beta = (8 * 3) ** -0.25
    for name, site in model.sites.items():
        branch = site.branch
        if name.endswith("a"):
            q, k, v = branch.qkv.weight.chunk(3)
            weights = [(q, 1.0, 192), (k, 1.0, 192), (v, beta, 192)]
            weights.append((branch.output.weight, beta, 192))
        else:
            fans = 96 + 384
            weights = [(branch.hidden.weight, beta, fans), (branch.output.weight, beta, fans)]
        for weight, gain, fan in weights:
            expected = gain * math.sqrt(2 / fan)
            assert weight.std().item() == pytest.approx(expected, rel=0.03), name


@pytest.mark.parametrize("connection", BASELINES)
def test_low_precision(connection: str, tokens: Tensor) -> None:
    model = build(connection).bfloat16()
    own = {
        parameter
        for module in model.modules()
        if isinstance(module, hnn.FullPrecisionModule)
        for parameter in module.parameters(recurse=False)
    }
    for name, parameter in model.named_parameters():
        assert parameter.dtype == (torch.float32 if parameter in own else torch.bfloat16), name
    logits, loss = model(tokens, tokens)
    assert logits.dtype == torch.bfloat16
    loss.backward()
    expected = build(connection)(tokens)[0]
    torch.testing.assert_close(logits.float(), expected, rtol=0.1, atol=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, loss = build(connection)(tokens, tokens)
    loss.backward()
    torch.testing.assert_close(logits.float(), expected, rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    "connection", ["altup", "denseformer", "attention_residual", "residual_dual"]
)
def test_compiles_into_one_graph(connection: str, tokens: Tensor) -> None:
    model = build(connection, n_layer=1, n_streams=2)
    torch.compiler.reset()  # Graphs of other tests count towards the limit of recompilations.
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    logits, loss = compiled(tokens, tokens)
    torch.testing.assert_close(logits, model(tokens)[0])
    loss.backward()


def test_connection_parameters_are_a_group_of_their_own() -> None:
    model = build("attention_residual")
    groups = {group["name"]: group["params"] for group in model.parameter_groups()}
    assert sum(p.numel() for p in groups["connection"]) == 7 * 2 * 16
    assert all(p.ndim >= 2 for p in groups["decay"])
