"""What importing the package does, and does not do."""

import subprocess
import sys

import pytest

import hf_maskadapter

AUTO_CLASSES = """
from transformers import AutoConfig, AutoImageProcessor, AutoModelForUniversalSegmentation, AutoProcessor
folder = sys.argv[1]
assert type(AutoConfig.from_pretrained(folder)).__name__ == "MaskAdapterConfig"
assert type(AutoProcessor.from_pretrained(folder)).__name__ == "MaskAdapterProcessor"
assert type(AutoImageProcessor.from_pretrained(folder)).__name__ == "MaskAdapterImageProcessorPil"
model = AutoModelForUniversalSegmentation.from_pretrained(folder)
assert type(model).__name__ == "MaskAdapterForOpenVocabularySegmentation"
from transformers.pipelines import PIPELINE_REGISTRY
assert "zero-shot-image-segmentation" in PIPELINE_REGISTRY.get_supported_tasks()
"""


def run(code, *arguments):
    command = [sys.executable, "-c", f"import sys\n{code}", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_import_is_light_and_prints_nothing():
    heavy = "any(name in sys.modules for name in ('torch', 'transformers', 'numpy', 'PIL'))"
    finished = run(f"import hf_maskadapter, hf_maskadapter.cli, hf_maskadapter.model.vocabulary\nassert not {heavy}")
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "", "")


def test_every_public_name_loads_and_prints_nothing():
    finished = run("import hf_maskadapter\nfor name in hf_maskadapter.__all__: getattr(hf_maskadapter, name)")
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "", "")


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'magic'"):
        _ = hf_maskadapter.magic


@pytest.mark.parametrize(
    "first",
    [
        "import hf_maskadapter",
        "import transformers, hf_maskadapter",
        "from hf_maskadapter import MaskAdapterConfig",
        "import hf_maskadapter.model.image_processing_maskadapter",
        "import hf_maskadapter.model.modeling_text_classifier",
    ],
)
def test_auto_classes_know_the_package_whatever_is_imported_first(first, tiny_model_dir):
    finished = run(first + AUTO_CLASSES, tiny_model_dir)
    assert finished.returncode == 0, finished.stderr
