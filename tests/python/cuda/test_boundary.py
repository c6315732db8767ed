"""boundary on a GPU: against float64, mix_write's bits, reruns, batches, graphs, errors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hyperstreams import ops
from hyperstreams.mixers import get_mixer
from torch import Tensor

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

BOUNDS = {torch.float32: 2e-4, torch.bfloat16: 2e-2, torch.float16: 3e-3}


@dataclass
class Case:
    """One call; `arguments` are the ten tensors of ``ops.boundary``, None where absent."""

    tokens: int
    n: int
    width: int
    dtype: torch.dtype
    mixer: str = "sinkhorn"
    write: bool = True
    static: bool = False
    weights: bool = False
    controller: bool = True
    per_stream: bool = False
    padding: int = 0

    def arguments(self) -> dict[str, Tensor | None]:
        generator = torch.Generator().manual_seed(self.tokens + self.n + self.width)

        def random(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator).cuda()

        tokens, n, width = self.tokens, self.n, self.width
        mixer = get_mixer(self.mixer)
        lead = () if self.static else (tokens,)
        features = width if self.per_stream else n * width
        logits = 2 + n if self.per_stream else 2 * n + mixer.logit_count(n)
        bias = 2 * n + mixer.logit_count(n)
        groups = 2 + len(mixer.group_sizes(n))
        x = random(tokens, n, width + self.padding).to(self.dtype)[..., self.padding :]
        return {
            "x": x,
            "y": random(tokens, width).to(self.dtype) if self.write else None,
            "h_res": random(*lead, n, n) if self.write else None,
            "h_post": random(*lead, n) if self.write else None,
            "phi": random(logits, features) / features**0.5 if self.controller else None,
            "norm_weight": random(features) if self.controller else None,
            "alpha": random(groups),
            "bias": random(bias),
            "write_bias": random(width) if self.write and self.static else None,
            "read_weights": random(*lead, n) if self.weights else None,
        }

    def results(self, arguments: dict[str, Tensor | None], backend: str) -> list[Tensor]:
        """Outputs, then the gradients of their sum under fixed weights."""
        leaves = {
            name: None if value is None else value.detach().requires_grad_()
            for name, value in arguments.items()
        }
        settings: dict[str, Any] = {"n_streams": self.n, "mixer": self.mixer, "eps": 1e-3}
        with ops.backend(backend):
            made = ops.boundary(**leaves, per_stream=self.per_stream, **settings)
        outputs = [out for out in made if out is not None and out.requires_grad]
        generator = torch.Generator().manual_seed(1)
        # The same numbers for float64 as for the streams' dtype.
        weights = [
            torch.randn(out.shape, generator=generator).to(self.dtype).to(out) for out in outputs
        ]
        given = [leaf for leaf in leaves.values() if leaf is not None]
        grads = torch.autograd.grad(outputs, given, weights, allow_unused=True)
        return [*[out for out in made if out is not None], *[g for g in grads if g is not None]]


def kinds(tokens: int, n: int, width: int, dtype: torch.dtype) -> list[Case]:
    plain = Case(tokens, n, width, dtype)
    return [
        plain,
        replace(plain, mixer="free", static=True, per_stream=True),
        replace(plain, write=False),
        replace(plain, weights=True, padding=8),
        replace(plain, controller=False, weights=True, static=True),
        replace(plain, mixer="identity", padding=1),
    ]


def check(case: Case) -> None:
    """Near to float64, and where terms cancel as near as the reference in the same dtype."""
    arguments = case.arguments()
    exact_arguments = {
        name: None if value is None else value.double() for name, value in arguments.items()
    }
    fused = case.results(arguments, "fused")
    eager = case.results(arguments, "reference")
    exact = case.results(exact_arguments, "reference")
    for actual, rounded, expected in zip(fused, eager, exact, strict=True):
        error = (actual.double() - expected).norm()
        allowed = BOUNDS[case.dtype] * expected.norm() + 1e-5
        allowed += 2 * (rounded.double() - expected).norm()
        assert error <= allowed, (case, actual.shape)


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
def test_agrees_with_float64(dtype: torch.dtype) -> None:
    for n in (1, 2, 3, 4, 5, 8):
        for tokens, width in [(1, 768), (19, 37), (700, 264), (2100, 1024)]:
            for case in kinds(tokens, n, width, dtype):
                check(case)


@pytest.mark.parametrize(
    "mixer", ["free", "sinkhorn", "permutation", "kronecker", "spectral", "circulant", "identity"]
)
def test_every_map_agrees_with_float64(mixer: str) -> None:
    for n in (2, 4):
        check(Case(300, n, 128, torch.float32, mixer=mixer))


def test_many_tokens_agree_with_float64() -> None:
    check(Case(20000, 4, 768, torch.bfloat16))
    check(Case(5000, 4, 2048, torch.bfloat16))


@pytest.mark.parametrize("n", [4, 8])
def test_state_has_the_bits_of_mix_write(n: int) -> None:
    for dtype in BOUNDS:
        a = Case(333, n, 768, dtype).arguments()
        made = ops.boundary(**a, n_streams=n)
        expected = ops.mix_write(a["x"], a["y"], a["h_res"], a["h_post"])
        assert torch.equal(made[0], expected)
        assert torch.equal(made[1], ops.read(expected, made[2]))


@pytest.mark.parametrize("static", [False, True])
def test_reruns_have_the_same_bits_on_any_stream(static: bool) -> None:
    case = Case(2500, 4, 768, torch.bfloat16, static=static)
    arguments = case.arguments()
    first = case.results(arguments, "fused")
    for _ in range(20):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            again = case.results(arguments, "fused")
        stream.synchronize()
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_tokens_do_not_depend_on_the_batch() -> None:
    arguments = Case(9000, 4, 768, torch.bfloat16).arguments()
    many = ops.boundary(**arguments, n_streams=4)
    per_token = ("x", "y", "h_res", "h_post")
    for tokens in (1, 30, 600):
        few = {
            name: value[:tokens] if name in per_token and value is not None else value
            for name, value in arguments.items()
        }
        made = ops.boundary(**few, n_streams=4)
        assert all(torch.equal(a[:tokens], b) for a, b in zip(many, made, strict=True))


def test_replays_from_a_graph() -> None:
    case = Case(65, 4, 256, torch.float32)
    arguments = case.arguments()
    expected = ops.boundary(**arguments, n_streams=4)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = ops.boundary(**arguments, n_streams=4)
    for tensor in captured:
        tensor.zero_()
    graph.replay()
    torch.cuda.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(expected, captured, strict=True))


def test_backend_status_names_the_device() -> None:
    assert "cuda" in ops.backend_status().ops["boundary"]


def test_mixed_devices_are_refused_in_words() -> None:
    arguments = Case(3, 4, 8, torch.float32).arguments()
    assert arguments["phi"] is not None
    arguments["phi"] = arguments["phi"].cpu()
    with pytest.raises((ValueError, RuntimeError), match="phi"):
        ops.boundary(**arguments, n_streams=4)
