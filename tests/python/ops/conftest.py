"""The suite on another device: what has no kernels there is skipped, and said."""

from __future__ import annotations

import warnings

import pytest
from hyperstreams import ops
from op_cases import stems_of
from op_judgement import DEVICE


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if DEVICE == "cpu":
        return
    kernels = ops.backend_status().ops
    for item in items:
        call = getattr(item, "callspec", None)
        if call is None or item.path.parent.name != "ops":
            continue
        for value in call.params.values():
            missing = [s for s in stems_of(str(value)) if DEVICE not in kernels[s]]
            if missing:
                reason = f"{' and '.join(missing)}: no kernels for {DEVICE}"
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def nondeterministic_reference() -> None:
    """See ``poisoned_memory`` of test_numbers."""
    if DEVICE != "cpu":
        warnings.filterwarnings("ignore", ".*does not have a deterministic implementation.*")
