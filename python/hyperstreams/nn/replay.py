"""Less memory for training: streams are kept once per group of sites and replayed in backward."""

from __future__ import annotations

import math
import threading
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


class _Saved:
    """A tensor that the graph keeps, with the check that autograd leaves to saved-tensor hooks."""

    def __init__(self, value: Tensor) -> None:
        self.value = value
        self.version = value._version

    def __call__(self) -> Tensor:
        """The tensor. Raises RuntimeError where it was modified in place since."""
        if self.value._version != self.version:
            raise RuntimeError(
                "recompute: a tensor that backward needs was modified in place after the forward: "
                f"shape {tuple(self.value.shape)}, {self.value.dtype}"
            )
        return self.value


class _State:
    """The streams that one pending write leads to: kept, or replayed from those before."""

    def __init__(self, source: _Saved | _State, write: Streams, depth: int) -> None:
        self.source = source
        self.depth = depth  # writes since the streams that are kept
        self.write = [
            None if value is None else _Saved(value.detach())
            for value in (write.y, write.h_res, write.h_post)
        ]
        self.backend = ops.backend_status().backend
        self.replayed: Tensor | None = None

    def __call__(self) -> Tensor:
        """The streams, with the forward's bits; those on the way are kept for their own turn."""
        chain = [self]
        while isinstance(chain[-1].source, _State) and chain[-1].source.replayed is None:
            chain.append(chain[-1].source)
        source = chain[-1].source
        x = source() if isinstance(source, _Saved) else source.replayed
        assert x is not None
        for state in reversed(chain):
            y, h_res, h_post = (None if saved is None else saved() for saved in state.write)
            with torch.no_grad(), ops.backend(state.backend):
                x = Streams(x, y, h_res, h_post).tensor
            state.replayed = x
        self.replayed = None  # its one user is served; another one replays again
        return x


class _Recorder:
    """Knows which tensors of the forward are streams that can be replayed, while they live."""

    def __init__(self, group_size: int) -> None:
        self.group_size = group_size
        self.known: dict[int, tuple[weakref.ref[Tensor], int, _State]] = {}

    def find(self, x: Tensor) -> _State | None:
        """The state that x, or a detached alias of it, holds."""
        if type(x) is not Tensor or x.layout != torch.strided:
            return None
        reference, version, state = self.known.get(x.data_ptr(), (None, 0, None))
        known = None if reference is None else reference()
        if known is None or known.data_ptr() != x.data_ptr():
            return None
        same_view = known.shape == x.shape and known.stride() == x.stride()
        return state if same_view and known.dtype == x.dtype and x._version == version else None

    def record(self, x: Tensor, write: Streams) -> None:
        """``x`` are the streams that the pending ``write`` led to."""
        if not x.requires_grad or x.numel() == 0:
            return
        before = self.find(write.x)
        depth = 1 if before is None else before.depth + 1
        if depth >= self.group_size:
            return  # kept as it is: the first streams of the next group
        state = _State(_Saved(write.x.detach()) if before is None else before, write, depth)
        address = x.data_ptr()

        def forget(reference: weakref.ref[Tensor]) -> None:
            # From here on the graph alone keeps the state, where it needs it.
            if self.known.get(address, (None,))[0] is reference:
                del self.known[address]

        self.known[address] = (weakref.ref(x, forget), x._version, state)

    def pack(self, x: Tensor) -> _Saved | _State:
        """What the graph keeps in place of ``x``."""
        state = self.find(x)
        return _Saved(x) if state is None else state

    @staticmethod
    def unpack(kept: _Saved | _State) -> Tensor:
        """The tensor again."""
        return kept()


class _Active(threading.local):
    """The recorder of the block that is open in this thread, for the sites."""

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
        :func:`recompute_group_size` chooses from its different sites. ``loss.backward()`` may be
        inside the block or after; gradients of gradients are taken after it.

    A site called with a plain tensor leaves no write pending, so its streams are kept as ever.
    Eager models only: in a compiled one the sites run eagerly, and ``fullgraph=True`` raises
    RuntimeError. Blocks are of one thread and do not nest. Backward raises RuntimeError where a
    tensor that it needs was modified in place after the forward.
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
