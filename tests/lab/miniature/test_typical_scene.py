"""Which scene the demo's picture shows."""

import re
from pathlib import Path

import pytest

from hf_maskadapter.miniature import load_miniature
from lab.commands import main
from lab.miniature.typical_scene import SceneScores, measure_scenes, report, typical_scene

PROJECT = Path(__file__).parents[3]


def scene(seed: int, gain: float) -> SceneScores:
    return SceneScores(seed, 50.0, 50.0 + gain)


def test_the_median_of_the_scenes_that_differ_is_chosen():
    gains = [0.2, 12.0, -3.0, -0.9, 5.0, 0.0]
    assert typical_scene([scene(seed, gain) for seed, gain in enumerate(gains)]).seed == 4
    assert typical_scene([scene(0, 2.0), scene(1, 4.0)]).seed == 0


def test_without_a_difference_nothing_is_chosen():
    with pytest.raises(ValueError, match="none of 2 scenes"):
        typical_scene([scene(0, 0.0), scene(1, 0.5)])


def test_the_report_counts_gains_losses_and_ties():
    text = report([scene(0, 10.0), scene(1, -2.0), scene(2, 0.5), scene(3, 4.0)])
    assert "| mean | 50.0 | 53.1 | +3.1 |" in text
    assert "**scene 3, which the picture shows** | 50.0 | 54.0 | +4.0 |" in text
    assert "In 2 scenes the adapter is better by 1 point or more, in 1 worse, and in 1 the two differ" in text


def test_the_documented_seed_is_the_measured_one_and_its_scores_are_right(monkeypatch):
    row = re.search(
        r"scene (\d+), which the picture shows\*\* \| ([\d.]+) \| ([\d.]+)",
        (PROJECT / "model_cards" / "results" / "demo.md").read_text(encoding="utf-8"),
    )
    seed = int(row[1])
    for page in ("README.md", "docs/learn/pictures.md"):
        text = (PROJECT / page).read_text(encoding="utf-8")
        assert set(re.findall(r"maskadapter demo --seed (\d+)", text)) == {str(seed)}, page
    import lab.miniature.typical_scene as measured

    draw = measured.demonstration_scene
    monkeypatch.setattr(measured, "demonstration_scene", lambda _: draw(seed))
    (scores,) = measure_scenes(*load_miniature(), 1)
    assert f"{scores.pooling:.1f}" == row[2]
    assert f"{scores.adapter:.1f}" == row[3]


def test_the_command_draws_the_scene_that_it_chose(tmp_path, capsys):
    assert main(["typical-scene", "--scenes", "2", "--output-dir", str(tmp_path)]) == 0
    assert (tmp_path / "demo.png").stat().st_size > 10_000
    assert (tmp_path / "demo.md").read_text() in capsys.readouterr().out
