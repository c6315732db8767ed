"""Residual Matrix Transformer (2506.22696): the residual stream is a matrix read by key vectors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ... import init
from ..family import ConnectionFamily, Plan
from ..precision import FullPrecisionModule, Roles, full_precision


class Keys(FullPrecisionModule):
    """Key vectors ``weight [count, D_k]``, normal of standard deviation ``std``.

    zero : so many of them start at 0.
    """

    # They stand in for projections of the branches and the ends.
    roles: ClassVar[Roles] = {"weight": "controller"}

    def __init__(
        self,
        count: int,
        n_keys: int,
        *,
        std: float,
        zero: int = 0,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.std = std
        self.zero = zero
        values = torch.empty(count, n_keys, device=device, dtype=full_precision(dtype))
        self.weight = nn.Parameter(values)
        if not values.is_meta:
            self.reset_parameters(generator=generator)

    @torch.no_grad()
    def reset_parameters(self, *, generator: torch.Generator | None = None) -> None:
        """Draw the keys; queries then start at 0, that is, attention at the uniform one."""
        self.weight.copy_(init.normal(tuple(self.weight.shape), self.std, generator=generator))
        self.weight[: self.zero] = 0.0

    def read(self, x: Tensor) -> Tensor:
        """``x [..., D_v, D_k]`` to one vector per key, ``[..., count * D_v]``."""
        return functional.linear(x, self.weight.to(x.dtype)).transpose(-1, -2).flatten(-2)

    def write(self, y: Tensor) -> Tensor:
        """One vector per key, ``[..., count * D_v]``, to the sum of their outer products."""
        vectors = y.unflatten(-1, (self.weight.shape[0], -1)).transpose(-1, -2)
        return vectors @ self.weight.to(y.dtype)


class MatrixExpand(nn.Module):
    """The embedding's ``n_head`` vectors, stored under keys."""

    def __init__(self, keys: Keys) -> None:
        super().__init__()
        self.keys = keys

    def forward(self, h: Tensor) -> Tensor:
        """``[..., C] -> [..., D_v, D_k]``."""
        return self.keys.write(h).to(h.dtype)


class MatrixSite(nn.Module):
    """``X <- X + write(branch(read(norm(X))))``."""

    def __init__(self, branch: nn.Module, norm: nn.Module, read: Keys, write: Keys) -> None:
        super().__init__()
        self.branch = branch
        self.norm = norm
        self.read = read
        self.write = write

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """``[..., D_v, D_k]`` to the same; the norm is over the whole matrix."""
        u = self.read.read(self.norm(x.flatten(-2)).view_as(x))
        return x + self.write.write(self.branch(u, *args, **kwargs)).to(x.dtype)


class MatrixReduce(nn.Module):
    """``read(norm(X))``."""

    def __init__(self, norm: nn.Module, read: Keys) -> None:
        super().__init__()
        self.norm = norm
        self.read = read

    def forward(self, x: Tensor) -> Tensor:
        """``[..., D_v, D_k] -> [..., C]``."""
        return self.read.read(self.norm(x.flatten(-2)).view_as(x))


@dataclass(frozen=True)
class ResidualMatrix(ConnectionFamily):
    """A token's state is ``X [D_v, D_k]``; reading is ``X k``, writing adds ``o w^T``.

    D_v is the head width C / n_head and D_k is ``n_keys``, so that the state has any size at the
    same width of the branches (the paper's example: 64 x 32, 12 heads). An attention head's query,
    key, value and output are four vectors, in place of its parts of the four projections; an MLP
    reads and writes n_head vectors, C numbers, at once; so do embedding and readout. RMS norm over
    the whole matrix. At first, queries are 0 and other keys normal of variance 1 / D_k (our choice:
    the reads of a normalised matrix then have variance 1), written ones divided by sqrt(n_sites).
    Positions are the model's, where the paper has ALiBi.
    """

    branch_norm: ClassVar[bool] = False
    branch_projects: ClassVar[bool] = False

    n_keys: int = 32

    def __post_init__(self) -> None:
        if self.n_keys < 1:
            raise ValueError(
                f"connection {self.name!r}: n_keys: expected at least 1, got {self.n_keys}"
            )

    def _keys(self, count: int, plan: Plan, *, scale: float = 1.0, zero: int = 0) -> Keys:
        return Keys(
            count,
            self.n_keys,
            std=scale / math.sqrt(self.n_keys),
            zero=zero,
            generator=plan.generator,
            **plan.factory,
        )

    def _norm(self, plan: Plan) -> nn.Module:
        size = plan.width // plan.n_head * self.n_keys
        return nn.RMSNorm(size, eps=1e-5, **plan.factory)

    def build_expand(self, plan: Plan) -> nn.Module:
        return MatrixExpand(self._keys(plan.n_head, plan))

    def operations(self, *, width: int, kv_width: int, n_sites: int, n_streams: int) -> int:
        # Attention reads queries, keys and values; MLPs read C numbers; all write C.
        attention = width + 2 * kv_width + width
        mlp = 2 * width
        return 2 * self.n_keys * (-(-n_sites // 2) * attention + n_sites // 2 * mlp)

    def build_site(self, branch: nn.Module, site_index: int, plan: Plan) -> nn.Module:
        count, zero = plan.n_head, 0
        if site_index % 2 == 0:
            count, zero = plan.n_head + 2 * plan.n_kv_head, plan.n_head
        write = self._keys(plan.n_head, plan, scale=plan.n_sites**-0.5)
        return MatrixSite(branch, self._norm(plan), self._keys(count, plan, zero=zero), write)

    def build_reduce(self, plan: Plan) -> nn.Module:
        return MatrixReduce(self._norm(plan), self._keys(plan.n_head, plan))


CONNECTIONS = (ResidualMatrix("residual_matrix", "Residual Matrix Transformer, 2506.22696"),)
