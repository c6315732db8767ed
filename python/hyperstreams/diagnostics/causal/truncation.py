"""Fewer streams by balanced truncation: pure functions of coefficients and second moments.

With coefficients that do not depend on the token, a multi-stream network is a linear system in
depth: the state ``X_k [n, C]`` is written by ``X_{k+1} = R_k X_k + q_k y_k`` and read by
``u_k = p_k X_k``, the same for every channel. What a state must carry is then a matrix, from all
that was written before it to all that will be read after it, of rank at most n.
"""

from __future__ import annotations

import torch
from torch import Tensor

NEGLIGIBLE = 1e-6
"""Singular values below this part of the largest are rounding of float32 states."""


def later_reads(h_pre: Tensor, h_res: Tensor, readout: Tensor, gram: Tensor) -> list[Tensor]:
    """What every later reader sees of each state: K + 1 matrices ``[readers, n]``, in float64.

    h_pre, h_res : ``[K, n]``, ``[K, n, n]``, the same for all tokens.
    readout : ``[m, n]``, a row for each combination of the last streams that is read by itself.
    gram : ``[K + 1, n, n]`` second moments of the states, ``mean_tc X[i] X[j]``.

    Rows of state k: ``p_i R_{i-1} ... R_k`` of every site i >= k, then ``readout R_{K-1} ... R_k``.
    Each is divided by the root mean square of what that reader reads, because branches and readout
    normalise it: an error counts relative to the signal. A reader of nothing is a row of zeros.
    """
    h_pre, h_res, readout, gram = (t.double() for t in (h_pre, h_res, readout, gram))

    def scaled(reader: Tensor, state: Tensor) -> Tensor:
        energy = torch.einsum("mi,ij,mj->m", reader, state, reader).clamp(min=0)
        scale = torch.where(energy > 0, energy.sqrt(), torch.inf)
        return reader / scale.unsqueeze(-1)

    rows = scaled(readout, gram[-1])
    found = [rows]
    for k in reversed(range(len(h_pre))):
        rows = torch.cat([scaled(h_pre[k : k + 1], gram[k]), rows @ h_res[k]])
        found.append(rows)
    return found[::-1]


def _decompose(reads: Tensor, gram: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``(F, U, S, V^T)`` with ``gram = F F^T`` and ``reads F = U S V^T``."""
    values, vectors = torch.linalg.eigh(gram.double())
    factor = vectors * values.clamp(min=0).sqrt()
    return factor, *torch.linalg.svd(reads.double() @ factor, full_matrices=False)


def cut_values(reads: Tensor, gram: Tensor) -> Tensor:
    """Singular values ``[n]`` of the (reader, writer) block at one state, largest first.

    reads : ``[readers, n]`` from :func:`later_reads`.
    gram : ``[n, n]`` second moments of the state, which stand for the writers: ``gram = C W C^T``
        for the ledger C and the second moments W of what was written.

    Unchanged by any invertible change of the basis of streams. Padded with zeros where there are
    fewer than n readers.
    """
    values = _decompose(reads, gram)[2]
    return torch.nn.functional.pad(values, (0, gram.shape[-1] - len(values)))


def balanced_projection(reads: Tensor, gram: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """``(down [r, n], up [n, r])``, r <= keep: the state through ``keep`` streams and back.

    With ``gram = F F^T`` and ``reads F = U S V^T``: ``down = S^-1/2 U^T reads`` and
    ``up = F V S^-1/2`` of the ``keep`` largest singular values, of which negligible ones are left
    out; ``down up = I``. Of all matrices of rank ``keep``, ``up down`` loses least of what later
    readers get from this state, in mean square over tokens (Eckart and Young); the loss is the sum
    of the squared singular values left out. Source: balanced truncation of time-varying systems.
    """
    factor, u, s, vt = _decompose(reads, gram)
    rank = min(keep, int((s > NEGLIGIBLE * s[:1]).sum()))
    root = s[:rank].sqrt()
    down = (u[:, :rank] / root).T @ reads.double()
    up = factor @ (vt[:rank].T / root)
    return down, up
