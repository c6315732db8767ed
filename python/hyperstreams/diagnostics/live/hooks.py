"""Hook points: see and replace the tensors inside the sites of a model, by name.

Names follow TransformerLens: ``blocks.3.attn_hc.hook_pre``. Stream axes are explicit; there is no
``hook_resid_*``, because no single residual stream exists. The model's own forward calls the
functions, so that what is read or patched is the module that trains.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from ...nn import HyperConnection, ReduceStreams
from ...nn.taps import REDUCE_POINTS, SITE_POINTS

Hook = Callable[[Tensor, str], Tensor | None]
"""``hook(value, name)``: the tensor to use instead, or None to leave it."""

_SITE = re.compile(r"(?:.*\.)?sites\.L(\d+)([am])")
_WRAPPERS = re.compile(r"\b(_orig_mod|module|_fsdp_wrapped_module)\.")


def public_name(path: str) -> str:
    """``sites.L3a`` of a GPT is ``blocks.3.attn_hc``; other modules keep their path."""
    path = _WRAPPERS.sub("", path)
    match = _SITE.fullmatch(path)
    if match is None:
        return path
    return f"blocks.{match[1]}.{'attn' if match[2] == 'a' else 'mlp'}_hc"


def has_sites(model: nn.Module) -> bool:
    """Whether any module of the model is an ``nn.HyperConnection``."""
    return any(isinstance(module, HyperConnection) for module in model.modules())


def tap_modules(model: nn.Module) -> dict[str, HyperConnection | ReduceStreams]:
    """The modules that can be tapped, by public name.

    Sites in the order of their ``site_index`` where all have one and no two the same, otherwise as
    they stand in ``model.modules()``; a model whose sites run in another order should number them.
    Raises ValueError for a model without any: connections of other kinds have no such points.
    """
    found = {
        public_name(path): module
        for path, module in model.named_modules()
        if isinstance(module, HyperConnection | ReduceStreams)
    }
    if not has_sites(model):
        raise ValueError(
            "hooks: model: expected one with nn.HyperConnection sites, "
            f"got {type(model).__name__} without"
        )
    indices = [
        module.connection.site_index
        for module in found.values()
        if isinstance(module, HyperConnection)
    ]
    if None in indices or len(set(indices)) < len(indices):
        return found

    def place(item: tuple[str, HyperConnection | ReduceStreams]) -> float:
        index = item[1].connection.site_index if isinstance(item[1], HyperConnection) else None
        return math.inf if index is None else index

    return dict(sorted(found.items(), key=place))


def _points(module: nn.Module) -> tuple[str, ...]:
    return SITE_POINTS if isinstance(module, HyperConnection) else REDUCE_POINTS


def hook_names(model: nn.Module) -> list[str]:
    """Every hook point, sites in order: ``blocks.0.attn_hc.hook_streams_in``, ...

    ``hook_streams_in [..., n, C]`` streams before the site (also of the reduction),
    ``hook_pre [..., n]``, ``hook_res [..., n, n]`` (``[destination, source]``; the identity where a
    site has no mixer) and ``hook_post [..., n]`` its coefficients, without token axes where static;
    ``hook_in``, ``hook_out [..., C]`` the branch's input and output.
    """
    return [
        f"{name}.{point}"
        for name, module in tap_modules(model).items()
        for point in _points(module)
    ]


@contextmanager
def hooks(model: nn.Module, functions: Mapping[str, Hook]) -> Iterator[None]:
    """Call ``functions`` at the hook points that their patterns match, inside the block.

    functions : patterns as of the shell (``"blocks.*.attn_hc.hook_pre"``) to
        ``hook(value, name) -> Tensor | None``. A point that several match calls them in order, each
        with the value of the one before. Gradients flow through what is returned, and by a value
        that a function keeps they are whole.

    Hooks that change nothing leave the outputs' bits; between write and read the model then runs
    op by op, whose gradients differ from the one pass's by rounding. A compiled model runs a second
    graph while hooks are set. Blocks may be nested: inner functions see what outer ones return.
    Raises ValueError for a pattern that matches no point, naming the points, and for a replacement
    of another shape.
    """
    modules = tap_modules(model)
    names = hook_names(model)
    for pattern in functions:
        if not any(fnmatchcase(name, pattern) for name in names):
            some = ", ".join(names[: len(SITE_POINTS)])
            raise ValueError(f"hooks: pattern: expected one of {some}, ... got {pattern!r}")
    before = {name: module.taps for name, module in modules.items()}
    try:
        for prefix, module in modules.items():
            selected = {
                point: [f for pattern, f in functions.items() if fnmatchcase(name, pattern)]
                for point in _points(module)
                for name in [f"{prefix}.{point}"]
            }
            if any(selected.values()):
                module.taps = _Calls(prefix, selected, before[prefix])
        yield
    finally:
        for name, module in modules.items():
            module.taps = before[name]


class _Calls:
    """The tap of one module: its hooks by point, after those of an outer block."""

    def __init__(self, prefix: str, functions: Mapping[str, list[Hook]], outer: Any) -> None:
        self.prefix = prefix
        self.functions = functions
        self.outer = outer

    def __call__(self, point: str, value: Tensor) -> Tensor:
        if self.outer is not None:
            value = self.outer(point, value)
        for function in self.functions[point]:
            name = f"{self.prefix}.{point}"
            replacement = function(value, name)
            if replacement is None:
                continue
            if _shape_error(point, value, replacement):
                raise ValueError(
                    f"hooks: {name}: expected a replacement of shape {list(value.shape)}, "
                    f"got {list(replacement.shape)}"
                )
            value = replacement
        return value


def _shape_error(point: str, value: Tensor, replacement: Tensor) -> bool:
    """Coefficients may gain or lose their token axes; all else keeps its shape."""
    inner = {"hook_pre": 1, "hook_post": 1, "hook_res": 2}.get(point)
    if inner is None:
        return replacement.shape != value.shape
    return replacement.shape[-inner:] != value.shape[-inner:]
