"""``hyperstreams sample``."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .cli_settings import Parser
from .train import RunError, load_run


def main(arguments: Sequence[str]) -> int:
    """Print text that a trained run continues a prompt with."""
    parser = Parser(
        "sample",
        description="Continue a prompt with a trained model. Equal seeds give equal text.",
        examples=["hyperstreams sample runs/mine --prompt 'def main(' --tokens 300 --top_k 40"],
    )
    parser.add_argument("run", help="run directory")
    parser.add_argument("--prompt", default="\n", help="default: a line break")
    parser.add_argument("--tokens", type=int, default=200, help="new tokens, default %(default)s")
    parser.add_argument(
        "--temperature",
        type=float,
        default=0.8,
        help="default %(default)s; 0 always takes the most likely token",
    )
    parser.add_argument("--top_k", type=int, help="sample among the k most likely (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    parser.add_argument("--device", default="cpu", help="default %(default)s")
    options = parser.parse_args(arguments)
    if options.tokens < 1:
        raise RunError(f"--tokens: expected at least 1, got {options.tokens}")
    if options.temperature < 0:
        raise RunError(f"--temperature: expected at least 0, got {options.temperature}")
    if options.top_k is not None and options.top_k < 1:
        raise RunError(f"--top_k: expected at least 1, got {options.top_k}")
    run = load_run(options.run, device=options.device)
    prompt = run.tokenizer.encode(options.prompt)
    if prompt.numel() == 0:
        raise RunError("--prompt: expected at least one token, got none")
    tokens = run.model.generate(
        prompt[None].to(options.device),
        options.tokens,
        temperature=options.temperature,
        top_k=options.top_k,
        generator=torch.Generator(options.device).manual_seed(options.seed),
    )
    print(run.tokenizer.decode(tokens[0].cpu()))
    return 0
