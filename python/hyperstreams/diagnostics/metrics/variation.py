"""Where coefficients vary, and how much of them is static: variance by source, logits and decay."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class VarianceParts(NamedTuple):
    """What :func:`variance_decomposition` gives, ``[]`` each; the last three sum to the first."""

    total: Tensor
    sites: Tensor
    positions: Tensor
    tokens: Tensor


def variance_decomposition(share: Tensor) -> VarianceParts:
    """Total variance of shares by where it comes from (D27): ``[K, B, T, n]``.

    Between sites, between positions at a site, and between the tokens of a site and position
    (nested analysis of variance), each summed over streams. Constant shares give zeros; routing by
    content is all ``tokens``; a role that follows the position all ``positions``. Unchanged when
    streams are permuted. Initial value: nearly all ``sites`` when each site favours a stream of its
    own. Null: with B windows, ``1/B`` of the token variance appears as ``positions`` by chance.
    """
    if share.ndim != 4:
        raise ValueError(
            f"variance_decomposition: share: expected [K, B, T, n], got {list(share.shape)}"
        )
    share = share.double()
    position = share.mean(dim=1, keepdim=True)
    site = position.mean(dim=2, keepdim=True)
    mean = site.mean(dim=0, keepdim=True)

    def energy(difference: Tensor) -> Tensor:
        return difference.square().sum(dim=-1).mean()

    return VarianceParts(
        energy(share - mean),
        energy(site - mean),
        energy(position - site),
        energy(share - position),
    )


def group_means(share: Tensor, group: Tensor, groups: int) -> Tensor:
    """Mean share per group of tokens (D27): ``[K, N, n], [N] -> [K, groups, n]``; empty: nan.

    ``group`` holds integers below ``groups``: positions, buckets of token frequency, token types.
    """
    members = torch.nn.functional.one_hot(group, groups).to(share)
    return members.T @ share / members.sum(dim=0).unsqueeze(-1)


def explained_by_group(share: Tensor, group: Tensor, groups: int) -> Tensor:
    """Share of the token variance that lies between groups (D27): ``[K, N, n], [N] -> [K]``.

    1 when the group determines the share, 0 when all groups have the same mean. Null: groups that
    mean nothing explain ``(groups - 1) / (N - 1)``. Constant shares: 0.
    """
    mean = share.mean(dim=1, keepdim=True)
    fitted = group_means(share, group, groups)[:, group]
    total = (share - mean).square().sum(dim=(1, 2))
    between = (fitted - mean).square().sum(dim=(1, 2))
    return torch.where(total == 0, 0.0, between / torch.where(total == 0, 1.0, total))


def frequency_bucket(tokens: Tensor, counts: Tensor) -> Tensor:
    """``floor(log2(count))`` of each token's corpus count, 0 for unseen ones; for ``group``."""
    return counts[tokens].clamp_min(1).double().log2().floor().long()


def static_share(static: Tensor, dynamic: Tensor) -> Tensor:
    """``|b|^2 / (|b|^2 + E |d|^2)`` of logits ``z = b + d`` (D28): ``[m], [..., m] -> []``.

    ``static`` the bias of one site's logits (read, write or mixer), ``dynamic`` what the token
    adds, averaged over tokens. 1 with zero dynamic weights, 0 without static logits; both zero nan.
    Initial value: 1 where the dynamic part starts at zero; null: none.
    """
    fixed = static.double().square().sum()
    moving = dynamic.double().square().sum(dim=-1).mean()
    return fixed / (fixed + moving)


def logit_travel(logits: Tensor, reference: Tensor) -> Tensor:
    """Root mean square distance of static logits from a reference (D28): ``[..., m] -> [...]``.

    The reference is their initial value, or :func:`decay_path`'s last value: what decay alone does
    is not learned. 0 at initialisation.
    """
    return (logits - reference).square().mean(dim=-1).sqrt()


def decay_path(initial: Tensor, learning_rates: Tensor, weight_decay: float) -> Tensor:
    """Logits that only AdamW's decay moves (D28), the null of what looks learned.

    ``initial * prod_t (1 - lr_t decay)`` after each step: ``[m], [steps] -> [steps + 1, m]``.
    Published mHC keeps 0.85 of its mixer logits by this alone, where they are decayed.
    """
    factor = torch.cat(
        [learning_rates.new_ones(1), (1 - learning_rates * weight_decay).cumprod(dim=0)]
    )
    return factor.unsqueeze(-1) * initial


def travel_bound(learning_rates: Tensor) -> float:
    """``sum_t lr_t``: about the farthest that Adam can carry one logit (D28).

    Exact for updates no larger than the learning rate, which Adam's are but for sudden gradients.
    Published medium schedule: 3.3 in 10,000 steps, against logits that start at -8.
    """
    return math.fsum(learning_rates.tolist())
