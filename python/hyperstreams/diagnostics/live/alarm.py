"""A sequential test of whether streams have collapsed since the start of training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import metrics
from .capture import Capture
from .quantities import QUANTITIES, quantity


@dataclass(frozen=True)
class Alarm:
    """What the test says after the last sample.

    fired : at any sample so far; ``step``: the first one, or None.
    value, initial : mean over sites of the quantity now and at the first sample.
    drop : mean over samples of ``initial - value - margin``; ``boundary``: what it must exceed.
    persistence, persistence_null : of the leading stream over sites now, and the value that random
        leaders exceed with probability ``level``.
    """

    quantity: str
    fired: bool
    step: int | None
    value: float
    initial: float
    drop: float
    boundary: float
    persistence: float
    persistence_null: float


def normal_mixture_boundary(samples: int, variance: float, level: float, *, rho: float) -> float:
    """Bound on the mean of ``samples`` errors that holds at all times with probability 1 - level.

    ``sqrt((t v + rho v) log((t + rho) / (rho level^2))) / t`` for errors of variance v: the
    one-sided normal mixture boundary (Robbins 1970), so that looking after every sample costs
    nothing. ``rho`` samples is where it is tightest.
    """
    t = float(samples)
    return math.sqrt(variance * (t + rho) * math.log((t + rho) / (rho * level**2))) / t


FIRST_DECISION = 3
"""Samples after the first before the test may fire: fewer do not show how much they scatter."""


def sequential_drop(
    values: Tensor, *, level: float = 0.05, margin: float = 0.1, rho: float = 4.0
) -> tuple[Tensor, Tensor]:
    """``(drops, boundaries)``, both ``[T]``, of ``values [T]``; see :func:`collapse_alarm`.

    Entry t tells of the samples up to t. Boundaries before ``FIRST_DECISION`` are infinite.
    """
    x = values.double()
    t = torch.arange(len(x), dtype=torch.float64)
    drops = ((x[0] - x - margin).cumsum(0) + margin) / t.clamp_min(1)
    squares = torch.cat([x.new_zeros(1), x.diff().square()]).cumsum(0)
    variance = (squares / (2 * t.clamp_min(1))).clamp_min(1e-6)
    of_first = -float(torch.special.ndtri(torch.tensor(level / 2, dtype=torch.float64)))
    boundaries = torch.full_like(x, math.inf)
    for k in range(FIRST_DECISION, len(x)):
        v = float(variance[k])
        of_mean = normal_mixture_boundary(k, v, level / 2, rho=rho)
        boundaries[k] = of_mean + of_first * math.sqrt(v)
    return drops, boundaries


def collapse_alarm(
    samples: Mapping[int, Capture],
    name: str = "write_effective_streams",
    *,
    level: float = 0.05,
    margin: float = 0.1,
    rho: float = 4.0,
) -> Alarm:
    """Test that a usage quantity has fallen below its first value, and one stream leads.

    name : a site quantity that falls when streams collapse: ``read_effective_streams`` or
        ``write_effective_streams``, also with ``_participation`` or ``_token``.
    level : probability of a false alarm over the whole run, at most, where all that moves the
        quantity is noise that is new in every sample, as that of drawing batches is. A slow wander
        of the weights around the first value is no noise to this test: in simulated runs of 60
        samples correlated 0.8 (0.95) from one to the next, condition (a) was met by 14 % (25 %).
    margin : fall that is not worth an alarm, in units of the quantity.

    Fires at the first sample t (of at least 4) at which both hold. (a) The mean over samples of
    ``first - value_s - margin`` exceeds ``boundary``: :func:`normal_mixture_boundary` at
    ``level / 2``, plus the error that the first sample exceeds with probability ``level / 2``. The
    variance is half the mean squared difference of successive samples, at least ``1e-6``. (b) The
    persistence of the leading stream is above what random leaders exceed with probability
    ``level`` (:func:`metrics.persistence_null`).
    A designation that favours one stream everywhere (``designate="fixed"``) meets (b) from the
    start. Sources: the design is this package's; the boundary is Robbins' (1970), as in Howard et
    al. (2021).

    Raises ValueError for other quantities, without samples, and for samples without coefficients.
    """
    if name not in QUANTITIES or "effective_streams" not in name:
        known = ", ".join(k for k in QUANTITIES if "effective_streams" in k)
        raise ValueError(f"collapse_alarm: name: expected one of {known}; got {name!r}")
    if not samples:
        raise ValueError("collapse_alarm: samples: expected at least one, got none")
    if not 0 < level < 1:
        raise ValueError(f"collapse_alarm: level: expected in (0, 1), got {level}")
    steps = sorted(samples)
    first = samples[steps[0]]
    values = [float(quantity(name, samples[step]).mean()) for step in steps]
    if not all(map(math.isfinite, values)):
        raise ValueError(f"collapse_alarm: samples: expected coefficients, got none for {name!r}")
    share = name.partition("_")[0] + "_share"
    persistences = [float(metrics.persistence(quantity(share, samples[s]))) for s in steps]
    null = _persistence_quantile(first.n_streams, len(first.site_names), level)
    drops, boundaries = sequential_drop(torch.tensor(values), level=level, margin=margin, rho=rho)
    leads = torch.tensor(persistences, dtype=torch.float64) > null
    fired = ((drops > boundaries) & leads).nonzero()
    return Alarm(
        name,
        fired.numel() > 0,
        steps[int(fired[0])] if fired.numel() else None,
        values[-1],
        values[0],
        float(drops[-1]),
        float(boundaries[-1]),
        persistences[-1],
        null,
    )


def _persistence_quantile(n: int, sites: int, level: float) -> float:
    """Smallest persistence that random leaders exceed with probability at most ``level``."""
    tail = 1 - metrics.persistence_null(n, sites).cumsum(dim=0)
    return float((tail <= level).nonzero()[0]) / sites
