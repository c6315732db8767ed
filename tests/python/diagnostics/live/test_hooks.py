"""Hook points and traces: the model's own numbers, replaceable, and free of side effects."""

from __future__ import annotations

from typing import Any

import hyperstreams as hs
import pytest
import torch
from hyperstreams import nn as hnn
from hyperstreams import ops
from hyperstreams.diagnostics import hook_names, hooks, trace
from small_models import Stack
from torch import Tensor


def model_of(connection: str = "mhc", **overrides: Any) -> hs.GPT:
    sizes: dict[str, Any] = {"n_layer": 2, "n_head": 2, "width": 24, "block_size": 16}
    config = hs.GPTConfig(**{**sizes, "connection": connection, "expand": "noise", **overrides})
    model = hs.GPT(config, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "connection." in name:
                noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
                parameter.add_(0.2 * noise)
    return model


def batch() -> tuple[Tensor, Tensor]:
    rows = torch.randint(0, 256, (2, 17), generator=torch.Generator().manual_seed(0))
    return rows[:, :-1], rows[:, 1:]


def test_names() -> None:
    names = hook_names(model_of())
    assert names[:3] == [f"blocks.0.attn_hc.hook_{p}" for p in ("streams_in", "pre", "res")]
    assert names[-2:] == ["blocks.1.mlp_hc.hook_out", "reduce.hook_streams_in"]
    assert len(names) == 4 * 6 + 1
    assert not any("resid" in name for name in names)
    compiled = torch.compile(model_of(), backend="eager")
    assert hook_names(compiled) == names


@pytest.mark.parametrize("connection", ["hc_static", "mhc", "mhc_lite", "identity"])
def test_hooks_that_change_nothing_leave_outputs_bit_equal(connection: str) -> None:
    """Gradients are those of the single ops, which differ from the one pass's by rounding."""
    model, (tokens, targets) = model_of(connection), batch()
    parameters = [p for p in model.parameters() if p.requires_grad]

    def run() -> list[Tensor]:
        logits, loss = model(tokens, targets)
        return [logits, loss, *torch.autograd.grad(loss, parameters)]

    plain = run()
    seen = []
    with hooks(model, {"*": lambda value, name: seen.append(name)}):
        hooked = run()
    assert sorted(seen) == sorted(hook_names(model))
    assert torch.equal(hooked[0], plain[0])
    assert torch.equal(hooked[1], plain[1])
    for got, want in zip(hooked[2:], plain[2:], strict=True):
        assert (got - want).norm() <= 1e-5 * want.norm() + 1e-7
    assert all(torch.equal(a, b) for a, b in zip(plain, run(), strict=True))


def test_trace_is_what_the_model_computed() -> None:
    model, (tokens, targets) = model_of("mhc"), batch()
    result = trace(model, tokens, targets)
    logits, loss = model(tokens, targets)
    assert torch.equal(result.logits, logits)
    assert torch.equal(result.loss, loss)
    assert result.site_names == ("L0a", "L0m", "L1a", "L1m")
    assert result.streams.shape == (5, 2, 16, 4, 24)
    assert result.h_res.shape == (4, 2, 16, 4, 4)
    for k in range(4):
        after = ops.mix_write(
            result.streams[k], result.branch_out[k], result.h_res[k], result.h_post[k]
        )
        assert torch.allclose(after, result.streams[k + 1], rtol=1e-6, atol=1e-7)
        assert torch.allclose(ops.read(result.streams[k], result.h_pre[k]), result.branch_in[k])
    assert model.training


def test_trace_agrees_with_the_captured_sums() -> None:
    model, (tokens, targets) = model_of("mhc_lite"), batch()
    result = trace(model, tokens, targets)
    stats = model(tokens, targets, collect_stats=True)[2]
    for k in range(4):
        row = ops.stream_stats(
            result.streams[k],
            result.branch_out[k],
            h_pre=result.h_pre[k],
            h_post=result.h_post[k],
            h_res=result.h_res[k],
        )
        assert torch.allclose(row, stats[k], rtol=1e-5, atol=1e-5)


def test_static_and_missing_mixers_are_repeated() -> None:
    static = trace(model_of("hc_static"), batch()[0])
    assert static.h_pre.shape == (4, 2, 16, 4)
    identity = trace(model_of("identity"), batch()[0])
    assert torch.equal(identity.h_res[1, 0, 3], torch.eye(4))
    assert identity.loss is None


def test_replacements_are_used() -> None:
    model, (tokens, _) = model_of("mhc"), batch()
    plain = trace(model, tokens)
    uniform = torch.full((4,), 0.25)
    with hooks(model, {"blocks.1.attn_hc.hook_pre": lambda value, name: uniform}):
        patched = trace(model, tokens)
    mean = plain.streams[2].mean(dim=-2)
    assert torch.allclose(patched.branch_in[2], mean, atol=1e-6)
    assert torch.equal(patched.streams[:3], plain.streams[:3])
    assert not torch.equal(patched.logits, plain.logits)
    with hooks(model, {"*.hook_res": lambda value, name: torch.eye(4).expand(value.shape)}):
        patched = trace(model, tokens)
    written = plain.streams[0] + plain.h_post[0].unsqueeze(-1) * plain.branch_out[0].unsqueeze(-2)
    assert torch.allclose(patched.streams[1], written, atol=1e-6)
    with hooks(model, {"reduce.hook_streams_in": lambda value, name: torch.zeros_like(value)}):
        assert not model(tokens)[0].any()


def test_nested_blocks_compose_and_are_undone() -> None:
    model, (tokens, _) = model_of("mhc"), batch()
    seen = []

    def double(value: Tensor, name: str) -> Tensor:
        return 2 * value

    def look(value: Tensor, name: str) -> None:
        seen.append(value)

    point = "blocks.0.attn_hc.hook_in"
    with hooks(model, {point: double}), hooks(model, {point: look}):
        model(tokens)
    plain = trace(model, tokens)
    assert torch.allclose(seen[0], 2 * plain.branch_in[0])
    assert all(module.taps is None for module in model.modules() if hasattr(module, "taps"))
    with pytest.raises(RuntimeError, match="stop"), hooks(model, {"*": lambda v, name: v}):
        raise RuntimeError("stop")
    assert all(module.taps is None for module in model.modules() if hasattr(module, "taps"))


def test_any_module_with_sites_can_be_traced() -> None:
    model, h = Stack(), torch.randn(2, 5, 8)
    result = trace(model, h)
    assert result.site_names == ("layers.0", "layers.1")
    assert torch.allclose(result.streams[-1].sum(dim=-2), model(h))


def test_numbered_sites_are_ordered_by_their_number() -> None:
    class Backwards(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.expand = hnn.ExpandStreams(n_streams=4, width=8)
            for name, index in (("second", 1), ("first", 0)):
                site = hnn.HyperConnection(
                    torch.nn.Linear(8, 8),
                    connection="hc_static",
                    n_streams=4,
                    width=8,
                    site_index=index,
                    designate="round_robin",
                )
                setattr(self, name, site)
            self.reduce = hnn.ReduceStreams(n_streams=4, width=8)

        def forward(self, h: Tensor) -> Tensor:
            return self.reduce(self.second(self.first(self.expand(h))))

    model, h = Backwards(), torch.randn(2, 5, 8)
    with torch.no_grad():
        for index, site in enumerate((model.first, model.second)):
            n = site.connection.n_streams
            site.connection.bias[n : 2 * n] = 3.0 * torch.nn.functional.one_hot(
                torch.tensor(index), n
            )
    seen = trace(model, h)
    assert seen.site_names == ("first", "second")
    with hs.Probe(model) as probe:
        model(h)
        probe.scalars(0)
    assert probe.site_names == ("first", "second")
    share = hs.diagnostics.quantity("write_share", probe.samples[0])
    assert share.argmax(dim=-1).tolist() == [0, 1]
    assert seen.h_post[:, 0, 0].argmax(dim=-1).tolist() == [0, 1]
    assert hook_names(model)[0] == "first.hook_streams_in"


def test_errors() -> None:
    model, (tokens, _) = model_of("mhc"), batch()
    with (
        pytest.raises(ValueError, match=r"pattern: expected one of blocks\.0.* got 'blocks\.9"),
        hooks(model, {"blocks.9.*": lambda v, name: v}),
    ):
        pass
    with (
        pytest.raises(ValueError, match=r"expected a replacement of shape \[2, 16, 24\], got \[24"),
        hooks(model, {"blocks.0.attn_hc.hook_out": lambda v, name: v[0, 0]}),
    ):
        model(tokens)
    with pytest.raises(ValueError, match="HyperConnection sites, got GPT without"):
        hook_names(model_of("residual", expand="replicate"))
