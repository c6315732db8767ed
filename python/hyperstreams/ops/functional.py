"""Public ops: check the arguments, choose the back end, call it."""

from __future__ import annotations

from torch import Tensor

from ..mixers import Mixer, get_mixer
from . import reference, reference_stats
from ._backend import use_fused, without_autocast
from ._ops import coefficients as _coefficients
from ._ops import expand as _expand
from ._ops import mix_write as _mix_write
from ._ops import project as _project
from ._ops import read as _read
from ._ops import reduce as _reduce
from ._ops import stream_stats as _stream_stats
from ._ops.project import EPS_POSITIONS
from ._prepared_settings import prepare
from ._register import graph_constant
from ._validate import (
    check_branch,
    check_coefficient,
    check_coefficients,
    check_hidden,
    check_n_streams,
    check_parameter,
    check_pending_write,
    check_project,
    check_streams,
)
from .settings import MIX_ACTIVATION, READ_ACTIVATION, WRITE_ACTIVATION, Activation


def read(x: Tensor, h_pre: Tensor) -> Tensor:
    """Branch input from the streams: ``u[c] = sum_i h_pre[i] x[i, c]``.

    Parameters
    ----------
    x : streams ``[..., n, C]``, float32, bfloat16, float16 or float64; n in 1..16; any strides.
    h_pre : read weights ``[..., n]`` (per token) or ``[n]`` (static); float32, or float64 beside
        float64 streams.

    Returns
    -------
    u : ``[..., C]`` in x's dtype, contiguous; accumulated in float32 (float64), rounded once.

    Raises ValueError for shapes and devices that do not fit, TypeError for dtypes.
    Equivalent to ``torch.einsum("...i,...ic->...c", h_pre, x.float()).to(x.dtype)``.
    Source: mHC, 2512.24880, eq. 3 (H_pre x); Hyper-Connections, 2409.19606, eq. 3.
    """
    shape = check_streams("read", x)
    check_coefficient("read", "h_pre", h_pre, "n", shape[:-1], 1, x)
    if use_fused("read", x):
        return _read.read(x, h_pre)
    return without_autocast(reference.read, x, h_pre)


def mix_write(
    x: Tensor, y: Tensor, h_res: Tensor | None, h_post: Tensor, *, bias: Tensor | None = None
) -> Tensor:
    """Next streams: ``x'[j, c] = sum_i h_res[j, i] x[i, c] + h_post[j] (y[c] + bias[c])``.

    Parameters
    ----------
    x : streams ``[..., n, C]``, float32, bfloat16, float16 or float64; n in 1..16; any strides.
    y : branch output ``[..., C]`` in any of these dtypes.
    h_res : mixing matrix ``[..., n, n]`` (per token) or ``[n, n]`` (static), row j destination,
        column i source; None is the identity. float32, or float64 beside float64 streams.
    h_post : write weights ``[..., n]`` or ``[n]``, in h_res's dtype.
    bias : ``[C]`` in h_res's dtype, added to y, or None.

    Returns
    -------
    x' : ``[..., n, C]`` in x's dtype, contiguous; accumulated in float32 (float64), rounded once.

    Raises ValueError for shapes and devices that do not fit, TypeError for dtypes.
    Equivalent to ``h_res @ x.float() + h_post[..., :, None] * (y.float() + bias)[..., None, :]``.
    Source: mHC, 2512.24880, eq. 3; Hyper-Connections, 2409.19606, eq. 3.
    """
    check_streams("mix_write", x)
    check_pending_write("mix_write", x, y, h_res, h_post, bias)
    if use_fused("mix_write", x, y):
        return _mix_write.mix_write(x, y, h_res, h_post, bias)
    return without_autocast(reference.mix_write, x, y, h_res, h_post, bias)


def project(
    x: Tensor,
    phi: Tensor,
    norm_weight: Tensor | None = None,
    *,
    eps: float = 1e-6,
    eps_position: str = "inside",
) -> tuple[Tensor, Tensor]:
    """Controller logits, not yet normalised, and the inverse RMS that normalises them.

    With ``v = x.flatten(-2)`` of length n C (stream-major) and ``m = mean(v**2)``:
    ``logits[k] = sum_d v[d] norm_weight[d] phi[k, d]``, and ``inv_rms = 1/sqrt(m + eps)``
    (``"inside"``), ``1/(sqrt(m) + eps)`` (``"outside"``) or ``1/max(sqrt(m), eps)`` (``"floor"``).
    :func:`coefficients` multiplies the two. For one norm per stream pass ``x.unsqueeze(-2)``.

    Parameters
    ----------
    x : streams ``[..., n, C]``, float32, bfloat16, float16 or float64; n in 1..16; any strides.
    phi : ``[K, n*C]``, K >= 1; float32, or float64 beside float64 streams.
    norm_weight : ``[n*C]`` in phi's dtype, or None for ones.
    eps : finite, >= 0.
    eps_position : ``"inside"``, ``"outside"`` or ``"floor"``.

    Returns
    -------
    logits, inv_rms : ``[..., K]`` and ``[...]`` in phi's dtype, contiguous.

    Raises ValueError for shapes, devices and settings that do not fit, TypeError for dtypes.
    Equivalent to ``x.float().flatten(-2) @ (phi * norm_weight).mT`` and
    ``x.float().flatten(-2).square().mean(-1).add(eps).rsqrt()``.
    Source: mHC, 2512.24880, eq. 14-15.
    """
    shape = check_streams("project", x)
    features = shape[-2] * shape[-1]
    check_project("project", x, phi, norm_weight, features, eps)
    if eps_position not in EPS_POSITIONS:
        raise ValueError(
            f"project: eps_position: expected 'inside', 'outside' or 'floor', got {eps_position!r}"
        )
    if use_fused("project", x):
        position = EPS_POSITIONS.index(eps_position)
        return _project.project(x, phi, norm_weight, graph_constant(eps), position)
    return without_autocast(
        reference.project, x, phi, norm_weight, eps=eps, eps_position=eps_position
    )


def coefficients(
    logits: Tensor,
    inv_rms: Tensor | None,
    alpha: Tensor,
    bias: Tensor,
    *,
    n_streams: int,
    mixer: str | Mixer = "sinkhorn",
    read_activation: Activation = READ_ACTIVATION,
    write_activation: Activation = WRITE_ACTIVATION,
    mix_activation: Activation = MIX_ACTIVATION,
    per_stream: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Logits to the read, write and mix coefficients.

    With ``z = logits * inv_rms``, in the order read n, write n, then the mixer's own, and one
    ``alpha`` for each group (read, write, the mixer's groups):

        h_pre = read_activation(z, alpha[0], bias)      h_post = write_activation(z, alpha[1], bias)
        h_res = mixer.map(mix_activation(z, alpha[2:], bias))

    Parameters
    ----------
    logits : ``[..., K]``, ``K = 2 n + mixer.logit_count(n)``; float32 or float64. With
        ``per_stream=True``: ``[..., n, 2 + n]``; row i holds stream i's read and write logits and
        its weights to the n destinations (needs a mixer with n*n logits). The last
        ``mixer.static_logit_count(n)`` of the K are left out: they are the bias alone.
    inv_rms : ``[...]`` (``[..., n]`` per stream) in the logits' dtype, or None for ones.
    alpha : ``[2 + number of the mixer's groups]`` in the logits' dtype.
    bias : ``[K]`` in the logits' dtype.
    n_streams : n, 1 to 16 and within the mixer's own range.
    mixer : a name in :data:`hyperstreams.mixers.MIXERS` or a :class:`~hyperstreams.mixers.Mixer`.
    read_activation, write_activation, mix_activation : see :class:`Activation`. Those that take
        n*n logits for reading or writing take so many of the K, in place of n.

    Returns
    -------
    h_pre, h_post, h_res : ``[..., n]``, ``[..., n]``, ``[..., n, n]`` (row j destination, column i
        source) in the logits' dtype, contiguous; h_res is None where the mixer is the identity,
        and static ``[n, n]`` where all of the mixer's logits are.

    A mixer without ``fused_map`` runs its own PyTorch ``map``, and a softmax for reading or writing
    runs all in PyTorch: that is no fallback.
    Raises ValueError for shapes, devices and settings that do not fit, TypeError for dtypes.
    Equivalent to :func:`hyperstreams.ops.reference.coefficients`, a few lines of PyTorch.
    Source: mHC, 2512.24880, eq. 16-19; Hyper-Connections, 2409.19606 (``per_stream``).
    """
    settings = (
        get_mixer(mixer),
        n_streams,
        read_activation,
        write_activation,
        mix_activation,
        per_stream,
    )
    shapes, encoded = prepare(*settings)
    inputs = (logits, inv_rms, alpha, bias)
    check_coefficients("coefficients", *inputs, shapes)
    if encoded is None or not use_fused("coefficients", logits):
        return without_autocast(_coefficients.by_reference, *inputs, *settings)
    outputs = _coefficients.coefficients(*inputs, encoded, settings)
    return outputs if len(outputs) == 3 else (*outputs, None)


def expand(
    h: Tensor, n_streams: int, *, scale: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """Streams from hidden states: ``x[i, c] = h[c] scale[i, c] + bias[i, c]``.

    Parameters
    ----------
    h : ``[..., C]``, float32, bfloat16, float16 or float64; any strides.
    n_streams : n, 1 to 16.
    scale : ``[n, C]``, float32, or float64 beside float64 h; None is 1. Learned Stream Scaling.
    bias : ``[n, C]`` in scale's dtype; None is 0. An additive stream embedding.

    Returns
    -------
    x : ``[..., n, C]`` in h's dtype, contiguous; computed in float32 (float64), rounded once.

    Raises ValueError for shapes and devices that do not fit, TypeError for dtypes.
    Equivalent to ``(h.float()[..., None, :] * scale + bias).to(h.dtype)``.
    Source: Hyper-Connections, 2409.19606, section 2 (copies); 2606.03483 (``scale``).
    """
    shape = check_hidden("expand", "h", h)
    check_n_streams("expand", n_streams)
    for argument, parameter in (("scale", scale), ("bias", bias)):
        if parameter is not None:
            check_parameter("expand", argument, parameter, "n, C", (n_streams, shape[-1]), h)
    if use_fused("expand", h):
        return _expand.expand(h, scale, bias, n_streams)
    return without_autocast(reference.expand, h, n_streams, scale, bias)


def reduce(x: Tensor, weights: Tensor | None = None) -> Tensor:
    """Hidden states from streams: ``h[c] = sum_i weights[i] x[i, c]``.

    Parameters
    ----------
    x : streams ``[..., n, C]``, float32, bfloat16, float16 or float64; n in 1..16; any strides.
    weights : ``[..., n]`` (per token) or ``[n]`` (static); float32, or float64 beside float64
        streams; None sums the streams. The mean is ``weights = 1/n``.

    Returns
    -------
    h : ``[..., C]`` in x's dtype, contiguous; accumulated in float32 (float64), rounded once.

    Raises ValueError for shapes and devices that do not fit, TypeError for dtypes.
    Equivalent to ``x.float().sum(-2).to(x.dtype)`` without weights, else to :func:`read`.
    Source: Hyper-Connections, 2409.19606, section 2 (sum); per-token weights: DeepSeek-V4's head.
    """
    shape = check_streams("reduce", x)
    if weights is None:
        if use_fused("read", x) and use_fused("expand", x):
            return _reduce.sum_streams(x)
        return without_autocast(reference.reduce, x)
    check_coefficient("reduce", "weights", weights, "n", shape[:-1], 1, x)
    if use_fused("read", x):
        return _read.read(x, weights)
    return without_autocast(reference.reduce, x, weights)


def stream_stats(
    x: Tensor,
    y: Tensor | None = None,
    *,
    h_pre: Tensor | None = None,
    h_post: Tensor | None = None,
    h_res: Tensor | None = None,
) -> Tensor:
    """Statistics over tokens from which the diagnostics of one site are made. Not differentiable.

    Parameters
    ----------
    x : streams ``[..., n, C]`` before the site; the axis before n is the sequence.
    y : branch output ``[..., C]``, or None.
    h_pre, h_post, h_res : the site's coefficients, per token or static, or None. What is None
        counts as zeros, except that ``h_res=None`` beside ``h_post`` is the identity.

    Returns
    -------
    stats : ``[stream_stats_size(n)]`` float64; :func:`stream_stats_fields` names and defines the
        parts, :func:`unpack_stream_stats` separates them, :func:`merge_stream_stats` makes one of
        several batches'.

    Raises ValueError for shapes and devices that do not fit, TypeError for dtypes.
    Equivalent to :func:`hyperstreams.ops.reference_stats.stream_stats`.
    """
    shape = check_streams("stream_stats", x)
    if y is not None:
        check_branch("stream_stats", "y", y, shape, x)
    if h_pre is not None:
        check_coefficient("stream_stats", "h_pre", h_pre, "n", shape[:-1], 1, x)
    if h_post is not None:
        check_coefficient("stream_stats", "h_post", h_post, "n", shape[:-1], 1, x)
    if h_res is not None:
        matrix = shape[:-1] + shape[-2:-1]
        check_coefficient("stream_stats", "h_res", h_res, "n, n", matrix, 2, x)
    if use_fused("stream_stats", x, y):
        return _stream_stats.stream_stats(x, y, h_pre, h_post, h_res)
    return without_autocast(reference_stats.stream_stats, x, y, h_pre, h_post, h_res)
