"""Watch the streams of a model while it trains."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from ...nn import ExpandStreams, HyperConnection, ReduceStreams
from ...ops import merge_stream_stats
from .. import metrics
from .alarm import Alarm, collapse_alarm
from .capture import Capture, streams_of_size
from .hooks import has_sites, tap_modules
from .moments import Moments
from .quantities import QUANTITIES, needs_streams, quantity
from .sinks import Sink

COEFFICIENTS = (
    "read_effective_streams",
    "write_effective_streams",
    "read_dominance",
    "write_dominance",
    "read_share",
    "write_share",
    "off_diagonal_mass",
    "token_variation",
)
"""Quantities that need the coefficients alone: the cheap level."""
STREAMS = (*COEFFICIENTS, "norm", "norm_share", "differential_energy", "mean_cosine", "curvature")
"""Those and what the streams themselves show: one more pass over them on a sampled step."""

TOKENS = (
    *("read_mean", "read_variance", "read_min", "read_max"),
    *("write_mean", "write_variance", "write_min", "write_max"),
    *("mean_mixer", "mixer_variance", "mixer_min", "mixer_max"),
)
"""How coefficients range over tokens. They need the coefficients alone, and every sample has them:
``quantity("read_variance", probe.samples[step])``. By default no scalars are made of them."""

DENSE = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Early steps that are sampled whatever ``every`` is, as long as they are below it."""


class _Rows:
    """Takes the statistics of one forward; a recomputation during backward does not count."""

    def __init__(self) -> None:
        self.rows: list[Tensor] = []

    def __call__(self, stats: Tensor) -> None:
        # Activation checkpointing runs a forward again inside a backward.
        if not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1:
            return
        self.rows.append(stats)


class Probe:
    """Statistics of the training forwards of ``model``, on sampled steps::

        with hs.Probe(model, every=200, sinks=[sink]) as probe:
            for step, (tokens, targets) in enumerate(batches):
                logits, loss = model(tokens, targets)
                loss.backward()
                ...
                probe.scalars(step)

    The numbers are ``ops.stream_stats`` of the model's own coefficients and states, carried in
    ``Streams.stats`` and handed out by its reduction. On a sampled step outputs and gradients have
    the same bits; on the others the model runs as if there were no probe. Under ``torch.compile``
    there is one graph for each of the two. Forwards in evaluation mode do not count. Several
    forwards of a step (gradient accumulation) are merged; one that is recomputed (activation
    checkpointing) counts once. With ``torch.distributed`` the statistics of all ranks of ``group``
    are merged, in one small all-gather, in :meth:`scalars`; each of them must call it. A rank
    outside ``group`` keeps its own statistics.

    model : one ``nn.ExpandStreams``, ``nn.HyperConnection`` sites and one ``nn.ReduceStreams``; or
        a :class:`GPT` with AltUp, ResiDual or another connection whose states hold several streams:
        the quantities of its states.
    every : sample the steps that it divides, and early ones of ``DENSE`` if ``dense``.
    what : names of ``QUANTITIES``; None: ``STREAMS``, as far as they are defined. When all need
        coefficients alone (``COEFFICIENTS``, ``TOKENS``) no pass over the streams is spent.
    sinks : called with the step and its scalars: :class:`DictSink`, :class:`JsonlSink`,
        :class:`TensorBoardSink`, :class:`WandbSink` or any ``sink(step, scalars)``.
    group : the process group to merge over; None: all ranks, where there are several.

    Attributes: ``samples``, the captures by step; ``moments``, of every scalar over samples: their
    spread is over training. That over micro-batches is in a sample's ``batch(k)``, except where
    ranks were merged, which leaves one batch. That over tokens is in its quantities ``TOKENS``:
    ``read_mean``, ``read_variance``, ``read_min``, ``read_max`` of ``h_pre``, ``write_...`` of
    ``h_post``, ``mean_mixer``, ``mixer_...`` of ``h_res``.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        every: int = 200,
        what: Sequence[str] | None = None,
        dense: bool = True,
        sinks: Iterable[Sink] = (),
        group: Any = None,
    ) -> None:
        if every < 1:
            raise ValueError(f"Probe: every: expected at least 1, got {every}")
        expands = [m for m in model.modules() if isinstance(m, ExpandStreams)]
        reduces = [m for m in model.modules() if isinstance(m, ReduceStreams)]
        found = {} if not has_sites(model) else tap_modules(model)
        self._sites = {k: m for k, m in found.items() if isinstance(m, HyperConnection)}
        families: list[Any] = [m for m in model.modules() if getattr(m, "observes", False)]
        known = set(QUANTITIES)
        self._expand: Any
        self._reduce: Any
        if families:
            self._expand = self._reduce = families[0]
            known = {name for name in known if QUANTITIES[name].rows == "state"}
        elif len(self._sites) > 0 and len(expands) == len(reduces) == 1:
            self._expand, self._reduce = expands[0], reduces[0]
        else:
            raise ValueError(
                "Probe: model: expected one nn.ExpandStreams, nn.HyperConnection sites and one "
                f"nn.ReduceStreams, got {len(expands)}, {len(self._sites)} and {len(reduces)}"
            )
        if what is None:
            what = [name for name in STREAMS if name in known]
        for name in what:
            if name not in known:
                raise ValueError(
                    f"Probe: what: expected names of {', '.join(sorted(known))}, got {name!r}"
                )
        own: Any = next((m.site_names for m in model.modules() if hasattr(m, "site_names")), None)
        self.site_names = tuple(self._sites if own is None else own)
        self.every = every
        self.what = tuple(what)
        self.dense = dense
        self.sinks = list(sinks)
        self.group = group
        self.samples: dict[int, Capture] = {}
        self.moments: dict[str, Moments] = {}
        self._coefficients_only = not any(needs_streams(name) for name in what)
        self._rows = _Rows()
        self._entered = False

    def due(self, step: int) -> bool:
        """Whether ``step`` is sampled."""
        return step % self.every == 0 or (self.dense and step in DENSE and step < self.every)

    def __enter__(self) -> Probe:
        if self._expand.collecting or self._reduce.sink is not None:
            raise RuntimeError("Probe: model: expected one without another active probe")
        self._entered = True
        self._collect(self.due(0))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._collect(False)
        self._entered = False

    def _collect(self, on: bool) -> None:
        self._rows.rows.clear()
        self._expand.collecting = on
        self._reduce.sink = self._rows if on else None
        self._reduce.coefficients_only = on and self._coefficients_only
        for site in self._sites.values():
            site.coefficients_only = on and self._coefficients_only

    def start(self, step: int) -> None:
        """Say which step comes next; needed only when the first is not 0, as after a resume."""
        self._collect(self._entered and self.due(step))

    def scalars(self, step: int) -> dict[str, float]:
        """The scalars of ``step``, just trained; {} where it was not sampled. Then arms the next.

        Names: ``quantity/site``, with ``/s2`` per stream and ``/s1.s2`` per (destination, source);
        ``quantity/mean`` over the rows of a quantity with one number each; ``read_persistence`` and
        ``write_persistence``. Waits for the device on sampled steps only.
        """
        rows = list(self._rows.rows)
        self._collect(self._entered and self.due(step + 1))
        if not rows:
            return {}
        self.samples[step] = self._capture(rows)
        values = summarize(self.samples[step], self.what)
        for name, value in values.items():
            if math.isfinite(value):
                part = Moments(1.0, value, 0.0, value, value)
                self.moments[name] = self.moments.get(name, Moments()).merge(part)
        for sink in self.sinks:
            sink(step, values)
        return values

    def _capture(self, rows: Sequence[Tensor]) -> Capture:
        sums = torch.stack(list(rows)).detach()
        n = streams_of_size(sums.shape[-1])
        distributed = torch.distributed
        several = distributed.is_available() and distributed.is_initialized()
        if several and distributed.get_rank(self.group) >= 0:  # -1: outside the group
            own = merge_stream_stats(sums, n)
            ranks = [torch.empty_like(own) for _ in range(distributed.get_world_size(self.group))]
            distributed.all_gather(ranks, own, group=self.group)
            sums = merge_stream_stats(torch.stack(ranks), n).unsqueeze(0)
        sums = sums.cpu()
        return Capture(sums, n, self.site_names, sums.new_full((len(sums),), torch.nan))

    def alarm(self, name: str = "write_effective_streams", **settings: Any) -> Alarm:
        """Whether the streams have collapsed since the first sample; see :func:`collapse_alarm`."""
        return collapse_alarm(self.samples, name, **settings)


def summarize(sample: Capture, what: Sequence[str] = STREAMS) -> dict[str, float]:
    """Scalars of a capture by name; see :meth:`Probe.scalars`."""
    values: dict[str, float] = {}
    for name in what:
        table = quantity(name, sample)
        for row, entry in zip(QUANTITIES[name].row_names(sample), table.tolist(), strict=True):
            for index, value in _entries(entry):
                values[f"{name}/{row}{index and '/' + index}"] = value
        if table.ndim == 1:
            values[f"{name}/mean"] = float(table.nanmean())
        if name in ("read_share", "write_share"):
            side = name.removesuffix("_share")
            values[f"{side}_persistence"] = float(metrics.persistence(table))
    return values


def _entries(entry: Any, index: str = "") -> Iterable[tuple[str, float]]:
    """``(s2.s0, value)`` of nested lists."""
    if not isinstance(entry, list):
        yield index, entry
        return
    for k, part in enumerate(entry):
        yield from _entries(part, f"{index}.s{k}" if index else f"s{k}")
