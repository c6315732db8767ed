"""The report: complete, self-contained, and honest about one seed; the demo around it."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from hyperstreams.diagnostics import Trace
from hyperstreams.reproduce import demo, four_kinds, html
from hyperstreams.reproduce.progress import Progress, duration
from hyperstreams.reproduce.report import write_report
from hyperstreams.train import RunError, TrainConfig

VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Checks that tags are balanced and collects addresses, ids and text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.ids: set[str] = set()
        self.text = ""
        self.tags: set[str] = set()
        self.feed(source)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.add(tag)
        self.addresses += [v for k, v in values.items() if k in ("src", "href") and v]
        if values.get("id"):
            self.ids.add(str(values["id"]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


@pytest.fixture(scope="module")
def report(run_dirs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    return write_report(list(run_dirs.values()), out, command=["hyperstreams", "demo"])


def test_report_holds_everything_and_needs_nothing(report: Path) -> None:
    source = report.read_text()
    page = Page(source)
    wanted = {
        "findings",
        "table",
        "collapse",
        "loss-curves",
        "loss",
        "fig1",
        "fig2",
        "fig3",
        "fig4",
        "method",
    }
    assert wanted <= page.ids
    inside = [address for address in page.addresses if address.startswith("#")]
    assert {address[1:] for address in inside} <= page.ids
    others = [address for address in page.addresses if not address.startswith("#")]
    assert len([a for a in others if a.startswith("data:image/png;base64,")]) == 5
    assert all(address.startswith("data:") for address in others)
    assert not page.tags & {"script", "link", "iframe"}
    style = source[source.index("<style>") : source.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_report_text(report: Path, run_dirs: dict[str, Path]) -> None:
    text = Page(report.read_text()).text
    for words in (
        "residual, mHC, mHC-lite and mHC-lite + LSS",
        "6 steps of 64 tokens",
        "one seed each",
        "mean_of_ratios",
        "hyperstreams demo",
    ):
        assert words in text
    environment = json.loads((run_dirs["mhc"] / "environment.json").read_text())
    assert environment["torch"] in text
    assert str(environment["platform"]) in text


def test_every_difference_between_models_is_inconclusive_with_one_seed(report: Path) -> None:
    verdicts = json.loads((report.parent / "verdicts.json").read_text())
    between = [verdict for verdict in verdicts if " vs " in verdict["about"]]
    assert len(between) == 6
    assert {verdict["outcome"] for verdict in between} == {"inconclusive"}
    assert len([v for v in verdicts if v["about"] == "mHC-lite"]) == 5


def test_comparison_table(report: Path, run_dirs: dict[str, Path]) -> None:
    rows = list(csv.DictReader((report.parent / "comparison.csv").read_text().splitlines()))
    assert [row["run"] for row in rows] == ["residual", "mHC", "mHC-lite", "mHC-lite + LSS"]
    for row, name in zip(rows, run_dirs, strict=True):
        summary = json.loads((run_dirs[name] / "summary.json").read_text())
        assert float(row["loss"]) == summary["final_eval_nats_per_byte"]
        assert int(row["parameters"]) == summary["n_parameters"]
        assert float(row["ms_per_step"]) == summary["ms_per_step_median"]
    assert rows[0]["read_dominance"] == ""
    assert float(rows[1]["read_effective_streams_initial"]) == pytest.approx(3.555, abs=0.01)
    # mHC-lite starts at 0.00599 everywhere; the first site counts only where it has an effect.
    assert float(rows[2]["off_diagonal_mass_initial"]) == pytest.approx(0.00599, abs=2e-4)


def test_four_kinds_of_collapse_side_by_side(report: Path) -> None:
    rows = list(csv.DictReader((report.parent / "collapse.csv").read_text().splitlines()))
    # The residual network has no streams; every other run has all kinds and measures.
    assert list(dict.fromkeys(row["run"] for row in rows)) == ["mHC", "mHC-lite", "mHC-lite + LSS"]
    assert len({(row["run"], row["measure"]) for row in rows}) == len(rows) == 3 * 11
    for run in ("mHC", "mHC-lite"):
        kinds = dict.fromkeys(row["kind"] for row in rows if row["run"] == run)
        assert list(kinds) == ["usage", "averaging", "redundancy", "causal"]
    by_measure = {(row["run"], row["measure"]): row for row in rows}
    start = by_measure["mHC", "read_effective_streams"]
    assert float(start["initial"]) == pytest.approx(3.555, abs=0.01)
    assert by_measure["mHC", "contraction"]["null"] == ""
    text = Page(report.read_text()).text
    for words in ("Usage: Do reads", "Averaging: Do", "Redundancy: Are", "Causal: Does"):
        assert words in text


def test_runs_that_cannot_be_traced_are_left_out() -> None:
    class Untraceable:
        has_streams, label = True, "AltUp"

        @property
        def trained_trace(self) -> Trace:
            raise RunError("no such points")

    assert four_kinds.reports_of([Untraceable()]) == {}  # type: ignore[list-item]


def test_downloads_are_the_files_beside_the_page(report: Path) -> None:
    addresses = Page(report.read_text()).addresses
    tables = [a for a in addresses if a.startswith("data:text/csv;base64,")]
    assert len(tables) == 5
    contents = {base64.b64decode(a.partition(",")[2]) for a in tables}
    figures = report.parent / "figures"
    assert contents == {path.read_bytes() for path in figures.glob("*.csv")}


def test_text_is_escaped() -> None:
    assert "<script>" not in html.facts({"cpu": "<script>x</script>"})
    assert html.minus("change -0.5 ± 0.1, mhc-lite, 3e-4") == "change −0.5 ± 0.1, mhc-lite, 3e-4"


def test_demo_trains_reports_and_reuses(
    tmp_path: Path,
    make_config: Callable[[Path, str], TrainConfig],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    configs = [make_config(tmp_path, name) for name in ("residual", "lss")]
    monkeypatch.setattr(demo, "demo_configs", lambda out, **_: configs)
    torch.set_num_threads(1)
    assert demo.main(["--quick", "--out", str(tmp_path / "out")]) == 0
    first = capsys.readouterr()
    report = tmp_path / "out" / "report.html"
    assert report.is_file()
    assert report.as_uri() in first.out
    assert "[2/2] mHC-lite + LSS" in first.err
    assert "left" in first.err
    logs = [(tmp_path / f"{name}-0" / "metrics.jsonl") for name in ("residual", "lss")]
    stamps = [log.stat().st_mtime_ns for log in logs]
    monkeypatch.setattr(demo, "write_report", lambda *_, **__: report)
    assert demo.main(["--quick", "--out", str(tmp_path / "out")]) == 0
    assert [log.stat().st_mtime_ns for log in logs] == stamps


def test_demo_settings() -> None:
    configs = demo.demo_configs("runs/demo", steps=1500)
    described = [(c.model.connection, c.model.expand) for c in configs]
    assert described == [
        ("residual", "replicate"),
        ("mhc", "replicate"),
        ("mhc_lite", "replicate"),
        ("mhc_lite", "learned_scale"),
    ]
    assert len({c.out_dir for c in configs}) == 4
    for config in configs:
        assert config.batch_size * config.accumulation * config.model.block_size == 2048
        assert (config.lr, config.seed, config.dataset) == (5e-3, 0, "builtin")
        assert (config.model.n_layer, config.model.width) == (4, 96)
    again = demo.demo_configs("runs/demo", steps=1500)
    assert [c.out_dir for c in again] == [c.out_dir for c in configs]
    other = demo.demo_configs("runs/demo", steps=250)
    assert not {c.out_dir for c in other} & {c.out_dir for c in configs}
    assert len(demo.demo_configs("runs/demo", steps=10, seeds=2)) == 8
    with pytest.raises(RunError, match="expected at least 1"):
        demo.main(["--seeds", "0"])


def test_time_left_adds_up() -> None:
    now = 0.0
    stream = io.StringIO()
    progress = Progress(["a", "b"], [1.0, 2.0], 100, closing=10.0, stream=stream, clock=lambda: now)
    record = progress.start(0)
    record({"kind": "eval", "step": 0, "loss": 5.0})
    assert progress.remaining(0) is None
    now = 5.0
    record({"kind": "eval", "step": 10, "loss": 4.0})
    # 0.5 s a step: 90 left of a, 100 of b at a guessed 1 s, 10 s for the report.
    assert progress.remaining(10) == pytest.approx((45, 45 + 100 + 10))
    record = progress.start(1)
    record({"kind": "eval", "step": 0, "loss": 5.0})
    now = 25.0
    record({"kind": "eval", "step": 50, "loss": 3.0})
    assert progress.remaining(50) == pytest.approx((50 * 0.4, 50 * 0.4 + 10))
    assert re.search(r"\[2/2\] b +step +50/100 .* left: 20 s, all 30 s", stream.getvalue())
    assert duration(89.6) == "90 s"
    assert duration(360) == "6 min"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_keeps_one_line_per_run() -> None:
    terminal = Terminal()
    progress = Progress(["mHC-lite + LSS"], [1.0], 1500, stream=terminal, clock=lambda: 0.0)
    record = progress.start(0)
    for step in (0, 10, 1500):
        record({"kind": "train", "step": step, "loss": 2.0})
    progress.finish("finished")
    text = terminal.getvalue()
    assert text.count("\n") == 1
    assert text.count("\r") == 4
    assert all(len(part) <= 79 for part in text.split("\r"))


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_long_line_leaves_no_tail(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    now, terminal = 0.0, Terminal()
    progress = Progress(["mhc_lite+lss seed 3"], [1.0], 30000, stream=terminal, clock=lambda: now)
    record = progress.start(0)
    record({"kind": "train", "step": 0, "loss": 2.0})
    now = 85.0
    record({"kind": "train", "step": 100, "loss": 2.0})
    record({"kind": "train", "step": 30000, "loss": 2.0})
    progress.finish("finished")
    start = "[1/1] mhc_lite+lss seed 3 step"
    texts = [
        f"{start}     0/30000  train loss 2.000",
        f"{start}   100/30000  train loss 2.000  left: 7.06 h, all 7.06 h",
        f"{start} 30000/30000  train loss 2.000  left: 0 s, all 0 s",
        "finished",
    ]
    assert len(texts[1]) > 79
    screen = ""
    for line, text in zip(terminal.getvalue()[1:].split("\r"), texts, strict=True):
        line = line.removesuffix("\n")
        assert len(line) < columns
        screen = line + screen[len(line) :]
        assert screen.rstrip() == text[: columns - 1].rstrip()
