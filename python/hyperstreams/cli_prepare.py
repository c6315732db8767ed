"""``hyperstreams prepare``."""

from __future__ import annotations

from collections.abc import Sequence

from .cli_settings import Parser
from .train import COLLECTIONS, RunError, prepare, prepare_collection
from .train.tokenizers import TOKENIZERS


def main(arguments: Sequence[str]) -> int:
    """Tokenise a text or a published collection into a folder of the memory-mapped format."""
    parser = Parser(
        "prepare",
        description="Tokenise the built-in corpus, a text file or a published collection into a "
        "folder with train.bin,\nval.bin (flat little-endian uint16, or uint32 for large "
        "vocabularies) and meta.json. A text is\ntokenised and cached without this command too. "
        "Collections are downloaded by the datasets library\n(pip install 'hyperstreams[data]') "
        "and split as published; WikiText-103 and C4 are for evaluation only.",
        examples=[
            "hyperstreams prepare input.txt data/mine --tokenizer char",
            "hyperstreams prepare --dataset tiny_shakespeare data/shakespeare",
            "hyperstreams prepare --dataset openwebtext data/owt --workers 8",
            "hyperstreams prepare --dataset wikitext103 data/wt103 "
            "--files validation=v.parquet --files test=t.parquet",
        ],
    )
    parser.usage = "hyperstreams prepare [options] (TEXT | --dataset NAME) OUT"
    parser.add_argument(
        "paths", nargs="+", metavar="TEXT OUT", help="'builtin' or a text file, and folder to make"
    )
    parser.add_argument("--dataset", metavar="NAME", help=", ".join(COLLECTIONS))
    parser.add_argument(
        "--tokenizer",
        choices=TOKENIZERS,
        help="default: byte; of a collection: the published one (gpt2; tiny_shakespeare: char)",
    )
    parser.add_argument("--val_fraction", type=float, help="of a text: its last part, default 0.1")
    parser.add_argument(
        "--files",
        action="append",
        default=[],
        metavar="[SPLIT=]FILE",
        help="of a collection: a .parquet, .jsonl, .json or .txt file to read in place of a "
        "download; may be repeated",
    )
    parser.add_argument("--revision", help="of a collection: commit or branch to download")
    parser.add_argument(
        "--workers", type=int, default=1, help="of a collection: download processes, default 1"
    )
    options = parser.parse_args(arguments)
    *text, out = options.paths
    if len(text) != (options.dataset is None):
        raise RunError("expected a text (or --dataset NAME) and the folder to make")
    if options.dataset is None:
        if options.files or options.revision:
            raise RunError("--files, --revision: only with --dataset")
        fraction = 0.1 if options.val_fraction is None else options.val_fraction
        meta = prepare(text[0], out, tokenizer=options.tokenizer or "byte", val_fraction=fraction)
    else:
        if options.val_fraction is not None:
            raise RunError("--val_fraction: not with --dataset, whose split is the published one")
        meta = prepare_collection(
            options.dataset,
            out,
            tokenizer=options.tokenizer or "auto",
            files=options.files,
            revision=options.revision,
            workers=options.workers,
            progress=True,
        )
    counts = ", ".join(f"{count:,} {split}" for split, count in meta["tokens"].items())
    print(f"{out}: tokens: {counts}")
    return 0
