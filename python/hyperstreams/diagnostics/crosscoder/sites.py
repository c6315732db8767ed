"""Which states a crosscoder reads: the streams after chosen blocks, in one order everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ..._errors import check_choice

Variant = Literal["joint", "per_layer", "per_stream"]


@dataclass(frozen=True)
class Sites:
    """``len(layers) * n_streams`` sites; site ``i = layer * n_streams + stream``.

    layers : blocks, ascending; layer l means the state *after* block l. (Before block 0 replicated
        streams are copies of the embedding and could only share every feature.)
    """

    layers: tuple[int, ...]
    n_streams: int

    def __post_init__(self) -> None:
        if not self.layers or list(self.layers) != sorted(set(self.layers)):
            raise ValueError(
                "Sites: layers: expected ascending block indices without repeats, "
                f"got {list(self.layers)}"
            )
        if self.n_streams < 1:
            raise ValueError(f"Sites: n_streams: expected at least 1, got {self.n_streams}")

    @property
    def count(self) -> int:
        """Number of sites I."""
        return len(self.layers) * self.n_streams

    @property
    def names(self) -> list[str]:
        """``["0.s0", "0.s1", ...]``: layer, then stream."""
        return [f"{layer}.s{s}" for layer in self.layers for s in range(self.n_streams)]

    def groups(self, variant: Variant) -> dict[str, list[int]]:
        """The sites of each coder of a variant, by the coder's name.

        ``joint``: one coder over all sites. ``per_layer``: one coder per layer over its n streams.
        ``per_stream``: one coder per stream over the layers (with one layer: a plain sparse
        autoencoder); its features are in one stream by construction, so it says nothing about
        shares.
        """
        check_choice("Sites.groups", "variant", variant, get_args(Variant))
        n, layers = self.n_streams, range(len(self.layers))
        if variant == "joint":
            return {"joint": list(range(self.count))}
        if variant == "per_layer":
            return {f"layer{self.layers[j]}": [j * n + s for s in range(n)] for j in layers}
        return {f"stream{s}": [j * n + s for j in layers] for s in range(n)}

    def shape_of(self, variant: Variant) -> tuple[int, int]:
        """``(layers, streams)`` of one coder of a variant."""
        return (
            1 if variant == "per_layer" else len(self.layers),
            1 if variant == "per_stream" else self.n_streams,
        )
