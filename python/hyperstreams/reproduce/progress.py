"""Progress of several runs as one: what is running, how far it is, how long it will take."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TextIO


def duration(seconds: float) -> str:
    """``42 s``, ``6 min`` or ``3.1 h``, as coarse as the estimate is."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.3g} h"


class Progress:
    """One status line on a terminal, or a line now and then elsewhere.

    ``costs`` are relative costs of one step of each run; they only serve until a run's own speed
    has been measured. ``steps`` is the number of steps of every run, or of each, ``closing`` the
    seconds that the work after the last run is expected to take.
    """

    def __init__(
        self,
        labels: Sequence[str],
        costs: Sequence[float],
        steps: int | Sequence[int],
        *,
        closing: float = 0.0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.labels, self.costs, self.closing = labels, list(costs), closing
        self.steps = [steps] * len(labels) if isinstance(steps, int) else list(steps)
        self.stream = sys.stderr if stream is None else stream
        self.clock = clock
        self.current = 0
        self.speeds: dict[int, float] = {}
        self.shown_tenth = -1
        self.longest = 0

    def start(self, index: int) -> Callable[[dict[str, Any]], None]:
        """Begin run ``index``; the function takes every record that the run writes."""
        self.current = index
        self.shown_tenth = -1
        began, first = self.clock(), -1

        def record(values: dict[str, Any]) -> None:
            nonlocal began, first
            step = int(values["step"])
            if first < 0:
                # What came before the first record (a resumed part, start-up) is not speed.
                began, first = self.clock(), step
            elif step > first:
                self.speeds[index] = (self.clock() - began) / (step - first)
            self._show(step, values["loss"], values["kind"])

        return record

    def remaining(self, step: int) -> tuple[float, float] | None:
        """Seconds until the current run is done, and everything; None before a speed is known."""
        if not self.speeds:
            return None
        latest = self.current if self.current in self.speeds else max(self.speeds)
        unit = self.speeds[latest] / self.costs[latest]
        run, *others = [
            (self.steps[index] - (step if index == self.current else 0))
            * self.speeds.get(index, unit * self.costs[index])
            for index in range(self.current, len(self.labels))
        ]
        return run, run + sum(others) + self.closing

    def _show(self, step: int, loss: float, kind: str) -> None:
        terminal = self.stream.isatty()
        steps = self.steps[self.current]
        tenth = 10 * step // steps
        if not terminal and (tenth == self.shown_tenth or kind != "eval"):
            return
        self.shown_tenth = tenth
        left = self.remaining(step)
        text = (
            f"[{self.current + 1}/{len(self.labels)}] {self.labels[self.current]:<14} "
            f"step {step:>5}/{steps}  {kind} loss {loss:.3f}  "
            f"{'' if left is None else f'left: {duration(left[0])}, all {duration(left[1])}'}"
        ).rstrip()
        self._write(text, "" if terminal else "\n")

    def finish(self, text: str) -> None:
        """End the current run's line with a closing remark."""
        self._write(text, "\n")

    def _write(self, text: str, end: str) -> None:
        """Write ``text``, on a terminal over the line that is there and within its width."""
        if self.stream.isatty():
            width = shutil.get_terminal_size().columns - 1  # a full line would wrap
            self.longest = min(max(self.longest, len(text)), width)
            text = "\r" + text[:width].ljust(self.longest)
        self.stream.write(text + end)
        self.stream.flush()
