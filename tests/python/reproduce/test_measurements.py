"""Slow measurements: each made once, kept, and announced with the time that is left."""

from __future__ import annotations

from pathlib import Path

import pytest
from hyperstreams.reproduce.measurements import Measurement, make_missing


def test_what_is_missing_is_made_once_with_the_time_left(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = 0.0
    made: list[str] = []

    def measurement(kind: str, name: str, seconds: float, finished: bool = False) -> Measurement:
        def make() -> None:
            nonlocal now
            now += seconds
            made.append(name)

        return Measurement(kind, name, Path(name), finished, make)

    wanted = [
        measurement("coder", "a", 10),
        measurement("coder", "there", 10, finished=True),
        measurement("table", "b", 30),
        measurement("coder", "a", 10),
        measurement("coder", "c", 20),
        measurement("table", "d", 50),
    ]
    make_missing(wanted, clock=lambda: now)
    assert made == ["a", "b", "c", "d"]
    assert capsys.readouterr().out.splitlines() == [
        "[1/4] a  10 s, about 30 s left",  # tables have not been timed: all at 10 s
        "[2/4] b  30 s, about 40 s left",
        "[3/4] c  20 s, about 30 s left",
        "[4/4] d  50 s",
    ]
    make_missing(wanted, quiet=True, clock=lambda: now)
    assert capsys.readouterr().out == ""


def test_an_interruption_leaves_the_rest() -> None:
    made = []

    def stop() -> None:
        raise KeyboardInterrupt

    wanted = [
        Measurement("coder", "a", Path("a"), False, lambda: made.append("a")),
        Measurement("coder", "b", Path("b"), False, stop),
        Measurement("coder", "c", Path("c"), False, lambda: made.append("c")),
    ]
    with pytest.raises(KeyboardInterrupt):
        make_missing(wanted, quiet=True)
    assert made == ["a"]
