"""Registration, torch.compile and export."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import pytest
import torch
from hyperstreams import ops
from hyperstreams.mixers import Free, Identity, Mixer, Sinkhorn
from hyperstreams.ops._coefficient_settings import coefficient_settings
from op_cases import BUILDS, Maker
from torch._dynamo.utils import counters
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

RAW = torch.ops.hyperstreams


def raw_calls() -> dict[str, tuple[object, tuple[object, ...]]]:
    """Every raw op on per-token and static arguments, with and without the optional ones."""
    make = Maker(1, torch.bfloat16, "permuted")
    x, y, h = make(2, 3, 4, 5), make(2, 3, 5), make(2, 3, 5)
    h1, h2, h1s, h2s = (
        make.coefficient(*shape) for shape in ((2, 3, 4), (2, 3, 4, 4), (4,), (4, 4))
    )
    bias, phi, norm = make.coefficient(5), make.coefficient(24, 20), make.coefficient(20)
    scale, k, r = make.coefficient(4, 5), make.coefficient(2, 3, 24), make.coefficient(2, 3)
    alpha, offsets = make.coefficient(3), make.coefficient(24)
    sinkhorn = coefficient_settings(Sinkhorn(), 4)
    identity = coefficient_settings(Identity(), 4)
    k0, a0, b0 = make.coefficient(2, 3, 8), make.coefficient(2), make.coefficient(8)
    return {
        "read": (RAW._read, (x, h1)),
        "read static": (RAW._read, (x, h1s)),
        "read_backward": (RAW._read_backward, (y, x, h1)),
        "read_backward static": (RAW._read_backward, (y, x, h1s)),
        "read empty": (RAW._read, (x[:0], h1[:0])),
        "mix_write": (RAW._mix_write, (x, y, h2, h1, bias)),
        "mix_write identity": (RAW._mix_write, (x, y.float(), None, h1s, None)),
        "mix_write_backward": (RAW._mix_write_backward, (x, x, y, h2s, h1, bias)),
        "mix_write_backward identity": (RAW._mix_write_backward, (x, x, y, None, h1s, None)),
        "project": (RAW._project, (x, phi, norm, 1e-6, 0)),
        "project_backward": (RAW._project_backward, (k, r, x, phi, None, r, 1e-6, 2)),
        "project_backward norm": (RAW._project_backward, (k, r, x, phi, norm, r, 1e-6, 1)),
        "expand": (RAW._expand, (h, 4, scale, scale)),
        "expand_backward": (RAW._expand_backward, (x, h, 4, scale, True)),
        "expand_backward plain": (RAW._expand_backward, (x, h, 4, None, False)),
        "coefficients": (RAW._coefficients, (k, r, alpha, offsets, *sinkhorn)),
        "coefficients identity": (RAW._coefficients, (k0, None, a0, b0, *identity)),
        "coefficients_backward": (
            RAW._coefficients_backward,
            (h1, h1, h2, k, r, alpha, offsets, h1, h1, *sinkhorn),
        ),
        "coefficients_backward identity": (
            RAW._coefficients_backward,
            (h1, h1, None, k0, None, a0, b0, None, None, *identity),
        ),
        "stream_stats": (RAW._stream_stats, (x, y, h1, h1s, None)),
        **raw_boundary_calls(),
    }


def raw_boundary_calls() -> dict[str, tuple[object, tuple[object, ...]]]:
    """With and without a write, a controller, its own read weights; a mixer without h_res."""
    make = Maker(2, torch.bfloat16, "permuted")
    x, y, h1, h2 = (
        make(2, 3, 4, 5),
        make(2, 3, 5),
        make.coefficient(2, 3, 4),
        make.coefficient(4, 4),
    )
    bias, phi, norm = make.coefficient(5), make.coefficient(24, 20), make.coefficient(20)
    alpha, offsets, weights = make.coefficient(3), make.coefficient(24), make.coefficient(4)
    k, r, empty = make.coefficient(2, 3, 24), make.coefficient(2, 3), make.coefficient(0)
    sinkhorn = (1e-6, 0, *coefficient_settings(Sinkhorn(), 4)[1:])
    identity = (1e-6, 2, *coefficient_settings(Identity(), 4)[1:])
    per_stream = (1e-6, 1, *coefficient_settings(Free(), 4, per_stream=True)[1:])
    controller = (phi, norm, alpha, offsets)
    small = (make.coefficient(8, 20), None, make.coefficient(2), make.coefficient(8))
    rows = (make.coefficient(6, 5), make.coefficient(5), alpha, offsets)
    forward = {
        "": ((x, y, h2, h1, bias, *controller, None), sinkhorn),
        " identity": ((x, y.float(), None, weights, None, *small, None), identity),
        " first site": ((x, None, None, None, None, *rows, None), per_stream),
        " given weights": ((x, y, h2, h1, None, *controller, h1), sinkhorn),
        " static": ((x, y, h2, h1, None, *[None] * 4, weights), (0.0, 0, 0, [], [])),
        " empty": ((x[:0], y[:0], h2, h1[:0], bias, *controller, None), sinkhorn),
    }
    nothing = make(0)
    per_token = (make.coefficient(2, 3, 4, 6), make.coefficient(2, 3, 4))
    backward = {
        "": ((x, y, h1, h1, make.coefficient(2, 3, 4, 4)), (k, r, h1)),
        " identity": ((x, y, h1, h1, empty), (make.coefficient(2, 3, 8), r, h1)),
        " first site": ((nothing, y, h1, h1, make.coefficient(2, 3, 4, 4)), (*per_token, h1)),
        " static": ((x, y, empty, empty, empty), (empty, empty, empty)),
    }
    calls = {f"boundary{name}": (RAW._boundary, (*a, *s)) for name, (a, s) in forward.items()}
    for name, (grads, saved) in backward.items():
        inputs, settings = forward[name]
        calls[f"boundary_backward{name}"] = (
            RAW._boundary_backward, (*grads, *inputs, *saved, *settings)
        )  # fmt: skip
    return calls


@pytest.mark.parametrize("name", raw_calls())
def test_opcheck(name: str) -> None:
    packet, arguments = raw_calls()[name]
    torch.library.opcheck(packet.default, arguments)


def test_every_raw_op_is_checked() -> None:
    names = {name.split("::")[1].split(".")[0] for name in dir_of_namespace()}
    checked = {packet.__name__ for packet, _ in raw_calls().values()}
    asked = {"_cpu_isa", "_detected_cpu_isa", "_set_cpu_isa", "_cuda_archs"}
    assert names - checked <= asked


def dir_of_namespace() -> list[str]:
    return [n for n in torch._C._dispatch_get_all_op_names() if n.startswith("hyperstreams::")]


def block(x, y, h_res, h_post, phi, norm_weight, alpha, bias, scale):
    """Every op once, in the order of a model."""
    x, u, h_pre, h_post, h_res = ops.boundary(
        x, y, h_res, h_post, phi, norm_weight, alpha, bias, n_streams=4, mixer="sinkhorn"
    )
    x = ops.mix_write(x, u.sin(), h_res, h_post)
    stats = ops.stream_stats(x, u, h_pre=h_pre)
    return ops.expand(ops.reduce(x), 4, scale=scale), stats


def arguments(tokens: int, width: int = 8) -> list[torch.Tensor]:
    make = Maker(tokens, torch.float32)
    shapes = (
        (2, tokens, 4, width), (2, tokens, width), (2, tokens, 4, 4), (2, tokens, 4),
        (24, 4 * width), (4 * width,), (3,), (24,), (4, width),
    )  # fmt: skip
    return [make(*shape).requires_grad_() for shape in shapes]


def test_one_graph_for_every_token_count() -> None:
    counters["stats"].clear()
    compiled = torch.compile(block, fullgraph=True, dynamic=True, backend="aot_eager")
    for tokens in (5, 3, 17):
        eager, graph = arguments(tokens), arguments(tokens)
        want, want_stats = block(*eager)
        got, got_stats = compiled(*graph)
        assert torch.equal(got, want)
        assert torch.equal(got_stats, want_stats)
        want.sin().sum().backward()
        got.sin().sum().backward()
        for a, b in zip(graph, eager, strict=True):
            assert torch.equal(a.grad, b.grad)
    assert counters["stats"]["unique_graphs"] == 1


def test_inductor() -> None:
    compiled = torch.compile(block, fullgraph=True)
    eager, graph = arguments(6), arguments(6)
    want, got = block(*eager)[0], compiled(*graph)[0]
    torch.testing.assert_close(got, want)
    want.sin().sum().backward()
    got.sin().sum().backward()
    for a, b in zip(graph, eager, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5)


def test_settings_are_part_of_the_graph() -> None:
    """Two mixers, activations and eps through the same code: each has its own graph and result."""

    @torch.compile(fullgraph=True, backend="aot_eager")
    def compiled(x, phi, alpha, bias, mixer, eps, activation):
        logits, inv_rms = ops.project(x, phi, eps=eps)
        return ops.coefficients(
            logits, inv_rms, alpha, bias, n_streams=4, mixer=mixer, write_activation=activation
        )

    x, _, _, _, phi, _, alpha, bias, _ = arguments(3)
    for temperature, eps, factor in ((1.0, 1e-6, 2.0), (0.5, 1e-6, 3.0), (0.25, 0.5, 4.0)):
        mixer, activation = Sinkhorn(temperature=temperature), ops.Activation("tanh", factor=factor)
        logits, inv_rms = ops.project(x, phi, eps=eps)
        want = ops.coefficients(
            logits, inv_rms, alpha, bias, n_streams=4, mixer=mixer, write_activation=activation
        )
        got = compiled(x, phi, alpha, bias, mixer, eps, activation)
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_gradients_of_torch_func_compile() -> None:
    x, h = torch.randn(5, 4, 6), torch.randn(5, 4)
    gradient = torch.func.grad(lambda x, h: ops.read(x, h).sin().sum(), (0, 1))
    compiled = torch.compile(gradient, fullgraph=True, backend="aot_eager")
    for got, want in zip(compiled(x, h), gradient(x, h), strict=True):
        torch.testing.assert_close(got, want)


def test_bad_arguments_raise_while_compiling() -> None:
    compiled = torch.compile(ops.read, fullgraph=True, backend="aot_eager")
    with pytest.raises(Exception, match=r"read: h_pre: expected .* got shape \(5,\)"):
        compiled(torch.randn(3, 4, 8), torch.randn(5))


def test_export() -> None:
    class Site(torch.nn.Module):
        def forward(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
            return ops.mix_write(x, ops.read(x, h), None, h)

    x, h = torch.randn(6, 4, 8), torch.randn(6, 4)
    tokens = torch.export.Dim("tokens", min=2)
    program = torch.export.export(Site(), (x, h), dynamic_shapes=({0: tokens}, {0: tokens}))
    targets = {str(n.target) for n in program.graph.nodes if n.op == "call_function"}
    assert {"hyperstreams._read.default", "hyperstreams._mix_write.default"} <= targets
    x, h = torch.randn(9, 4, 8), torch.randn(9, 4)
    assert torch.equal(program.module()(x, h), Site()(x, h))


def test_meta_tensors() -> None:
    x, h = torch.empty(3, 4, 8, device="meta"), torch.empty(3, 4, device="meta")
    assert ops.read(x, h).shape == (3, 8)
    assert ops.mix_write(x, ops.read(x, h), None, h).device.type == "meta"


@dataclass(frozen=True)
class Doubly(Mixer):
    """A user's mixer, of which the kernels know nothing."""

    name: ClassVar[str] = "test_doubly"
    paper: ClassVar[str] = "none"

    def logit_count(self, n: int) -> int:
        return n

    def initial_logits(self, n: int) -> torch.Tensor:
        return torch.zeros(n)

    def map(self, logits: torch.Tensor, n: int) -> torch.Tensor:
        return torch.diag_embed(2 * logits)


@pytest.mark.parametrize("compile_it", [False, True])
def test_a_mixer_of_the_users_own(compile_it: bool) -> None:
    """It runs in PyTorch between fused ops, which is no fallback."""

    def step(x, phi, alpha, bias):
        return ops.boundary(
            x, None, None, None, phi, None, alpha, bias, n_streams=4, mixer=Doubly()
        )

    function = torch.compile(step, fullgraph=True, backend="aot_eager") if compile_it else step
    make = Maker(2, torch.float32)
    tensors = [make(5, 4, 8), make(12, 32), make(3), make(12)]
    before = ops.backend_status().fallbacks
    for tensor in tensors:
        tensor.requires_grad_()
    got = function(*tensors)
    with ops.backend("reference"):
        want = step(*tensors)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)
    grads = torch.autograd.grad(got[4].sum() + got[1].sum(), tensors)
    wanted = torch.autograd.grad(want[4].sum() + want[1].sum(), tensors)
    for a, b in zip(grads, wanted, strict=True):
        torch.testing.assert_close(a, b)
    assert ops.backend_status().fallbacks == before


@pytest.mark.parametrize("name", ["read", "mix_write", "project", "expand", "boundary_sinkhorn"])
def test_selective_checkpointing_sees_the_ops(name: str) -> None:
    case = BUILDS[name](Maker(4, torch.float32), 4, 8, (5,), False)
    leaves = [t.clone().requires_grad_() for t in case.tensors]
    plain = case.outputs(tuple(leaves), "fused")[0].sin().sum()
    want = torch.autograd.grad(plain, leaves, materialize_grads=True)
    forward = getattr(RAW, f"_{name.removesuffix('_sinkhorn')}").default
    cheap = name in ("read", "mix_write", "expand")
    assert (forward in ops.RECOMPUTE_CHEAP) == cheap
    calls: list[object] = []

    def policy(save: bool, op: object) -> CheckpointPolicy:
        calls.append(op)
        must = save and op is forward
        return CheckpointPolicy.MUST_SAVE if must else CheckpointPolicy.PREFER_RECOMPUTE

    for save in (True, False):
        calls.clear()
        context = partial(
            create_selective_checkpoint_contexts,
            lambda _, op, *args, save=save, **kwargs: policy(save, op),
        )
        again = checkpoint(
            lambda *t: case.outputs(t, "fused")[0].sin().sum(),
            *leaves,
            use_reentrant=False,
            context_fn=context,
        )
        found = torch.autograd.grad(again, leaves, materialize_grads=True)
        assert forward in calls
        for got, expected in zip(found, want, strict=True):
            assert torch.equal(got, expected)
