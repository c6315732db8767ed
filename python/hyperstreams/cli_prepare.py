"""``hyperstreams prepare``."""

from __future__ import annotations

from collections.abc import Sequence

from .cli_settings import Parser
from .train import prepare
from .train.tokenizers import TOKENIZERS


def main(arguments: Sequence[str]) -> int:
    """Tokenise a text into a folder of the memory-mapped format."""
    parser = Parser(
        "prepare",
        description="Tokenise the built-in corpus or a text file into a folder with train.bin, "
        "val.bin (flat little-endian\nuint16, or uint32 for large vocabularies) and meta.json. "
        "Text is tokenised and cached without this\ncommand too; it is for texts that are used "
        "elsewhere or tokenised slowly.",
        examples=["hyperstreams prepare input.txt data/shakespeare --tokenizer char"],
    )
    parser.add_argument("dataset", help="'builtin' or a text file")
    parser.add_argument("out", help="folder to make")
    parser.add_argument("--tokenizer", choices=TOKENIZERS, default="byte", help="default byte")
    parser.add_argument(
        "--val_fraction", type=float, default=0.1, help="last part of a text file, default 0.1"
    )
    options = parser.parse_args(arguments)
    meta = prepare(
        options.dataset,
        options.out,
        tokenizer=options.tokenizer,
        val_fraction=options.val_fraction,
    )
    tokens = meta["tokens"]
    print(f"{options.out}: {tokens['train']:,} training and {tokens['val']:,} validation tokens")
    return 0
