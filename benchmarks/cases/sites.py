"""Whole sites: the boundary between two sublayers, and the connection's work of one sublayer."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from hyperstreams import nn as hnn
from hyperstreams import ops
from torch import Tensor

from .. import peers, work
from ..case import Case, Workload
from ..peers import SiteSpec
from ..problem import BOTH, FORWARD, Problem

CONNECTIONS = ("mhc_lite", "mhc", "hc")
SHAPES = ((4096, 384), (2048, 768))
SMALL_SHAPES = ((2048, 96), (256, 96), (64, 64))
DTYPES = ("float32", "bfloat16")
TESTS = ("read", "mix_write", "project", "coefficients", "boundary", "site")


def connection_of(spec: SiteSpec) -> hnn.Connection:
    """A site with a controller that is not zero."""
    generator = torch.Generator().manual_seed(0)
    site = hnn.Connection(
        connection=spec.connection,
        n_streams=spec.n_streams,
        width=spec.width,
        site_index=0,
        generator=generator,
    )
    with torch.no_grad():
        if site.phi is not None:
            site.phi.normal_(std=0.02, generator=generator)
    return site.to(spec.device)


def inputs_of(spec: SiteSpec) -> tuple[Tensor, Tensor]:
    """Random streams and a branch output."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(spec.tokens, spec.n_streams, spec.width, generator=generator)
    y = torch.randn(spec.tokens, spec.width, generator=generator)
    return x.to(spec.device, spec.dtype), y.to(spec.device, spec.dtype)


def boundary(spec: SiteSpec, x: Tensor, y: Tensor) -> Problem:
    """The write of a site with this site's own coefficients, and the next site up to its read."""
    site = connection_of(spec)
    with torch.no_grad():
        _, h_post, h_res = site.coefficients(x)
    assert h_res is not None

    def function(x: Tensor, y: Tensor, h_res: Tensor, h_post: Tensor) -> tuple[Tensor | None, ...]:
        state, u, _, next_post, next_res = site(x, y, h_res, h_post)
        return state, u, next_post, next_res

    # Static coefficients come as rows without tokens, and stay so.
    tensors = (x, y, h_res.detach().clone(), h_post.detach().clone())
    return Problem(function, tensors, tuple(site.parameters()))


def sublayer(spec: SiteSpec, x: Tensor, y: Tensor) -> Problem:
    """A site's read, and its write of the branch output y; the branch itself is absent."""
    site = connection_of(spec)

    def function(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        state, u, _, h_post, h_res = site(x)
        return ops.mix_write(state, y, h_res, h_post), u

    return Problem(function, (x, y), tuple(site.parameters()))


KINDS = {
    "boundary": (boundary, peers.boundary, work.boundary),
    "sublayer": (sublayer, peers.sublayer, work.sublayer),
}


def controller_rows(connection: str, n_streams: int) -> int:
    """Rows of phi, each of which multiplies all channels of all streams once."""
    config = hnn.get_connection(connection)
    if config.norm == "per_stream":
        return 2 + n_streams
    return config.logit_count(n_streams) - config.mixer.static_logit_count(n_streams)


def site_case(
    name: str,
    *,
    kind: str,
    connection: str,
    tokens: int,
    width: int,
    mode: str,
    dtype: str = "float32",
    n_streams: int = 4,
    alone: bool = False,
    threads: int | None = None,
    isa: str | None = None,
    curve: tuple[str, int] | None = None,
    devices: tuple[str, ...] = ("cpu", "cuda"),
) -> Case:
    """One site; ``alone``: without baselines."""
    ours, theirs, least = KINDS[kind]
    torch_dtype = getattr(torch, dtype)

    def build(device: torch.device) -> Workload:
        spec = SiteSpec(
            connection=connection,
            tokens=tokens,
            width=width,
            dtype=torch_dtype,
            device=device,
            n_streams=n_streams,
        )
        x, y = inputs_of(spec)
        problem = ours(spec, x, y)
        if alone:
            return Workload(problem.call(mode))
        return problem.workload(mode, peers=peers.problems(spec, x, y, theirs))

    shape = work.Shape(
        tokens=tokens, n_streams=n_streams, width=width, element=torch_dtype.itemsize
    )
    return Case(
        name=name,
        build=build,
        tests=TESTS,
        dtype=dtype,
        work=least(shape, logits=controller_rows(connection, n_streams), backward=mode == BOTH),
        tokens=tokens,
        curve=curve,
        threads=threads,
        isa=isa,
        devices=devices,
    )


def cases() -> Iterator[Case]:
    """boundary, sublayer, and the boundary at sizes of a notebook's models."""
    for connection in CONNECTIONS:
        for tokens, width in SHAPES:
            for dtype in DTYPES:
                for kind, modes in (("boundary", (FORWARD, BOTH)), ("sublayer", (BOTH,))):
                    for mode in modes:
                        yield site_case(
                            f"{kind}/{connection}/{tokens}x{width}/{dtype}/{mode}",
                            kind=kind,
                            connection=connection,
                            tokens=tokens,
                            width=width,
                            dtype=dtype,
                            mode=mode,
                        )
    for connection in ("mhc_lite", "mhc"):
        for tokens, width in SMALL_SHAPES:
            for mode in (FORWARD, BOTH):
                yield site_case(
                    f"small/{connection}/{tokens}x{width}/{mode}",
                    kind="boundary",
                    connection=connection,
                    tokens=tokens,
                    width=width,
                    mode=mode,
                )
