"""The update step: batch, forward, backward, clipping, AdamW; and the state that resuming needs."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from ..diagnostics import Probe
from ..models import GPT
from .blame import first_nonfinite_module
from .config import TrainConfig
from .data import TokenData, derive_seed
from .errors import NonFiniteError, RunError
from .evaluation import autocast_context, evaluate


def learning_rate(config: TrainConfig, step: int) -> float:
    """Rate of update ``step`` (from 0): linear warm-up, then cosine to ``min_lr`` at the last."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    low = config.lr / 10 if config.min_lr is None else config.min_lr
    done = (step - config.warmup_steps) / max(1, config.steps - 1 - config.warmup_steps)
    return low + 0.5 * (config.lr - low) * (1 + math.cos(math.pi * min(done, 1.0)))


def find_device(name: str) -> torch.device:
    """The device of that name, or a worded error when it is not there."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise RunError(f"device: expected one that is present, got {name!r} ({reason})") from error
    return device


def build_model(config: TrainConfig) -> GPT:
    """The model with its initial weights; they depend on the seed, not on the device."""
    generator = torch.Generator().manual_seed(derive_seed(config.seed, "init"))
    try:
        model = GPT(config.model, generator=generator)
    except (ValueError, TypeError) as error:
        raise RunError(f"model: {error}") from error
    return model.to(find_device(config.device))


class Trainer:
    """One model, its optimiser and its place in the data.

    A step whose loss or gradient norm is not finite makes no update, and neither does any later
    one: the optimiser skips updates while ``found_inf`` is set, on the device and without waiting
    for it. On a CPU the flag is read after every step; elsewhere reading it would stall the queue,
    so it is read when a record is due (``check_finite``). Either way the weights are still those
    before the first bad step, which is repeated to find the module to blame.
    """

    def __init__(self, config: TrainConfig, data: TokenData) -> None:
        self.config = config
        self.data = data
        self.model = build_model(config)
        self.model.train()
        self.device = next(self.model.parameters()).device
        self.forward = torch.compile(self.model) if config.compile else self.model
        groups = self.model.parameter_groups(
            weight_decay=config.weight_decay, connection_policy=config.connection_policy
        )
        self.multipliers = [
            config.connection_lr_multiplier if group["name"].startswith("connection") else 1.0
            for group in groups
        ]
        self.optimizer = torch.optim.AdamW(
            groups, lr=config.lr, betas=(config.beta1, config.beta2), fused=True
        )
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.step = 0
        self.skipped = torch.zeros((), device=self.device)
        self.found_bad = torch.zeros((), device=self.device)
        self.optimizer.found_inf = self.found_bad  # type: ignore[attr-defined]
        self.probe: Probe | None = None
        if config.probe_every and not (config.model.has_streams or self.model.observes):
            warnings.warn(
                f"probe_every: connection {config.model.connection!r} has no streams to probe",
                stacklevel=2,
            )
        elif config.probe_every:
            self.probe = Probe(self.model, every=config.probe_every)
        self._reset_interval()

    def _reset_interval(self) -> None:
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self.loss_count = 0
        self.grad_norm = torch.zeros((), device=self.device)
        self.seconds, self.timed_steps = 0.0, 0

    def train_step(self) -> None:
        """One update; raises :class:`NonFiniteError` on a CPU as soon as there is reason to."""
        started = time.perf_counter()
        rate = learning_rate(self.config, self.step)
        for group, multiplier in zip(self.optimizer.param_groups, self.multipliers, strict=True):
            group["lr"] = rate * multiplier
        loss = torch.zeros((), device=self.device)
        for tokens, targets in self._micro_batches(self.step):
            with autocast_context(self.device, self.config.autocast):
                micro_loss = self.forward(tokens, targets)[1]
            micro_loss = micro_loss / self.config.accumulation
            micro_loss.backward()
            loss += micro_loss.detach()
        self._update(loss)
        self.loss_sum += loss
        self.loss_count += 1
        self.step += 1
        if self.device.type == "cpu":
            self.check_finite()
        self.seconds += time.perf_counter() - started
        self.timed_steps += 1

    def _update(self, loss: Tensor) -> None:
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        self.grad_norm = get_total_norm(gradients)
        if self.config.grad_clip is not None:
            clip_grads_with_norm_(self.parameters, self.config.grad_clip, self.grad_norm)
        bad = ~(torch.isfinite(loss) & torch.isfinite(self.grad_norm))
        self.found_bad.copy_(torch.maximum(self.found_bad, bad.to(self.found_bad.dtype)))
        self.skipped += self.found_bad
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _micro_batches(self, step: int) -> list[tuple[Tensor, Tensor]]:
        config = self.config
        tokens, targets = self.data.train_batch(
            step, config.batch_size * config.accumulation, seed=config.seed
        )
        if self.device.type == "cuda":
            tokens, targets = tokens.pin_memory(), targets.pin_memory()
        tokens = tokens.to(self.device, non_blocking=True)
        targets = targets.to(self.device, non_blocking=True)
        parts = config.accumulation
        return list(zip(tokens.chunk(parts), targets.chunk(parts), strict=True))

    def check_finite(self) -> None:
        """Raise :class:`NonFiniteError` with the step and the module when an update was skipped."""
        skipped = int(self.skipped.item())
        if not skipped:
            return
        step = self.step - skipped
        raise self._blame("loss or gradient", step, self._micro_batches(step))

    def evaluate(self) -> float:
        """Loss on the fixed validation windows; raises :class:`NonFiniteError` when not finite."""
        config = self.config

        def batches() -> Iterator[tuple[Tensor, Tensor]]:
            return self.data.eval_batches(config.batch_size, config.eval_windows)

        # The eager module: the numbers do not depend on the compile switch.
        loss = evaluate(self.model, batches(), autocast=config.autocast)
        if not math.isfinite(loss):
            raise self._blame("validation loss", self.step, batches())
        return loss

    def _blame(
        self, what: str, step: int, batches: Iterable[tuple[Tensor, Tensor]]
    ) -> NonFiniteError:
        """The error for numbers gone bad, after repeating batches until one shows the module."""
        module, reason = None, ""
        for tokens, targets in batches:

            def repeat(tokens: Tensor = tokens, targets: Tensor = targets) -> Tensor:
                with autocast_context(self.device, self.config.autocast):
                    loss: Tensor = self.model(tokens.to(self.device), targets.to(self.device))[1]
                return loss

            module, reason = first_nonfinite_module(self.model, repeat)
            if module is not None:
                break
        where = f"first module to blame: {module} ({reason})" if module else reason
        return NonFiniteError(
            f"{what} not finite at step {step}; {where}", step=step, module=module
        )

    def take_record(self) -> dict[str, Any]:
        """Means since the last record; waits for the device and checks that all is finite."""
        started = time.perf_counter()
        self.check_finite()
        loss = self.loss_sum.item() / max(self.loss_count, 1)
        grad_norm = float(self.grad_norm)
        self.seconds += time.perf_counter() - started
        seconds = self.seconds / max(self.timed_steps, 1)
        config = self.config
        tokens = config.batch_size * config.accumulation * self.data.block_size
        record = {
            "kind": "train",
            "step": self.step,
            "loss": loss,
            "lr": learning_rate(config, self.step - 1),
            "grad_norm": grad_norm,
            "ms_per_step": seconds * 1e3,
            "tokens_per_second": tokens / seconds,
        }
        self._reset_interval()
        return record

    def state(self) -> dict[str, Any]:
        """Everything beside the weights that the next steps depend on."""
        state = {
            "step": self.step,
            "optimizer": self.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "loss_sum": self.loss_sum,
            "loss_count": self.loss_count,
            "grad_norm": self.grad_norm,
        }
        if self.device.type == "cuda":
            state["cuda_rng"] = torch.cuda.get_rng_state(self.device)
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state`; the weights are loaded separately."""
        self.step = state["step"]
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"], self.device)
        self.loss_sum = state["loss_sum"].to(self.device)
        self.loss_count = state["loss_count"]
        self.grad_norm = state["grad_norm"].to(self.device)
