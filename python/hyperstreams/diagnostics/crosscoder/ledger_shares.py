"""What the ledger of writes alone says about where features should be, without any coder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..live.trace import Trace
from ..metrics.ledger import ledger


def ledger_profile(traced: Trace, states: Sequence[int]) -> Tensor:
    """Size of every writer's contribution in every stream: ``[1 + K, L, n]`` for states ``[L]``.

    Everything in stream s of state k was written by the embedding or by a branch, with the weights
    of the stream ledger (D11): a feature in the output of branch j is in stream s in proportion to
    ``C[k][s, j]``, whatever the feature. Row 1 + j is ``mean_t |C[k][s, j]| |y_j|``, row 0 the same
    of the embedding (``mean_t |sum_i C[k][s, i] x_i|`` over the initial streams i). Position 0 is
    left out. Shares of decoder norm of a crosscoder say something new only where they part from
    ``stream_share`` of this. Zero for writers after a state; equal over identical streams.
    """
    n = traced.n_streams
    start = torch.eye(n, device=traced.h_res.device)
    composition = ledger(traced.h_res.float(), traced.h_post.float(), start=start)
    composition = composition[list(states)][:, :, 1:]
    first = traced.streams[0][:, 1:].float()
    embedding = (composition[..., :n] @ first).norm(dim=-1).mean(dim=(1, 2))
    size = traced.branch_out[:, :, 1:].float().norm(dim=-1).movedim(0, -1)
    written = (composition[..., n:].abs() * size.unsqueeze(-2)).mean(dim=(1, 2))
    return torch.cat([embedding[None], written.permute(2, 0, 1)])
