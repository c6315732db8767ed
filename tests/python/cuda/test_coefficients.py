"""coefficients on a GPU: every mixer against float64, bit-identical reruns, graphs, errors."""

from __future__ import annotations

import pytest
import torch
from hyperstreams import ops
from hyperstreams.mixers import MIXERS, get_mixer
from torch import Tensor

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def inputs(name: str, n: int, tokens: int) -> tuple[Tensor, ...]:
    """logits, inv_rms, alpha, bias."""
    generator = torch.Generator().manual_seed(tokens + n)
    mixer = get_mixer(name)
    count, groups = 2 * n + mixer.logit_count(n), 2 + len(mixer.group_sizes(n))

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).cuda()

    return random(tokens, count), random(tokens).exp(), random(groups), random(count)


def results(name: str, n: int, arguments: tuple[Tensor, ...], backend: str) -> list[Tensor]:
    """Outputs, and the gradients of their sum under fixed weights."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in arguments]
    with ops.backend(backend):
        made = ops.coefficients(*leaves, n_streams=n, mixer=name)
    outputs = [out for out in made if out is not None]
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(out.shape, generator=generator).to(out) for out in outputs]
    return [*outputs, *torch.autograd.grad(outputs, leaves, weights)]


@pytest.mark.parametrize("name", sorted(MIXERS))
def test_agrees_with_float64(name: str) -> None:
    for n in (1, 2, 3, 4, 5, 8, 16):
        mixer = get_mixer(name)
        if n > mixer.max_streams or mixer.fused_map_for(n) is None:
            continue
        for tokens in (0, 1, 33, 5000):
            arguments = inputs(name, n, tokens)
            fused = results(name, n, arguments, "fused")
            exact = results(name, n, tuple(t.double() for t in arguments), "reference")
            for actual, expected in zip(fused, exact, strict=True):
                error = (actual.double() - expected).norm()
                assert error <= 2e-5 * expected.norm() + 1e-6, (n, tokens)


@pytest.mark.parametrize("name", ["sinkhorn", "permutation"])
def test_reruns_have_the_same_bits(name: str) -> None:
    arguments = inputs(name, 4, 5000)
    first = results(name, 4, arguments, "fused")
    for _ in range(20):
        again = results(name, 4, arguments, "fused")
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_mixed_devices_are_refused_in_words() -> None:
    logits, inv_rms, alpha, bias = inputs("sinkhorn", 4, 3)
    with pytest.raises((ValueError, RuntimeError), match="bias"):
        ops.coefficients(logits, inv_rms, alpha, bias.cpu(), n_streams=4, mixer="sinkhorn")
