"""Renaming the streams of a model: the same function with every parameter permuted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from .baselines.altup import AltUpSite
from .connection import Connection
from .ends import ExpandStreams, ReduceStreams
from .families.active_streams import ActiveStreamsSite
from .families.segments import SegmentSite
from .families.single_pass import SinglePassExpand
from .precision import FullPrecisionModule

_Model = TypeVar("_Model", bound=nn.Module)

_WITH_STREAMS = (
    Connection,
    ExpandStreams,
    ReduceStreams,
    AltUpSite,
    ActiveStreamsSite,
    SegmentSite,
)


@torch.no_grad()
def permute_streams(model: _Model, permutation: Sequence[int]) -> _Model:
    """Permute the streams of ``model`` in place and return it; its outputs stay as they were.

    Stream j becomes the former stream ``permutation[j]``: in the expansion, in every connection's
    controller, static logits, norm weight and designated stream, and in the reduction. Outputs
    change by the rounding of sums in another order.

    Raises ValueError, before anything is changed, where that is not possible: for something that is
    not a permutation of the model's streams, for models without streams, for mixers without a
    linear map of logits that permutes the streams, and for connections that treat the streams by
    position. The mixers are ``kronecker``, ``spectral`` and ``circulant``, whose matrices are not
    closed under permutations, ``transport``, whose matrices are, but not by a linear map of the
    logits, and a user's own without ``permute_logits``; the connections are ``altup``, ``xhc``, the
    single-pass and the segmented ones.
    """
    owners: list[nn.Module] = [m for m in model.modules() if isinstance(m, FullPrecisionModule)]
    if not any(isinstance(owner, _WITH_STREAMS) for owner in owners):
        raise ValueError("permute_streams: model: expected connections with streams, got none")
    # Reads stream 0 at first, whatever its parameters are.
    owners += [module for module in model.modules() if isinstance(module, SinglePassExpand)]
    for owner in owners:
        _check(owner, permutation)
    for owner in owners:
        if isinstance(owner, Connection):
            _permute_connection(owner, permutation)
        elif isinstance(owner, ExpandStreams):
            for values in (owner.scale, owner.bias):
                if values is not None:
                    values.copy_(values[list(permutation)])
        elif isinstance(owner, ReduceStreams) and owner.phi is not None:
            owner.phi.copy_(_permute_blocks(owner.phi, permutation)[list(permutation)])
            owner.bias.copy_(owner.bias[list(permutation)])
    return model


def _check(owner: nn.Module, permutation: Sequence[int]) -> None:
    if not isinstance(owner, Connection | ExpandStreams | ReduceStreams):
        raise ValueError(
            f"permute_streams: model: expected streams whose position does not matter, got "
            f"{type(owner).__name__}"
        )
    n = owner.n_streams
    if sorted(permutation) != list(range(n)):
        raise ValueError(
            f"permute_streams: permutation: expected one of 0..{n - 1}, got {list(permutation)}"
        )
    if isinstance(owner, Connection):
        mixer = owner.config.mixer
        if mixer.permute_logits(torch.zeros(mixer.logit_count(n)), permutation, n) is None:
            raise ValueError(
                f"permute_streams: connection {owner.config.name!r}: mixer {mixer.name!r} has no "
                "linear map of logits that permutes the streams"
            )


def _permute_blocks(values: Tensor, permutation: Sequence[int]) -> Tensor:
    """``[..., n C]``, stream by stream, in the new order."""
    return values.unflatten(-1, (len(permutation), -1))[..., list(permutation), :].flatten(-2)


def _permute_logits(connection: Connection, values: Tensor, permutation: Sequence[int]) -> Tensor:
    """``[..., K]`` in the new order: read, write and mixer logits."""
    n, config = connection.n_streams, connection.config
    order = list(permutation)
    sizes = [config.read_activation.logit_count(n), config.write_activation.logit_count(n)]
    read, write, mix = values.split([*sizes, config.mixer.logit_count(n)], dim=-1)
    # Where they are matrices: a row of streams for every read, a column for every write.
    read = read.unflatten(-1, (-1, n))[..., order].flatten(-2)
    write = write.unflatten(-1, (n, -1))[..., order, :].flatten(-2)
    permuted = config.mixer.permute_logits(mix, permutation, n)
    assert permuted is not None  # checked before
    return torch.cat([read, write, permuted], dim=-1)


def _permute_connection(connection: Connection, permutation: Sequence[int]) -> None:
    connection.bias.copy_(_permute_logits(connection, connection.bias, permutation))
    stream = int(connection.designated_stream)
    if stream >= 0:
        connection.designated_stream.fill_(list(permutation).index(stream))
    phi = connection.phi
    if phi is None:
        return
    if connection.config.norm == "per_stream":
        # One row for reading, one for writing, one for every destination.
        phi.copy_(phi[[0, 1, *(2 + i for i in permutation)]])
        return
    static = connection.bias.shape[0] - phi.shape[0]
    rows = torch.nn.functional.pad(_permute_blocks(phi, permutation), (0, 0, 0, static))
    phi.copy_(_permute_logits(connection, rows.T, permutation).T[: phi.shape[0]])
    if connection.norm_weight is not None:
        connection.norm_weight.copy_(_permute_blocks(connection.norm_weight, permutation))
