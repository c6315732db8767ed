"""Finds and loads the compiled op libraries, once, and keeps the reason when one cannot be loaded.

Three names that newcomers confuse: the *libraries* are ``_C`` (schemas and CPU ops) and ``_C_cuda``
(CUDA ops); the *op namespace* is ``torch.ops.hyperstreams``; the *package* is ``hyperstreams``.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class LibraryStatus:
    """Outcome of loading one library: its path when loaded, else the reason."""

    loaded: bool
    path: str | None
    reason: str


def _load(name: str) -> LibraryStatus:
    # find_spec gives the right file in wheels and in editable installs, where it also rebuilds.
    spec = importlib.util.find_spec(f"hyperstreams.{name}")
    if spec is None or spec.origin is None:
        return LibraryStatus(False, None, f"{name} was not built")
    try:
        torch.ops.load_library(spec.origin)
    except (OSError, RuntimeError) as error:
        return LibraryStatus(False, spec.origin, f"{name} does not load: {error}")
    return LibraryStatus(True, spec.origin, "")


def _load_cuda(cpu: LibraryStatus) -> LibraryStatus:
    if not cpu.loaded:
        return LibraryStatus(False, None, "_C_cuda needs _C, which is not loaded")
    if torch.version.cuda is None:
        return LibraryStatus(False, None, "this torch is a CPU build")
    return _load("_C_cuda")


CPU_LIBRARY = _load("_C")
CUDA_LIBRARY = _load_cuda(CPU_LIBRARY)
