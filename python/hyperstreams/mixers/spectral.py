"""H_res on the spectral sphere: unit sums, spectral norm 1, any sign (sHC, 2603.20896)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ._skew import cayley, skew, skew_count
from .base import Mixer


def helmert_basis(n: int) -> Tensor:
    """``P [n, n - 1]``, float64: orthonormal columns, each orthogonal to the constant vector.

    Column i (counted from 1): i times 1, then -i, then zeros, over sqrt(i (i + 1)).
    """
    i = torch.arange(1, n, dtype=torch.float64)
    r = torch.arange(n, dtype=torch.float64).unsqueeze(-1)
    return torch.where(r < i, 1.0, torch.where(r == i, -i, 0.0)) / torch.sqrt(i * (i + 1))


@dataclass(frozen=True)
class Spectral(Mixer):
    """``h_res = J + P U diag(sigma) V^T P^T``: J = 1/n everywhere, P the Helmert basis.

    ``U = (I + A)^-1 (I - A)`` with A [n - 1, n - 1] skew, its strict upper triangle (row-major)
    ``gamma_u tanh(logit)``; V likewise with gamma_v; ``sigma = tanh(logit)``. Logits in this order:
    (n - 1)(n - 2)/2 for U, as many for V, n - 1 for sigma; a scale of their own each.

    Rows and columns sum to 1 and the spectral norm is 1 (the constant vector's; all |sigma| < 1);
    entries may be negative for n >= 3. The transpose is the same matrix with U and V exchanged.

    gamma_u, gamma_v : bound of the angles. Whether they are learned in the paper is not known;
        here they are constants.
    sigma_bias : initial logit of sigma. 4.0 in the first description, 3.0 in a second
        implementation.
    """

    name = "spectral"
    paper = "sHC, 2603.20896; not known whether gamma_u and gamma_v are learned: constants here"
    invariants = frozenset(
        {"unit_row_sums", "unit_column_sums", "spectral_norm_one", "negative_entries"}
    )
    fused_map = "spectral"

    gamma_u: float = 1.0
    gamma_v: float = 1.0
    sigma_bias: float = 4.0

    def fused_map_for(self, n: int) -> str | None:
        """The kernels have closed forms up to n = 4."""
        return self.fused_map if n <= 4 else None

    def group_sizes(self, n: int) -> tuple[int, ...]:
        angles = skew_count(n - 1)
        return angles, angles, n - 1

    def logit_count(self, n: int) -> int:
        return (n - 1) ** 2

    def initial_logits(self, n: int) -> Tensor:
        logits = torch.zeros((n - 1) ** 2)
        logits[(n - 1) * (n - 2) :] = self.sigma_bias
        return logits

    def map(self, logits: Tensor, n: int) -> Tensor:
        angles_u, angles_v, sigma = torch.tanh(logits).split(list(self.group_sizes(n)), dim=-1)
        u = cayley(skew(self.gamma_u * angles_u, n - 1))
        v = cayley(skew(self.gamma_v * angles_v, n - 1))
        p = helmert_basis(n).to(logits)
        return 1.0 / n + (p @ (u * sigma.unsqueeze(-2))) @ (p @ v).transpose(-1, -2)

    def fused_settings(self, n: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
        return (), (self.gamma_u, self.gamma_v)
