"""Logits of real sites: they make the coefficients that the model used."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hyperstreams.diagnostics import composite, site_logits, trace, variation
from hyperstreams.models import GPT, GPTConfig
from hyperstreams.nn import HyperConnection
from torch import Tensor


def model_of(connection: str, *, moved: bool = True, **overrides: Any) -> GPT:
    sizes: dict[str, Any] = {"n_layer": 2, "n_head": 2, "width": 16, "block_size": 12}
    config = GPTConfig(**{**sizes, "vocab_size": 32, "connection": connection, **overrides})
    generator = torch.Generator().manual_seed(3)
    model = GPT(config, generator=generator, dtype=torch.float64).eval()
    if moved:
        with torch.no_grad():
            for parameter in model.parameters():
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.add_(0.1 * noise)
    return model


def tokens() -> Tensor:
    return torch.randint(0, 32, (2, 12), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("connection", ["mhc", "mhc_lite", "kromhc", "hc", "hc_static", "identity"])
def test_logits_make_the_coefficients(connection: str) -> None:
    model = model_of(connection)
    t = trace(model, tokens())
    found = site_logits(model, t.streams)
    for k, site in enumerate(model.sites.values()):
        assert isinstance(site, HyperConnection)
        config = site.connection.config
        h_res = config.mixer.map(found.mix.total[k], 4)
        if h_res is not None:
            assert torch.allclose(h_res, t.h_res[k], atol=1e-9)
        for parts, used, activation in (
            (found.read, t.h_pre, config.read_activation),
            (found.write, t.h_post, config.write_activation),
        ):
            z = parts.total[k]
            if activation.form == "inside" and activation.kind == "sigmoid":
                z = z.sigmoid()
            expected = activation.factor * z + activation.offset
            assert torch.allclose(expected, used[k], atol=1e-9)


def test_static_and_dynamic_parts() -> None:
    model = model_of("mhc", moved=False)
    t = trace(model, tokens())
    start = site_logits(model, t.streams)
    assert variation.static_share(start.mix.static[1], start.mix.dynamic[1]).item() > 0.99
    spread = composite.logit_range(start.mix.total)
    assert spread.mean().item() == pytest.approx(8, abs=0.2)
    assert composite.share_above(spread).tolist() == [0.0] * 4
    moved = model_of("mhc")
    after = site_logits(moved, trace(moved, tokens()).streams)
    share = variation.static_share(after.read.static[1], after.read.dynamic[1]).item()
    assert 0 < share < 1
    static = model_of("hc_static")
    fixed = site_logits(static, trace(static, tokens()).streams)
    assert fixed.read.dynamic.abs().max() == 0
    assert fixed.read.dynamic.shape == (4, 2, 12, 4)
    travel = variation.logit_travel(after.mix.static, start.mix.static)
    assert travel.tolist() == pytest.approx([0.1] * 4, abs=0.05)


def test_what_has_no_logits_is_refused() -> None:
    model = model_of("mhc")
    with pytest.raises(ValueError, match="site_logits: streams: expected at least 4 states"):
        site_logits(model, torch.zeros(2, 1, 1, 4, 16, dtype=torch.float64))
    joint = model_of("jpmhc")
    with pytest.raises(ValueError, match=r"Connection\.logits: activation: expected one of n"):
        site_logits(joint, trace(joint, tokens()).streams)
