"""The command ``hyperstreams``: finds the sub-command, runs it, words what went wrong.

Each sub-command is a function ``main(arguments) -> exit status`` in a module that is imported only
when it is asked for.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

COMMANDS = {
    "train": ("hyperstreams.cli_train", "train a model from TOML files and --key value settings"),
    "eval": ("hyperstreams.cli_eval", "validation loss of a trained run"),
    "sample": ("hyperstreams.cli_sample", "text from a trained run"),
    "compare": ("hyperstreams.cli_compare", "several connections x seeds, same data, one table"),
    "crosscoder": ("hyperstreams.cli_crosscoder", "sparse crosscoders on the streams of a run"),
    "figure": ("hyperstreams.cli_figure", "draw a figure from trained runs"),
    "reproduce": ("hyperstreams.cli_reproduce", "every figure at a scale, claims, report.html"),
    "demo": ("hyperstreams.reproduce.demo", "train four small models and write report.html"),
    "prepare": ("hyperstreams.cli_prepare", "tokenise a text into a memory-mapped folder"),
    "list": ("hyperstreams.cli_list", "names: connections, mixers, expansions, presets, ..."),
    "test-mixer": ("hyperstreams.cli_test_mixer", "test a mixer of your own, or a registered one"),
    "doctor": ("hyperstreams.doctor", "versions, what is loaded and why not, a self-test"),
}
"""Module and one-line help of every sub-command."""

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


def usage() -> str:
    """What ``hyperstreams --help`` prints."""
    width = max(map(len, COMMANDS))
    return "\n".join(
        [
            "usage: hyperstreams COMMAND ...",
            "",
            "Multi-stream residual networks (Hyper-Connections).",
            "",
            *(f"  {name.ljust(width)}  {text}" for name, (_, text) in COMMANDS.items()),
            "",
            "  hyperstreams COMMAND --help   options and examples of a command",
            "  hyperstreams --version",
            "",
            "example: hyperstreams train --connection mhc_lite --expand learned_scale --steps 500",
            "",
            "exit status: 0 done, 1 failed while running, 2 wrong settings or data,",
            "130 or 143 stopped by a signal",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (default: the process's) and return its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return OK if words else USAGE
    if words[0] == "--version":
        from . import __version__

        print(f"hyperstreams {__version__}")
        return OK
    name, *rest = words
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(COMMANDS)}"
        print(f"hyperstreams: unknown command {name!r}; {hint}", file=sys.stderr)
        return USAGE
    return _run(name, rest)


def _run(name: str, arguments: list[str]) -> int:
    try:
        status: int = import_module(COMMANDS[name][0]).main(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print(f"hyperstreams {name}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has seen enough; keep the interpreter from flushing once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except OSError as error:  # a full disk, a folder without permission: the message names it
        print(f"hyperstreams {name}: {error}", file=sys.stderr)
        return FAILED
    except (ValueError, RuntimeError) as error:
        # Imported only here: `doctor` has to run where the rest of the package does not load.
        from .train.errors import NonFiniteError, RunError

        if not isinstance(error, (RunError, NonFiniteError)):
            raise
        print(f"hyperstreams {name}: {error}", file=sys.stderr)
        return FAILED if isinstance(error, NonFiniteError) else USAGE
    return status
