"""The suite on another device."""

from __future__ import annotations

import pytest
from op_judgement import DEVICE

ALLOWED = (
    "ignore:.*does not have a deterministic implementation.*",
    "ignore:TensorFloat32 tensor cores.*",
)
"""PyTorch's own remarks on a GPU: of the reference under ``poisoned_memory``, of its compiler."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if DEVICE == "cpu":
        return
    for item in items:
        if item.path.parent.name != "ops":
            continue
        for said in ALLOWED:
            item.add_marker(pytest.mark.filterwarnings(said))
