"""The op between two sites."""

from __future__ import annotations

import torch
from torch import Tensor

from ..mixers import Mixer, get_mixer
from ._backend import has_kernels
from ._ops import boundary as _boundary
from ._ops.coefficients import IDENTITY
from ._ops.project import EPS_POSITIONS
from ._prepared_settings import prepare
from ._register import graph_constant
from ._validate import (
    CoefficientShapes,
    check_coefficient,
    check_parameter,
    check_pending_write,
    check_project,
    check_streams,
    fail,
)
from .functional import coefficients, mix_write, project, read
from .settings import MIX_ACTIVATION, READ_ACTIVATION, WRITE_ACTIVATION, Activation


def boundary(
    x: Tensor,
    y: Tensor | None,
    h_res: Tensor | None,
    h_post: Tensor | None,
    phi: Tensor | None,
    norm_weight: Tensor | None,
    alpha: Tensor,
    bias: Tensor,
    *,
    n_streams: int,
    mixer: str | Mixer = "sinkhorn",
    read_activation: Activation = READ_ACTIVATION,
    write_activation: Activation = WRITE_ACTIVATION,
    mix_activation: Activation = MIX_ACTIVATION,
    per_stream: bool = False,
    eps: float = 1e-6,
    eps_position: str = "inside",
    centred: bool = False,
    write_bias: Tensor | None = None,
    read_weights: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """Finish the last site's write and start the next site, as one op.

    The composition :func:`mix_write` (when there is a pending ``y``), :func:`project`,
    :func:`coefficients`, :func:`read`, as documented there; logits and u come from x' as stored.
    With kernels for the mixer it is one pass over the streams, forward and backward: x is read
    once and x' written once, and backward rebuilds x' from x and y. On a GPU it is two for up to 4
    streams, and above them the ops one by one.

    Parameters
    ----------
    x, y, h_res, h_post, write_bias : the pending write, see :func:`mix_write` (whose ``bias`` is
        ``write_bias``). ``y=None`` (before the first site): x' is x, and h_res and h_post are None.
    phi, norm_weight, eps, eps_position : the next site's controller, see :func:`project`.
        ``phi=None``: static coefficients, from ``bias`` alone.
    alpha, bias, n_streams, mixer, read_activation, write_activation, mix_activation, per_stream :
        the next site's coefficients, see :func:`coefficients`. ``per_stream=True`` normalises and
        projects each stream on its own: ``phi [2 + n, C]``, ``norm_weight [C]``.
    centred : the controller subtracts the mean of what it normalises: a LayerNorm instead of an
        RMS norm, by one more pass over x in PyTorch.
    read_weights : ``[..., n]`` or ``[n]``: read with these instead of ``h_pre``, which is returned
        for later use (DeepSeek-V4.1 reads with the previous site's).

    Returns
    -------
    (x', u, h_pre, h_post, h_res) : the streams ``[..., n, C]``, the branch input ``[..., C]`` and
        the next site's coefficients, static ones without token axes.

    Raises ValueError for shapes, devices and settings that do not fit and for a ``y`` without
    ``h_post``, TypeError for dtypes.
    A mixer without kernels, a softmax for reading or writing and ``centred`` take
    the ops one by one.
    Source: mHC, 2512.24880, eq. 3 and 14-19.
    """
    shape = check_streams("boundary", x)
    if y is not None:
        if h_post is None:
            fail(ValueError, "boundary", "h_post", "[..., n] or [n] beside y", None)
        check_pending_write("boundary", x, y, h_res, h_post, write_bias, "write_bias")
    else:
        for argument, value in (("h_res", h_res), ("h_post", h_post), ("write_bias", write_bias)):
            if value is not None:
                fail(ValueError, "boundary", argument, "None without y", type(value).__name__)
    if read_weights is not None:
        check_coefficient("boundary", "read_weights", read_weights, "n", shape[:-1], 1, x)
    if n_streams != shape[-2]:
        fail(ValueError, "boundary", "n_streams", f"{shape[-2]}, the streams of x", repr(n_streams))
    chosen = get_mixer(mixer)
    settings = (
        chosen,
        n_streams,
        read_activation,
        write_activation,
        mix_activation,
        per_stream,
    )
    shapes, encoded = prepare(*settings)
    _check_controller(x, phi, norm_weight, alpha, bias, shapes, eps, eps_position)
    if phi is not None and encoded is not None and not centred and has_kernels("boundary", x, y):
        x_out, u, h_pre, next_post, next_res = _boundary.boundary(
            x, y, h_res, h_post, write_bias,
            phi, norm_weight, alpha, bias, read_weights,
            graph_constant(eps), EPS_POSITIONS.index(eps_position), encoded, settings,
        )  # fmt: skip
        has_mix = encoded.map != IDENTITY
        return x if y is None else x_out, u, h_pre, next_post, next_res if has_mix else None
    if phi is not None and y is not None:
        assert h_post is not None  # checked
        x, y = mix_write(x, y, h_res, h_post, bias=write_bias), None
    h_pre, next_post, next_res = site_coefficients(
        x,
        phi,
        norm_weight,
        alpha,
        bias,
        n_streams=n_streams,
        mixer=chosen,
        read_activation=read_activation,
        write_activation=write_activation,
        mix_activation=mix_activation,
        per_stream=per_stream,
        eps=eps,
        eps_position=eps_position,
        centred=centred,
    )
    weights = h_pre if read_weights is None else read_weights
    x, u = _write_and_read(x, y, h_res, h_post, write_bias, weights)
    return x, u, h_pre, next_post, next_res


def _write_and_read(
    x: Tensor,
    y: Tensor | None,
    h_res: Tensor | None,
    h_post: Tensor | None,
    write_bias: Tensor | None,
    weights: Tensor,
) -> tuple[Tensor, Tensor]:
    """``(x', u)`` of checked arguments; one pass where there is a write and there are kernels."""
    if y is None:
        return x, read(x, weights)
    assert h_post is not None  # checked
    if has_kernels("boundary", x, y):
        controller = (None,) * 4
        arguments = (x, y, h_res, h_post, write_bias, *controller, weights)
        outputs = _boundary.boundary(*arguments, 0.0, 0, None, ())
        return outputs[0], outputs[1]
    x = mix_write(x, y, h_res, h_post, bias=write_bias)
    return x, read(x, weights)


def _check_controller(
    x: Tensor,
    phi: Tensor | None,
    norm_weight: Tensor | None,
    alpha: Tensor,
    bias: Tensor,
    shapes: CoefficientShapes,
    eps: float,
    eps_position: str,
) -> None:
    """The next site's parameters."""
    if phi is not None:
        n, width = x.shape[-2:]
        features = width if shapes.per_stream else n * width
        check_project("boundary", x, phi, norm_weight, features, eps)
        logits = shapes.tail[-1]
        if phi.shape[0] != logits:
            fail(
                ValueError, "boundary", "phi",
                f"[K, ...] with K = {logits} for {shapes.description}",
                f"shape {tuple(phi.shape)}",
            )  # fmt: skip
    if eps_position not in EPS_POSITIONS:
        fail(
            ValueError, "boundary", "eps_position", "'inside', 'outside' or 'floor'",
            repr(eps_position),
        )  # fmt: skip
    check_parameter("boundary", "alpha", alpha, "2 + groups", (shapes.alpha,), x)
    check_parameter("boundary", "bias", bias, "K", (shapes.bias,), x)


def site_coefficients(
    x: Tensor,
    phi: Tensor | None,
    norm_weight: Tensor | None,
    alpha: Tensor,
    bias: Tensor,
    *,
    n_streams: int,
    mixer: str | Mixer = "sinkhorn",
    read_activation: Activation = READ_ACTIVATION,
    write_activation: Activation = WRITE_ACTIVATION,
    mix_activation: Activation = MIX_ACTIVATION,
    per_stream: bool = False,
    eps: float = 1e-6,
    eps_position: str = "inside",
    centred: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """``(h_pre, h_post, h_res)`` of a site on streams x: :func:`project`, :func:`coefficients`.

    The arguments are those of :func:`boundary`.
    """
    if phi is None:
        static = get_mixer(mixer).static_logit_count(n_streams)
        logits = torch.zeros_like(bias[: bias.shape[-1] - static])
        inv_rms, per_stream = None, False
    else:
        source = x.unsqueeze(-2) if per_stream else x
        if centred:
            source = source.to(phi.dtype)
            source = source - source.mean(dim=(-2, -1), keepdim=True)
        logits, inv_rms = project(source, phi, norm_weight, eps=eps, eps_position=eps_position)
    return coefficients(
        logits,
        inv_rms,
        alpha,
        bias,
        n_streams=n_streams,
        mixer=mixer,
        read_activation=read_activation,
        write_activation=write_activation,
        mix_activation=mix_activation,
        per_stream=per_stream,
    )
