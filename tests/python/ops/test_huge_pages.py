"""Large outputs ask for huge pages: a fault for every 4 KiB takes longer than the kernel."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hyperstreams import ops

SMAPS = Path("/proc/self/smaps")
THP = Path("/sys/kernel/mm/transparent_hugepage")


def flags_at(address: int) -> list[str]:
    """VmFlags of the mapping around ``address``."""
    inside = False
    for line in SMAPS.read_text().splitlines():
        head, _, rest = line.partition(" ")
        if "-" in head:
            begin, end = (int(bound, 16) for bound in head.split("-"))
            inside = begin <= address < end
        elif inside and head == "VmFlags:":
            return rest.split()
    raise AssertionError("the address is in no mapping")


@pytest.mark.skipif(not THP.exists(), reason="needs Linux with transparent huge pages")
def test_an_output_of_many_pages_is_advised() -> None:
    h = torch.ones(1 << 18)
    x = ops.expand(h, 16)  # 16 MiB
    assert "hg" in flags_at(x.data_ptr() + 8 * 2**20)
    assert torch.equal(x, h.expand(16, -1))
