"""What the registry holds: calls with a name, least work, tests and baselines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch

from .timing import Call
from .work import Work

Factory = Callable[[], Call]

BASELINES = (
    *("eager", "compiled", "autograd alone"),
    *("transformers", "lucidrains", "liger", "transformer engine"),
    *("torch.add", "residual", "without"),
)
"""The names that a baseline may have."""


def check_baselines(names: Iterable[str], argument: str) -> None:
    """ValueError, about ``argument``, for the first name that no baseline has."""
    for name in names:
        if name not in BASELINES:
            raise ValueError(f"{argument}: expected any of {', '.join(BASELINES)}, got {name!r}")


class Absent(Exception):
    """A baseline that cannot be had here; the message says why, and how to get it."""


@dataclass(frozen=True)
class Workload:
    """The call that is timed, and what it is timed against.

    baselines : name, of ``BASELINES`` -> what makes the call; it raises :class:`Absent` with the
        reason where that baseline does not exist.
    """

    call: Call
    baselines: Mapping[str, Factory] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_baselines(self.baselines, "Workload: baselines")


@dataclass(frozen=True)
class Gate:
    """A limit: the share by which the call is longer than a baseline, over ``every``, at most."""

    baseline: str
    every: int
    limit: float

    def share(self, ratio: float) -> float:
        """The share, from ``ratio``, the baseline's time over the call's."""
        return (1 / ratio - 1) / self.every


@dataclass(frozen=True, kw_only=True)
class Case:
    """One line of the tables.

    name : ``group/part/part/...``; patterns select by it.
    build : makes the workload on a device, under the case's threads and instruction set.
    tests : keys of ``own_tests.SELECTIONS`` that must be green before the case is timed.
    dtype : of the streams, as torch names it.
    work : least bytes and operations, None where they say nothing.
    tokens : tokens of one call, for the time per token.
    curve : (axis, value) of a scaling curve's point.
    threads, isa : None leaves the process's own.
    devices : the kinds of device that the case is for.
    wall_clock : on a GPU too, the call is timed by the clock on the wall: its host time counts.
    gate : a limit that fails the run when it is exceeded; without its baseline it says nothing.
    """

    name: str
    build: Callable[[torch.device], Workload]
    tests: tuple[str, ...]
    dtype: str = "float32"
    work: Work | None = None
    tokens: int | None = None
    curve: tuple[str, int] | None = None
    threads: int | None = None
    isa: str | None = None
    devices: tuple[str, ...] = ("cpu", "cuda")
    wall_clock: bool = False
    gate: Gate | None = None

    @property
    def group(self) -> str:
        return self.name.partition("/")[0]
