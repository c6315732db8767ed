"""Which sites of a model an intervention means: names, named slices, early and late halves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from ..._errors import check_choice
from ...nn import HyperConnection
from ..live.hooks import tap_modules

READOUT = "readout"
"""Name of the state after the last site, as in ``Capture.state_names``."""

SiteRange = str | Sequence[str]
"""``"L2a"``, ``"L2a:L3m"`` (both ends included; either may be left out), ``"all"``, ``"early"``,
``"late"``, or a sequence of names."""


@dataclass(frozen=True)
class SiteMap:
    """The sites of a model in order, and the hook points behind their names.

    names : as in ``Trace.site_names``. points : prefix of each site's hook points. readout : prefix
    of the reduction's, or None where the model has none. n_streams : of every site.
    """

    names: tuple[str, ...]
    points: dict[str, str]
    modules: dict[str, HyperConnection]
    readout: str | None
    n_streams: int

    @property
    def state_names(self) -> tuple[str, ...]:
        """The sites and, where it can be reached, the readout."""
        return self.names if self.readout is None else (*self.names, READOUT)

    def point(self, name: str) -> str:
        """Prefix of the hook points of a site or of the readout."""
        return self.readout if name == READOUT and self.readout else self.points[name]

    def resolve(self, sites: SiteRange, *, states: bool = False) -> tuple[str, ...]:
        """The names that ``sites`` means, in order.

        states : include the readout, which is a state but no site: in ``"all"``, in ``"late"``, in
            slices without an end, and by its name. ``"early"`` is the first half of the sites (of
            an odd number the middle one too), ``"late"`` the rest.
        """
        names = self.state_names if states else self.names
        half = (len(self.names) + 1) // 2
        groups = {"all": names, "early": names[:half], "late": names[half:]}
        if not isinstance(sites, str):
            wanted = [self.resolve(name, states=states) for name in sites]
            return tuple(name for name in names if any(name in part for part in wanted))
        if sites in groups:
            return groups[sites]
        if ":" not in sites:
            check_choice("intervene", "sites", sites, (*names, *groups))
            return (sites,)
        first, last = sites.split(":", 1)
        for end in (first, last):
            if end:
                check_choice("intervene", "sites", end, names)
        start = names.index(first) if first else 0
        stop = names.index(last) + 1 if last else len(names)
        if stop <= start:
            raise ValueError(
                f"intervene: sites: expected a slice in the order of the sites, got {sites!r}"
            )
        return names[start:stop]


def site_map(model: nn.Module) -> SiteMap:
    """The sites of ``model``; ValueError where it has none, or numbers of streams differ."""
    modules = tap_modules(model)
    points = [name for name, m in modules.items() if isinstance(m, HyperConnection)]
    ends = [name for name in modules if name not in points]
    own = getattr(model, "site_names", None)
    names = tuple(own) if own is not None and len(own) == len(points) else tuple(points)
    sites = {
        name: module
        for name, point in zip(names, points, strict=True)
        if isinstance(module := modules[point], HyperConnection)
    }
    counts = {module.connection.n_streams for module in sites.values()}
    if len(counts) != 1:
        raise ValueError(
            f"intervene: model: expected one number of streams, got {sorted(counts)} over its sites"
        )
    return SiteMap(
        names=names,
        points=dict(zip(names, points, strict=True)),
        modules=sites,
        readout=ends[-1] if ends else None,
        n_streams=counts.pop(),
    )
