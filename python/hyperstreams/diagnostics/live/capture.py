"""Run a trained model over batches and accumulate its stream statistics.

The numbers are outputs of the model's own forward (``collect_stats=True``), so that they survive
``torch.compile`` and describe exactly the module that trains: no hook, no second copy of the maths.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...ops import (
    merge_stream_stats,
    stream_stats_fields,
    stream_stats_size,
    unpack_stream_stats,
)

_STATE_FIELDS = frozenset(
    {"gram", "norm", "cosine", "differential_energy", "curvature", "position_curvature"}
)
_RANGES = ("_m2", "_min", "_max")
_COUNTERS = {
    "curvature": "curvature_count",
    "position_curvature": "position_curvature_count",
}


@dataclass(frozen=True)
class Capture:
    """Statistics over tokens of every site, per batch, in float64 on the CPU.

    sums : packed as by ``ops.stream_stats``,
        ``[batches, sites + 1, stream_stats_size(n_streams)]``; the last row is the readout, the
        state after the last site. Row k is the state *before* site k with the site's coefficients.
    site_names : the sites in order, ``("L0a", "L0m", ...)``.
    loss : ``[batches]`` mean loss of each batch in nats per token; nan without targets.
    details : what the numbers belong to (model, seed, split, ...); JSON values only.
    """

    sums: Tensor
    n_streams: int
    site_names: tuple[str, ...]
    loss: Tensor
    details: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        expected = (len(self.site_names) + 1, stream_stats_size(self.n_streams))
        if self.sums.ndim != 3 or tuple(self.sums.shape[1:]) != expected:
            raise ValueError(
                f"Capture: sums: expected shape [batches, {expected[0]}, {expected[1]}], "
                f"got {list(self.sums.shape)}"
            )
        if self.loss.shape != self.sums.shape[:1]:
            raise ValueError(
                f"Capture: loss: expected one value per batch ({self.sums.shape[0]}), "
                f"got shape {list(self.loss.shape)}"
            )

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of the rows: the sites, then ``"readout"``."""
        return (*self.site_names, "readout")

    @property
    def batches(self) -> int:
        return self.sums.shape[0]

    @property
    def tokens(self) -> int:
        """Tokens captured, over all batches."""
        return int(self.total("count")[0])

    @property
    def mean_loss(self) -> float:
        """Loss over all captured tokens, nats per token."""
        weight = unpack_stream_stats(self.sums, self.n_streams)["count"][:, 0]
        return float((self.loss * weight).sum() / weight.sum())

    def total(self, name: str) -> Tensor:
        """A packed field of all batches together: ``[sites + 1, *field shape]``."""
        fields = unpack_stream_stats(merge_stream_stats(self.sums, self.n_streams), self.n_streams)
        if name not in fields:
            raise ValueError(f"Capture: field: expected one of {', '.join(fields)}, got {name!r}")
        return fields[name]

    def mean(self, name: str) -> Tensor:
        """Token mean of a packed field; of ``h_pre_m2`` and the like, the variance over tokens.

        ``[sites, ...]`` for coefficients, which the readout does not have; ``[sites + 1, ...]`` for
        what describes the state. Angles are divided by the number of angles. No tokens: nan.
        Raises ValueError for what is no sum over tokens: ``_min`` and ``_max``, and for the counts.
        """
        total = self.total(name)
        if name.endswith(("_min", "_max", "count")):
            raise ValueError(
                f"Capture.mean: name: expected a field that is summed over tokens, got {name!r}; "
                f"total({name!r}) gives it"
            )
        count = self.total(_COUNTERS.get(name, "count"))
        mean = total / count.reshape(count.shape + (1,) * (total.ndim - count.ndim))
        return mean if name in _STATE_FIELDS else mean[:-1]

    def batch(self, index: int) -> Capture:
        """The capture of one batch alone, for spreads over batches."""
        keep = slice(index, index + 1)
        return Capture(
            self.sums[keep], self.n_streams, self.site_names, self.loss[keep], self.details
        )

    def merge(self, *others: Capture) -> Capture:
        """All batches of several captures of the same model, in the order given."""
        for other in others:
            if (other.n_streams, other.site_names) != (self.n_streams, self.site_names):
                raise ValueError(
                    f"Capture.merge: expected {self.n_streams} streams and sites "
                    f"{', '.join(self.site_names)}; got {other.n_streams} streams and sites "
                    f"{', '.join(other.site_names)}"
                )
        parts = (self, *others)
        return Capture(
            torch.cat([part.sums for part in parts]),
            self.n_streams,
            self.site_names,
            torch.cat([part.loss for part in parts]),
            self.details,
        )

    def save(self, path: str | Path) -> None:
        """Write to ``path``: ``.json`` (exact decimal floats) or ``.npz`` (needs numpy).

        The file is put in place whole: an interruption leaves what was there before.
        """
        path = Path(path)
        header = {
            "format": "hyperstreams.capture.v1",
            "n_streams": self.n_streams,
            "site_names": list(self.site_names),
            "fields": {k: list(v) for k, v in stream_stats_fields(self.n_streams).items()},
            "details": self.details,
        }
        temporary = path.with_name(f".{path.name}.new")
        if path.suffix == ".json":
            lists = {"sums": self.sums.tolist(), "loss": self.loss.tolist()}
            temporary.write_text(json.dumps(header | lists))
        elif path.suffix == ".npz":
            import numpy

            sums, loss = self.sums.numpy(), self.loss.numpy()
            with temporary.open("wb") as file:
                numpy.savez_compressed(file, header=json.dumps(header), sums=sums, loss=loss)
        else:
            raise ValueError(f"Capture.save: path: expected .json or .npz, got {path.name!r}")
        os.replace(temporary, path)

    @staticmethod
    def load(path: str | Path) -> Capture:
        """Read what :meth:`save` wrote; fields that an older one lacks are nan."""
        path = Path(path)
        if path.suffix == ".json":
            header = json.loads(path.read_text())
            sums, loss = (torch.tensor(header[k], dtype=torch.float64) for k in ("sums", "loss"))
        elif path.suffix == ".npz":
            import numpy

            with numpy.load(path, allow_pickle=False) as archive:
                header = json.loads(str(archive["header"]))
                sums, loss = (torch.from_numpy(archive[k]) for k in ("sums", "loss"))
        else:
            raise ValueError(f"Capture.load: path: expected .json or .npz, got {path.name!r}")
        fields = {k: list(v) for k, v in stream_stats_fields(header["n_streams"]).items()}
        without_ranges = {k: v for k, v in fields.items() if not k.endswith(_RANGES)}
        if header.get("fields") == without_ranges:
            missing = stream_stats_size(header["n_streams"]) - sums.shape[-1]
            sums = torch.nn.functional.pad(sums, (0, missing), value=torch.nan)
        elif header.get("fields") != fields:
            raise ValueError(f"Capture.load: {path.name}: written with other fields; capture again")
        return Capture(
            sums, header["n_streams"], tuple(header["site_names"]), loss, header["details"]
        )


def streams_of_size(size: int) -> int:
    """The stream count whose packed sums are that many."""
    return next(n for n in range(1, size) if stream_stats_size(n) == size)


def capture(
    model: nn.Module,
    batches: Iterable[Sequence[Tensor]],
    *,
    details: dict[str, Any] | None = None,
) -> Capture:
    """Statistics of ``model`` over ``batches`` of ``(tokens,)`` or ``(tokens, targets)``.

    ``model(tokens, targets, collect_stats=True) -> (logits, loss, stats)`` with ``site_names``, as
    :class:`hyperstreams.models.GPT` has, compiled or not. Of AltUp, ResiDual and other baselines
    with several streams the quantities of states are known, those of coefficients nan. It runs in
    evaluation mode without gradients and is put back into its mode. Sums stay on the device until
    the end: nothing waits for the host between batches.
    """
    device = next(model.parameters()).device
    training = model.training
    sums: list[Tensor] = []
    losses: list[Tensor] = []
    model.eval()
    try:
        with torch.no_grad():
            for batch in batches:
                tokens, targets = (batch[0], batch[1] if len(batch) > 1 else None)
                _, loss, stats = model(
                    tokens.to(device),
                    None if targets is None else targets.to(device),
                    collect_stats=True,
                )
                sums.append(stats.double())
                losses.append(
                    stats.new_tensor(torch.nan).double() if loss is None else loss.double()
                )
    finally:
        model.train(training)
    if not sums:
        raise ValueError("capture: batches: expected at least one batch, got none")
    return Capture(
        sums=torch.stack(sums).cpu(),
        n_streams=streams_of_size(sums[0].shape[-1]),
        site_names=tuple(model.site_names),  # type: ignore[arg-type]
        loss=torch.stack(losses).cpu(),
        details=dict(details or {}),
    )
