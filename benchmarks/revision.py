"""Another revision of the package, built for a comparison."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILT = ROOT / "build" / "compare"


def _git(*arguments: str, silent: str = "failed") -> str:
    """What git says; ``silent``: the reason of a failure of which it says nothing."""
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip()
        reason = f"git {' '.join(arguments)}: {said}" if said else silent
        raise ValueError(f"--compare: {reason}")
    return done.stdout.strip()


def commit_of(revision: str) -> str:
    """The full name of a commit; ValueError where git knows none."""
    return _git(
        *("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}"),
        silent=f"expected a revision that git knows, got {revision!r}",
    )


def built(revision: str) -> Path:
    """A folder with the package of ``revision`` and its libraries, to be put on ``PYTHONPATH``.

    It is made once for each commit, in a git worktree that is removed afterwards, and kept in
    ``build/compare/<commit>``.
    """
    commit = commit_of(revision)
    kept = BUILT / commit
    if list(kept.glob("hyperstreams/_C*.so")):
        return kept
    with tempfile.TemporaryDirectory() as work:
        tree = Path(work) / "tree"
        _git("worktree", "add", "--detach", str(tree), commit)
        try:
            print(f"building {revision} ({commit[:12]})", flush=True)
            _build(tree, Path(work) / "build")
            unfinished = BUILT / f"{commit}.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            shutil.copytree(tree / "python", unfinished)
            unfinished.rename(kept)
        finally:
            _git("worktree", "remove", "--force", str(tree))
    return kept


def _build(tree: Path, folder: Path) -> None:
    environment = dict(os.environ)
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    configure = [
        *("cmake", "-G", "Ninja", "-S", str(tree), "-B", str(folder)),
        *("-DCMAKE_BUILD_TYPE=Release", "-DHYPERSTREAMS_INPLACE=ON", "-DHYPERSTREAMS_INFO=OFF"),
        f"-DPython_EXECUTABLE={sys.executable}",
    ]
    for command in (configure, ["cmake", "--build", str(folder), "--parallel", "2"]):
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            end = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
            raise ValueError(f"--compare: {' '.join(command)}: {end}")
