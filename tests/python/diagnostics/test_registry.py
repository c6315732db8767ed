"""The registry of metrics names what exists, and everything that exists."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pkgutil import iter_modules, resolve_name
from types import ModuleType

import pytest
from hyperstreams import diagnostics
from hyperstreams.diagnostics import live, metrics
from hyperstreams.diagnostics.registry import METRICS, Metric


def resolve(path: str) -> object:
    return resolve_name(f"{diagnostics.__name__}.{path}")


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


def pure_modules() -> list[ModuleType]:
    """The metrics' files, but for the report made of them, and what reads metrics off a model."""
    names = {module.name for module in iter_modules(metrics.__path__)} - {"collapse"}
    return [
        *(import_module(f"{metrics.__name__}.{name}") for name in sorted(names)),
        *(import_module(f"{live.__name__}.{name}") for name in ("gradients", "logits", "readout")),
    ]


@pytest.mark.parametrize("module", pure_modules(), ids=lambda m: m.__name__.rpartition(".")[2])
def test_every_public_function_belongs_to_a_row(module: ModuleType) -> None:
    rows = {resolve(path) for m in METRICS for path in m.functions}
    for name, function in inspect.getmembers(module, inspect.isfunction):
        if function.__module__ == module.__name__ and not name.startswith("_"):
            assert function in rows, f"{module.__name__}.{name} is in no row of METRICS"
