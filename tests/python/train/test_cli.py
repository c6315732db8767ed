"""The command line: what it prints, what it writes, and how it says no."""

from __future__ import annotations

import errno
import json
import math
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import hyperstreams
import pytest
import torch
from hyperstreams.cli import COMMANDS, main
from hyperstreams.cli_compare import every_connection, parse_seeds

Capture = pytest.CaptureFixture[str]
Command = tuple[list[str], dict[str, str]]


def words_of(settings: dict[str, Any]) -> list[str]:
    return [word for name, value in settings.items() for word in (f"--{name}", str(value))]


@pytest.fixture
def run_dir(micro: dict[str, Any], capsys: Capture) -> Path:
    assert main(["train", *words_of(micro), "--quiet"]) == 0
    capsys.readouterr()
    return Path(micro["out_dir"])


def test_module_is_the_command(command: Command) -> None:
    words, environment = command
    done = subprocess.run([*words, "--version"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout == f"hyperstreams {hyperstreams.__version__}\n"


def test_importing_train_needs_no_extra(command: Command) -> None:
    code = (
        "import sys\n"
        "for name in ('safetensors', 'tqdm', 'tiktoken', 'matplotlib', 'numpy'):\n"
        "    sys.modules[name] = None\n"
        "import warnings; warnings.simplefilter('ignore')\n"
        "import hyperstreams.train\n"
        "data = hyperstreams.train.open_data('builtin', block_size=8)\n"
        "assert data.train_batch(0, 2, seed=0)[0].shape == (2, 8)\n"
    )
    environment = command[1]
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_help_names_every_command(capsys: Capture) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS)
    assert main([]) == 2


@pytest.mark.parametrize(
    "name", ["train", "eval", "sample", "compare", "figure", "prepare", "list", "test-mixer"]
)
def test_every_command_has_help_with_examples(name: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        main([name, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: hyperstreams {name}" in text
    assert f"  hyperstreams {name}" in text.partition("examples:")[2]


def test_every_command_has_a_main() -> None:
    for module, _ in COMMANDS.values():
        assert callable(import_module(module).main)


def test_train_prints_the_result(micro: dict[str, Any], tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "micro.toml"
    text = "\n".join(f"{name} = {json.dumps(value)}" for name, value in micro.items())
    file.write_text(text)
    assert main(["train", str(file), "--connection=hc", "--batch-size", "3"]) == 0
    printed = capsys.readouterr()
    assert "step 12: validation loss" in printed.out
    assert f"run directory  {micro['out_dir']}" in printed.out
    stored = json.loads((Path(micro["out_dir"]) / "config.json").read_text())
    assert (stored["connection"], stored["batch_size"]) == ("hc", 3)
    assert main(["train", str(file), "--connection=hc", "--batch-size", "3"]) == 2
    assert "--resume" in capsys.readouterr().err
    assert main(["train", str(file), "--connection=hc", "--batch-size", "3", "--resume"]) == 0


def test_eval(run_dir: Path, capsys: Capture) -> None:
    assert main(["eval", str(run_dir), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    summary = json.loads((run_dir / "summary.json").read_text())
    assert record["nats_per_token"] == pytest.approx(summary["final_eval_loss"], rel=1e-6)
    assert record["step"] == 12
    words = ["--protocol", "full", "--stride", "8"]
    assert main(["eval", str(run_dir), *words]) == 0
    assert "every token, stride 8" in capsys.readouterr().out
    words = ["--protocol", "released", "--batches", "3", "--batch_size", "2", "--json"]
    assert main(["eval", str(run_dir), *words]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["coverage"] == "3 batches of 2 x 16 random windows, seed 1337"
    assert record["perplexity"] == pytest.approx(math.exp(record["nats_per_token"]))
    assert 0 < record["standard_error"] < 1
    assert main(["eval", str(run_dir), "--stride", "8"]) == 2
    assert "--stride: only with --protocol full" in capsys.readouterr().err


def test_eval_on_another_text(
    run_dir: Path, text_file: Path, tmp_path: Path, capsys: Capture
) -> None:
    folder = tmp_path / "tokens"
    for tokenizer in ("char", "byte"):
        assert main(["prepare", str(text_file), str(folder), "--tokenizer", tokenizer]) == 0
        capsys.readouterr()
        status = main(["eval", str(run_dir), "--dataset", str(folder), "--json"])
        if tokenizer == "char":
            assert status == 2
            assert "its tokens are 'char', tokenizer says 'byte'" in capsys.readouterr().err
            shutil.rmtree(folder)
    other = json.loads(capsys.readouterr().out)
    assert main(["eval", str(run_dir), "--json"]) == 0
    own = json.loads(capsys.readouterr().out)
    assert other["nats_per_token"] == own["nats_per_token"]  # the same text, tokenised ahead
    assert main(["eval", str(run_dir), "--split", "test"]) == 2
    assert "expected a split of train, val, got 'test'" in capsys.readouterr().err


def test_sample_follows_its_seed(run_dir: Path, capsys: Capture) -> None:
    texts = []
    for seed in ("1", "1", "2"):
        words = ["--prompt", "stream", "--tokens", "40", "--top_k", "50", "--seed", seed]
        assert main(["sample", str(run_dir), *words]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]
    assert texts[0].startswith("stream")


def test_compare(micro: dict[str, Any], tmp_path: Path, capsys: Capture) -> None:
    del micro["out_dir"]
    out = tmp_path / "compared"
    words = ["--connections", "residual,mhc_lite", "--seeds", "2", "--out", str(out), "--quiet"]
    assert main(["compare", *words, *words_of({**micro, "steps": 2})]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["connection", "seeds"]
    assert [line.split()[0] for line in lines[1:3]] == ["residual", "mhc_lite"]
    row = json.loads((out / "compare.json").read_text())["rows"][1]
    # At two steps of training reads and writes are nearly those of the initial values.
    assert 1 < row["read_effective_streams"] <= 2
    assert 1 < row["write_effective_streams"] <= 2
    assert 0 < row["off_diagonal_mass"] < 1

    assert row["off_diagonal_mass_initial"] == pytest.approx(row["off_diagonal_mass"], rel=0.2)
    assert "(" in lines[2]
    assert "(" not in lines[1]
    for suffix in ("png", "pdf"):
        assert (out / f"compare.{suffix}").stat().st_size > 5000


def test_all_connections_that_exist_for_the_sizes(capsys: Capture) -> None:
    assert every_connection(["hc", "mhc+n_streams=2"], {}) == ["hc", "mhc+n_streams=2"]
    names = every_connection(["hc", "all"], {"n_streams": 3})
    assert names[0] == "hc"
    assert {"residual", "mhc", "shc", "frac", "altup"} <= set(names)
    assert len(names) == len(set(names))
    assert "vwn" not in names
    assert not {"denseformer_4x5", "attention_residual_block"} & set(names)
    printed = capsys.readouterr().err
    assert "left out: connection 'vwn': n_streams" in printed
    assert "left out: connection 'denseformer_4x5': n_sites: expected at least period=5" in printed
    assert "frac" not in every_connection(["all"], {"expand": "learned_scale"})
    assert "left out: GPTConfig: expand: expected 'replicate' with" in capsys.readouterr().err


def test_seeds() -> None:
    assert parse_seeds("3") == [0, 1, 2]
    assert parse_seeds("4,2") == [4, 2]
    assert parse_seeds("4,") == [4]


def test_prepare_and_train_on_the_folder(
    micro: dict[str, Any], tmp_path: Path, capsys: Capture
) -> None:
    folder = tmp_path / "tokens"
    assert main(["prepare", micro["dataset"], str(folder), "--tokenizer", "char"]) == 0
    assert "tokens: 18,000 train, 2,000 val" in capsys.readouterr().out
    assert main(["train", *words_of({**micro, "dataset": folder, "steps": 2})]) == 0
    stored = json.loads((Path(micro["out_dir"]) / "config.json").read_text())
    alphabet = set(Path(micro["dataset"]).read_text(encoding="utf-8"))
    assert stored["vocab_size"] == len(alphabet)


@pytest.mark.parametrize(
    "kind", ["connections", "mixers", "inits", "dialects", "presets", "figures", "datasets"]
)
def test_list(kind: str, capsys: Capture) -> None:
    assert main(["list", kind]) == 0
    known = {
        "connections": "mhc_lite",
        "mixers": "permutation",
        "inits": "expand=learned_scale",
        "dialects": "deepseek_v4",
        "presets": "tiny",
        "figures": "fig2",
        "datasets": "builtin",
    }
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert known[kind] in names


def test_full_disk_is_one_line(
    micro: dict[str, Any], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "training_state.pt")

    monkeypatch.setattr(torch, "save", full)
    assert main(["train", *words_of(micro), "--quiet"]) == 1
    assert "No space left on device: 'training_state.pt'" in capsys.readouterr().err


def test_numbers_gone_bad_are_one_line(micro: dict[str, Any], capsys: Capture) -> None:
    words = ["--lr", "1e25", "--min_lr", "0", "--grad_clip", "none", "--quiet"]
    assert main(["train", *words_of(micro), *words]) == 1
    printed = capsys.readouterr().err
    assert "not finite at step" in printed
    assert "first module to blame" in printed
    assert len(printed.splitlines()) == 1


def test_run_directory_that_cannot_be_made(
    micro: dict[str, Any], tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "file").write_text("")
    micro["out_dir"] = tmp_path / "file" / "run"
    assert main(["train", *words_of(micro)]) == 2
    assert "cannot be made (Not a directory)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "unknown command 'trian'; did you mean 'train'?"),
        (["train", "--stepz", "3"], "unknown option '--stepz'; did you mean '--steps'?"),
        (["train", "--stepz=3"], "unknown option '--stepz'; did you mean '--steps'?"),
        (["train", "--steps", "x"], "steps: expected int, got 'x'"),
        (["train", "--steps"], "--steps: expected one argument"),
        (["train", "none.toml"], "none.toml: no such config file"),
        (["train", "--dataset", "none.txt"], "dataset none.txt: expected 'builtin'"),
        (["train", "--connection", "mhc_lit"], "did you mean 'mhc_lite'"),
        (["eval"], "the following arguments are required: run"),
        (["eval", "none"], "none: not a run directory"),
        (["eval", "none", "--stride", "3"], "--stride: only with --protocol full"),
        (["sample", "none", "--temperature", "-1"], "--temperature: expected at least 0"),
        (["compare", "--connections", "hc", "--seeds", "x"], "--seeds: expected a count"),
        (["compare", "--connections", "hc", "--seed", "1"], "seed: compare sets it"),
        (["compare", "--connections", "hc+x"], "unknown addition 'x'"),
        (["prepare", "none.txt", "out"], "none.txt"),
        (["list", "conections"], "invalid choice"),
        (["figure", "fig0", "--run", "none"], "figure: unknown name 'fig0'"),
        (["figure", "fig2", "--run", "none"], "none: not a run directory"),
        (["figure", "fig2", "--scale", "huge"], "scale: expected one of smoke, tiny, small"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_problems_are_one_or_two_lines(words: list[str], message: str, capsys: Capture) -> None:
    assert main(words) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.out == ""
    assert printed.err.startswith("hyperstreams")
    assert len(printed.err.splitlines()) <= 2
