"""Train a crosscoder on a stream of activations."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .config import CrosscoderConfig
from .losses import auxiliary_loss, reconstruction_loss, weighted_l1
from .model import Crosscoder

STATE = "training_state.pt"


class CrosscoderTrainer:
    """A crosscoder, its optimiser and the counters that training needs.

    Adam, gradients clipped to norm ``grad_clip``, constant learning rate that falls linearly to 0
    at the end. Everything random comes from ``generator`` (default: seeded with ``config.seed``);
    a step itself draws nothing.
    """

    def __init__(
        self,
        config: CrosscoderConfig,
        calibration: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        if calibration.ndim != 3 or calibration.shape[0] == 0:
            raise ValueError(
                "CrosscoderTrainer: calibration: expected activations [N, I, d] with N >= 1, "
                f"got shape {list(calibration.shape)}"
            )
        if generator is None:
            generator = torch.Generator().manual_seed(config.seed)
        self.config = config
        _, sites, width = calibration.shape
        self.coder = Crosscoder(config, n_sites=sites, width=width, generator=generator)
        self.coder.to(calibration.device).calibrate(calibration.float())
        self.optimizer = torch.optim.Adam(
            self.coder.parameters(),
            lr=config.lr,
            betas=(config.beta1, config.beta2),
            fused=True,
        )
        self.step = 0
        self.silent = torch.zeros(config.n_latents, dtype=torch.int64, device=calibration.device)

    @property
    def dead(self) -> Tensor:
        """``[m]`` bool: silent for ``config.dead_after`` tokens."""
        return self.silent >= self.config.dead_after

    def learning_rate(self) -> float:
        """Learning rate of the next step."""
        config = self.config
        decay = max(config.lr_decay * config.steps, 1e-9)
        return config.lr * min(1.0, (config.steps - self.step) / decay)

    def penalty(self) -> float:
        """Weight of the L1 penalty in the next step."""
        ramp = self.config.l1_ramp * self.config.steps
        return self.config.l1_weight * min(1.0, (self.step + 1) / max(ramp, 1.0))

    def train_step(self, a: Tensor) -> dict[str, Tensor]:
        """One update on ``a [batch, I, d]``; the terms of the loss, detached."""
        coder, config = self.coder, self.config
        coder._check(a)
        x = coder.normalise(a.float())
        pre = coder.pre_activations(x)
        latents, smallest = coder.select(pre)
        rebuilt = coder.decode_normalised(latents)
        terms = {"reconstruction": reconstruction_loss(x, rebuilt)}
        loss = terms["reconstruction"]
        if config.activation == "l1":
            terms["l1"] = weighted_l1(latents, coder.decoder, config.l1_weighting)
            loss = loss + self.penalty() * terms["l1"]
        elif config.aux_weight:
            k = config.aux_k or max(coder.width // 2, 1)
            terms["auxiliary"] = auxiliary_loss(x - rebuilt, pre, coder.decoder, self.dead, k)
            loss = loss + config.aux_weight * terms["auxiliary"]
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(coder.parameters(), config.grad_clip)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self.optimizer.step()
        with torch.no_grad():
            if smallest is not None and self.step >= config.first_threshold_step:
                first = self.step == config.first_threshold_step
                decay = 0.0 if first else config.threshold_average
                coder.threshold.lerp_(smallest, 1 - decay)
            fired = (latents > 0).any(dim=0)
            self.silent = torch.where(fired, 0, self.silent + a.shape[0])
            terms["l0"] = (latents > 0).sum(dim=-1).float().mean()
        self.step += 1
        return {name: term.detach() for name, term in terms.items()}

    def state(self) -> dict[str, Any]:
        """What :meth:`load_state` continues from; loads with ``weights_only=True``."""
        return {
            "config": self.config.flat(),
            "coder": self.coder.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "silent": self.silent,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue where :meth:`state` was taken; the settings must be the same."""
        changed = [
            name for name, value in self.config.flat().items() if state["config"].get(name) != value
        ]
        if changed:
            raise ValueError(
                f"CrosscoderTrainer.load_state: expected the same settings, got other {changed}"
            )
        self.coder.load_state_dict(state["coder"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        self.silent = state["silent"].to(self.silent.device)


def train_crosscoder(
    config: CrosscoderConfig,
    batches: Iterable[Tensor],
    *,
    calibration: Tensor,
    generator: torch.Generator | None = None,
    folder: str | Path | None = None,
    on_record: Callable[[dict[str, Any]], None] | None = None,
) -> tuple[Crosscoder, list[dict[str, Any]]]:
    """Train for ``config.steps`` batches; the coder and a record every ``log_every`` steps.

    batches : ``[batch_size, I, d]`` activations, as many as there are steps.
    calibration : ``[N, I, d]`` activations that fix the normalisation and the decoder's bias.
    folder : keeps ``training_state.pt``, replaced whole every ``checkpoint_every`` steps and at
        the end. When it is there, training continues from it: ``batches`` must then be the same
        stream from its beginning, of which the part already seen is skipped; the result is the
        same, bit for bit.
    """
    trainer = CrosscoderTrainer(config, calibration, generator=generator)
    history: list[dict[str, Any]] = []
    path = None if folder is None else Path(folder) / STATE
    if path is not None and path.exists():
        state = torch.load(path, map_location=calibration.device, weights_only=True)
        trainer.load_state(state)
        history = state["history"]
    # A finished training takes nothing from the stream.
    rest = islice(batches, trainer.step, config.steps) if trainer.step < config.steps else ()
    for batch in rest:
        terms = trainer.train_step(batch)
        last = trainer.step == config.steps
        if last or trainer.step % config.log_every == 0:
            record: dict[str, Any] = {"step": trainer.step, "tokens": trainer.step * len(batch)}
            record |= {name: float(term) for name, term in terms.items()}
            record["dead_fraction"] = float(trainer.dead.double().mean())
            record["threshold"] = float(trainer.coder.threshold)
            history.append(record)
            if on_record is not None:
                on_record(record)
        if path is not None and (last or trainer.step % config.checkpoint_every == 0):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.new")
            torch.save(trainer.state() | {"history": history}, temporary)
            os.replace(temporary, path)
    if trainer.step < config.steps:
        raise ValueError(
            f"train_crosscoder: batches: expected {config.steps} batches, the stream ended after "
            f"{trainer.step}"
        )
    return trainer.coder.eval().requires_grad_(False), history
