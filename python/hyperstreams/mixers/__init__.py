"""The registry of mixers: every family of residual mixing matrices, one class and file each."""

from __future__ import annotations

from difflib import get_close_matches

from .base import INVARIANTS, Mixer
from .birkhoff_exact import BirkhoffExact
from .cayley import Cayley
from .circulant import Circulant
from .dialects import DIALECTS, Dialect
from .free import Free
from .harmonized import Harmonized
from .identity import Identity
from .kronecker import Kronecker
from .orthostochastic import Orthostochastic
from .permutation import Permutation
from .row_softmax import RowSoftmax
from .sinkhorn import Sinkhorn
from .sparse_selective import SparseSelective
from .spectral import Spectral
from .transport import Transport

MIXERS: dict[str, type[Mixer]] = {
    mixer.name: mixer
    for mixer in (
        Identity,
        Free,
        Sinkhorn,
        BirkhoffExact,
        Permutation,
        Kronecker,
        Spectral,
        Circulant,
        Orthostochastic,
        Transport,
        Cayley,
        SparseSelective,
        Harmonized,
        RowSoftmax,
    )
}
"""Mixer classes by name. A user's mixer joins with :func:`register_mixer`."""


def register_mixer(mixer: type[Mixer]) -> type[Mixer]:
    """Class decorator: add a mixer to the registry under its ``name``.

    Executing the same class definition again, as in a notebook, replaces it.
    """
    old = MIXERS.get(mixer.name, mixer)
    if (old.__module__, old.__qualname__) != (mixer.__module__, mixer.__qualname__):
        raise ValueError(f"register_mixer: a mixer named {mixer.name!r} exists already")
    MIXERS[mixer.name] = mixer
    return mixer


def get_mixer(mixer: str | Mixer) -> Mixer:
    """A mixer from its name (with its default settings) or itself."""
    if isinstance(mixer, Mixer):
        return mixer
    if mixer not in MIXERS:
        near = get_close_matches(str(mixer), MIXERS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"mixer: expected one of {', '.join(MIXERS)}, got {mixer!r}{hint}")
    return MIXERS[mixer]()


__all__ = [
    "DIALECTS",
    "INVARIANTS",
    "MIXERS",
    "BirkhoffExact",
    "Cayley",
    "Circulant",
    "Dialect",
    "Free",
    "Harmonized",
    "Identity",
    "Kronecker",
    "Mixer",
    "Orthostochastic",
    "Permutation",
    "RowSoftmax",
    "Sinkhorn",
    "SparseSelective",
    "Spectral",
    "Transport",
    "get_mixer",
    "register_mixer",
]
