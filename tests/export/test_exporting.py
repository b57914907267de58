"""Models of every kind: exported with the same results, or refused with a word that says why."""

import string

import pytest
import torch
from transformers import CLIPTokenizer

from hf_maskadapter import MaskAdapterForOpenVocabularySegmentation, MaskAdapterProcessor, export_model
from support import tiny_models
from support.extras import needs_extra

needs_extra("export", "onnx", "onnxscript", "onnxruntime")


def tokenizer_of_512():
    """A CLIP tokenizer of single characters with as many tokens as the tiny text towers know, start and end last."""
    characters = string.ascii_lowercase + string.digits
    tokens = [*characters, *(f"{character}</w>" for character in characters)]
    tokens += [f"unused{number}" for number in range(tiny_models.START - len(tokens))]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: index for index, token in enumerate(tokens)}, merges=[], model_max_length=77)


def processor_of(model):
    return MaskAdapterProcessor.from_clip(
        model.config.clip_config, tokenizer_of_512(), ["a {}"], size={"shortest_edge": 96}
    )


def export(model, folder, **options):
    return export_model(model, folder, processor=processor_of(model), report=lambda line: None, **options)


CHANGES = {
    "FC-CLIP": {"use_adapter": False},
    "MAFT+": {"text_transfer": True, "text_transfer_heads": 2, "mix_projected_positions": True},
    "MAFT+ panoptic": {"text_transfer": True, "text_transfer_heads": 2, "text_transfer_panoptic": True},
    "masks from the caller": {"mask_generator_config": None},
    "ensemble on valid masks": {"ensemble_on_valid_masks": True, "mask_pooling": "area"},
}


def each(names, *in_short):
    return [pytest.param(name, marks=() if name in in_short else pytest.mark.slow) for name in names]


@pytest.mark.parametrize("kind", each(CHANGES, "FC-CLIP", "MAFT+"))
def test_results_are_those_of_pytorch(tmp_path, kind):
    changes = CHANGES[kind]
    manifest = export(tiny_models.segmenter(**changes), tmp_path / "exported")
    assert manifest.difference["least_cosine"] >= 0.99999
    assert manifest.difference["largest_score_difference"] <= 1e-4
    if "mask_generator_config" not in changes:
        assert manifest.difference["equal_pixels"] >= 0.999
    assert ("text_transfer" in manifest.graphs) == ("text_transfer" in changes)
    assert ("adapter" in manifest.graphs) == changes.get("use_adapter", True)


@pytest.mark.parametrize("name", each(["resnet", "clip", "metaclip_2", "siglip"], "clip"))
def test_other_clips(tmp_path, name):
    torch.manual_seed(0)
    model = MaskAdapterForOpenVocabularySegmentation.from_parts(tiny_models.TINY_CLIPS[name](), adapter="new")
    manifest = export(model, tmp_path / "exported")
    assert manifest.difference["least_cosine"] >= 0.99999


def test_a_clip_that_no_graph_can_hold_is_refused(tmp_path):
    model = MaskAdapterForOpenVocabularySegmentation.from_parts(tiny_models.TINY_CLIPS["siglip2"](), adapter="new")
    with pytest.raises(ValueError, match=r"The graph 'picture' of this model cannot be exported .*aa"):
        export(model, tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


def test_half_precision_is_refused(tmp_path):
    with pytest.raises(ValueError, match="Exporting starts from fp32 weights"):
        export(tiny_models.segmenter().to(torch.bfloat16), tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


def test_a_model_that_embeds_crops_is_refused(tmp_path):
    with pytest.raises(ValueError, match='mask_embedding="crop" is not exported'):
        export(tiny_models.segmenter(mask_embedding="crop"), tmp_path / "exported")


def test_a_model_as_such_needs_its_processor(tmp_path):
    with pytest.raises(ValueError, match="Give the processor"):
        export_model(tiny_models.segmenter(), tmp_path / "exported")


@pytest.mark.parametrize("arguments", [{"format": "none"}, {"dtype": "none"}])
def test_forms_that_there_are_not(tmp_path, arguments):
    with pytest.raises(ValueError, match="must be one of"):
        export_model("miniature", tmp_path / "exported", **arguments)
