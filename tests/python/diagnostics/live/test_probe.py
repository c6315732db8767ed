"""The probe changes nothing, counts every training forward once, and reads the model's numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import hyperstreams as hs
import pytest
import torch
from hyperstreams import diagnostics
from hyperstreams import nn as hnn
from hyperstreams.diagnostics import (
    QUANTITIES,
    DictSink,
    JsonlSink,
    TensorBoardSink,
    WandbSink,
    capture,
)
from hyperstreams.diagnostics.live.probe import COEFFICIENTS, TOKENS
from hyperstreams.diagnostics.live.quantities import needs_streams
from small_models import model_of as scrambled_model
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def model_of(connection: str = "mhc_lite", **overrides: Any) -> hs.GPT:
    sizes: dict[str, Any] = {"n_layer": 2, "n_head": 2, "width": 24, "block_size": 16}
    config = hs.GPTConfig(**{**sizes, "connection": connection, "expand": "noise", **overrides})
    return hs.GPT(config, generator=torch.Generator().manual_seed(3))


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    rows = torch.randint(0, 256, (2, 17), generator=torch.Generator().manual_seed(seed))
    return rows[:, :-1], rows[:, 1:]


def outputs(model: Any, *inputs: Tensor) -> list[Tensor]:
    logits, loss = model(*inputs)
    return [logits, loss, *torch.autograd.grad(loss, list(model.parameters()))]


def equal(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("what", [COEFFICIENTS, TOKENS, diagnostics.live.probe.STREAMS])
def test_outputs_and_gradients_keep_their_bits(what: tuple[str, ...]) -> None:
    model, inputs = model_of(), batch()
    plain = outputs(model, *inputs)
    with hs.Probe(model, every=2, what=what, dense=False) as probe:
        for step in range(4):
            assert equal(plain, outputs(model, *inputs))
            assert bool(probe.scalars(step)) is (step % 2 == 0)
    assert list(probe.samples) == [0, 2]
    assert equal(plain, outputs(model, *inputs))


def test_scalars_are_those_of_a_capture() -> None:
    model, inputs = model_of(), batch()
    with hs.Probe(model) as probe:
        model(*inputs)
        values = probe.scalars(0)
    expected = capture(model, [inputs])
    shares = diagnostics.quantity("write_share", expected)
    assert values["write_share/L1m/s2"] == pytest.approx(float(shares[3, 2]))
    norms = diagnostics.quantity("norm", expected)
    assert values["norm/readout/s1"] == pytest.approx(float(norms[-1, 1]))
    neff = diagnostics.quantity("read_effective_streams", expected)
    assert values["read_effective_streams/mean"] == pytest.approx(float(neff.mean()))
    assert values["write_persistence"] == float(diagnostics.metrics.persistence(shares))


def test_coefficients_alone_give_the_same_numbers_and_nan_for_the_streams() -> None:
    model, inputs = model_of(), batch()
    with hs.Probe(model, what=COEFFICIENTS) as probe:
        model(*inputs)
        values = probe.scalars(0)
    with hs.Probe(model) as full:
        model(*inputs)
        expected = full.scalars(0)
    assert values == {name: pytest.approx(expected[name]) for name in values}
    assert len(values) < len(expected)
    assert diagnostics.quantity("norm", probe.samples[0]).isnan().all()
    assert not diagnostics.quantity("norm", full.samples[0]).isnan().any()
    for name in TOKENS:
        seen = [diagnostics.quantity(name, each.samples[0]) for each in (probe, full)]
        assert torch.equal(*seen)
        assert seen[0].isfinite().all()


def test_the_level_of_coefficients_gives_every_quantity_that_needs_no_streams() -> None:
    model = scrambled_model().train()
    names = [name for name in QUANTITIES if not needs_streams(name)]
    samples = []
    for what in (names, None):
        with hs.Probe(model, what=what) as probe:
            model(*batch())
            probe.scalars(0)
        samples.append(probe.samples[0])
    alone, full = samples
    assert "write_signal_share" in names
    for name in names:
        values = diagnostics.quantity(name, alone)
        assert values.isfinite().all(), name
        torch.testing.assert_close(values, diagnostics.quantity(name, full), msg=name)
    for name in QUANTITIES.keys() - set(names):
        assert diagnostics.quantity(name, alone).isnan().all(), name


def test_captures_inside_a_probe_of_coefficients_are_whole() -> None:
    model, inputs = model_of(), batch()
    with hs.Probe(model, what=COEFFICIENTS):
        inside = capture(model, [inputs])
        with pytest.raises(RuntimeError, match="expected evaluation mode"):
            model(*inputs, collect_stats=True)
    assert torch.equal(inside.sums, capture(model, [inputs]).sums)


def test_gradient_accumulation_is_merged_and_evaluation_ignored() -> None:
    model = model_of()
    with hs.Probe(model) as probe:
        model(*batch(0))
        model(*batch(1))
        model.eval()
        model(*batch(2))
        model.train()
        probe.scalars(0)
    both = capture(model, [batch(0), batch(1)])
    assert probe.samples[0].tokens == both.tokens == 64
    assert torch.allclose(probe.samples[0].sums, both.sums, rtol=1e-6)


def test_coefficients_over_tokens_are_those_of_the_traced_tokens() -> None:
    model = scrambled_model().train()
    batches = [batch(0), (batch(1)[0][:, :5], batch(1)[1][:, :5])]
    with hs.Probe(model, what=TOKENS) as probe:
        for inputs in batches:
            model(*inputs)
        values = probe.scalars(0)
    assert probe.samples[0].sums[..., -1].isfinite().all()
    traces = [diagnostics.trace(model.eval(), *inputs) for inputs in batches]
    for side, name in (("read", "h_pre"), ("write", "h_post"), ("mixer", "h_res")):
        h = torch.cat([getattr(t, name).flatten(1, 2) for t in traces], dim=1).double()
        assert h.shape[1] == 2 * 16 + 2 * 5
        mean = "mean_mixer" if side == "mixer" else f"{side}_mean"
        for quantity, expected in (
            (mean, h.mean(dim=1)),
            (f"{side}_variance", h.var(dim=1, correction=0)),
            (f"{side}_min", h.amin(dim=1)),
            (f"{side}_max", h.amax(dim=1)),
        ):
            assert expected.std() > 1e-6, quantity
            found = diagnostics.quantity(quantity, probe.samples[0])
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-9, msg=quantity)
    assert values["write_variance/L1a/s2"] == float(
        diagnostics.quantity("write_variance", probe.samples[0])[2, 2]
    )
    assert probe.moments["write_variance/L1a/s2"].mean == values["write_variance/L1a/s2"]


class Checkpointed(torch.nn.Module):
    """A small model whose sites, or which as a whole, are recomputed in the backward pass."""

    def __init__(self, *, whole: bool) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.whole = whole
        self.expand = hnn.ExpandStreams(n_streams=3, width=8, scheme="noise", generator=generator)
        self.layers = torch.nn.ModuleList(
            hnn.HyperConnection(torch.nn.Linear(8, 8), n_streams=3, width=8, generator=generator)
            for _ in range(2)
        )
        self.reduce = hnn.ReduceStreams(n_streams=3, width=8)

    def run(self, h: Tensor) -> Tensor:
        x = self.expand(h)
        for layer in self.layers:
            x = layer(x) if self.whole else checkpoint(layer, x, use_reentrant=False)
        return self.reduce(x)

    def forward(self, h: Tensor) -> Tensor:
        return checkpoint(self.run, h, use_reentrant=False) if self.whole else self.run(h)


@pytest.mark.parametrize("whole", [False, True])
def test_a_recomputed_forward_counts_once(whole: bool) -> None:
    model, h = Checkpointed(whole=whole), torch.randn(2, 5, 8)
    with hs.Probe(model) as probe:
        model(h).square().sum().backward()
        probe.scalars(0)
    assert probe.samples[0].batches == 1
    assert probe.samples[0].tokens == 10
    assert probe.site_names == ("layers.0", "layers.1")


def test_compiled_models_have_one_graph_on_and_one_off() -> None:
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    model, inputs = model_of(n_layer=1), batch()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    expected = outputs(compiled, *inputs)
    with hs.Probe(compiled, every=2, dense=False) as probe:
        for step in range(4):
            assert equal(expected, outputs(compiled, *inputs))
            probe.scalars(step)
    assert equal(expected, outputs(compiled, *inputs))
    assert counter.frame_count == 2
    assert list(probe.samples) == [0, 2]
    with hs.Probe(model) as eager:
        model(*inputs)
        eager.scalars(0)
    assert torch.allclose(probe.samples[2].sums, eager.samples[0].sums, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("connection", "n"), [("altup", 4), ("residual_dual", 2), ("frac", 4), ("vwn", 4), ("xhc", 8)]
)
def test_states_of_baselines_with_several_streams(connection: str, n: int) -> None:
    streams = {"expand": "replicate", "n_streams": max(n, 4)}
    model, inputs = model_of(connection, **streams), batch()
    plain = outputs(model, *inputs)
    with hs.Probe(model) as probe:
        assert equal(plain, outputs(model, *inputs))
        values = probe.scalars(0)
    sample = probe.samples[0]
    assert sample.n_streams == n
    assert sample.tokens == 32
    assert not any(value != value for value in values.values())
    assert f"norm/L0m/s{n - 1}" in values
    assert f"norm/L0m/s{n}" not in values
    assert torch.equal(capture(model, [inputs]).mean("norm"), sample.mean("norm"))
    for name in ("write_share", *TOKENS):
        assert diagnostics.quantity(name, sample).isnan().all()
    with pytest.raises(ValueError, match="what: expected names of"):
        hs.Probe(model, what=("write_share",))


def test_streams_of_residual_dual_are_its_two_residuals() -> None:
    model, (tokens, targets) = model_of("residual_dual", expand="replicate"), batch()
    states = []
    for site in model.sites.values():
        site.register_forward_pre_hook(lambda module, inputs: states.append(inputs[0]))
    stats = model(tokens, targets, collect_stats=True)[2]
    norm = hs.ops.unpack_stream_stats(stats, 2)["norm"] / 32
    assert norm[2, 0].item() == pytest.approx(states[2].x.norm(dim=-1).mean().item(), rel=1e-5)
    assert norm[2, 1].item() == pytest.approx(states[2].d.norm(dim=-1).mean().item(), rel=1e-5)
    with pytest.raises(ValueError, match="expected a connection with streams, got 'denseformer'"):
        model_of("denseformer", expand="replicate")(tokens, collect_stats=True)


def test_steps() -> None:
    probe = hs.Probe(model_of(), every=100)
    assert [s for s in range(250) if probe.due(s)] == [0, 1, 2, 5, 10, 20, 50, 100, 200]
    with probe:
        probe.start(150)
        probe._expand.train()
        assert not probe._expand.collecting
        probe.start(200)
        assert probe._expand.collecting
    assert not probe._expand.collecting


def test_sinks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Writer:
        def __init__(self) -> None:
            self.calls: list[tuple[Any, ...]] = []

        def add_scalar(self, *call: Any) -> None:
            self.calls.append(call)

        def log(self, values: dict[str, float], *, step: int) -> None:
            self.calls.append((values, step))

    board, run, table = Writer(), Writer(), DictSink()
    sinks = [table, JsonlSink(tmp_path / "p.jsonl"), TensorBoardSink(board), WandbSink(run)]
    model = model_of()
    with hs.Probe(model, what=("read_dominance",), sinks=sinks) as probe:
        for step in range(2):
            model(*batch(step))
            values = probe.scalars(step)
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert lines[1] == {"kind": "probe", "step": 1, **values}
    assert table["read_dominance/L0a"][1] == (1, values["read_dominance/L0a"])
    assert ("read_dominance/L0a", values["read_dominance/L0a"], 1) in board.calls
    assert run.calls[1] == (values, 1)
    assert probe.moments["read_dominance/L0a"].count == 2
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(ImportError, match=r"hyperstreams\[log\]"):
        WandbSink()


def test_errors() -> None:
    with pytest.raises(ValueError, match="every: expected at least 1, got 0"):
        hs.Probe(model_of(), every=0)
    with pytest.raises(ValueError, match=r"what: expected names of .*got 'loss'"):
        hs.Probe(model_of(), what=("loss",))
    with pytest.raises(ValueError, match=r"expected one nn\.ExpandStreams.*got 0, 0 and 0"):
        hs.Probe(model_of("residual", expand="replicate"))
    model = model_of()
    with hs.Probe(model), pytest.raises(RuntimeError, match="another active probe"):
        hs.Probe(model).__enter__()


def _train_on(rank: int, store: str, out: str) -> None:
    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard
    from torch.nn.parallel import DistributedDataParallel

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    try:
        sharded = scrambled_model("mhc_lite", n_layer=1).train()
        for site in sharded.sites.values():
            fully_shard(site)
        fully_shard(sharded)
        replicated = DistributedDataParallel(scrambled_model("mhc_lite", n_layer=1).train())
        for name, model in (("fsdp2", sharded), ("ddp", replicated)):
            with hs.Probe(model) as probe:
                model(*batch(rank))[1].backward()
                probe.scalars(0)
            if rank == 1:
                probe.samples[0].save(f"{out}/{name}.json")
    finally:
        dist.destroy_process_group()


def test_sums_of_all_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    torch.multiprocessing.spawn(_train_on, (str(tmp_path / "store"), str(tmp_path)), nprocs=2)
    both = capture(scrambled_model("mhc_lite", n_layer=1), [batch(0), batch(1)])
    for name in ("fsdp2", "ddp"):
        sample = diagnostics.Capture.load(tmp_path / f"{name}.json")
        assert sample.tokens == both.tokens
        assert torch.allclose(
            sample.sums, hs.ops.merge_stream_stats(both.sums, 4), rtol=1e-5, atol=1e-6
        )
        # Ranks see other tokens: the variance is of all, not the mean of theirs.
        variance = diagnostics.quantity("write_variance", both)
        own = [diagnostics.quantity("write_variance", both.batch(k)) for k in range(2)]
        assert (variance > (own[0] + own[1]) / 2).all()
        assert torch.allclose(diagnostics.quantity("write_variance", sample), variance, rtol=1e-4)


def _train_beside_a_group(rank: int, store: str, out: str) -> None:
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    try:
        model = scrambled_model("mhc_lite", n_layer=1).train()
        with hs.Probe(model, group=dist.new_group([0])) as probe:
            for seed in (rank, 2):
                model(*batch(seed))
            probe.scalars(0)
        probe.samples[0].save(f"{out}/{rank}.json")
    finally:
        dist.destroy_process_group()


def test_a_rank_outside_the_group_keeps_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    arguments = (str(tmp_path / "store"), str(tmp_path))
    torch.multiprocessing.spawn(_train_beside_a_group, arguments, nprocs=2)
    model = scrambled_model("mhc_lite", n_layer=1)
    for rank in range(2):
        sums = capture(model, [batch(rank), batch(2)]).sums
        if rank == 0:
            sums = hs.ops.merge_stream_stats(sums, 4).unsqueeze(0)
        sample = diagnostics.Capture.load(tmp_path / f"{rank}.json")
        torch.testing.assert_close(sample.sums, sums, rtol=1e-5, atol=1e-6)
