"""A trained residual model goes on as a multi-stream one."""

from __future__ import annotations

import hyperstreams as hs
import pytest
import torch
from hyperstreams import nn as hnn
from torch import Tensor

TOKENS = torch.randint(0, 64, (2, 12), generator=torch.Generator().manual_seed(3))
CANNOT = {
    "jpmhc": "activation 'column_softmax_sum' cannot give",
    "tokenbender": "activation 'softmax' cannot give",
    "sparse_selective": "expected source sums of 1",
}


@pytest.fixture(scope="module")
def trained() -> hs.GPT:
    config = hs.GPTConfig(
        vocab_size=64, block_size=16, n_layer=2, n_head=2, width=16, connection="residual"
    )
    model = hs.GPT(config, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(
                parameter.shape, generator=torch.Generator().manual_seed(1)
            )
    return model


def wrapped(model: hs.GPT, connection: str, **options: object) -> hs.GPT:
    return hs.wrap_residual(
        model,
        connection=connection,
        generator=torch.Generator().manual_seed(2),
        **options,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    "connection",
    [name for name, c in hnn.CONNECTIONS.items() if isinstance(c, hnn.ConnectionConfig)],
)
def test_logits_are_those_of_the_residual_model(trained: hs.GPT, connection: str) -> None:
    if connection in CANNOT:
        with pytest.raises(ValueError, match=CANNOT[connection]):
            wrapped(trained, connection)
        return
    model = wrapped(trained, connection)
    expected: Tensor = trained(TOKENS)[0]
    # The dialects with eps in every divisor have source sums of 1 - 1e-6.
    torch.testing.assert_close(model(TOKENS)[0], expected, atol=2e-5, rtol=2e-5)


def test_streams_differ_and_mixers_learn(trained: hs.GPT) -> None:
    model = wrapped(trained, "mhc_lite")
    loss = model(TOKENS, TOKENS)[1]
    loss.backward()
    last = model.sites["L1m"].connection
    assert last.bias.grad[2 * 4 :].abs().max() > 0
    assert last.phi.grad.abs().max() > 0
    state = model.expand(model.token_embedding(TOKENS))
    for site in model.sites.values():
        state = site(state)
    spread = state.tensor - state.tensor.mean(-2, keepdim=True)
    assert spread.abs().max() > 0.1


def test_generation_goes_on(trained: hs.GPT) -> None:
    plain = trained.generate(TOKENS[:, :4], 6, temperature=0.0)
    assert torch.equal(wrapped(trained, "mhc").generate(TOKENS[:, :4], 6, temperature=0.0), plain)


def test_errors(trained: hs.GPT) -> None:
    model = wrapped(trained, "mhc_lite")
    with pytest.raises(ValueError, match="model: expected connection 'residual', got 'mhc_lite'"):
        hs.wrap_residual(model)
    with pytest.raises(ValueError, match="designate: expected a designated stream"):
        wrapped(trained, "mhc_lite", designate="none")
    for name, value in {
        "start": "published",
        "expand": "learned_scale",
        "reduce": "sum",
        "final_norm": "before_reduce",
        "controller_std": 0.02,
    }.items():
        message = f"wrap_residual: {name}: expected no override, .*got {value!r}"
        with pytest.raises(ValueError, match=message):
            wrapped(trained, "mhc_lite", **{name: value})
    assert wrapped(trained, "mhc_lite", dropout=0.1).config.dropout == 0.1
    with pytest.raises(ValueError, match="read: expected a weight of 1, got an activation"):
        wrapped(trained, "mhc", n_streams=1)


def test_controller_std() -> None:
    def model(connection: str, std: float | None) -> hs.GPT:
        config = hs.GPTConfig(
            n_layer=1, n_head=2, width=32, connection=connection, controller_std=std
        )
        return hs.GPT(config, generator=torch.Generator().manual_seed(0))

    phi = model("mhc_lite", 0.02).sites["L0a"].connection.phi
    assert abs(phi.std().item() - 0.02) < 0.002
    assert not model("mhc_lite", None).sites["L0a"].connection.phi.any()
    with pytest.raises(ValueError, match="phi_std: expected None for static"):
        model("hc_static", 0.1)
    with pytest.raises(
        ValueError, match="controller_std: expected None with connection 'residual'"
    ):
        model("residual", 0.1)
