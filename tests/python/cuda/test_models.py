"""Sites and models on a GPU, beside the CPU and float64."""

from __future__ import annotations

import copy

import hyperstreams as hs
import pytest
import torch
from connection_cases import depth
from hyperstreams import nn as hnn
from torch import Tensor, nn

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

N, C = 4, 96


def scramble(module: nn.Module) -> None:
    """Random controllers, so that every path carries gradient."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, hnn.Connection):
                for parameter in part.parameters():
                    parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def model_of(connection: str) -> hs.GPT:
    config = hs.GPTConfig(
        vocab_size=50,
        block_size=24,
        n_layer=depth(connection, 2),
        n_head=2,
        width=32,
        connection=connection,
    )
    made = hs.GPT(config, generator=torch.Generator().manual_seed(3))
    scramble(made)
    return made


def loss_and_gradients(model: nn.Module, tokens: Tensor) -> list[Tensor]:
    loss = model(tokens, tokens.roll(1, 1))[1]
    loss.backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    return [loss.detach(), *grads]


@pytest.mark.parametrize("connection", sorted(hnn.CONNECTIONS))
def test_loss_and_gradients_are_as_near_to_float64_as_on_the_cpu(connection: str) -> None:
    tokens = torch.randint(50, (3, 24), generator=torch.Generator().manual_seed(1))
    model = model_of(connection)
    exact = loss_and_gradients(copy.deepcopy(model).double(), tokens)
    on_cpu = loss_and_gradients(copy.deepcopy(model), tokens)
    on_gpu = loss_and_gradients(copy.deepcopy(model).cuda(), tokens.cuda())
    for k, want in enumerate(exact):
        scale = float(want.norm())
        allowed = 4 * float((on_cpu[k].double() - want).norm()) + 1e-5 * scale + 1e-7
        assert float((on_gpu[k].cpu().double() - want).norm()) <= allowed, k


def sites_of(connection: str) -> nn.ModuleList:
    torch.manual_seed(1)
    sites = nn.ModuleList(
        hnn.HyperConnection(
            nn.Sequential(nn.LayerNorm(C), nn.Linear(C, C)),
            connection=connection,
            n_streams=N,
            width=C,
            site_index=k,
        )
        for k in range(3)
    )
    scramble(sites)
    return sites.cuda()


def through(sites: nn.ModuleList, x: Tensor) -> Tensor:
    state = hnn.Streams(x)
    for site in sites:
        state = site(state)
    return state.tensor


def streams(seed: int = 2) -> Tensor:
    return torch.randn(2, 130, N, C, generator=torch.Generator().manual_seed(seed)).cuda()


def results(sites: nn.ModuleList, x: Tensor) -> list[Tensor]:
    leaves = [x.detach().requires_grad_(), *sites.parameters()]
    out = through(sites, leaves[0])
    return [out.detach(), *torch.autograd.grad(out.sin().sum(), leaves)]


@pytest.mark.parametrize("connection", ["mhc_lite", "mhc", "hc", "hc_static", "identity"])
def test_sites_replay_from_a_graph(connection: str) -> None:
    sites, x = sites_of(connection), streams()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        results(sites, x)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = results(sites, x)
    x.copy_(streams(3))
    graph.replay()
    torch.cuda.synchronize()
    for a, b in zip(captured, results(sites, x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("connection", ["mhc_lite", "mhc", "hc"])
def test_autocast_trains(connection: str) -> None:
    """Five steps under bf16 autocast: the loss goes down, and stays finite."""
    tokens = torch.randint(50, (3, 24), generator=torch.Generator().manual_seed(1)).cuda()
    model = model_of(connection).cuda()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(5):
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(tokens, tokens.roll(1, 1))[1]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_compiles_to_one_graph() -> None:
    sites, x = sites_of("mhc_lite"), streams()
    compiled = torch.compile(through, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(sites, x), through(sites, x))


def test_the_probe_sees_what_it_sees_on_the_cpu() -> None:
    tokens = torch.randint(50, (3, 24), generator=torch.Generator().manual_seed(1))
    values = []
    for device in ("cpu", "cuda"):
        model = model_of("mhc_lite").to(device)
        with hs.Probe(model, every=1) as probe:
            model(tokens.to(device), tokens.roll(1, 1).to(device))
            values.append(probe.scalars(step=0))
    assert values[0].keys() == values[1].keys()
    for name, value in values[0].items():
        assert values[1][name] == pytest.approx(value, rel=1e-3, abs=1e-4, nan_ok=True), name
