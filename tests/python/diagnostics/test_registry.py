"""The registry of metrics names what exists, and everything that exists."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from types import ModuleType

import pytest
from hyperstreams import diagnostics
from hyperstreams.diagnostics.registry import METRICS, Metric

PURE = (
    "activations alignment composite decodability geometry gradients ledger lens logits metrics "
    "patterns readout similarity variation"
)


def resolve(path: str) -> object:
    module, _, name = path.rpartition(".")
    where: ModuleType = diagnostics
    if module:
        where = import_module(f"hyperstreams.diagnostics.{module}")
    return getattr(where, name)


def test_every_number_has_its_row() -> None:
    ids = [m.id for m in METRICS]
    assert len(set(ids)) == len(ids)
    assert {f"D{k}" for k in range(1, 31)} <= set(ids)
    assert set(ids) - {f"D{k}" for k in range(1, 31)} == {"D2w", "D6t", "D12p", "D15p", "D18r"}


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.id)
def test_rows_name_documented_functions_and_are_complete(metric: Metric) -> None:
    for path in metric.functions:
        found = resolve(path)
        assert callable(found)
        assert inspect.getdoc(found), path
    for field in ("name", "formula", "invariance", "initial", "null", "source"):
        assert getattr(metric, field).strip(), field
    # The function that computes it says so.
    documented = " ".join(str(inspect.getdoc(resolve(path))) for path in metric.functions)
    assert re.search(rf"\b{metric.id}[ab]?\b", documented), metric.id


def test_every_public_function_belongs_to_a_row() -> None:
    named = {path for m in METRICS for path in m.functions}
    for module in PURE.split():
        where = import_module(f"hyperstreams.diagnostics.{module}")
        for name, function in inspect.getmembers(where, inspect.isfunction):
            if function.__module__ == where.__name__ and not name.startswith("_"):
                assert f"{module}.{name}" in named, f"{module}.{name} is in no row of METRICS"
