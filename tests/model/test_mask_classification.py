"""The caller's masks: a label, a score and an embedding for each, and regions found by words."""

import numpy as np
import pytest
import torch
from transformers import pipeline

from hf_maskadapter import MaskAdapterForOpenVocabularySegmentation, MaskAdapterProcessor, Vocabulary
from hf_maskadapter.model.segments import Segments

NAMES = ["cat, kitten", "sky", "grass"]


@pytest.fixture(scope="module")
def model(tiny_model_dir):
    return MaskAdapterForOpenVocabularySegmentation.from_pretrained(tiny_model_dir).eval()


@pytest.fixture(scope="module")
def processor(tiny_model_dir):
    return MaskAdapterProcessor.from_pretrained(tiny_model_dir)


@pytest.fixture
def masks(picture):
    masks = np.zeros((3, picture.height, picture.width), dtype=bool)
    masks[0, :20] = True
    masks[1, 20:, :45] = True
    masks[2, 30:50, 50:80] = True
    return masks


def test_labels_scores_and_embeddings_are_the_models(model, processor, picture, masks):
    found = model.classify_masks(picture, masks, NAMES, processor)
    inputs = processor(images=[picture], masks=[masks], return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs, vocabulary=model.encode_vocabulary(NAMES, processor))
    scores, labels = outputs.class_queries_logits[0, :, :-1].softmax(dim=-1).max(dim=-1)
    assert [mask.label_id for mask in found] == labels.tolist()
    assert [mask.label for mask in found] == [Vocabulary.from_list(NAMES).names[label] for label in labels]
    assert [mask.score for mask in found] == pytest.approx(scores.tolist(), abs=1e-5)
    embeddings = torch.stack([mask.embedding for mask in found])
    torch.testing.assert_close(embeddings, torch.nn.functional.normalize(outputs.mask_embeddings[0], dim=-1))
    assert [mask.id for mask in found] == [0, 1, 2]
    np.testing.assert_array_equal(np.stack([mask.mask for mask in found]), masks)


def test_any_form_gives_the_same(model, processor, picture, masks):
    expected = model.classify_masks(picture, masks, NAMES, processor)
    label_map = (masks * np.array([4, 5, 9])[:, None, None]).sum(axis=0)
    found = model.classify_masks(picture, label_map, NAMES, processor)
    assert [mask.id for mask in found] == [4, 5, 9]
    assert [mask.score for mask in found] == pytest.approx([mask.score for mask in expected])
    chosen = model.classify_masks(picture, label_map, NAMES, processor, segments_info=[{"id": 9}])
    assert [mask.score for mask in chosen] == pytest.approx([expected[2].score])


@pytest.mark.parametrize("method", ["adapter", "pooling", "crop"])
def test_the_way_to_embed_can_be_chosen(model, processor, picture, masks, method):
    found = model.classify_masks(picture, masks, NAMES, processor, mask_embedding=method)
    assert all(mask.embedding.norm().item() == pytest.approx(1, abs=1e-4) for mask in found)


def test_many_masks_go_in_parts_and_the_picture_is_seen_once(model, processor, picture, masks, monkeypatch):
    seen = []
    get_feature_maps = model.clip.get_feature_maps
    monkeypatch.setattr(model.clip, "get_feature_maps", lambda pixels: seen.append(1) or get_feature_maps(pixels))
    monkeypatch.setattr("hf_maskadapter.model.mask_classification._MASKS_AT_A_TIME", 2)
    found = model.classify_masks(picture, masks, NAMES, processor)
    assert len(seen) == 1
    monkeypatch.undo()
    expected = model.classify_masks(picture, masks, NAMES, processor)
    assert [mask.score for mask in found] == pytest.approx([mask.score for mask in expected], abs=1e-5)


def test_an_encoded_vocabulary_is_taken_as_it_is(model, processor, picture, masks):
    encoded = model.encode_vocabulary(NAMES, processor)
    found = model.classify_masks(picture, masks, encoded, processor)
    assert [mask.label for mask in found] == [str(mask.label_id) for mask in found]


def test_masks_that_do_not_fit_are_one_clear_error(model, processor, picture, masks):
    with pytest.raises(ValueError, match="Masks must have shape"):
        model.classify_masks(picture, masks[:, 1:], NAMES, processor)


def test_our_own_instance_results_are_classified_and_nothing_found_is_nothing(model, processor, picture):
    inputs = processor(images=[picture], return_tensors="pt")
    outputs = model(**inputs, vocabulary=model.encode_vocabulary(NAMES, processor))
    size = (picture.height, picture.width)
    (result,) = processor.image_processor.post_process_instance_segmentation(outputs, top_k=6, target_sizes=[size])
    values = result["segmentation"].numpy()
    visible = [info["id"] for info in result["segments_info"] if (values == info["id"]).any()]
    assert visible
    found = model.classify_masks(picture, result, NAMES, processor)
    assert [mask.id for mask in found] == visible
    np.testing.assert_array_equal(found[0].mask, values == visible[0])
    nothing = {"segmentation": torch.full(size, -1.0), "segments_info": []}
    assert model.classify_masks(picture, nothing, NAMES, processor) == []


def test_regions_are_compared_with_texts(model, processor, picture, masks):
    found = model.classify_masks(picture, masks, NAMES, processor)
    texts = ["sky", "a cat, asleep", "sky"]
    cosines = model.score_texts(found, texts, processor)
    assert cosines.shape == (3, 3)
    torch.testing.assert_close(cosines[:, 0], cosines[:, 2])
    assert cosines.abs().max() <= 1.0001
    sky = model.encode_vocabulary(["sky"], processor).text_embeds[0]
    torch.testing.assert_close(cosines[:, 0], torch.stack([mask.embedding for mask in found]) @ sky)
    alone = model.score_texts(torch.stack([mask.embedding for mask in found]), "sky", processor)
    torch.testing.assert_close(alone, cosines[:, :1])


def test_comparing_no_mask_is_an_error(model, processor):
    with pytest.raises(ValueError, match="no mask to compare"):
        model.score_texts([], "sky", processor)


@pytest.fixture(scope="module")
def segmenter(tiny_model_dir):
    return pipeline("zero-shot-image-segmentation", model=str(tiny_model_dir), device="cpu")


class TestPipeline:
    def test_labels_the_callers_masks_in_their_order(self, segmenter, model, processor, picture, masks):
        expected = model.classify_masks(picture, masks, NAMES, processor)
        found = segmenter({"image": picture, "masks": masks}, candidate_labels=NAMES)
        assert [segment["label"] for segment in found] == [mask.label for mask in expected]
        assert [segment["score"] for segment in found] == pytest.approx([mask.score for mask in expected], abs=1e-4)
        np.testing.assert_array_equal(np.stack([np.asarray(segment["mask"]) for segment in found]) == 255, masks)

    def test_takes_pictures_with_and_without_masks_in_one_batch(self, segmenter, picture, masks):
        wide = picture.resize((120, 60))
        inputs = [{"image": picture, "masks": masks}, wide, {"image": picture, "masks": masks[:1]}]
        found = segmenter(inputs, candidate_labels=NAMES, batch_size=3)
        assert [len(found[0]), len(found[2])] == [3, 1]
        assert all(segment["score"] is None for segment in found[1])

    def test_a_picture_without_masks_has_an_empty_result_and_stops_no_other(self, segmenter, picture, masks):
        nothing = {"image": picture, "masks": []}
        found = segmenter([{"image": picture, "masks": masks}, nothing, picture], candidate_labels=NAMES, batch_size=3)
        assert [len(segments) for segments in found[:2]] == [3, 0]
        assert segmenter(nothing, candidate_labels=NAMES) == []

    def test_needs_no_generator(self, processor, model, picture, masks):
        bare = MaskAdapterForOpenVocabularySegmentation.from_parts(model.clip, None, model.adapter)
        segmenter = pipeline("zero-shot-image-segmentation", model=bare, processor=processor, device="cpu")
        assert len(segmenter({"image": picture, "masks": masks}, candidate_labels=NAMES)) == 3

    def test_says_what_is_wrong_with_masks(self, segmenter, picture):
        with pytest.raises(ValueError, match="Masks must have shape"):
            segmenter({"image": picture, "masks": np.ones((2, 5, 5), bool)}, candidate_labels=NAMES)


def test_classified_masks_turn_into_segments(model, processor, picture, masks):
    found = model.classify_masks(picture, masks.astype(np.float32) * 0.75, NAMES, processor)
    vocabulary = Vocabulary.from_list(NAMES)
    segments = Segments.from_classified_masks(found, vocabulary, picture="a.png")
    assert (segments.size, segments.picture) == ((picture.height, picture.width), "a.png")
    np.testing.assert_array_equal(segments.masks, masks)
    assert segments.labels == [mask.label for mask in found]
    assert segments.scores.tolist() == [mask.score for mask in found]
    encoded = model.classify_masks(picture, masks, model.encode_vocabulary(NAMES, processor), processor)
    assert Segments.from_classified_masks(encoded, vocabulary).labels == segments.labels
    cosines = model.score_texts(segments, "a cat", processor)
    torch.testing.assert_close(cosines, model.score_texts(found, "a cat", processor))


def test_nothing_to_classify_turns_into_no_segments():
    vocabulary = Vocabulary.from_list(NAMES)
    assert len(Segments.from_classified_masks([], vocabulary, size=(4, 5))) == 0
    with pytest.raises(ValueError, match=r"size=\(height, width\)"):
        Segments.from_classified_masks([], vocabulary)


def test_segments_without_embeddings_cannot_be_compared_with_texts(model, processor):
    segments = Segments.from_label_map(np.zeros((2, 2), dtype=int), Vocabulary.from_list(NAMES))
    with pytest.raises(ValueError, match=r"Segment\(cat, 4 pixels.*no embedding"):
        model.score_texts(segments, "a cat", processor)
