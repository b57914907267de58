"""A saved folder with its code loads where this package is not installed."""

import ast
import json
import os
import subprocess
import sys

import pytest
import torch
from PIL import Image

from hf_maskadapter import MaskAdapterForOpenVocabularySegmentation, MaskAdapterProcessor
from hf_maskadapter.hub.remote_code import save_with_remote_code

LABELS = ["cat, kitten", "dog", "sky"]

# `None` in sys.modules makes every import of the package fail, as if it were not installed.
STRANGER = """
import json, sys
sys.modules["hf_maskadapter"] = None
import torch
from PIL import Image
from transformers import (
    AutoConfig, AutoImageProcessor, AutoModelForUniversalSegmentation, AutoProcessor, pipeline,
)

folder, picture, result = sys.argv[1:]
assert type(AutoConfig.from_pretrained(folder, trust_remote_code=True)).__name__ == "MaskAdapterConfig"
image_processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)
assert type(image_processor).__module__.startswith("transformers_modules.")
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
model, report = AutoModelForUniversalSegmentation.from_pretrained(
    folder, trust_remote_code=True, output_loading_info=True
)
assert not any(report.values()), report
image = Image.open(picture)
vocabulary = model.eval().encode_vocabulary(["cat, kitten", "dog", "sky"], processor)
inputs = processor(images=image, return_tensors="pt")
with torch.no_grad():
    outputs = model(**inputs, vocabulary=vocabulary)
label_map = processor.post_process_semantic_segmentation(outputs, target_sizes=[(image.height, image.width)])[0]
segmenter = pipeline("zero-shot-image-segmentation", model=folder, trust_remote_code=True)
segments = segmenter(image, candidate_labels=["cat, kitten", "dog", "sky"])
with open(result, "w") as file:
    json.dump({"label_map": label_map.tolist(), "labels": [segment["label"] for segment in segments]}, file)
"""


@pytest.fixture
def published(tiny_model_dir, tmp_path):
    model = MaskAdapterForOpenVocabularySegmentation.from_pretrained(tiny_model_dir)
    processor = MaskAdapterProcessor.from_pretrained(tiny_model_dir)
    save_with_remote_code(tmp_path / "published", model, processor)
    return model, processor, tmp_path / "published"


def test_stranger_loads_model_processor_and_pipeline_with_equal_results(published, picture, tmp_path):
    model, processor, folder = published
    picture.save(tmp_path / "picture.png")
    environment = os.environ | {"HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", STRANGER, folder, tmp_path / "picture.png", tmp_path / "result.json"]
    finished = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    found = json.loads((tmp_path / "result.json").read_text())

    image = Image.open(tmp_path / "picture.png")
    inputs = processor(images=image, return_tensors="pt")
    with torch.no_grad():
        outputs = model.eval()(**inputs, vocabulary=model.encode_vocabulary(LABELS, processor))
    (label_map,) = processor.post_process_semantic_segmentation(outputs, target_sizes=[(image.height, image.width)])
    assert found["label_map"] == label_map.tolist()
    assert set(found["labels"]) == {LABELS[index].split(",")[0] for index in label_map.unique().tolist()}


def test_published_folder_holds_all_code_that_relative_imports_reach(published):
    _, _, folder = published
    code = {path.stem for path in folder.glob("*.py")}
    assert {"modeling_maskadapter", "vocabulary", "post_processing_maskadapter"} <= code
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.level == 1, f"{path.name}, line {node.lineno}"
                assert node.module in code, f"{path.name}, line {node.lineno}"
            elif isinstance(node, ast.Import | ast.ImportFrom):
                names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
                assert not any(name.split(".")[0] == "hf_maskadapter" for name in names), path.name


def test_ordinary_saving_afterwards_copies_no_code(published, tmp_path):
    model, processor, _ = published
    model.save_pretrained(tmp_path / "plain")
    processor.save_pretrained(tmp_path / "plain")
    assert not list((tmp_path / "plain").glob("*.py"))
    config = json.loads((tmp_path / "plain" / "config.json").read_text())
    assert "auto_map" not in config
    assert "custom_pipelines" not in config


@pytest.mark.parametrize("with_processor", [False, True])
def test_part_of_a_segmenter_is_published_without_the_pipeline(with_processor, tiny_model_dir, tmp_path):
    model = MaskAdapterForOpenVocabularySegmentation.from_pretrained(tiny_model_dir)
    processor = MaskAdapterProcessor.from_pretrained(tiny_model_dir) if with_processor else None
    save_with_remote_code(tmp_path, model.clip, processor)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["auto_map"]["AutoModel"] == "modeling_clip_convnext.ConvNextClipModel"
    assert "custom_pipelines" not in config
    assert not (tmp_path / "pipeline_zero_shot_image_segmentation.py").exists()
    assert (tmp_path / "processor_config.json").exists() == with_processor
