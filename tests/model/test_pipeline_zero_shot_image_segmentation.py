"""The zero-shot image segmentation pipeline."""

import base64

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset
from transformers import AutoProcessor, pipeline

from hf_maskadapter import MaskAdapterForOpenVocabularySegmentation, Vocabulary, ZeroShotImageSegmentationPipeline
from hf_maskadapter.model import pipeline_zero_shot_image_segmentation as pipeline_module
from hf_maskadapter.model.pipeline_zero_shot_image_segmentation import parse_candidate_labels, register_pipeline
from hf_maskadapter.model.segments import Segments

LABELS = ["cat", "sky", "grass"]


@pytest.fixture(scope="module")
def segmenter(tiny_model_dir):
    return pipeline("zero-shot-image-segmentation", model=str(tiny_model_dir), device="cpu")


@pytest.fixture
def counted(segmenter, monkeypatch):
    """How often the picture tower ran, how many pictures it saw, and how often a vocabulary was encoded."""
    counts = {"passes": 0, "pictures": 0, "vocabularies": 0}
    get_feature_maps = segmenter.model.clip.get_feature_maps
    encode_vocabulary = segmenter.model.encode_vocabulary

    def count_pictures(pixel_values):
        counts["passes"] += 1
        counts["pictures"] += len(pixel_values)
        return get_feature_maps(pixel_values)

    def count_vocabularies(*args, **kwargs):
        counts["vocabularies"] += 1
        return encode_vocabulary(*args, **kwargs)

    monkeypatch.setattr(segmenter.model.clip, "get_feature_maps", count_pictures)
    monkeypatch.setattr(segmenter.model, "encode_vocabulary", count_vocabularies)
    segmenter._encoded.clear()
    return counts


def assert_equal(results, expected):
    assert len(results) == len(expected)
    for segment, other in zip(results, expected, strict=True):
        assert segment["label"] == other["label"]
        assert segment["score"] == pytest.approx(other["score"], abs=1e-4) or segment["score"] is other["score"] is None
        assert segment["mask"] == other["mask"]


def other_picture(size=(90, 60)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))


class TestResults:
    def test_preparing_pictures_ahead_changes_nothing(self, segmenter, picture, monkeypatch):
        pictures = [picture, other_picture(), picture]
        expected = segmenter(pictures, candidate_labels=LABELS)
        monkeypatch.setattr(pipeline_module, "prefetching_pays", lambda device: True)
        ahead = segmenter(pictures, candidate_labels=LABELS)
        assert len(ahead) == 3
        for segments, others in zip(ahead, expected, strict=True):
            assert_equal(segments, others)

    def test_semantic_masks_share_out_the_whole_picture(self, segmenter, picture):
        segments = segmenter(picture, candidate_labels=LABELS)
        assert {segment["label"] for segment in segments} <= set(LABELS)
        assert all(segment["score"] is None for segment in segments)
        assert all(segment["mask"].mode == "L" and segment["mask"].size == picture.size for segment in segments)
        covered = sum(np.asarray(segment["mask"]).astype(int) for segment in segments)
        assert (covered == 255).all()

    def test_only_panoptic_results_do_without_masks_that_are_void(self, segmenter, picture, monkeypatch):
        skips, forward = [], segmenter.model.forward

        def remember(*args, skip_void_masks=False, **kwargs):
            skips.append(skip_void_masks)
            return forward(*args, skip_void_masks=skip_void_masks, **kwargs)

        monkeypatch.setattr(segmenter.model, "forward", remember)
        for subtask in ("semantic", "panoptic", "instance"):
            segmenter(picture, candidate_labels=LABELS, subtask=subtask)
        assert skips == [False, True, False]

    def test_semantic_equals_model_and_processor(self, segmenter, picture, tiny_model_dir):
        processor = AutoProcessor.from_pretrained(tiny_model_dir)
        model = MaskAdapterForOpenVocabularySegmentation.from_pretrained(tiny_model_dir)
        inputs = processor(images=picture, return_tensors="pt")
        with torch.no_grad():
            outputs = model(
                inputs["pixel_values"],
                vocabulary=model.encode_vocabulary(LABELS, processor),
                pixel_mask=inputs["pixel_mask"],
            )
        (label_map,) = processor.post_process_semantic_segmentation(outputs, target_sizes=[(60, 90)])
        for segment in segmenter(picture, candidate_labels=LABELS):
            index = LABELS.index(segment["label"])
            assert np.array_equal(np.asarray(segment["mask"]) > 0, (label_map == index).numpy())

    def test_panoptic_segments_do_not_overlap(self, segmenter, picture):
        segments = segmenter(picture, LABELS, subtask="panoptic")
        assert segments
        covered = sum(np.asarray(segment["mask"]).astype(int) for segment in segments)
        assert covered.max() <= 255
        assert all(0 < segment["score"] <= 1 for segment in segments)

    @pytest.mark.parametrize(("things", "expected"), [(None, ["sky", "sky"]), ([False] * 3, ["sky"])])
    def test_stuff_is_merged_in_panoptic_results(self, segmenter, things, expected):
        """Two masks of the class "sky", one on each half of the picture."""
        logits = torch.tensor([[-9.0, 9.0, -9.0, -9.0]] * 2)
        masks = torch.full((2, 8, 8), -9.0)
        masks[0, :, :4] = masks[1, :, 4:] = 9.0
        result = {
            "class_queries_logits": logits[None],
            "masks_queries_logits": masks[None],
            "image_sizes": torch.tensor([[32, 32]]),
            "padded_size": torch.tensor([32, 32]),
        }
        vocabulary = Vocabulary.from_list(LABELS, things=things)
        outputs = {"results": [result], "vocabulary": [vocabulary], "target_size": [(60, 90)]}
        segments = segmenter.postprocess(outputs, subtask="panoptic")
        assert [segment["label"] for segment in segments] == expected

    def test_instances_come_best_first_and_exceed_the_threshold(self, segmenter, picture):
        every = segmenter(picture, LABELS, subtask="instance", threshold=0.0)
        scores = [segment["score"] for segment in every]
        assert scores == sorted(scores, reverse=True)
        middle = scores[len(scores) // 2]
        assert len(segmenter(picture, LABELS, subtask="instance", threshold=middle)) == sum(s > middle for s in scores)

    def test_stuff_makes_no_instances(self, segmenter, picture):
        vocabulary = Vocabulary.from_list(LABELS, things=["cat"])
        segments = segmenter(picture, vocabulary, subtask="instance", threshold=0.0)
        assert {segment["label"] for segment in segments} == {"cat"}

    def test_thresholds_default_to_the_models(self, segmenter, picture, monkeypatch):
        monkeypatch.setattr(segmenter.model.config, "object_threshold", 1.0)
        assert segmenter(picture, LABELS, subtask="panoptic") == []
        assert segmenter(picture, LABELS, subtask="panoptic", threshold=0.0) != []

    def test_mask_embedding_can_be_chosen(self, segmenter, picture):
        adapter = segmenter(picture, LABELS, subtask="instance", threshold=0.0)
        pooling = segmenter(picture, LABELS, subtask="instance", threshold=0.0, mask_embedding="pooling")
        assert [s["score"] for s in adapter] != [s["score"] for s in pooling]

    def test_rotated_photograph_gets_masks_as_a_viewer_shows_it(self, segmenter, picture, tmp_path):
        exif = picture.getexif()
        exif[0x0112] = 6
        picture.save(tmp_path / "rotated.jpg", exif=exif)
        for segment in segmenter(str(tmp_path / "rotated.jpg"), LABELS):
            assert segment["mask"].size == (60, 90)


class TestSegments:
    @pytest.mark.parametrize("subtask", ["semantic", "panoptic", "instance"])
    def test_segments_hold_what_the_dicts_hold(self, segmenter, picture, subtask):
        dicts = segmenter(picture, LABELS, subtask=subtask)
        segments = segmenter(picture, LABELS, subtask=subtask, return_segments=True)
        assert isinstance(segments, Segments)
        assert (segments.task, segments.size, segments.vocabulary.names) == (subtask, (60, 90), tuple(LABELS))
        for entry, segment in zip(dicts, segments.best_first(), strict=True):
            assert (entry["label"], entry["score"]) == (segment.label, segment.score)
            assert np.array_equal(np.asarray(entry["mask"]) > 0, segment.mask)

    def test_embeddings_are_those_of_the_model(self, segmenter, picture):
        segments = segmenter(picture, LABELS, subtask="instance", threshold=0.0, return_segments=True)
        inputs = segmenter.processor(images=picture, return_tensors="pt")
        with torch.no_grad():
            outputs = segmenter.model(
                inputs["pixel_values"], segmenter.encode_vocabulary(Vocabulary.from_list(LABELS)), return_dict=True
            )
        expected = outputs.mask_embeddings[0] / outputs.mask_embeddings[0].norm(dim=-1, keepdim=True)
        for segment in segments:
            assert np.linalg.norm(expected.numpy() - segment.embedding, axis=-1).min() < 1e-4

    def test_own_masks_keep_their_order(self, segmenter, picture):
        masks = np.zeros((2, 60, 90), dtype=bool)
        masks[0, :10], masks[1] = True, True
        inputs = {"image": picture, "masks": masks}
        segments = segmenter(inputs, LABELS, return_segments=True)
        assert np.array_equal(segments.masks, masks)
        classified = segmenter.model.classify_masks(picture, masks, LABELS, segmenter.processor)
        for segment, mask, entry in zip(segments, classified, segmenter(inputs, LABELS), strict=True):
            assert segment.label == mask.label == entry["label"]
            assert segment.score == pytest.approx(mask.score, abs=1e-5)
            assert segment.embedding == pytest.approx(mask.embedding.numpy(), abs=1e-4)

    def test_lists_and_batches_give_segments_for_each_picture(self, segmenter, picture):
        results = segmenter([picture, other_picture((40, 100))], LABELS, batch_size=2, return_segments=True)
        assert [result.size for result in results] == [(60, 90), (100, 40)]


class TestFeatures:
    def test_features_are_handed_on_without_padding_and_computed_once(self, segmenter, picture, counted):
        seen = []
        images = [picture, other_picture((40, 100))]
        segmenter(images, LABELS, batch_size=2, on_features=seen.append)
        assert counted == {"passes": 1, "pictures": 2, "vocabularies": 1}
        inputs = segmenter.processor(images=images, return_tensors="pt")
        features = segmenter.model.clip.get_feature_maps(inputs["pixel_values"])[-1]
        stride = inputs["pixel_values"].shape[-1] // features.shape[-1]
        for inside, expected, one in zip(inputs["pixel_mask"], features, seen, strict=True):
            rows, columns = (int(inside.any(dim=axis).sum()) for axis in (1, 0))
            assert one.shape[1:] == (-(-rows // stride), -(-columns // stride))
            assert torch.allclose(one, expected[:, : one.shape[1], : one.shape[2]], atol=1e-4)


class TestLabels:
    @pytest.mark.parametrize(
        "labels",
        ["cat, sky,grass", tuple(LABELS), [["cat"], ["sky"], ["grass"]], {"cat": [], "sky": ["sky"], "grass": None}],
    )
    def test_all_forms_of_labels_give_the_same(self, segmenter, picture, labels):
        assert_equal(segmenter(picture, labels), segmenter(picture, LABELS))

    def test_synonyms_are_reported_under_the_first_name(self, segmenter, picture):
        segments = segmenter(picture, [["cat", "kitten"], ["sky", "clouds"]])
        assert {segment["label"] for segment in segments} <= {"cat", "sky"}

    def test_label_sets_are_known_by_name(self):
        assert len(parse_candidate_labels("cityscapes_19")) == 19

    def test_a_string_is_never_read_as_a_file(self, tmp_path):
        (tmp_path / "secret.txt").write_text("password\n")
        assert parse_candidate_labels(str(tmp_path / "secret.txt")).names == (str(tmp_path / "secret.txt"),)
        assert parse_candidate_labels(tmp_path / "secret.txt").names == ("password",)

    def test_labels_given_at_construction_are_the_default(self, tiny_model_dir, picture):
        segmenter = pipeline(
            "zero-shot-image-segmentation", model=str(tiny_model_dir), device="cpu", candidate_labels=LABELS
        )
        assert_equal(segmenter(picture), segmenter(picture, LABELS))
        assert {segment["label"] for segment in segmenter(picture, ["zebra"])} == {"zebra"}

    @pytest.mark.parametrize("labels", [[], "", " , ", ["cat", ""], ["cat", "cat"]])
    def test_unusable_labels_are_refused(self, segmenter, picture, labels):
        with pytest.raises(ValueError, match=r"empty|twice"):
            segmenter(picture, labels)

    def test_missing_labels_are_refused(self, segmenter, picture):
        with pytest.raises(ValueError, match="candidate_labels="):
            segmenter(picture)


class TestInputs:
    def test_paths_pictures_and_arrays_give_the_same(self, segmenter, picture, tmp_path):
        picture.save(tmp_path / "picture.png")
        expected = segmenter(picture, LABELS)
        data = base64.b64encode((tmp_path / "picture.png").read_bytes()).decode()
        address = f"data:image/png;base64,{data}"
        for image in (str(tmp_path / "picture.png"), tmp_path / "picture.png", address, np.asarray(picture)):
            assert_equal(segmenter(image, LABELS), expected)

    def test_list_gives_a_list_for_each_picture(self, segmenter, picture):
        results = segmenter([picture, other_picture()], LABELS)
        assert_equal(results[0], segmenter(picture, LABELS))
        assert_equal(results[1], segmenter(other_picture(), LABELS))
        assert_equal(segmenter((picture,), LABELS)[0], results[0])

    def test_empty_list_gives_an_empty_list(self, segmenter):
        assert segmenter([], LABELS) == []

    def test_pictures_may_bring_their_own_labels(self, segmenter, picture, counted):
        inputs = [{"image": picture, "candidate_labels": ["zebra"]}, {"image": picture}, picture]
        results = segmenter(inputs, candidate_labels=LABELS, batch_size=3)
        assert [segment["label"] for segment in results[0]] == ["zebra"]
        assert_equal(results[1], results[2])
        assert counted["pictures"] == 3

    def test_generators_are_read_as_results_are_asked_for(self, segmenter, picture):
        taken = []

        def pictures():
            for number in range(5):
                taken.append(number)
                yield picture

        results = segmenter(pictures(), LABELS)
        next(iter(results))
        assert len(taken) <= 2
        assert sum(1 for _ in segmenter(iter([picture] * 4), LABELS, batch_size=3)) == 4

    def test_data_sets_are_read_row_by_row(self, segmenter, picture):
        class Rows(Dataset):
            def __len__(self):
                return 3

            def __getitem__(self, index):
                return {"image": picture, "something else": index}

        assert len(list(segmenter(Rows(), candidate_labels=LABELS))) == 3

    def test_workers_prepare_pictures(self, segmenter, picture):
        results = segmenter([picture, other_picture()], LABELS, num_workers=1)
        assert_equal(results[0], segmenter(picture, LABELS))

    def test_batches_of_one_size_equal_single_pictures(self, segmenter, picture):
        images = [picture, other_picture(), picture]
        for subtask in ("semantic", "panoptic", "instance"):
            singles = segmenter(images, LABELS, subtask=subtask)
            batched = segmenter(images, LABELS, subtask=subtask, batch_size=2)
            for single, one in zip(singles, batched, strict=True):
                assert_equal(one, single)

    def test_batches_of_different_sizes_keep_each_pictures_size(self, segmenter, picture):
        images = [picture, other_picture((40, 100)), other_picture((200, 30))]
        for image, segments in zip(images, segmenter(images, LABELS, batch_size=3), strict=True):
            assert all(segment["mask"].size == image.size for segment in segments)

    def test_dict_without_a_picture_is_refused(self, segmenter):
        with pytest.raises(ValueError, match='as "image"'):
            segmenter({"picture": None, "candidate_labels": LABELS})

    def test_missing_file_is_refused(self, segmenter, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"nothing\.png"):
            segmenter(str(tmp_path / "nothing.png"), LABELS)

    def test_unknown_subtask_is_refused(self, segmenter, picture):
        with pytest.raises(ValueError, match="semantic, panoptic, instance"):
            segmenter(picture, LABELS, subtask="stuff")

    @pytest.mark.parametrize(
        ("subtask", "name"),
        [
            (None, "threshold"),
            ("semantic", "overlap_mask_area_threshold"),
            ("instance", "overlap_mask_area_threshold"),
        ],
    )
    def test_thresholds_without_effect_are_refused(self, segmenter, picture, subtask, name):
        with pytest.raises(ValueError, match=f"^{name} has no effect on {subtask or 'semantic'}"):
            segmenter(picture, LABELS, subtask=subtask, **{name: 0.5})

    def test_misspelt_argument_is_refused(self, segmenter, picture):
        with pytest.raises(TypeError, match="treshold"):
            segmenter(picture, LABELS, treshold=0.5)


class TestCost:
    def test_all_labels_are_found_in_one_pass(self, segmenter, picture, counted):
        segmenter(picture, [f"class {number}" for number in range(50)])
        assert counted == {"passes": 1, "pictures": 1, "vocabularies": 1}

    def test_a_vocabulary_is_encoded_once_for_many_pictures(self, segmenter, picture, counted):
        list(segmenter((picture for _ in range(4)), LABELS))
        segmenter(picture, ", ".join(LABELS))
        assert counted["vocabularies"] == 1

    def test_encoded_vocabularies_do_not_pile_up(self, segmenter, picture):
        for number in range(40):
            segmenter(picture, [f"class {number}"])
        assert len(segmenter._encoded) <= 16


class TestLoading:
    def test_saved_pipeline_gives_equal_results(self, segmenter, picture, tmp_path):
        segmenter.save_pretrained(tmp_path / "saved")
        loaded = pipeline("zero-shot-image-segmentation", model=str(tmp_path / "saved"), device="cpu")
        assert isinstance(loaded, ZeroShotImageSegmentationPipeline)
        assert_equal(loaded(picture, LABELS), segmenter(picture, LABELS))

    def test_built_from_model_and_processor(self, segmenter, picture, tiny_model_dir):
        built = ZeroShotImageSegmentationPipeline(
            model=MaskAdapterForOpenVocabularySegmentation.from_pretrained(tiny_model_dir),
            processor=AutoProcessor.from_pretrained(tiny_model_dir),
            device="cpu",
        )
        assert_equal(built(picture, LABELS), segmenter(picture, LABELS))

    def test_bfloat16_runs(self, tiny_model_dir, picture):
        segmenter = pipeline(
            "zero-shot-image-segmentation", model=str(tiny_model_dir), device="cpu", dtype=torch.bfloat16
        )
        assert segmenter(picture, LABELS)

    def test_processor_is_needed(self, segmenter):
        with pytest.raises(ValueError, match="needs a processor"):
            ZeroShotImageSegmentationPipeline(model=segmenter.model, device="cpu")

    def test_another_kind_of_model_is_refused(self, segmenter):
        with pytest.raises(ValueError, match="cannot segment by labels"):
            ZeroShotImageSegmentationPipeline(model=segmenter.model.clip, processor=segmenter.processor, device="cpu")

    def test_registering_twice_is_silent(self, recwarn):
        register_pipeline()
        assert not recwarn.list
