"""Other initial values than the published ones for a connection."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from .._errors import check_choice
from ..ops import Activation
from .config import ConnectionConfig
from .family import Plan
from .registry import get_connection

STARTS = ("published", "residual")
"""Initial values of a connection's coefficients: its own, or :func:`residual_start`."""


def residual_start(
    connection: str | ConnectionConfig, *, n_streams: int, spread: float = 0.5
) -> ConnectionConfig:
    """``connection`` with initial values that compute the plain residual network.

    Reads are ``1/n`` of every stream, writes have mean 1, ``h_res`` has source sums of 1, and no
    coefficient depends on the token yet. The mean of the streams then follows ``h + branch(h)``
    from any expansion whose mean is the embedding, to a reduction by the mean with the norm after
    it. So a pretrained residual model can be wrapped without a change of its logits beyond
    rounding. Mixers with eps in their divisors (``deepseek_v4``, ``megatron``, ``liger``) have
    source sums of about 1 - 1e-6, and so the mean of the streams drifts by about 1e-6 of itself per
    site. The streams differ all the same: the designated one is written ``1 + spread``, the others
    ``1 - spread / (n - 1)``, without which they would stay equal for ever.

    Raises ValueError where no such values exist: writes that cannot have mean 1, mixers whose
    source sums are not 1 at their initial logits.
    """
    config = get_connection(connection)
    where = f"residual_start: connection {config.name!r}"
    config.check(n_streams)
    others = 1.0 if n_streams == 1 else 1.0 - spread / (n_streams - 1)
    designated = 1.0 if n_streams == 1 else 1.0 + spread
    reads = (1.0 / n_streams,) * 2
    h_res = config.mixer.map(_mixer_logits(config, n_streams), n_streams)
    if h_res is not None and (h_res.sum(-2) - 1.0).abs().max() > 1e-5:
        raise ValueError(
            f"{where}: mixer: expected source sums of 1 at the initial logits, "
            f"got {[round(s, 4) for s in h_res.sum(-2).tolist()]}"
        )
    read_bias = _biases(config.read_activation, reads, config.alpha, n_streams, f"{where}: read")
    write_bias = _biases(
        config.write_activation, (others, designated), config.alpha, n_streams, f"{where}: write"
    )
    # Without a designated stream the writes would have another mean.
    designate = "random" if config.designate == "none" else config.designate
    return replace(
        config, read_bias=read_bias, write_bias=write_bias, phi_init=0.0, designate=designate
    )


def started(config: ConnectionConfig, plan: Plan) -> ConnectionConfig:
    """``config`` with the initial values that the plan asks for."""
    check_choice("connection", "start", plan.start, STARTS)
    if plan.start == "residual":
        if plan.designate == "none":
            raise ValueError(
                "connection: designate: expected a designated stream with start='residual', "
                "got 'none'"
            )
        config = residual_start(config, n_streams=plan.n_streams)
    if plan.phi_std is None:
        return config
    if config.norm == "none":
        raise ValueError(
            f"connection {config.name!r}: phi_std: expected None for static coefficients, "
            f"got {plan.phi_std}"
        )
    return replace(config, phi_init=plan.phi_std)


def _mixer_logits(config: ConnectionConfig, n_streams: int) -> Tensor:
    logits = config.mixer.initial_logits(n_streams).double()
    act = config.mix_activation
    value = act.factor * _of_zero(act, logits, config.alpha) + act.offset
    return value if isinstance(value, Tensor) else torch.full_like(logits, value)


def _of_zero(act: Activation, bias: Tensor, alpha: float) -> Tensor:
    """``act`` before factor and offset, of logits that are 0."""
    function = {"none": lambda z: z, "sigmoid": torch.sigmoid, "tanh": torch.tanh}[act.kind]
    if act.form == "outside":
        return alpha * function(torch.zeros(())) + bias
    return function(bias)


def _biases(
    act: Activation, values: tuple[float, float], alpha: float, n_streams: int, where: str
) -> tuple[float, float]:
    """The biases at which logits of 0 give ``values`` (of other streams, of the designated)."""
    if act.is_softmax:
        # Equal logits give equal weights, whose sum the softmax fixes.
        total = act.factor * (n_streams if act.kind == "column_softmax_sum" else 1)
        if abs(total / n_streams + act.offset - sum(values) / 2) > 1e-6 or values[0] != values[1]:
            raise ValueError(
                f"{where}: expected weights {values[0]:.3g} and {values[1]:.3g}, which the "
                f"activation {act.kind!r} cannot give"
            )
        return (0.0, 0.0)
    return (
        _bias(act, values[0], alpha, where),
        _bias(act, values[1], alpha, where),
    )


def _bias(act: Activation, value: float, alpha: float, where: str) -> float:
    inner = (value - act.offset) / act.factor
    if act.form == "outside":
        return inner - alpha * (0.5 if act.kind == "sigmoid" else 0.0)
    if act.kind == "none":
        return inner
    low, high = (0.0, 1.0) if act.kind == "sigmoid" else (-1.0, 1.0)
    if not low < inner < high:
        raise ValueError(
            f"{where}: expected a weight of {value:.3g}, got an activation with values between "
            f"{act.factor * low + act.offset:.3g} and {act.factor * high + act.offset:.3g}"
        )
    return math.log(inner / (1.0 - inner)) if act.kind == "sigmoid" else math.atanh(inner)
