"""The memory benchmark, on a tiny model."""

from __future__ import annotations

import json

import pytest

from benchmarks import memory

SMALL = ["--n_layer=2", "--width=64", "--block_size=64", "--batch_size=2", "--rounds=1"]
ONE_THREAD = "--threads=1"

pytestmark = pytest.mark.skipif(not memory.STATUS.exists(), reason="no /proc here")


@pytest.mark.parametrize("way", memory.WAYS)
def test_every_way_runs(way: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert memory.main([*SMALL, ONE_THREAD, "--way", way]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["median_ms"] > 0
    assert said["peak_mib"] >= 0


def test_what_the_first_step_imports_is_no_memory_of_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In fresh processes; the imports of torch.utils.checkpoint are some 70 MiB."""
    monkeypatch.setattr(memory, "WAYS", ("everything", "checkpointed sites"))
    assert memory.main([*SMALL, ONE_THREAD]) == 0
    table = [line.split("|") for line in capsys.readouterr().out.splitlines()[3:]]
    assert [row[1].strip() for row in table] == list(memory.WAYS)
    assert all(0 < int(row[2]) < 30 for row in table)
