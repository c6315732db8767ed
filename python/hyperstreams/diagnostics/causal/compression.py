"""How many streams does a trained model need? Collapse its state to m streams and measure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...nn import ReduceStreams
from .. import metrics
from ..live.hooks import Hook, hooks, tap_modules
from ..live.trace import Trace
from .effects import Batch, EffectTable, measure_blocks
from .replacements import token_mean
from .sites import READOUT, SiteMap, site_map
from .truncation import balanced_projection, cut_values, later_reads


class Static(NamedTuple):
    """Coefficients of every site, the same for all tokens, and the states' second moments.

    h_pre, h_post ``[K, n]``; h_res ``[K, n, n]``; gram ``[K + 1, n, n]``. float64, on the CPU.
    """

    h_pre: Tensor
    h_post: Tensor
    h_res: Tensor
    gram: Tensor


@dataclass(frozen=True)
class Compression:
    """What :func:`collapse_streams` found.

    table : axes method (``"balanced"``, ``"dominant"``) x streams (``"1"`` to ``"n"``), against the
        model as it is. frozen : the same for the frozen-token-mean model with all its streams.
    singular_values : ``[K + 1, n]`` of the (reader, writer) block at each state. order : streams,
        the most written to first; ``"dominant"`` keeps the first m.
    """

    table: EffectTable
    frozen: EffectTable
    singular_values: Tensor
    state_names: tuple[str, ...]
    order: tuple[int, ...]

    @property
    def added_loss(self) -> Tensor:
        """``[method, streams]``: loss above that of the frozen-token-mean model, nats per token."""
        return self.table.mean("delta_loss") - self.frozen.mean("delta_loss")

    @property
    def effective_rank(self) -> Tensor:
        """``[K + 1]``: ``exp(entropy)`` of each state's singular values over their sum (D13)."""
        return metrics.effective_streams(metrics.share(self.singular_values))

    def to_json(self) -> dict[str, Any]:
        return {
            "table": self.table.to_json(),
            "frozen": self.frozen.to_json(),
            "singular_values": self.singular_values.tolist(),
            "state_names": list(self.state_names),
            "order": list(self.order),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Compression:
        """What :meth:`to_json` wrote."""
        return cls(
            table=EffectTable.from_json(values["table"]),
            frozen=EffectTable.from_json(values["frozen"]),
            singular_values=torch.tensor(values["singular_values"], dtype=torch.float64),
            state_names=tuple(values["state_names"]),
            order=tuple(values["order"]),
        )


def collapse_streams(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    calibration: Iterable[Batch] | None = None,
) -> Compression:
    """Collapse ``model`` to m = 1 ... n streams without training, and measure the loss (B4).

    1. *Frozen token mean.* Every site's H_pre, H_res and H_post become their means over the
       calibration tokens: from here on nothing routes by token. Its cost is reported as ``frozen``.
    2. *Balanced truncation.* In that model, the state before site k matters through the block from
       everything written before k (the embedding included) to everything read from k on. Writers
       enter by the second moments of the state over calibration tokens, readers by
       :func:`.truncation.later_reads`. The state is sent through its m leading directions
       and back, ``X_k <- up_k down_k X_k`` (:func:`.truncation.balanced_projection`), at every site
       and at the readout. That is the same function as a network of m streams with
       read ``p_k up_k``, mixer ``down_{k+1} R_k up_k``, write ``down_{k+1} q_k``, expansion
       ``down_0 X_0`` and, before the readout, ``up_K``. With m = n nothing is projected.
    3. *Dominant streams.* For comparison: of the same frozen model only the m streams with the
       largest write share (mean over sites) are kept, and the others are zero in every state.

    The readout reads the sum of the streams where it takes their sum or mean unnormalised, and
    every stream by itself otherwise (a norm per stream before the sum, or token-dependent weights);
    it stays as it is.

    calibration : batches for means and second moments; None: ``batches`` themselves, which is the
    optimistic choice. Initial value: small, as little that readers tell apart has been written yet
    (mHC-lite, 4 blocks of width 96, on text, m = 1: 0.004 balanced, 0.4 dominant). Two passes over
    the calibration batches, then ``2 n + 1`` forwards of each batch and two of the model itself.

    Exact: m = n is the frozen-token-mean model; a model whose states span, or whose readers see,
    only r combinations of streams loses nothing with m = r.
    """
    evaluated = [(inputs, targets) for inputs, targets in batches]
    samples = evaluated if calibration is None else list(calibration)
    if not samples:
        raise ValueError("collapse_streams: calibration: expected at least one batch, got none")
    known = site_map(model)
    static = frozen_token_mean(model, samples)
    reads = later_reads(static.h_pre, static.h_res, _readers(model, known), static.gram)
    n = known.n_streams
    write_share = metrics.share(static.h_post).mean(dim=0)
    order = write_share.argsort(descending=True, stable=True)
    maps: list[list[Tensor] | None] = []
    for keep in range(1, n + 1):
        pairs = [balanced_projection(r, g, keep) for r, g in zip(reads, static.gram, strict=True)]
        maps.append(None if keep == n else [up @ down for down, up in pairs])
    for keep in range(1, n + 1):
        mask = torch.zeros(n, dtype=torch.float64).index_fill_(0, order[:keep], 1.0)
        maps.append(None if keep == n else [mask.diag()] * len(reads))

    def block(
        projections: Sequence[Tensor] | None, clean: Trace | None
    ) -> AbstractContextManager[None]:
        return _running(model, static, projections)

    details = {
        "definition": "B4",
        "calibration_tokens": sum(targets.numel() for _, targets in samples),
        "calibration": "the same batches" if calibration is None else "other batches",
    }
    counts = [str(keep) for keep in range(1, n + 1)]
    table = measure_blocks(
        model,
        {"method": ["balanced", "dominant"], "streams": counts},
        [partial(block, some) for some in maps],
        evaluated,
        details=details,
    )
    frozen = measure_blocks(
        model,
        {"method": ["frozen token mean"]},
        [partial(block, None)],
        evaluated,
        details=details,
    )
    return Compression(
        table=table,
        frozen=frozen,
        singular_values=torch.stack(
            [cut_values(r, g) for r, g in zip(reads, static.gram, strict=True)]
        ),
        state_names=(*known.names, READOUT),
        order=tuple(order.tolist()),
    )


def frozen_token_mean(model: nn.Module, batches: Sequence[Batch]) -> Static:
    """Token means of all coefficients over ``batches``, and the second moments of the states of the
    model that uses them: ``gram[k, i, j] = mean over tokens and channels of X_k[i] X_k[j]``."""
    known = site_map(model)
    n, sites = known.n_streams, len(known.names)
    sums = {
        "hook_pre": torch.zeros(sites, n, dtype=torch.float64),
        "hook_post": torch.zeros(sites, n, dtype=torch.float64),
        "hook_res": torch.zeros(sites, n, n, dtype=torch.float64),
    }
    for inputs, _ in batches:
        functions: dict[str, Hook] = {}
        for k, name in enumerate(known.names):
            for point, total in sums.items():
                add = partial(_add_mean, total[k], inputs.numel())
                functions[f"{known.point(name)}.{point}"] = add
        _forward(model, inputs, functions)
    tokens = sum(inputs.numel() for inputs, _ in batches)
    means = {point: total / tokens for point, total in sums.items()}
    gram = torch.zeros(sites + 1, n, n, dtype=torch.float64)
    static = Static(means["hook_pre"], means["hook_post"], means["hook_res"], gram)
    for inputs, _ in batches:
        with _running(model, static, None):
            _forward(model, inputs, _gram_hooks(known, static, gram, inputs.numel() / tokens))
    return static


def _add_mean(total: Tensor, tokens: int, value: Tensor, _: str) -> None:
    """Add ``tokens`` times the token mean of ``value`` to ``total``, in place."""
    total += tokens * token_mean(value.double(), total.ndim).cpu()


def _gram_hooks(known: SiteMap, static: Static, gram: Tensor, weight: float) -> dict[str, Hook]:
    """Hooks that add ``weight`` times a batch's second moments of every state to ``gram``."""

    def moments(rows: Tensor) -> Tensor:
        rows = rows.flatten(0, -3).double()
        return torch.einsum("tic,tjc->ij", rows, rows).cpu() / (len(rows) * rows.shape[-1])

    last: dict[str, Tensor] = {}

    def at(k: int, value: Tensor, _: str) -> None:
        gram[k] += weight * moments(value)
        last["x"] = value

    def after(value: Tensor, _: str) -> None:
        x, h_res, h_post = last["x"].double(), static.h_res[-1], static.h_post[-1]
        mixed = torch.einsum("ji,...ic->...jc", h_res.to(x.device), x)
        write = h_post.to(x.device).unsqueeze(-1) * value.double().unsqueeze(-2)
        gram[-1] += weight * moments(mixed + write)

    functions: dict[str, Hook] = {
        f"{known.point(name)}.hook_streams_in": partial(at, k) for k, name in enumerate(known.names)
    }
    # The last state from the last write: models without a known readout have it too.
    functions[f"{known.point(known.names[-1])}.hook_out"] = after
    return functions


@torch.no_grad()
def _forward(model: nn.Module, inputs: Tensor, functions: Mapping[str, Hook]) -> None:
    training = model.training
    model.eval()
    try:
        with hooks(model, functions):
            model(inputs.to(next(model.parameters()).device))
    finally:
        model.train(training)


@contextmanager
def _running(
    model: nn.Module, static: Static, projections: Sequence[Tensor] | None
) -> Iterator[None]:
    """``model`` with static coefficients and, if given, every state projected."""
    known = site_map(model)
    functions: dict[str, Hook] = {}

    def constant(number: Tensor, value: Tensor, _: str) -> Tensor:
        return number.to(value)

    def project(matrix: Tensor, value: Tensor, _: str) -> Tensor:
        return torch.einsum("ji,...ic->...jc", matrix.to(value), value)

    for k, name in enumerate(known.names):
        prefix = known.point(name)
        for point, numbers in (
            ("hook_pre", static.h_pre),
            ("hook_res", static.h_res),
            ("hook_post", static.h_post),
        ):
            functions[f"{prefix}.{point}"] = partial(constant, numbers[k])
    # A model without a known readout has one state more than can be reached.
    for name, matrix in zip(known.state_names, projections or (), strict=False):
        functions[f"{known.point(name)}.hook_streams_in"] = partial(project, matrix)
    with hooks(model, functions):
        yield


def _readers(model: nn.Module, known: SiteMap) -> Tensor:
    """``[m, n]``: the combinations of the last streams that the readout sees."""
    n = known.n_streams
    end = None if known.readout is None else tap_modules(model)[known.readout]
    if isinstance(end, ReduceStreams):
        plain = end.norm is None or end.norm_position == "after"
        if plain and end.scheme in ("sum", "mean"):
            return torch.ones(1, n, dtype=torch.float64)
    return torch.eye(n, dtype=torch.float64)
