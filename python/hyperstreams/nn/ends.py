"""Where streams begin and end: embedding to streams, streams to the final hidden state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .. import init, ops
from .._errors import check_choice
from .precision import FullPrecisionModule, Roles, full_precision
from .streams import Streams, stats_row
from .taps import Tap

REDUCTIONS = ("sum", "mean", "weighted")
NORM_POSITIONS = ("before", "after")


class ExpandStreams(FullPrecisionModule):
    """``x[i] = h * scale[i] + bias[i]``: hidden states ``[..., C]`` to streams ``[..., n, C]``.

    scheme : name in ``init.EXPANSION_SCHEMES``, which describes them: ``"replicate"`` (n copies),
        ``"learned_scale"`` (Learned Stream Scaling, 2606.03483) and its controls ``"unit_scale"``,
        ``"constant_scale"``, ``"random_sign"``, ``"orthogonal"`` set ``scale [n, C]``;
        ``"embedding"`` and ``"noise"`` set ``bias [n, C]``.
    base, noise, reference_width : options of the scheme's initial values; None: its defaults. Given
        to a scheme that has no use for them they are errors.
    learned : whether the values are trained (a parameter) or stay (a buffer); None: as the scheme
        has it, which is learned, except for ``"noise"``.
    collecting : whether sites append their sums in training mode; set by ``diagnostics.Probe``.

    The parameters stay float32 (float64) when the model is cast to lower precision.
    """

    roles: ClassVar[Roles] = {"scale": "ends", "bias": "ends"}

    scale: Tensor | None
    bias: Tensor | None

    def __init__(
        self,
        *,
        n_streams: int,
        width: int,
        scheme: str = "replicate",
        base: float | None = None,
        noise: float | None = None,
        reference_width: int | None = None,
        learned: bool | None = None,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_choice("ExpandStreams", "scheme", scheme, init.EXPANSION_SCHEMES)
        how = init.EXPANSION_SCHEMES[scheme]
        for name, value, usable in (
            ("base", base, how.base is not None),
            ("noise", noise, how.noise is not None),
            ("reference_width", reference_width, how.has_reference_width),
            ("learned", learned, how.target is not None),
        ):
            if value is not None and not usable:
                raise ValueError(
                    f"ExpandStreams: {name}: expected None with scheme {scheme!r}, got {value}"
                )
        self.n_streams = n_streams
        self.width = width
        self.scheme = scheme
        self.collecting = False
        options = {
            "base": how.base if base is None else base,
            "noise": how.noise if noise is None else noise,
            "reference_width": reference_width,
        }
        self.options = {name: value for name, value in options.items() if value is not None}
        self.learned = how.learned if learned is None else learned
        values = torch.empty(n_streams, width, device=device, dtype=full_precision(dtype))
        for name in ("scale", "bias"):
            if name == how.target and not self.learned:
                self.register_buffer(name, values)
            else:
                self.register_parameter(name, nn.Parameter(values) if name == how.target else None)
        if not values.is_meta:
            self.reset_parameters(generator=generator)

    @torch.no_grad()
    def reset_parameters(self, *, generator: torch.Generator | None = None) -> None:
        """Set the initial values, drawing what is random from ``generator``."""
        how = init.EXPANSION_SCHEMES[self.scheme]
        target = self.scale if how.target == "scale" else self.bias
        if how.initial is not None and target is not None:
            target.copy_(
                how.initial(self.n_streams, self.width, generator=generator, **self.options)
            )

    def forward(self, h: Tensor, *, collect_stats: bool = False) -> Streams:
        """``h [..., C]`` to :class:`Streams`; ``collect_stats``: sites append their sums."""
        x = ops.expand(h, self.n_streams, scale=self.scale, bias=self.bias)
        if not collect_stats and not (self.collecting and self.training):
            return Streams(x)
        size = ops.stream_stats_size(self.n_streams)
        return Streams(x, stats=torch.zeros(0, size, dtype=torch.float64, device=x.device))

    def extra_repr(self) -> str:
        options = "".join(f", {name}={value}" for name, value in self.options.items())
        frozen = "" if self.learned else ", learned=False"
        return (
            f"n_streams={self.n_streams}, width={self.width}, scheme={self.scheme!r}"
            f"{options}{frozen}"
        )


class ReduceStreams(FullPrecisionModule):
    """Streams ``[..., n, C]`` to hidden states ``[..., C]``.

    scheme :
        ``"sum"``       sum over the streams.
        ``"mean"``      their mean.
        ``"weighted"``  ``sum_i w_i x_i`` per token (DeepSeek-V4's head), with
                        ``w = sigmoid(alpha phi rms_norm(x) + bias) + offset``. Parameters
                        ``phi [n, n C]`` (initially 0), ``alpha [1]`` (1), ``bias [n]`` (0);
                        float32 whatever the model is cast to.
    norm : module applied to each stream (``norm_position="before"``) or the result (``"after"``).
        The weights of ``"weighted"`` come from the streams before any norm.
    eps, offset : of ``"weighted"``: the eps of its RMS norm, and see above.
    taps : None, or a :data:`Tap` that sees and may replace the streams; see ``diagnostics.hooks``.
    sink : None, or what takes the statistics ``[sites + 1, ops.stream_stats_size(n)]`` that arrive
        with the streams in training mode; set by ``diagnostics.Probe``, like ``coefficients_only``:
        whether the statistics leave the streams out.
    """

    roles: ClassVar[Roles] = {"phi": "ends", "alpha": "ends_vector", "bias": "ends_vector"}

    phi: nn.Parameter | None
    alpha: nn.Parameter
    bias: nn.Parameter

    def __init__(
        self,
        *,
        n_streams: int,
        width: int,
        scheme: str = "sum",
        norm: nn.Module | None = None,
        norm_position: str = "after",
        eps: float = 1e-6,
        offset: float = 1e-6,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_choice("ReduceStreams", "scheme", scheme, REDUCTIONS)
        check_choice("ReduceStreams", "norm_position", norm_position, NORM_POSITIONS)
        self.n_streams = n_streams
        self.width = width
        self.scheme = scheme
        self.norm = norm
        self.norm_position = norm_position
        self.taps: Tap | None = None
        self.sink: Callable[[Tensor], None] | None = None
        self.coefficients_only = False
        self.eps = eps
        self.offset = offset
        factory: dict[str, Any] = {"device": device, "dtype": full_precision(dtype)}
        shapes = {"phi": (n_streams, n_streams * width), "alpha": (1,), "bias": (n_streams,)}
        for name, shape in shapes.items():
            weighted = scheme == "weighted"
            value = nn.Parameter(torch.empty(shape, **factory)) if weighted else None
            self.register_parameter(name, value)
        if self.phi is not None and not self.phi.is_meta:
            self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self, *, generator: torch.Generator | None = None) -> None:
        """Set the initial weights, none of which is random; the norm is left as it is."""
        if self.phi is not None:
            self.phi.zero_()
            self.alpha.fill_(1.0)
            self.bias.zero_()

    def weights(self, streams: Tensor) -> Tensor | None:
        """Weights of the sum over ``streams [..., n, C]``: ``[..., n]``, ``[n]`` or None (1)."""
        if self.phi is not None:
            logits, inv_rms = ops.project(streams, self.phi, eps=self.eps)
            z = self.alpha * logits * inv_rms.unsqueeze(-1) + self.bias
            return torch.sigmoid(z) + self.offset
        if self.scheme == "mean":
            n = self.n_streams
            dtype = torch.promote_types(streams.dtype, torch.float32)
            return streams.new_full((n,), 1.0 / n, dtype=dtype)
        return None

    def forward(self, x: Streams | Tensor) -> Tensor:
        """``[..., n, C]`` (a pending write is carried out first) to ``[..., C]``."""
        streams = x.tensor if isinstance(x, Streams) else x
        if self.taps is not None:
            streams = self.taps("hook_streams_in", streams)
        sink = self.sink
        if sink is not None and self.training and isinstance(x, Streams) and x.stats is not None:
            row = stats_row(streams, coefficients_only=self.coefficients_only)
            sink(torch.cat([x.stats, row]))
        weights = self.weights(streams)
        if self.norm is not None and self.norm_position == "before":
            streams = self.norm(streams)
        h = ops.reduce(streams, weights)
        if self.norm is not None and self.norm_position == "after":
            h = self.norm(h)
        return h

    def extra_repr(self) -> str:
        position = "" if self.norm is None else f", norm_position={self.norm_position!r}"
        return f"n_streams={self.n_streams}, width={self.width}, scheme={self.scheme!r}{position}"
