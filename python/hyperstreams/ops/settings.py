"""Plain data that describes how logits become coefficients. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ActivationKind = Literal["none", "sigmoid", "tanh"]
ActivationForm = Literal["inside", "outside"]
EpsPosition = Literal["inside", "outside", "floor"]


@dataclass(frozen=True)
class Activation:
    """Elementwise map from scaled logits to coefficients.

    ``form="inside"``:  ``factor * act(alpha * z + b) + offset``   (mHC, 2512.24880 eq. 16-18)
    ``form="outside"``: ``factor * (alpha * act(z) + b) + offset`` (HC, 2409.19606 dynamic form)

    ``z`` is the normalised logit, ``alpha`` its group's scale and ``b`` its bias.
    """

    kind: ActivationKind = "none"
    form: ActivationForm = "inside"
    factor: float = 1.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in ("none", "sigmoid", "tanh"):
            raise ValueError(
                f"Activation: kind must be 'none', 'sigmoid' or 'tanh', got {self.kind!r}"
            )
        if self.form not in ("inside", "outside"):
            raise ValueError(f"Activation: form must be 'inside' or 'outside', got {self.form!r}")


READ_ACTIVATION = Activation("sigmoid")
"""mHC's read weights: sigmoid(alpha z + b), in (0, 1)."""

WRITE_ACTIVATION = Activation("sigmoid", factor=2.0)
"""mHC's write weights: 2 sigmoid(alpha z + b), in (0, 2)."""

MIX_ACTIVATION = Activation("none")
"""Mixer logits reach the mixer's map as alpha z + b."""
