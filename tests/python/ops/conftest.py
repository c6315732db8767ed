"""The suite on another device: what has no kernels there is skipped, and said."""

from __future__ import annotations

import pytest
from hyperstreams import ops
from op_cases import stems_of
from op_judgement import DEVICE

ALLOWED = (
    "ignore:.*does not have a deterministic implementation.*",
    "ignore:TensorFloat32 tensor cores.*",
)
"""PyTorch's own remarks on a GPU: of the reference under ``poisoned_memory``, of its compiler."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if DEVICE == "cpu":
        return
    kernels = ops.backend_status().ops
    for item in items:
        if item.path.parent.name != "ops":
            continue
        for said in ALLOWED:
            item.add_marker(pytest.mark.filterwarnings(said))
        call = getattr(item, "callspec", None)
        for value in call.params.values() if call else ():
            missing = [s for s in stems_of(str(value)) if DEVICE not in kernels[s]]
            if missing:
                reason = f"{' and '.join(missing)}: no kernels for {DEVICE}"
                item.add_marker(pytest.mark.skip(reason=reason))
