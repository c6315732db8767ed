"""The parameters of one site, and the module that puts them around a branch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .. import ops
from ..init import designated_stream, normal, stream_bias, xavier_uniform
from .config import ConnectionConfig
from .logits import logit_settings
from .precision import FullPrecisionModule, Role, Roles, full_precision
from .registry import get_connection
from .replay import ACTIVE, record_streams
from .streams import Streams, stats_row
from .taps import Tap, tapped_read


class Connection(FullPrecisionModule):
    """Coefficients of one site: finishes the previous site's write and starts this site's read.

    Parameters (float32, or float64 with ``dtype=torch.float64``; casts to lower precision leave
    them so): ``phi [K, n C]`` (``[2 + n, C]`` with per-stream norm; None when static),
    ``norm_weight`` (None, ``[n C]`` or ``[C]``), ``alpha`` (one scale per logit group),
    ``bias [K]``; order of the K logits: read n, write n, then the mixer's, of which the last may be
    static and then have no rows in phi. The buffer
    ``designated_stream [1]`` records the stream favoured at initialisation (-1: none).

    connection : name or :class:`ConnectionConfig`.
    site_index : position of the site in the model, over all sites; ``round_robin`` needs it.
    designate : ``random | fixed | round_robin | none``; ``default`` is the connection's own scheme.
    generator : source of the random designation; None is PyTorch's default generator.
    """

    roles: ClassVar[Roles] = {"phi": "controller", "norm_weight": "scale", "alpha": "scale"}

    phi: nn.Parameter | None
    norm_weight: nn.Parameter | None
    alpha: Tensor
    alpha_index: Tensor | None
    designated_stream: Tensor

    def __init__(
        self,
        *,
        connection: str | ConnectionConfig = "mhc_lite",
        n_streams: int,
        width: int,
        site_index: int | None = None,
        designate: str = "default",
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        config = get_connection(connection)
        config.check(n_streams)
        if width < 1:
            raise ValueError(f"Connection: width: expected at least 1, got {width}")
        self.config = config
        self.n_streams = n_streams
        self.width = width
        self.site_index = site_index
        self.designate = config.designate if designate == "default" else designate
        factory: dict[str, Any] = {"device": device, "dtype": full_precision(dtype)}
        groups = 2 + len(config.mixer.group_sizes(n_streams))
        logits = config.logit_count(n_streams)
        dynamic = logits - config.mixer.static_logit_count(n_streams)

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape, **factory), requires_grad=config.trainable)

        self.bias = parameter(logits)
        if config.norm == "none":
            self.register_buffer("alpha", torch.empty(groups, **factory), persistent=False)
            self.register_parameter("phi", None)
        else:
            shared = config.alpha_groups
            self.alpha = parameter(groups if shared is None else max(shared) + 1)
            per_stream = config.norm == "per_stream"
            rows, columns = (2 + n_streams, width) if per_stream else (dynamic, n_streams * width)
            self.phi = parameter(rows, columns)
        norm_weight = None
        if self.phi is not None and config.norm_weight:
            norm_weight = parameter(self.phi.shape[1])
        self.register_parameter("norm_weight", norm_weight)
        shares_alpha = self.phi is not None and config.alpha_groups is not None
        index = torch.empty(groups, dtype=torch.int64, device=device) if shares_alpha else None
        self.register_buffer("alpha_index", index, persistent=False)
        self.register_buffer("designated_stream", torch.empty(1, dtype=torch.int64, device=device))
        # One dict for all calls: building it each time would cost as much as a small kernel.
        self._boundary: dict[str, Any] = {
            "n_streams": n_streams,
            "mixer": config.mixer,
            "read_activation": config.read_activation,
            "write_activation": config.write_activation,
            "mix_activation": config.mix_activation,
            "per_stream": config.norm == "per_stream",
            "eps": config.eps,
            "eps_position": config.eps_position,
            "centred": config.centred,
        }
        if not self.bias.is_meta:
            self.reset_parameters(generator=generator)

    @torch.no_grad()
    def reset_parameters(self, *, generator: torch.Generator | None = None) -> None:
        """Set the published initial values; ``generator`` draws the designated stream."""
        n, config = self.n_streams, self.config
        stream = designated_stream(
            self.designate, n, site_index=self.site_index, generator=generator
        )
        read, write = (
            stream_bias(n, others=others, designated=designated, stream=stream)
            for others, designated in (config.initial_read(n), config.write_bias)
        )
        # Where the logits are a matrix: one row for every mean, one column for every copy.
        read = read.repeat(config.read_activation.logit_count(n) // n)
        write = write.repeat_interleave(config.write_activation.logit_count(n) // n)
        self.bias.copy_(torch.cat([read, write, config.mixer.initial_logits(n)]))
        self.designated_stream.fill_(stream)
        if self.phi is not None:
            logits, inputs = self.phi.shape
            if config.phi_init == "xavier":
                self.phi.copy_(xavier_uniform((logits, inputs), generator=generator))
            elif config.phi_init:
                std = config.phi_init / (inputs**0.5 if config.phi_per_input else 1.0)
                self.phi.copy_(normal((logits, inputs), std, generator=generator))
            else:
                self.phi.zero_()
            self.alpha.fill_(config.alpha)
        if self.norm_weight is not None:
            self.norm_weight.fill_(1.0)
        self._fill_constants()

    def role(self, name: str) -> Role:
        """``"matrix_static"`` for static logits that the released code keeps in a matrix."""
        if name == "bias" and self.config.static_decay:
            return "matrix_static"
        return super().role(name)

    def _fill_constants(self) -> None:
        """(Re)create the constant buffers, which checkpoints do not hold."""
        device = self.bias.device
        if self.phi is None:
            self.alpha = torch.ones(self.alpha.shape, dtype=self.bias.dtype, device=device)
        if self.alpha_index is not None:
            self.alpha_index = torch.tensor(self.config.alpha_groups, device=device)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        # A model made on the meta device is complete once its checkpoint is loaded.
        self._fill_constants()

    def forward(
        self,
        x: Tensor,
        y: Tensor | None = None,
        h_res: Tensor | None = None,
        h_post: Tensor | None = None,
        *,
        read_weights: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
        """``(x', u, h_pre, h_post, h_res)`` of this site; see ``ops.boundary``.

        Arguments: the streams ``[..., n, C]``, the pending write of the previous site, if any, and
        weights to read with in place of ``h_pre``.
        """
        results = ops.boundary(
            x,
            y,
            h_res,
            h_post,
            self.phi,
            self.norm_weight,
            self._scales(),
            self.bias,
            read_weights=read_weights,
            **self._boundary,
        )
        if ACTIVE.recorder is not None and y is not None:
            record_streams(results[0], Streams(x, y, h_res, h_post))
        return results

    def coefficients(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """``(h_pre, h_post, h_res)`` on the streams ``x [..., n, C]``, without reading them."""
        return ops.site_coefficients(
            x, self.phi, self.norm_weight, self._scales(), self.bias, **self._boundary
        )

    def logits(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Read, write and mixer logits on ``x [..., n, C]``: ``[..., n], [..., n], [..., m]``.

        What activations and the mixer's map receive; in HC, whose activation comes before the
        scale, the coefficients before ``factor`` and ``offset``. Not fused: for analysis.
        """
        h_pre, h_post, mix = ops.site_coefficients(
            x,
            self.phi,
            self.norm_weight,
            self._scales(),
            self.bias,
            **logit_settings(self._boundary),
        )
        assert mix is not None
        return h_pre, h_post, mix

    def _scales(self) -> Tensor:
        return self.alpha if self.alpha_index is None else self.alpha[self.alpha_index]

    def extra_repr(self) -> str:
        index = "" if self.site_index is None else f", site_index={self.site_index}"
        return (
            f"connection={self.config.name!r}, n_streams={self.n_streams}, width={self.width}"
            f"{index}, designate={self.designate!r}"
        )


class HyperConnection(nn.Module):
    """A site: read from the streams, run the branch, leave its mix and write pending.

    ``site(streams, *args, **kwargs)`` computes ``u = h_pre X``, ``y = branch(u, *args, **kwargs)``
    and stands for ``X' = h_res X + h_post y``. :class:`Streams` in give :class:`Streams` out, whose
    write the next site carries out; a plain tensor ``[..., n, C]`` in gives one out. Without a
    branch the call returns ``(u, write)``, and ``write(y)`` is what the next site takes::

        u, write = site(x)
        x = write(attention(u))

    branch : module or function ``[..., C] -> [..., C]``; it sees u in the dtype of the streams and
        contains its own norm. The other arguments are those of :class:`Connection`.
    taps : None, or a :data:`Tap` that sees and may replace every tensor of the site; set by
        ``diagnostics.hooks``.
    coefficients_only : whether the statistics leave the streams out; set by ``diagnostics.Probe``.
    """

    def __init__(
        self,
        branch: Callable[..., Tensor] | None = None,
        *,
        connection: str | ConnectionConfig = "mhc_lite",
        n_streams: int,
        width: int,
        site_index: int | None = None,
        designate: str = "default",
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.connection = Connection(
            connection=connection,
            n_streams=n_streams,
            width=width,
            site_index=site_index,
            designate=designate,
            generator=generator,
            device=device,
            dtype=dtype,
        )
        self.branch = branch
        self.taps: Tap | None = None
        self.coefficients_only = False

    def reset_parameters(self, *, generator: torch.Generator | None = None) -> None:
        """Reset the connection; the branch is left as it is."""
        self.connection.reset_parameters(generator=generator)

    def forward(self, x: Streams | Tensor, *args: Any, **kwargs: Any) -> Any:
        """:class:`Streams` or a tensor like ``x``; without a branch ``(u, write)``."""
        pending = x if isinstance(x, Streams) else Streams(x)
        taps = self.taps
        if taps is None:
            state, u, h_pre, h_post, h_res = self.connection(
                pending.x, pending.y, pending.h_res, pending.h_post
            )
        else:
            state, u, h_pre, h_post, h_res = tapped_read(self.connection, pending, taps)

        def write(y: Tensor) -> Streams | Tensor:
            if taps is not None:
                y = taps("hook_out", y)
            if not isinstance(x, Streams):
                return ops.mix_write(state, y, h_res, h_post)
            stats = x.stats
            if stats is not None:
                row = stats_row(
                    state,
                    y,
                    h_pre=h_pre,
                    h_post=h_post,
                    h_res=h_res,
                    coefficients_only=self.coefficients_only and self.training,
                )
                stats = torch.cat([stats, row])
            return Streams(state, y, h_res, h_post, stats)

        if self.branch is None:
            if args or kwargs:
                raise TypeError("HyperConnection: arguments for the branch, but there is no branch")
            return u, write
        return write(self.branch(u, *args, **kwargs))
