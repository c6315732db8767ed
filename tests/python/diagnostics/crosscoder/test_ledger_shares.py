"""Where features should be according to the writes alone."""

from __future__ import annotations

import torch
from hyperstreams.diagnostics import Trace, trace
from hyperstreams.diagnostics.crosscoder import ledger_profile, stream_share
from hyperstreams.models import GPT, GPTConfig


def planted(n: int = 2) -> Trace:
    """Two sites: the first writes to stream 1 alone, the second mixes 3 : 1 and writes to both."""
    tokens, width = 4, 3
    generator = torch.Generator().manual_seed(0)
    embedding = torch.randn(1, tokens, 1, width, generator=generator).expand(-1, -1, n, -1)
    y = torch.randn(2, 1, tokens, width, generator=generator)
    h_post = torch.tensor([[0.0, 2.0], [1.0, 0.5]])[:, None, None].expand(2, 1, tokens, n)
    mixer = torch.tensor([[0.75, 0.25], [0.25, 0.75]])
    h_res = torch.stack([torch.eye(n), mixer])[:, None, None].expand(2, 1, tokens, n, n)
    states = [embedding]
    for k in range(2):
        states.append(h_res[k] @ states[-1] + h_post[k].unsqueeze(-1) * y[k].unsqueeze(-2))
    return Trace(
        site_names=("L0a", "L0m"),
        streams=torch.stack(states),
        h_pre=torch.full((2, 1, tokens, n), 1 / n),
        h_post=h_post,
        h_res=h_res,
        branch_in=y,
        branch_out=y,
        logits=torch.zeros(1, tokens, 5),
        loss=None,
    )


def test_profile_of_planted_writes() -> None:
    traced = planted()
    profile = ledger_profile(traced, [1, 2])
    first, second = (traced.branch_out[k, 0, 1:].norm(dim=-1).mean() for k in range(2))
    embedding = traced.streams[0, 0, 1:, 0].norm(dim=-1).mean()
    zero = torch.zeros(())
    expected = torch.stack(
        [
            torch.stack([embedding, embedding, embedding, embedding]),
            torch.stack([zero, 2.0 * first, 0.5 * first, 1.5 * first]),
            torch.stack([zero, zero, second, 0.5 * second]),
        ]
    ).view(3, 2, 2)
    torch.testing.assert_close(profile, expected)
    shares = stream_share(profile)
    torch.testing.assert_close(shares[0], torch.full((2,), 0.5))
    torch.testing.assert_close(shares[1], torch.tensor([0.125, 0.875]))


def test_untrained_replicated_model_starts_with_equal_shares() -> None:
    config = GPTConfig(n_layer=2, n_head=2, width=16, block_size=8, vocab_size=32)
    model = GPT(config, generator=torch.Generator().manual_seed(0)).eval()
    tokens = torch.randint(32, (3, 8), generator=torch.Generator().manual_seed(1))
    profile = ledger_profile(trace(model, tokens), [0, 2, 4])
    assert profile.shape == (5, 3, 4)
    shares = stream_share(profile)
    torch.testing.assert_close(shares[0], torch.full((4,), 0.25), atol=0.01, rtol=0)
    assert bool((profile[1:, 0] == 0).all())
    assert bool((profile[3:, 1] == 0).all())
    assert bool((profile[1:3, 1] > 0).all())
