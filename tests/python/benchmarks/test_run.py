"""The registry, and runs of tiny cases from the command line to the files."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import compare, own_tests, peers, registry, revision, work, worker
from benchmarks.case import BASELINES, Absent, Case, Gate, Workload
from benchmarks.cases.sites import boundary, inputs_of, sublayer
from benchmarks.measure import numbers
from benchmarks.peers import SiteSpec
from benchmarks.plot import FIRST_GROUPS, MOST_ROWS, draw, figure_of, rows
from benchmarks.problem import BOTH, FORWARD, RECORDED
from benchmarks.processes import python
from benchmarks.report import COSTS
from benchmarks.roofline import Roof

ROOT = Path(__file__).resolve().parents[3]
TINY = "host/read/forward"
PLATFORM = r"\w+ [\d.]+ \w+"
"""System, the numbers of its version and machine."""


def names(*patterns: str) -> list[str]:
    return [case.name for case in registry.select(registry.all_cases(), patterns)]


def test_patterns_are_names_beginnings_and_shell_patterns() -> None:
    assert names(TINY) == [TINY]
    assert names("host/read") == [f"host/read/{mode}" for mode in (FORWARD, RECORDED, BOTH)]
    assert {name.split("/")[0] for name in names("host", "step")} == {"host", "step"}
    assert all("bfloat16" in name for name in names("*bfloat16*"))
    assert len(names("boundary/*/4096x384/float32/forward")) == 3
    assert len(names()) == len(set(names())) > 100


def test_a_pattern_that_matches_nothing_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="did you mean 'boundary'"):
        names("boundery")
    with pytest.raises(SystemExit):
        command.main(["--only", "nothing", "--list"])
    assert "expected a pattern" in capsys.readouterr().err


def test_every_op_and_fused_mixer_has_cases() -> None:
    groups = {name.split("/")[0] for name in names()}
    assert groups >= {"read", "mix_write", "project", "coefficients", "expand", "stream_stats"}
    assert groups >= {"boundary", "sublayer", "small", "scaling", "isa", "host", "step", "probe"}
    mixers = {name.split("/")[1] for name in names("coefficients")}
    assert mixers >= {"identity", "free", "sinkhorn", "permutation", "kronecker", "spectral"}


def test_devices_have_their_own_cases() -> None:
    on_cpu, on_gpu = ({c.name for c in registry.all_cases(d)} for d in ("cpu", "cuda"))
    assert {name.split("/")[0] for name in on_gpu - on_cpu} == {"gpu"}
    assert {name.split("/")[0] for name in on_cpu - on_gpu} == {"isa", "scaling"}
    for width in (768, 1024, 2048, 4096):
        assert f"gpu/boundary/mhc/8192x{width}/bfloat16/{BOTH}" in on_gpu
    for case in registry.all_cases("cuda"):
        assert case.wall_clock == bool({"host", "step", "probe"} & set(case.name.split("/")))


def test_a_gpu_that_is_missing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(SystemExit):
        command.main(["--device", "cuda", "--only", "gpu/read"])
    assert "expected a device that this PyTorch sees, got cuda" in capsys.readouterr().err


def test_every_case_names_tests_that_exist() -> None:
    keys = {key for case in registry.all_cases() for key in case.tests}
    assert keys == set(own_tests.SELECTIONS)
    paths = sorted({path for s in own_tests.SELECTIONS.values() for path in s.paths})
    line, environment = python("-m", "pytest", "--collect-only", "-q", *paths)
    said = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert said.returncode == 0, said.stdout
    found = [line.split("::", 1) for line in said.stdout.splitlines() if "::" in line]
    for key, selection in own_tests.SELECTIONS.items():
        for path in selection.paths:
            assert any(where == path for where, _ in found), path
        assert any(
            where in selection.paths and selection.keyword in test for where, test in found
        ), key


def test_a_case_that_runs_a_boundary_needs_its_tests() -> None:
    for case in registry.select(registry.all_cases(), ["*boundary*", "sublayer", "step"]):
        assert "boundary" in case.tests, case.name


def test_selections_of_the_same_files_are_one_call() -> None:
    (only,) = own_tests.commands(["read", "project", "read"])
    assert only[only.index("-k") + 1] == "[read or [project"
    assert len(own_tests.commands(["read", "site"])) == 2


def test_list_measures_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list", "--only", "host/read"]) == 0
    assert capsys.readouterr().out.splitlines() == names("host/read")


def test_quick_run_writes_numbers_and_a_table(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    arguments = ["--quick", "--skip-tests", "--threads", "1", "--only", TINY, "--out", str(out)]
    assert command.main(arguments) == 0
    result = json.loads(out.read_text())
    assert result["format"] == 2
    assert result["rounds"] == command.QUICK_ROUNDS
    environment = result["environment"]
    assert environment["torch"] == torch.__version__
    assert set(environment) >= {"cpu", "started", "commit", "threads", "peers"}
    assert re.fullmatch(PLATFORM, environment["platform"])
    (record,) = result["cases"]
    assert record["name"] == TINY
    assert record["p10_ms"] <= record["median_ms"] <= record["p90_ms"]
    assert record["baselines"]["torch.add"]["ratio"] > 0
    table = out.with_suffix(".md").read_text()
    assert "| read/forward |" in table
    assert "times torch.add" in table
    if importlib.util.find_spec("matplotlib"):
        assert out.with_suffix(".png").stat().st_size > 1000


def fake_cases(*, gate: Gate | None = None, fails: bool = False) -> list[Case]:
    def build(device: torch.device) -> Workload:
        if fails:
            raise RuntimeError("no such luck")

        def absent() -> None:
            raise Absent("not here: install it")

        slow, quick = torch.zeros(200_000), torch.zeros(10)
        return Workload(lambda: slow + 1, {"without": lambda: lambda: quick + 1, "liger": absent})

    return [Case(name="fake/case", build=build, tests=("read",), gate=gate)]


RUN = ["--quick", "--threads", "1", "--out"]


def test_red_tests_stop_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    red = tmp_path / "test_red.py"
    red.write_text("def test_red():\n    assert 1 == 2\n")
    monkeypatch.setitem(own_tests.SELECTIONS, "read", own_tests.Selection((str(red),)))
    monkeypatch.setattr(command, "all_cases", lambda device: fake_cases())
    out = tmp_path / "result.json"
    assert command.main([*RUN, str(out)]) == 1
    assert not out.exists()
    said = capsys.readouterr().err
    assert "assert 1 == 2" in said
    assert "nothing is timed" in said
    red.write_text("def test_green():\n    assert 1 == 1\n")
    assert command.main([*RUN, str(out)]) == 0
    assert out.exists()


def test_a_selection_without_tests_is_red(tmp_path: Path) -> None:
    (tmp_path / "test_none.py").write_text("")
    assert "exit status 5" in own_tests.red(["-q", str(tmp_path / "test_none.py")])


def test_what_is_missing_fails_or_is_too_dear_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "result.json"
    dear = Gate("without", every=1, limit=0.001)
    monkeypatch.setattr(command, "all_cases", lambda device: fake_cases(gate=dear))
    assert command.main(["--rounds", "5", *RUN[1:], str(out), "--skip-tests"]) == 1
    (record,) = json.loads(out.read_text())["cases"]
    assert record["notes"] == {"liger": "not here: install it"}
    assert not record["gate"]["holds"]
    assert "not here: install it (1 case)" in out.with_suffix(".md").read_text()
    assert "limit exceeded" in capsys.readouterr().err
    monkeypatch.setattr(command, "all_cases", lambda device: fake_cases(fails=True))
    assert command.main([*RUN, str(out), "--skip-tests"]) == 1
    assert json.loads(out.read_text())["cases"][0]["error"] == "RuntimeError: no such luck"


def test_a_gate_says_nothing_without_its_baseline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run.v2"
    dear = Gate("without", every=1, limit=0.001)
    monkeypatch.setattr(command, "all_cases", lambda device: fake_cases(gate=dear))
    assert command.main([*RUN, str(out), "--skip-tests", "--without", "without", "liger"]) == 0
    (record,) = json.loads((tmp_path / "run.v2.json").read_text())["cases"]
    assert record["baselines"] == {}
    assert "gate" not in record
    assert (tmp_path / "run.v2.md").exists()


def test_baselines_have_names_that_are_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(BASELINES) >= {*peers.PEERS, *COSTS}
    listed = "eager, compiled, autograd alone, transformers, lucidrains, liger, "
    listed += "transformer engine, torch.add, residual, without"
    message = f"expected any of {listed}, got 'eagre'"
    with pytest.raises(ValueError, match=f"^Workload: baselines: {re.escape(message)}$"):
        Workload(lambda: None, {"eagre": lambda: lambda: None})
    with pytest.raises(SystemExit):
        command.main(["--only", TINY, "--without", "eager", "eagre"])
    assert f"--without: {message}\n" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command.main(["--only", TINY, "--without", "eager", "--compare", "HEAD"])
    said = "--without: expected no --compare beside it, which times no baselines, got both\n"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("kind", [boundary, sublayer])
@pytest.mark.parametrize("connection", ["mhc_lite", "mhc", "hc"])
def test_sites_run_in_every_mode(kind, connection: str) -> None:
    spec = SiteSpec(
        connection=connection, tokens=3, width=5, dtype=torch.bfloat16, device=torch.device("cpu")
    )
    for mode in (FORWARD, RECORDED, BOTH):
        kind(spec, *inputs_of(spec)).call(mode)()


@pytest.mark.parametrize("kind", [peers.boundary, peers.sublayer])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", peers.PEERS)
def test_peers_run_or_say_why_not(name: str, dtype: torch.dtype, kind) -> None:
    peer = peers.PEERS[name]
    for connection in peer.connections:
        spec = SiteSpec(
            connection=connection, tokens=3, width=8, dtype=dtype, device=torch.device("cpu")
        )
        x, y = inputs_of(spec)
        try:
            problem = kind(peer(spec), x, y)
        except Absent as reason:
            pytest.skip(str(reason))
        problem.call(BOTH)()
        out = problem.function(*problem.tensors)
        assert {value.dtype for value in out if value.ndim > 2} >= {dtype}


def test_picture_of_ratios_and_curves(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="drawing needs the extra plot")
    roof = Roof({1: 1e9}, {"float32": 1e9})
    cases = []
    for axis in ("tokens", "width", "threads"):
        for value in (1, 4, 16):
            case = Case(
                name=f"scaling/{axis}/{value}",
                build=fake_cases()[0].build,
                tests=("read",),
                tokens=10,
                curve=(axis, value),
            )
            times = {"hyperstreams": [1e-3 * value, 2e-3], "eager": [3e-3, 4e-3]}
            cases.append({"name": case.name} | numbers(case, times, roof))
    roofed = Case(
        name="read/a", build=fake_cases()[0].build, tests=("read",), work=work.Work(10**6, None)
    )
    cases.append({"name": roofed.name} | numbers(roofed, times, roof))
    result = {"cases": [*cases, {"name": "a/b", "error": "gone"}]}
    draw(result, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000
    labels = [axis.get_xlabel() for axis in figure_of(result).axes if axis.get_visible()]
    assert labels == [
        "times faster than (median, 10th to 90th percentile)",
        "percent of the roof",
        *("tokens", "width", "threads"),
    ]


def test_a_full_picture_has_the_boundaries_before_the_other_cases() -> None:
    drawn = [record["name"] for record in rows([{"name": name} for name in names()])]
    first = [name for group in FIRST_GROUPS for name in names(group)]
    assert drawn[: len(first)] == first
    assert len(first) < len(drawn) == MOST_ROWS


def test_results_that_are_kept_say_where_they_come_from() -> None:
    kept = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
    assert kept
    for path in kept:
        environment = json.loads(path.read_text())["environment"]
        assert set(environment) >= {"cpu", "torch", "started", "commit", "threads", "command"}
        assert re.fullmatch(PLATFORM, environment["platform"])


def test_comparing_times_both_sides_in_turn() -> None:
    """This tree against itself: the machinery, without a build."""
    package = ROOT / "python"
    sides = {}
    try:
        for name in ("this", "other"):
            sides[name] = compare.Side(package, threads=1, device="cpu")
        record = compare.compare_case(TINY, sides, rounds=3)
        missing = compare.compare_case("host/none", sides, rounds=3)
    finally:
        for side in sides.values():
            side.close()
    assert record["ratio_p10"] <= record["ratio"] <= record["ratio_p90"]
    assert record["this"]["median_ms"] > 0
    assert "host/none" in missing["error"]
    text = compare.table([record, missing], "main")
    assert f"| {TINY} |" in text
    assert "failed: this: KeyError" in text


class FakeSide:
    """Answers as a worker does; it fails while ``host/read/forward+backward`` is timed, and stops
    when it is asked for what is no case."""

    def __init__(self, package: Path, *, threads: int, device: str) -> None:
        self.fails = False

    def ask(self, **request: str | int) -> dict[str, str | float]:
        if "case" in request:
            self.fails = request["case"] == f"host/read/{BOTH}"
            if request["case"] == "gone":
                raise ValueError("--compare: a worker stopped with status -11")
        elif self.fails:
            return {"error": "RuntimeError: no memory"}
        return {"seconds": 1e-3}

    def close(self) -> None:
        pass


def test_a_comparison_that_stops_keeps_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compare, "Side", FakeSide)
    monkeypatch.setattr(revision, "commit_of", lambda name: 40 * "0")
    monkeypatch.setattr(revision, "built", lambda name: tmp_path)
    out = tmp_path / "run.v2"
    gone = Case(name="gone", build=fake_cases()[0].build, tests=("read",))
    cases = [*registry.select(registry.all_cases(), ["host/read"]), gone]
    arguments = SimpleNamespace(compare="main", only=[], out=out, threads=1, device="cpu", rounds=2)
    assert compare.run(cases, arguments, ["python"]) == 2
    assert capsys.readouterr().err == "--compare: a worker stopped with status -11\n"
    records = json.loads((tmp_path / "run.v2.json").read_text())["cases"]
    assert [record["name"] for record in records] == names("host/read")
    assert [record.get("ratio") for record in records] == [1, 1, None]
    assert records[-1]["error"] == "this: RuntimeError: no memory"
    assert "RuntimeError: no memory" in (tmp_path / "run.v2.md").read_text()


def test_a_worker_outlives_a_call_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = worker.Worker(1, torch.device("cpu"))
    assert asked.answer({"case": TINY})["seconds"] > 0

    def fails() -> None:
        raise RuntimeError("no memory\nof 8 bytes")

    monkeypatch.setattr(asked, "call", fails)
    assert asked.answer({"repeats": 2}) == {"error": "RuntimeError: no memory"}
    assert asked.answer({"case": TINY})["seconds"] > 0
    asked.settings.close()


def test_a_package_that_the_cases_do_not_run_on_is_said(tmp_path: Path) -> None:
    (tmp_path / "hyperstreams").mkdir()
    (tmp_path / "hyperstreams" / "__init__.py").write_text("")
    with pytest.raises(ValueError, match=r"^--compare: .* got (ImportError|ModuleNotFoundError): "):
        compare.Side(tmp_path, threads=1, device="cpu")


def test_a_revision_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    if not (ROOT / ".git").exists() or subprocess.run(["git", "--version"]).returncode:
        pytest.skip("not a git checkout")
    said = "--compare: expected a revision that git knows, got 'no-such'"
    with pytest.raises(ValueError, match=f"^{said}$"):
        revision.built("no-such")
    assert command.main(["--only", TINY, "--skip-tests", "--compare", "no-such"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == said
