"""Segments: streams narrower than the branch, of which it reads and writes several at once.

Frac-Connections (2503.14125) split the C channels into fractions instead of widening the state;
virtual width networks (2511.11238) keep more segments than the branch takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ... import ops
from ..family import ConnectionFamily, Plan
from ..precision import FullPrecisionModule, Roles, full_precision


class SegmentSite(FullPrecisionModule):
    """One site on segments ``X [..., n, w]``, around a branch of width ``C = m w``.

    ``u_k = sum_i read[i, k] x_i`` for k < m, concatenated to ``[..., C]``;
    ``x'_j = sum_i mix[i, j] x_i + sum_k write[k, j] F(u)_k``. With ``diagonal_write`` (n = m)
    ``write`` is ``[m]`` and fraction k goes to segment k alone.

    Dynamic coefficients are ``static + scale tanh(norm(x_i) W / temperature)``, row i of each from
    segment i alone: ``W [m + n + (1 or m), w]``, at first 0; ``norm``: ``"layer"`` with weight and
    bias over w, ``"rms"`` without. Its logits are fused where the norm is ``"rms"``; the products
    with the coefficients are batched matrix products, in float32 with one rounding of the streams.

    Parameters (float32 or float64): ``read [n, m]``, ``mix [n, n]``, ``write``; dynamic also
    ``phi``, ``scale [2]`` (of read and mix, and of write), ``norm_weight`` and ``norm_bias``.
    """

    # Not named, so static: read, mix and write.
    roles: ClassVar[Roles] = {
        "phi": "controller",
        "scale": "scale",
        "norm_weight": "scale",
        "norm_bias": "scale",
    }

    phi: nn.Parameter | None
    scale: nn.Parameter | None
    norm_weight: nn.Parameter | None
    norm_bias: nn.Parameter | None

    def __init__(
        self,
        branch: nn.Module,
        *,
        n_segments: int,
        fractions: int,
        width: int,
        dynamic: bool,
        diagonal_write: bool,
        norm: Literal["layer", "rms"] = "layer",
        scale: float = 0.01,
        temperature: float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.branch = branch
        self.n_segments = n_segments
        self.fractions = fractions
        self.norm = norm
        self.initial_scale = scale
        self.temperature = temperature
        n, m, w = n_segments, fractions, width // fractions

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape, device=device, dtype=full_precision(dtype)))

        self.read = parameter(n, m)
        self.mix = parameter(n, n)
        self.write = parameter(m) if diagonal_write else parameter(m, n)
        self.rows = (m, n, 1 if diagonal_write else m)
        self.register_parameter("phi", parameter(sum(self.rows), w) if dynamic else None)
        self.register_parameter("scale", parameter(2) if dynamic else None)
        learned_norm = dynamic and norm == "layer"
        self.register_parameter("norm_weight", parameter(w) if learned_norm else None)
        self.register_parameter("norm_bias", parameter(w) if learned_norm else None)
        if not self.read.is_meta:
            self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self, *, generator: torch.Generator | None = None) -> None:
        """Read the first m segments, mix nothing, write fraction ``j mod m`` to segment j."""
        nn.init.eye_(self.read)
        nn.init.eye_(self.mix)
        if self.write.ndim == 1:
            self.write.fill_(1.0)
        else:
            index = torch.arange(self.n_segments, device=self.write.device) % self.fractions
            self.write.copy_(functional.one_hot(index, self.fractions).T)
        if self.phi is not None and self.scale is not None:
            self.phi.zero_()
            self.scale.fill_(self.initial_scale)
        if self.norm_weight is not None and self.norm_bias is not None:
            self.norm_weight.fill_(1.0)
            self.norm_bias.zero_()

    def coefficients(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``read [..., n, m]``, ``mix [..., n, n]``, ``write [..., m, n]`` or ``[..., m]``."""
        if self.phi is None or self.scale is None:
            return self.read, self.mix, self.write
        if self.norm == "layer":
            norm = functional.layer_norm(
                x.to(self.phi.dtype), x.shape[-1:], self.norm_weight, self.norm_bias
            )
            z = functional.linear(norm, self.phi)
        else:
            logits, inv_rms = ops.project(x.unsqueeze(-2), self.phi)
            z = logits * inv_rms.unsqueeze(-1)
        dynamic = torch.tanh(z / self.temperature)
        read, mix, write = dynamic.split(self.rows, dim=-1)
        write = write.squeeze(-1) if self.write.ndim == 1 else write.mT
        alpha, beta = self.scale.unbind()
        return self.read + alpha * read, self.mix + alpha * mix, self.write + beta * write

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """``[..., n, w] -> [..., n, w]``; further arguments go to the branch."""
        read, mix, write = self.coefficients(x)
        state = x.to(read.dtype)
        u = (read.mT @ state).to(x.dtype).flatten(-2)
        y = self.branch(u, *args, **kwargs).unflatten(-1, (self.fractions, -1)).to(read.dtype)
        written = write.unsqueeze(-1) * y if self.write.ndim == 1 else write.mT @ y
        return (mix.mT @ state + written).to(x.dtype)

    def extra_repr(self) -> str:
        return f"n_segments={self.n_segments}, fractions={self.fractions}"


def site_operations(n: int, m: int, width: int, *, dynamic: bool, diagonal_write: bool) -> int:
    """Floating-point operations of a :class:`SegmentSite` per token, a multiply-add being two."""
    write = m if diagonal_write else m * n
    controller = n * (m + n + (1 if diagonal_write else m)) if dynamic else 0
    return 2 * (n * m + n * n + write + controller) * (width // m)


class Split(nn.Module):
    """``[..., C] -> [..., m, C / m]``."""

    def __init__(self, fractions: int) -> None:
        super().__init__()
        self.fractions = fractions

    def forward(self, h: Tensor) -> Tensor:
        """The fractions of the channels, in order."""
        return h.unflatten(-1, (self.fractions, -1))


class Join(nn.Module):
    """``[..., m, C / m] -> [..., C]``, then the norm."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """The fractions side by side, normalised."""
        return self.norm(x.flatten(-2))


class Widen(FullPrecisionModule):
    """``h [..., C]`` to n segments ``[..., n, w]`` by a matrix ``[n w, C]``, at first copies."""

    roles: ClassVar[Roles] = {"weight": "ends"}

    def __init__(self, *, n_segments: int, fractions: int, width: int, **factory: Any) -> None:
        super().__init__()
        self.n_segments = n_segments
        self.fractions = fractions
        factory = {**factory, "dtype": full_precision(factory.get("dtype"))}
        rows = n_segments * (width // fractions)
        self.weight = nn.Parameter(torch.empty(rows, width, **factory))
        if not self.weight.is_meta:
            self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self, *, generator: torch.Generator | None = None) -> None:
        """Segment j is fraction ``j mod m`` of the channels."""
        rows, width = self.weight.shape
        channels = torch.arange(rows, device=self.weight.device) % width
        self.weight.copy_(functional.one_hot(channels, width))

    def forward(self, h: Tensor) -> Tensor:
        """The segments, in the dtype of ``h``."""
        x = functional.linear(h.to(self.weight.dtype), self.weight).to(h.dtype)
        return x.unflatten(-1, (self.n_segments, -1))


class Narrow(FullPrecisionModule):
    """Segments to ``[..., C]``: groups of C channels normalised, ``weight [C, n w]``, the norm."""

    roles: ClassVar[Roles] = {"weight": "ends"}

    def __init__(
        self, norm: nn.Module, *, n_segments: int, fractions: int, width: int, **factory: Any
    ) -> None:
        super().__init__()
        self.norm = norm
        self.groups = n_segments // fractions
        factory = {**factory, "dtype": full_precision(factory.get("dtype"))}
        columns = n_segments * (width // fractions)
        self.weight = nn.Parameter(torch.empty(width, columns, **factory))
        if not self.weight.is_meta:
            self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self, *, generator: torch.Generator | None = None) -> None:
        """The mean of the groups, which are copies at first."""
        width, columns = self.weight.shape
        channels = torch.arange(columns, device=self.weight.device) % width
        self.weight.copy_(functional.one_hot(channels, width).T / self.groups)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised hidden states in the dtype of ``x``."""
        groups = x.to(self.weight.dtype).flatten(-2).unflatten(-1, (self.groups, -1))
        normed = functional.layer_norm(groups, groups.shape[-1:]).flatten(-2)
        return self.norm(functional.linear(normed, self.weight).to(x.dtype))


@dataclass(frozen=True)
class FracConnections(ConnectionFamily):
    """Frac-Connections (2503.14125): ``n_streams`` fractions of the channels, no wider state.

    Every fraction is read, mixed and written like a stream of Hyper-Connections: at first the
    plain residual network exactly. Parameters per site: ``2 m^2 + m``, dynamic also
    ``(C/m)(2m + 3) + 2``.
    """

    dynamic: bool = True

    def check(self, *, width: int, n_sites: int, n_streams: int) -> None:
        super().check(width=width, n_sites=n_sites, n_streams=n_streams)
        if width % n_streams:
            raise ValueError(
                f"connection {self.name!r}: width: expected a multiple of n_streams={n_streams} "
                f"fractions, got {width}"
            )

    def operations(self, *, width: int, kv_width: int, n_sites: int, n_streams: int) -> int:
        m = n_streams
        return n_sites * site_operations(m, m, width, dynamic=self.dynamic, diagonal_write=True)

    def build_expand(self, plan: Plan) -> nn.Module:
        return Split(plan.n_streams)

    def streams_of(self, state: Tensor) -> Tensor:
        """The segments: streams of the segments' width."""
        return state

    def build_site(self, branch: nn.Module, site_index: int, plan: Plan) -> nn.Module:
        return SegmentSite(
            branch,
            n_segments=plan.n_streams,
            fractions=plan.n_streams,
            width=plan.width,
            dynamic=self.dynamic,
            diagonal_write=True,
            **plan.factory,
        )

    def build_reduce(self, plan: Plan) -> nn.Module:
        return Join(plan.make_norm(plan.width))


@dataclass(frozen=True)
class VirtualWidth(ConnectionFamily):
    """Generalised Hyper-Connections of virtual width networks (2511.11238).

    ``n_streams`` segments of width ``C / fractions``: a state ``n_streams / fractions`` times as
    wide as the branches. Dynamic coefficients have scale 1 and temperature ``C / fractions``. The
    paper's embedding table has the width of the state; behind the interface of this package a
    matrix widens the model's embedding instead, at first by copies. Its norm of the controller is
    not known to us: RMS without weight here. It scales the dynamic part as ``S o tanh(...)``, of
    which S's shape is not known to us either: two scalars here, of read and mix and of write. The
    exit is the paper's: each group of C channels
    normalised, a matrix to C, the model's norm.
    """

    dynamic: bool = True
    fractions: int = 2

    @property
    def fused_ops(self) -> tuple[str, ...]:
        """The projection of the controller; frac's has a layer norm, which is PyTorch's."""
        return ("project",) if self.dynamic else ()

    def check(self, *, width: int, n_sites: int, n_streams: int) -> None:
        super().check(width=width, n_sites=n_sites, n_streams=n_streams)
        if width % self.fractions:
            raise ValueError(
                f"connection {self.name!r}: width: expected a multiple of "
                f"fractions={self.fractions}, got {width}"
            )
        if n_streams % self.fractions:
            raise ValueError(
                f"connection {self.name!r}: n_streams: expected a multiple of "
                f"fractions={self.fractions}, got {n_streams}"
            )

    def _sizes(self, plan: Plan) -> dict[str, Any]:
        sizes = {"n_segments": plan.n_streams, "fractions": self.fractions, "width": plan.width}
        return {**sizes, **plan.factory}

    def operations(self, *, width: int, kv_width: int, n_sites: int, n_streams: int) -> int:
        return n_sites * site_operations(
            n_streams, self.fractions, width, dynamic=self.dynamic, diagonal_write=False
        )

    def build_expand(self, plan: Plan) -> nn.Module:
        return Widen(**self._sizes(plan))

    def streams_of(self, state: Tensor) -> Tensor:
        """The segments: streams of the segments' width."""
        return state

    def build_site(self, branch: nn.Module, site_index: int, plan: Plan) -> nn.Module:
        return SegmentSite(
            branch,
            dynamic=self.dynamic,
            diagonal_write=False,
            norm="rms",
            scale=1.0,
            temperature=plan.width / self.fractions,
            **self._sizes(plan),
        )

    def build_reduce(self, plan: Plan) -> nn.Module:
        return Narrow(plan.make_norm(plan.width), **self._sizes(plan))


CONNECTIONS: tuple[ConnectionFamily, ...] = (
    FracConnections("frac", "Frac-Connections (dynamic), 2503.14125"),
    FracConnections("frac_static", "Frac-Connections (static), 2503.14125", dynamic=False),
    VirtualWidth("vwn", "virtual width network, DGHC with 2 fractions, 2511.11238"),
    VirtualWidth("vwn_static", "virtual width network, GHC with 2 fractions", dynamic=False),
)
