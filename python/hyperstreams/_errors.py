"""Wording of errors about names."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def check_choice(owner: str, argument: str, value: object, known: Iterable[str]) -> None:
    """Raise ValueError naming the nearest known name when ``value`` is not one of ``known``."""
    names = list(known)
    if value in names:
        return
    lowered = {name.lower(): name for name in names}
    near = get_close_matches(str(value).lower(), lowered, n=1)
    hint = f" (did you mean {lowered[near[0]]!r}?)" if near else ""
    raise ValueError(
        f"{owner}: {argument}: expected one of {', '.join(names)}, got {value!r}{hint}"
    )
