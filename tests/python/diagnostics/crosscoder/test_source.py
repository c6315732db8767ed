"""Activations streamed from a frozen model, and its loss on their reconstruction."""

from __future__ import annotations

import pytest
import torch
from hyperstreams.diagnostics import trace
from hyperstreams.diagnostics.crosscoder import (
    Sites,
    activation_batches,
    hook_points,
    read_states,
    reconstruct,
    replicate_streams,
    shuffled,
    splice_losses,
)
from hyperstreams.models import GPT, GPTConfig
from torch import Tensor

SITES = Sites((0, 2), 3)


@pytest.fixture(scope="module")
def model() -> GPT:
    config = GPTConfig(
        n_layer=3, n_head=2, width=16, block_size=12, n_streams=3, vocab_size=32, connection="mhc"
    )
    return GPT(config, generator=torch.Generator().manual_seed(0)).eval()


def windows(number: int = 4) -> Tensor:
    return torch.randint(32, (number, 12), generator=torch.Generator().manual_seed(3))


def test_states_are_those_of_the_trace_after_each_block(model: GPT) -> None:
    tokens = windows()
    traced = trace(model, tokens).streams  # before L0a, L0m, L1a, ..., readout
    states = read_states(model, tokens, SITES).view(4, 11, 2, 3, 16)
    assert torch.equal(states[:, :, 0], traced[2][:, 1:])
    assert torch.equal(states[:, :, 1], traced[6][:, 1:])
    assert hook_points(model, SITES) == [
        "blocks.1.attn_hc.hook_streams_in",
        "reduce.hook_streams_in",
    ]


def test_sites_that_the_model_lacks_are_refused(model: GPT) -> None:
    with pytest.raises(ValueError, match=r"sites: expected layers from 0 to 2, got \[0, 3\]"):
        hook_points(model, Sites((0, 3), 3))
    with pytest.raises(ValueError, match=r"sites: expected n_streams=3, got 4"):
        read_states(model, windows(), Sites((0,), 4))


def test_the_buffer_hands_every_token_out_once_and_mixes_chunks() -> None:
    chunks = [torch.arange(40.0).view(40, 1, 1) + 40 * i for i in range(12)]

    def run(seed: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return list(shuffled(chunks, batch_size=16, buffer_batches=8, generator=generator))

    batches = run(0)
    assert {len(batch) for batch in batches} == {16}
    values = torch.cat(batches).flatten()
    assert values.numel() == 480
    assert torch.equal(values.sort().values, torch.arange(480.0))
    assert min((batch // 40).unique().numel() for batch in batches) >= 3
    assert all(torch.equal(a, b) for a, b in zip(batches, run(0), strict=True))
    assert not torch.equal(batches[0], run(1)[0])


def test_a_short_stream_still_comes_out() -> None:
    chunk = torch.arange(20.0).view(20, 1, 1)
    batches = list(shuffled([chunk], batch_size=8, generator=torch.Generator().manual_seed(0)))
    assert [len(batch) for batch in batches] == [8, 8]


def test_streamed_batches_are_transformed_states(model: GPT) -> None:
    source = activation_batches(
        model,
        [windows(), windows()],
        SITES,
        batch_size=16,
        buffer_batches=2,
        generator=torch.Generator().manual_seed(1),
        transform=lambda a: replicate_streams(a, 3),
    )
    batch = next(iter(source)).view(16, 2, 3, 16)
    assert torch.equal(batch, batch[:, :, :1].expand_as(batch))
    states = replicate_streams(read_states(model, windows(), SITES), 3)
    distance = torch.cdist(batch.flatten(1), states.flatten(1)).amin(dim=1)
    assert float(distance.max()) < 1e-3


def test_a_perfect_reconstruction_recovers_the_loss(model: GPT) -> None:
    tokens = windows(8)
    batches = [(tokens[:4], tokens[:4].roll(-1, 1)), (tokens[4:], tokens[4:].roll(-1, 1))]
    mean = read_states(model, tokens, SITES).mean(dim=0)
    same = splice_losses(model, batches, SITES, lambda a: a, mean)
    assert same["spliced_loss"] == pytest.approx(same["clean_loss"], abs=1e-6)
    assert same["recovered"] == pytest.approx(1.0, abs=1e-4)
    assert same["mean_loss"] != pytest.approx(same["clean_loss"], abs=1e-4)
    worst = splice_losses(model, batches, SITES, lambda a: mean.expand_as(a), mean)
    assert worst["recovered"] == pytest.approx(0.0, abs=1e-6)
    with torch.no_grad():
        expected = sum(float(model(*batch)[1]) for batch in batches) / 2
    assert same["clean_loss"] == pytest.approx(expected)


def test_reconstruct_gives_every_coder_its_own_sites() -> None:
    a = torch.arange(12.0).view(1, 6, 2)
    coders = {"x": (lambda part: part + 100, [0, 3]), "y": (lambda part: -part, [1, 2, 4, 5])}
    rebuilt = reconstruct(coders, a)  # type: ignore[arg-type]
    assert torch.equal(rebuilt[:, [0, 3]], a[:, [0, 3]] + 100)
    assert torch.equal(rebuilt[:, [1, 2, 4, 5]], -a[:, [1, 2, 4, 5]])
