"""The op between two sites."""

from __future__ import annotations

import torch
from torch import Tensor

from ..mixers import Mixer, get_mixer
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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """Finish the last site's write and start the next site, as one op.

    The composition :func:`mix_write` (when there is a pending ``y``), :func:`project`,
    :func:`coefficients`, :func:`read`, as documented there; logits and u come from x' as stored.

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

    Returns
    -------
    (x', u, h_pre, h_post, h_res) : the streams ``[..., n, C]``, the branch input ``[..., C]`` and
        the next site's coefficients, static ones without token axes.

    Raises what its parts raise, and ValueError for a ``y`` without ``h_post``.
    Source: mHC, 2512.24880, eq. 3 and 14-19.
    """
    if y is not None:
        if h_post is None:
            raise ValueError("boundary: h_post: expected [..., n] or [n] beside y, got None")
        x = mix_write(x, y, h_res, h_post, bias=write_bias)
    h_pre, next_post, next_res = site_coefficients(
        x,
        phi,
        norm_weight,
        alpha,
        bias,
        n_streams=n_streams,
        mixer=mixer,
        read_activation=read_activation,
        write_activation=write_activation,
        mix_activation=mix_activation,
        per_stream=per_stream,
        eps=eps,
        eps_position=eps_position,
        centred=centred,
    )
    return x, read(x, h_pre), h_pre, next_post, next_res


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
