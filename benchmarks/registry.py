"""The one list of cases, and how patterns choose from it."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from .case import Case
from .cases import gpu, host, isa, ops, probe, scaling, sites, training_step

MODULES = (ops, sites, scaling, isa, host, training_step, probe, gpu)


def all_cases(device: str = "cpu") -> list[Case]:
    """Every case for the kind of device that exists on this machine, in the tables' order."""
    found = [case for module in MODULES for case in module.cases() if device in case.devices]
    names = [case.name for case in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"cases: name: expected each name once, got {', '.join(twice)} again")
    return found


def matches(name: str, pattern: str) -> bool:
    """Whether ``pattern`` is the name, its beginning up to a ``/``, or a shell pattern of it."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}/*")


def select(cases: Sequence[Case], patterns: Sequence[str]) -> list[Case]:
    """The cases that any pattern matches, all without patterns; ValueError for an idle pattern."""
    if not patterns:
        return list(cases)
    for pattern in patterns:
        if not any(matches(case.name, pattern) for case in cases):
            known = {case.group for case in cases} | {case.name for case in cases}
            near = get_close_matches(pattern, known, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(f"--only: expected a pattern of a case's name, got {pattern!r}{hint}")
    return [case for case in cases if any(matches(case.name, pattern) for pattern in patterns)]
