"""Capture of the real model: compiled, consistent from site to site, right at initialisation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hyperstreams.diagnostics import capture, geometry, quantity
from hyperstreams.models import GPT, GPTConfig
from torch import Tensor


def model_of(connection: str, **overrides: Any) -> GPT:
    sizes: dict[str, Any] = {"n_layer": 2, "n_head": 2, "width": 24, "block_size": 16}
    config = GPTConfig(**{**sizes, "connection": connection, **overrides})
    return GPT(config, generator=torch.Generator().manual_seed(3))


def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(0, 256, (6, 17), generator=generator)
    return [(part[:, :-1], part[:, 1:]) for part in rows.split(2)]


def test_compiled_model_gives_the_same_capture() -> None:
    model = model_of("mhc_lite", n_layer=1)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    eager, graph = capture(model, batches()), capture(compiled, batches())
    assert graph.site_names == ("L0a", "L0m")
    assert torch.allclose(graph.sums, eager.sums, rtol=1e-5, atol=1e-6)
    assert torch.allclose(graph.loss, eager.loss)


def test_gram_matrices_chain_from_site_to_site() -> None:
    # Static coefficients: the chain holds for sums over tokens too.
    model = model_of("hc_static", designate="fixed")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("connection.bias"):
                noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
                parameter.add_(0.3 * noise)
    result = capture(model, batches())
    gram = result.mean("gram")
    for k in range(len(result.site_names)):
        predicted = geometry.next_gram(gram[k], result.mean("h_res")[k], result.mean("h_post")[k])
        assert torch.allclose(predicted, gram[k + 1, :4, :4], rtol=1e-5, atol=1e-7)
    spread = (gram[-1, :4, :4] - gram[-1, 0, 0]).abs().max() / gram[-1, 0, 0]
    assert spread > 0.1


def test_replicated_streams_start_as_copies_and_scaled_ones_do_not() -> None:
    copies = capture(model_of("mhc"), batches())
    assert quantity("differential_energy", copies)[0].item() == pytest.approx(0, abs=1e-12)
    assert quantity("mean_cosine", copies)[0].item() == pytest.approx(1)
    assert quantity("norm_share", copies)[0].tolist() == pytest.approx([0.25] * 4)
    scaled = capture(model_of("mhc", expand="learned_scale"), batches())
    assert quantity("differential_energy", scaled)[0].item() > 1e-3
    assert quantity("mean_cosine", scaled)[0].item() < 0.999


@pytest.mark.parametrize(("connection", "mass"), [("mhc_lite", 0.00599), ("mhc", 0.00101)])
def test_initial_values_are_the_published_ones(connection: str, mass: float) -> None:
    result = capture(model_of(connection), batches())
    # The dynamic part is small at initialisation, but not zero at every site.
    assert quantity("off_diagonal_mass", result).tolist() == pytest.approx([mass] * 4, rel=0.02)
    for side in ("read", "write"):
        share = quantity(f"{side}_share", result)
        assert share.amax(dim=1).tolist() == pytest.approx([0.475] * 4, abs=5e-3)
        assert quantity(f"{side}_effective_streams", result).tolist() == pytest.approx(
            [3.555] * 4, abs=0.02
        )
        assert quantity(f"{side}_dominance", result).tolist() == pytest.approx([0.3] * 4, abs=0.01)


def test_residual_has_no_streams() -> None:
    with pytest.raises(ValueError, match="collect_stats: expected a connection with streams"):
        capture(model_of("residual"), batches())
