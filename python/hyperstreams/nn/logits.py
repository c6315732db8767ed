"""Settings under which the coefficients op gives out the logits that coefficients are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from ..mixers import Mixer, get_mixer
from ..ops import Activation


@dataclass(frozen=True)
class MixerLogits(Mixer):
    """A mixer's logits in place of its matrix: ``map`` is the identity, all else is ``of``'s."""

    name: ClassVar[str] = "logits"
    paper: ClassVar[str] = "of the mixer that it stands for"

    of: Mixer

    def logit_count(self, n: int) -> int:
        return self.of.logit_count(n)

    def static_logit_count(self, n: int) -> int:
        return self.of.static_logit_count(n)

    def group_sizes(self, n: int) -> tuple[int, ...]:
        return self.of.group_sizes(n)

    def initial_logits(self, n: int) -> Tensor:
        return self.of.initial_logits(n)

    def map(self, logits: Tensor, n: int) -> Tensor:
        return logits


def _bare(activation: Activation, n: int) -> Activation:
    if activation.logit_count(n) != n:
        raise ValueError(
            f"Connection.logits: activation: expected one of n logits, got {activation.kind!r}"
        )
    if activation.form == "inside":
        return Activation()
    return replace(activation, factor=1.0, offset=0.0)


def logit_settings(boundary: Mapping[str, Any]) -> dict[str, Any]:
    """``boundary``, arguments of ``ops.site_coefficients``, such that it returns logits.

    ``alpha z + b`` where the activation comes after, ``alpha act(z) + b`` where it comes before.
    Raises ValueError for activations that take n*n logits to n coefficients.
    """
    n = boundary["n_streams"]
    return {
        **boundary,
        "mixer": MixerLogits(get_mixer(boundary["mixer"])),
        "read_activation": _bare(boundary["read_activation"], n),
        "write_activation": _bare(boundary["write_activation"], n),
    }
