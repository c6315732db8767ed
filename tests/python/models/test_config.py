"""Model configuration: published sizes and worded errors."""

from __future__ import annotations

import pytest
from hyperstreams import GPT, GPTConfig


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
