"""Renaming the streams leaves the function of a model as it is, or is refused in words."""

from __future__ import annotations

import copy
from itertools import permutations

import hyperstreams as hs
import pytest
import torch
from connection_cases import depth
from hyperstreams import GPT, GPTConfig
from hyperstreams import nn as hnn
from hyperstreams.mixers import MIXERS, get_mixer
from torch import Tensor

N = 4
ORDER = (2, 0, 3, 1)
OPEN_MIXERS = {"kronecker", "spectral", "circulant", "transport"}
MIXING = {n: c for n, c in hnn.CONNECTIONS.items() if isinstance(c, hnn.ConnectionConfig)}
CLOSED = [name for name, config in MIXING.items() if config.mixer.name not in OPEN_MIXERS]
NOT_CLOSED = [name for name, config in MIXING.items() if config.mixer.name in OPEN_MIXERS]


def scrambled(connection: str, **overrides: object) -> GPT:
    sizes = {
        "n_layer": depth(connection, 2),
        "n_head": 2,
        "width": 12,
        "block_size": 8,
        "vocab_size": 16,
    }
    config = GPTConfig(**{**sizes, "connection": connection, **overrides})  # type: ignore[arg-type]
    model = GPT(config, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.3 * noise)
    return model


@pytest.fixture
def tokens() -> Tensor:
    return torch.randint(16, (2, 8), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("connection", CLOSED)
def test_logits_are_unchanged(connection: str, tokens: Tensor) -> None:
    model = scrambled(connection, expand="learned_scale", reduce="weighted")
    before = copy.deepcopy(model.state_dict())
    expected, _, stats = model(tokens, collect_stats=True)
    assert hs.permute_streams(model, ORDER) is model
    logits, _, moved = model(tokens, collect_stats=True)
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)
    fields = [hs.ops.unpack_stream_stats(s, N) for s in (stats, moved)]
    order = list(ORDER)
    torch.testing.assert_close(fields[1]["h_pre"], fields[0]["h_pre"][:, order])
    torch.testing.assert_close(fields[1]["h_post"], fields[0]["h_post"][:, order])
    torch.testing.assert_close(fields[1]["h_res"], fields[0]["h_res"][:, order][:, :, order])
    inverse = [ORDER.index(i) for i in range(N)]
    hs.permute_streams(model, inverse)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_designated_streams_move() -> None:
    """Stream 3 is where the former stream 1 is now."""
    model = hs.permute_streams(scrambled("mhc", designate="round_robin"), ORDER)
    now = [int(site.connection.designated_stream) for site in model.sites.values()]
    assert now == [ORDER.index(k) for k in range(4)]
    none = hs.permute_streams(scrambled("mhc", designate="none"), ORDER)
    assert {int(site.connection.designated_stream) for site in none.sites.values()} == {-1}


@pytest.mark.parametrize("expand", ["embedding", "noise"])
def test_expansions_move(expand: str, tokens: Tensor) -> None:
    model = scrambled("hc", expand=expand, expand_noise=0.5)
    expected = model(tokens)[0]
    torch.testing.assert_close(hs.permute_streams(model, ORDER)(tokens)[0], expected)


@pytest.mark.parametrize("name", [name for name in MIXERS if name not in OPEN_MIXERS])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_maps_follow_their_logits(name: str, n: int) -> None:
    mixer = get_mixer(name)
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(5, mixer.logit_count(n), generator=generator, dtype=torch.float64)
    for order in permutations(range(n)):
        permuted = mixer.permute_logits(logits, order, n)
        assert permuted is not None
        actual, expected = mixer.map(permuted, n), mixer.map(logits, n)
        if expected is not None:
            torch.testing.assert_close(actual, expected[:, list(order)][:, :, list(order)])


def test_the_exceptions_are_these() -> None:
    own = {name for name, mixer in MIXERS.items() if mixer.__module__.startswith("hyperstreams.")}
    refused = {
        name
        for name in own
        if get_mixer(name).permute_logits(torch.zeros(get_mixer(name).logit_count(2)), (1, 0), 2)
        is None
    }
    assert refused == OPEN_MIXERS
    assert {"kromhc", "shc"} <= set(NOT_CLOSED)


@pytest.mark.parametrize("connection", NOT_CLOSED)
def test_refused_before_anything_is_changed(connection: str, tokens: Tensor) -> None:
    model = scrambled(connection, expand="learned_scale")
    expected = model(tokens)[0]
    with pytest.raises(
        ValueError, match=f"connection '{connection}': mixer .* no linear map of logits"
    ):
        hs.permute_streams(model, ORDER)
    assert torch.equal(model(tokens)[0], expected)


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"permutation: expected one of 0\.\.3, got \[0, 1, 2\]"):
        hs.permute_streams(scrambled("hc"), (0, 1, 2))
    with pytest.raises(ValueError, match=r"expected one of 0\.\.3, got \[0, 1, 2, 2\]"):
        hs.permute_streams(scrambled("hc"), (0, 1, 2, 2))
    with pytest.raises(ValueError, match="expected connections with streams, got none"):
        hs.permute_streams(scrambled("residual"), ORDER)


@pytest.mark.parametrize(
    "connection",
    [n for n, c in hnn.CONNECTIONS.items() if isinstance(c, hnn.ConnectionFamily)],
)
def test_families_are_refused(connection: str) -> None:
    """Those without streams, and those that count theirs: AltUp, xHC, single pass, segments."""
    counted = {"altup", "xhc", "deepseek_v4_single_pass", "frac", "frac_static"}
    message = "expected connections with streams, got none"
    if connection in counted | {"vwn", "vwn_static"}:
        message = "expected streams whose position does not matter, got [A-Z]"
    with pytest.raises(ValueError, match=message):
        hs.permute_streams(scrambled(connection), ORDER)
