"""Expansion and reduction."""

from __future__ import annotations

import pytest
import torch
from hyperstreams import nn as hnn
from hyperstreams import ops
from torch import Tensor, nn

N, C = 3, 8


def expand(scheme: str, seed: int = 0, **options: float) -> hnn.ExpandStreams:
    return hnn.ExpandStreams(
        n_streams=N,
        width=C,
        scheme=scheme,
        generator=torch.Generator().manual_seed(seed),
        **options,  # type: ignore[arg-type]
    )


@pytest.fixture
def h() -> Tensor:
    return torch.randn(2, 5, C, generator=torch.Generator().manual_seed(1))


def test_replicate(h: Tensor) -> None:
    streams = expand("replicate")(h)
    assert streams.y is None
    assert streams.stats is None
    assert streams.tensor.is_contiguous()
    assert torch.equal(streams.tensor, h.unsqueeze(-2).expand(2, 5, N, C))
    assert not list(expand("replicate").parameters())


def test_learned_scale(h: Tensor) -> None:
    module = expand("learned_scale", base=1.0, noise=0.5)
    assert module.scale is not None
    torch.testing.assert_close(module(h).tensor, h.unsqueeze(-2) * module.scale)
    bound = 0.5 * (6 / (N + C)) ** 0.5
    assert 0.5 * bound < (module.scale - 1).abs().max() <= bound + 1e-6
    published = expand("learned_scale")
    assert published.scale is not None
    assert abs(published.scale.mean().item() - 0.6) < 0.4


def test_embedding(h: Tensor) -> None:
    module = expand("embedding")
    assert isinstance(module.bias, nn.Parameter)
    assert not module.bias.any()
    assert torch.equal(module(h).tensor, expand("replicate")(h).tensor)
    other = expand("embedding", noise=0.02)
    assert other.bias is not None
    torch.testing.assert_close(other(h).tensor, h.unsqueeze(-2) + other.bias)
    assert other.bias.any()


def test_noise_is_a_saved_constant(h: Tensor) -> None:
    module = expand("noise")
    assert not list(module.parameters())
    assert set(module.state_dict()) == {"bias"}
    deviation = module(h).tensor - h.unsqueeze(-2)
    assert 0.005 < deviation.std().item() < 0.02
    assert torch.equal(module(h).tensor, module(h).tensor)
    assert not torch.equal(expand("noise", seed=1)(h).tensor, module(h).tensor)


@pytest.mark.parametrize("scheme", ["learned_scale", "noise"])
def test_the_generator_determines_the_values(scheme: str) -> None:
    before = torch.random.get_rng_state()
    first, second, third = expand(scheme), expand(scheme), expand(scheme, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
        assert not torch.equal(value, third.state_dict()[name])


def test_casts_and_repr() -> None:
    module = expand("learned_scale").bfloat16()
    assert module.scale is not None
    assert module.scale.dtype == torch.float32
    assert module(torch.ones(2, C, dtype=torch.bfloat16)).x.dtype == torch.bfloat16
    assert repr(module) == (
        "ExpandStreams(n_streams=3, width=8, scheme='learned_scale', base=0.6, noise=1.0)"
    )


def test_expand_errors() -> None:
    with pytest.raises(ValueError, match=r"scheme: expected one of .*did you mean 'replicate'"):
        expand("replicat")
    with pytest.raises(ValueError, match=r"base: expected None with scheme 'noise', got 1.0"):
        expand("noise", base=1.0)
    with pytest.raises(ValueError, match=r"noise: expected None with scheme 'replicate', got 1.0"):
        expand("replicate", noise=1.0)
    with pytest.raises(ValueError, match=r"reference_width: expected None .* got 768"):
        expand("orthogonal", reference_width=768)
    with pytest.raises(ValueError, match=r"n_streams: expected at most width=2, got 3"):
        hnn.ExpandStreams(n_streams=3, width=2, scheme="orthogonal")


def test_controls_of_learned_scale(h: Tensor) -> None:
    constant = expand("constant_scale")
    torch.testing.assert_close(constant(h).tensor, 0.6 * expand("replicate")(h).tensor)
    sign = expand("random_sign").scale
    assert sign is not None
    assert torch.equal(sign.abs(), torch.ones(N, C))
    assert 0 < (sign < 0).sum() < N * C
    rows = expand("orthogonal", base=2.0).scale
    assert rows is not None
    torch.testing.assert_close(rows @ rows.T, 4.0 * C * torch.eye(N), atol=1e-5, rtol=0)
    unit = expand("unit_scale").scale
    published = expand("learned_scale").scale
    assert unit is not None
    assert published is not None
    torch.testing.assert_close(unit - 1.0, published - 0.6)
    matched = expand("learned_scale", noise=1.0, reference_width=768).scale
    assert matched is not None
    bound = (6 / (N + 768)) ** 0.5
    assert 0.7 * bound < (matched - 0.6).abs().max() <= bound + 1e-6


@pytest.mark.parametrize("scheme", ["learned_scale", "random_sign", "embedding", "noise"])
def test_frozen_or_learned(scheme: str, h: Tensor) -> None:
    frozen, learned = expand(scheme, learned=False), expand(scheme, learned=True)
    assert not list(frozen.parameters())
    assert len(list(learned.parameters())) == 1
    assert frozen.state_dict().keys() == learned.state_dict().keys()
    assert torch.equal(frozen(h).tensor, learned(h).tensor)


def test_collect_stats_starts_an_empty_table(h: Tensor) -> None:
    stats = expand("replicate")(h, collect_stats=True).stats
    assert stats is not None
    assert stats.shape == (0, ops.stream_stats_size(N))
    assert stats.dtype == torch.float64


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 5, N, C, generator=torch.Generator().manual_seed(2))


def reduce(scheme: str, **options: object) -> hnn.ReduceStreams:
    return hnn.ReduceStreams(n_streams=N, width=C, scheme=scheme, **options)  # type: ignore[arg-type]


def test_sum_and_mean(x: Tensor) -> None:
    torch.testing.assert_close(reduce("sum")(x), x.sum(-2))
    torch.testing.assert_close(reduce("mean")(x), x.mean(-2))


def test_weighted_is_a_sigmoid_head(x: Tensor) -> None:
    """DeepSeek-V4's head: sigmoid(scale * mix + base) + eps, not normalised."""
    module = reduce("weighted")
    torch.testing.assert_close(module(x), (0.5 + 1e-6) * x.sum(-2))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(0))
    flat = x.flatten(-2)
    assert module.phi is not None
    mix = (flat @ module.phi.T) * torch.rsqrt(flat.square().mean(-1, keepdim=True) + 1e-6)
    weights = torch.sigmoid(module.alpha * mix + module.bias) + 1e-6
    torch.testing.assert_close(module(x), (weights.unsqueeze(-1) * x).sum(-2))


@pytest.mark.parametrize("scheme", ["sum", "mean", "weighted"])
def test_norm_before_or_after(scheme: str, x: Tensor) -> None:
    norm = nn.LayerNorm(C)
    plain = reduce(scheme)
    after = reduce(scheme, norm=norm, norm_position="after")
    torch.testing.assert_close(after(x), norm(plain(x)))
    before = reduce(scheme, norm=norm, norm_position="before")
    if scheme != "weighted":
        torch.testing.assert_close(before(x), plain(norm(x)))
    else:
        # Zero projection: the weights are 1/2 whatever they are computed from.
        torch.testing.assert_close(before(x), (0.5 + 1e-6) * norm(x).sum(-2))
    assert set(before.state_dict()) >= {"norm.weight", "norm.bias"}


def test_reduce_carries_out_the_pending_write(x: Tensor) -> None:
    y, h_res, h_post = torch.randn(2, 5, C), torch.randn(N, N), torch.randn(N)
    streams = hnn.Streams(x, y, h_res, h_post)
    expected = torch.einsum("ji,btic->btjc", h_res, x) + h_post[:, None] * y.unsqueeze(-2)
    torch.testing.assert_close(reduce("sum")(streams), expected.sum(-2))


def test_only_the_head_stays_in_float32() -> None:
    module = reduce("weighted", norm=nn.LayerNorm(C), norm_position="after").bfloat16()
    assert module.phi is not None
    assert module.phi.dtype == torch.float32
    assert module.norm is not None
    assert module.norm.weight.dtype == torch.bfloat16
    assert module(torch.ones(2, N, C, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_reduce_errors() -> None:
    with pytest.raises(ValueError, match=r"scheme: expected one of sum, mean, weighted"):
        reduce("max")
    with pytest.raises(ValueError, match="norm_position: expected one of before, after"):
        reduce("sum", norm_position="around")
