"""What a capture says about each site, by name: the values that figures draw and tables print."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .. import metrics
from ..metrics import geometry
from .capture import Capture

Axes = Literal["site", "site,stream", "site,destination,source", "site,stream,other"]


@dataclass(frozen=True)
class Quantity:
    """One named diagnostic of a capture.

    ``compute(capture)`` gives ``[rows, ...]`` float64. ``rows`` says what one is: a ``"site"`` (the
    coefficients used there) or a ``"state"`` (before each site, then at the readout).
    """

    name: str
    label: str
    definition: str
    axes: Axes
    rows: Literal["site", "state"]
    compute: Callable[[Capture], Tensor]

    def row_names(self, capture: Capture) -> tuple[str, ...]:
        return capture.site_names if self.rows == "site" else capture.state_names


QUANTITIES: dict[str, Quantity] = {}
"""Every quantity by name."""


def _add(
    name: str,
    label: str,
    definition: str,
    compute: Callable[[Capture], Tensor],
    *,
    axes: Axes = "site",
    rows: Literal["site", "state"] = "site",
) -> None:
    QUANTITIES[name] = Quantity(name, label, definition, axes, rows, compute)


def _streams(values: Tensor, n: int) -> Tensor:
    """Drop the branch output's row from a per-row quantity of the extended Gram matrix."""
    return values[..., :n]


def _relative_update(c: Capture) -> Tensor:
    norm = c.mean("norm")[:-1]
    return metrics.relative_update(
        c.mean("h_post"), norm[:, c.n_streams], _streams(norm, c.n_streams)
    )


def _identity_distance(c: Capture) -> Tensor:
    # E |R - I|^2 = sum E R^2 - 2 E trace R + n
    square = c.mean("h_res_square").sum(dim=(-2, -1)) + c.n_streams
    square = square - 2 * c.mean("h_res").diagonal(dim1=-2, dim2=-1).sum(dim=-1)
    return (square.clamp_min(0.0) / (2 * c.n_streams)).sqrt()


def _mean_cosine(c: Capture) -> Tensor:
    cosine = c.mean("cosine")
    pairs = max(c.n_streams * (c.n_streams - 1), 1)
    trace = cosine.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
    return (cosine.sum(dim=(-2, -1)) - trace) / pairs


def _usage(side: Literal["read", "write"], field: str, symbol: str) -> None:
    title = side.capitalize()

    def weight(c: Capture) -> Tensor:
        return c.mean(f"{side}_share")

    def ratio(c: Capture) -> Tensor:
        return metrics.share(c.mean(field))

    _add(
        f"{side}_share",
        f"{title} share",
        f"mean over tokens of |{symbol}[s]| / sum_r |{symbol}[r]| (weight, mean_of_ratios; D1)",
        weight,
        axes="site,stream",
    )
    _add(
        f"{side}_share_ratio_of_means",
        f"{title} share",
        f"|mean {symbol}[s]| / sum_r |mean {symbol}[r]| over tokens (weight, ratio_of_means; D1)",
        ratio,
        axes="site,stream",
    )
    _add(
        f"{side}_signal_share",
        f"{title} share (signal)",
        "mean over tokens of |p[s]| |x_s| / sum (signal; D2a)"
        if side == "read"
        else "mean over tokens of q[s]^2 / sum (signal energy; D2w)",
        lambda c: c.mean(f"{side}_signal_share"),
        axes="site,stream",
    )
    _add(
        f"{side}_effective_streams",
        f"Effective streams ({side})",
        f"exp(entropy) of the {side} share (D3)",
        lambda c: metrics.effective_streams(weight(c)),
    )
    _add(
        f"{side}_effective_streams_participation",
        f"Effective streams ({side})",
        f"1 / sum of squares of the {side} share (participation ratio; D3)",
        lambda c: metrics.effective_streams(weight(c), kind="participation"),
    )
    _add(
        f"{side}_effective_streams_token",
        f"Effective streams per token ({side})",
        f"exp of the token mean of the entropy of each token's {side} share (D3, token level)",
        lambda c: c.mean(f"{side}_entropy").exp(),
    )
    _add(
        f"{side}_dominance",
        f"Dominance ({side})",
        f"(n max - 1) / (n - 1) of the {side} share (D4)",
        lambda c: metrics.dominance(weight(c)),
    )
    _add(
        f"{side}_gap",
        f"Dominance gap ({side})",
        f"largest minus second largest {side} share (D4)",
        lambda c: metrics.dominance_gap(weight(c)),
    )


def _ranges(side: Literal["read", "write", "mixer"], field: str, symbol: str, axes: Axes) -> None:
    title = "Mixer entry" if side == "mixer" else f"{side.capitalize()} weight"

    def of_sites(part: str) -> Callable[[Capture], Tensor]:
        return lambda c: c.total(f"{field}_{part}")[:-1]

    if side != "mixer":
        _add(
            f"{side}_mean",
            f"{title}, mean",
            f"token mean of {symbol}",
            lambda c: c.mean(field),
            axes=axes,
        )
    _add(
        f"{side}_variance",
        f"{title}, variance over tokens",
        f"token mean of ({symbol} - its token mean)^2",
        lambda c: c.mean(f"{field}_m2"),
        axes=axes,
    )
    for part, word in (("min", "smallest"), ("max", "largest")):
        _add(
            f"{side}_{part}",
            f"{title}, {word}",
            f"{word} {symbol} of any token",
            of_sites(part),
            axes=axes,
        )


_usage("read", "h_pre", "p")
_usage("write", "h_post", "q")
_ranges("read", "h_pre", "h_pre[s]", "site,stream")
_ranges("write", "h_post", "h_post[s]", "site,stream")
_ranges("mixer", "h_res", "H_res[destination, source]", "site,destination,source")
_add(
    "relative_update",
    "Relative update",
    "|mean q[s]| mean |y| / mean |x_s| (ratio of token means; D2w)",
    _relative_update,
    axes="site,stream",
)
_add(
    "mean_mixer",
    "Mean mixer",
    "token mean of H_res[destination, source]",
    lambda c: c.mean("h_res"),
    axes="site,destination,source",
)
_add(
    "off_diagonal_mass",
    "Off-diagonal mass",
    "1 - trace(H_res) / n, token mean (D6)",
    lambda c: metrics.off_diagonal_mass(c.mean("h_res")),
)
_add(
    "identity_distance",
    "Distance to identity",
    "sqrt(E |H_res - I|_F^2 / 2n): root mean square over tokens (D6)",
    _identity_distance,
)
_add(
    "permutation_distance",
    "Distance to nearest permutation",
    "min over permutations of |mean H_res - P|_F / sqrt(2n) (D6)",
    lambda c: metrics.permutation_distance(c.mean("h_res")),
)
_add(
    "token_variation",
    "Token variation of the mixer",
    "E |R - Rbar|^2 / |Rbar - I|^2 with R = H_res (D6t)",
    lambda c: metrics.token_variation(c.mean("h_res"), c.mean("h_res_square")),
)
_add(
    "norm",
    "Stream norm",
    "token mean of the L2 norm of each stream (D14)",
    lambda c: _streams(c.mean("norm"), c.n_streams),
    axes="site,stream",
    rows="state",
)
_add(
    "rms_norm",
    "Stream RMS norm",
    "root of the token mean of the squared L2 norm of each stream (D14)",
    lambda c: _streams(geometry.stream_norm(c.mean("gram")), c.n_streams),
    axes="site,stream",
    rows="state",
)
_add(
    "norm_share",
    "Norm share",
    "mean norm of stream s / sum over streams (ratio_of_means; D14)",
    lambda c: geometry.norm_share(_streams(c.mean("norm"), c.n_streams)),
    axes="site,stream",
    rows="state",
)
_add(
    "cosine",
    "Inter-stream cosine",
    "token mean of cos(x_s, x_r) (D16)",
    lambda c: c.mean("cosine"),
    axes="site,stream,other",
    rows="state",
)
_add(
    "mean_cosine",
    "Mean inter-stream cosine",
    "token mean of cos(x_s, x_r), averaged over pairs s != r (D16)",
    _mean_cosine,
    rows="state",
)
_add(
    "differential_energy",
    "Differential energy",
    "token mean of 1 - n |mean_s x_s|^2 / sum_s |x_s|^2 (D16)",
    lambda c: c.mean("differential_energy"),
    rows="state",
)
_add(
    "curvature",
    "Token curvature",
    "mean angle between x[t+1] - x[t] and x[t+2] - x[t+1], degrees (difference; D15)",
    lambda c: torch.rad2deg(c.mean("curvature")),
    axes="site,stream",
    rows="state",
)
_add(
    "position_curvature",
    "Token curvature (position)",
    "mean angle between x[t] and x[t+1], degrees (position; D15p)",
    lambda c: torch.rad2deg(c.mean("position_curvature")),
    axes="site,stream",
    rows="state",
)


def quantity(name: str, capture: Capture) -> Tensor:
    """Values of a named quantity: ``[sites, ...]`` or ``[sites + 1, ...]`` float64."""
    if name not in QUANTITIES:
        raise ValueError(f"quantity: name: expected one of {', '.join(QUANTITIES)}, got {name!r}")
    return QUANTITIES[name].compute(capture)


def needs_streams(name: str) -> bool:
    """Whether a quantity describes the streams too, and not the coefficients alone."""
    return QUANTITIES[name].rows == "state" or name in ("read_signal_share", "relative_update")
