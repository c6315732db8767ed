"""Connections as data: registry, errors, a connection of one's own."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hyperstreams import nn as hnn
from hyperstreams.mixers import Permutation, Sinkhorn
from hyperstreams.nn import (
    CONNECTIONS,
    ConnectionConfig,
    find_connection,
    get_connection,
    register_connection,
)


def test_published_connections_are_there() -> None:
    assert set(CONNECTIONS) >= {"residual", "hc_static", "hc", "mhc", "mhc_lite", "identity"}
    for name, config in CONNECTIONS.items():
        assert config.name == name
        assert find_connection(name) is config
        assert find_connection(config) is config
        if isinstance(config, ConnectionConfig):
            assert get_connection(name) is config
            assert get_connection(config) is config
        else:
            with pytest.raises(ValueError, match=f"a mixer around streams, got '{name}'"):
                hnn.HyperConnection(connection=name, n_streams=2, width=4)


def test_frozen_coefficients() -> None:
    frozen = dataclasses.replace(get_connection("hc_static"), trainable=False)
    connection = hnn.Connection(connection=frozen, n_streams=2, width=4, site_index=0)
    assert not any(p.requires_grad for p in connection.parameters())


@pytest.mark.parametrize(
    ("wrong", "near"), [("mhc-lite", "mhc_lite"), ("hc_statc", "hc_static"), ("mHC", "mhc")]
)
def test_unknown_connection_names_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(ValueError, match=rf"connection: expected one of .*{near}.*got '{wrong}'"):
        get_connection(wrong)
    with pytest.raises(ValueError, match=f"did you mean '{near}'"):
        hnn.HyperConnection(connection=wrong, n_streams=2, width=4)


def test_own_connection_is_data_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hyperstreams.nn.registry.CONNECTIONS", dict(CONNECTIONS))
    short = dataclasses.replace(get_connection("mhc"), name="mhc_5", mixer=Sinkhorn(iterations=5))
    register_connection(short)
    site = hnn.HyperConnection(torch.nn.Identity(), connection="mhc_5", n_streams=3, width=8)
    assert site.connection.config.mixer == Sinkhorn(iterations=5)
    assert site(torch.randn(2, 3, 8)).shape == (2, 3, 8)
    register_connection(short)
    with pytest.raises(ValueError, match="expected an unused name, got 'mhc_5'"):
        register_connection(dataclasses.replace(short, alpha=1.0))
    register_connection(dataclasses.replace(short, alpha=1.0), replace=True)
    assert get_connection("mhc_5").alpha == 1.0


def test_impossible_combinations_are_refused() -> None:
    with pytest.raises(ValueError, match=r"n_streams must be in 1\.\.5, got 6"):
        hnn.Connection(connection="mhc_lite", n_streams=6, width=4)
    per_stream = ConnectionConfig(name="x", paper="-", mixer=Permutation(), norm="per_stream")
    with pytest.raises(ValueError, match="'per_stream' gives one mixer logit per entry"):
        hnn.Connection(connection=per_stream, n_streams=4, width=4)
    groups = dataclasses.replace(get_connection("hc"), alpha_groups=(0, 1))
    with pytest.raises(ValueError, match="alpha_groups: expected 3 indices"):
        hnn.Connection(connection=groups, n_streams=4, width=4)
    with pytest.raises(ValueError, match=r"norm: expected one of all, per_stream, none"):
        ConnectionConfig(name="x", paper="-", mixer=Permutation(), norm="layer")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"designate: expected one of .*got 'rand'"):
        ConnectionConfig(name="x", paper="-", mixer=Permutation(), designate="rand")
    with pytest.raises(ValueError, match="width: expected at least 1, got 0"):
        hnn.Connection(connection="hc", n_streams=4, width=0)
