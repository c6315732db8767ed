"""Points inside a site: what is seen there is what everything after it is computed from."""

from __future__ import annotations

import hyperstreams as hs
import pytest
import torch
from hyperstreams import diagnostics as hd
from hyperstreams import ops
from torch import Tensor


def small_gpt(connection: str = "mhc_lite") -> hs.GPT:
    config = hs.GPTConfig.preset("tiny", connection=connection, n_layer=2, width=16, n_head=2)
    generator = torch.Generator().manual_seed(0)
    model = hs.GPT(config, generator=generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def tokens() -> Tensor:
    return torch.randint(256, (2, 9), generator=torch.Generator().manual_seed(1))


def gradients_at_points(model: hs.GPT, pattern: str) -> dict[str, Tensor]:
    """Gradient of a loss by the values that a hook has kept, under ``retain_grad``."""
    kept: dict[str, Tensor] = {}

    def keep(value: Tensor, name: str) -> None:
        if value.requires_grad:
            kept[name] = value
            value.retain_grad()

    with hd.hooks(model, {pattern: keep}):
        model(tokens())[0].sin().sum().backward()
    return {name: value.grad for name, value in kept.items() if value.grad is not None}


@pytest.mark.parametrize("connection", ["mhc_lite", "hc", "identity"])
def test_gradients_at_every_point_are_those_of_the_reference(connection: str) -> None:
    fused = gradients_at_points(small_gpt(connection), "*.hook_*")
    with ops.backend("reference"):
        reference = gradients_at_points(small_gpt(connection), "*.hook_*")
    assert fused.keys() == reference.keys()
    mixers = {"hook_res"} if connection != "identity" else set()
    assert {name.rsplit(".", 1)[1] for name in fused} == mixers | {
        "hook_streams_in",
        "hook_pre",
        "hook_post",
        "hook_in",
        "hook_out",
    }
    for name, gradient in fused.items():
        gap, size = (gradient - reference[name]).norm(), reference[name].norm()
        assert gap <= 1e-5 * size + 1e-4, name
        assert size > 0, name


@pytest.mark.parametrize(
    ("point", "stream"), [("hook_streams_in", (..., 1, slice(None))), ("hook_pre", (..., 1))]
)
def test_an_edit_in_place_counts_like_a_new_tensor(point: str, stream: tuple[object, ...]) -> None:
    model = small_gpt()

    def in_place(value: Tensor, _: str) -> Tensor:
        value[stream] = 0.5
        return value

    def new(value: Tensor, name: str) -> Tensor:
        return in_place(value.clone(), name)

    logits = []
    for edit in (in_place, new):
        with torch.no_grad(), hd.hooks(model, {f"blocks.1.attn_hc.{point}": edit}):
            logits.append(model(tokens())[0])
    assert torch.equal(*logits)
    assert not torch.equal(logits[0], model(tokens())[0])


@pytest.mark.parametrize("connection", ["mhc_lite", "hc", "mhc", "jpmhc", "hc_static"])
def test_taps_that_change_nothing_leave_the_same_bits(connection: str) -> None:
    model = small_gpt(connection)
    want = model(tokens())[0]
    with hd.hooks(model, {"*": lambda value, _: value}):
        assert torch.equal(model(tokens())[0], want)
