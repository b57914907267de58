"""Models that version 0.1 published with their code still load and give the same results, wherever they are opened."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from hf_maskadapter import MaskAdapterConfig, MaskAdapterForOpenVocabularySegmentation, MaskAdapterProcessor, Vocabulary

PUBLISHED = Path(__file__).parents[1] / "fixtures" / "remote_code_of_version_0_1.zip"
LABELS = ["cat, kitten", "dog", "sky"]
LABEL_SET = "pascal_voc_21"

READER = """
import json, sys
folder, picture, result, is_installed, trusts = sys.argv[1:]
if is_installed == "no":
    sys.modules["hf_maskadapter"] = None  # every import of the package fails, as if it were not installed
import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForUniversalSegmentation, AutoProcessor, pipeline

if trusts == "no":
    import hf_maskadapter  # which registers its classes
options = {"trust_remote_code": True} if trusts == "yes" else {}
config = AutoConfig.from_pretrained(folder, **options)
processor = AutoProcessor.from_pretrained(folder, **options)
model, report = AutoModelForUniversalSegmentation.from_pretrained(folder, output_loading_info=True, **options)
assert not any(report.values()), report
image = Image.open(picture)
found = {"code": type(model).__module__.partition(".")[0]}
vocabulary = model.eval().encode_vocabulary(["cat, kitten", "dog", "sky"], processor)
inputs = processor(images=image, return_tensors="pt")
with torch.no_grad():
    outputs = model(**inputs, vocabulary=vocabulary)
labels = processor.post_process_semantic_segmentation(outputs, target_sizes=[(image.height, image.width)])[0]
found |= {"label_map": labels.tolist(), "logits": outputs.class_queries_logits.tolist()}
segmenter = pipeline("zero-shot-image-segmentation", model=folder, **options)
found["labels"] = [segment["label"] for segment in segmenter(image, candidate_labels=["cat, kitten", "dog", "sky"])]
try:
    found["seen"] = model.encode_vocabulary("pascal_voc_21", processor).seen_classes.tolist()
except ImportError as error:
    found["seen"] = str(error)
with open(result, "w") as file:
    json.dump(found, file)
"""


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The folder as version 0.1 saved it, with weights from a fixed seed and seen classes of a label set."""
    folder = tmp_path_factory.mktemp("published") / "model"
    with zipfile.ZipFile(PUBLISHED) as archive:
        archive.extractall(folder)
    content = json.loads((folder / "config.json").read_text())
    seen = [list(synonyms) for synonyms in Vocabulary.from_label_set(LABEL_SET).synonyms][:5]
    (folder / "config.json").write_text(json.dumps(content | {"training_vocabulary": [*seen, ["dog"]]}))
    torch.manual_seed(0)
    model = MaskAdapterForOpenVocabularySegmentation(MaskAdapterConfig.from_pretrained(folder)).eval()
    plain = tmp_path_factory.mktemp("weights")
    model.save_pretrained(plain)
    shutil.copy(plain / "model.safetensors", folder)
    return model, MaskAdapterProcessor.from_pretrained(folder), folder


@pytest.mark.parametrize(
    ("is_installed", "trusts", "code"),
    [
        ("yes", "yes", "transformers_modules"),
        ("no", "yes", "transformers_modules"),
        ("yes", "no", "hf_maskadapter"),
    ],
    ids=["beside the installed package", "without the package", "by the package's own code"],
)
def test_a_folder_of_version_0_1_gives_the_results_of_today(is_installed, trusts, code, published, picture, tmp_path):
    model, processor, folder = published
    picture.save(tmp_path / "picture.png")
    environment = os.environ | {"HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    arguments = [folder, tmp_path / "picture.png", tmp_path / "result.json", is_installed, trusts]
    finished = subprocess.run(
        [sys.executable, "-c", READER, *arguments], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr
    found = json.loads((tmp_path / "result.json").read_text())

    image = Image.open(tmp_path / "picture.png")
    inputs = processor(images=image, return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs, vocabulary=model.encode_vocabulary(LABELS, processor))
    (label_map,) = processor.post_process_semantic_segmentation(outputs, target_sizes=[(image.height, image.width)])
    assert found["code"] == code
    assert found["label_map"] == label_map.tolist()
    torch.testing.assert_close(torch.tensor(found["logits"]), outputs.class_queries_logits, rtol=1e-4, atol=1e-4)
    assert set(found["labels"]) == {LABELS[index].partition(",")[0] for index in label_map.unique().tolist()}
    if is_installed == "yes":
        names = Vocabulary.from_label_set(LABEL_SET).names
        assert found["seen"] == [number < 5 or name == "dog" for number, name in enumerate(names)]
    else:
        assert f"The label set '{LABEL_SET}' is data of the package hf_maskadapter, which is not" in found["seen"]
