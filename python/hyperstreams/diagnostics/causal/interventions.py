"""Change what streams hold, what sites read, mix and write, inside a trained model's own forward.

A patch at hook points (see :func:`~hyperstreams.diagnostics.hooks`): nothing is copied, and the
model is as before when the block ends. Observational metrics say where signal flows; these say what
it is needed for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from ..._errors import check_choice
from ...nn import HyperConnection
from ..live.hooks import Hook, hooks
from ..live.trace import Trace
from . import replacements
from .sites import SiteMap, SiteRange, site_map

AblateBy = Literal["zero", "mean", "resample", "copy"]
What = Literal["mixer", "read", "write"]
Routing = Literal["live", "frozen"]
ABLATIONS = ("zero", "mean", "resample", "copy")
REPLACEMENTS = {
    "mixer": ("identity", "uniform", "token_mean", "static", "top"),
    "read": ("uniform", "token_mean", "static"),
    "write": ("uniform", "token_mean", "static"),
}
ROUTINGS = ("live", "frozen")
_POINTS = {"mixer": "hook_res", "read": "hook_pre", "write": "hook_post"}


@dataclass(frozen=True)
class Ablate:
    """Take the content out of ``streams`` in the states before ``sites`` (D21).

    sites : ``"L2a"`` once, before that site; ``"L2a:"`` from there on, the readout included. States
        are named after the site that follows them; the last is ``"readout"``.
    by : ``"zero"``; ``"mean"``, the mean over the batch's tokens; ``"resample"``, the streams of
        another token of the batch, drawn without repetition, the same for all of ``streams``;
        ``"copy"``, the stream ``source``. Mean, other tokens and copy are those of the state as it
        arrives, after earlier edits.

    No streams: nothing changes, bit for bit. Copying one of two identical streams over the other
    changes nothing. Zeroing all streams at the readout leaves uniform logits (without biases).
    """

    streams: Sequence[int]
    sites: SiteRange = "all"
    by: AblateBy = "zero"
    source: int | None = None

    def __post_init__(self) -> None:
        check_choice("Ablate", "by", self.by, ABLATIONS)
        if (self.source is not None) != (self.by == "copy"):
            raise ValueError(
                "Ablate: source: expected a stream with by='copy' and None otherwise, "
                f"got {self.source} with by={self.by!r}"
            )


@dataclass(frozen=True)
class Rescue:
    """Put the clean ``streams`` back in the states before ``sites`` (D22); needs ``clean``.

    Rescuing all streams at one state restores everything after it, bit for bit.
    """

    streams: Sequence[int]
    sites: SiteRange


@dataclass(frozen=True)
class Replace:
    """Replace the coefficients of ``sites``: ``what`` is ``"mixer"``, ``"read"`` or ``"write"``.

    by : ``"token_mean"``, the mean over the batch's tokens of what arrives; ``"static"``, what the
        site's static parameters alone give (its dynamic part set to 0); ``"uniform"``, 1/n
        everywhere; of mixers also ``"identity"``, and ``"top"``, the ``keep`` largest entries
        rescaled to the sums that the mixer states: see :func:`.replacements.top_entries`.

    Token mean and static part change nothing at a site with static coefficients, bit for bit; nor
    does the identity where there is no mixer.
    """

    what: What
    by: str
    sites: SiteRange = "all"
    keep: int | None = None

    def __post_init__(self) -> None:
        check_choice("Replace", "what", self.what, REPLACEMENTS)
        check_choice("Replace", "by", self.by, REPLACEMENTS[self.what])
        if (self.keep is not None) != (self.by == "top") or (
            self.keep is not None and self.keep < 1
        ):
            raise ValueError(
                "Replace: keep: expected at least 1 with by='top' and None otherwise, "
                f"got {self.keep} with by={self.by!r}"
            )


Edit = Ablate | Rescue | Replace


@contextmanager
def intervene(
    model: nn.Module,
    *edits: Edit,
    routing: Routing = "live",
    clean: Trace | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[None]:
    """Run ``model`` with ``edits`` inside the block::

        clean = hs.diagnostics.trace(model, tokens)
        with hs.intervene(model, Ablate([2], "L1a:"), routing="frozen", clean=clean):
            logits, loss = model(tokens, targets)

    edits : :class:`Ablate`, :class:`Rescue`, :class:`Replace`; where several meet, in this order.
    routing : ``"live"``, sites compute their coefficients from the changed state; ``"frozen"``,
        they use those of ``clean``, so that only content changes, not where it goes. The two agree
        for static connections.
    clean : trace of the same batch, for ``Rescue`` and frozen routing.
    generator : for ``by="resample"``; each forward draws anew.

    Gradients flow through edits. Raises ValueError for unknown sites or streams, and in the forward
    for a batch that is not the one of ``clean``: another shape, or other streams before the first
    site while those are unedited.
    """
    check_choice("intervene", "routing", routing, ROUTINGS)
    sites = site_map(model)
    if clean is None and (routing == "frozen" or any(isinstance(e, Rescue) for e in edits)):
        raise ValueError(
            "intervene: clean: expected the trace of the batch, which Rescue and frozen routing "
            "need, got None"
        )
    if clean is not None and clean.site_names != sites.names:
        raise ValueError(
            f"intervene: clean: expected a trace of sites {', '.join(sites.names)}, "
            f"got {', '.join(clean.site_names)}"
        )
    functions: dict[str, list[Hook]] = {}
    if clean is not None:
        first = f"{sites.point(sites.names[0])}.hook_streams_in"
        functions[first] = [partial(_same_batch, clean.streams[0], values=True)]
    if routing == "frozen" and clean is not None:
        for k, name in enumerate(sites.names):
            for point, values in (
                ("hook_pre", clean.h_pre),
                ("hook_res", clean.h_res),
                ("hook_post", clean.h_post),
            ):
                functions[f"{sites.point(name)}.{point}"] = [partial(_frozen, values[k])]
            states = f"{sites.point(name)}.hook_streams_in"
            functions.setdefault(states, []).append(partial(_same_batch, clean.streams[k]))
    for edit in edits:
        for point, function in _hooks_of(edit, sites, clean, generator):
            functions.setdefault(point, []).append(function)
    with hooks(model, {point: partial(_chain, some) for point, some in functions.items()}):
        yield


def _hooks_of(
    edit: Edit, sites: SiteMap, clean: Trace | None, generator: torch.Generator | None
) -> Iterator[tuple[str, Hook]]:
    """Hook points of one edit, with what to do there."""
    if isinstance(edit, Replace):
        point = _POINTS[edit.what]
        for name in sites.resolve(edit.sites):
            change = _replacement(edit, sites.modules[name])
            yield f"{sites.point(name)}.{point}", partial(_replaced, change)
        return
    source = edit.source if isinstance(edit, Ablate) else None
    for stream in (*edit.streams, *(() if source is None else (source,))):
        if not 0 <= stream < sites.n_streams:
            raise ValueError(
                f"intervene: streams: expected numbers from 0 to {sites.n_streams - 1}, "
                f"got {stream}"
            )
    for name in sites.resolve(edit.sites, states=True):
        function: Hook
        if isinstance(edit, Rescue):
            assert clean is not None
            function = partial(_rescued, edit, clean.streams[sites.state_names.index(name)])
        else:
            if edit.by == "resample" and generator is None:
                raise ValueError(
                    "intervene: generator: expected a torch.Generator with by='resample', got None"
                )
            function = partial(_ablated, edit, generator)
        yield f"{sites.point(name)}.hook_streams_in", function


def _chain(functions: Sequence[Hook], value: Tensor, name: str) -> Tensor:
    for function in functions:
        changed = function(value, name)
        value = value if changed is None else changed
    return value


def _same_batch(clean: Tensor, value: Tensor, name: str, *, values: bool = False) -> None:
    if clean.shape != value.shape:
        raise ValueError(
            f"intervene: clean: expected the trace of this batch, with streams "
            f"{list(value.shape)} at {name}, got {list(clean.shape)}"
        )
    # Before the first site nothing but the tokens decides; the tolerance is for other precisions.
    if values and (clean - value).norm() > 0.05 * clean.norm():
        raise ValueError(
            f"intervene: clean: expected the trace of this batch, got other streams at {name}"
        )


def _frozen(clean: Tensor, value: Tensor, name: str) -> Tensor:
    return clean


def _ablated(
    edit: Ablate, generator: torch.Generator | None, value: Tensor, name: str
) -> Tensor | None:
    streams = list(edit.streams)
    if not streams:
        return None
    result = value.clone()
    old = value[..., streams, :]
    if edit.by == "zero":
        result[..., streams, :] = 0
    elif edit.by == "mean":
        result[..., streams, :] = replacements.token_mean(old, 2)
    elif edit.by == "copy":
        result[..., streams, :] = value[..., [edit.source], :]
    else:
        assert generator is not None
        tokens = old.flatten(0, -3)
        order = torch.randperm(len(tokens), generator=generator, device=generator.device)
        result[..., streams, :] = tokens[order.to(value.device)].view_as(old)
    return result


def _rescued(edit: Rescue, clean: Tensor, value: Tensor, name: str) -> Tensor | None:
    _same_batch(clean, value, name)
    streams = list(edit.streams)
    if not streams:
        return None
    result = value.clone()
    result[..., streams, :] = clean[..., streams, :]
    return result


def _replaced(change: Callable[[Tensor], Tensor], value: Tensor, name: str) -> Tensor:
    return change(value)


def _replacement(edit: Replace, site: HyperConnection) -> Callable[[Tensor], Tensor]:
    """The function from the coefficients that arrive to those that are used instead."""
    if edit.by == "identity":
        return replacements.identity
    if edit.by == "uniform":
        return replacements.uniform
    if edit.by == "token_mean":
        return partial(replacements.token_mean, inner=2 if edit.what == "mixer" else 1)
    if edit.by == "static":
        return partial(_static_part, edit.what, site)
    words = site.connection.config.mixer.stated_invariants()
    both = "doubly_stochastic" in words
    assert edit.keep is not None
    return partial(
        replacements.top_entries,
        keep=edit.keep,
        row_sums=both or not words.isdisjoint({"row_stochastic", "unit_row_sums"}),
        column_sums=both or not words.isdisjoint({"column_stochastic", "unit_column_sums"}),
    )


def _static_part(what: What, site: HyperConnection, value: Tensor) -> Tensor:
    """The coefficients on a state of zeros, on which the controller predicts nothing."""
    connection = site.connection
    if connection.phi is None:
        return value
    shape = (connection.n_streams, connection.width)
    zeros = torch.zeros(shape, dtype=value.dtype, device=value.device)
    h_pre, h_post, h_res = connection.coefficients(zeros)
    part = {"mixer": h_res, "read": h_pre, "write": h_post}[what]
    if part is None:
        return value
    if not part.isfinite().all():
        raise ValueError(
            f"intervene: by='static': expected a controller that is defined on a state of zeros, "
            f"got one with eps={connection.config.eps}"
        )
    return part
