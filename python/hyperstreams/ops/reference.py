"""The executable definition of every op: plain PyTorch, any dtype, any device, differentiable.

Shapes: streams ``x [..., n, C]``, branch output ``y [..., C]``, ``h_pre [..., n]``,
``h_post [..., n]``, ``h_res [..., n, n]`` with ``h_res[j, i]`` the weight from source stream ``i``
to destination stream ``j``. Coefficients without token axes (``[n]``, ``[n, n]``) are static.
Everything is accumulated in float32 (float64 for float64 streams) and rounded once at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .settings import MIX_ACTIVATION, READ_ACTIVATION, WRITE_ACTIVATION, Activation


def accumulate_dtype(x: Tensor) -> torch.dtype:
    """float64 for float64 streams, float32 for every other dtype."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def read(x: Tensor, h_pre: Tensor) -> Tensor:
    """``u[c] = sum_i h_pre[i] x[i, c]``: ``[..., n, C], [..., n] -> [..., C]`` in x's dtype."""
    dtype = accumulate_dtype(x)
    u = torch.matmul(h_pre.to(dtype).unsqueeze(-2), x.to(dtype)).squeeze(-2)
    return u.to(x.dtype)


def mix_write(
    x: Tensor, y: Tensor, h_res: Tensor | None, h_post: Tensor, bias: Tensor | None = None
) -> Tensor:
    """``x'[j, c] = sum_i h_res[j, i] x[i, c] + h_post[j] (y[c] + bias[c])`` in x's dtype.

    ``h_res=None`` is the identity mixer.
    """
    dtype = accumulate_dtype(x)
    y = y.to(dtype) if bias is None else y.to(dtype) + bias.to(dtype)
    mixed = x.to(dtype) if h_res is None else torch.matmul(h_res.to(dtype), x.to(dtype))
    return (mixed + h_post.to(dtype).unsqueeze(-1) * y.unsqueeze(-2)).to(x.dtype)


def project(
    x: Tensor,
    phi: Tensor,
    norm_weight: Tensor | None = None,
    *,
    eps: float = 1e-6,
    eps_position: str = "inside",
) -> tuple[Tensor, Tensor]:
    """Un-normalised controller logits and the inverse RMS that they are multiplied with later.

    With ``v = x.flatten(-2)`` of length ``D = n C`` (stream-major) and ``m = mean(v**2)``:
    ``logits[k] = sum_d v[d] norm_weight[d] phi[k, d]`` and
    ``inv_rms = 1/sqrt(m + eps)`` (``inside``), ``1/(sqrt(m) + eps)`` (``outside``) or
    ``1/max(sqrt(m), eps)`` (``floor``). mHC, 2512.24880 eq. 14-15.
    """
    dtype = accumulate_dtype(x)
    v = x.to(dtype).flatten(-2)
    weight = phi.to(dtype) if norm_weight is None else phi.to(dtype) * norm_weight.to(dtype)
    logits = torch.matmul(v, weight.transpose(-1, -2))
    mean_square = v.square().mean(dim=-1)
    if eps_position == "inside":
        inv_rms = torch.rsqrt(mean_square + eps)
    elif eps_position == "outside":
        inv_rms = 1.0 / (mean_square.sqrt() + eps)
    else:
        inv_rms = 1.0 / mean_square.sqrt().clamp_min(eps)
    return logits, inv_rms


def _square(v: Tensor) -> Tensor:
    n = math.isqrt(v.shape[-1])
    return v.unflatten(-1, (n, n))


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda v: v,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softmax": lambda v: torch.softmax(v, dim=-1),
    "row_softmax_mean": lambda v: torch.softmax(_square(v), dim=-1).mean(dim=-2),
    "column_softmax_sum": lambda v: torch.softmax(_square(v), dim=-2).sum(dim=-1),
}


def activate(z: Tensor, alpha: Tensor, bias: Tensor, activation: Activation) -> Tensor:
    """The first stage of :func:`coefficients`; see :class:`Activation`."""
    act = _ACTIVATIONS[activation.kind]
    if activation.form == "inside":
        h = act(alpha * z + bias)
    else:
        h = alpha * act(z) + bias
    return activation.factor * h + activation.offset


def joint_logits(logits: Tensor, n: int) -> Tensor:
    """Per-stream logits ``[..., n, 2 + n]`` to the joint order ``[..., n + n + n*n]``.

    Row ``i`` of the input depends on stream ``i`` alone: its read logit, its write logit, and its
    weights *to* the ``n`` destinations. Output: read ``n``, write ``n``, then ``h_res`` row-major.
    """
    mix = logits[..., 2:].transpose(-1, -2).flatten(-2)
    return torch.cat([logits[..., 0], logits[..., 1], mix], dim=-1)


def coefficients(
    logits: Tensor,
    inv_rms: Tensor | None,
    alpha: Tensor,
    bias: Tensor,
    *,
    n_streams: int,
    mixer_map: Callable[[Tensor], Tensor | None],
    group_sizes: tuple[int, ...],
    read_activation: Activation = READ_ACTIVATION,
    write_activation: Activation = WRITE_ACTIVATION,
    mix_activation: Activation = MIX_ACTIVATION,
    per_stream: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Logits ``[..., K]`` to ``h_pre [..., n], h_post [..., n], h_res [..., n, n]`` (or None).

    ``z = logits * inv_rms``; order of the ``K`` logits: read ``n``, write ``n``, then the mixer's
    own, in groups of ``group_sizes``. ``alpha [2 + len(group_sizes)]`` holds one scale per group,
    ``bias [K]``. The mixer's logits pass ``mix_activation`` and then ``mixer_map``. A bias longer
    than K ends in the mixer's static logits, whose z is 0; when it has no others, h_res is static.
    ``per_stream=True``: ``logits [..., n, 2 + n]`` and ``inv_rms [..., n]`` come from one norm and
    one projection per stream (HC, 2409.19606) and pass :func:`joint_logits` first.
    mHC, 2512.24880 eq. 16-19.
    """
    n = n_streams
    z = logits if inv_rms is None else logits * inv_rms.unsqueeze(-1)
    if per_stream:
        z = joint_logits(z, n)
    parts = [read_activation.logit_count(n), write_activation.logit_count(n), sum(group_sizes)]
    sizes = torch.tensor((*parts[:2], *group_sizes), device=alpha.device)
    dynamic = sum(parts)
    scale = alpha.repeat_interleave(sizes, output_size=dynamic)
    static = bias[dynamic:]
    scales, biases, zs = (t.split(parts, dim=-1) for t in (scale, bias[:dynamic], z))
    h_pre = activate(zs[0], scales[0], biases[0], read_activation)
    h_post = activate(zs[1], scales[1], biases[1], write_activation)
    mix = activate(zs[2], scales[2], biases[2], mix_activation)
    if static.shape[-1]:
        zero = torch.zeros_like(static)
        static = activate(zero, zero, static, mix_activation)
        if mix.shape[-1]:
            static = torch.cat([mix, static.expand(*mix.shape[:-1], -1)], dim=-1)
        mix = static
    return h_pre, h_post, mixer_map(mix)


def expand(
    h: Tensor, n_streams: int, scale: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """``x[i, c] = h[c] scale[i, c] + bias[i, c]``: ``[..., C] -> [..., n, C]`` in h's dtype.

    ``scale [n, C]`` is Learned Stream Scaling (2606.03483), ``bias [n, C]`` an additive stream
    embedding; None means 1 and 0.
    """
    dtype = accumulate_dtype(h)
    x = h.to(dtype).unsqueeze(-2)
    if scale is not None:
        x = x * scale.to(dtype)
    if bias is not None:
        x = x + bias.to(dtype)
    return x.expand(*h.shape[:-1], n_streams, h.shape[-1]).to(h.dtype).contiguous()


def reduce(x: Tensor, weights: Tensor | None = None) -> Tensor:
    """``h[c] = sum_i weights[i] x[i, c]``: ``[..., n, C] -> [..., C]``; None sums the streams."""
    if weights is None:
        weights = torch.ones(x.shape[-2], dtype=accumulate_dtype(x), device=x.device)
    return read(x, weights)
