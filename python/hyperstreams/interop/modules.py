"""Sites and heads of a foreign checkpoint as modules, and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..models import GPT
from ..nn import Connection, HyperConnection, ReduceStreams
from .checkpoint import Checkpoint
from .groups import Groups, layout_of
from .layout import Site, SiteLayout, require_function
from .report import ForeignReport
from .sources import HEAD_NAMES, Source


def unknown_names(names: list[str], *, strict: bool, report: ForeignReport) -> None:
    """Raise ValueError for unknown tensors, or report them as dropped when not strict."""
    if names and strict:
        raise ValueError(
            f"load_foreign: unknown tensors: {', '.join(sorted(names)[:8])}"
            + (f" and {len(names) - 8} more" if len(names) > 8 else "")
            + " (strict=False drops them)"
        )
    report.dropped += names


def read_site(
    source: Source,
    prefix: str,
    group: Mapping[str, str],
    checkpoint: Checkpoint,
    settings: Mapping[str, Any],
    *,
    strict: bool,
    report: ForeignReport,
) -> Site:
    """One site in the layout of ``Connection``; what happened goes to the report."""
    tensors = {tensor: checkpoint.tensor(name) for tensor, name in group.items()}
    layout, doubt = layout_of(source, prefix, tensors, settings)
    held = {**layout.names, **layout.optional}
    unknown = [group[t] for t in tensors if t not in held and t not in layout.ignored]
    unknown_names(unknown, strict=strict, report=report)
    report.dropped += [group[t] for t in tensors if t in layout.ignored]
    config, assumed = layout.configured(settings)
    assumed += doubt
    site = layout.load(tensors, config)
    site.config = replace(config, norm_weight="norm_weight" in site.state)
    site.config.check(site.n_streams)
    name = source.site_of(prefix)
    report.mapped.update({group[t]: f"{name}.{held[t]}" for t in tensors if t in held})
    report.transposed += [line for line in site.transposed if line not in report.transposed]
    report.assumed += [line for line in assumed if line not in report.assumed]
    return site


def full_state(site: Site) -> dict[str, Tensor]:
    """``site.state`` and the designated stream, which no foreign checkpoint records."""
    read = site.state["bias"].detach()[: site.n_streams]
    best = int(read.argmax())
    alone = int((read == read[best]).sum()) == 1 and site.config.designate != "none"
    return {**site.state, "designated_stream": torch.tensor([best if alone else -1])}


def connection_of(site: Site) -> Connection:
    """A :class:`Connection` that holds the site."""
    connection = Connection(
        connection=site.config,
        n_streams=site.n_streams,
        width=site.width,
        designate="none",
        generator=torch.Generator(),
        dtype=site.state["bias"].dtype,
    )
    connection.load_state_dict(full_state(site))
    return connection


def _read_head(
    source: Source,
    prefix: str,
    group: Mapping[str, str],
    checkpoint: Checkpoint,
    settings: Mapping[str, Any],
    report: ForeignReport,
    *,
    strict: bool,
) -> ReduceStreams:
    missing = sorted(HEAD_NAMES.keys() - group.keys())
    if missing:
        raise ValueError(f"load_foreign: {prefix}hc_head: missing {', '.join(missing)}")
    unknown_names([group[t] for t in group if t not in HEAD_NAMES], strict=strict, report=report)
    state = {HEAD_NAMES[t]: checkpoint.tensor(group[t]) for t in HEAD_NAMES}
    n, size = state["phi"].shape
    norm_eps, weight_eps, default = source.head_settings
    head = ReduceStreams(
        n_streams=n,
        width=size // n,
        scheme="weighted",
        eps=settings.get(norm_eps, default),
        offset=settings.get(weight_eps, default),
        dtype=state["phi"].dtype,
    )
    head.load_state_dict(state)
    name = head_name(prefix)
    report.mapped.update({group[t]: f"{name}.{ours}" for t, ours in HEAD_NAMES.items()})
    report.assumed += [
        f"{setting}={default} (head): the checkpoint does not record it"
        for setting in dict.fromkeys((norm_eps, weight_eps))
        if setting not in settings
    ]
    return head


def head_name(prefix: str) -> str:
    """``head``, or ``mtp0head`` for the head of a multi-token-prediction block."""
    match = re.search(r"mtp\.(\d+)", prefix)
    return f"mtp{match[1]}head" if match else "head"


def load_modules(
    source: Source,
    checkpoint: Checkpoint,
    settings: Mapping[str, Any],
    *,
    strict: bool,
) -> tuple[nn.ModuleDict, ForeignReport]:
    """Every site as a :class:`Connection`, every head as a :class:`ReduceStreams`, by name."""
    if settings.get("mhc_single_pass"):
        raise ValueError(
            "load_foreign: mhc_single_pass: expected False: there each sublayer reads with the "
            "weights of the previous one, which is another connection"
        )
    report = ForeignReport(source.name)
    groups = Groups(source, list(checkpoint.readers))
    modules = nn.ModuleDict()
    for prefix, group in groups.sites.items():
        site = read_site(source, prefix, group, checkpoint, settings, strict=strict, report=report)
        modules[source.site_of(prefix)] = connection_of(site)
    for prefix, group in groups.heads.items():
        modules[head_name(prefix)] = _read_head(
            source, prefix, group, checkpoint, settings, report, strict=strict
        )
    if groups.outside:
        report.dropped.append(f"{len(groups.outside)} tensors outside the connections")
    report.dropped += checkpoint.extras
    return modules, report


def sites_of(model: nn.Module) -> dict[str, Connection]:
    """The connections of a model, by site name; a single connection is called ``site``."""
    if isinstance(model, Connection):
        return {"site": model}
    if isinstance(model, HyperConnection):
        return {"site": model.connection}
    children = model.sites if isinstance(model, GPT) else model
    found = {}
    for name, module in children.named_children():
        module = module.connection if isinstance(module, HyperConnection) else module
        if isinstance(module, Connection):
            found[name] = module
    return found


def save_modules(
    source: Source, model: nn.Module, settings: Mapping[str, Any]
) -> dict[str, Tensor]:
    """The state dict of ``model``'s sites, and its weighted reduction, in a code base's names."""
    state: dict[str, Tensor] = {}
    sites, heads = sites_of(model), _heads_of(model)
    if not sites and not heads:
        raise ValueError(
            "to_foreign: model: expected a Connection, a HyperConnection, a ModuleDict of them or "
            f"a GPT with streams, got {type(model).__name__}"
        )
    for name, site in sites.items():
        layout = target_layout(source, site, settings)
        prefix = source.prefix_of(name)
        state.update({prefix + tensor: value for tensor, value in layout.save(site).items()})
    for name, head in heads.items():
        prefix = source.head_prefix_of(name)
        _require_head(source, head, settings)
        state.update(
            {prefix + t: getattr(head, ours).detach().clone() for t, ours in HEAD_NAMES.items()}
        )
    return state


def _require_head(source: Source, head: ReduceStreams, settings: Mapping[str, Any]) -> None:
    """Raise ValueError unless ``head`` has the eps of the source's."""
    norm_eps, weight_eps, default = source.head_settings
    for name, ours in ((norm_eps, head.eps), (weight_eps, head.offset)):
        if ours != settings.get(name, default):
            raise ValueError(
                f"to_foreign: {source.name}: {name}: expected {settings.get(name, default)} in the "
                f"head, got {ours} (config= tells the target's own)"
            )


def _heads_of(model: nn.Module) -> dict[str, ReduceStreams]:
    """The weighted reductions of a model, by name."""
    children = {"head": model.reduce} if isinstance(model, GPT) else dict(model.named_children())
    return {
        name: module
        for name, module in children.items()
        if isinstance(module, ReduceStreams) and module.phi is not None
    }


def target_layout(source: Source, site: Connection, settings: Mapping[str, Any]) -> SiteLayout:
    """The source's layout that computes the site's function; ValueError when there is none."""
    nearest = None
    for layout in source.layouts:
        config, _ = layout.configured(settings)
        try:
            require_function(site, config)
        except ValueError as error:
            kin = type(config.mixer) is type(site.config.mixer) and config.norm == site.config.norm
            nearest = error if nearest is None and kin else nearest
            continue
        return layout
    known = ", ".join(layout.connection for layout in source.layouts)
    raise nearest or ValueError(
        f"to_foreign: {source.name}: connection: expected one of {known}, got {site.config.name!r}"
    )
