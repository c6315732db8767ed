"""Plain data that describes how logits become coefficients. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

ActivationKind = Literal[
    "none", "sigmoid", "tanh", "softmax", "row_softmax_mean", "column_softmax_sum"
]
ActivationForm = Literal["inside", "outside"]
EpsPosition = Literal["inside", "outside", "floor"]


@dataclass(frozen=True)
class Activation:
    """Map from scaled logits to coefficients, elementwise where it is no softmax.

    ``form="inside"``:  ``factor * act(alpha * z + b) + offset``   (mHC, 2512.24880 eq. 16-18)
    ``form="outside"``: ``factor * (alpha * act(z) + b) + offset`` (HC, 2409.19606 dynamic form)

    ``z`` is the normalised logit, ``alpha`` its group's scale and ``b`` its bias.

    For reading and writing only, computed in PyTorch, ``inside`` only:
    ``"softmax"`` is over the n streams. Two take n*n logits Z, row-major, in place of n (JPmHC,
    2602.18308): ``"row_softmax_mean"``, ``h[i] = (1/n) sum_j softmax_i Z[j, i]``, reads the mean of
    n mixed streams; ``"column_softmax_sum"``, ``h[j] = sum_i softmax_j Z[j, i]``, writes a mixture
    of n copies. A temperature is a factor of alpha and b.
    """

    kind: ActivationKind = "none"
    form: ActivationForm = "inside"
    factor: float = 1.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        kinds = get_args(ActivationKind)
        if self.kind not in kinds:
            raise ValueError(
                f"Activation: kind must be one of {', '.join(kinds)}, got {self.kind!r}"
            )
        if self.form not in ("inside", "outside"):
            raise ValueError(f"Activation: form must be 'inside' or 'outside', got {self.form!r}")
        if self.form == "outside" and self.is_softmax:
            raise ValueError(f"Activation: form must be 'inside' with kind {self.kind!r}")

    @property
    def is_softmax(self) -> bool:
        """Whether the kind is one of the softmaxes: not elementwise, not fused."""
        return self.kind not in ("none", "sigmoid", "tanh")

    def logit_count(self, n: int) -> int:
        """Logits that make the n read or write coefficients."""
        return n * n if self.kind in ("row_softmax_mean", "column_softmax_sum") else n


READ_ACTIVATION = Activation("sigmoid")
"""mHC's read weights: sigmoid(alpha z + b), in (0, 1)."""

WRITE_ACTIVATION = Activation("sigmoid", factor=2.0)
"""mHC's write weights: 2 sigmoid(alpha z + b), in (0, 2)."""

MIX_ACTIVATION = Activation("none")
"""Mixer logits reach the mixer's map as alpha z + b."""
