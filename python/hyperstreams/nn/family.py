"""Connections that are not a mixer around streams: they build their own modules."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

OPTIONS = frozenset({"expand", "reduce", "designate", "start", "phi_std"})
"""The fields of :class:`Plan` that only some connections use."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a model tells the connection that builds its expansion, sites and reduction.

    width : channels of the branches' inputs and outputs.
    n_sites : sites of the model; attention and MLP sites alternate, two of them are a block.
    n_head, n_kv_head : heads of the attention's queries, and of its keys and values.
    make_norm : ``make_norm(width)`` is a new norm of the model's kind.
    n_streams : of connections that have streams.
    designate : scheme of the designated streams; see ``init.designated_stream``.
    start : initial values of coefficients, ``"published"`` or ``"residual"``; see
        :func:`residual_start`.
    phi_std : standard deviation of the initial controller weights; None: the connection's own.
    generator : source of random initial values; None is PyTorch's default generator.
    expand, reduce : options of :class:`ExpandStreams` and :class:`ReduceStreams`.
    factory : device and dtype of parameters.
    """

    width: int
    n_sites: int
    make_norm: Callable[[int], nn.Module]
    n_head: int = 1
    n_kv_head: int = 1
    n_streams: int = 4
    designate: str = "default"
    start: str = "published"
    phi_std: float | None = None
    generator: torch.Generator | None = None
    expand: Mapping[str, Any] = field(default_factory=dict)
    reduce: Mapping[str, Any] = field(default_factory=dict)
    factory: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ConnectionFamily(ABC):
    """A connection as three module factories. Immutable data, like :class:`ConnectionConfig`.

    The expansion takes hidden states ``[..., C]`` to a state, every site takes a state (and the
    branch's other arguments) to a state, the reduction takes the last state to ``[..., C]``, the
    final norm included. A state is a tensor or a NamedTuple of tensors, per token: whatever a token
    needs of other tokens, a branch fetches. Modules with parameters of their own are
    ``FullPrecisionModule`` s with ``reset_parameters(generator=)``.

    name, paper : key in the registry and source.

    Class attributes
    ----------------
    branch_norm : branches normalise their input themselves.
    branch_projects : attention branches project hidden states to queries, keys, values and back;
        otherwise the sites hand them all heads' vectors and take back those of the outputs.
    has_streams : states are :class:`Streams`, and the expansion takes ``collect_stats``.
    uses : what it takes from the :class:`Plan` besides sizes, of ``OPTIONS``. A model refuses
        settings of the others, which would change nothing.
    """

    name: str
    paper: str

    branch_norm: ClassVar[bool] = True
    branch_projects: ClassVar[bool] = True
    has_streams: ClassVar[bool] = False
    uses: ClassVar[frozenset[str]] = frozenset()

    @property
    def fused_ops(self) -> tuple[str, ...]:
        """The ops of this package that its sites run, all else being PyTorch."""
        return ()

    def check(self, *, width: int, n_sites: int, n_streams: int) -> None:
        """Raise ValueError when this connection does not exist for these sizes."""
        if n_streams < 1:
            raise ValueError(f"connection {self.name!r}: n_streams: expected >= 1, got {n_streams}")

    def build_expand(self, plan: Plan) -> nn.Module:
        """Hidden states to a state; by default they are one."""
        return nn.Identity()

    @abstractmethod
    def build_site(self, branch: nn.Module, site_index: int, plan: Plan) -> nn.Module:
        """State to state, around ``branch``."""

    def build_reduce(self, plan: Plan) -> nn.Module:
        """State to hidden states; by default the final norm."""
        return plan.make_norm(plan.width)

    def streams_of(self, state: Any) -> Tensor | None:
        """The streams ``[..., n, C]`` that a state holds, for diagnostics; None: it holds none."""
        return None

    def operations(self, *, width: int, kv_width: int, n_sites: int, n_streams: int) -> int | None:
        """Floating-point operations of all sites per token, branches not counted.

        A multiply-add is two. Norms of hidden states and residual additions are not counted. All
        families of this package have a count; None, a family's own that has not defined it, is
        refused by ``models.operations_table``. ``kv_width``: channels of the keys of all heads
        together.
        """
        return None

    def branch_gain(self, plan: Plan) -> float | None:
        """How branches start. None: as the model does it.

        A number: Xavier-normal weights, those of values, outputs and MLPs times this gain.
        """
        return None
