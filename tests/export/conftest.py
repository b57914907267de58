import pytest

from support.extras import needs_extra


@pytest.fixture(scope="session")
def exported_folder(tmp_path_factory):
    """The embedded model as ONNX in fp32, exported once."""
    needs_extra("export", "onnx", "onnxscript", "onnxruntime")
    from hf_maskadapter import export_model

    folder = tmp_path_factory.mktemp("export") / "miniature"
    export_model("miniature", folder, report=lambda line: None)
    return folder


@pytest.fixture(scope="session")
def exported(exported_folder):
    from hf_maskadapter.export import ExportedSegmenter

    return ExportedSegmenter.from_pretrained(exported_folder, threads=1)


@pytest.fixture(scope="session")
def pipeline():
    from hf_maskadapter import load_segmenter

    return load_segmenter("miniature", device="cpu")
