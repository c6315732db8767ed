"""Where the streams come from: the exact ledger of writes, unfolded contributions and cut rank.

A state is a linear combination of everything written so far, ``X[k] = C[k] Y`` with the writers
``Y = [starts; y_0; ...; y_{K-1}]``. The starts are the columns of the expansion: one embedding that
every stream copies, or n different rows. Sites come first: ``h_res [K, ..., n, n]``,
``h_pre, h_post [K, ..., n]``, ``branch_out [K, ..., C]``.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .usage import EffectiveKind, effective_streams

RankDefinition = Literal["singular_value", "energy"]


def ledger(h_res: Tensor, h_post: Tensor, *, start: Tensor | None = None) -> Tensor:
    """Composition of every state in its writers (D11): ``-> [K + 1, ..., n, S + K]``.

    ``C[0] = start``, ``C[k+1] = [R[k] C[k] | q[k]]``; columns of later writers are 0. ``start
    [n, S]`` says how the streams begin: None is one column of ones (n copies of the embedding);
    ``torch.eye(n)`` gives each stream a start of its own (scaled or otherwise different starts).
    Exact: :func:`reconstruct` returns the streams to rounding. Rank of ``C[k]`` is at most
    ``S + k``, so n copies have n directions only after n - 1 writes. Permuting streams permutes the
    rows. Initial value: the ledger of the initial coefficients; null: none.
    Source: recursion of 2409.19606 (HC), appendix on unfolding.
    """
    if h_res.shape[:-1] != h_post.shape or h_res.shape[-1] != h_post.shape[-1]:
        raise ValueError(
            f"ledger: h_post: expected shape {list(h_res.shape[:-1])} for mixers "
            f"{list(h_res.shape)}, got {list(h_post.shape)}"
        )
    sites, n = h_res.shape[0], h_res.shape[-1]
    if start is None:
        start = h_res.new_ones(n, 1)
    if start.ndim != 2 or start.shape[0] != n:
        raise ValueError(f"ledger: start: expected shape [{n}, S], got {list(start.shape)}")
    starts = start.shape[1]
    rows = h_res.new_zeros(*h_post.shape[1:], starts + sites)
    rows[..., :starts] = start.to(h_res)
    states = [rows]
    for k in range(sites):
        rows = h_res[k] @ rows
        rows[..., starts + k] = h_post[k]
        states.append(rows)
    return torch.stack(states)


def writers(streams: Tensor, branch_out: Tensor, *, replicated: bool) -> Tensor:
    """The vectors Y that a :func:`ledger` composes: ``-> [..., S + K, C]``.

    ``streams [..., n, C]`` is the first state, of which stream 0 alone is taken when the streams
    are copies (``replicated``, S = 1), else all n (S = n, ``start=torch.eye(n)``).
    """
    starts = streams[..., :1, :] if replicated else streams
    return torch.cat([starts, branch_out.movedim(0, -2)], dim=-2)


def reconstruct(composition: Tensor, written: Tensor) -> Tensor:
    """States ``[K+1, ..., n, C]`` from a ledger ``[K+1, ..., n, W]`` and :func:`writers` (D11)."""
    dtype = torch.promote_types(composition.dtype, written.dtype)
    return composition.to(dtype) @ written.to(dtype)


def contributions(h_pre: Tensor, composition: Tensor, *, readout: Tensor | None = None) -> Tensor:
    """Weight of each writer in each site's input and in the readout (D12): ``-> [K+1, ..., W]``.

    ``c[i, j] = p_i' C[i][:, j]``, ``h_pre [K, ..., n]``, ``composition`` a :func:`ledger`. The last
    row is what the readout sums: ``readout [..., n]`` are its weights, None is a sum (a readout
    that normalises each stream first has no such linear row; the sum before the norm stands in).
    ``sum_j c[i, j] y_j`` is the input of site i to rounding. Lower triangular: writer j of a site
    above i has weight 0. A plain residual network gives ones. Unchanged by permutations of the
    streams and, with HC, by any change of stream basis. Average over tokens for a picture and keep
    the deviation. Initial value: the contributions of the initial coefficients; null: none.
    Source: unfolded dense connections of 2409.19606 (HC).
    """
    if readout is None:
        readout = torch.ones_like(h_pre[0])
    weights = torch.cat([h_pre, readout.to(h_pre).expand(h_pre.shape[1:]).unsqueeze(0)])
    return (weights.unsqueeze(-2) @ composition).squeeze(-2)


def merge_starts(c: Tensor, starts: int) -> Tensor:
    """Sum the first ``starts`` columns into the embedding's: ``[..., W] -> [..., W - starts + 1]``.

    With one start nothing changes; with n starts of a scaled embedding the weights are of the
    streams' own starts, whose sum weighs their common part.
    """
    return torch.cat([c[..., :starts].sum(dim=-1, keepdim=True), c[..., starts:]], dim=-1)


def contribution_norm(c: Tensor, written: Tensor) -> Tensor:
    """``|c[i, j]| |y_j|`` (D12): size of each contribution, ``[K+1, ..., W] -> [K+1, ..., W]``.

    ``written [..., W, C]`` as :func:`writers` gives it. Unlike the weight it does not change when
    a writer is scaled and its weights are scaled back.
    """
    return c.abs() * written.norm(dim=-1, dtype=torch.promote_types(written.dtype, c.dtype))


def cut_singular_values(c: Tensor, norm: Tensor | None = None, *, starts: int = 1) -> Tensor:
    """Singular values of the block between writers before and readers after each state (D13).

    State k is a cut: rows are the inputs of sites k and later and the readout, columns the starts
    and the writers before k, each column scaled by the norm of its writer. ``c [K+1, ..., W]`` (per
    token or a token mean), ``norm`` broadcastable to ``[..., W]`` (None: 1). Returns
    ``[K+1, ..., r]`` in falling order, padded with zeros. At most n are not zero, because all that
    passes a cut passes through n streams.
    """
    sites = c.shape[0] - 1
    scaled = c if norm is None else c * norm
    scaled = scaled.movedim(0, -2)
    values = []
    for k in range(sites + 1):
        values.append(torch.linalg.svdvals(scaled[..., k:, : starts + k]))
    width = max(v.shape[-1] for v in values)
    padded = [torch.nn.functional.pad(v, (0, width - v.shape[-1])) for v in values]
    return torch.stack(padded)


def cut_rank(
    c: Tensor,
    norm: Tensor | None = None,
    *,
    starts: int = 1,
    kind: EffectiveKind = "entropy",
    definition: RankDefinition = "singular_value",
) -> Tensor:
    """Independent channels through each state (D13): ``[K+1, ..., W] -> [K+1, ...]``.

    Effective count (:func:`~hyperstreams.diagnostics.metrics.effective_streams` of ``kind``) of the
    :func:`cut_singular_values` divided by their sum; ``definition="energy"`` squares them first.
    Never above n; 1 for a plain residual network, at the readout (one reader), and at the first
    state of copied streams (one writer); m when m streams carry writers and readers that do not
    meet. Sees only what is written and read again, so that no relabelling of the streams changes
    it: in HC any invertible change of stream basis leaves it. A block of zeros gives 0.
    Initial value: the cut rank of the initial coefficients; null: 1, one stream.
    Source: ours; the bound is the semi-separable structure noted in Attention Residuals.
    """
    if definition not in ("singular_value", "energy"):
        raise ValueError(
            f"cut_rank: definition: expected 'singular_value' or 'energy', got {definition!r}"
        )
    values = cut_singular_values(c, norm, starts=starts)
    if definition == "energy":
        values = values.square()
    total = values.sum(dim=-1, keepdim=True)
    share = values / torch.where(total == 0, 1.0, total)
    count = effective_streams(torch.where(total == 0, 1.0 / share.shape[-1], share), kind=kind)
    return torch.where(total.squeeze(-1) == 0, 0.0, count)
