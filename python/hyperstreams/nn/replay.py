"""Less memory for training: streams are kept once per group of sites and replayed in backward."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .. import ops
from .streams import Streams


def recompute_group_size(n_sites: int, n_streams: int) -> int:
    """Sites per group, ``sqrt(n L / (n + 2))`` rounded, for L sites of n streams; at least 1.

    It balances the streams kept, one state per group, against those of a group in replay.
    Raises ValueError for counts below 1. Source: mHC, 2512.24880, eq. 20.
    """
    if n_sites < 1 or n_streams < 1:
        raise ValueError(
            f"recompute_group_size: expected n_sites and n_streams >= 1, got {n_sites}, {n_streams}"
        )
    return max(1, round(math.sqrt(n_streams * n_sites / (n_streams + 2))))


class _State:
    """The streams that one pending write leads to: kept, or replayed from those before."""

    def __init__(self, source: Tensor | _State, write: Streams, depth: int) -> None:
        self.source = source
        self.depth = depth  # writes since the streams that are kept
        self.write = [write.y, write.h_res, write.h_post]
        self.write = [None if value is None else value.detach() for value in self.write]
        self.versions = [0 if value is None else value._version for value in self.write]
        self.backend = ops.backend_status().backend
        self.replayed: Tensor | None = None

    def replay(self) -> Tensor:
        """The streams, with the forward's bits; those on the way are kept for their own turn."""
        chain = [self]
        while isinstance(chain[-1].source, _State) and chain[-1].source.replayed is None:
            chain.append(chain[-1].source)
        source = chain[-1].source
        x = source if isinstance(source, Tensor) else source.replayed
        assert x is not None
        for state in reversed(chain):
            versions = [0 if value is None else value._version for value in state.write]
            if versions != state.versions:
                raise RuntimeError(
                    "recompute: a branch output or coefficient was modified in place after the "
                    "forward; its site cannot be replayed"
                )
            y, h_res, h_post = state.write
            with torch.no_grad(), ops.backend(state.backend):
                x = Streams(x, y, h_res, h_post).tensor
            state.replayed = x
        self.replayed = None  # its one user is served; another one replays again
        return x


class _Recorder:
    """Knows which tensors of the forward are streams that can be replayed."""

    def __init__(self, group_size: int) -> None:
        self.group_size = group_size
        self.known: dict[int, tuple[weakref.ref[Tensor], int, _State]] = {}

    def find(self, x: Tensor) -> _State | None:
        """The state that x, or a detached alias of it, holds."""
        reference, version, state = self.known.get(x.data_ptr(), (None, 0, None))
        known = None if reference is None else reference()
        if known is None or known.data_ptr() != x.data_ptr():
            return None
        same_view = known.shape == x.shape and known.stride() == x.stride()
        return state if same_view and known.dtype == x.dtype and x._version == version else None

    def record(self, x: Tensor, write: Streams) -> None:
        """``x`` are the streams that the pending ``write`` led to."""
        if not torch.is_grad_enabled() or x.numel() == 0:
            return
        before = self.find(write.x)
        depth = 1 if before is None else before.depth + 1
        if depth >= self.group_size:
            return  # kept as it is: the first streams of the next group
        source = write.x.detach() if before is None else before
        self.known[x.data_ptr()] = (weakref.ref(x), x._version, _State(source, write, depth))

    def pack(self, x: Tensor) -> Tensor | _State:
        """What the graph keeps in place of ``x``."""
        state = self.find(x)
        return x if state is None else state

    @staticmethod
    def unpack(kept: Tensor | _State) -> Tensor:
        """The tensor again."""
        return kept.replay() if isinstance(kept, _State) else kept


class _Active:
    """The recorder of the block that is open, for the sites."""

    recorder: _Recorder | None = None


ACTIVE = _Active()


def record_streams(x: Tensor, write: Streams) -> None:
    """Called by each site inside a block with the streams that it made from a pending write."""
    if torch.compiler.is_compiling():
        raise RuntimeError(
            "recompute: expected an eager model, got a compiled one; torch.compile chooses itself "
            "what to recompute"
        )
    assert ACTIVE.recorder is not None
    ACTIVE.recorder.record(x, write)


def _group_size(of: int | nn.Module) -> int:
    if isinstance(of, nn.Module):
        # connection.py imports this file.
        from .connection import Connection

        streams = [m.n_streams for m in of.modules() if isinstance(m, Connection)]
        if not streams:
            raise ValueError("recompute: expected a model with hyper-connection sites, got none")
        return recompute_group_size(len(streams), max(streams))
    if isinstance(of, bool) or not isinstance(of, int) or of < 1:
        raise ValueError(f"recompute: group_size: expected a model or an int >= 1, got {of!r}")
    return of


@contextmanager
def recompute(group_size: int | nn.Module) -> Iterator[None]:
    """Forward passes inside keep streams once per group of sites; backward replays the others.

    Of every site the graph keeps the branch output ``y [..., C]`` and the coefficients; of every
    group the first streams ``[..., n, C]``. Backward replays a group's streams from them by
    ``X' = h_res X + h_post y`` with the forward's rounding, so that gradients have the same bits.
    The branches' own activations are not touched (:func:`torch.utils.checkpoint.checkpoint` is for
    those), and branches do not run twice.

    group_size : sites per group, >= 1 (1 keeps all streams), or the model, for which
        :func:`recompute_group_size` chooses. ``loss.backward()`` may be inside the block or after.

    Eager models only: a compiled one raises RuntimeError. Blocks do not nest.
    Source: mHC, 2512.24880, eq. 20.
    """
    size = _group_size(group_size)
    if ACTIVE.recorder is not None:
        raise RuntimeError("recompute: expected no open block, got one inside another")
    recorder = _Recorder(size)
    ACTIVE.recorder = recorder
    try:
        with torch.autograd.graph.saved_tensors_hooks(recorder.pack, recorder.unpack):
            yield
    finally:
        ACTIVE.recorder = None
