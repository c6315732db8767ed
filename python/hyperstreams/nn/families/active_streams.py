"""xHC (2607.14530): many streams, of which every site updates a few."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ... import ops
from ...init import designated_stream as draw_designated_stream
from ...init import stream_bias
from ...mixers import Sinkhorn
from ..baselines.altup import Expand
from ..ends import ExpandStreams, ReduceStreams
from ..family import ConnectionFamily, Plan
from ..precision import FullPrecisionModule, Roles, full_precision


class ActiveStreamsSite(FullPrecisionModule):
    """Reads all n streams, mixes and writes the k active ones ``S [..., k, C]``.

    Active are streams 0..fixed-1 and the ``k - fixed`` others with the largest router weight
    ``r = sigmoid(route LayerNorm(vec X))``. With z the RMS-normalised streams:

    ``u = h_pre X``, ``h_pre = sigmoid(alpha_0 read_phi z(X) + b)``;
    ``S' = h_res S + (r h_post) F(u)``, ``h_post = 2 sigmoid(alpha_1 phi_post z(S) + b)``,
    ``h_res = clamp(Sinkhorn_20(alpha_2 phi_res z(S) + b))``, where clamp divides a destination
    whose sum is above 1 by it. The router weight (1 for fixed streams) multiplies the write alone.

    Parameters (float32 or float64): ``read_phi [n, n C]``, ``route [n, n C]``,
    ``phi [k + k k, k C]``, ``alpha [3]``, ``read_bias [n]``, ``bias [k + k k]``. Initial values
    that the paper does not give are mHC's; the router starts at 0. Among equal router weights, as
    then, lower indices come first.
    """

    roles: ClassVar[Roles] = {
        "read_phi": "controller",
        "route": "controller",
        "phi": "controller",
        "alpha": "scale",
    }

    designated_stream: Tensor

    def __init__(
        self,
        branch: nn.Module,
        *,
        n_streams: int,
        width: int,
        active: int,
        fixed: int,
        designate: str = "random",
        site_index: int | None = None,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.branch = branch
        self.n_streams = n_streams
        self.active = active
        self.fixed = fixed
        self.designate = designate
        self.site_index = site_index
        self.mixer = Sinkhorn()
        n, k = n_streams, active

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape, device=device, dtype=full_precision(dtype)))

        self.read_phi = parameter(n, n * width)
        self.route = parameter(n, n * width)
        self.phi = parameter(k + k * k, k * width)
        self.alpha = parameter(3)
        self.read_bias = parameter(n)
        self.bias = parameter(k + k * k)
        self.register_buffer("designated_stream", torch.empty(1, dtype=torch.int64, device=device))
        if not self.phi.is_meta:
            self.reset_parameters(generator=generator)

    @torch.no_grad()
    def reset_parameters(self, *, generator: torch.Generator | None = None) -> None:
        """mHC's initial values; the designated stream is one of the fixed ones where there are."""
        n, k = self.n_streams, self.active
        candidates = self.fixed or n
        stream = draw_designated_stream(
            self.designate, candidates, site_index=self.site_index, generator=generator
        )
        self.designated_stream.fill_(stream)
        for weight in (self.read_phi, self.route, self.phi):
            weight.zero_()
        self.alpha.fill_(0.01)
        self.read_bias.copy_(stream_bias(n, others=-1.0, designated=1.0, stream=stream))
        write = stream_bias(k, others=-1.0, designated=1.0, stream=stream if stream < k else -1)
        self.bias.copy_(torch.cat([write, self.mixer.initial_logits(k)]))

    def select(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Indices ``[..., k]`` of the active streams and their router weights, 1 for fixed ones."""
        flat = x.to(self.route.dtype).flatten(-2)
        normed = functional.layer_norm(flat, flat.shape[-1:])
        weight = torch.sigmoid(functional.linear(normed, self.route))
        # Not topk, which leaves open which of equal weights it takes.
        ordered = weight[..., self.fixed :].sort(dim=-1, descending=True, stable=True)
        routed, index = (part[..., : self.active - self.fixed] for part in ordered)
        fixed = torch.arange(self.fixed, device=x.device).expand(*index.shape[:-1], self.fixed)
        ones = weight.new_ones(fixed.shape)
        return torch.cat([fixed, index + self.fixed], -1), torch.cat([ones, routed], -1)

    def coefficients(self, active: Tensor) -> tuple[Tensor, Tensor]:
        """``h_post [..., k]`` and ``h_res [..., k, k]`` from the active streams."""
        k = self.active
        logits, inv_rms = ops.project(active, self.phi)
        z = logits * inv_rms.unsqueeze(-1)
        write = self.alpha[1] * z[..., :k] + self.bias[:k]
        h_res = self.mixer.map(self.alpha[2] * z[..., k:] + self.bias[k:], k)
        h_res = h_res / h_res.sum(-1, keepdim=True).clamp(min=1.0)
        return 2.0 * torch.sigmoid(write), h_res

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """``[..., n, C] -> [..., n, C]``; further arguments go to the branch."""
        logits, inv_rms = ops.project(x, self.read_phi)
        z = self.alpha[0] * logits * inv_rms.unsqueeze(-1) + self.read_bias
        u = ops.read(x, torch.sigmoid(z))
        index, router = self.select(x)
        where = index.unsqueeze(-1).expand(*index.shape, x.shape[-1])
        active = x.gather(-2, where)
        h_post, h_res = self.coefficients(active)
        y = self.branch(u, *args, **kwargs)
        return x.scatter(-2, where, ops.mix_write(active, y, h_res, router * h_post))

    def extra_repr(self) -> str:
        return f"n_streams={self.n_streams}, active={self.active}, fixed={self.fixed}"


@dataclass(frozen=True)
class ActiveStreams(ConnectionFamily):
    """xHC's sparse update: ``active`` of ``n_streams`` streams, ``fixed`` of them always.

    Without the paper's temporal write components (causal depth-wise convolutions of the branch
    output after MLPs, orthogonalised): they look at earlier tokens, which a state per token, and
    cached generation with it, does not have. Published with 16 streams, 4 active, 2 fixed.
    """

    fused_ops = ("project", "read", "mix_write")
    uses = frozenset({"expand", "reduce", "designate"})

    active: int = 4
    fixed: int = 2

    def check(self, *, width: int, n_sites: int, n_streams: int) -> None:
        super().check(width=width, n_sites=n_sites, n_streams=n_streams)
        if not 0 <= self.fixed <= self.active <= n_streams <= 16:
            raise ValueError(
                f"connection {self.name!r}: n_streams: expected {self.active} (the active ones) to "
                f"16, got {n_streams}"
            )

    def operations(self, *, width: int, kv_width: int, n_sites: int, n_streams: int) -> int:
        n, k = n_streams, self.active
        read = 2 * n * n + n + n  # logits and router, the norm's sum of squares, the read
        write = (k + k * k) * k + k + k * k + k
        return n_sites * 2 * (read + write) * width

    def build_expand(self, plan: Plan) -> nn.Module:
        options = {**plan.expand, **plan.factory, "generator": plan.generator}
        return Expand(ExpandStreams(n_streams=plan.n_streams, width=plan.width, **options))

    def streams_of(self, state: Tensor) -> Tensor:
        """All streams, active or not."""
        return state

    def build_site(self, branch: nn.Module, site_index: int, plan: Plan) -> nn.Module:
        return ActiveStreamsSite(
            branch,
            n_streams=plan.n_streams,
            width=plan.width,
            active=self.active,
            fixed=self.fixed,
            designate="random" if plan.designate == "default" else plan.designate,
            site_index=site_index,
            generator=plan.generator,
            **plan.factory,
        )

    def build_reduce(self, plan: Plan) -> nn.Module:
        options = {**plan.reduce, **plan.factory, "norm": plan.make_norm(plan.width)}
        return ReduceStreams(n_streams=plan.n_streams, width=plan.width, **options)


CONNECTIONS = (ActiveStreams("xhc", "xHC's active streams, 2607.14530; no temporal components"),)
