"""Which back end runs: settings, status, fallbacks, autocast, and what eager use imports."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from types import SimpleNamespace

import hyperstreams
import pytest
import torch
from hyperstreams import ops
from hyperstreams._library import LibraryStatus
from hyperstreams.ops import _backend
from op_cases import BUILDS, Maker
from op_judgement import DEVICE
from torch._subclasses.fake_tensor import FakeTensorMode

X, H = torch.randn(3, 4, 8), torch.randn(3, 4)


def run_python(code: str, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return result.stdout.strip()


def test_status() -> None:
    status = hyperstreams.backend_status()
    assert status.backend == "auto"
    assert status.cpu == "loaded"
    assert status.cpu_isa in ("base", "avx2", "avx512")
    assert all("cpu" in devices for devices in status.ops.values())
    assert set(status.ops) == set(_backend.STEMS)
    if torch.version.cuda is None:
        assert "CPU build" in status.cuda


def test_set_and_restore() -> None:
    with ops.backend("reference"):
        assert hyperstreams.backend_status().backend == "reference"
        with pytest.raises(ValueError), ops.backend("fused"):
            ops.read(X, X)
        assert hyperstreams.backend_status().backend == "reference"
    assert hyperstreams.backend_status().backend == "auto"
    hyperstreams.set_backend("fused")
    assert hyperstreams.backend_status().backend == "fused"
    hyperstreams.set_backend("auto")
    with pytest.raises(ValueError, match=r"set_backend: backend: .* got 'fast'"):
        hyperstreams.set_backend("fast")


def test_back_ends_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference backend really runs the reference, and the fused one does not."""
    from hyperstreams.ops import reference

    calls = []
    original = reference.read
    monkeypatch.setattr(reference, "read", lambda *a: calls.append(a) or original(*a))
    ops.read(X, H)
    assert calls == []
    with ops.backend("reference"):
        ops.read(X, H)
    assert len(calls) == 1


@pytest.fixture
def no_read_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_backend._FUSED, "read", frozenset())
    monkeypatch.setattr(_backend._SETTINGS, "fallbacks", {})


def test_fallback_warns_once(no_read_kernel: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HYPERSTREAMS_REQUIRE_FUSED")
    with pytest.warns(RuntimeWarning, match="read: running the slower PyTorch reference") as caught:
        ops.read(X, H)
    assert caught[0].filename == __file__
    ops.read(X, H)
    assert "read on cpu" in hyperstreams.backend_status().fallbacks


def test_fallback_while_compiling(no_read_kernel: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HYPERSTREAMS_REQUIRE_FUSED")
    compiled = torch.compile(lambda x, h: ops.read(x, h) + 1, fullgraph=True, backend="eager")
    with pytest.warns(RuntimeWarning, match="read: running the slower PyTorch reference"):
        got = compiled(X, H)
    torch.testing.assert_close(got, (H.unsqueeze(-2) @ X).squeeze(-2) + 1)


def test_fallback_is_an_error_when_fused_is_required(
    no_read_kernel: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RuntimeError, match=r"read: cannot run fused on cpu.*REQUIRE_FUSED=1"):
        ops.read(X, H)
    with ops.backend("reference"):
        ops.read(X, H)  # asked for, so no fallback
    monkeypatch.setenv("HYPERSTREAMS_REQUIRE_FUSED", "0")
    with ops.backend("fused"), pytest.raises(RuntimeError, match="the backend is 'fused'"):
        ops.read(X, H)


@pytest.mark.parametrize(
    ("archs", "capability", "runs"),
    [
        ("80-real 90-real", (8, 0), True),
        ("80-real 90-real", (8, 9), True),
        ("80-real 90-real", (7, 5), False),
        ("89-real", (8, 6), False),
        ("90-real", (10, 0), False),
        ("90", (10, 0), True),
        ("90-virtual", (12, 0), True),
        ("90-virtual", (8, 9), False),
        ("90a", (9, 0), True),
        ("90a", (10, 0), False),
        ("100f-real", (10, 3), True),
        ("100f", (12, 0), False),
        ("80-real 90-real 100-real 120", (12, 1), True),
        ("", (9, 0), False),
    ],
)
def test_architectures_that_code_runs_on(
    archs: str, capability: tuple[int, int], runs: bool
) -> None:
    assert _backend._runs_on(archs, capability) == runs


@pytest.fixture
def cuda_library(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[int, int]]:
    """A CUDA library for sm_90, and a GPU of the capability in the dict, without either."""
    device = {"capability": (9, 0)}
    loaded = LibraryStatus(True, "_C_cuda.so", "")
    raw = SimpleNamespace(hyperstreams=SimpleNamespace(_cuda_archs=lambda: "80-real 90-real"))
    cuda = SimpleNamespace(
        is_available=lambda: True,
        get_device_capability=lambda index: device["capability"],
        get_device_name=lambda index: f"GPU number {index}",
    )
    everywhere = {stem: frozenset({"cpu", "cuda", "meta"}) for stem in _backend.STEMS}
    monkeypatch.setattr(_backend, "CUDA_LIBRARY", loaded)
    monkeypatch.setattr(_backend, "_FUSED", everywhere)
    monkeypatch.setattr(_backend, "_CUDA_OBSTACLES", {})
    monkeypatch.setattr(
        _backend, "torch", SimpleNamespace(float64=torch.float64, ops=raw, cuda=cuda)
    )
    monkeypatch.setattr(_backend._SETTINGS, "fallbacks", {})
    monkeypatch.delenv("HYPERSTREAMS_REQUIRE_FUSED")
    return device


def on_cuda(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """What the choice of a back end sees of a tensor on a GPU."""
    with FakeTensorMode():
        return torch.empty(shape, dtype=dtype, device="cuda")


def test_cuda_float64_takes_the_reference(cuda_library: dict) -> None:
    x, y = on_cuda(3, 4, 8), on_cuda(3, 8)
    assert _backend.use_fused("mix_write", x, y)
    assert _backend.use_fused("read", x)
    with pytest.warns(RuntimeWarning, match=r"no torch.float32 kernel .* beside a torch.float64 y"):
        assert not _backend.use_fused("mix_write", x, y.double())
    assert not _backend.has_kernels("boundary", x, y.double())
    with pytest.warns(RuntimeWarning, match="no torch.float64 kernel for it"):
        assert not _backend.use_fused("stream_stats", x.double(), y.double())
    assert set(_backend._SETTINGS.fallbacks) == {"mix_write on cuda", "stream_stats on cuda"}


@pytest.mark.parametrize("op", [ops.mix_write, ops.boundary, ops.stream_stats])
def test_ops_ask_about_the_branch_too(op, cuda_library: dict, monkeypatch) -> None:
    """The public ops pass y on to the choice; the reference then runs on what they were given."""
    monkeypatch.setattr(_backend._SETTINGS, "backend", "fused")
    x, y, h = on_cuda(3, 4, 8), on_cuda(3, 8, dtype=torch.float64), on_cuda(3, 4)
    arguments = {
        ops.mix_write: (x, y, None, h),
        ops.boundary: (x, y, None, h, on_cuda(24, 32), None, on_cuda(3), on_cuda(24)),
        ops.stream_stats: (x, y),
    }[op]
    options = {"n_streams": 4} if op is ops.boundary else {}
    with pytest.raises(RuntimeError, match=r"cannot run fused on cuda: .* beside a torch.float64"):
        op(*arguments, **options)


def test_a_gpu_without_code_takes_the_reference(
    cuda_library: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda_library["capability"] = (7, 5)
    x = on_cuda(3, 4, 8)
    with pytest.warns(RuntimeWarning, match=r"read: .* on cuda:0: .* no code for GPU number 0"):
        assert not _backend.use_fused("read", x)
    assert not _backend.use_fused("read", x)  # silently: it was said
    assert _backend._SETTINGS.fallbacks["read on cuda:0"] == (
        "the cuda library has no code for GPU number 0, compute capability 7.5 "
        "(it has 80-real 90-real)"
    )
    monkeypatch.setenv("HYPERSTREAMS_REQUIRE_FUSED", "1")
    with pytest.raises(RuntimeError, match=r"read: cannot run fused on cuda:0: .* 7.5 .*=1"):
        _backend.use_fused("read", x)


def test_environment() -> None:
    code = "import hyperstreams; print(hyperstreams.backend_status().backend)"
    assert run_python(code, HYPERSTREAMS_BACKEND="reference") == "reference"
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run_python(code, HYPERSTREAMS_BACKEND="fastest")
    assert "HYPERSTREAMS_BACKEND: expected 'auto'" in caught.value.stderr


def test_without_the_library() -> None:
    """A missing library: the reference, one warning, and the reason."""
    code = """
import importlib.util, warnings
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name.endswith("._C") else find(name, *a)
import torch, hyperstreams
from hyperstreams import ops
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    x = torch.ones(2, 4, 8, requires_grad=True)
    for _ in range(2):
        ops.read(x, torch.ones(4)).sum().backward()
print(len(caught), caught[0].message, x.grad.sum().item(), hyperstreams.backend_status().cpu)
"""
    out = run_python(code, HYPERSTREAMS_REQUIRE_FUSED="0")
    assert out.startswith("1 read: running the slower PyTorch reference on cpu: _C was not built")
    assert out.endswith("128.0 _C was not built")


def test_eager_use_imports_neither_triton_nor_the_compiler() -> None:
    code = """
import sys
sys.modules["triton"] = None
import torch
from hyperstreams import ops
x = torch.randn(3, 4, 8, requires_grad=True)
phi, alpha, bias = torch.randn(24, 32), torch.ones(3), torch.zeros(24)
x2, u, h_pre, h_post, h_res = ops.boundary(
    x, None, None, None, phi, None, alpha, bias, n_streams=4, mixer="sinkhorn")
ops.reduce(ops.mix_write(x2, u, h_res, h_post)).sum().backward()
ops.stream_stats(x)
print(sorted(name for name in sys.modules if name in ("torch._inductor", "torch._dynamo")))
"""
    assert run_python(code) == "[]"


@pytest.mark.parametrize("backend", ["fused", "reference"])
@pytest.mark.parametrize("name", BUILDS)
def test_autocast_changes_nothing(name: str, backend: ops.Backend) -> None:
    case = BUILDS[name](Maker(31, torch.float32), 4, 12, (7,), False)
    leaves = tuple(None if v is None else v.clone().requires_grad_() for v in case.tensors)
    present = [v for v in leaves if v is not None]

    def results(create_graph: bool, autocast: bool) -> list[torch.Tensor]:
        with torch.autocast(DEVICE, torch.bfloat16, enabled=autocast):
            outputs = case.outputs(leaves, backend)
            total = sum(o.sin().sum() for o in outputs)
        # PyTorch's own backward follows the autocast around it; the ops' backward does not.
        with torch.autocast(DEVICE, torch.bfloat16, enabled=autocast and backend == "fused"):
            grads = torch.autograd.grad(total, present, create_graph=create_graph)
        return [*outputs, *grads]

    for create_graph in (False, True):
        want = results(create_graph, autocast=False)
        got = results(create_graph, autocast=True)
        for a, b in zip(got, want, strict=True):
            assert a.dtype == b.dtype
            assert torch.equal(a, b)


def test_autocast_with_a_half_precision_branch() -> None:
    x, h = torch.randn(3, 4, 8), torch.randn(3, 4)
    linear = torch.nn.Linear(8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        y = linear(ops.read(x, h))
        assert y.dtype == torch.bfloat16
        assert ops.mix_write(x, y, None, h).dtype == torch.float32


def test_warnings_stay_errors_here() -> None:
    """The suite's own rule, without which the fallback tests above would prove less."""
    with pytest.raises(UserWarning):
        warnings.warn("planted", UserWarning, stacklevel=1)
