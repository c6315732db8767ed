"""The causal matrices: which streams are needed where (D21), what rescues them (D22), and how much
mixing matters (D23)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .effects import Batch, EffectTable, measure_grid
from .interventions import Ablate, AblateBy, Edit, Replace, Rescue, Routing
from .sites import READOUT, SiteRange, site_map

Subsets = Literal["single", "all"] | Sequence[Sequence[int]]

MIXER_REPLACEMENTS: dict[str, tuple[str, int | None]] = {
    "identity": ("identity", None),
    "uniform": ("uniform", None),
    "token mean": ("token_mean", None),
    "static part": ("static", None),
    "top 1": ("top", 1),
    "top 2": ("top", 2),
}
"""Label to ``Replace``'s ``by`` and ``keep``."""


def stream_subsets(n: int, subsets: Subsets = "single") -> list[tuple[int, ...]]:
    """``"single"``: one stream each; ``"all"``: every subset but the empty one, by size."""
    if subsets == "single":
        return [(stream,) for stream in range(n)]
    if subsets == "all":
        sizes = (itertools.combinations(range(n), size) for size in range(1, n + 1))
        return [subset for some in sizes for subset in some]
    return [tuple(int(stream) for stream in subset) for subset in subsets]


def subset_name(subset: Sequence[int]) -> str:
    """``s0+s2``; ``none`` for no stream."""
    return "+".join(f"s{stream}" for stream in subset) or "none"


def ablation_matrix(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    by: AblateBy = "zero",
    source: int | None = None,
    subsets: Subsets = "single",
    sites: SiteRange = "all",
    onwards: bool = False,
    routing: Routing = "frozen",
    generator: torch.Generator | None = None,
) -> EffectTable:
    """D21: ablate each subset of streams in the state before each site: axes streams x state.

    onwards : ablate from that state on instead of there alone. Frozen routing as in *Ablate and
    Rescue* (2603.14833): only content is taken away. Initial value: close to 0 in kl for a model
    whose logits are close to uniform; compare trained with initial. Permuting the streams permutes
    the rows. One forward per cell and batch.
    """
    known = site_map(model)
    chosen = stream_subsets(known.n_streams, subsets)
    states = known.resolve(sites, states=True)
    order = known.state_names
    cells = [
        [Ablate(subset, order[order.index(state) :] if onwards else state, by, source)]
        for subset in chosen
        for state in states
    ]
    return measure_grid(
        model,
        {"streams": [subset_name(subset) for subset in chosen], "state": states},
        cells,
        batches,
        routing=routing,
        generator=generator,
        details={"definition": "D21", "by": by, "source": source, "onwards": onwards},
    )


@dataclass(frozen=True)
class RescueTable:
    """D22: ``ablated`` with axes state x ablated, ``rescued`` with axes state x ablated x rescued.

    rescued_at : the state where streams were restored, for each state of ablation.
    """

    ablated: EffectTable
    rescued: EffectTable
    rescued_at: tuple[str, ...]

    @property
    def recovery(self) -> Tensor:
        """``1 - KL_rescued / KL_ablated`` of the means over batches: ``[state, ablated, rescued]``.

        1: all of the damage is undone; 0: none; negative: the rescue did harm. nan where the
        ablation had no effect.
        """
        return self._recovery(self.ablated.mean().unsqueeze(-1), self.rescued.mean())

    @property
    def overall(self) -> Tensor:
        """The same with the KL summed over states first, ``[ablated, rescued]``: states count by
        the damage done there."""
        lost = self.ablated.mean().sum(dim=0).unsqueeze(-1)
        return self._recovery(lost, self.rescued.mean().sum(dim=0))

    @staticmethod
    def _recovery(lost: Tensor, left: Tensor) -> Tensor:
        ratio = left / torch.where(lost == 0, 1.0, lost)
        return torch.where(lost == 0, torch.nan, 1 - ratio)

    def to_json(self) -> dict[str, Any]:
        return {
            "ablated": self.ablated.to_json(),
            "rescued": self.rescued.to_json(),
            "rescued_at": list(self.rescued_at),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> RescueTable:
        """What :meth:`to_json` wrote."""
        return cls(
            ablated=EffectTable.from_json(values["ablated"]),
            rescued=EffectTable.from_json(values["rescued"]),
            rescued_at=tuple(values["rescued_at"]),
        )


def rescue_matrix(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    by: AblateBy = "zero",
    sites: SiteRange = "all",
    after: int = 2,
    routing: Routing = "frozen",
    generator: torch.Generator | None = None,
) -> RescueTable:
    """D22: ablate stream i at a state, restore the clean stream j ``after`` sites later.

    Recovery in column j says how much of the damage had reached the output through stream j by
    then; a large diagonal, that it had stayed in stream i. Columns need not add up to 1.
    ``after=0`` restores at once: exactly 1 for j = i and 0 for all others. Near the end the readout
    is where streams are restored. ``by`` is not ``"copy"``: which stream would have to be told for
    each i; with ``"resample"`` ablation and rescue draw different tokens. (2603.14833)
    """
    if by == "copy":
        raise ValueError("rescue_matrix: by: expected zero, mean or resample, got 'copy'")
    if after < 0:
        raise ValueError(f"rescue_matrix: after: expected at least 0, got {after}")
    known = site_map(model)
    order = known.state_names
    states = [name for name in known.resolve(sites, states=True) if name != READOUT]
    rescued_at = [order[min(order.index(state) + after, len(order) - 1)] for state in states]
    streams = [subset_name((stream,)) for stream in range(known.n_streams)]
    kept = [(inputs, targets) for inputs, targets in batches]
    cells: list[list[Edit]] = []
    pairs: list[list[Edit]] = []
    for state, later in zip(states, rescued_at, strict=True):
        for i in range(known.n_streams):
            cells.append([Ablate((i,), state, by)])
            pairs += [
                [Ablate((i,), state, by), Rescue((j,), later)] for j in range(known.n_streams)
            ]
    details = {"definition": "D22", "by": by, "after": after, "rescued_at": rescued_at}
    tables = []
    for axes, plans in (
        ({"state": states, "ablated": streams}, cells),
        ({"state": states, "ablated": streams, "rescued": streams}, pairs),
    ):
        tables.append(
            measure_grid(
                model, axes, plans, kept, routing=routing, generator=generator, details=details
            )
        )
    return RescueTable(tables[0], tables[1], tuple(rescued_at))


def mixer_matrix(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    replacements: Sequence[str] = tuple(MIXER_REPLACEMENTS),
    groups: Mapping[str, SiteRange] | None = None,
    routing: Routing = "live",
) -> EffectTable:
    """D23: replace the mixers of groups of sites: axes replacement x group.

    replacements : keys of :data:`MIXER_REPLACEMENTS`. groups : name to sites; None: ``early`` and
    ``late`` halves and ``all``. Change of perplexity: ``exp(delta_loss) - 1``. Initial value of
    identity and token mean: near 0 where mixers start near the identity.

    Reported for DeepSeek-V4-Flash (2609.05309): identity late +1.9 % perplexity, early +41 %;
    early token mean +0.2 %.
    """
    known = site_map(model)
    sites = {"early": "early", "late": "late", "all": "all"} if groups is None else dict(groups)
    unknown = [name for name in replacements if name not in MIXER_REPLACEMENTS]
    if unknown:
        raise ValueError(
            f"mixer_matrix: replacements: expected some of {', '.join(MIXER_REPLACEMENTS)}, "
            f"got {unknown[0]!r}"
        )
    cells = [
        [Replace("mixer", by, where, keep)]
        for by, keep in (MIXER_REPLACEMENTS[name] for name in replacements)
        for where in sites.values()
    ]
    return measure_grid(
        model,
        {"replacement": replacements, "group": list(sites)},
        cells,
        batches,
        routing=routing,
        details={
            "definition": "D23",
            "groups": {name: list(known.resolve(where)) for name, where in sites.items()},
        },
    )
