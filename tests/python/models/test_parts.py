"""Norms, positions, MLPs, grouped queries and untied embeddings of the GPT model."""

from __future__ import annotations

import math

import pytest
import torch
from hyperstreams import GPT, GPTConfig
from hyperstreams.models.attention import rotate
from torch import Tensor, nn
from torch.nn import functional

OPTIONS = [
    {"norm": "rms"},
    {"norm": "parameter_free", "bias": True},
    {"position": "rope"},
    {"mlp": "swiglu"},
    {"mlp": "moe", "n_experts": 4},
    {"n_kv_head": 2},
    {"n_kv_head": 1, "position": "rope"},
    {"tied_embeddings": False},
]


def build(**overrides: object) -> GPT:
    sizes = {"n_layer": 2, "n_head": 4, "width": 32, "block_size": 10, "vocab_size": 32}
    config = GPTConfig(**{**sizes, "connection": "residual", **overrides})  # type: ignore[arg-type]
    return GPT(config, generator=torch.Generator().manual_seed(0))


def scrambled(**overrides: object) -> GPT:
    model = build(**overrides)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture
def tokens() -> Tensor:
    return torch.randint(32, (3, 10), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("connection", ["residual", "mhc_lite", "deepnorm", "residual_matrix"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_trains_and_generates(connection: str, options: dict[str, object], tokens: Tensor) -> None:
    model = scrambled(connection=connection, **options)
    model(tokens, tokens)[1].backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    text = tokens[:, :4]
    for _ in range(9):
        text = torch.cat([text, model(text[:, -10:])[0][:, -1:].argmax(-1)], dim=1)
    assert torch.equal(model.generate(tokens[:, :4], 9, temperature=0.0), text)
    again = GPT(model.config, generator=torch.Generator().manual_seed(0))
    first = build(connection=connection, **options).state_dict()
    assert all(torch.equal(value, first[name]) for name, value in again.state_dict().items())
    # The model is causal.
    changed = tokens.clone()
    changed[:, 6:] = 0
    model.eval()
    torch.testing.assert_close(model(tokens)[0][:, :6], model(changed)[0][:, :6])


def test_norms() -> None:
    def kinds(model: GPT) -> set[type]:
        return {type(m) for m in model.modules() if isinstance(m, nn.LayerNorm | nn.RMSNorm)}

    assert kinds(build()) == {nn.LayerNorm}
    assert kinds(build(norm="rms")) == {nn.RMSNorm}
    free = build(norm="parameter_free", bias=True)
    assert kinds(free) == {nn.LayerNorm}
    assert not [name for name, _ in free.named_parameters() if "norm" in name]


def test_rotary_positions() -> None:
    """Scores depend on the distance only; position 0 is not turned; lengths are kept."""
    generator = torch.Generator().manual_seed(3)
    q, k = torch.randn(2, 1, 1, 1, 8, generator=generator)
    q, k = q.expand(1, 1, 12, 8), k.expand(1, 1, 12, 8)
    turned_q, turned_k = rotate(q, k, 0, 100.0)
    scores = (turned_q @ turned_k.transpose(-1, -2))[0, 0]
    for distance in range(-5, 6):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))
    assert (scores[0] - scores[0, 0]).abs().max() > 0.1
    torch.testing.assert_close(turned_q[:, :, 0], q[:, :, 0])
    torch.testing.assert_close(turned_q.norm(dim=-1), q.norm(dim=-1))
    later = rotate(q[:, :, :3], k[:, :, :3], 5, 100.0)
    torch.testing.assert_close(later[0], turned_q[:, :, 5:8])
    # Channels 1 and 5 turn by 100^(-1/4) radians per position.
    angle = 100.0**-0.25
    expected = q[0, 0, 1, 1] * math.cos(angle) - q[0, 0, 1, 5] * math.sin(angle)
    torch.testing.assert_close(turned_q[0, 0, 1, 1], expected)


def test_grouped_queries_are_repeated_keys_and_values(tokens: Tensor) -> None:
    grouped, full = build(n_kv_head=2), build()
    branch, other = grouped.sites["L0a"].branch, full.sites["L0a"].branch
    assert branch.qkv.weight.shape == (32 + 2 * 16, 32)
    q, k, v = branch.qkv.weight.detach().split([32, 16, 16])
    k, v = (w.view(2, 1, 8, 32).expand(2, 2, 8, 32).reshape(32, 32) for w in (k, v))
    with torch.no_grad():
        other.qkv.weight.copy_(torch.cat([q, k, v]))
        other.output.weight.copy_(branch.output.weight)
    u = torch.randn(2, 10, 32, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(branch(u), other(u))


def test_swiglu() -> None:
    branch = build(mlp="swiglu").sites["L0m"].branch
    assert branch.output.weight.shape == (32, 88)
    u = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(4))
    gate, up = (branch.norm(u) @ branch.hidden.weight.T).split([88, 88], dim=-1)
    torch.testing.assert_close(branch(u), (gate * gate.sigmoid() * up) @ branch.output.weight.T)


def test_mixture_of_experts() -> None:
    """Against a loop over tokens and their chosen experts."""
    branch = scrambled(mlp="moe", n_experts=6, experts_per_token=2, mlp_width=7).sites["L0m"].branch
    u = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(4))
    balance: list[Tensor] = []
    result = branch(u, balance)
    gates, ups = branch.hidden.weight.view(2, 6, 7, 32)
    outputs = branch.output.weight.view(32, 6, 7)
    expected, counts, means = torch.zeros(10, 32), torch.zeros(6), torch.zeros(6)
    for t, token in enumerate(branch.norm(u).view(10, 32)):
        weights = torch.softmax(branch.router.weight @ token, 0)
        means += weights / 10
        for e in weights.argsort(descending=True)[:2]:
            counts[e] += 1
            hidden = functional.silu(gates[e] @ token) * (ups[e] @ token)
            expected[t] += weights[e] * (outputs[:, e] @ hidden)
    torch.testing.assert_close(result.view(10, 32), expected)
    torch.testing.assert_close(balance[0], 6 * (counts / 20 * means).sum())
    assert torch.equal(branch(u), branch(u))


def test_balance_is_part_of_the_training_loss_only(tokens: Tensor) -> None:
    model = scrambled(mlp="moe", balance_loss=0.5)
    logits, loss = model(tokens, tokens)
    plain = functional.cross_entropy(logits.flatten(0, 1), tokens.flatten())
    assert loss > plain + 0.4
    loss.backward()
    assert model.sites["L0m"].branch.router.weight.grad.any()
    model.eval()
    torch.testing.assert_close(model(tokens, tokens)[1], plain)
    one = scrambled(mlp="moe", n_experts=1, experts_per_token=1, balance_loss=0.5)
    logits, loss = one(tokens, tokens)
    torch.testing.assert_close(
        loss, functional.cross_entropy(logits.flatten(0, 1), tokens.flatten()) + 0.5
    )


def test_experts_compile_into_one_graph(tokens: Tensor) -> None:
    model = scrambled(mlp="moe", position="rope", norm="rms", n_kv_head=2, n_layer=1)
    torch.compiler.reset()  # Graphs of other tests count towards the limit of recompilations.
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(tokens, tokens)[1], model(tokens, tokens)[1])


def test_untied_head(tokens: Tensor) -> None:
    model = build(tied_embeddings=False)
    assert model.head.weight.std().item() == pytest.approx(0.02, rel=0.1)
    with torch.no_grad():
        model.head.weight.zero_()
    assert not model(tokens)[0].any()
    decayed = model.parameter_groups()[0]["params"]
    assert any(p is model.head.weight for p in decayed)


def test_rope_has_no_position_table() -> None:
    assert "position_embedding.weight" in build().state_dict()
    assert "position_embedding.weight" not in build(position="rope").state_dict()
