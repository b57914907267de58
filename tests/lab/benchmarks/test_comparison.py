"""This build beside another one: rounds in turn, ratios within a round, results compared, numbers kept."""

import json
import sys
from pathlib import Path

import pytest
import torch

from lab.benchmarks import builds, comparison
from lab.benchmarks.builds import ROOT, Build, of_build, prepare_build, this_build
from lab.benchmarks.comparison import Measurement, compare, measure, report
from lab.benchmarks.contender import Contender, Cost
from lab.benchmarks.rows.catalogue import CASES, row_names
from lab.benchmarks.rows.definitions import TINY, Case, Row, Scale
from lab.commands import main

BUILDS = {"this": Build("this build", "aaaaaaa", Path(sys.executable), ROOT), "baseline": None}
CONDITIONS = {"baseline": "bbbbbbb", "scale": TINY.__dict__, "machine": {"processor": "abacus"}}


class FakeContender:
    """Costs and results as a case's options tell."""

    calls: list[str] = []  # noqa: RUF012

    def __init__(self, build, function, options, inputs, threads):
        self.name, self.seconds = function, iter(options.get("seconds", (4.0, 2.0, 8.0, 6.0)))
        self.result = torch.tensor(options.get("result", torch.load(inputs)))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.calls.append("closed")

    def run(self, result=None):
        self.calls.append(self.name)
        if result is not None:
            torch.save(self.result, result)
        seconds = next(self.seconds)
        return Cost(cpu=seconds, wall=seconds, memory=int(seconds) * 2**20)


@pytest.fixture
def calls(monkeypatch):
    monkeypatch.setattr(comparison, "Contender", FakeContender)
    monkeypatch.setattr(FakeContender, "calls", [])
    return FakeContender.calls


def case(**options):
    settings = {"draw": lambda scale: [scale.num_masks], "compute": "own", "opponent": "published"}
    rows = {"fast": Row("a row", {"seconds": (1.0, 1.0, 2.0, 1.0)}, aim=3.0)}
    return Case(**settings | {"rows": rows, "difference": lambda a, b: (a - b).abs().amax()} | options)


def measured(of_case, repeats=3, opponent_rounds=3):
    options = comparison.Options(opponent_rounds=opponent_rounds)
    return measure("case", of_case, list(of_case.rows), TINY, BUILDS, repeats, options)


def test_contenders_run_in_turn_and_ratios_are_taken_within_rounds(calls):
    (measurement,) = measured(case())
    forward, backward = ["own", "own", "published"], ["published", "own", "own"]
    assert calls == [*forward, *backward, *forward, *backward, *["closed"] * 3]
    assert measurement.seconds == {"row": [1.0, 2.0, 1.0], "baseline": [2.0, 8.0, 6.0], "opponent": [2.0, 8.0, 6.0]}
    assert measurement.ratios("baseline") == [2.0, 4.0, 6.0]
    assert measurement.memory == {"row": 2**20, "baseline": 4 * 2**20, "opponent": 4 * 2**20}


def test_a_slow_first_round_counts_and_the_slow_opponent_may_sit_out(calls, monkeypatch):
    monkeypatch.setattr(comparison, "_SECONDS_NOT_WARMED", 3.0)
    (measurement,) = measured(case(), opponent_rounds=1)
    assert measurement.seconds == {"row": [1.0, 1.0, 2.0], "baseline": [4.0, 2.0, 8.0], "opponent": [4.0, None, None]}
    assert measurement.ratios("opponent") == [4.0]
    assert calls.count("published") == 1


def test_all_rows_of_a_case_share_the_other_contenders(calls):
    rows = {
        "first": Row("", {"seconds": (1.0, 1.0)}),
        "second": Row("", {"seconds": (2.0, 0.5), "result": [12.5]}, 1, 1.0),
    }
    first, second = measured(case(rows=rows, opponent=None, beside={"another": "other"}), repeats=1)
    assert calls == ["own", "own", "own", "other", "other", "own", "own", "own", *["closed"] * 4]
    assert first.ratios("baseline") == [2.0]
    assert second.ratios("baseline") == [4.0]
    assert second.ratios("another") == [4.0]
    assert second.differences == {"row": 0.5, "baseline": 0.0, "another": 0.0}


def test_a_result_that_differs_is_an_error(calls):
    wrong = {"fast": Row("a row", {"result": [14]}, tolerance=1.0)}
    with pytest.raises(RuntimeError, match=r"case: the result of row fast differs by 2\.0e\+00 from that of baseline"):
        measured(case(rows=wrong))
    assert calls[-3:] == ["closed"] * 3


def test_the_table_tells_medians_and_how_wide_rounds_lie(monkeypatch):
    monkeypatch.setattr(comparison, "CASES", {"case": case(beside={"another": "other"})})
    monkeypatch.setattr(comparison, "row_names", lambda: ["fast"])
    seconds = {"row": [1.0, 2.0, 1.0], "baseline": [2.0, 8.0, 6.0], "opponent": [8.0, None, None], "another": [0.5] * 3}
    memory = {"row": 2**20, "baseline": 2**21, "opponent": 4 * 2**20}
    differences = {"row": 0.0, "another": 0.002}
    text = report([Measurement("fast", "case", "aaaaaaa", seconds, memory, differences)], CONDITIONS)
    assert "| a row | 1.00 s | 6.00 s | 4.00× (2.00–6.00) | 3× | 8.00 s | 8.00× | 1 MiB | 0.50 | 0.25 | 0e+00 |" in text
    assert "| a row | another | 0.50× (0.25–0.50) | 2.0e-03 |" in text
    assert "Build aaaaaaa against bbbbbbb; tiny model" in text


def test_numbers_of_other_commits_are_not_mixed(monkeypatch, tmp_path, calls):
    monkeypatch.setattr(comparison, "CASES", {"case": case(), "next": case(rows={"slow": Row("the next")})})
    monkeypatch.setattr(comparison, "row_names", lambda: ["fast", "slow"])
    monkeypatch.setattr(comparison, "this_build", lambda: BUILDS["this"])
    for commit in ("bbbbbbb", "ccccccc"):
        baseline = Build(commit, commit, Path(sys.executable), ROOT)
        monkeypatch.setattr(comparison, "prepare_build", lambda *_, baseline=baseline: baseline)
        if commit == "bbbbbbb":
            compare(["slow"], commit, output_dir=tmp_path, scale=TINY, log=lambda line: None)
            text = compare(["fast"], commit, output_dir=tmp_path, scale=TINY, log=lambda line: None)
            assert "| a row |" in text
            assert "| the next |" in text
            assert [row["row"] for row in json.loads((tmp_path / "comparison.json").read_text())["rows"]] == [
                "fast",
                "slow",
            ]
            assert (tmp_path / "comparison.md").read_text() == text + "\n"
        else:
            with pytest.raises(ValueError, match="was measured with another baseline: give another --output-dir"):
                compare(["fast"], commit, output_dir=tmp_path, scale=TINY, log=lambda line: None)


def test_a_process_computes_as_often_as_it_is_asked(tmp_path):
    torch.save({"seconds": 0.05}, tmp_path / "inputs")
    with Contender(this_build(), "trial:busy", {"doubled": True}, tmp_path / "inputs") as contender:
        first, second = contender.run(tmp_path / "result"), contender.run()
    assert torch.load(tmp_path / "result") == {"seconds": 0.1, "threads": 1, "calls": 1}
    assert first.cpu >= 0.1
    assert second.cpu >= 0.1
    with pytest.raises(RuntimeError, match=r"trial:missing in this build failed:\n(.|\n)*has no attribute 'missing'"):
        Contender(this_build(), "trial:missing", {}, tmp_path / "inputs")


def test_names_are_found_wherever_a_build_has_them():
    from hf_maskadapter.model.semantic_label_search import LabelSearch

    assert of_build("semantic_label_search", "LabelSearch") is LabelSearch
    with pytest.raises(ImportError, match="no GrandSearch in a module semantic_label_search"):
        of_build("semantic_label_search", "GrandSearch")


def test_what_cannot_be_compared_is_told(capsys):
    with pytest.raises(ValueError, match=r"There is no row towel; there are .*training"):
        comparison.chosen_rows(["towel", "training"])
    assert comparison.chosen_rows(["training-bf16"]) == {"training": ["training-bf16"]}
    assert len(row_names()) == len(set(row_names())) == sum(len(one.rows) for one in CASES.values())
    with pytest.raises(ValueError, match="'0000000' is no commit of"):
        prepare_build("0000000", Path("unused"))
    with pytest.raises(SystemExit):
        main(["speed", "--rows", "training"])
    assert "give --baseline COMMIT, too" in capsys.readouterr().err


@pytest.mark.slow
def test_another_commit_gets_an_environment_of_its_own_and_computes_every_row(tmp_path):
    build = prepare_build("HEAD", tmp_path)
    try:
        assert build.python.is_relative_to(tmp_path)
        found = builds._run([str(build.python), "-c", "import hf_maskadapter; print(hf_maskadapter.__file__)"])
        assert Path(found).is_relative_to(tmp_path)
        assert prepare_build("HEAD", tmp_path) == build
        options = comparison.Options(builds_dir=tmp_path)
        text = compare([], "HEAD", 1, options, tmp_path / "out", TINY, log=lambda line: None)
        assert len(json.loads((tmp_path / "out" / "comparison.json").read_text())["rows"]) == len(row_names())
        assert text.count("×") > len(row_names())
    finally:
        builds._git(
            "worktree", "remove", "--force", str(tmp_path / builds._git("rev-parse", "--short=7", "HEAD") / "worktree")
        )


def test_the_documentation_has_the_table_that_was_measured():
    folder = ROOT / "model_cards" / "results"
    content = json.loads((folder / comparison.JSON).read_text(encoding="utf-8"))
    measurements = [Measurement(**one) for one in content.pop("rows")]
    assert (folder / comparison.MARKDOWN).read_text(encoding="utf-8") == report(measurements, content) + "\n"
    page = (ROOT / "docs" / "results" / "builds.md").read_text(encoding="utf-8")
    assert "\n".join(comparison.table(measurements, content["baseline"])) in page


def test_scale_is_that_of_the_text():
    assert Scale().setting.padded_size == (896, 672)
    assert Scale().setting.grid == (28, 21)
