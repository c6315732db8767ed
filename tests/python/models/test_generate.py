"""Sampling with cached keys and values against the plain forward."""

from __future__ import annotations

import pytest
import torch
from connection_cases import depth
from hyperstreams import GPT, GPTConfig
from hyperstreams import nn as hnn
from hyperstreams.models.gpt import sample
from torch import Tensor

BLOCK = 10


def build(connection: str, **overrides: object) -> GPT:
    config = GPTConfig(
        n_layer=depth(connection, 2),
        n_head=2,
        width=16,
        block_size=BLOCK,
        vocab_size=32,
        connection=connection,
        **overrides,  # type: ignore[arg-type]
    )
    model = GPT(config, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
            parameter.add_(0.2 * noise)
    return model


def greedy_without_cache(model: GPT, tokens: Tensor, count: int) -> Tensor:
    for _ in range(count):
        logits, _ = model(tokens[:, -BLOCK:])
        tokens = torch.cat([tokens, logits[:, -1].argmax(-1, keepdim=True)], dim=1)
    return tokens


@pytest.fixture
def prompt() -> Tensor:
    return torch.randint(32, (3, 4), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("connection", list(hnn.CONNECTIONS))
@pytest.mark.parametrize("length", [1, 4])
def test_equals_the_full_forward(connection: str, length: int, prompt: Tensor) -> None:
    """Greedy text is the same within the context and beyond it."""
    model = build(connection)
    tokens = prompt[:, :length]
    expected = greedy_without_cache(model, tokens, 15)
    assert torch.equal(model.generate(tokens, 15, temperature=0.0), expected)


@pytest.mark.parametrize("connection", ["altup", "hc", "mhc_lite"])
def test_cached_logits_equal_the_full_forward(connection: str, prompt: Tensor) -> None:
    model = build(connection, reduce="weighted").double()
    tokens = torch.cat([prompt, prompt], dim=1)
    caches: list[list[Tensor]] = [[], []]
    for part in (tokens[:, :5], tokens[:, 5:6], tokens[:, 6:7]):
        logits = model._next_logits(part, caches)
        seen = caches[0][0].shape[2]
        torch.testing.assert_close(logits, model(tokens[:, :seen])[0][:, -1])


def test_long_prompt_is_cropped(prompt: Tensor) -> None:
    model = build("mhc_lite")
    tokens = prompt.repeat(1, 5)
    expected = greedy_without_cache(model, tokens, 3)
    assert torch.equal(model.generate(tokens, 3, temperature=0.0), expected)


def test_the_generator_determines_the_text(prompt: Tensor) -> None:
    model = build("mhc_lite")
    before = torch.random.get_rng_state()

    def text(seed: int) -> Tensor:
        return model.generate(prompt, 8, generator=torch.Generator().manual_seed(seed))

    assert torch.equal(text(0), text(0))
    assert not torch.equal(text(0), text(1))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_training_mode_is_restored_and_dropout_off(prompt: Tensor) -> None:
    model = build("mhc_lite", dropout=0.5)
    assert torch.equal(
        model.generate(prompt, 8, temperature=0.0),
        build("mhc_lite").generate(prompt, 8, temperature=0.0),
    )
    assert model.training
    model.eval()
    model.generate(prompt, 1)
    assert not model.training


def test_sampling_follows_temperature_and_top_k() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]])).repeat(4000, 1)
    generator = torch.Generator().manual_seed(0)

    def frequencies(temperature: float, top_k: int | None) -> Tensor:
        drawn = sample(logits, temperature=temperature, top_k=top_k, generator=generator)
        return torch.bincount(drawn.squeeze(1), minlength=4) / len(logits)

    def near(actual: Tensor, expected: list[float]) -> None:
        torch.testing.assert_close(actual, torch.tensor(expected), atol=0.03, rtol=0)

    near(frequencies(1.0, None), [0.5, 0.3, 0.15, 0.05])
    near(frequencies(1.0, 2), [0.625, 0.375, 0.0, 0.0])
    near(frequencies(0.5, None), [0.685, 0.247, 0.062, 0.007])
    assert frequencies(0.0, None).tolist() == [1.0, 0.0, 0.0, 0.0]


def test_errors(prompt: Tensor) -> None:
    model = build("residual")
    with pytest.raises(ValueError, match=r"tokens: expected shape \[B, T\].* got \[3, 0\]"):
        model.generate(prompt[:, :0], 1)
    with pytest.raises(ValueError, match="temperature: expected at least 0, got -1"):
        model.generate(prompt, 1, temperature=-1.0)
    with pytest.raises(ValueError, match="top_k: expected at least 1, got 0"):
        model.generate(prompt, 1, top_k=0)
