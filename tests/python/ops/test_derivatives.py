"""Derivatives of every kind: first and second order, torch.func, forward mode."""

from __future__ import annotations

import pytest
import torch
from hyperstreams import ops
from op_cases import BUILDS, Maker
from op_judgement import Case, cpu_only

SMALL = {name: build for name, build in BUILDS.items() if name != "mix_write_mixed"}


def double_case(name: str, static: bool, lead: tuple[int, ...] = (3,)) -> Case:
    return BUILDS[name](Maker(5, torch.float64), 3, 5, lead, static)


def inputs_of(case: Case) -> tuple[torch.Tensor | None, ...]:
    return tuple(None if t is None else t.clone().requires_grad_() for t in case.tensors)


@cpu_only
@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("name", SMALL)
def test_gradcheck_and_gradgradcheck(name: str, static: bool) -> None:
    case = double_case(name, static)
    inputs = inputs_of(case)
    function = lambda *tensors: case.outputs(tensors, "fused")  # noqa: E731
    assert torch.autograd.gradcheck(function, inputs, check_batched_grad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


def test_a_coefficient_that_depends_on_the_streams_counts_once() -> None:
    x = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: ops.read(x, x.sin().sum(-1)), (x,))


def scalar(case: Case, tensors: tuple[torch.Tensor | None, ...]) -> torch.Tensor:
    return sum((o.sin() * (k + 1)).sum() for k, o in enumerate(case.outputs(tensors, "fused")))


@cpu_only
@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("name", SMALL)
def test_torch_func(name: str, static: bool) -> None:
    case = double_case(name, static)
    present = [k for k, t in enumerate(case.tensors) if t is not None]
    leaves = inputs_of(case)
    want = torch.autograd.grad(scalar(case, leaves), [leaves[k] for k in present])
    gradient = torch.func.grad(lambda *t: scalar(case, t), argnums=tuple(present))
    for got, expected in zip(gradient(*case.tensors), want, strict=True):
        torch.testing.assert_close(got, expected)
    # Per-sample gradients: the first argument batched, all others shared.
    batch = torch.stack([case.tensors[0], 2 * case.tensors[0]], dim=1)
    in_dims = (1, *[None] * (len(case.tensors) - 1))
    batched = torch.func.vmap(gradient, in_dims)(batch, *case.tensors[1:])
    for k in range(2):
        single = gradient(batch.select(1, k), *case.tensors[1:])
        for got, expected in zip(batched, single, strict=True):
            torch.testing.assert_close(got[k], expected)


@cpu_only
@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("name", SMALL)
def test_vmap_over_each_argument(name: str, static: bool) -> None:
    case = double_case(name, static)
    for argument, tensor in enumerate(case.tensors):
        if tensor is None:
            continue
        stacked = torch.stack([tensor, -tensor, tensor + 1], dim=-1)
        tensors = [*case.tensors[:argument], stacked, *case.tensors[argument + 1 :]]
        in_dims = tuple(-1 if k == argument else None for k in range(len(tensors)))
        got = torch.func.vmap(lambda *t: case.outputs(t, "fused"), in_dims)(*tensors)
        for k in range(3):
            tensors[argument] = stacked[..., k]
            for batched, want in zip(got, case.outputs(tuple(tensors), "fused"), strict=True):
                torch.testing.assert_close(batched[k], want)


def test_vmap_passes_gradients_to_the_tensors_outside() -> None:
    x = torch.randn(2, 6, 3, 5, requires_grad=True)
    h = torch.randn(3, requires_grad=True)
    torch.func.vmap(ops.read, (0, None))(x, h).sin().sum().backward()
    want = torch.autograd.grad(ops.read(x, h).sin().sum(), (x, h))
    torch.testing.assert_close(x.grad, want[0])
    torch.testing.assert_close(h.grad, want[1])


@cpu_only
@pytest.mark.parametrize("name", SMALL)
def test_forward_mode_is_right(name: str) -> None:
    case = double_case(name, False)
    tangents = tuple(None if t is None else torch.ones_like(t) for t in case.tensors)
    present = [k for k, t in enumerate(case.tensors) if t is not None]

    def function(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        given = dict(zip(present, values, strict=True))
        return case.outputs(tuple(given.get(k) for k in range(len(case.tensors))), "fused")

    primals = tuple(case.tensors[k] for k in present)
    _, got = torch.func.jvp(function, primals, tuple(tangents[k] for k in present))
    epsilon = 1e-6
    plus = function(*[p + epsilon for p in primals])
    minus = function(*[p - epsilon for p in primals])
    for tangent, above, below in zip(got, plus, minus, strict=True):
        torch.testing.assert_close(tangent, (above - below) / (2 * epsilon), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", BUILDS)
def test_each_argument_alone_and_stride_zero_cotangents(name: str) -> None:
    case = BUILDS[name](Maker(3, torch.float32), 4, 9, (2, 5), False)
    leaves = inputs_of(case)
    total = sum(o.sum() for o in case.outputs(leaves, "fused"))  # cotangents are expanded ones
    present = [t for t in leaves if t is not None]
    want = dict(zip(map(id, present), torch.autograd.grad(total, present), strict=True))
    for k, leaf in enumerate(leaves):
        if leaf is None:
            continue
        alone = tuple(t if j == k or t is None else t.detach() for j, t in enumerate(leaves))
        total = sum(o.sum() for o in case.outputs(alone, "fused"))
        assert torch.equal(torch.autograd.grad(total, leaf)[0], want[id(leaf)])


@cpu_only
@pytest.mark.parametrize(
    "name",
    [
        "project",
        "coefficients_sinkhorn",
        "coefficients_identity",
        "boundary_sinkhorn",
        "boundary_identity",
        "boundary_given_weights",
        "boundary_static",
    ],
)
def test_unused_outputs(name: str) -> None:
    """An output that the loss does not use has no cotangent."""
    case = double_case(name, False)
    count = len(case.outputs(case.tensors, "fused"))
    for used in range(count):
        results = []
        for backend in ("fused", "reference"):
            leaves = inputs_of(case)
            present = [t for t in leaves if t is not None]
            output = case.outputs(leaves, backend)[used]
            results.append(torch.autograd.grad(output.sin().sum(), present, materialize_grads=True))
        for got, want in zip(*results, strict=True):
            torch.testing.assert_close(got, want)


def test_no_gradient_is_recorded_when_none_is_wanted() -> None:
    x, h = torch.randn(3, 2, 4, requires_grad=True), torch.randn(2)
    assert ops.read(x.detach(), h).grad_fn is None
    with torch.no_grad():
        assert ops.read(x, h).grad_fn is None
    with torch.inference_mode():
        assert ops.read(x, h).grad_fn is None
    assert ops.read(x, h).grad_fn is not None
    assert not ops.stream_stats(x, h_pre=h).requires_grad


def test_what_is_kept_for_backward() -> None:
    """The identity mix keeps no streams, copies no hidden states, and boundary x and y alone."""

    def kept(make) -> int:
        storages = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            make()
        return sum(storages.values())

    x, y = torch.randn(50, 4, 32, requires_grad=True), torch.randn(50, 32, requires_grad=True)
    h_post = torch.randn(50, 4)
    small = 4 * (50 * 4 + 32)
    assert kept(lambda: ops.mix_write(x, y, None, h_post)) == 4 * y.numel() + small
    assert kept(lambda: ops.expand(y, 4)) == 4 * 32
    assert kept(lambda: ops.reduce(x)) == 4 * 32
    assert kept(lambda: ops.read(x, h_post)) == 4 * (x.numel() + 50 * 4)
    h_res, alpha = torch.randn(50, 4, 4), torch.ones(3)
    phi, bias = torch.randn(24, 128), torch.randn(24)
    parameters = phi.numel() + alpha.numel() + bias.numel()
    coefficients = 50 * (16 + 4) + 50 * (24 + 1 + 4)  # of the write; logits, inv_rms and h_pre
    assert kept(
        lambda: ops.boundary(x, y, h_res, h_post, phi, None, alpha, bias, n_streams=4)
    ) == 4 * (x.numel() + y.numel() + coefficients + parameters)
