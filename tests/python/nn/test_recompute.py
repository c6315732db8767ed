"""Streams kept once per group of sites: the same bits, less memory, worded errors."""

from __future__ import annotations

import threading

import hyperstreams as hs
import pytest
import torch
from hyperstreams import nn as hnn
from hyperstreams import ops
from hyperstreams.nn.replay import ACTIVE
from torch import Tensor, nn

N, WIDTH, SITES = 4, 32, 9


class Model(nn.Module):
    """Sites of one connection, far from their initial values."""

    def __init__(self, connection: str = "mhc_lite", sites: int = SITES) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        torch.manual_seed(0)  # the branches' own weights
        self.expand = hnn.ExpandStreams(n_streams=N, width=WIDTH)
        self.sites = nn.ModuleList(
            hnn.HyperConnection(
                nn.Linear(WIDTH, WIDTH),
                connection=connection,
                n_streams=N,
                width=WIDTH,
                site_index=k,
            )
            for k in range(sites)
        )
        self.reduce = hnn.ReduceStreams(n_streams=N, width=WIDTH)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))

    def forward(self, h: Tensor) -> Tensor:
        x = self.expand(h)
        for site in self.sites:
            x = site(x)
        return self.reduce(x)


def hidden(tokens: int = 40, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, tokens, WIDTH, generator=generator).to(dtype)


def gradients(model: nn.Module, h: Tensor, group_size: object) -> list[Tensor]:
    h = h.clone().requires_grad_()
    if group_size is None:
        loss = model(h).sin().sum()
    else:
        with hs.recompute(group_size):
            loss = model(h).sin().sum()
    return list(torch.autograd.grad(loss, [h, *model.parameters()]))


@pytest.mark.parametrize("group_size", [1, 2, 3, 4, 20, "model"])
@pytest.mark.parametrize("connection", ["mhc_lite", "hc", "hc_static", "identity", "jpmhc"])
def test_gradients_have_the_same_bits(connection: str, group_size: object) -> None:
    model = Model(connection)
    want = gradients(model, hidden(), None)
    got = gradients(model, hidden(), model if group_size == "model" else group_size)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_half_precision_streams_and_the_reference() -> None:
    model = Model().bfloat16()
    want = gradients(model, hidden(dtype=torch.bfloat16), None)
    got = gradients(model, hidden(dtype=torch.bfloat16), 3)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
    with ops.backend("reference"):
        want = gradients(Model(), hidden(), None)
        with hs.recompute(3):
            h = hidden().requires_grad_()
            model = Model()
            loss = model(h).sin().sum()
    got = torch.autograd.grad(loss, [h, *model.parameters()])  # replayed by the reference too
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_a_gpt_inside_and_outside_the_block() -> None:
    config = hs.GPTConfig.preset("tiny", connection="mhc", n_layer=3, width=32, n_head=2)
    model = hs.GPT(config, generator=torch.Generator().manual_seed(0))
    tokens = torch.randint(256, (2, 17), generator=torch.Generator().manual_seed(2))
    found = []
    for group_size, inside in ((None, False), (model, True), (2, False)):
        model.zero_grad()
        if group_size is None:
            model(tokens[:, :-1], tokens[:, 1:])[1].backward()
        else:
            with hs.recompute(group_size):
                loss = model(tokens[:, :-1], tokens[:, 1:])[1]
                if inside:
                    loss.backward()
            if not inside:
                loss.backward()
        found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, found[0], strict=True))


def test_a_handle_used_twice_and_a_second_backward() -> None:
    model, h = Model(sites=3), hidden(5).requires_grad_()

    def loss() -> Tensor:
        x = model.sites[0](model.expand(h))
        middle = model.sites[1](x)
        left, right = model.sites[2](middle), model.sites[2](middle)
        return (model.reduce(left) * model.reduce(right).sin() + model.reduce(middle)).sum()

    want = torch.autograd.grad(loss(), h)[0]
    with hs.recompute(4):
        value = loss()
    for retain in (True, False):
        got = torch.autograd.grad(value, h, retain_graph=retain)[0]
        assert torch.equal(got, want)


def kept_streams(group_size: int | None) -> int:
    """Different full stream states that the graph of a forward holds on to."""
    model, h = Model(), hidden().requires_grad_()
    alive: dict[int, Tensor] = {}

    def pack(x: Tensor) -> Tensor:
        full = x.untyped_storage().nbytes() == 4 * x.numel()
        if x.shape[-2:] == (N, WIDTH) and x.dim() == 4 and full:
            alive[x.data_ptr()] = x
        return x

    if group_size is None:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            model(h)
        return len(alive)
    with hs.recompute(group_size):
        recorder = ACTIVE.recorder
        assert recorder is not None

        def pack_rest(x: Tensor) -> object:
            if recorder.find(x) is None:
                pack(x)
            return recorder.pack(x)

        with torch.autograd.graph.saved_tensors_hooks(pack_rest, recorder.unpack):
            model(h)
    return len(alive)


def test_the_graph_keeps_one_state_per_group() -> None:
    everything = kept_streams(None)
    assert everything == SITES
    assert kept_streams(1) == everything
    assert kept_streams(3) == 3
    assert kept_streams(20) == 1


def test_another_view_of_the_streams_is_kept_as_it_is() -> None:
    """Where n = C a transpose has the streams' address, shape and dtype."""
    site = hnn.HyperConnection(nn.Identity(), n_streams=4, width=4)
    h = torch.randn(5, 4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()

    def loss() -> Tensor:
        x = site(site(hnn.Streams(h))).x  # made from the first site's pending write
        return (x.mT * x.mT.sin()).cumsum(-1).sum()

    want = torch.autograd.grad(loss(), h)[0]
    with hs.recompute(3):
        value = loss()
    assert torch.equal(torch.autograd.grad(value, h)[0], want)


def test_group_size() -> None:
    assert hnn.recompute_group_size(24, 4) == 4
    assert hnn.recompute_group_size(1, 1) == 1
    with pytest.raises(ValueError, match="expected n_sites and n_streams >= 1, got 0, 4"):
        hnn.recompute_group_size(0, 4)


@pytest.mark.parametrize("group_size", [0, -1, 2.0, True, "all"])
def test_bad_group_sizes(group_size: object) -> None:
    with (
        pytest.raises(ValueError, match="recompute: group_size: expected a model or an int >= 1"),
        hs.recompute(group_size),
    ):
        pass


def test_models_without_sites_and_nesting() -> None:
    with (
        pytest.raises(ValueError, match="expected a model with hyper-connection sites"),
        hs.recompute(nn.Linear(2, 2)),
    ):
        pass
    with (
        hs.recompute(2),
        pytest.raises(RuntimeError, match="expected no open block"),
        hs.recompute(2),
    ):
        pass


class Remembers(nn.Module):
    """A branch whose output can be reached afterwards."""

    def forward(self, u: Tensor) -> Tensor:
        self.last = u * 2
        return self.last


@pytest.mark.parametrize("group_size", [1, 2, 3, 8])
@pytest.mark.parametrize("site", range(4))
def test_overwritten_branch_outputs_are_noticed(group_size: int, site: int) -> None:
    branch = Remembers()
    model = Model(sites=4)
    model.sites[site].branch = branch
    with hs.recompute(group_size):
        loss = model(hidden(5).requires_grad_()).sum()
    with torch.no_grad():
        branch.last.add_(1)
    with pytest.raises(RuntimeError, match="modified in place"):
        loss.backward()


@pytest.mark.parametrize("group_size", [1, 3])
def test_overwritten_first_streams_and_parameters_are_noticed(group_size: int) -> None:
    model = Model(sites=4)
    with hs.recompute(group_size):
        first = model.expand(hidden(5).requires_grad_())
        x = first
        for site in model.sites:
            x = site(x)
        loss = model.reduce(x).sum()
    with torch.no_grad():
        first.x.mul_(2)
    with pytest.raises(RuntimeError, match="modified in place"):
        loss.backward()
    with hs.recompute(group_size):
        loss = model(hidden(5)).sum()
    with torch.no_grad():
        model.sites[2].branch.weight.add_(1)
    with pytest.raises(RuntimeError, match="modified in place"):
        loss.backward()


def test_nothing_is_kept_once_the_graph_is_gone() -> None:
    model = Model()
    with hs.recompute(3):
        recorder = ACTIVE.recorder
        assert recorder is not None
        for _ in range(3):
            model(hidden().requires_grad_()).sum().backward()
            assert not recorder.known
        with torch.no_grad():
            x = model.expand(hidden())
            states = [x := site(x) for site in model.sites]
        assert len(states) == SITES
        assert not recorder.known


def test_saved_tensors_without_storage() -> None:
    class Sparse(nn.Module):
        def forward(self, u: Tensor) -> Tensor:
            return torch.sparse.mm(torch.eye(u.shape[0]).to_sparse(), u)

    site = hnn.HyperConnection(Sparse(), n_streams=N, width=WIDTH)
    h = torch.randn(6, N, WIDTH, generator=torch.Generator().manual_seed(0)).requires_grad_()
    want = torch.autograd.grad(site(site(hnn.Streams(h))).tensor.sin().sum(), h)[0]
    with hs.recompute(2):
        loss = site(site(hnn.Streams(h))).tensor.sin().sum()
    assert torch.equal(torch.autograd.grad(loss, h)[0], want)


def test_blocks_belong_to_their_thread() -> None:
    found: list[list[Tensor]] = []
    with hs.recompute(2):
        other = threading.Thread(
            target=lambda: found.append(gradients(Model(sites=3), hidden(5), 3))
        )
        other.start()
        other.join()
    want = gradients(Model(sites=3), hidden(5), None)
    assert all(torch.equal(a, b) for a, b in zip(found[0], want, strict=True))


def test_a_compiled_model_is_refused() -> None:
    model = torch.compile(Model(sites=2), backend="aot_eager", fullgraph=True)
    with hs.recompute(2), pytest.raises(Exception, match="recompute: expected an eager model"):
        model(hidden(3))
    model(hidden(3))  # outside of the block it compiles
