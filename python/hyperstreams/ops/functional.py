"""Public ops: check the arguments, choose the back end, call it."""

from __future__ import annotations

from torch import Tensor

from ..mixers import Mixer, get_mixer
from . import reference, reference_stats
from .settings import MIX_ACTIVATION, READ_ACTIVATION, WRITE_ACTIVATION, Activation


def read(x: Tensor, h_pre: Tensor) -> Tensor:
    return reference.read(x, h_pre)


def mix_write(
    x: Tensor, y: Tensor, h_res: Tensor | None, h_post: Tensor, *, bias: Tensor | None = None
) -> Tensor:
    return reference.mix_write(x, y, h_res, h_post, bias)


def project(
    x: Tensor,
    phi: Tensor,
    norm_weight: Tensor | None = None,
    *,
    eps: float = 1e-6,
    eps_position: str = "inside",
) -> tuple[Tensor, Tensor]:
    return reference.project(x, phi, norm_weight, eps=eps, eps_position=eps_position)


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
    chosen = get_mixer(mixer)
    return reference.coefficients(
        logits,
        inv_rms,
        alpha,
        bias,
        n_streams=n_streams,
        mixer_map=lambda z: chosen.map(z, n_streams),
        group_sizes=chosen.group_sizes(n_streams),
        read_activation=read_activation,
        write_activation=write_activation,
        mix_activation=mix_activation,
        per_stream=per_stream,
    )


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
    write_bias: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """``(x', u, h_pre, h_post, h_res)``: finish the last site's write, start the next site.

    ``y=None`` (before the first site): x' is x. ``phi=None`` (static): coefficients from bias alone.
    """
    if y is not None:
        assert h_post is not None
        x = mix_write(x, y, h_res, h_post, bias=write_bias)
    if phi is None:
        logits, inv_rms, per_stream = bias.new_zeros(bias.shape), None, False
    else:
        source = x.unsqueeze(-2) if per_stream else x
        logits, inv_rms = project(source, phi, norm_weight, eps=eps, eps_position=eps_position)
    h_pre, next_post, next_res = coefficients(
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
    return x, read(x, h_pre), h_pre, next_post, next_res


def expand(
    h: Tensor, n_streams: int, *, scale: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    return reference.expand(h, n_streams, scale, bias)


def reduce(x: Tensor, weights: Tensor | None = None) -> Tensor:
    return reference.reduce(x, weights)


def stream_stats(
    x: Tensor,
    y: Tensor | None = None,
    *,
    h_pre: Tensor | None = None,
    h_post: Tensor | None = None,
    h_res: Tensor | None = None,
) -> Tensor:
    return reference_stats.stream_stats(x, y, h_pre, h_post, h_res)
