"""Exactly doubly stochastic H_res as a Kronecker product of small mixtures (KromHC, 2601.21579)."""

from __future__ import annotations

from dataclasses import dataclass
from math import factorial, prod
from typing import Literal

import torch
from torch import Tensor

from .base import Mixer
from .permutation import Permutation

LARGEST_FACTOR = Permutation.max_streams


def prime_factors(n: int) -> tuple[int, ...]:
    """The prime factors of ``n >= 1`` in ascending order; 1 has none."""
    factors, rest, prime = [], n, 2
    while rest > 1:
        while rest % prime == 0:
            factors.append(prime)
            rest //= prime
        prime += 1
    return tuple(factors)


@dataclass(frozen=True)
class Kronecker(Mixer):
    """``M = U_1 (x) ... (x) U_K``, ``n = i_1 ... i_K``, with U_1 outermost.

    ``U_k [i_k, i_k]`` is the mixture of all ``i_k!`` permutations of mixer ``permutation`` with
    logits of its own; order of the logits: factor by factor, lexicographic within one. A factor of
    2 is ``[[p, 1 - p], [1 - p, p]]``.

    factors : ``(i_1, ..., i_K)``, each 2 to 5. None: the prime factors of n in ascending order,
        which for a power of two are all 2, the only factorisation that the released code has. An n
        with a larger prime factor (7, 11, 13, 14) has no factorisation.
    orientation : ``"destination_rows"``: h_res = M. ``"source_rows"``: h_res = M transposed. They
        are the same where all factors are 2: M is then symmetric, and all such M commute.
    """

    name = "kronecker"
    paper = "KromHC, 2601.21579; factors other than 2 by the paper alone"
    invariants = frozenset({"doubly_stochastic", "nonnegative"})
    fused_map = "kronecker"

    factors: tuple[int, ...] | None = None
    orientation: Literal["destination_rows", "source_rows"] = "destination_rows"

    def __post_init__(self) -> None:
        if self.factors is not None:
            object.__setattr__(self, "factors", tuple(self.factors))
            if not all(isinstance(i, int) and 2 <= i <= LARGEST_FACTOR for i in self.factors):
                raise ValueError(
                    f"mixer 'kronecker': factors must be integers in 2..{LARGEST_FACTOR} (a factor "
                    f"i has i! logits), got {self.factors}"
                )
        if self.orientation not in ("destination_rows", "source_rows"):
            raise ValueError(
                "mixer 'kronecker': orientation must be 'destination_rows' or 'source_rows', "
                f"got {self.orientation!r}"
            )

    def stated_invariants(self) -> frozenset[str]:
        if self.factors is not None and set(self.factors) <= {2}:
            return self.invariants | {"symmetric", "commuting"}
        return self.invariants

    def factors_of(self, n: int) -> tuple[int, ...]:
        """The factorisation used for ``n`` streams."""
        return prime_factors(n) if self.factors is None else self.factors

    def check(self, n: int) -> None:
        super().check(n)
        if self.factors is not None and prod(self.factors) != n:
            raise ValueError(
                f"mixer 'kronecker': factors must multiply to n_streams = {n}, got {self.factors} "
                f"with product {prod(self.factors)}; None takes the prime factors "
                f"{prime_factors(n)}"
            )
        if max(self.factors_of(n), default=1) > LARGEST_FACTOR:
            raise ValueError(
                f"mixer 'kronecker': n_streams = {n} has the prime factor {prime_factors(n)[-1]}, "
                f"whose factorial is its number of logits; factors go to {LARGEST_FACTOR}. Use "
                "mixer 'sinkhorn' for such n"
            )

    def logit_count(self, n: int) -> int:
        return sum(map(factorial, self.factors_of(n)))

    def initial_logits(self, n: int) -> Tensor:
        return torch.cat(
            [torch.zeros(0), *(Permutation().initial_logits(i) for i in self.factors_of(n))]
        )

    def map(self, logits: Tensor, n: int) -> Tensor:
        # The empty product, 1, as part of the graph also where there are no factors.
        m = 1.0 + logits[..., :0].sum(dim=-1)[..., None, None]
        factors = self.factors_of(n)
        mixture = Permutation(self.orientation)
        for i, part in zip(factors, logits.split(list(map(factorial, factors)), -1), strict=True):
            u = mixture.map(part, i)
            m = m[..., :, None, :, None] * u[..., None, :, None, :]
            m = m.flatten(-2).flatten(-3, -2)
        return m

    def fused_map_for(self, n: int) -> str | None:
        """A single factor is mixer ``permutation``, whose map is the faster one for it."""
        return "permutation" if len(self.factors_of(n)) == 1 else self.fused_map

    def fused_settings(self, n: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
        return (int(self.orientation == "source_rows"), *self.factors_of(n)), ()
