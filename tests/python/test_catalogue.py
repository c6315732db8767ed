"""The docs page and the listing are made from the registries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hyperstreams import catalogue
from hyperstreams.cli import main
from hyperstreams.mixers import DIALECTS, MIXERS, Sinkhorn
from hyperstreams.nn import CONNECTIONS

FOLDER = Path(__file__).resolve().parents[2] / "docs"
DOCS = FOLDER / "connections.md"
DIAGNOSTICS = FOLDER / "diagnostics.md"


def test_docs_page_is_current() -> None:
    assert DOCS.read_text(encoding="utf-8") == catalogue.markdown(), (
        "run: hyperstreams list --markdown > docs/connections.md"
    )


def test_diagnostics_page_is_current() -> None:
    assert DIAGNOSTICS.read_text(encoding="utf-8") == catalogue.metrics_markdown(), (
        "run: hyperstreams list metrics --markdown > docs/diagnostics.md"
    )


def test_diagnostics_page_runs() -> None:
    from hyperstreams.models import GPT, GPTConfig

    blocks = DIAGNOSTICS.read_text(encoding="utf-8").split("```python\n")[1:]
    config = GPTConfig(n_layer=2, n_head=2, width=16, block_size=8, vocab_size=16)
    tokens = torch.arange(16).reshape(2, 8)
    models = {
        name: GPT(config, generator=torch.Generator().manual_seed(seed))
        for seed, name in enumerate(("model", "untrained"))
    }
    names: dict[str, Any] = {**models, "tokens": tokens, "targets": tokens}
    names["batches"] = [(tokens, tokens)]
    for block in blocks:
        exec(block.split("```")[0], names)
    assert list(names["probe"].samples) == [0]
    assert list(names["report"]) == ["usage", "averaging", "redundancy", "causal"]


def test_tables_hold_every_name() -> None:
    assert [row[0] for row in catalogue.connections().rows] == list(CONNECTIONS)
    assert [row[0] for row in catalogue.mixers().rows] == list(MIXERS)
    assert [row[0] for row in catalogue.dialects().rows] == list(DIALECTS)
    for name, _, settings in catalogue.dialects().rows:
        assert eval(f"Sinkhorn({settings})", {"Sinkhorn": Sinkhorn}) == DIALECTS[name].mixer


def test_counts_follow_the_sizes() -> None:
    def row(n_streams: int, width: int, name: str) -> tuple[str, ...]:
        return next(r for r in catalogue.connections(n_streams, width).rows if r[0] == name)

    # 96 C + 24 + 3 and the norm's 4 C, as methods of 2512.24880 count at n = 4.
    assert row(4, 512, "mhc")[1] == f"{100 * 512 + 27:,}"
    assert row(4, 512, "hc")[1] == f"{6 * 512 + 26:,}"
    assert row(8, 512, "mhc_lite")[1:4] == ("-", "-", "-")  # 8! permutations
    assert row(8, 512, "shc")[3] == "all but coefficients"  # its map is fused up to n = 4
    assert row(4, 512, "shc")[3] == "all"


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "connections", "--n_streams", "2", "--width", "64"]) == 0
    printed = capsys.readouterr().out
    assert "n = 2 streams of width C = 64" in printed
    assert main(["list", "--markdown"]) == 0
    assert capsys.readouterr().out == DOCS.read_text(encoding="utf-8")
    assert main(["list", "connections", "--width", "0"]) != 0
    capsys.readouterr()
    assert main(["list", "metrics"]) == 0
    assert "ledger.cut_rank" in capsys.readouterr().out
    assert main(["list", "metrics", "--markdown"]) == 0
    assert capsys.readouterr().out == DIAGNOSTICS.read_text(encoding="utf-8")
