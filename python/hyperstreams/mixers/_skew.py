"""Skew-symmetric matrices and the orthogonal ones made from them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def identity_like(matrix: Tensor) -> Tensor:
    """The identity ``[m, m]`` in the dtype and on the device of ``matrix [..., m, m]``."""
    return torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)


def skew_count(m: int) -> int:
    """Free entries of a skew-symmetric ``m x m`` matrix."""
    return m * (m - 1) // 2


def skew(entries: Tensor, m: int) -> Tensor:
    """``[..., skew_count(m)] -> A [..., m, m]``, ``A^T = -A``: strict upper triangle, by rows."""
    rows, columns = torch.triu_indices(m, m, offset=1, device=entries.device)
    place = torch.zeros(skew_count(m), m * m, dtype=entries.dtype, device=entries.device)
    k = torch.arange(skew_count(m), device=entries.device)
    place[k, rows * m + columns] = 1.0
    upper = torch.matmul(entries, place).unflatten(-1, (m, m))
    return upper - upper.mT


def permute_skew(entries: Tensor, permutation: Sequence[int]) -> Tensor:
    """The entries of ``A[p, :][:, p]`` from those of A, with ``p = permutation``."""
    m = len(permutation)
    index = torch.tensor(permutation, device=entries.device)
    rows, columns = torch.triu_indices(m, m, offset=1, device=entries.device)
    return skew(entries, m)[..., index[rows], index[columns]]


def cayley(a: Tensor) -> Tensor:
    """``(I + A)^{-1} (I - A)``, orthogonal with determinant 1 for every skew-symmetric A."""
    eye = identity_like(a)
    return torch.linalg.solve_ex(eye + a, eye - a).result
