"""``hyperstreams crosscoder train`` and ``hyperstreams crosscoder report``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .cli_settings import Parser
from .train import RunError

COMMANDS = ("train", "report")


def main(arguments: Sequence[str]) -> int:
    """Train sparse crosscoders on the streams of a run, or print what is there."""
    if arguments and arguments[0] in COMMANDS:
        return (_train if arguments[0] == "train" else _report)(arguments[1:])
    parser = Parser(
        "crosscoder",
        description="Sparse crosscoders on the streams of a trained run.\n\n"
        "  train   train one, with its controls\n  report  a table of those of a run",
        examples=[
            "hyperstreams crosscoder train --run runs/mine",
            "hyperstreams crosscoder report runs/mine/crosscoder",
        ],
    )
    parser.add_argument("command", choices=COMMANDS)
    parser.parse_args(arguments)
    return 0


def _layers(text: str) -> tuple[int, ...]:
    try:
        return tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected block indices such as 0,2,4, got {text!r}"
        ) from None


def _train(arguments: Sequence[str]) -> int:
    parser = Parser(
        "crosscoder train",
        description="Train a crosscoder on the streams of a trained run, and the controls it is\n"
        "read against. What is there already is kept, also that of other settings or weights;\n"
        "an interrupted training continues. Defaults depend on the width of the model.",
        examples=[
            "hyperstreams crosscoder train --run runs/mine --norm site,global",
            "hyperstreams crosscoder train --run runs/mine --activation l1 --controls none",
            "hyperstreams crosscoder train --run runs/mine --variant per_stream --layers 2",
        ],
    )
    parser.add_argument("--run", required=True, metavar="DIR", help="run directory")
    parser.add_argument("--out", metavar="DIR", help="default: RUN/crosscoder")
    parser.add_argument(
        "--variant",
        default="joint",
        help="joint | per_layer | per_stream; default %(default)s. A coder with a single site is "
        "also written in SAELens's format",
    )
    parser.add_argument("--layers", type=_layers, help="blocks, such as 0,2 (default: the even)")
    parser.add_argument("--norm", default="site,global", help="of site, global, none; %(default)s")
    parser.add_argument(
        "--controls",
        default="shuffled,identical,random_weights",
        help="besides the trained model; 'none' for no control; default %(default)s. They are "
        "trained with the first --norm",
    )
    options: dict[str, tuple[Any, str]] = {
        "activation": (str, "batch_topk | topk | l1"),
        "n_latents": (int, "size of the dictionary"),
        "k": (int, "active latents of a token; not for l1"),
        "l1_weight": (float, "weight of the L1 penalty; only for l1"),
        "l1_weighting": (str, "sum_of_norms | concatenated_norm; only for l1"),
        "steps": (int, "updates"),
        "batch_size": (int, "tokens of an update"),
        "lr": (float, "learning rate"),
        "seed": (int, "of the start, the windows and their order"),
    }
    for name, (kind, text) in options.items():
        parser.add_argument(f"--{name}", type=kind, default=argparse.SUPPRESS, help=text)
    parser.add_argument("--centre", action="store_true", help="remove the mean of every site")
    parser.add_argument("--device", default="cpu", help="default %(default)s")
    given = parser.parse_args(arguments)

    from .reproduce.crosscoder import run_job
    from .reproduce.crosscoder_jobs import CONTROLS, recipe
    from .reproduce.crosscoder_report import table
    from .reproduce.runs import open_runs

    (run,) = open_runs([given.run], device=given.device)
    if not run.has_streams:
        raise RunError(f"{run.path}: connection {run.connection!r} has no streams")
    main_job = recipe(run)
    changes = {name: getattr(given, name) for name in options if hasattr(given, name)}
    activation = changes.get("activation", main_job.config.activation)
    for name in ("k",) if activation == "l1" else ("l1_weight", "l1_weighting"):
        if name in changes:
            raise RunError(f"--{name}: has no effect with --activation {activation}")
    controls = [name for name in given.controls.split(",") if name != "none"]
    for name in controls:
        if name not in CONTROLS:
            raise RunError(f"--controls: expected some of {', '.join(CONTROLS)}, got {name!r}")
    try:
        configs = [
            replace(main_job.config, norm=norm, centre=given.centre, **changes)
            for norm in given.norm.split(",")
        ]
        job = replace(
            main_job,
            config=configs[0],
            variant=given.variant,
            layers=given.layers or main_job.layers,
        )
        job.sites(run).groups(job.variant)
    except ValueError as error:
        raise RunError(f"crosscoder train: {error}") from error
    jobs = [replace(job, config=config) for config in configs]
    jobs += [replace(job, control=control) for control in controls]
    out = Path(given.out) if given.out else run.path / "crosscoder"
    results = []
    for each in jobs:
        print(each.folder_name(run), flush=True)

        def show(coder: str, record: dict[str, Any], steps: int = each.config.steps) -> None:
            print(
                f"  {coder}  step {record['step']}/{steps}  "
                f"reconstruction {record['reconstruction']:.2f}  L0 {record['l0']:.1f}  "
                f"dead {record['dead_fraction']:.1%}",
                flush=True,
            )

        results.append(run_job(run, each, out, on_record=show))
    print(table(results))
    print(f"kept in {out}")
    return 0


def _report(arguments: Sequence[str]) -> int:
    parser = Parser(
        "crosscoder report",
        description="Print quality, shares and controls of the crosscoders in a folder.",
        examples=["hyperstreams crosscoder report runs/mine/crosscoder"],
    )
    parser.add_argument("folder", help="a run directory, or its crosscoder folder")
    given = parser.parse_args(arguments)

    from .reproduce.crosscoder_report import read_results, table

    print(table(read_results(Path(given.folder))))
    return 0
