"""Finding the first module to blame for a loss or gradient that is not finite."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn


def first_nonfinite_module(model: nn.Module, run: Callable[[], Tensor]) -> tuple[str | None, str]:
    """Name of the first module that goes wrong while ``run()`` repeats a forward pass, and how.

    In this order: a parameter that is itself not finite; the first module, in order of execution,
    whose output is not finite (innermost first); with a finite loss, the last module in order of
    definition that gets a gradient that is not finite, which is the first one the backward pass
    meets. ``(None, reason)`` when the repetition is finite everywhere.
    """
    for name, parameter in model.named_parameters():
        if not _finite(parameter):
            return name.rpartition(".")[0] or "the model", f"parameter {name} is not finite"

    first: list[tuple[str, str]] = []

    def watch(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, inputs: object, outputs: object) -> None:
            if not first and not all(map(_finite, _tensors(outputs))):
                state = "finite" if all(map(_finite, _tensors(inputs))) else "not finite"
                first.append((name, f"output of {type(module).__name__}, its inputs are {state}"))

        return hook

    handles = [
        module.register_forward_hook(watch(name or "the model"))
        for name, module in model.named_modules()
    ]
    try:
        with torch.enable_grad():
            loss = run()
    finally:
        for handle in handles:
            handle.remove()
    if first:
        return first[0]
    if not _finite(loss):
        return "the model", "the loss"

    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss, [p for _, p in named], allow_unused=True)
    for (name, _), gradient in reversed(list(zip(named, gradients, strict=True))):
        if gradient is not None and not _finite(gradient):
            return name.rpartition(".")[0] or "the model", f"gradient of {name}"
    return None, "repeating the batch gave finite values everywhere"


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())
