"""The same calls at every instruction-set level of the CPU kernels that this processor runs."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from hyperstreams.mixers import get_mixer

from ..case import Case
from ..problem import BOTH
from .ops import coefficients_case
from .sites import DTYPES, site_case

MIXERS = ("sinkhorn", "permutation")


def levels() -> list[str]:
    """Names of the levels, lowest first; the cap is left as it was."""
    library = torch.ops.hyperstreams
    before = library._cpu_isa()
    found = []
    for name in ("base", "avx2", "avx512"):
        library._set_cpu_isa(name)
        if library._cpu_isa() == name:
            found.append(name)
    library._set_cpu_isa(before)
    return found


def cases() -> Iterator[Case]:
    """A boundary of mHC in both dtypes, and the coefficients of two mixers."""
    for level in levels():
        for dtype in DTYPES:
            yield site_case(
                f"isa/{level}/boundary/mhc/{dtype}",
                kind="boundary",
                connection="mhc",
                tokens=2048,
                width=384,
                dtype=dtype,
                mode=BOTH,
                alone=True,
                isa=level,
                devices=("cpu",),
            )
        for mixer in MIXERS:
            yield coefficients_case(
                f"isa/{level}/coefficients/{mixer}",
                get_mixer(mixer),
                BOTH,
                isa=level,
                devices=("cpu",),
            )
