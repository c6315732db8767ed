"""Other packages' sites, called as their own models call them.

Each peer starts a site (``read``) and finishes one (``write``) in its own layout; ``pending`` is
what it keeps in between. Nothing is imported before it is asked for.
"""

from __future__ import annotations

import importlib
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from .case import Absent
from .problem import Problem


@dataclass(frozen=True, kw_only=True)
class SiteSpec:
    """One site: its connection here, T tokens of n streams of C channels, dtype and device."""

    connection: str
    tokens: int
    width: int
    dtype: torch.dtype
    device: torch.device
    n_streams: int = 4


class Peer(ABC):
    """One site of another package."""

    connections: tuple[str, ...]
    """The connections here that it is compared with: the same work, not the same numbers."""
    parameters: tuple[Tensor, ...]

    @abstractmethod
    def __init__(self, spec: SiteSpec) -> None: ...

    @abstractmethod
    def streams(self, x: Tensor) -> Tensor:
        """``x [T, n, C]`` in the peer's layout."""

    @abstractmethod
    def read(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The branch input and what is pending."""

    @abstractmethod
    def write(self, y: Tensor, pending: tuple[Tensor, ...]) -> Tensor:
        """The next streams from the branch output."""


def imported(name: str, package: str) -> ModuleType:
    """The module, or :class:`Absent` with what to install."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what other packages say when imported
        try:
            return importlib.import_module(name)
        except ImportError as error:
            raise Absent(f"{package} is not installed ({error}): pip install {package}") from error


def leaves_of(module: torch.nn.Module) -> tuple[Tensor, ...]:
    """The parameters, matrices drawn anew: as they start, products with zeros would be timed."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim > 1 and "static" not in name:
                value = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(0.02 * value)
    return tuple(module.parameters())


class Transformers(Peer):
    """``DeepseekV4HyperConnection`` and the write of its decoder layer."""

    connections = ("mhc",)

    def __init__(self, spec: SiteSpec) -> None:
        folder = "transformers.models.deepseek_v4"
        modeling = imported(f"{folder}.modeling_deepseek_v4", "transformers")
        config = imported(f"{folder}.configuration_deepseek_v4", "transformers").DeepseekV4Config()
        config.hc_mult, config.hidden_size = spec.n_streams, spec.width
        self.site: Any = modeling.DeepseekV4HyperConnection(config)
        with torch.no_grad():
            self.site.base.zero_()
            self.site.scale.fill_(1.0)
        self.site.to(spec.device)
        self.parameters = leaves_of(self.site)

    def streams(self, x: Tensor) -> Tensor:
        return x.unsqueeze(0)

    def read(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        post, comb, u = self.site(x)
        return u, (x, post, comb)

    def write(self, y: Tensor, pending: tuple[Tensor, ...]) -> Tensor:
        x, post, comb = pending
        mixed = torch.matmul(comb.to(x.dtype).transpose(-1, -2), x)
        return post.to(x.dtype).unsqueeze(-1) * y.unsqueeze(-2) + mixed


class Lucidrains(Peer):
    """``hyper-connections``: streams in the batch axis, mixed when they are read."""

    connections = ("hc", "mhc")

    def __init__(self, spec: SiteSpec) -> None:
        package: Any = imported("hyper_connections", "hyper-connections")
        kind = package.HyperConnections if spec.connection == "hc" else package.mHC
        # Their weights are in the dtype of their streams.
        self.site: Any = kind(spec.n_streams, dim=spec.width, layer_index=0)
        self.site.to(spec.device, spec.dtype)
        self.parameters = leaves_of(self.site)

    def streams(self, x: Tensor) -> Tensor:
        return x.transpose(0, 1).contiguous()

    def read(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        u, mixed, rest = self.site.width_connection(x)
        return u, (mixed, rest["beta"])

    def write(self, y: Tensor, pending: tuple[Tensor, ...]) -> Tensor:
        mixed, beta = pending
        return self.site.depth_connection(y, mixed, beta=beta)


class Liger(Peer):
    """Liger-Kernel's three Triton functions; CUDA only."""

    connections = ("mhc",)

    def __init__(self, spec: SiteSpec) -> None:
        if spec.device.type != "cuda":
            raise Absent(f"liger-kernel runs on CUDA alone, and this is {spec.device.type}")
        self.functions: Any = imported("liger_kernel.transformers.functional", "liger-kernel")
        n = spec.n_streams
        logits = n * n + 2 * n
        generator = torch.Generator().manual_seed(2)
        phi = 0.02 * torch.randn(n * spec.width, logits, generator=generator)
        self.is_float32 = spec.dtype == torch.float32
        self.parameters = (
            phi.to(spec.device, spec.dtype),
            torch.zeros(logits, device=spec.device),
            *(torch.ones((), device=spec.device) for _ in range(3)),
        )

    def streams(self, x: Tensor) -> Tensor:
        return x

    def read(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        h_pre, h_post, h_res = self.functions.liger_mhc_coeffs(
            x, *self.parameters, allow_fp32=self.is_float32
        )
        return self.functions.liger_mhc_pre(x, h_pre), (x, h_post, h_res)

    def write(self, y: Tensor, pending: tuple[Tensor, ...]) -> Tensor:
        x, h_post, h_res = pending
        return self.functions.liger_mhc_post_res(x, y, h_post, h_res)


class TransformerEngine(Peer):
    """TransformerEngine's Triton functions, streams last and n = 4; CUDA only.

    Split-K, its quicker and not deterministic projection, unless its environment variable
    ``NVTE_ALLOW_NONDETERMINISTIC_ALGO=0`` forbids that.
    """

    connections = ("mhc",)

    def __init__(self, spec: SiteSpec) -> None:
        if spec.device.type != "cuda":
            raise Absent(f"transformer-engine runs on CUDA alone, and this is {spec.device.type}")
        module = "transformer_engine.pytorch.triton.mhc"
        self.functions: Any = imported(module, "transformer-engine[pytorch]")
        self.n = n = spec.n_streams
        if n != 4:
            raise Absent(f"transformer-engine has 4 streams alone, and this is {n}")
        self.splits = os.environ.get("NVTE_ALLOW_NONDETERMINISTIC_ALGO", "1") != "0"
        logits = n * n + 2 * n
        generator = torch.Generator().manual_seed(2)
        phi = 0.02 * torch.randn(logits, n * spec.width, generator=generator)
        self.parameters = (
            phi.to(spec.device),
            torch.ones(3, device=spec.device),
            torch.zeros(1, logits, device=spec.device),
        )

    def streams(self, x: Tensor) -> Tensor:
        return x.unsqueeze(1).transpose(2, 3).contiguous()

    def read(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        u, h_post, h_res = self.functions.mhc_generate_mix_and_aggregate(
            x, *self.parameters, use_split_k=self.splits
        )
        return u, (x, h_post, h_res)

    def write(self, y: Tensor, pending: tuple[Tensor, ...]) -> Tensor:
        x, h_post, h_res = pending
        return self.functions.mhc_fused_expand_combine(y, None, h_post, x, h_res, self.n)


PEERS: dict[str, type[Peer]] = {
    "transformers": Transformers,
    "lucidrains": Lucidrains,
    "liger": Liger,
    "transformer engine": TransformerEngine,
}
PACKAGES = {
    "transformers": "transformers",
    "lucidrains": "hyper-connections",
    "liger": "liger-kernel",
    "transformer engine": "transformer-engine",
}
"""Names of the distributions."""


def sublayer(peer: Peer, x: Tensor, y: Tensor) -> Problem:
    """Read, and write the branch output y."""

    def function(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        u, pending = peer.read(x)
        return peer.write(y, pending), u

    x, y = x.detach(), y.detach()
    return Problem(function, (peer.streams(x).clone(), _branch(peer, x, y)), peer.parameters)


def boundary(peer: Peer, x: Tensor, y: Tensor) -> Problem:
    """Finish the write of one site, and start the next."""
    x, y = x.detach(), y.detach()
    with torch.no_grad():
        _, before = peer.read(peer.streams(x))
    before = tuple(part.detach().clone() for part in before)

    def function(y: Tensor, *pending: Tensor) -> tuple[Tensor, ...]:
        u, after = peer.read(peer.write(y, pending))
        return u, *after

    return Problem(function, (_branch(peer, x, y), *before), peer.parameters)


def _branch(peer: Peer, x: Tensor, y: Tensor) -> Tensor:
    """y with the batch axis that the peer's streams have."""
    with torch.no_grad():
        u, _ = peer.read(peer.streams(x))
    return y.reshape(u.shape).clone()


def problems(
    spec: SiteSpec, x: Tensor, y: Tensor, build: Callable[[Peer, Tensor, Tensor], Problem]
) -> dict[str, Callable[[], Problem]]:
    """What makes each peer's problem for one of our sites."""
    return {
        name: partial(_problem, peer, spec, x, y, build)
        for name, peer in PEERS.items()
        if spec.connection in peer.connections
    }


def _problem(
    peer: type[Peer],
    spec: SiteSpec,
    x: Tensor,
    y: Tensor,
    build: Callable[[Peer, Tensor, Tensor], Problem],
) -> Problem:
    return build(peer(spec), x, y)
