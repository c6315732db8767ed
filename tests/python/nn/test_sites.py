"""Sites as PyTorch modules: calling conventions, casts, copies, compilation, checkpointing."""

from __future__ import annotations

import copy
import io
from functools import partial

import pytest
import torch
from hyperstreams import nn as hnn
from hyperstreams import ops
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

N, C = 3, 8
DYNAMIC = ["hc", "mhc", "mhc_lite", "identity"]
ALL = [*DYNAMIC, "hc_static"]


def branch() -> nn.Module:
    return nn.Sequential(nn.LayerNorm(C), nn.Linear(C, C), nn.Tanh())


def make(
    connection: str = "mhc_lite", inner: nn.Module | None = None, k: int = 0
) -> hnn.HyperConnection:
    return hnn.HyperConnection(
        inner or branch(), connection=connection, n_streams=N, width=C, site_index=k
    )


def scramble(module: nn.Module, seed: int = 0) -> None:
    """Random controllers, so that every path carries gradient."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))


def stack(connection: str, depth: int = 3) -> nn.ModuleList:
    torch.manual_seed(1)
    sites = nn.ModuleList(make(connection, k=k) for k in range(depth))
    scramble(sites)
    return sites


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 5, N, C, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("connection", ALL)
def test_streams_and_plain_tensors_agree(connection: str, x: Tensor) -> None:
    sites = stack(connection)
    plain, streams = x, hnn.Streams(x)
    for site in sites:
        plain, streams = site(plain), site(streams)
        assert type(plain) is Tensor
        assert isinstance(streams, hnn.Streams)
        assert streams.y is not None
    assert torch.equal(streams.tensor, plain)
    assert (streams.n_streams, streams.width) == (N, C)
    # Using a handle twice is correct.
    assert torch.equal(streams.tensor, plain)
    assert torch.equal(sites[0](streams).tensor, sites[0](plain))


@pytest.mark.parametrize("connection", ["hc", "mhc_lite", "identity"])
def test_gradients_of_streams_and_plain_tensors_agree(connection: str, x: Tensor) -> None:
    gradients = []
    for start in (x, hnn.Streams(x)):
        sites = stack(connection)
        state = start
        for site in sites:
            state = site(state)
        (state.tensor if isinstance(state, hnn.Streams) else state).square().sum().backward()
        gradients.append({name: p.grad for name, p in sites.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient is not None, name
        torch.testing.assert_close(gradient, gradients[1][name])


@pytest.mark.parametrize("connection", ALL)
def test_use_without_a_branch(connection: str, x: Tensor) -> None:
    site = make(connection)
    scramble(site)
    bare = make(connection)
    bare.branch = None
    bare.connection.load_state_dict(site.connection.state_dict())
    u, write = bare(x)
    assert torch.equal(write(site.branch(u)), site(x))
    u, write = bare(hnn.Streams(x))
    streams = write(site.branch(u))
    assert isinstance(streams, hnn.Streams)
    assert torch.equal(streams.tensor, site(x))
    with pytest.raises(TypeError, match="there is no branch"):
        bare(x, 1)


def test_branch_arguments_are_passed_on(x: Tensor) -> None:
    def scaled(u: Tensor, factor: float, *, shift: float) -> Tensor:
        return factor * u + shift

    site = hnn.HyperConnection(scaled, connection="hc", n_streams=N, width=C, site_index=0)
    reference = hnn.HyperConnection(
        partial(scaled, factor=2.0, shift=1.0), connection="hc", n_streams=N, width=C, site_index=0
    )
    assert torch.equal(site(x, 2.0, shift=1.0), reference(x))
    h = x[..., 0, :]
    assert torch.equal(hnn.Residual(scaled)(h, 2.0, shift=1.0), h + scaled(h, 2.0, shift=1.0))


def test_wraps_the_sublayers_of_a_transformer_layer(x: Tensor) -> None:
    """PyTorch's own layer, taken apart: with HC at its start it computes the same function."""
    layer = nn.TransformerEncoderLayer(C, 2, 16, dropout=0.0, batch_first=True, norm_first=True)
    layer.train()

    def attention(u: Tensor) -> Tensor:
        v = layer.norm1(u)
        return layer.self_attn(v, v, v, need_weights=False)[0]

    def mlp(u: Tensor) -> Tensor:
        return layer.linear2(layer.activation(layer.linear1(layer.norm2(u))))

    h = x[..., 0, :]
    streams = hnn.ExpandStreams(n_streams=N, width=C)(h)
    for k, sublayer in enumerate((attention, mlp)):
        site = hnn.HyperConnection(sublayer, connection="hc", n_streams=N, width=C, site_index=k)
        streams = site(streams)
    h_out = hnn.ReduceStreams(n_streams=N, width=C, scheme="mean")(streams)
    torch.testing.assert_close(h_out, layer(h))


def test_stats_rows_follow_the_sites(x: Tensor) -> None:
    sites = stack("mhc")
    streams = hnn.Streams(x, stats=torch.zeros(0, ops.stream_stats_size(N), dtype=torch.float64))
    plain = hnn.Streams(x)
    for k, site in enumerate(sites):
        before = streams.tensor
        streams, plain = site(streams), site(plain)
        assert streams.stats is not None
        assert streams.stats.shape == (k + 1, ops.stream_stats_size(N))
        state, u, h_pre, h_post, h_res = site.connection(before)
        expected = ops.stream_stats(state, site.branch(u), h_pre=h_pre, h_post=h_post, h_res=h_res)
        torch.testing.assert_close(streams.stats[k], expected)
    assert plain.stats is None
    assert torch.equal(streams.tensor, plain.tensor)


@pytest.mark.parametrize("cast", ["bfloat16", "half"])
@pytest.mark.parametrize("connection", ALL)
def test_casts_leave_coefficients_in_float32(connection: str, cast: str, x: Tensor) -> None:
    model = nn.ModuleDict({"site": make(connection)})
    values = copy.deepcopy(model["site"].connection.state_dict())
    getattr(model, cast)()
    dtype = getattr(torch, {"half": "float16"}.get(cast, cast))
    connection_state = model["site"].connection.state_dict()
    for name, value in values.items():
        assert torch.equal(connection_state[name], value)
        assert connection_state[name].dtype == value.dtype
    assert {p.dtype for p in model["site"].branch.parameters()} == {dtype}
    seen: list[torch.dtype] = []
    model["site"].branch.register_forward_pre_hook(lambda _, args: seen.append(args[0].dtype))
    out = model["site"](hnn.Streams(x.to(dtype)))
    assert seen == [dtype]
    assert out.tensor.dtype == dtype
    assert out.h_post.dtype == torch.float32
    model.to(torch.float32)
    assert model["site"].branch[1].weight.dtype == torch.float32


def test_other_casts_work_as_usual(x: Tensor) -> None:
    site = make("mhc").double()
    assert {p.dtype for p in site.parameters()} == {torch.float64}
    assert site(x.double()).dtype == torch.float64
    assert {p.dtype for p in site.float().parameters()} == {torch.float32}
    low = hnn.Connection(connection="hc", n_streams=N, width=C, site_index=0, dtype=torch.bfloat16)
    assert low.bias.dtype == torch.float32


@pytest.mark.parametrize("connection", DYNAMIC)
def test_autocast_keeps_coefficients_in_float32(connection: str, x: Tensor) -> None:
    site = make(connection)
    scramble(site)
    expected = site.connection(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = site.connection(x)
        streams = site(hnn.Streams(x))
        state = streams.tensor
    for value, reference in zip(actual, expected, strict=True):
        if reference is not None:
            assert value.dtype == torch.float32
            assert torch.equal(value, reference)
    assert streams.y is not None
    assert streams.y.dtype == torch.bfloat16
    assert state.dtype == torch.float32


@pytest.mark.parametrize("connection", ALL)
def test_meta_device(connection: str, x: Tensor) -> None:
    built = make(connection, k=2)
    built.reset_parameters(generator=torch.Generator().manual_seed(4))
    options = {"connection": connection, "n_streams": N, "width": C, "site_index": 2}
    shadow = hnn.HyperConnection(branch(), **options, device="meta")
    assert all(value.is_meta for value in shadow.connection.state_dict().values())
    shadow.connection.to_empty(device="cpu")
    shadow.reset_parameters(generator=torch.Generator().manual_seed(4))
    shadow.branch = built.branch
    assert torch.equal(shadow(x), built(x))
    # Loading a checkpoint completes a model as well, assigned or copied.
    scramble(built)
    for assign in (False, True):
        loaded = hnn.Connection(**options, device="meta")
        if not assign:
            loaded.to_empty(device="cpu")
        loaded.load_state_dict(built.connection.state_dict(), assign=assign)
        assert torch.equal(loaded(x)[1], built.connection(x)[1])


@pytest.mark.parametrize("connection", ["hc", "mhc_lite"])
def test_copies_and_pickles(connection: str, x: Tensor) -> None:
    site = make(connection)
    scramble(site)
    expected = site(x)
    assert torch.equal(copy.deepcopy(site)(x), expected)
    buffer = io.BytesIO()
    torch.save(site, buffer)
    buffer.seek(0)
    assert torch.equal(torch.load(buffer, weights_only=False)(x), expected)
    buffer = io.BytesIO()
    torch.save(site.state_dict(), buffer)
    buffer.seek(0)
    other = make(connection)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(other(x), expected)


def test_state_names() -> None:
    site = make("mhc")
    names = {name for name in site.state_dict() if not name.startswith("branch.")}
    assert names == {
        f"connection.{name}"
        for name in ("phi", "alpha", "bias", "norm_weight", "designated_stream")
    }
    assert set(make("hc_static").connection.state_dict()) == {"bias", "designated_stream"}


def test_repr() -> None:
    assert "connection='mhc_lite', n_streams=3, width=8, site_index=0, designate='random'" in repr(
        make()
    )


def run(sites: nn.ModuleList, x: Tensor) -> Tensor:
    streams = hnn.Streams(x)
    for site in sites:
        streams = site(streams)
    return streams.tensor


@pytest.mark.parametrize("connection", ["hc", "mhc", "mhc_lite", "identity"])
def test_compiles_into_one_graph(connection: str, x: Tensor) -> None:
    sites = stack(connection, depth=2)
    compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(sites, x), run(sites, x))
    one = torch.compile(sites[0], backend="aot_eager", fullgraph=True)
    streams = one(hnn.Streams(x))
    assert isinstance(streams, hnn.Streams)
    torch.testing.assert_close(streams.tensor, sites[0](x))


@pytest.mark.parametrize("connection", ["hc", "mhc_lite"])
def test_checkpointing(connection: str, x: Tensor) -> None:
    gradients = []
    for recompute in (False, True):
        sites = stack(connection)
        start = x.clone().requires_grad_()
        streams = hnn.Streams(start)
        for site in sites:
            if recompute:
                streams = checkpoint(site, streams, use_reentrant=False)
            else:
                streams = site(streams)
        streams.tensor.square().sum().backward()
        gradients.append([start.grad, *(p.grad for p in sites.parameters())])
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.equal(plain, recomputed)


def test_backward_hooks_fire(x: Tensor) -> None:
    sites = stack("mhc_lite", depth=2)
    fired: list[str] = []
    sites[0].register_full_backward_hook(lambda *_: fired.append("site"))
    sites[0].connection.register_full_backward_hook(lambda *_: fired.append("connection"))
    # PyTorch looks for gradients of tensor arguments only and says so when it finds a tuple.
    with pytest.warns(UserWarning, match="no inputs require gradients"):
        run(sites, x.requires_grad_()).sum().backward()
    assert sorted(fired) == ["connection", "site"]


def test_export_of_a_site(x: Tensor) -> None:
    site = make("mhc_lite")
    program = torch.export.export(site, (hnn.Streams(x),))
    streams = program.module()(hnn.Streams(x))
    assert isinstance(streams, hnn.Streams)
    torch.testing.assert_close(streams.tensor, site(x))


def test_empty_batch() -> None:
    sites = stack("mhc_lite")
    assert run(sites, torch.zeros(0, 5, N, C)).shape == (0, 5, N, C)
