"""Model cards: metadata, numbers from files, and code that runs as it stands."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard

from hf_maskadapter import MaskAdapterForOpenVocabularySegmentation, MaskAdapterProcessor
from hf_maskadapter.hub.card_results import card_with_results, eval_results
from hf_maskadapter.hub.cards import ModelCardFacts, fill_repository, render_card
from hf_maskadapter.hub.released import RELEASED_PRESETS, released_card
from hf_maskadapter.hub.remote_code import save_with_remote_code
from lab.cards.collection import MINIATURE
from lab.cards.miniature import miniature_card
from lab.commands import main as laboratory

PROJECT = Path(__file__).parents[2]
CARDS = sorted((PROJECT / "model_cards").glob("*.md"))
SECTIONS = ["How to use it", "Training", "Results", "Limits", "Licences", "Citation"]

RESULTS = {
    "settings": {"seed": 0, "scenes": 300, "split": "test"},
    "clip_zero_shot": {"joint/base": 0.876},
    "generator": {"recall/base": 0.91},
    "generated_masks_mean_iou": {
        "pooling/hard": {"base": 0.337, "novel": 0.242, "stuff": 0.9, "all": 0.35},
        "adapter": {"base": 0.427, "novel": 0.332, "stuff": 0.99, "all": 0.45},
    },
}


def blocks(card, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", card, re.DOTALL | re.MULTILINE)


def test_the_projects_cards_are_what_the_script_writes(tmp_path):
    assert laboratory(["write-model-cards", "--output_dir", str(tmp_path)]) == 0
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_text() for path in CARDS}, "run scripts/write_model_cards.py"
    assert set(written) == {f"{name}.md" for name in (MINIATURE, *RELEASED_PRESETS)}


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_every_card_has_all_sections_and_valid_metadata(path):
    card = ModelCard(path.read_text())
    assert re.findall(r"^## (.*)$", card.text, re.MULTILINE) == SECTIONS
    assert card.data.library_name == "transformers"
    assert card.data.pipeline_tag == "image-segmentation"
    assert card.data.license
    assert "custom_code" in card.data.tags
    assert "arXiv:2412.04533" in card.text
    assert "arXiv:2308.02487" in card.text
    assert "\n\n\n" not in card.text


def test_the_code_of_every_card_runs_as_it_stands_without_the_package(client, hub, tiny_model_dir, tmp_path, picture):
    programs = ["\n".join(blocks(path.read_text(), "python")) for path in CARDS]
    labels = re.compile(r"^labels = (\[.*\])$", re.MULTILINE)
    assert all(json.loads(labels.search(program)[1]) for program in programs)
    assert len({labels.sub("", program) for program in programs}) == 1  # so that one stands for all

    model = MaskAdapterForOpenVocabularySegmentation.from_pretrained(tiny_model_dir)
    save_with_remote_code(tmp_path / "model", model, MaskAdapterProcessor.from_pretrained(tiny_model_dir))
    picture.save(tmp_path / "picture.jpg")
    code = """
import os
folder, program = arguments
os.chdir(folder)
for attempt in range(2):
    namespace = {}
    exec(program, namespace)
result = list(namespace["label_map"].shape)
"""
    program = fill_repository(programs[0], str(tmp_path / "model"))
    finished = client.run(code, tmp_path, program, package=False, offline=True)
    assert finished.expect_success() == [picture.height, picture.width]


@pytest.mark.parametrize("preset", RELEASED_PRESETS)
def test_a_released_checkpoints_card_keeps_published_and_measured_numbers_apart(preset):
    card = ModelCard(released_card(preset))
    assert not card.data.eval_results  # nothing was measured
    assert "**Measured here**: none." in card.text
    assert f"--preset {preset}" in card.text
    assert card.data.base_model[0].startswith("laion/CLIP-convnext_")


def test_published_numbers_are_those_of_the_paper():
    expected = {
        "mask-adapter-fcclip-convnext-large": "36.6 14.1 59.7 19.3 95.5",
        "mask-adapter-maft-plus-convnext-base": "35.6 14.2 58.4 17.9 95.1",
        "mask-adapter-maft-plus-convnext-large": "38.2 16.2 60.4 22.7 95.8",
    }
    for preset, numbers in expected.items():
        assert re.findall(r"\) \| ([\d.]+) \|$", released_card(preset), re.MULTILINE) == numbers.split()


def test_the_presets_of_released_cards_exist():
    from hf_maskadapter.conversion.presets import PRESETS

    assert set(RELEASED_PRESETS) <= set(PRESETS)


class TestMiniature:
    def test_numbers_come_from_the_results(self):
        text = miniature_card(RESULTS, "| claim | met |\n|---|---|\n| first | yes |\n")
        assert "on 300 scenes of the split 'test', seed 0" in text
        assert "| adapter | 42.7 | 33.2 | 99.0 | 45.0 |" in text
        assert "| joint/base | 87.6 |" in text
        assert "benchmark.py paper" in text
        assert "| first | yes |" in text
        measured = {entry.metric_name: entry.metric_value for entry in ModelCard(text).data.eval_results}
        assert measured["mIoU (things never seen in a mask)"] == 33.2

    def test_without_results_claims_none(self):
        text = miniature_card(None)
        assert "Not measured yet" in text
        assert not ModelCard(text).data.eval_results

    def test_broken_results_are_named(self, tmp_path, capsys):
        (tmp_path / "results.json").write_text("{")
        words = ["--output_dir", str(tmp_path), "--results", str(tmp_path / "results.json")]
        assert laboratory(["write-model-cards", *words]) == 2
        assert "results.json cannot be read as JSON" in capsys.readouterr().err


def test_results_are_written_over_those_of_the_same_kind_only(tmp_path):
    results = {"a": {"metrics": {"mean_iou": 0.5, "pq": float("nan"), "ap": None}}}
    card = card_with_results("# Card\n", "mine", eval_results(results, "Data", "data", "val"))
    card = card_with_results(card, "other", eval_results(results, "Data", "data", "test"))
    again = {"a": {"metrics": {"mean_iou": 0.25}}}
    card = ModelCard(card_with_results(card, "other", eval_results(again, "Data", "data", "val")))
    assert {(entry.dataset_split, entry.metric_value) for entry in card.data.eval_results} == {
        ("test", 50.0),
        ("val", 25.0),
    }
    assert card.data.model_name == "mine"
    assert card.text.strip() == "# Card"
    with pytest.raises(ValueError, match="metadata, between its lines of ---"):
        card_with_results("---\na: [\n---\n", "mine", [])


def test_numbers_of_numpy_are_written_as_plain_ones_that_every_tool_reads_again():
    results = {"one": {"metrics": {"mean_iou": np.float32(0.25), "pq": np.float64(0.5), "ap": np.float64("nan")}}}
    card = card_with_results("# Card\n", "mine", eval_results(results, "Data", "data", "val"))
    assert "numpy" not in card
    (model,) = yaml.safe_load(card.split("---")[1])["model-index"]
    assert [metric["value"] for result in model["results"] for metric in result["metrics"]] == [25.0, 50.0]
    assert [entry.metric_value for entry in ModelCard(card).data.eval_results] == [25.0, 50.0]


def test_the_code_of_an_adapters_card_names_adapter_and_base():
    facts = ModelCardFacts(title="T", summary="S", model_name="m", kind="adapter", attached_to="me/base")
    card = fill_repository(render_card(facts), "me/adapter")
    code = "\n".join(blocks(card, "python"))
    compile(code, "card", "exec")
    assert 'load_with_adapter("me/adapter")' in code
    assert "`me/base`" in card
    assert "custom_code" not in ModelCard(card).data.tags
    assert json.loads(json.dumps(ModelCard(card).data.to_dict()))["library_name"] == "transformers"
