"""Tables in device code: nvcc leaves zero, without a word, what a constexpr constructor fills."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

SOURCES = Path(__file__).resolve().parents[2] / "csrc"
WITHOUT_VALUE = re.compile(r"static\s+constexpr\s+[\w:]+(<[^;={}]*>)?\s+\w+\s*(\{\s*\})?\s*;")


def constructed_tables(text: str) -> list[str]:
    """The static constexpr objects that no expression initialises."""
    return [match[0] for match in WITHOUT_VALUE.finditer(text)]


@pytest.mark.parametrize("folder", ["include/hyperstreams/maps", "kernels/cuda"])
def test_no_static_table_is_filled_by_a_constructor(folder: str) -> None:
    files = [path for path in (SOURCES / folder).rglob("*") if path.suffix in (".h", ".cu")]
    assert files
    found = {str(path): constructed_tables(path.read_text(encoding="utf-8")) for path in files}
    assert {path: tables for path, tables in found.items() if tables} == {}


def test_a_planted_table_is_found() -> None:
    assert constructed_tables("static constexpr PermutationTable<kN> table;")
    assert constructed_tables("static constexpr maps::Table<4, int> table{};")
    assert not constructed_tables("static constexpr Table<kN> table = make_table<kN>();")
    assert not constructed_tables("static constexpr int kCount = 4;")
