"""Which tensors of a checkpoint make a site, and in which layout."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .layout import SiteLayout, Tensors
from .sources import Source

_COMMON = frozenset({"phi", "b", "alpha", "beta", "norm.gamma"})
"""Tensors of sites whose names other modules have too; one of the rest tells a site."""


class Groups:
    """Foreign names sorted: by site, the head's, those outside every site.

    complete : whether a site has all names of a layout, or a pattern tells sites by name.
    """

    def __init__(self, source: Source, names: list[str]) -> None:
        self.sites: dict[str, dict[str, str]] = {}
        self.heads: dict[str, dict[str, str]] = {}
        self.outside: list[str] = []
        self.complete = False
        if source.pattern is None:
            self._by_content(source, names)
        else:
            self._by_name(source, names)

    def _by_name(self, source: Source, names: list[str]) -> None:
        for name in names:
            site = re.fullmatch(source.pattern or "", name)
            head = re.fullmatch(source.head or "(?!)", name)
            if site is not None:
                self.sites.setdefault(site["prefix"], {})[site["tensor"]] = name
            elif head is not None:
                self.heads.setdefault(head["prefix"], {})[head["tensor"]] = name
            else:
                self.outside.append(name)
        self.complete = bool(self.sites)

    def _by_content(self, source: Source, names: list[str]) -> None:
        """A site holds most of a layout's names, or one that is found nowhere else.

        What it then lacks is an error of :func:`layout_of`, not a reason to pass it over.
        """
        prefixes: set[str] = set()
        for layout in source.layouts:
            for prefix, held in _held(layout, names).items():
                if 2 * len(held) > len(layout.names) or held - _COMMON:
                    prefixes.add(prefix)
                self.complete |= len(held) == len(layout.names)
        for name in names:
            # The innermost site whose prefix the name has.
            around = max((p for p in prefixes if name.startswith(p)), key=len, default=None)
            if around is None or name.removeprefix(around).startswith(source.inner or ("\0",)):
                self.outside.append(name)
            else:
                self.sites.setdefault(around, {})[name.removeprefix(around)] = name


def _held(layout: SiteLayout, names: list[str]) -> dict[str, set[str]]:
    """By prefix, which of the layout's names there are."""
    found: dict[str, set[str]] = {}
    for name in names:
        for tensor in layout.names:
            prefix = name.removesuffix(tensor)
            if prefix != name and prefix[-1:] in ("", "."):
                found.setdefault(prefix, set()).add(tensor)
    return found


def layout_of(
    source: Source, prefix: str, tensors: Tensors, settings: Mapping[str, Any]
) -> tuple[SiteLayout, list[str]]:
    """The layout of a site, and a line for the report where the tensors leave it open."""
    matching = [layout for layout in source.layouts if layout.matches(tensors)]
    if matching:
        first = matching[0]
        same = [layout for layout in matching if layout.names == first.names]
        return _as_recorded(source, same, settings)
    nearest = max(source.layouts, key=lambda layout: len(layout.names.keys() & tensors.keys()))
    missing = sorted(nearest.names.keys() - tensors.keys())
    shapes = {name: list(tensor.shape) for name, tensor in sorted(tensors.items())}
    raise ValueError(
        f"load_foreign: {prefix or 'the site'}: "
        + (f"missing {', '.join(missing)}" if missing else f"unknown shapes {shapes}")
        + f" (layout {nearest.name!r} of {source.name!r})"
    )


def _as_recorded(
    source: Source, candidates: list[SiteLayout], settings: Mapping[str, Any]
) -> tuple[SiteLayout, list[str]]:
    """The candidate that ``source.kind`` names; else the first, and what was assumed."""
    recorded = str(settings.get(source.kind, "")).removesuffix("_lss")
    for layout in candidates:
        if layout.name == recorded:
            return layout, []
    chosen, *others = candidates
    if recorded in {layout.name for layout in source.layouts}:
        return chosen, [
            f"{source.kind}={chosen.name}: the tensors have its shapes, not those of {recorded}, "
            "which the checkpoint records"
        ]
    if others:
        kin = " and ".join(layout.name for layout in others)
        return chosen, [
            f"{source.kind}={chosen.name}: {kin} has the same shapes, and the checkpoint does not "
            "record which it is"
        ]
    return chosen, []
