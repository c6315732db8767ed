"""The GPT model: seeds, statistics, casts, compilation, state, optimiser groups."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from connection_cases import depth, used
from hyperstreams import GPT, GPTConfig, ops
from hyperstreams import nn as hnn
from torch import Tensor, nn
from torch.nn import functional

CONNECTIONS = list(hnn.CONNECTIONS)
WITH_STREAMS = [name for name in CONNECTIONS if hnn.has_streams(name)]


def config(connection: str = "mhc_lite", **overrides: object) -> GPTConfig:
    sizes = {
        "n_layer": depth(connection, 2),
        "n_head": 2,
        "width": 16,
        "block_size": 12,
        "vocab_size": 32,
    }
    return GPTConfig(**{**sizes, "connection": connection, **overrides})  # type: ignore[arg-type]


def build(connection: str = "mhc_lite", seed: int = 0, **overrides: object) -> GPT:
    return GPT(config(connection, **overrides), generator=torch.Generator().manual_seed(seed))


def scramble(model: nn.Module) -> None:
    """Random connections, as after training."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, hnn.Connection):
                for parameter in module.parameters():
                    parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))


@pytest.fixture
def tokens() -> Tensor:
    return torch.randint(32, (3, 12), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("connection", CONNECTIONS)
def test_loss_at_the_start_and_gradients(connection: str, tokens: Tensor) -> None:
    model = build(connection)
    logits, loss = model(tokens, tokens.roll(1, 1))
    assert logits.shape == (3, 12, 32)
    torch.testing.assert_close(
        loss, functional.cross_entropy(logits.flatten(0, 1), tokens.roll(1, 1).flatten())
    )
    # Nearly uniform predictions at the start; four summed streams make the logits larger.
    assert abs(loss.item() - math.log(32)) < (0.1 if connection == "residual" else 0.8)
    loss.backward()
    missing = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []
    assert model(tokens)[1] is None


def test_ignored_targets(tokens: Tensor) -> None:
    targets = tokens.clone()
    targets[:, 6:] = -1
    model = build()
    logits, loss = model(tokens, targets)
    torch.testing.assert_close(
        loss, functional.cross_entropy(logits[:, :6].flatten(0, 1), tokens[:, :6].flatten())
    )


@pytest.mark.parametrize("connection", CONNECTIONS)
def test_one_seed_one_model(connection: str) -> None:
    before = torch.random.get_rng_state()
    options = used(connection, expand="learned_scale")
    first = build(connection, 3, **options).state_dict()
    second = build(connection, 3, **options).state_dict()
    other = build(connection, 4, **options).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["token_embedding.weight"], other["token_embedding.weight"])


def test_models_of_one_seed_share_everything_but_the_connection() -> None:
    """So that a comparison of connections starts from the same branches and designations."""
    plain = build("residual").state_dict()
    lite = build("mhc_lite").state_dict()
    scaled = build("mhc", expand="learned_scale").state_dict()
    for name, value in plain.items():
        if "branch" in name or "embedding" in name:
            assert torch.equal(value, lite[name])
            assert torch.equal(value, scaled[name])
    streams = [name for name in lite if name.endswith("designated_stream")]
    assert len(streams) == 4
    assert all(torch.equal(lite[name], scaled[name]) for name in streams)


def test_initial_scale_of_the_branches() -> None:
    model = build("residual", width=64, n_layer=8, output_std_factor=2.0)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            std = 0.02 / math.sqrt(16) * 2.0 if name.endswith("output") else 0.02
            assert module.weight.std().item() == pytest.approx(std, rel=0.05)
    assert model.token_embedding.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_hc_with_one_stream_is_the_residual_model(tokens: Tensor) -> None:
    assert torch.equal(build("hc", n_streams=1)(tokens)[0], build("residual")(tokens)[0])


def test_hc_starts_as_the_residual_model(tokens: Tensor) -> None:
    """Every stream is the Pre-Norm residual; four normalised ones are summed."""
    logits = build("hc", n_streams=4)(tokens)[0]
    torch.testing.assert_close(logits, 4 * build("residual")(tokens)[0])


@pytest.mark.parametrize("reduce", ["sum", "mean", "weighted"])
@pytest.mark.parametrize("final_norm", ["before_reduce", "after_reduce"])
def test_readouts(reduce: str, final_norm: str, tokens: Tensor) -> None:
    model = build("hc", reduce=reduce, final_norm=final_norm)
    plain = build("residual")(tokens)[0]
    factor = 1.0
    if final_norm == "before_reduce":
        factor = {"sum": 4.0, "mean": 1.0, "weighted": 4 * (0.5 + 1e-6)}[reduce]
    # The layer norm's eps is felt a little when the state is scaled before it.
    torch.testing.assert_close(model(tokens)[0], factor * plain, rtol=0.05, atol=1e-4)


@pytest.mark.parametrize("connection", WITH_STREAMS)
def test_stats_leave_everything_else_as_it_is(connection: str, tokens: Tensor) -> None:
    plain, collecting = build(connection), build(connection)
    scramble(plain)
    scramble(collecting)
    logits, loss = plain(tokens, tokens)
    loss.backward()
    same, same_loss, stats = collecting(tokens, tokens, collect_stats=True)
    same_loss.backward()
    assert torch.equal(logits, same)
    assert torch.equal(loss, same_loss)
    for (name, p), q in zip(plain.named_parameters(), collecting.parameters(), strict=True):
        if p.requires_grad:
            assert torch.equal(p.grad, q.grad), name
    assert stats.shape == (len(plain.site_names) + 1, ops.stream_stats_size(4))
    assert stats.dtype == torch.float64
    assert not stats.requires_grad
    fields = ops.unpack_stream_stats(stats, 4)
    assert fields["count"].tolist() == [tokens.numel()] * 5
    assert torch.all(fields["norm"][1:, :4] > 0)
    # The last row is the state that is read out: it has no coefficients.
    assert fields["h_pre"][:-1].abs().sum(-1).all()
    assert not fields["h_pre"][-1].any()


def test_stats_at_the_start(tokens: Tensor) -> None:
    fields = ops.unpack_stream_stats(build()(tokens, collect_stats=True)[2], 4)
    share = fields["read_share"][:4] / fields["count"][:4, None]
    torch.testing.assert_close(
        share.amax(1), torch.full((4,), 0.475, dtype=share.dtype), atol=1e-3, rtol=0
    )
    cosine = fields["cosine"] / fields["count"][:, None, None]
    torch.testing.assert_close(cosine[0], torch.ones(4, 4, dtype=torch.float64))


def test_stats_need_streams(tokens: Tensor) -> None:
    with pytest.raises(ValueError, match="collect_stats: expected a connection with streams"):
        build("residual")(tokens, collect_stats=True)


@pytest.mark.parametrize("connection", ["residual", "hc", "mhc_lite"])
def test_compiles_into_one_graph(connection: str, tokens: Tensor) -> None:
    model = build(connection, n_layer=1, n_streams=2)
    scramble(model)
    collect = connection != "residual"
    torch.compiler.reset()  # Graphs of other tests count towards the limit of recompilations.
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    outputs = compiled(tokens, tokens, collect_stats=collect)
    for actual, expected in zip(outputs, model(tokens, tokens, collect_stats=collect), strict=True):
        torch.testing.assert_close(actual, expected)
    outputs[1].backward()


@pytest.mark.parametrize("connection", CONNECTIONS)
def test_state_saves_with_safetensors(connection: str, tokens: Tensor) -> None:
    safetensors = pytest.importorskip("safetensors.torch", reason="extra 'train' is not installed")
    model = build(connection, **used(connection, expand="learned_scale"))
    scramble(model)
    loaded = GPT(model.config, device="meta")
    loaded.load_state_dict(safetensors.load(safetensors.save(model.state_dict())), assign=True)
    assert torch.equal(loaded(tokens)[0], model(tokens)[0])
    assert torch.equal(copy.deepcopy(model)(tokens)[0], model(tokens)[0])


def test_meta_device_then_reset(tokens: Tensor) -> None:
    model = GPT(config("hc"), device="meta")
    assert all(p.is_meta for p in model.parameters())
    model.to_empty(device="cpu")
    model.reset_parameters(generator=torch.Generator().manual_seed(0))
    assert torch.equal(model(tokens)[0], build("hc")(tokens)[0])


@pytest.mark.parametrize("connection", ["hc", "mhc_lite"])
def test_low_precision(connection: str, tokens: Tensor) -> None:
    model = build(connection).bfloat16()
    factory = GPT(model.config, generator=torch.Generator().manual_seed(0), dtype=torch.bfloat16)
    for name, parameter in model.named_parameters():
        expected = torch.float32 if ".connection." in name else torch.bfloat16
        assert parameter.dtype == expected, name
        assert torch.equal(parameter, factory.get_parameter(name)), name
    logits, loss = model(tokens, tokens)
    assert logits.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    loss.backward()
    torch.testing.assert_close(logits.float(), build(connection)(tokens)[0], rtol=0.1, atol=0.1)


def test_autocast(tokens: Tensor) -> None:
    model = build()
    scramble(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, loss, stats = model(tokens, tokens, collect_stats=True)
    loss.backward()
    torch.testing.assert_close(logits.float(), model(tokens)[0], rtol=0.1, atol=0.05)
    assert stats.dtype == torch.float64
    assert all(p.grad is not None and p.grad.dtype == p.dtype for p in model.parameters())


def test_one_owner_per_parameter() -> None:
    model = build(expand="learned_scale", reduce="weighted")
    state = model.state_dict()
    assert len({value.data_ptr() for value in state.values()}) == len(state)
    assert model.site_names == ["L0a", "L0m", "L1a", "L1m"]
    assert "sites.L0a.connection.phi" in state
    assert "sites.L1m.branch.hidden.weight" in state
    assert [int(state[f"sites.{n}.connection.designated_stream"]) for n in model.site_names]


def test_dropout_is_off_in_evaluation(tokens: Tensor) -> None:
    model = build(dropout=0.5)
    torch.manual_seed(0)
    assert not torch.equal(model(tokens)[0], model(tokens)[0])
    model.eval()
    assert torch.equal(model(tokens)[0], model(tokens)[0])
    assert torch.equal(model(tokens)[0], build()(tokens)[0])


def test_too_many_tokens() -> None:
    with pytest.raises(ValueError, match="at most block_size=12 positions, got 13"):
        build()(torch.zeros(1, 13, dtype=torch.int64))
