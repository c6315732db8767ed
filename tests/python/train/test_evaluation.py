"""Validation loss: window means, and full coverage with every token scored once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hyperstreams.train import (
    ByteTokenizer,
    RunError,
    TokenData,
    evaluate,
    evaluate_all,
    evaluate_released,
)
from torch import Tensor, nn


class Bigram(nn.Module):
    """Predicts from the last token alone, so that a token's loss does not depend on its window."""

    def __init__(self) -> None:
        super().__init__()
        weights = torch.randn(256, 256, generator=torch.Generator().manual_seed(0))
        self.table = nn.Parameter(weights)

    def forward(self, tokens: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.table[tokens]
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def make_data(length: int) -> TokenData:
    ids = torch.randint(256, (length,), generator=torch.Generator().manual_seed(1))
    meta = {"source": "test", "sha256": "0", "bytes": {"val": length}}
    return TokenData(train=ids, val=ids, block_size=8, tokenizer=ByteTokenizer(), meta=meta)


@pytest.mark.parametrize("length", [9, 10, 41, 44])
@pytest.mark.parametrize("stride", [1, 3, 8])
def test_full_coverage_scores_every_token_once(length: int, stride: int) -> None:
    model, data = Bigram(), make_data(length)
    expected = F.cross_entropy(model.table[data.val[:-1]], data.val[1:]).item()
    loss = evaluate_all(model, data, stride=stride, batch_size=3)
    assert loss == pytest.approx(expected, rel=1e-6)


def test_windows_weigh_by_tokens_and_mode_is_kept() -> None:
    model, data = Bigram(), make_data(60)
    model.train()
    batches = list(data.eval_batches(4, 6))
    assert [len(tokens) for tokens, _ in batches] == [4, 2]
    expected = evaluate(model, data.eval_batches(1, 6))
    assert evaluate(model, batches) == pytest.approx(expected, rel=1e-6)
    assert model.training


@pytest.mark.parametrize("stride", [0, 9])
def test_stride_is_checked(stride: int) -> None:
    with pytest.raises(RunError, match=r"stride: expected 1\.\.block_size = 8"):
        evaluate_all(Bigram(), make_data(40), stride=stride)


class Uniform(nn.Module):
    """The same loss for every token, whatever it is."""

    def __init__(self) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.zeros(()))

    def forward(self, tokens: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.level.expand(*tokens.shape, 256)
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def test_protocols_agree_when_every_token_costs_the_same() -> None:
    model, data = Uniform(), make_data(60)
    released = evaluate_released(model, data, batches=5, batch_size=3)
    assert released.loss == pytest.approx(torch.tensor(256.0).log().item(), rel=1e-6)
    assert released.standard_error == pytest.approx(0, abs=1e-6)
    assert evaluate_all(model, data, stride=3) == pytest.approx(released.loss, rel=1e-6)


def test_released_windows_follow_the_seed() -> None:
    model, data = Bigram(), make_data(60)
    first = evaluate_released(model, data, batches=4, batch_size=2, seed=1)
    assert evaluate_released(model, data, batches=4, batch_size=2, seed=1) == first
    assert evaluate_released(model, data, batches=4, batch_size=2, seed=2) != first
    # The offsets by which the published numbers were drawn.
    rng = np.random.default_rng(1337)
    losses = []
    for _ in range(4):
        rows = [data.val[i : i + 9] for i in rng.integers(0, 60 - 8 - 1, size=2)]
        window = torch.stack(rows)
        losses.append(model(window[:, :-1], window[:, 1:].contiguous())[1].item())
    model.train()
    released = evaluate_released(model, data, batches=4, batch_size=2)
    assert released.loss == pytest.approx(np.mean(losses), rel=1e-6)
    assert released.standard_error == pytest.approx(np.std(losses, ddof=1) / 2, rel=1e-5)
    assert model.training


def test_released_windows_have_to_fit() -> None:
    with pytest.raises(RunError, match=r"val split has 9 tokens.*block_size \+ 2 = 10"):
        evaluate_released(Bigram(), make_data(9))
    with pytest.raises(RunError, match="expected at least 1, got 0, 16"):
        evaluate_released(Bigram(), make_data(20), batches=0)
    assert evaluate_released(Bigram(), make_data(10), batches=2).loss > 0
