"""The call shapes of lucidrains' hyper-connections, on the modules of this package.

There streams are part of the batch axis, ``[b n, ..., C]``; here that is so at this border alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from .. import ops
from ..nn import Connection, ConnectionConfig, ExpandStreams, get_connection

Functions = tuple[Callable[..., nn.Module], nn.Module, nn.Module]


def to_streams(x: Tensor, n: int) -> Tensor:
    """``[b n, ..., C]`` to ``[b, ..., n, C]``."""
    if x.ndim < 2 or x.shape[0] % n:
        raise ValueError(
            f"hyper-connections: residuals: expected shape [b * {n}, ..., C], got {list(x.shape)}"
        )
    return x.unflatten(0, (-1, n)).movedim(1, -2)


def from_streams(x: Tensor) -> Tensor:
    """``[b, ..., n, C]`` to ``[b n, ..., C]``."""
    return x.movedim(-2, 1).flatten(0, 1)


def _on_first(output: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """``output`` with its first tensor replaced: a branch may return more than its output."""
    (first, *rest), structure = tree_flatten(output)
    return tree_unflatten([function(first), *rest], structure)


class _Site(nn.Module, ABC):
    """What both kinds of sites share: a branch inside, passed at the call, or decorated."""

    def __init__(self, branch: Callable[..., Any] | None) -> None:
        super().__init__()
        self.branch = branch

    @abstractmethod
    def _read(self, residuals: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The branch input, and what makes new residuals of the branch output."""

    def forward(self, residuals: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The new residuals; without a branch ``(branch input, add_residual)``."""
        u, write = self._read(residuals)

        def add_residual(output: Any) -> Any:
            return _on_first(output, write)

        if self.branch is None:
            return u, add_residual
        return add_residual(self.branch(u, *args, **kwargs))

    def decorate_branch(self, branch: Callable[..., Any]) -> Callable[..., Any]:
        """``branch`` with this connection around it."""
        if self.branch is not None:
            raise ValueError("decorate_branch: expected a site without a branch, it has one")

        def decorated(residuals: Tensor, *args: Any, **kwargs: Any) -> Any:
            u, add_residual = self(residuals)
            return add_residual(branch(u, *args, **kwargs))

        return decorated


class PlainResidual(_Site):
    """``x + branch(x)``, the site of ``disable=True``."""

    def _read(self, residuals: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        return residuals, lambda y: residuals + y


class BatchStreamsSite(_Site):
    """A :class:`nn.Connection` around a branch, on residuals ``[b n, ..., C]``."""

    def __init__(
        self,
        *,
        connection: ConnectionConfig,
        num_streams: int,
        dim: int,
        branch: Callable[..., Any] | None = None,
        layer_index: int | None = None,
    ) -> None:
        super().__init__(branch)
        self.connection = Connection(
            connection=connection,
            n_streams=num_streams,
            width=dim,
            site_index=layer_index,
            designate="random" if layer_index is None else "round_robin",
        )

    def _read(self, residuals: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        x, u, _, h_post, h_res = self.connection(to_streams(residuals, self.connection.n_streams))
        return u, lambda y: from_streams(ops.mix_write(x, y, h_res, h_post))


class _Expand(nn.Module):
    """``[b, ..., C]`` to ``[b n, ..., C]``: copies, plus a learned embedding of the stream."""

    def __init__(self, num_streams: int, dim: int | None) -> None:
        super().__init__()
        self.num_streams = num_streams
        self.embed = None
        if dim is not None:
            self.embed = ExpandStreams(n_streams=num_streams, width=dim, scheme="embedding")

    def forward(self, x: Tensor) -> Tensor:
        streams = ops.expand(x, self.num_streams) if self.embed is None else self.embed(x).x
        return from_streams(streams)


class _Reduce(nn.Module):
    """``[b n, ..., C]`` to ``[b, ..., C]``: the sum of the streams."""

    def __init__(self, num_streams: int) -> None:
        super().__init__()
        self.num_streams = num_streams

    def forward(self, x: Tensor) -> Tensor:
        return ops.reduce(to_streams(x, self.num_streams))


_OWNER = "get_init_and_expand_reduce_stream_functions"


def _initialiser(
    connection: ConnectionConfig | None, num_streams: int, width: int | None
) -> Callable[..., nn.Module]:
    """``init_hyper_conn``; without a ``connection`` it makes plain residuals."""

    def init_hyper_conn(
        *,
        dim: int | None = width,
        branch: Callable[..., Any] | None = None,
        layer_index: int | None = None,
        **unsupported: Any,
    ) -> nn.Module:
        if unsupported:
            raise TypeError(
                f"init_hyper_conn: {', '.join(unsupported)}: expected dim, branch and layer_index "
                "alone; what else hyper-connections takes is not there"
            )
        if connection is None:
            return PlainResidual(branch)
        if dim is None:
            raise TypeError(
                f"init_hyper_conn: dim: expected the width, here or as {_OWNER}(..., dim=), "
                "got none"
            )
        return BatchStreamsSite(
            connection=connection,
            num_streams=num_streams,
            dim=dim,
            branch=branch,
            layer_index=layer_index,
        )

    return init_hyper_conn


def _configured(
    connection: str | ConnectionConfig, tanh: bool | None, sinkhorn_iters: int | None
) -> ConnectionConfig:
    config = get_connection(connection)
    if tanh is not None:
        parts = ("read_activation", "write_activation", "mix_activation")
        kinds = {part: getattr(config, part) for part in parts}
        linear: dict[str, Any] = {
            part: replace(kind, kind="none") for part, kind in kinds.items() if kind.kind == "tanh"
        }
        if not linear:
            raise ValueError(
                f"{_OWNER}: tanh: expected None with connection {config.name!r}, which has no tanh "
                f"activation, got {tanh}"
            )
        config = config if tanh else replace(config, **linear)
    if sinkhorn_iters is not None:
        if not hasattr(config.mixer, "iterations"):
            raise ValueError(
                f"{_OWNER}: sinkhorn_iters: expected None with connection {config.name!r}, whose "
                f"mixer {config.mixer.name!r} has no rounds, got {sinkhorn_iters}"
            )
        mixer: Any = config.mixer
        config = replace(config, mixer=replace(mixer, iterations=sinkhorn_iters))
    return config


def get_init_and_expand_reduce_stream_functions(
    num_streams: int,
    num_fracs: int = 1,
    dim: int | None = None,
    add_stream_embed: bool = False,
    disable: bool | None = None,
    *,
    connection: str | ConnectionConfig = "lucidrains_hc",
    tanh: bool | None = None,
    sinkhorn_iters: int | None = None,
) -> Functions:
    """``(init_hyper_conn, expand_streams, reduce_streams)`` as hyper-connections has them::

        init, expand, reduce = get_init_and_expand_reduce_stream_functions(4)
        site = init(dim=512, branch=branch, layer_index=0)
        x = reduce(site(expand(x)))

    ``init_hyper_conn(dim=, branch=None, layer_index=None)`` makes a site on ``[b n, ..., C]``;
    without a branch its call returns ``(branch input, add_residual)``, and ``decorate_branch`` puts
    it around one. A branch may return a tuple or dict, of which the first tensor is its output.
    Without ``layer_index`` the stream that the site favours is drawn at random.

    disable : plain residuals and identities; None: with one stream.
    add_stream_embed : the expansion adds a learned embedding of each stream; it needs ``dim``.
    connection : any connection of this package. tanh : False leaves that activation out; only for
        a connection that has it. sinkhorn_iters : rounds of a Sinkhorn connection.

    Fractions, several input views, channels before positions, dropout and residual transforms are
    not there: ``init_hyper_conn`` raises TypeError for them, with ``disable=True`` too.
    """
    if num_fracs != 1:
        raise ValueError(f"{_OWNER}: num_fracs: expected 1, got {num_fracs}")
    config = _configured(connection, tanh, sinkhorn_iters)
    if num_streams == 1 if disable is None else disable:
        return _initialiser(None, num_streams, dim), nn.Identity(), nn.Identity()
    if add_stream_embed and dim is None:
        raise ValueError(f"{_OWNER}: dim: expected the width with add_stream_embed=True, got None")
    embed = dim if add_stream_embed else None
    return (
        _initialiser(config, num_streams, dim),
        _Expand(num_streams, embed),
        _Reduce(num_streams),
    )


mc_get_init_and_expand_reduce_stream_functions = partial(
    get_init_and_expand_reduce_stream_functions, connection="lucidrains_mhc"
)
"""The same for the package's ManifoldConstrainedHyperConnections."""
