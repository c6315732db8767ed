"""Mixers in sequence: composites, how they contract differences between streams, gain and drift.

Everywhere ``h_res[destination, source]``; sites come first: ``h_res [K, ..., n, n]``. A
*destination sum* adds what one destination receives, a *source sum* what one source spends.
Implementations of the same mixer differ in which of the two is exact, so no function here says row
or column.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ..._errors import check_choice

Direction = Literal["from_start", "to_end"]
CompositeAverage = Literal["mean_of_products", "product_of_means"]
Side = Literal["destination", "source"]
GainDefinition = Literal["absolute_sum", "sum_of_absolutes"]

_SUMMED_AXIS: dict[str, int] = {"destination": -1, "source": -2}


def composites(h_res: Tensor, *, direction: Direction = "from_start") -> Tensor:
    """Products of neighbouring sites' mixers (D7): ``[K, ..., n, n] -> [K + 1, ..., n, n]``.

    ``from_start``: entry k is ``R[k-1] ... R[0]``, which takes the first state to the state before
    site k. ``to_end``: entry k is ``R[K-1] ... R[k]``, which takes that state to the readout. Both
    hold the identity where no mixer is crossed. Identities give the identity, permutations the
    permutation they compose to; permuting the streams permutes both axes. Null: none. Initial
    value: the same product of the initial mixers. Source: mHC (2512.24880), composite mappings.
    """
    check_choice("composites", "direction", direction, ("from_start", "to_end"))
    product = torch.eye(h_res.shape[-1], dtype=h_res.dtype, device=h_res.device)
    product = product.expand(h_res.shape[1:])
    chain = [product]
    if direction == "from_start":
        for mixer in h_res:
            chain.append(mixer @ chain[-1])
        return torch.stack(chain)
    for mixer in h_res.flip(0):
        chain.append(chain[-1] @ mixer)
    return torch.stack(chain[::-1])


def mean_composite(
    h_res: Tensor,
    *,
    direction: Direction = "from_start",
    average: CompositeAverage = "mean_of_products",
) -> Tensor:
    """Token mean of :func:`composites` (D7): ``[K, tokens..., n, n] -> [K + 1, n, n]``.

    ``mean_of_products`` follows every token and averages last; ``product_of_means`` multiplies the
    token means. They agree for mixers that do not depend on the token, and only the first is what
    the network does. Source: mHC (2512.24880) draws token means over one sequence.
    """
    check_choice("mean_composite", "average", average, ("mean_of_products", "product_of_means"))
    tokens = h_res.flatten(1, -3) if h_res.ndim > 3 else h_res.unsqueeze(1)
    if average == "product_of_means":
        return composites(tokens.mean(dim=1), direction=direction)
    return composites(tokens, direction=direction).mean(dim=1)


def difference_basis(n: int, *, like: Tensor) -> Tensor:
    """Orthonormal basis ``[n, n - 1]`` of the vectors over streams that sum to zero."""
    size = torch.arange(1, n, dtype=like.dtype, device=like.device)
    basis = like.new_ones(n, n - 1).triu() - torch.diag_embed(size, offset=-1)[:, : n - 1]
    return basis / (size * (size + 1)).sqrt()


def contraction(p: Tensor) -> Tensor:
    """Largest singular value among differences between streams (D8): ``[..., n, n] -> [...]``.

    ``|Q' P Q|_2`` with Q a basis of the vectors that sum to zero (:func:`difference_basis`): how
    much of what distinguishes streams can come through a mixer or composite. For doubly stochastic
    P it is ``|P - J/n|_2``, the second singular value. 0 for full averaging J/n (and for n = 1), 1
    for permutations and other orthogonal P; for circulant P the largest ``|DFT(p)[k]|``, k > 0.
    Unchanged when streams are permuted. Initial value of one site:
    :func:`uniform_contraction`; null: none (1 is "no mixing", 0 "streams averaged").
    Source: the composed factors of oHC (2609.02672) and of the circulant repository.
    """
    n = p.shape[-1]
    if n == 1:
        return torch.zeros_like(p[..., 0, 0])
    basis = difference_basis(n, like=p)
    return torch.linalg.matrix_norm(basis.T @ p @ basis, ord=2)


def uniform_contraction(off_diagonal_mass: float, n: int, *, sites: int = 1) -> float:
    """Contraction of ``sites`` equal mixers ``(1 - a) I + a J/n`` with that off-diagonal mass (D8).

    ``(1 - n/(n - 1) m) ** sites``: the initial value where every site starts from such a mixer.
    24 sites at n = 4 keep 0.825 with mHC-lite (m = 0.00599), 0.968 with mHC (m = 0.00101).
    """
    if n < 2:
        raise ValueError(f"uniform_contraction: n: expected at least 2, got {n}")
    return (1 - n / (n - 1) * off_diagonal_mass) ** sites


def smallest_singular_value(p: Tensor) -> Tensor:
    """``sigma_min(P)`` (D8): ``[..., n, n] -> [...]``; 0 when a combination of streams is lost.

    1 for orthogonal P, 0 for J/n. Unchanged when streams are permuted.
    """
    return torch.linalg.svdvals(p)[..., -1]


def dobrushin(h_res: Tensor, *, over: Side = "source") -> Tensor:
    """Dobrushin coefficient, half the largest L1 distance of two rows or columns (D8).

    ``over="source"``: ``max_{i, i'} 1/2 sum_j |R[j, i] - R[j, i']|``, for mixers whose source sums
    are 1; ``"destination"`` exchanges the axes. ``[..., n, n] -> [...]``. 0 for J/n, 1 for
    permutations; at most 1 for stochastic mixers and submultiplicative over products. Unchanged
    when streams are permuted. Initial value of one site as :func:`uniform_contraction`.
    """
    check_choice("dobrushin", "over", over, ("destination", "source"))
    compared = h_res.mT if over == "source" else h_res
    difference = compared.unsqueeze(-2) - compared.unsqueeze(-3)
    return 0.5 * difference.abs().sum(dim=-1).amax(dim=(-2, -1))


def contraction_bound(h_res: Tensor, *, over: Side = "source") -> Tensor:
    """``sqrt(n) prod_k tau(R[k])`` for the composites from the start (D8): ``[K + 1, ...]``.

    At least ``contraction(composites(h_res))`` when the sums over ``over`` are 1: tau contracts the
    L1 norm of vectors that sum to zero, which lies between the L2 norm and sqrt(n) times it.
    """
    tau = dobrushin(h_res, over=over)
    product = torch.cat([torch.ones_like(tau[:1]), tau.cumprod(dim=0)])
    return product * h_res.shape[-1] ** 0.5


def mixer_sums(p: Tensor, *, side: Side) -> Tensor:
    """What each destination receives, or each source spends (D9): ``[..., n, n] -> [..., n]``."""
    check_choice("mixer_sums", "side", side, ("destination", "source"))
    return p.sum(dim=_SUMMED_AXIS[side])


def amax_gain(
    p: Tensor,
    *,
    side: Side = "destination",
    definition: GainDefinition = "absolute_sum",
) -> Tensor:
    """Largest gain of a mixer or composite (D9): ``[..., n, n] -> [...]``.

    ``side="destination"`` is the forward gain ``max_j |sum_i P[j, i]|``, ``"source"`` the backward
    gain ``max_i |sum_j P[j, i]|``. ``definition="absolute_sum"`` takes the absolute value of the
    sum (the published statistic); ``"sum_of_absolutes"`` sums absolute values, the operator norm of
    P in the maximum or the L1 norm, never smaller and equal for non-negative P.
    1 for doubly stochastic P, ``2**K`` for K mixers 2I. Unchanged when streams are permuted.
    Initial value: that of the initial mixers, 1 for constrained ones; null: none.
    Source: mHC (2512.24880), Amax gain magnitude; composites of HC reach about 3000 there.
    """
    check_choice("amax_gain", "side", side, ("destination", "source"))
    check_choice("amax_gain", "definition", definition, ("absolute_sum", "sum_of_absolutes"))
    terms = p.abs() if definition == "sum_of_absolutes" else p
    return terms.sum(dim=_SUMMED_AXIS[side]).abs().amax(dim=-1)


def sum_drift(p: Tensor, *, side: Side) -> Tensor:
    """``max |sum - 1|`` over destinations or sources (D9): ``[..., n, n] -> [...]``.

    0 where the sums are exact: after a finite Sinkhorn iteration only the side normalised last is,
    the destinations in some code bases, the sources in others. Unchanged when streams are permuted.
    """
    return (mixer_sums(p, side=side) - 1).abs().amax(dim=-1)


def token_quantiles(values: Tensor, q: tuple[float, ...] = (0.05, 0.5, 0.95)) -> Tensor:
    """Quantiles over tokens of one number per site and token: ``[K, ...] -> [K, len(q)]``.

    Of gains, contractions, drifts (D9) or cosines (D20), whose tails an average hides.
    """
    # torch.quantile refuses long inputs; sorting does not. Positions as in its "linear".
    ordered = values.flatten(1).sort(dim=1).values
    place = torch.tensor(q, dtype=torch.float64) * (ordered.shape[1] - 1)
    below = place.floor().long()
    above = place.ceil().long()
    weight = (place - below).to(ordered)
    return ordered[:, below] * (1 - weight) + ordered[:, above] * weight


def histogram(values: Tensor, edges: Tensor) -> Tensor:
    """Counts of each site's values between edges: ``[K, ...], [bins + 1] -> [K, bins]`` int64.

    Bins hold ``edges[b] <= value < edges[b + 1]``; values outside are left out, so counts of
    batches add up. Of :func:`logit_range` (D10) it is the picture of ``log(1/nu)``.
    """
    bins = edges.numel() - 1
    place = torch.bucketize(values.flatten(1).contiguous(), edges.to(values), right=True) - 1
    inside = (place >= 0) & (place < bins)
    counts = torch.zeros(values.shape[0], bins, dtype=torch.int64, device=values.device)
    return counts.scatter_add(1, place.clamp(0, bins - 1), inside.long())


def logit_range(logits: Tensor, *, matrix: bool = False) -> Tensor:
    """``max - min`` of a token's mixer logits (D10): over the last axis, or two with ``matrix``.

    ``log(1/nu)`` of mHC-lite: ``nu`` is the smallest over the largest exponentiated logit, and
    Sinkhorn needs the more iterations the smaller it is. Constant logits give 0; a constant added
    to all changes nothing; permuting streams changes nothing. Initial value 8 where the identity
    starts at 0 and the rest at -8 (mHC, mHC-lite). Source: mHC-lite (2601.05732).
    """
    axes = (-2, -1) if matrix else (-1,)
    return logits.amax(dim=axes) - logits.amin(dim=axes)


def share_above(values: Tensor, threshold: float = 30.0) -> Tensor:
    """Fraction of tokens above ``threshold`` at each site (D10): ``[K, ...] -> [K]``.

    For :func:`logit_range`: above 30 a finite Sinkhorn iteration in single precision has not
    converged.
    """
    return (values.flatten(1) > threshold).double().mean(dim=1)
