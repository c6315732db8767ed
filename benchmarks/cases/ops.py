"""Every op alone: forward, and forward with all gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from hyperstreams import ops
from hyperstreams.mixers import MIXERS, Kronecker, Mixer, Sinkhorn
from torch import Tensor

from .. import work
from ..case import Case, Workload
from ..problem import BOTH, FORWARD, Problem

SHAPES = ((4096, 384), (2048, 768))
DTYPES = ("float32", "bfloat16")
N_STREAMS = 4
PROJECT_LOGITS = {"mhc": 24, "mhc_lite": 32}
"""K of the dynamic controller of these connections at n = 4."""
COEFFICIENT_TOKENS = 8192

MIXER_SETTINGS: dict[str, Mixer] = {
    "sinkhorn_softmax": Sinkhorn(20, "softmax", "rows_first", 1e-6, "source_rows"),
    "kronecker_one_factor": Kronecker((4,)),
}
"""Further settings of mixers that are also timed with their own."""


@dataclass(frozen=True)
class Maker:
    """Random tensors of one shape, dtype and device."""

    shape: work.Shape
    dtype: torch.dtype
    device: torch.device
    generator: torch.Generator

    def streams(self) -> Tensor:
        return self._randn(self.shape.tokens, self.shape.n_streams, self.shape.width, half=True)

    def hidden(self) -> Tensor:
        return self._randn(self.shape.tokens, self.shape.width, half=True)

    def coefficient(self, *sizes: int) -> Tensor:
        return self._randn(self.shape.tokens, *sizes)

    def parameter(self, *sizes: int) -> Tensor:
        return self._randn(*sizes)

    def _randn(self, *sizes: int, half: bool = False) -> Tensor:
        value = torch.randn(sizes, generator=self.generator)
        return value.to(self.device, self.dtype if half else torch.float32)


def _read(make: Maker) -> Problem:
    return Problem(ops.read, (make.streams(), make.coefficient(make.shape.n_streams)))


def _mix_write(make: Maker) -> Problem:
    n = make.shape.n_streams
    tensors = (make.streams(), make.hidden(), make.coefficient(n, n), make.coefficient(n))
    return Problem(ops.mix_write, tensors)


def _project(logits: int) -> Callable[[Maker], Problem]:
    def build(make: Maker) -> Problem:
        phi = make.parameter(logits, make.shape.n_streams * make.shape.width)
        return Problem(ops.project, (make.streams(), phi))

    return build


def _expand(make: Maker) -> Problem:
    n = make.shape.n_streams
    scale = make.parameter(n, make.shape.width)
    return Problem(lambda h, scale: ops.expand(h, n, scale=scale), (make.hidden(), scale))


def _stream_stats(make: Maker) -> Problem:
    n = make.shape.n_streams

    def function(x: Tensor, y: Tensor, h_pre: Tensor, h_post: Tensor, h_res: Tensor) -> Tensor:
        return ops.stream_stats(x, y, h_pre=h_pre, h_post=h_post, h_res=h_res)

    coefficients = (make.coefficient(n), make.coefficient(n), make.coefficient(n, n))
    return Problem(function, (make.streams(), make.hidden(), *coefficients))


def fused_mixers() -> dict[str, Mixer]:
    """Every registered mixer that has a kernel map, and the settings above."""
    own = {name: mixer() for name, mixer in MIXERS.items()}
    return {
        name: mixer
        for name, mixer in (own | MIXER_SETTINGS).items()
        if mixer.fused_map_for(N_STREAMS) is not None
    }


def coefficients_problem(mixer: Mixer, device: torch.device, tokens: int) -> Problem:
    """A controller's random logits around the mixer's initial ones."""
    generator = torch.Generator().manual_seed(0)
    n = N_STREAMS
    bias = torch.cat([torch.zeros(2 * n), mixer.initial_logits(n)])
    groups = 2 + len(mixer.group_sizes(n))
    dynamic = bias.shape[0] - mixer.static_logit_count(n)
    tensors = (
        torch.randn(tokens, dynamic, generator=generator),
        torch.randn(tokens, generator=generator).abs() + 0.5,
        torch.full((groups,), 0.5),
        bias,
    )

    def function(
        logits: Tensor, inv_rms: Tensor, alpha: Tensor, bias: Tensor
    ) -> tuple[Tensor | None, ...]:
        return ops.coefficients(logits, inv_rms, alpha, bias, n_streams=n, mixer=mixer)

    return Problem(function, tuple(tensor.to(device) for tensor in tensors))


def _coefficients_workload(mixer: Mixer, mode: str, tokens: int, device: torch.device) -> Workload:
    problem = coefficients_problem(mixer, device, tokens)
    workload = problem.workload(mode)
    if mode == BOTH:
        floor = {"autograd alone": problem.autograd_floor}
        workload = Workload(workload.call, {**workload.baselines, **floor})
    return workload


def _case(
    name: str,
    problem: Callable[[Maker], Problem],
    least: Callable[..., work.Work],
    *,
    op: str,
    modes: tuple[str, ...] = (FORWARD, BOTH),
    shapes: Sequence[tuple[int, int]] = SHAPES,
    dtypes: Sequence[str] = DTYPES,
    devices: tuple[str, ...] = ("cpu", "cuda"),
) -> Iterator[Case]:
    """One op at every shape, dtype and mode."""
    for tokens, width in shapes:
        for dtype_name in dtypes:
            dtype = getattr(torch, dtype_name)
            shape = work.Shape(
                tokens=tokens, n_streams=N_STREAMS, width=width, element=dtype.itemsize
            )
            for mode in modes:
                yield Case(
                    name=f"{name}/{tokens}x{width}/{dtype_name}/{mode}",
                    build=partial(_workload, problem, shape, dtype, mode),
                    tests=(op,),
                    dtype=dtype_name,
                    work=least(shape, backward=mode == BOTH),
                    tokens=tokens,
                    devices=devices,
                )


def _workload(
    problem: Callable[[Maker], Problem],
    shape: work.Shape,
    dtype: torch.dtype,
    mode: str,
    device: torch.device,
) -> Workload:
    generator = torch.Generator().manual_seed(0)
    return problem(Maker(shape, dtype, device, generator)).workload(mode)


def streaming_cases(prefix: str = "", **options: Any) -> Iterator[Case]:
    """read, mix_write, project, expand, stream_stats; ``options`` are those of ``_case``."""
    yield from _case(f"{prefix}read", _read, work.read, op="read", **options)
    yield from _case(f"{prefix}mix_write", _mix_write, work.mix_write, op="mix_write", **options)
    for connection, logits in PROJECT_LOGITS.items():
        name, least = f"{prefix}project/{connection}", partial(work.project, logits=logits)
        yield from _case(name, _project(logits), least, op="project", **options)
    yield from _case(f"{prefix}expand", _expand, work.expand, op="expand", **options)
    name, options = f"{prefix}stream_stats", options | {"modes": (FORWARD,)}
    yield from _case(name, _stream_stats, work.stream_stats, op="stream_stats", **options)


def cases() -> Iterator[Case]:
    """Every op that passes over the streams; coefficients with every fused mixer."""
    yield from streaming_cases()
    for name, mixer in fused_mixers().items():
        for mode in (FORWARD, BOTH):
            yield coefficients_case(f"coefficients/{name}/{mode}", mixer, mode)


def coefficients_case(
    name: str,
    mixer: Mixer,
    mode: str,
    *,
    tokens: int = COEFFICIENT_TOKENS,
    isa: str | None = None,
    devices: tuple[str, ...] = ("cpu", "cuda"),
) -> Case:
    """The coefficients of one mixer for so many tokens."""
    n = N_STREAMS
    outputs = 2 * n + (0 if mixer.fused_map_for(n) == "identity" else n * n)
    return Case(
        name=name,
        build=partial(_coefficients_workload, mixer, mode, tokens),
        tests=("coefficients",),
        work=work.coefficients(
            tokens=tokens,
            logits=2 * n + mixer.logit_count(n) - mixer.static_logit_count(n),
            outputs=outputs,
            backward=mode == BOTH,
        ),
        tokens=tokens,
        isa=isa,
        devices=devices,
    )
