"""Model configuration: published sizes and worded errors."""

from __future__ import annotations

import pytest
import torch
from connection_cases import depth, used
from hyperstreams import GPT, GPTConfig
from hyperstreams import nn as hnn


@pytest.mark.parametrize(
    ("name", "sizes", "parameters"),
    [
        ("tiny", (4, 4, 96, 128, 256), 480_096),
        ("small", (6, 8, 512, 1024, 50304), 45_160_960),
        ("medium", (12, 12, 768, 1024, 50304), 124_373_760),
        ("large", (24, 16, 1024, 1024, 50304), 354_599_936),
    ],
)
def test_presets(name: str, sizes: tuple[int, ...], parameters: int) -> None:
    config = GPTConfig.preset(name, connection="residual")
    fields = (config.n_layer, config.n_head, config.width, config.block_size, config.vocab_size)
    assert fields == sizes
    # Without biases: 12 C^2 + 2 C a block, embeddings and the final norm.
    n_layer, _, width, block_size, vocabulary = sizes
    expected = n_layer * (12 * width**2 + 2 * width) + (vocabulary + block_size + 1) * width
    assert expected == parameters
    assert sum(p.numel() for p in GPT(config, device="meta").parameters()) == parameters


def test_overrides() -> None:
    config = GPTConfig.preset("tiny", connection="hc", n_streams=2, width=48)
    assert (config.connection, config.n_streams, config.width, config.n_layer) == ("hc", 2, 48, 4)
    assert config.has_streams
    assert not GPTConfig(connection="residual").has_streams


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"connection": "mhc_light"}, r"connection: expected one of .*did you mean 'mhc_lite'"),
        ({"expand": "lss"}, r"expand: expected one of replicate, learned_scale"),
        ({"reduce": "add"}, r"reduce: expected one of sum, mean, weighted, published, got 'add'"),
        ({"final_norm": "after-reduce"}, r"final_norm: .*did you mean 'after_reduce'"),
        ({"designate": "round-robin"}, r"designate: .*did you mean 'round_robin'"),
        ({"n_layer": 0}, r"n_layer: expected at least 1, got 0"),
        ({"width": 95}, r"width: expected a multiple of n_head=4, got 95"),
        ({"norm": "layernorm"}, r"norm: expected one of .*did you mean 'layer'"),
        ({"position": "rotary"}, r"position: expected one of learned, rope, got 'rotary'"),
        ({"mlp": "swigl"}, r"mlp: .*did you mean 'swiglu'"),
        ({"n_kv_head": 3}, r"n_kv_head: expected a divisor of n_head=4, got 3"),
        ({"mlp_width": 0}, r"mlp_width: expected at least 1, got 0"),
        ({"experts_per_token": 9}, r"experts_per_token: expected at most n_experts=8, got 9"),
        ({"position": "rope", "width": 12}, r"'rope' expects an even head width, got .* = 3"),
        ({"dropout": 1.0}, r"dropout: expected a value in \[0, 1\), got 1.0"),
        ({"n_streams": 8}, r"n_streams must be in 1..5, got 8"),
    ],
)
def test_errors(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GPTConfig(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("connection", "options"),
    [
        ("residual", {"expand": "learned_scale"}),
        ("residual", {"designate": "fixed"}),
        ("denseformer", {"expand": "noise"}),
        ("frac", {"expand": "learned_scale"}),
        ("vwn", {"expand": "orthogonal"}),
        ("vwn", {"reduce": "weighted"}),
        ("rezero", {"expand_base": 0.5}),
        ("deepseek_v4_single_pass", {"reduce": "mean"}),
        ("altup", {"designate": "fixed"}),
        ("xhc", {"start": "residual"}),
        ("xhc", {"controller_std": 0.02}),
    ],
)
def test_options_without_effect_are_refused(connection: str, options: dict[str, object]) -> None:
    (name,) = options
    message = f"{name}: expected .* with connection '{connection}', which does not use it, got"
    with pytest.raises(ValueError, match=message):
        GPTConfig(connection=connection, **options)  # type: ignore[arg-type]
    default = {name: getattr(GPTConfig(), name)}
    assert GPTConfig(connection=connection, **default) == GPTConfig(connection=connection)


@pytest.mark.parametrize("connection", list(hnn.CONNECTIONS))
def test_options_that_are_used_have_an_effect(connection: str) -> None:
    """A connection states what it uses: its modules differ, or hold a designated stream."""
    sizes = {"n_layer": depth(connection, 1), "width": 16, "connection": connection}

    def built(**options: object) -> GPT:
        config = GPTConfig(**{**sizes, **options})  # type: ignore[arg-type]
        return GPT(config, generator=torch.Generator().manual_seed(0))

    plain = built().state_dict()
    for option in used(connection, expand="learned_scale", reduce="weighted"):
        changed = built(**{option: {"expand": "learned_scale", "reduce": "weighted"}[option]})
        assert set(changed.state_dict()) - set(plain), option
    designates = any(name.endswith("designated_stream") for name in plain)
    assert ("designate" in hnn.connection_uses(connection)) == designates


@pytest.mark.parametrize(
    ("connection", "n_layer", "message"),
    [
        ("denseformer_4x5", 4, "expected at least period=5 blocks of two sites, .* got 8 sites"),
        ("attention_residual_block", 4, "n_sites: expected more than blocks=8, .* got 8"),
    ],
)
def test_depths_without_effect_are_refused(connection: str, n_layer: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GPTConfig(connection=connection, n_layer=n_layer)
    assert GPTConfig(connection=connection, n_layer=n_layer + 1).connection == connection


def test_unknown_preset() -> None:
    with pytest.raises(ValueError, match=r"name: expected one of tiny, small, medium, large"):
        GPTConfig.preset("huge")


@pytest.mark.parametrize(
    ("connection", "ends"),
    [
        ("mhc_lite", ("sum", "before_reduce")),
        ("hc", ("sum", "after_reduce")),
        ("cmhc", ("mean", "after_reduce")),
        ("deepseek_v4", ("weighted", "after_reduce")),
    ],
)
def test_published_ends(connection: str, ends: tuple[str, str]) -> None:
    published = GPTConfig(connection=connection, reduce="published", final_norm="published")
    assert published.ends == ends
    reduce = GPT(published, device="meta").reduce
    assert (reduce.scheme, f"{reduce.norm_position}_reduce") == ends
    assert GPTConfig(connection=connection).ends == ("sum", "before_reduce")
    assert GPTConfig(connection=connection, reduce="published").ends[1] == "before_reduce"
