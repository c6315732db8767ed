"""A planted sparse dictionary: known features, known streams."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from hyperstreams.diagnostics.crosscoder import CrosscoderConfig
from torch import Tensor

SITES, WIDTH, FEATURES = 4, 16, 24


@dataclass(frozen=True)
class Planted:
    """``dictionary [r, I, d]``: feature j lives in stream ``home[j]``, or in all (-1)."""

    dictionary: Tensor
    home: Tensor

    def tokens(self, number: int, generator: torch.Generator) -> Tensor:
        """Activations ``[number, I, d]``: two features a token on average."""
        shape = (number, self.dictionary.shape[0])
        on = torch.rand(shape, generator=generator) < 2.0 / shape[1]
        size = 0.5 + torch.rand(shape, generator=generator)
        return torch.einsum("tj,jid->tid", on * size, self.dictionary)

    def batches(self, size: int = 256, *, seed: int = 1) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            yield self.tokens(size, generator)


@pytest.fixture(scope="session")
def planted() -> Planted:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(123)
    rows = torch.randn(FEATURES, SITES, WIDTH, generator=generator)
    rows = rows / rows.norm(dim=-1, keepdim=True)
    home = torch.tensor([-1 if j % 3 == 0 else j % SITES for j in range(FEATURES)])
    present = (home[:, None] == torch.arange(SITES)) | (home[:, None] < 0)
    return Planted(rows * present[:, :, None], home)


def small_config(**changes: object) -> CrosscoderConfig:
    """Half a second of training on the planted dictionary."""
    settings: dict[str, object] = {
        "n_latents": 32,
        "k": 2,
        "steps": 500,
        "batch_size": 256,
        "lr": 5e-3,
        "norm": "global",
        "dead_tokens": 5000,
        "log_every": 100,
    }
    return CrosscoderConfig(**(settings | changes))  # type: ignore[arg-type]
