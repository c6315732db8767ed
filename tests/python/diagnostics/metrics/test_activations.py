"""Growth, first tokens, outliers, kurtosis, gradient norms and linear probes."""

from __future__ import annotations

import pytest
import torch
from hyperstreams.diagnostics import activations, decodability, geometry, metrics
from torch import Tensor


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def test_growth_and_change() -> None:
    norm = torch.tensor([[1.0, 2.0], [2.0, 2.0], [8.0, 1.0]])
    growth = activations.norm_growth(norm)
    assert growth[0, 1].item() == 0
    assert torch.allclose(growth.sum(0), (norm[-1] / norm[0]).log())
    assert activations.change_from(norm).tolist() == [[0, 0], [1, 0], [7, -1]]
    assert activations.change_from(norm, 1)[1].tolist() == [0, 0]


def test_first_token() -> None:
    values = randn(3, 5, 2)
    first, rest = activations.split_first_token(values, axis=1)
    assert torch.equal(first, values[:, 0])
    assert torch.equal(rest, values[:, 1:])
    with pytest.raises(ValueError, match="split_first_token: axis"):
        activations.split_first_token(values[:, :1], axis=1)
    assert activations.first_token_share(torch.ones(2, 8, 4)).tolist() == [1 / 8] * 4
    sink = torch.zeros(2, 8, 2)
    sink[:, 0, 0] = 5.0
    assert activations.first_token_share(sink).tolist() == [1, 0]
    norm = torch.rand(3, 6, 4, generator=generator())
    order = torch.randperm(4, generator=generator(1))
    share = activations.first_token_share(norm)
    assert torch.allclose(activations.first_token_share(norm[..., order]), share[order])
    assert torch.allclose(activations.first_token_share(3 * norm), share)


def test_max_to_median() -> None:
    x = torch.ones(4, 3, 2, 8)
    x[1, 2, 1, 3] = -300.0
    assert activations.max_to_median(x).tolist() == [1, 300]
    samples = torch.stack([activations.max_to_median(randn(50, 1, 40, seed=s)) for s in range(40)])
    null = activations.gaussian_max_to_median(2000)
    assert samples.median().item() == pytest.approx(null, rel=0.05)
    assert activations.gaussian_max_to_median(1) == pytest.approx(1.0)
    random = randn(20, 3, 16)
    order = torch.randperm(3, generator=generator(2))
    ratio = activations.max_to_median(random)
    assert torch.allclose(activations.max_to_median(7 * random[:, order]), ratio[order])


@pytest.mark.parametrize("definition", ["token", "pooled"])
def test_kurtosis(definition: activations.KurtosisDefinition) -> None:
    x = randn(30, 3, 4000)
    value = activations.kurtosis(x, definition=definition)
    assert value.tolist() == pytest.approx([3.0] * 3, abs=0.1)
    moved = activations.kurtosis(5 * x[:, [2, 0, 1]] - 4, definition=definition)
    assert torch.allclose(moved, value[[2, 0, 1]])
    signs = randn(5, 2, 512).sign()
    balanced = torch.cat([signs, -signs], dim=-1)
    assert activations.kurtosis(balanced, definition=definition).tolist() == pytest.approx([1, 1])
    outlier = torch.zeros(1, 1, 1000)
    outlier[..., 7] = 9.0
    assert activations.kurtosis(outlier, definition=definition).item() == pytest.approx(998, abs=1)
    with pytest.raises(ValueError, match="kurtosis: definition"):
        activations.kurtosis(x, definition="channel")  # type: ignore[arg-type]


def test_sizes_of_tokens_enter_the_pooled_kurtosis_only() -> None:
    x = randn(200, 1, 500)
    x[:10] *= 30
    assert activations.kurtosis(x).item() == pytest.approx(3, abs=0.1)
    assert activations.kurtosis(x, definition="pooled").item() > 10


def test_gradient_norms() -> None:
    gradient = torch.zeros(2, 3, 5, 4, 6)
    gradient[:, 1, 2, 3] = 2.0
    norm = activations.gradient_norm(gradient)
    assert torch.allclose(norm, torch.tensor([0, 0, 0, 24**0.5]).expand(2, 4))
    assert torch.equal(geometry.norm_share(norm)[0], torch.tensor([0.0, 0, 0, 1]))
    equal = activations.gradient_norm(randn(2, 3, 5, 1, 6).expand(2, 3, 5, 4, 6))
    share = geometry.norm_share(equal)
    assert metrics.effective_streams(share).tolist() == pytest.approx([4, 4])


def streams(copies: bool) -> tuple[Tensor, Tensor]:
    """Tokens of an eight-word vocabulary; embeddings in stream 0, or in both of 0 and 2."""
    labels = torch.randint(0, 8, (400,), generator=generator())
    embedding = randn(8, 12, seed=1)
    noise = randn(400, 3, 12, seed=2)
    x = noise.clone()
    x[:, 0] = embedding[labels]
    if copies:
        x[:, 2] = embedding[labels]
    return x, labels


def test_probe_of_a_copied_embedding() -> None:
    x, labels = streams(copies=False)
    assert decodability.ridge_probe(x[:, 0], labels, generator=generator()) == 1
    assert decodability.ridge_probe(3 * x[:, 0] - 5, labels, generator=generator()) == 1
    noise = decodability.ridge_probe(x[:, 1], labels, generator=generator())
    chance = decodability.chance_accuracy(labels, generator=generator())
    assert abs(noise - chance) < 0.12
    assert 0.05 < chance < 0.25
    with pytest.raises(ValueError, match="ridge_probe: held_out"):
        decodability.ridge_probe(x[:, 0], labels, generator=generator(), held_out=0.0)


def test_unique_and_shared_information() -> None:
    x, labels = streams(copies=False)
    alone = decodability.decodability(x, labels, generator=generator())
    assert alone.single[0] == 1
    assert alone.together > 0.98
    assert alone.unique[0] > 0.6
    assert alone.unique[1:].abs().max() < 0.02
    both = decodability.decodability(*streams(copies=True), generator=generator())
    assert both.unique.abs().max() < 0.02
    assert both.shared[0] > 0.6
    assert both.shared[2] > 0.6
    order = torch.tensor([2, 0, 1])
    moved = decodability.decodability(x[:, order], labels, generator=generator())
    assert torch.allclose(moved.single, alone.single[order], atol=1e-6)
    one = decodability.decodability(x[:, :1], labels, generator=generator())
    assert one.without.item() == pytest.approx(one.chance)
