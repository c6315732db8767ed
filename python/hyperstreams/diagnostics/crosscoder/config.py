"""Settings of a crosscoder and of its training; every one of them is stored with the result."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ..._errors import check_choice

Activation = Literal["l1", "topk", "batch_topk"]
Weighting = Literal["sum_of_norms", "concatenated_norm"]
Norm = Literal["none", "global", "site"]


@dataclass(frozen=True)
class CrosscoderConfig:
    """What a crosscoder is and how it is trained. Defaults: small scale, a few CPU minutes.

    n_latents : m, size of the dictionary.
    activation : ``batch_topk`` keeps the ``batch * k`` largest ``f_j sum_i |W_dec[j, i]|`` of a
        batch (a threshold at inference); ``topk`` the k largest of every token; ``l1`` is a ReLU
        with the penalty ``l1_weight * sum_j f_j w_j``. L1 shrinks a shared latent's decoder at some
        sites to zero and splits concepts between sites, both of which look like features that live
        in one stream: read it beside a top-k coder, never alone.
    l1_weighting : ``w_j``: ``sum_of_norms`` is ``sum_i |W_dec[j, i]|``, as costly for one spread
        latent as for one latent per site; ``concatenated_norm`` is ``|W_dec[j]|`` over all sites
        together, which makes spreading cheaper.
    norm : ``site`` scales every site to mean norm ``sqrt(width)``; ``global`` all sites by one
        number (relative norms stay, and a stream of large norm attracts the features by
        construction); ``none``. ``centre`` also removes the mean of every site.
    decoder_norm : norm of every decoder row at every site at the start.
    l1_ramp, lr_decay : share of the steps over which the penalty rises at the start, and over
        which the learning rate falls to 0 at the end.
    threshold_decay, threshold_start : moving average of the smallest kept score (None: 0.999, or
        the last twentieth of a short run), and the step it starts at (None: 1000, or a tenth).
    aux_weight, aux_k, dead_tokens : the ``aux_k`` strongest (None: width / 2) of the latents that
        were silent for ``dead_tokens`` tokens (None: 2e5, or a tenth of a short run) reconstruct
        what the others left over; 0 switches this off. Never applied to ``l1``.
    """

    n_latents: int = 1024
    activation: Activation = "batch_topk"
    k: int = 16
    l1_weight: float = 2.0
    l1_weighting: Weighting = "sum_of_norms"
    norm: Norm = "site"
    centre: bool = False
    steps: int = 500
    batch_size: int = 1024
    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    grad_clip: float = 1.0
    decoder_norm: float = 0.08
    l1_ramp: float = 0.05
    lr_decay: float = 0.2
    threshold_decay: float | None = None
    threshold_start: int | None = None
    aux_weight: float = 1 / 32
    aux_k: int | None = None
    dead_tokens: int | None = None
    log_every: int = 50
    checkpoint_every: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        for name, known in (("activation", Activation), ("l1_weighting", Weighting)):
            check_choice("CrosscoderConfig", name, getattr(self, name), get_args(known))
        check_choice("CrosscoderConfig", "norm", self.norm, get_args(Norm))
        for name in ("n_latents", "k", "steps", "batch_size", "log_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"CrosscoderConfig: {name}: expected at least 1, got {getattr(self, name)}"
                )
        if self.k > self.n_latents:
            raise ValueError(
                f"CrosscoderConfig: k: expected at most n_latents={self.n_latents}, got {self.k}"
            )
        for name in ("lr", "grad_clip", "decoder_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(
                    f"CrosscoderConfig: {name}: expected a positive number, "
                    f"got {getattr(self, name)}"
                )

    @property
    def tokens(self) -> int:
        """Tokens seen in training."""
        return self.steps * self.batch_size

    @property
    def threshold_average(self) -> float:
        """Decay of the threshold's moving average."""
        if self.threshold_decay is not None:
            return self.threshold_decay
        return min(0.999, max(0.0, 1 - 20 / self.steps))

    @property
    def first_threshold_step(self) -> int:
        if self.threshold_start is not None:
            return self.threshold_start
        return min(1000, self.steps // 10)

    @property
    def dead_after(self) -> int:
        """Silent tokens after which a latent counts as dead."""
        if self.dead_tokens is not None:
            return self.dead_tokens
        return max(1, min(200_000, self.tokens // 10))

    def flat(self) -> dict[str, Any]:
        """All settings as JSON values."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_flat(values: dict[str, Any]) -> CrosscoderConfig:
        """The inverse of :meth:`flat`."""
        return CrosscoderConfig(**values)
