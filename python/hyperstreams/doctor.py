"""``hyperstreams doctor``: versions, what is loaded and why not, and a self-test of every op.

The first thing to run when something is odd, and to paste into an issue.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from . import ops
from ._library import CPU_LIBRARY, CUDA_LIBRARY, LibraryStatus
from ._version import __version__
from .mixers import MIXERS, get_mixer

TOLERANCE = 1e-5
"""Largest relative error of fused float32 outputs and gradients against the float64 reference."""

TOKENS, WIDTH = (3, 7), 37
"""Odd on purpose: no loop of a kernel fits."""


@dataclass(frozen=True)
class Case:
    """One op on given tensors; ``call`` takes them in order and returns its outputs."""

    name: str
    tensors: tuple[Tensor, ...]
    call: Callable[..., object]
    differentiable: bool = True


def cases(n: int, generator: torch.Generator) -> Iterator[Case]:
    """Yield every op, and ``coefficients`` once per mixer that exists for ``n`` streams."""

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    x, y, h = random(*TOKENS, n, WIDTH), random(*TOKENS, WIDTH), random(*TOKENS, WIDTH)
    h_pre, h_post, h_res = random(*TOKENS, n), random(*TOKENS, n), random(*TOKENS, n, n)
    yield Case("read", (x, h_pre), ops.read)
    yield Case("mix_write", (x, y, h_res, h_post), ops.mix_write)
    yield Case(
        "expand",
        (h, random(n, WIDTH), random(n, WIDTH)),
        lambda h, scale, bias: ops.expand(h, n, scale=scale, bias=bias),
    )
    yield Case("reduce", (x, random(*TOKENS, n)), ops.reduce)
    yield Case("project", (x, random(2 * n + 3, n * WIDTH), random(n * WIDTH)), ops.project)
    for name in sorted(MIXERS):
        mixer = get_mixer(name)
        if n > mixer.max_streams or mixer.fused_map_for(n) is None:
            continue
        groups = 2 + len(mixer.group_sizes(n))
        count = 2 * n + mixer.logit_count(n)

        def coefficients(*tensors: Tensor, name: str = name) -> object:
            return ops.coefficients(*tensors, n_streams=n, mixer=name)

        def boundary(*tensors: Tensor, name: str = name) -> object:
            return ops.boundary(*tensors, n_streams=n, mixer=name)

        inv_rms, alpha, bias = random(*TOKENS).exp(), random(groups), random(count)
        yield Case(
            f"coefficients, {name}", (random(*TOKENS, count), inv_rms, alpha, bias), coefficients
        )
        phi = random(count, n * WIDTH) / (n * WIDTH) ** 0.5
        state = (x, y, h_res, h_post)
        yield Case(f"boundary, {name}", (*state, phi, random(n * WIDTH), alpha, bias), boundary)
    yield Case(
        "stream_stats",
        (x, y, h_pre, h_post, h_res),
        lambda x, y, h_pre, h_post, h_res: ops.stream_stats(
            x, y, h_pre=h_pre, h_post=h_post, h_res=h_res
        ),
        differentiable=False,
    )


def _results(
    case: Case, backend: Literal["fused", "reference"], dtype: torch.dtype, device: str
) -> list[Tensor]:
    """Outputs and, of the sum of the outputs under fixed weights, the gradients."""
    inputs = [
        tensor.to(device, dtype).requires_grad_(case.differentiable) for tensor in case.tensors
    ]
    with ops.backend(backend):
        made = case.call(*inputs)
        outputs = [out for out in (made if isinstance(made, tuple) else (made,)) if out is not None]
        if not case.differentiable:
            return outputs
        generator = torch.Generator().manual_seed(1)
        weights = [torch.randn(out.shape, generator=generator).to(out) for out in outputs]
        grads = torch.autograd.grad(outputs, inputs, weights)
    return [*outputs, *grads]


def relative_error(case: Case, device: str) -> float:
    """Return the worst relative error of fused float32 against the float64 reference."""
    fused = _results(case, "fused", torch.float32, device)
    exact = _results(case, "reference", torch.float64, device)
    errors = [
        ((a.double() - b.double()).norm() / b.double().norm().clamp_min(1e-30)).item()
        for a, b in zip(fused, exact, strict=True)
    ]
    return max(error if error == error else float("inf") for error in errors)


def self_test(devices: Sequence[str], n_streams: Sequence[int]) -> bool:
    """Print one line per op and device; return whether all passed."""
    passed = True
    for device in devices:
        for n in n_streams:
            for case in cases(n, torch.Generator().manual_seed(0)):
                try:
                    error = relative_error(case, device)
                    verdict = "PASS" if error <= TOLERANCE else "FAIL"
                    detail = f"relative error {error:.1e}"
                except (RuntimeError, TypeError, ValueError) as failure:
                    verdict, detail = "FAIL", str(failure).partition("\n")[0]
                passed = passed and verdict == "PASS"
                _line(f"{verdict}  {case.name}", f"{device}, n = {n}: {detail}")
    return passed


def _line(name: str, text: str) -> None:
    print(f"  {name:<32} {text}")


def _library(name: str, status: LibraryStatus) -> None:
    _line(name, f"loaded from {status.path}" if status.loaded else f"not loaded: {status.reason}")


def _print_versions() -> None:
    print("versions")
    _line("hyperstreams", __version__)
    _line("torch", f"{torch.__version__} (CUDA {torch.version.cuda or 'no'})")
    _line("python", f"{platform.python_version()} on {platform.platform()}")
    _line("threads", str(torch.get_num_threads()))
    for index in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(index)
        _line(f"cuda:{index}", f"{torch.cuda.get_device_name(index)}, sm_{major}{minor}")


def _print_libraries() -> None:
    print("libraries")
    _library("_C (schemas, CPU)", CPU_LIBRARY)
    _library("_C_cuda", CUDA_LIBRARY)
    status = ops.backend_status()
    _line("back end", status.backend)
    if CPU_LIBRARY.loaded:
        detected = torch.ops.hyperstreams._detected_cpu_isa()
        _line("CPU instruction set", f"{status.cpu_isa} (this processor: {detected})")
    for stem, devices in status.ops.items():
        _line(f"fused {stem}", ", ".join(devices) or "nowhere: the PyTorch reference runs")


def _print_build() -> None:
    print("build")
    try:
        from . import _info
    except ImportError as error:
        _line("_info", f"not available: {error}")
        return
    for key, value in _info.build_info().items():
        _line(key, (" ".join(value) if isinstance(value, list) else str(value)) or "-")
    levels = [
        f"{level['name']}{'' if level['runs_here'] else ' (not on this processor)'}"
        for level in _info.cpu_isa_levels()
        if level["compiled"]
    ]
    _line("CPU levels", ", ".join(levels))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report; return 0 when every op passed its self-test, else 1."""
    parser = argparse.ArgumentParser(
        prog="hyperstreams doctor",
        description="Versions, what is loaded and why not, and a self-test of every op.",
    )
    parser.add_argument("--no-test", action="store_true", help="leave the self-test out")
    options = parser.parse_args(arguments)
    _print_versions()
    _print_libraries()
    _print_build()
    if options.no_test:
        return 0
    devices = ["cpu", *(["cuda"] if CUDA_LIBRARY.loaded and torch.cuda.is_available() else [])]
    print("self-test: fused float32 against the float64 reference, outputs and gradients")
    passed = self_test(devices, n_streams=(4, 3))
    print("all ops pass" if passed else "some ops FAIL: please report this output")
    return 0 if passed else 1
