"""The four failures that share the name "collapse", side by side and never as one score.

Usage: reads and writes concentrate on one stream. Averaging: the composite mixer tends to the
uniform average. Redundancy: streams become parallel. Causal: streams carry nothing that later sites
use. Each is invisible to the measures of the others: full averaging has perfectly balanced shares,
and balanced shares of identical streams are redundant all the same.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from .composite import composites, contraction, dobrushin
from .geometry import stream_cosine
from .ledger import contributions, cut_rank, ledger, writers
from .similarity import effective_rank
from .usage import effective_streams, entropy, mean_share, persistence, persistence_null, share


class StreamTensors(Protocol):
    """Per-token tensors of a forward pass, as :class:`~hyperstreams.diagnostics.Trace` has them."""

    @property
    def streams(self) -> Tensor: ...
    @property
    def h_pre(self) -> Tensor: ...
    @property
    def h_post(self) -> Tensor: ...
    @property
    def h_res(self) -> Tensor: ...
    @property
    def branch_out(self) -> Tensor: ...


@dataclass(frozen=True)
class Measured:
    """One number with what it must be compared with.

    initial : the same number of the model at initialisation, None if not given.
    null : what chance or absence of the matter gives, None where there is none; null_meaning says.
    collapsed : its value at complete collapse of this kind.
    """

    value: float
    initial: float | None
    null: float | None
    null_meaning: str
    collapsed: float
    definition: str


@dataclass(frozen=True)
class Collapse:
    """One kind of collapse: the question it answers and its measures by name."""

    kind: str
    question: str
    measures: dict[str, Measured]


QUESTIONS = {
    "usage": "Do reads and writes concentrate on one stream?",
    "averaging": "Do the mixers together average the streams?",
    "redundancy": "Are the streams copies of one direction?",
    "causal": "Does what passes from earlier to later sites need more than one stream?",
}
"""The four kinds with what each asks."""


def is_replicated(streams: Tensor) -> bool:
    """Whether all streams of the first state ``[..., n, C]`` are copies."""
    return bool((streams == streams[..., :1, :]).all())


def mean_cut_rank(tensors: StreamTensors, *, max_tokens: int = 256) -> float:
    """Cut rank (D13) averaged over tokens and over the cuts that can exceed 1.

    Cuts are the states from the second to that before the last site: at the first state of copies
    and at the readout it is 1 for every network. Tokens are taken at an even stride. With fewer
    than three sites no such cut exists: 1. The readout counts as a sum of the streams.
    """
    sites, n = tensors.h_pre.shape[0], tensors.h_pre.shape[-1]
    if sites < 3:
        return 1.0
    tokens = tensors.h_pre[0].numel() // n
    stride = max(-(-tokens // max_tokens), 1)

    def sampled(value: Tensor, inner: int) -> Tensor:
        flat = value.reshape(value.shape[0], tokens, *value.shape[value.ndim - inner :])
        return flat[:, ::stride].double()

    streams = sampled(tensors.streams[:1], 2)[0]
    copies = is_replicated(streams)
    start = None if copies else torch.eye(n, dtype=torch.float64, device=streams.device)
    composition = ledger(sampled(tensors.h_res, 2), sampled(tensors.h_post, 1), start=start)
    norm = writers(streams, sampled(tensors.branch_out, 1), replicated=copies).norm(dim=-1)
    c = contributions(sampled(tensors.h_pre, 1), composition)
    rank = cut_rank(c, norm, starts=1 if copies else n)
    return float(rank[1 : sites - 1].mean())


def _usage(tensors: StreamTensors) -> dict[str, float]:
    found = {}
    for side, h in (("read", tensors.h_pre), ("write", tensors.h_post)):
        mean = torch.stack([mean_share(site) for site in h.double()])
        token = entropy(share(h.double())).flatten(1).mean(dim=1).exp()
        found[f"{side}_effective_streams"] = float(effective_streams(mean).mean())
        found[f"{side}_effective_streams_token"] = float(token.mean())
        found[f"{side}_persistence"] = float(persistence(mean))
    return found


def _averaging(tensors: StreamTensors) -> dict[str, float]:
    composite = composites(tensors.h_res.double())[-1]
    return {
        "contraction": float(contraction(composite).mean()),
        "dobrushin": float(dobrushin(composite).mean()),
    }


def _redundancy(tensors: StreamTensors) -> dict[str, float]:
    states = tensors.streams[1:].double()
    gram = states @ states.mT
    n = gram.shape[-1]
    cosine = stream_cosine(gram).mean(dim=tuple(range(gram.ndim - 2)))
    pairs = max(n * (n - 1), 1)
    return {
        "cosine": float((cosine.sum() - cosine.trace()) / pairs),
        "effective_rank": float(effective_rank(gram, unit_norm=True).mean()),
    }


def _values(tensors: StreamTensors, max_tokens: int) -> dict[str, dict[str, float]]:
    return {
        "usage": _usage(tensors),
        "averaging": _averaging(tensors),
        "redundancy": _redundancy(tensors),
        "causal": {"cut_rank": mean_cut_rank(tensors, max_tokens=max_tokens)},
    }


def _persistence_mean(n: int, sites: int) -> float:
    count = torch.arange(sites + 1, dtype=torch.float64)
    return float((persistence_null(n, sites) * count).sum() / sites)


def _references(n: int, sites: int) -> dict[str, tuple[float | None, str, float, str]]:
    """Null, its meaning, the collapsed value and the definition of each measure."""
    random = _persistence_mean(n, sites)
    table: dict[str, tuple[float | None, str, float, str]] = {}
    for side in ("read", "write"):
        table[f"{side}_effective_streams"] = (
            None,
            "",
            1.0,
            f"exp(entropy) of the token-mean {side} share, mean over sites (D3; 1 to n)",
        )
        table[f"{side}_effective_streams_token"] = (
            None,
            "",
            1.0,
            f"exp(token mean of the entropy) of the {side} share, mean over sites (D3); far below "
            "the line above: routing by token, not collapse",
        )
        table[f"{side}_persistence"] = (
            random,
            "each site's leader drawn at random",
            1.0,
            f"fraction of sites with the most frequent leader of the {side} share (D5)",
        )
    table["contraction"] = (
        None,
        "",
        0.0,
        "largest singular value of the composite of all mixers on differences, token mean (D8)",
    )
    table["dobrushin"] = (
        None,
        "",
        0.0,
        "Dobrushin coefficient over sources of that composite, token mean (D8)",
    )
    table["cosine"] = (
        0.0,
        "independent streams",
        1.0,
        "cosine of two streams, mean over pairs, tokens and states after the first (D16)",
    )
    table["effective_rank"] = (
        float(n),
        "independent streams, C >> n",
        1.0,
        "exp(entropy) of eigenvalues of unit-norm streams' Gram matrix, same mean (D17)",
    )
    table["cut_rank"] = (
        1.0,
        "a plain residual network",
        1.0,
        "effective rank of contributions across a state, mean over inner states and tokens (D13)",
    )
    table["ablation_kl"] = (
        0.0,
        "an ablation that changes nothing",
        0.0,
        "KL(clean || ablated) in nats per token, mean of the values given (D21)",
    )
    return table


def collapse_report(
    tensors: StreamTensors,
    *,
    initial: StreamTensors | None = None,
    ablation_kl: Tensor | None = None,
    initial_ablation_kl: Tensor | None = None,
    max_tokens: int = 256,
) -> dict[str, Collapse]:
    """The four kinds of collapse of one model, each with its own measures.

    tensors : of held-out tokens, such as a ``Trace``; n streams, K sites.
    initial : the same of the model at initialisation (same config and generator), for ``initial``.
    ablation_kl : KL of stream ablations in any shape, such as the mean of
        :func:`~hyperstreams.diagnostics.ablation_matrix`; without it the causal entry rests on the
        cut rank alone, which is still observational. initial_ablation_kl : at initialisation.
    max_tokens : tokens of which the cut rank is computed.

    Returns entries ``usage``, ``averaging``, ``redundancy``, ``causal``. There is no sum of them:
    they can move in opposite directions, and balanced use is not a goal in itself. Unchanged by
    permutations of the streams. Source: the distinction is ours; each measure's source is in its
    function.
    """
    values = _values(tensors, max_tokens)
    first = None if initial is None else _values(initial, max_tokens)
    references = _references(tensors.h_pre.shape[-1], tensors.h_pre.shape[0])
    report = {}
    for kind, found in values.items():
        start: dict[str, float] = {} if first is None else dict(first[kind])
        if kind == "causal" and ablation_kl is not None:
            found["ablation_kl"] = float(ablation_kl.double().mean())
            if initial_ablation_kl is not None:
                start["ablation_kl"] = float(initial_ablation_kl.double().mean())
        measures = {}
        for name, value in found.items():
            null, meaning, collapsed, definition = references[name]
            measures[name] = Measured(value, start.get(name), null, meaning, collapsed, definition)
        report[kind] = Collapse(kind, QUESTIONS[kind], measures)
    return report


def collapse_rows(report: dict[str, Collapse]) -> list[dict[str, Any]]:
    """The report as rows for a table or CSV: kind, measure and the fields of :class:`Measured`."""
    return [
        {"kind": entry.kind, "measure": name, **asdict(measured)}
        for entry in report.values()
        for name, measured in entry.measures.items()
    ]
