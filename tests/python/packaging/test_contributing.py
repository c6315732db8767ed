"""CONTRIBUTING.md is followed to the letter: its mixer is added, its files and commands exist."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
CREATED = "python/hyperstreams/mixers/averaging.py"


def section(title: str) -> str:
    return re.split(r"^## ", TEXT.partition(f"## {title}\n")[2], flags=re.MULTILINE)[0]


def paths(text: str) -> set[str]:
    found = re.findall(r"`([\w./-]+/[\w./-]+\.(?:py|h|cpp|cu|toml|md))`", text)
    return set(found)


def test_named_files_exist() -> None:
    assert len(paths(TEXT)) >= 18
    assert {path for path in paths(TEXT) if not (ROOT / path).is_file()} == {CREATED}


def test_op_steps_name_every_file_of_the_stem() -> None:
    named = {path for path in paths(section("Add an op")) if Path(path).stem.endswith("read")}
    there = set()
    for folder in ("csrc", "tests/cpp", "python/hyperstreams"):
        for pattern in ("**/read.*", "**/test_read.cpp", "**/test_cuda_read.cpp"):
            there |= {p.relative_to(ROOT).as_posix() for p in (ROOT / folder).glob(pattern)}
    assert {path for path in there if "__pycache__" not in path} == named


def test_commands_are_targets() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"`make ([\w-]+)", TEXT)):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_following_add_a_mixer(tmp_path: Path) -> None:
    ignore = shutil.ignore_patterns("__pycache__", "_info*")
    package = tmp_path / "hyperstreams"
    shutil.copytree(ROOT / "python" / "hyperstreams", package, ignore=ignore)
    steps = section("Add a mixer")
    # 1. the file
    (code,) = re.findall(r"```python\n(.*?)```", steps, flags=re.DOTALL)
    (tmp_path / CREATED.removeprefix("python/")).write_text(textwrap.dedent(code))
    # 2. the registry: import, MIXERS, __all__
    registry = package / "mixers" / "__init__.py"
    text = registry.read_text(encoding="utf-8")
    for old, new in (
        (
            "from .permutation import",
            "from .averaging import Averaging\nfrom .permutation import",
        ),
        ("        Identity,\n", "        Averaging,\n        Identity,\n"),
        ('    "Sinkhorn",\n', '    "Averaging",\n    "Sinkhorn",\n'),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    registry.write_text(text, encoding="utf-8")
    # 3. a connection
    connections = package / "nn" / "variants" / "mhc.py"
    text = connections.read_text(encoding="utf-8")
    mark = '    ConnectionConfig(\n        name="mhc",\n'
    assert text.count(mark) == 1
    mine = '    ConnectionConfig(name="mine", paper="-", mixer=get_mixer("averaging")),\n'
    text = text.replace(mark, mine + mark)
    text = text.replace("from ...mixers import ", "from ...mixers import get_mixer, ", 1)
    connections.write_text(text, encoding="utf-8")

    use = """
import torch
import hyperstreams as hs
from hyperstreams.mixers import Averaging, get_mixer

mixer = get_mixer("averaging")
assert mixer == Averaging()
h_res = mixer.map(torch.randn(5, 1), 4)
assert torch.allclose(h_res.sum(-1), torch.ones(5, 4))
config = hs.GPTConfig(
    n_layer=2, n_head=2, width=16, block_size=8, vocab_size=11, n_streams=3, connection="mine"
)
model = hs.GPT(config, generator=torch.Generator().manual_seed(0))
tokens = torch.arange(8).remainder(11).unsqueeze(0)
logits, loss = model(tokens, tokens)
loss.backward()
assert torch.isfinite(loss)
assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
"""
    sites = {str(Path(torch.__file__).parents[1]), sysconfig.get_path("platlib")}
    done = subprocess.run(
        [sys.executable, "-S", "-c", use],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sites])},
    )
    assert done.returncode == 0, done.stderr
