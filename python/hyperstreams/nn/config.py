"""Connections as data: what distinguishes one published variant from another."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from .._errors import check_choice
from ..init import DESIGNATION_SCHEMES
from ..mixers import Mixer
from ..ops import Activation
from ..ops.settings import MIX_ACTIVATION, READ_ACTIVATION, WRITE_ACTIVATION, EpsPosition


@dataclass(frozen=True)
class ConnectionConfig:
    """Everything that distinguishes one connection from another. Immutable data.

    name, paper : key in the registry and source.
    mixer : the family of ``h_res``.
    norm : what the controller normalises. ``"all"``: all n C entries of a token together (mHC);
        ``"per_stream"``: every stream by itself, whose coefficients then depend on that stream
        alone (HC); ``"none"``: no controller, static coefficients.
    norm_weight : the RMS norm has a learned weight, initially 1.
    eps, eps_position : of the RMS norm; see ``ops.project``.
    centred : subtract the mean first, which makes it a LayerNorm.
    read_activation, write_activation, mix_activation : logits to coefficients.
    alpha_groups : index of the scale that read, write and each mixer group use; None: one each.
    alpha : initial value of the scales.
    read_bias, write_bias : initial static logits ``(other streams, designated one)``. The mixer's
        come from ``mixer.initial_logits``. ``read_bias="mean"``: ``-log(n - 1)`` for all, whose
        sigmoid is 1/n (8 for n = 1, where that would be infinite).
    phi_init : initial values of the projection ``phi``: normal of this standard deviation (0: all
        zero), or ``"xavier"``: Xavier-uniform over ``[K, n C]``.
    phi_per_input : ``phi_init`` is divided by the square root of phi's number of columns.
    designate : scheme that picks the designated stream; see ``init.designated_stream``.
    reduce, final_norm : how models published with it end, as ``GPTConfig`` has them: the scheme of
        :class:`ReduceStreams`, and whether the final norm comes before or after it.
    trainable : False keeps the coefficients at their initial values.
    static_decay : the released code keeps the static logits in a matrix, which its rule "decay what
        has two or more dimensions" therefore decays (optimiser policy ``"paper"``).
    """

    name: str
    paper: str
    mixer: Mixer
    norm: Literal["all", "per_stream", "none"] = "all"
    norm_weight: bool = False
    eps: float = 1e-6
    eps_position: EpsPosition = "inside"
    centred: bool = False
    read_activation: Activation = READ_ACTIVATION
    write_activation: Activation = WRITE_ACTIVATION
    mix_activation: Activation = MIX_ACTIVATION
    alpha_groups: tuple[int, ...] | None = None
    alpha: float = 0.01
    read_bias: tuple[float, float] | Literal["mean"] = (-1.0, 1.0)
    write_bias: tuple[float, float] = (-1.0, 1.0)
    phi_init: float | Literal["xavier"] = 0.0
    phi_per_input: bool = False
    designate: str = "random"
    reduce: str = "sum"
    final_norm: Literal["before_reduce", "after_reduce"] = "before_reduce"
    trainable: bool = True
    static_decay: bool = False

    def __post_init__(self) -> None:
        where = f"connection {self.name!r}"
        check_choice(where, "norm", self.norm, ("all", "per_stream", "none"))
        check_choice(where, "eps_position", self.eps_position, ("inside", "outside", "floor"))
        check_choice(where, "designate", self.designate, DESIGNATION_SCHEMES)
        if self.mix_activation.is_softmax:
            raise ValueError(
                f"{where}: mix_activation: expected an elementwise one (mixer 'row_softmax' is a "
                f"softmax), got {self.mix_activation.kind!r}"
            )
        matrices = {self.read_activation.kind, self.write_activation.kind}
        if self.norm == "per_stream" and matrices & {"row_softmax_mean", "column_softmax_sum"}:
            raise ValueError(
                f"{where}: norm: 'per_stream' gives one logit per stream for reading and writing, "
                "but these activations take n*n; expected 'all' or 'none'"
            )
        if self.phi_init != "xavier" and not (
            isinstance(self.phi_init, int | float) and self.phi_init >= 0
        ):
            raise ValueError(
                f"{where}: phi_init: expected a standard deviation >= 0 or 'xavier', "
                f"got {self.phi_init!r}"
            )
        if self.norm == "per_stream" and getattr(self.mixer, "orientation", None) == "source_rows":
            raise ValueError(
                f"{where}: mixer: norm 'per_stream' gives logits with destinations as rows; "
                "expected orientation='destination_rows', got 'source_rows'"
            )

    def initial_read(self, n: int) -> tuple[float, float]:
        """``read_bias`` as numbers."""
        if self.read_bias == "mean":
            logit = -math.log(n - 1) if n > 1 else 8.0
            return logit, logit
        return self.read_bias

    def logit_count(self, n: int) -> int:
        """Length K of the bias: read, write and mixer logits."""
        ends = (self.read_activation, self.write_activation)
        return sum(end.logit_count(n) for end in ends) + self.mixer.logit_count(n)

    def check(self, n_streams: int) -> None:
        """Raise ValueError when this connection does not exist for ``n_streams`` streams."""
        mixer = self.mixer
        mixer.check(n_streams)
        dynamic = mixer.logit_count(n_streams) - mixer.static_logit_count(n_streams)
        if self.norm == "per_stream" and dynamic != n_streams**2:
            raise ValueError(
                f"connection {self.name!r}: norm: 'per_stream' gives one mixer logit per entry of "
                f"h_res, which mixer {mixer.name!r} does not take; expected 'all' or 'none'"
            )
        groups = 2 + len(mixer.group_sizes(n_streams))
        if self.alpha_groups is not None and len(self.alpha_groups) != groups:
            raise ValueError(
                f"connection {self.name!r}: alpha_groups: expected {groups} indices (read, write, "
                f"mixer groups), got {self.alpha_groups}"
            )
