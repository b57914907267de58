"""The published handler of Inference Endpoints, called as the endpoint's server calls it, without this package."""

import base64
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import pipeline

from hf_maskadapter.hub.contents import collect
from hf_maskadapter.hub.endpoint import model_requirements
from hf_maskadapter.miniature import checkpoint_path

PICTURE = Path(__file__).parents[2] / "examples" / "scene.png"
LABELS = ["sand", "water, sea", "dotted yellow star", "plain cyan triangle"]

# What the server does: https://github.com/huggingface/huggingface-inference-toolkit, utils.py, version 0.5.6.
SERVER = """
import importlib.util, json, sys
from pathlib import Path

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "hf_maskadapter":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())
try:
    import hf_maskadapter
except ModuleNotFoundError:
    pass
else:
    raise AssertionError("the package can be imported")
folder, requests, answers = sys.argv[1:]
spec = importlib.util.spec_from_file_location("handler.EndpointHandler", Path(folder) / "handler.py")
sys.path.insert(0, folder)
module = importlib.util.module_from_spec(spec)
sys.modules["handler.EndpointHandler"] = module
spec.loader.exec_module(module)
handler = module.EndpointHandler(folder)
found = []
for request in json.loads(Path(requests).read_text()):
    try:
        found.append(handler(request))
    except Exception as error:
        found.append({"error": str(error)})
Path(answers).write_text(json.dumps(found))
assert "hf_maskadapter" not in sys.modules
"""


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder with what `publish` uploads of the embedded model."""
    staging, folder = tmp_path_factory.mktemp("staging"), tmp_path_factory.mktemp("published")
    for name, source in collect(checkpoint_path(), staging, "me/model").files.items():
        (folder / name).write_bytes(source if isinstance(source, bytes) else source.read_bytes())
    return folder


@pytest.fixture(scope="module")
def encoded() -> str:
    return base64.b64encode(PICTURE.read_bytes()).decode()


def test_a_clean_process_answers_as_the_pipeline_does(published, encoded, tmp_path):
    requests = [
        {"inputs": encoded, "parameters": {"candidate_labels": LABELS}},
        {
            "inputs": f"data:image/png;base64,{encoded}",
            "parameters": {"candidate_labels": LABELS, "task": "panoptic", "things": ["dotted yellow star"]},
        },
        {"inputs": {"image": encoded, "candidate_labels": "sand, water", "subtask": "instance", "threshold": 0.9}},
        {"inputs": encoded},
    ]
    (tmp_path / "requests.json").write_text(json.dumps(requests))
    command = [sys.executable, "-c", SERVER, published, tmp_path / "requests.json", tmp_path / "answers.json"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    finished = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    semantic, panoptic, instances, without_labels = json.loads((tmp_path / "answers.json").read_text())

    segmenter = pipeline("zero-shot-image-segmentation", model=str(checkpoint_path()))
    vocabulary = segmenter(str(PICTURE), candidate_labels=LABELS, return_segments=True).vocabulary
    expected = [
        segmenter(str(PICTURE), candidate_labels=LABELS),
        segmenter(str(PICTURE), candidate_labels=vocabulary.with_things(["dotted yellow star"]), subtask="panoptic"),
        segmenter(str(PICTURE), candidate_labels=["sand", "water"], subtask="instance", threshold=0.9),
    ]
    for answer, segments in zip((semantic, panoptic, instances), expected, strict=True):
        assert len(answer) == len(segments) > 0
        for found, segment in zip(answer, segments, strict=True):
            mask = np.asarray(segment["mask"]) > 0
            shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(found["mask"]))))
            assert found["label"] == segment["label"]
            assert found["score"] == (None if segment["score"] is None else pytest.approx(segment["score"], abs=1e-5))
            assert np.array_equal(shown, mask * 255)
            assert found["area"] == mask.sum()
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            assert found["box"] == [columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1]
    assert "say what to look for" in without_labels["error"]


class Recorded:
    """In place of the pipeline: what it is called with."""

    def __call__(self, image, **options):
        self.image, self.options = image, options
        return []


@pytest.fixture
def handler(published):
    """The published handler with a pipeline that only records."""
    spec = importlib.util.spec_from_file_location("published_handler", published / "handler.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.pipeline = lambda *_, **__: Recorded()
    return module.EndpointHandler(str(published))


def test_bytes_and_the_servers_own_pictures_are_taken(handler):
    with Image.open(PICTURE) as picture:
        handler({"inputs": picture, "parameters": {"candidate_labels": "sand", "threshold": None}})
        assert handler.segmenter.image is picture
        size = picture.size
    handler({"inputs": PICTURE.read_bytes(), "parameters": {"candidate_labels": "sand"}})
    assert handler.segmenter.image.size == size


def test_what_came_in_an_address_is_read_as_numbers_and_lists(handler, encoded):
    parameters = {"candidate_labels": "sand, water", "subtask": "panoptic", "threshold": "0.5", "things": "water"}
    handler({"inputs": encoded, "parameters": parameters})
    assert handler.segmenter.options == {
        "return_segments": True,
        "candidate_labels": {
            "classes": [
                {"name": "sand", "synonyms": ["sand"], "thing": False},
                {"name": "water", "synonyms": ["water"], "thing": True},
            ]
        },
        "subtask": "panoptic",
        "threshold": 0.5,
    }


def png_of_size(width: int, height: int) -> str:
    """The head of a PNG that claims a size."""
    buffer = io.BytesIO()
    Image.new("1", (1, 1)).save(buffer, format="PNG")
    content = bytearray(buffer.getvalue())
    content[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return base64.b64encode(content).decode()


@pytest.mark.parametrize(
    ("inputs", "parameters", "message"),
    [
        (None, {"candidate_labels": ["cat"]}, "expected a picture's file in Base64, got NoneType"),
        ("https://example.com/a.jpg", {"candidate_labels": ["cat"]}, "addresses are not fetched"),
        (base64.b64encode(b"no picture").decode(), {"candidate_labels": ["cat"]}, "no picture in a known format"),
        (png_of_size(9000, 9000), {"candidate_labels": ["cat"]}, "9000x9000 pixels; at most 50000000"),
        (png_of_size(60_000, 60_000), {"candidate_labels": ["cat"]}, "pixels"),
        ({"picture": "x"}, {"candidate_labels": ["cat"]}, 'holds it as "image"'),
        ("", {"candidate_labels": []}, "say what to look for"),
        ("", {"candidate_labels": [1]}, "a list with a name or a list of synonyms"),
        ("", {"candidate_labels": ["x"] * 2001}, "at most 2000"),
        ("", {"candidate_labels": ["cat"], "task": "depth"}, "semantic, panoptic, instance, got 'depth'"),
        ("", {"candidate_labels": ["cat"], "task": "panoptic", "subtask": "instance"}, "mean the same"),
        ("", {"candidate_labels": ["cat"], "threshold": 1.5}, "threshold must be a number from 0 to 1, got 1.5"),
        ("", {"candidate_labels": ["cat"], "threshold": True}, "got True"),
        ("", {"candidate_labels": ["cat"], "threshold": 10**400}, "threshold must be a number from 0 to 1, got 1000"),
        ("", {"candidate_labels": ["cat"], "mask_embedding": "mean"}, "adapter, pooling, crop, got 'mean'"),
        ("", {"candidate_labels": ["cat"], "things": ["dog"]}, "things holds dog, which is no label"),
        ("", {"candidate_labels": ["cat"], "size": 3}, "size is unknown"),
        ("", "cat", '"parameters" must be an object'),
    ],
)
def test_a_mistake_gets_one_sentence(handler, inputs, parameters, message):
    with pytest.raises(ValueError, match=r"^[^\n]*$") as error:
        handler({"inputs": inputs, "parameters": parameters})
    assert message in str(error.value)


def test_a_body_without_a_picture_is_refused(handler):
    for body in ({"parameters": {}}, ["x"], None):
        with pytest.raises(ValueError, match='object with "inputs"'):
            handler(body)


def test_the_requirements_are_the_packages_own_bounds():
    requirements = dict(line.split("<", 1) for line in model_requirements())
    assert set(requirements) == {"huggingface-hub", "numpy", "pillow", "safetensors", "torch", "transformers"}
    assert ">=5.23" in requirements["transformers"]


def test_what_is_no_segmenter_at_a_repositorys_root_gets_no_handler(tmp_path):
    contents = collect(checkpoint_path(), tmp_path, "me/model", subfolder="small")
    assert not {"handler.py", "small/requirements.txt", "requirements.txt"} & set(contents.files)


def test_requirements_that_someone_wrote_stay(tiny_model_dir, tmp_path):
    folder = shutil.copytree(tiny_model_dir, tmp_path / "model")
    (folder / "requirements.txt").write_text("einops\n")
    (tmp_path / "staging").mkdir()
    contents = collect(folder, tmp_path / "staging", "me/model")
    assert contents.files["requirements.txt"] == folder / "requirements.txt"
    assert contents.files["handler.py"] == tmp_path / "staging" / "handler.py"
