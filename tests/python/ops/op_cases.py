"""The ops as test cases: arguments of any shape, dtype and layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from hyperstreams import ops
from hyperstreams.mixers import (
    Circulant,
    Kronecker,
    Mixer,
    Permutation,
    Sinkhorn,
    Spectral,
    get_mixer,
)
from op_judgement import DEVICE, Case, coefficient_dtype, laid_out
from torch import Tensor


class Maker:
    """Random tensors of one configuration, the same values on every device."""

    def __init__(
        self, seed: int, dtype: torch.dtype, layout: str = "contiguous", device: str = DEVICE
    ) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.dtype = dtype
        self.layout = layout
        self.device = device

    def __call__(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        value = torch.randn(shape, generator=self.generator, dtype=torch.float64)
        return laid_out(value.to(self.device, dtype or self.dtype), self.layout)

    def coefficient(self, *shape: int) -> Tensor:
        return self(*shape, dtype=coefficient_dtype(self.dtype))


Build = Callable[[Maker, int, int, tuple[int, ...], bool], Case]


def read(make: Maker, n: int, width: int, lead: tuple[int, ...], static: bool) -> Case:
    h_pre = make.coefficient(n) if static else make.coefficient(*lead, n)
    return Case(ops.read, (make(*lead, n, width), h_pre))


def mix_write(make: Maker, n: int, width: int, lead: tuple[int, ...], static: bool) -> Case:
    tokens = () if static else lead
    return Case(
        lambda x, y, h_res, h_post, bias: ops.mix_write(x, y, h_res, h_post, bias=bias),
        (
            make(*lead, n, width),
            make(*lead, width),
            make.coefficient(*tokens, n, n),
            make.coefficient(*tokens, n),
            make.coefficient(width),
        ),
    )


def mix_write_identity(
    make: Maker, n: int, width: int, lead: tuple[int, ...], static: bool
) -> Case:
    return Case(
        lambda x, y, h_post: ops.mix_write(x, y, None, h_post),
        (make(*lead, n, width), make(*lead, width), make.coefficient(*(() if static else lead), n)),
    )


def mix_write_mixed(make: Maker, n: int, width: int, lead: tuple[int, ...], static: bool) -> Case:
    """y in another dtype than x; static mix with per-token write and the reverse."""
    other = {torch.float32: torch.bfloat16, torch.bfloat16: torch.float32}
    return Case(
        ops.mix_write,
        (
            make(*lead, n, width),
            make(*lead, width, dtype=other.get(make.dtype, torch.float32)),
            make.coefficient(*(() if static else lead), n, n),
            make.coefficient(*(lead if static else ()), n),
        ),
    )


def project(make: Maker, n: int, width: int, lead: tuple[int, ...], static: bool) -> Case:
    eps_position = "outside" if static else "inside"
    logits = 1 + (3 * n + width) % 26
    return Case(
        lambda x, phi, w: ops.project(x, phi, w, eps=1e-3, eps_position=eps_position),
        (
            make(*lead, n, width),
            make.coefficient(logits, n * width),
            make.coefficient(n * width),
        ),
    )


def project_plain(make: Maker, n: int, width: int, lead: tuple[int, ...], static: bool) -> Case:
    """Without a norm weight; eps as a floor."""
    return Case(
        lambda x, phi: ops.project(x, phi, eps=1e-2, eps_position="floor"),
        (make(*lead, n, width), make.coefficient(n * n + 2 * n, n * width)),
    )


def expand(make: Maker, n: int, width: int, lead: tuple[int, ...], static: bool) -> Case:
    """Learned Stream Scaling, with an additive embedding or without."""
    tensors = (make(*lead, width), make.coefficient(n, width), make.coefficient(n, width))
    if static:
        return Case(lambda h, scale: ops.expand(h, n, scale=scale), tensors[:2])
    return Case(lambda h, scale, bias: ops.expand(h, n, scale=scale, bias=bias), tensors)


def expand_plain(make: Maker, n: int, width: int, lead: tuple[int, ...], static: bool) -> Case:
    """Copies, or copies plus a bias."""
    tensors = (make(*lead, width), make.coefficient(n, width))
    if static:
        return Case(lambda h: ops.expand(h, n), tensors[:1])
    return Case(lambda h, bias: ops.expand(h, n, bias=bias), tensors)


def reduce(make: Maker, n: int, width: int, lead: tuple[int, ...], static: bool) -> Case:
    if static:
        return Case(ops.reduce, (make(*lead, n, width),))
    return Case(ops.reduce, (make(*lead, n, width), make.coefficient(n)))


def coefficients_with(
    mixer: str | Mixer,
    sizes: tuple[int, ...] = tuple(range(1, 17)),
    roundings: int = 1,
    cancelling: Mapping[int, int] | None = None,
    **options: Any,
) -> Build:
    """Tokens with inv_rms, or one static row without (``static``); ``width`` plays no part.

    ``sizes`` are the stream counts that the mixer has a fused map for.
    """

    def build(make: Maker, n: int, width: int, lead: tuple[int, ...], static: bool) -> Case:
        chosen = get_mixer(mixer)
        if n not in sizes:
            n = sizes[n % len(sizes)]
        assert chosen.fused_map_for(n) is not None
        count, groups = 2 * n + chosen.logit_count(n), len(chosen.group_sizes(n))
        tail = (n, 2 + n) if options.get("per_stream") else (count,)
        inv_rms = None if static else make.coefficient(*lead, *tail[:-1]).abs()
        return Case(
            lambda logits, inv_rms, alpha, bias: ops.coefficients(
                logits, inv_rms, alpha, bias, n_streams=n, mixer=chosen, **options
            ),
            (
                make.coefficient(*(() if static else lead), *tail),
                inv_rms,
                make.coefficient(2 + groups),
                make.coefficient(count),
            ),
            roundings,
            cancelling=cancelling or {},
        )

    return build


COEFFICIENTS = {
    "identity": coefficients_with("identity"),
    "free": coefficients_with(
        "free",
        read_activation=ops.Activation("tanh", "outside", 0.5, 1.0),
        write_activation=ops.Activation("sigmoid", "outside", 2.0, -1.0),
        mix_activation=ops.Activation("tanh", "inside", 1.5, 0.25),
    ),
    "free_per_stream": coefficients_with(
        "free", per_stream=True, mix_activation=ops.Activation("tanh", "outside")
    ),
    "sinkhorn": coefficients_with(Sinkhorn(iterations=20)),
    "sinkhorn_softmax": coefficients_with(
        Sinkhorn(3, "softmax", "rows_first", 1e-2, "source_rows", 0.7)
    ),
    "sinkhorn_eps": coefficients_with(Sinkhorn(2, eps=1e-3), per_stream=True),
    # With one token, the gradients by inv_rms and alpha are sums over n! logits that may cancel.
    "permutation": coefficients_with(
        "permutation", sizes=(1, 2, 3, 4, 5), cancelling={1: 32, 2: 32}
    ),
    "permutation_source_rows": coefficients_with(
        Permutation("source_rows"), sizes=(1, 2, 3, 4, 5), cancelling={1: 32, 2: 32}
    ),
    "kronecker": coefficients_with("kronecker", sizes=(1, 2, 3, 4, 6, 8, 9, 10, 12, 15, 16)),
    # A prime n: the permutation mixer's 5! logits.
    "kronecker_one_factor": coefficients_with("kronecker", sizes=(5,), cancelling={1: 32, 2: 32}),
    "kronecker_source_rows": coefficients_with(Kronecker((2, 3), "source_rows"), sizes=(6,)),
    "spectral": coefficients_with("spectral", sizes=(1, 2, 3, 4), roundings=8),
    "spectral_gamma": coefficients_with(Spectral(2.0, 0.5), sizes=(3, 4), roundings=8),
    "circulant": coefficients_with("circulant"),
    "circulant_source_rows": coefficients_with(Circulant(0.9, "source_rows")),
}


def boundary_with(
    mixer: str | Mixer = "sinkhorn",
    sizes: tuple[int, ...] = tuple(range(1, 17)),
    *,
    write: bool = True,
    bias: bool = False,
    weights: bool = False,
    controller: bool = True,
    **options: Any,
) -> Build:
    """A pending write (``write``), the next site's controller, or given read weights (``weights``).

    ``static`` makes h_res and h_post static, and the given read weights too.
    """

    def build(make: Maker, n: int, width: int, lead: tuple[int, ...], static: bool) -> Case:
        chosen = get_mixer(mixer)
        if n not in sizes:
            n = sizes[n % len(sizes)]
        count, groups = 2 * n + chosen.logit_count(n), len(chosen.group_sizes(n))
        tokens = () if static else lead
        per_stream = bool(options.get("per_stream"))
        rows, features = (2 + n, width) if per_stream else (count, n * width)

        def phi() -> Tensor:  # logits of order 1, as a controller's are
            value = make.coefficient(rows, features) * features**-0.5
            return laid_out(value, make.layout)

        named: dict[str, Tensor | None] = {
            "x": make(*lead, n, width),
            "y": make(*lead, width) if write else None,
            "h_res": make.coefficient(*tokens, n, n) if write else None,
            "h_post": make.coefficient(*tokens, n) if write else None,
            "write_bias": make.coefficient(width) if bias else None,
            "phi": phi() if controller else None,
            "norm_weight": make.coefficient(features) if controller and bias else None,
            "alpha": make.coefficient(2 + groups),
            "bias": make.coefficient(count),
            "read_weights": make.coefficient(*tokens, n) if weights else None,
        }
        names = [name for name, value in named.items() if value is not None]

        def function(*tensors: Tensor) -> tuple[Tensor | None, ...]:
            given: dict[str, Any] = dict.fromkeys(named)
            given |= options | dict(zip(names, tensors, strict=True))
            outputs = ops.boundary(n_streams=n, mixer=chosen, **given)
            # x' is x itself without a write, and coefficients are static without a controller.
            return outputs[0 if write else 1 : 5 if controller else 2]

        return Case(function, tuple(named[name] for name in names), 8, write)

    return build


BOUNDARIES = {
    "sinkhorn": boundary_with(Sinkhorn(iterations=5), eps=1e-3),
    "permutation": boundary_with("permutation", sizes=(1, 2, 3, 4), bias=True),
    "first_site": boundary_with("free", write=False, eps_position="outside", eps=1e-2),
    "per_stream": boundary_with("free", per_stream=True, bias=True),
    "first_site_per_stream": boundary_with("free", write=False, per_stream=True),
    "identity": boundary_with("identity", eps_position="floor", eps=1e-2),
    "given_weights": boundary_with("circulant", weights=True),
    "static": boundary_with("free", controller=False, bias=True),
}

BUILDS: dict[str, Build] = {
    build.__name__: build
    for build in (
        read,
        mix_write,
        mix_write_identity,
        mix_write_mixed,
        project,
        project_plain,
        expand,
        expand_plain,
        reduce,
    )
} | {f"coefficients_{name}": build for name, build in COEFFICIENTS.items()}
BUILDS |= {f"boundary_{name}": build for name, build in BOUNDARIES.items()}
