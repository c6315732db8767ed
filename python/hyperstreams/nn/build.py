"""Expansion, sites and reduction of a model, built the same way for every connection."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .config import ConnectionConfig
from .connection import HyperConnection
from .ends import ExpandStreams, ReduceStreams
from .family import OPTIONS, ConnectionFamily, Plan
from .registry import find_connection
from .start import started
from .streams import Streams

AnyConnection = str | ConnectionConfig | ConnectionFamily


def build_expand(connection: AnyConnection, plan: Plan) -> nn.Module:
    """The module from hidden states ``[..., C]`` to the state before the first site."""
    config = find_connection(connection)
    if isinstance(config, ConnectionFamily):
        return config.build_expand(plan)
    return ExpandStreams(
        n_streams=plan.n_streams,
        width=plan.width,
        generator=plan.generator,
        **{**plan.expand, **plan.factory},
    )


def build_site(
    connection: AnyConnection, branch: nn.Module, *, site_index: int, plan: Plan
) -> nn.Module:
    """The module from state to state around ``branch``, at position ``site_index`` of all sites.

    It passes further arguments on to the branch. :func:`branch_norm` says whether the branch is to
    normalise its input itself.
    """
    config = find_connection(connection)
    if isinstance(config, ConnectionFamily):
        for name, value, default in (
            ("start", plan.start, "published"),
            ("phi_std", plan.phi_std, None),
        ):
            if value != default and name not in config.uses:
                raise ValueError(
                    f"connection {config.name!r}: {name}: expected {default!r}, as this connection "
                    f"does not use it, got {value!r}"
                )
        return config.build_site(branch, site_index, plan)
    return HyperConnection(
        branch,
        connection=started(config, plan),
        n_streams=plan.n_streams,
        width=plan.width,
        site_index=site_index,
        designate=plan.designate,
        generator=plan.generator,
        **plan.factory,
    )


def build_reduce(connection: AnyConnection, plan: Plan) -> nn.Module:
    """The module from the last state to normalised hidden states ``[..., C]``."""
    config = find_connection(connection)
    if isinstance(config, ConnectionFamily):
        return config.build_reduce(plan)
    return ReduceStreams(
        n_streams=plan.n_streams,
        width=plan.width,
        norm=plan.make_norm(plan.width),
        **{**plan.reduce, **plan.factory},
    )


def check_connection(
    connection: AnyConnection, *, width: int, n_sites: int, n_streams: int
) -> None:
    """Raise ValueError when the connection does not exist for these sizes."""
    config = find_connection(connection)
    if isinstance(config, ConnectionFamily):
        config.check(width=width, n_sites=n_sites, n_streams=n_streams)
    else:
        config.check(n_streams)


def connection_uses(connection: AnyConnection) -> frozenset[str]:
    """The fields of :class:`Plan`, of ``family.OPTIONS``, that change this connection.

    Connections without streams, and those whose streams are the branch's own channels, have no
    expansion and reduction of :class:`ExpandStreams` and :class:`ReduceStreams` to set.
    """
    config = find_connection(connection)
    return config.uses if isinstance(config, ConnectionFamily) else OPTIONS


def branch_norm(connection: AnyConnection) -> bool:
    """Whether branches are to normalise their input themselves (Pre-Norm)."""
    config = find_connection(connection)
    return not isinstance(config, ConnectionFamily) or config.branch_norm


def branch_projects(connection: AnyConnection) -> bool:
    """Whether attention branches project hidden states to queries, keys, values and back."""
    config = find_connection(connection)
    return not isinstance(config, ConnectionFamily) or config.branch_projects


def branch_gain(connection: AnyConnection, plan: Plan) -> float | None:
    """The gain of the branches' Xavier-normal initial weights; None: the model's own start."""
    config = find_connection(connection)
    return config.branch_gain(plan) if isinstance(config, ConnectionFamily) else None


def streams_of(connection: AnyConnection, state: Any) -> Tensor | None:
    """The streams ``[..., n, C]`` in a state between sites; None where the connection has none."""
    if isinstance(state, Streams):
        return state.tensor
    config = find_connection(connection)
    return config.streams_of(state) if isinstance(config, ConnectionFamily) else None


def holds_streams(connection: AnyConnection) -> bool:
    """Whether :func:`streams_of` finds streams in states that are no :class:`Streams`."""
    config = find_connection(connection)
    own = ConnectionFamily.streams_of
    return isinstance(config, ConnectionFamily) and type(config).streams_of is not own


def has_streams(connection: AnyConnection) -> bool:
    """Whether the states are :class:`Streams`, of which statistics can be collected."""
    config = find_connection(connection)
    return not isinstance(config, ConnectionFamily) or config.has_streams
