"""Validation loss: window means, and full coverage with every token scored once."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hyperstreams.train import ByteTokenizer, RunError, TokenData, evaluate, evaluate_all
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
