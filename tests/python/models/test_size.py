"""Parameter and operation counts, on the meta device."""

from __future__ import annotations

import pytest
import torch
from connection_cases import depth, used
from hyperstreams import GPT, GPTConfig
from hyperstreams import nn as hnn
from hyperstreams.models import PUBLISHED_PARAMETERS, operations_table, parameter_table
from hyperstreams.models.config import PRESETS
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def preset(name: str, connection: str = "residual", **overrides: object) -> GPTConfig:
    return GPTConfig.preset(name, connection=connection, **overrides)


@pytest.mark.parametrize(
    ("name", "total"),
    [
        # The released models: OLMo's own, and OLMoE's less 16 layers x 2 norms of 2048 (q and k).
        ("olmo_1b", 1_176_764_416),
        ("olmo_7b", 6_888_095_744),
        ("olmoe_like", 6_919_161_856 - 16 * 2 * 2048),
    ],
)
def test_published_sizes(name: str, total: int) -> None:
    assert parameter_table(preset(name))["total"] == total


def test_extra_parameters_of_hyper_connections_in_olmo() -> None:
    """2409.19606 prints 768 and 394,048 at 1B; at 7B "1.3M", against its own +0.023 %."""
    for connection, size, extra in (
        ("hc_static", "olmo_1b", 768),
        ("hc", "olmo_1b", 394_048),
        ("hc", "olmo_7b", 1_574_528),
    ):
        table = parameter_table(preset(size, connection, n_streams=4))
        assert table["connections"] == extra
        assert table["total"] - parameter_table(preset(size))["total"] == extra
    share = 1_574_528 / parameter_table(preset("olmo_7b"))["total"]
    assert round(100 * share, 3) == 0.023


@pytest.mark.parametrize("connection", list(PUBLISHED_PARAMETERS))
@pytest.mark.parametrize("n", [2, 4])
def test_published_formulas(connection: str, n: int) -> None:
    table = parameter_table(preset("tiny", connection, n_streams=n))
    assert table["connections"] == 8 * PUBLISHED_PARAMETERS[connection](n, 96)


@pytest.mark.parametrize("connection", list(hnn.CONNECTIONS))
@pytest.mark.parametrize("options", [{}, {"mlp": "moe", "tied_embeddings": False, "norm": "rms"}])
def test_the_parts_are_the_whole(connection: str, options: dict[str, object]) -> None:
    ends = used(connection, expand="learned_scale", reduce="weighted")
    config = preset("tiny", connection, n_layer=depth(connection, 4), **ends, **options)
    table = parameter_table(config)
    assert table["total"] == sum(p.numel() for p in GPT(config, device="meta").parameters())
    assert table["attention"] > 0 or connection == "residual_matrix"
    assert table["head"] == (96 * 256 if options else 0)


@pytest.mark.parametrize("mlp", ["gelu", "swiglu"])
def test_operations_of_matrix_products(mlp: str) -> None:
    """PyTorch's counter counts products, without the causal half of the scores."""
    config = preset("tiny", mlp=mlp, n_kv_head=2, vocab_size=100)
    model = GPT(config, device="meta")
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 128, dtype=torch.int64, device="meta"))
    products = {
        str(op): count
        for op, count in counter.get_flop_counts()["Global"].items()
        if "attention" not in str(op) and "bmm" not in str(op)
    }
    table = operations_table(config)
    expected = table["attention"] + table["mlp"] + table["head"]
    assert sum(products.values()) == 128 * expected
    assert table["scores"] == 4 * 2 * 96 * 129
    assert operations_table(config, context=3)["scores"] == 4 * 2 * 96 * 4


class Own(hnn.ConnectionFamily):
    """A user's family, which does not say what it costs."""

    def build_site(self, branch: nn.Module, site_index: int, plan: hnn.Plan) -> nn.Module:
        return branch


def test_operations_of_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    n, c = 4, 96
    site = {
        "residual": 0,
        "parallel": 0,
        # Read, write and mix; the projection reads every stream's own norm, or all of them.
        "hc_static": 4 * n * c + 2 * n * n * c,
        "hc": 4 * n * c + 2 * n * n * c + 2 * n * (n + 2) * c + 2 * n * c,
        "mhc_lite": 4 * n * c + 2 * n * n * c + 2 * 32 * n * c + 2 * n * c,
        "identity": 4 * n * c + 2 * 8 * n * c + 2 * n * c,
    }
    for connection, operations in site.items():
        assert operations_table(preset("tiny", connection))["connections"] == 8 * operations
    monkeypatch.setitem(hnn.CONNECTIONS, "own", Own("own", "-"))
    with pytest.raises(ValueError, match="whose operations are known, got 'own'"):
        operations_table(preset("tiny", "own"))


def test_operations_of_baselines() -> None:
    """Four blocks of width 96, the products counted one by one."""
    c, k = 96, 32
    expected = {
        "rezero": 8 * 2 * c,
        "altup": 4 * (2 * 16 * c + 2 * 4 * c),
        "denseformer": 2 * c * (2 + 3 + 4 + 5),
        # 1, 2, ..., 8 hidden states: normed, scored, added up.
        "attention_residual": 36 * 6 * c,
        # Heads read 3 vectors and write 1, together 4 c numbers; MLPs read and write c.
        "residual_matrix": 4 * 2 * k * (4 * c + 2 * c),
        "post_norm": 0,
        "deepnorm": 0,
        "residual_dual": 0,
    }
    for connection, operations in expected.items():
        table = operations_table(preset("tiny", connection))
        assert table["connections"] == operations, connection
    assert operations_table(preset("tiny", "residual_matrix"))["attention"] == 0
    # The fifth block alone averages, over the first block and itself.
    sparse = preset("tiny", "denseformer_4x5", n_layer=5)
    assert operations_table(sparse)["connections"] == 2 * 2 * c
    deep = preset("tiny", "attention_residual_block", n_layer=12)
    # 24 sites in 8 blocks of 3: 1 + 2 + 2, 2 + 3 + 3, ...
    assert operations_table(deep)["connections"] == 6 * c * sum(3 * b + 2 for b in range(1, 9))


def test_active_experts_only() -> None:
    table = operations_table(preset("olmoe_like"))
    assert table["mlp"] == 16 * 2 * (8 * 3 * 2048 * 1024 + 2048 * 64)
    share = operations_table(preset("olmo_1b", "hc"))
    assert 0.001 < share["connections"] / share["total"] < 0.004


def test_every_preset_has_a_size() -> None:
    totals = {name: parameter_table(preset(name))["total"] for name in PRESETS}
    assert totals["tiny"] < totals["small"] < totals["medium"] < totals["large"]
