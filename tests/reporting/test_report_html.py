"""The HTML report: complete, escaped, self-contained, the same each time."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from optpo.errors import RunDirectoryError
from optpo.reporting import html
from optpo.reporting.curves import pairs_of
from optpo.reporting.html import write_report

HOSTILE = "<script>alert('x')</script>"
SECTIONS = ("accuracy", "votes", "calibration", "ledger", "training")
PARTS = ("verified", "all", "centred", "clipped")
ONE_RUN = ("questions", "guards", "settings")


class Elements(HTMLParser):
    """Collects elements and attributes of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.scripts = 0
        self.svgs = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.svgs += tag == "svg"
        for name, value in attrs:
            self.attributes.append((name, value or ""))
            if name == "id":
                self.ids.append(value or "")


@pytest.fixture(scope="module")
def one(run_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return report([run_directory], tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def two(
    run_directory: Path, other_run_directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> str:
    return report([run_directory, other_run_directory], tmp_path_factory.mktemp("two"))


def report(directories: list[Path], folder: Path) -> str:
    write_report(directories, folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


def test_one_run_has_every_section(one: str) -> None:
    ids = Elements(one).ids
    assert set(SECTIONS + ONE_RUN) <= set(ids)
    assert "comparison" not in ids
    for words in ("entropy fell below 0.6", "7, 9", "objective.clip", "[0.2, 0.28]", "fewer"):
        assert words in one


def test_two_runs_stand_side_by_side(two: str) -> None:
    ids = Elements(two).ids
    assert {"comparison", "runs", *SECTIONS} <= set(ids)
    assert two.count('class="question"') == 80
    for name in ("first-run", "other-run"):
        assert two.count(name) >= 3


def test_what_was_carried_and_what_rested_is_in_the_ledger(
    fabricate: Callable[..., Path], tmp_path: Path
) -> None:
    """The ledger counts carried votes and rests; a question shows what it brought along."""
    run = fabricate(tmp_path / "run")
    for name, more in (
        ("metrics.jsonl", {"votes_carried": 31.5, "questions_rested": 7}),
        ("verdicts.jsonl", {"carried": {"41": 2.25, "42": 6.75}}),
    ):
        lines = [json.loads(line) | more for line in (run / name).read_text().splitlines()]
        (run / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = report([run], tmp_path)
    assert "carried from earlier visits: 42 × 6.8, 41 × 2.2" in page
    assert "visits that settled questions rested" in page
    assert "rested" not in report([fabricate(tmp_path / "other")], tmp_path)


def test_how_full_the_engine_was(one: str, fabricate: Callable[..., Path], tmp_path: Path) -> None:
    """Prompt tokens and slots in use are in the ledger, and a chart goes through every step's time;
    a run that did not count them has neither."""
    assert "prompts, computed once" in one
    assert re.search(r"slots of the engine in use.*?75\.0 %", one)
    assert one.count("Slots in use") >= 1
    run = fabricate(tmp_path / "run")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    old = [{name: row[name] for name in row if "slot" not in name} for row in lines]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in old))
    assert "lots in use" not in report([run], tmp_path)


def test_a_list_of_values_is_spread_over_its_step() -> None:
    """Four shares of step 3 lie at 2.125, 2.375, 2.625 and 2.875."""
    rows = [{"step": 3, "share": [1.0, 0.5, 0.5, 0.0]}, {"step": 4, "share": []}, {"step": 5}]
    assert pairs_of(rows, "step", "share") == (
        [2.125, 2.375, 2.625, 2.875], [1.0, 0.5, 0.5, 0.0],
    )  # fmt: skip


@pytest.mark.parametrize("which", ["one", "two"])
def test_data_is_escaped(which: str, request: pytest.FixtureRequest) -> None:
    """A prompt, an answer and a setting of the fabricated run hold a script."""
    page = request.getfixturevalue(which)
    assert HOSTILE not in page
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in page
    assert "<script>alert(x)</script>" not in page
    assert Elements(page).scripts == 1


@pytest.mark.parametrize("which", ["one", "two"])
def test_nothing_is_asked_of_the_network(which: str, request: pytest.FixtureRequest) -> None:
    page = request.getfixturevalue(which)
    loading = ("src", "srcset", "href", "xlink:href", "action", "data", "poster", "background")
    for name, value in Elements(page).attributes:
        if name in loading:
            assert value.startswith("#") or value == "data:,", (name, value)
    assert "@import" not in page
    assert all(target.startswith("#") for target in re.findall(r"url\(\s*['\"]?(.)", page))
    assert "xmlns" not in page
    assert "default-src 'none'" in page


@pytest.mark.parametrize("which", ["one", "two"])
def test_ids_are_unique_and_references_lead_somewhere(
    which: str, request: pytest.FixtureRequest
) -> None:
    page = request.getfixturevalue(which)
    elements = Elements(page)
    assert len(set(elements.ids)) == len(elements.ids)
    wanted = {
        value[1:] for name, value in elements.attributes if name == "href" and value[0] == "#"
    }
    wanted |= set(re.findall(r"url\(#([^)]+)\)", page))
    assert wanted <= set(elements.ids)


def test_charts_follow_the_page_and_speak(one: str) -> None:
    drawings = re.findall(r"<svg.*?</svg>", one, flags=re.DOTALL)
    assert len(drawings) == Elements(one).svgs == 13
    for drawing in drawings:
        assert re.search(r"#0[1-5]0[1-5]0\d\b", drawing) is None, "a placeholder was left"
        assert "var(--muted)" in drawing
        assert 'role="img"' in drawing
        assert re.search(r"<title [^>]*>[^<]+</title><desc [^>]*>[^<]+</desc>", drawing)
        assert "font-family" not in drawing


def test_the_same_input_gives_the_same_bytes(run_directory: Path, one: str, tmp_path: Path) -> None:
    assert report([run_directory], tmp_path) == one


def test_a_run_without_gold_or_audits_says_so(
    fabricate: Callable[..., Path], tmp_path: Path
) -> None:
    page = report([fabricate(tmp_path / "run", gold=False, audits=False)], tmp_path)
    assert "not measured" in page
    assert "Nothing was measured." in page
    assert "No label was audited" in page


def test_few_audits_are_called_too_few(fabricate: Callable[..., Path], tmp_path: Path) -> None:
    directory = fabricate(tmp_path / "run")
    path = directory / "verdicts.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    audited = [row for row in rows if row["audit"]]
    for row in audited[html.FEWEST_AUDITS - 1 :]:
        row["audit"] = None
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = report([directory], tmp_path)
    assert "Too few audits to judge" in page
    assert f"only {html.FEWEST_AUDITS - 1} " in page


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("optpo", "claims that a label is the answer the model gives most often"),
        ("fixed", "claims nothing about errors"),
        ("of-another-package", None),
    ],
)
def test_the_report_says_what_the_rule_claims(
    part: str, said: str | None, fabricate: Callable[..., Path], tmp_path: Path
) -> None:
    """The confidence is held against the full vote, which is not what every rule claims."""
    directory = fabricate(tmp_path / "run")
    config = directory / "config.yaml"
    config.write_text(config.read_text().replace("  name: optpo", f"  part: {part}"))
    page = report([directory], tmp_path)
    assert ("Its rule claims" in page) == (said is not None)
    assert said is None or said in page


def test_several_audits_of_a_question_are_one_in_the_interval(
    fabricate: Callable[..., Path], tmp_path: Path
) -> None:
    """Twenty audits of one question are as wide as one; an audit of a capped vote is none."""
    directory = fabricate(tmp_path / "run")
    audit = {"rollouts": 64, "label": "7", "agrees": True}
    row = {"prompt_id": "q", "kind": "decided", "label": "7", "confidence": 0.97, "audit": audit}
    rows = [{**row, "step": step} for step in range(20)]
    rows.append({**row, "step": 20, "kind": "capped", "confidence": 0.55})
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (directory / "verdicts.jsonl").write_text(text)
    page = report([directory], tmp_path)
    (body,) = re.findall(
        r"<th class=.number.>95 % interval</th>.*?<tbody>(.*?)</tbody>", page, re.S
    )
    cells = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", body)
    # Wilson's interval for one of one: 1 / (1 + 1.96^2) = 20.7 %.
    assert cells == ["95 to 99 %", "20", "1", "97.0 %", "100.0 %", "20.7 % to 100.0 %"]


@pytest.mark.parametrize(
    "missing",
    ["questions.jsonl", "metrics.jsonl", "evaluations.jsonl", "verdicts.jsonl", "summary.json"],
)
def test_a_missing_file_is_no_obstacle(
    missing: str, fabricate: Callable[..., Path], tmp_path: Path
) -> None:
    directory = fabricate(tmp_path / "run")
    (directory / missing).unlink()
    ids = Elements(report([directory], tmp_path)).ids
    assert {"accuracy", "votes", "calibration", "ledger", *ONE_RUN} <= set(ids)


def test_a_run_that_only_began_has_a_report(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("recipe: optpo\n")
    page = report([tmp_path], tmp_path)
    assert "This run has not finished" in page
    assert "No verdict was reached yet." in page


def test_questions_are_capped_and_the_cap_is_told(
    run_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(html, "QUESTIONS_LISTED", 7)
    page = report([run_directory], tmp_path)
    assert page.count('class="question"') == 7
    assert "Only 7 are listed." in page


def test_no_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="no run directory"):
        write_report([], tmp_path / "report.html")
    with pytest.raises(RunDirectoryError, match=r"config\.yaml"):
        write_report([tmp_path], tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_many_runs_have_their_own_marks_and_strokes(run_directory: Path) -> None:
    from optpo.reporting.charts import tracks
    from optpo.reporting.run_data import read_run

    runs = tracks([read_run(run_directory)] * 30)
    assert len({track.mark for track in runs}) == 30
    # Six colours in four dashes: the first 24 runs differ to the eye.
    assert len({(track.colour, str(track.dash)) for track in runs[:24]}) == 24


def test_a_report_needs_no_torch(run_directory: Path, tmp_path: Path, one: str) -> None:
    """Of a run with all parts named: read where a run may be looked at, but not trained."""
    config = (run_directory / "config.yaml").read_text(encoding="utf-8")
    stages = ("reward", "select", "advantage", "objective")
    run = tmp_path / "run"
    shutil.copytree(run_directory, run)
    parts = [f"{stage}: {{part: {part}}}\n" for stage, part in zip(stages, PARTS, strict=True)]
    (run / "config.yaml").write_text(config.replace("objective:", "was:") + "".join(parts))
    page = tmp_path / "page.html"
    code = (
        "import pathlib, sys\nsys.modules['torch'] = None\n"
        "from optpo.reporting.html import write_report\n"
        "write_report([pathlib.Path(sys.argv[1])], pathlib.Path(sys.argv[2]))\n"
    )
    command = [sys.executable, "-c", code, run, page]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert page.stat().st_size > len(one) / 2
