"""Which back end runs an op: the compiled kernels or the reference. A fallback is never silent."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import torch
from torch import Tensor

from .._library import CPU_LIBRARY, CUDA_LIBRARY

Backend = Literal["auto", "fused", "reference"]
BACKENDS = ("auto", "fused", "reference")
STEMS = ("read", "mix_write", "project", "coefficients", "boundary", "expand", "stream_stats")
"""Ops that have kernels; `reduce` runs read's."""

T = TypeVar("T")


def _check_backend(source: str, backend: str) -> Backend:
    if backend not in BACKENDS:
        raise ValueError(f"{source}: expected 'auto', 'fused' or 'reference', got {backend!r}")
    return backend  # type: ignore[return-value]


@dataclass
class _Settings:
    """The process-wide choice, and what has happened because of it."""

    backend: Backend = field(
        default_factory=lambda: _check_backend(
            "HYPERSTREAMS_BACKEND", os.environ.get("HYPERSTREAMS_BACKEND", "auto")
        )
    )
    fallbacks: dict[str, str] = field(default_factory=dict)


_SETTINGS = _Settings()


def _device_types(stem: str) -> frozenset[str]:
    """Device types whose library registers the raw op; `meta` runs the fake wherever one exists."""
    name = f"hyperstreams::_{stem}"
    if not CPU_LIBRARY.loaded or not hasattr(torch.ops.hyperstreams, f"_{stem}"):
        return frozenset()
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    keys = {"cpu": "CPU", "cuda": "CUDA"}
    return frozenset({device for device, key in keys.items() if has_kernel(name, key)} | {"meta"})


_FUSED: dict[str, frozenset[str]] = {stem: _device_types(stem) for stem in STEMS}


@dataclass(frozen=True)
class BackendStatus:
    """What :func:`backend_status` returns.

    backend : the setting, ``"auto"``, ``"fused"`` or ``"reference"``.
    cpu, cuda : ``"loaded"`` or the reason why the library is not.
    cpu_isa : instruction set in use by the CPU kernels, None without them.
    ops : for each op with kernels, the device types that it is fused on.
    fallbacks : for each ``"op on device"`` that has fallen back in this process, the reason.
    """

    backend: Backend
    cpu: str
    cuda: str
    cpu_isa: str | None
    ops: dict[str, tuple[str, ...]]
    fallbacks: dict[str, str]


def backend_status() -> BackendStatus:
    """The back end setting, the state of the compiled libraries, and the fallbacks so far."""
    return BackendStatus(
        backend=_SETTINGS.backend,
        cpu="loaded" if CPU_LIBRARY.loaded else CPU_LIBRARY.reason,
        cuda="loaded" if CUDA_LIBRARY.loaded else CUDA_LIBRARY.reason,
        cpu_isa=torch.ops.hyperstreams._cpu_isa() if CPU_LIBRARY.loaded else None,
        ops={stem: tuple(sorted(devices - {"meta"})) for stem, devices in _FUSED.items()},
        fallbacks=dict(_SETTINGS.fallbacks),
    )


def set_backend(backend: Backend) -> None:
    """Choose the back end of all ops in this process.

    ``"auto"`` runs the compiled kernels and, where there are none, the reference with one warning
    per op and device; with ``HYPERSTREAMS_REQUIRE_FUSED=1`` in the environment it raises instead.
    ``"fused"`` always raises instead. ``"reference"`` runs plain PyTorch. The initial setting is
    ``HYPERSTREAMS_BACKEND`` or ``"auto"``. Raises ValueError for any other word.
    """
    _SETTINGS.backend = _check_backend("set_backend: backend", backend)


@contextmanager
def backend(backend: Backend) -> Iterator[None]:
    """Context manager: :func:`set_backend` inside, the previous setting after. Process-wide.

    The gradient of an op runs on the back end of its forward.
    """
    previous = _SETTINGS.backend
    set_backend(backend)
    try:
        yield
    finally:
        _SETTINGS.backend = previous


_CUDA_OBSTACLES: dict[int, str] = {}


def _runs_on(archs: str, capability: tuple[int, int]) -> bool:
    """Whether code for ``archs``, words as CMake has them, runs on a GPU of this capability."""
    device = 10 * capability[0] + capability[1]
    for arch in archs.split():
        found = re.fullmatch(r"(\d+)([af]?)(-real|-virtual)?", arch)
        if found is None:
            return True  # a word of CMake's, such as native: the launch will tell
        number, specific, kind = int(found[1]), found[2], found[3]
        # Machine code runs within its major version, of an "a" on that very architecture; PTX on
        # all later ones.
        near = device == number if specific == "a" else device // 10 == number // 10
        later = near if specific else True
        if device >= number and (near if kind == "-real" else later):
            return True
    return False


def _cuda_obstacle(index: int) -> str:
    """Why no kernel of the CUDA library runs on this GPU; empty where they do."""
    if index not in _CUDA_OBSTACLES:
        obstacle = ""
        if CUDA_LIBRARY.loaded and torch.cuda.is_available():
            capability = torch.cuda.get_device_capability(index)
            archs = torch.ops.hyperstreams._cuda_archs()
            if not _runs_on(archs, capability):
                obstacle = (
                    f"the cuda library has no code for {torch.cuda.get_device_name(index)}, "
                    f"compute capability {capability[0]}.{capability[1]} (it has {archs})"
                )
        _CUDA_OBSTACLES[index] = obstacle
    return _CUDA_OBSTACLES[index]


def _fall_back(stem: str, device: str, index: int, dtypes: tuple[torch.dtype, ...]) -> None:
    """Raise, or record the fallback and warn the first time."""
    library = CUDA_LIBRARY if device == "cuda" else CPU_LIBRARY
    place = device
    if device not in ("cpu", "cuda"):
        reason = f"there are no kernels for device {device!r}"
    elif not library.loaded:
        reason = library.reason
    elif device == "cuda" and _cuda_obstacle(index):
        reason, place = _cuda_obstacle(index), f"cuda:{index}"
    else:
        beside = f" beside a {dtypes[1]} y" if dtypes[1:] not in ((), dtypes[:1]) else ""
        reason = f"the {device} library has no {dtypes[0]} kernel for it{beside}"
    required = os.environ.get("HYPERSTREAMS_REQUIRE_FUSED", "") not in ("", "0")
    if required or _SETTINGS.backend == "fused":
        cause = "HYPERSTREAMS_REQUIRE_FUSED=1" if required else "the backend is 'fused'"
        raise RuntimeError(f"{stem}: cannot run fused on {place}: {reason}, and {cause}")
    key = f"{stem} on {place}"
    if key not in _SETTINGS.fallbacks:
        _SETTINGS.fallbacks[key] = reason
        warnings.warn(
            f"{stem}: running the slower PyTorch reference on {place}: {reason} "
            "(see hyperstreams.backend_status())",
            RuntimeWarning,
            stacklevel=4,
        )


# torch.compile calls these while it traces instead of tracing them: neither warnings nor questions
# to a device can be traced. torch.compiler.assume_constant_result sets the same mark, but imports
# the compiler.
_fall_back._dynamo_marked_constant = True  # type: ignore[attr-defined]
_cuda_obstacle._dynamo_marked_constant = True  # type: ignore[attr-defined]


def has_kernels(stem: str, x: Tensor, y: Tensor | None = None) -> bool:
    """Whether the setting and the device and dtype of ``x`` allow op ``stem``'s kernels; ``y``: the
    branch output, whose dtype is its own. Says nothing if not."""
    if _SETTINGS.backend == "reference":
        return False
    device = "cpu" if x.is_cpu else x.device.type  # the quicker question first
    if device not in _FUSED[stem]:
        return False
    if device != "cuda":
        return True
    # On CUDA, float64 is for tests: the kernels take what training uses.
    if x.dtype == torch.float64 or (y is not None and y.dtype == torch.float64):
        return False
    return not _cuda_obstacle(x.device.index)


def use_fused(stem: str, x: Tensor, y: Tensor | None = None) -> bool:
    """Whether op ``stem`` runs its kernels; the reference instead is never silent."""
    if has_kernels(stem, x, y):
        return True
    if _SETTINGS.backend != "reference":
        dtypes = (x.dtype,) if y is None else (x.dtype, y.dtype)
        _fall_back(stem, x.device.type, x.device.index or 0, dtypes)
    return False


def without_autocast(function: Callable[..., T], x: Tensor, *args: object, **kwargs: object) -> T:
    """``function(x, ...)`` with autocast off: ops never cast streams or coefficients."""
    device = x.device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return function(x, *args, **kwargs)
    with torch.autocast(device, enabled=False):
        return function(x, *args, **kwargs)
