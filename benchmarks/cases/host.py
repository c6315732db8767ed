"""What a call costs before any work is done: eager mode, tensors of a few elements.

Next to each stands one ``torch.add`` of two small tensors, timed in the same rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from hyperstreams import ops

from ..case import Case, Factory, Workload
from ..peers import SiteSpec
from ..problem import BOTH, FORWARD, RECORDED, Problem, by_reference
from .sites import TESTS, boundary, inputs_of

TOKENS, WIDTH, DECODE_WIDTH = 2, 8, 768
CONNECTION = "mhc"


def _beside_an_add(problem: Problem, mode: str) -> Workload:
    call = problem.call(mode)
    device = problem.tensors[0].device
    left, right = torch.randn(8, device=device), torch.randn(8, device=device)
    baselines: dict[str, Factory] = {
        "torch.add": lambda: lambda: torch.add(left, right),
        "eager": lambda: by_reference(call),
    }
    return Workload(call, baselines)


def _read(spec: SiteSpec, x: Any, y: Any) -> Problem:
    h_pre = torch.rand(spec.tokens, spec.n_streams).to(spec.device)
    return Problem(ops.read, (x, h_pre))


def _case(
    name: str, build: Callable[..., Problem], mode: str, *, tokens: int = TOKENS, width: int = WIDTH
) -> Case:
    def workload(device: torch.device) -> Workload:
        spec = SiteSpec(
            connection=CONNECTION, tokens=tokens, width=width, dtype=torch.float32, device=device
        )
        return _beside_an_add(build(spec, *inputs_of(spec)), mode)

    tests = ("read",) if build is _read else TESTS
    return Case(name=name, build=workload, tests=tests, tokens=tokens, wall_clock=True)


def cases() -> Iterator[Case]:
    """read and a boundary in three modes, and a boundary of one token as in decoding."""
    for name, build in (("read", _read), ("boundary", boundary)):
        for mode in (FORWARD, RECORDED, BOTH):
            yield _case(f"host/{name}/{mode}", build, mode)
    yield _case("host/boundary/decode", boundary, FORWARD, tokens=1, width=DECODE_WIDTH)
