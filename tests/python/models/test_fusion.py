"""The same model with and without the fused boundary, alone and on several ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hyperstreams as hs
import pytest
import torch
from hyperstreams.ops import _boundary
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


def model_of(connection: str) -> hs.GPT:
    config = hs.GPTConfig(
        connection=connection, n_layer=2, n_head=2, width=24, block_size=16, expand="learned_scale"
    )
    generator = torch.Generator().manual_seed(3)
    model = hs.GPT(config, generator=generator)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "connection." in name:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


def batch(seed: int) -> tuple[Tensor, Tensor]:
    rows = torch.randint(0, 256, (4, 17), generator=torch.Generator().manual_seed(seed))
    return rows[:, :-1], rows[:, 1:]


def losses(connection: str, steps: int) -> tuple[list[float], Tensor]:
    """Of a short training, and the first step's logits."""
    model = model_of(connection)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    found, first = [], torch.empty(0)
    for step in range(steps):
        logits, loss = model(*batch(0))
        if step == 0:
            first = logits.detach()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found, first


class CountBoundaries(TorchDispatchMode):
    """Counts calls of the fused op."""

    calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += func is torch.ops.hyperstreams._boundary.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "connection", ["mhc_lite", "mhc", "hc", "hc_static", "identity", "deepseek_v4_single_pass"]
)
def test_training_is_the_same_without_fusion(
    connection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with CountBoundaries() as counted:
        fused, fused_logits = losses(connection, 6)
    # One for each site; before a static first site nothing is pending and nothing projected.
    assert counted.calls == 6 * (3 if connection == "hc_static" else 4)
    monkeypatch.setattr(_boundary, "has_kernels", lambda *_: False)
    with CountBoundaries() as counted:
        single, single_logits = losses(connection, 6)
    assert counted.calls == 0
    assert torch.equal(fused_logits, single_logits)
    torch.testing.assert_close(fused, single, rtol=2e-5, atol=0)
    assert fused[-1] < fused[0]


def _on_rank(rank: int, store: str, out: str) -> None:
    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor
    from torch.nn.parallel import DistributedDataParallel

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    try:
        sharded = model_of("mhc_lite")
        names = sharded.site_names
        for first, second in zip(names[::2], names[1::2], strict=True):  # one unit per block
            fully_shard([sharded.sites[first], sharded.sites[second]])
        fully_shard(sharded)
        replicated = DistributedDataParallel(model_of("mhc_lite"))
        gradients = {}
        for name, model, plain in (
            ("fsdp2", sharded, sharded),
            ("ddp", replicated, replicated.module),
        ):
            model(*batch(rank))[1].backward()
            gradients[name] = {
                key: p.grad.full_tensor() if isinstance(p.grad, DTensor) else p.grad
                for key, p in plain.named_parameters()
                if p.grad is not None
            }
        if rank == 0:
            torch.save(gradients, f"{out}/gradients.pt")
    finally:
        dist.destroy_process_group()


def test_pending_writes_cross_the_units_of_ddp_and_fsdp2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A unit's last write is carried out in the next unit."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    torch.multiprocessing.spawn(_on_rank, (str(tmp_path / "store"), str(tmp_path)), nprocs=2)
    found = torch.load(tmp_path / "gradients.pt")
    model = model_of("mhc_lite")
    for rank in range(2):
        (model(*batch(rank))[1] / 2).backward()
    for gradients in found.values():
        for name, parameter in model.named_parameters():
            if parameter.grad is None:
                assert name not in gradients
            else:
                torch.testing.assert_close(
                    gradients[name], parameter.grad, rtol=1e-4, atol=1e-6, msg=name
                )
