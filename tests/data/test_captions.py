"""Crops for contrastive pre-training: where they are cut, what is said of them, and the user's mistakes."""

from __future__ import annotations

import dataclasses
import math

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from hf_maskadapter import Vocabulary
from hf_maskadapter.data import DataError, SegmentationSample, SegmentInfo
from hf_maskadapter.data.captions import (
    CaptionedCrop,
    CaptionedPicture,
    CropCollator,
    PictureCenters,
    PictureCrops,
    SegmentCrops,
    load_captioned_pictures,
)
from support.data_samples import encode, picture

VOCABULARY = Vocabulary.from_list(["sky", "road, street", "car", "crowd"])
SIZE = (60, 80)
SKY, ROAD, CAR, CROWD = range(4)


def segments() -> SegmentationSample:
    """Sky above, a road below, two cars of one segment on it, one of them small, and a crowd."""
    numbers = np.full(SIZE, SKY + 1, dtype=np.int32)
    numbers[30:] = ROAD + 1
    numbers[35:55, 10:40] = CAR + 1
    numbers[40:44, 60:64] = CAR + 1
    numbers[:20, 60:] = CROWD + 1
    infos = tuple(SegmentInfo(index + 1, index, True, iscrowd=index == CROWD) for index in range(4))
    image = Image.fromarray(np.stack([numbers * 50] * 3, axis=-1).astype(np.uint8))
    return SegmentationSample("a", image, numbers, infos, True, "a.png")


def crops(**options) -> SegmentCrops:
    defaults = {"vocabulary": VOCABULARY, "crop_size": 16, "min_area": 100, "max_enlargement": 4.0}
    return SegmentCrops(**defaults | options)


def boxes(transform: SegmentCrops, epochs: int = 40):
    return [entry for epoch in range(epochs) for entry in transform.draw_boxes(segments(), epoch)]


class TestSegmentCrops:
    def test_lie_in_the_picture_and_meet_a_large_part_of_their_class(self):
        numbers = segments().segmentation
        for category, (left, top, right, bottom) in boxes(crops()):
            assert 0 <= left < right <= SIZE[1]
            assert 0 <= top < bottom <= SIZE[0]
            assert right - left == pytest.approx(bottom - top)
            assert (numbers[int(top) : math.ceil(bottom), int(left) : math.ceil(right)] == category + 1).any()

    def test_have_the_size_of_the_part_times_the_context(self):
        for category, (left, _, right, _) in boxes(crops(context=(0.5, 1.0), max_enlargement=16)):
            area = {SKY: 60 * 20 + 80 * 10, ROAD: 30 * 80 - 600 - 16, CAR: 600}[category]
            assert 0.5 <= (right - left) / math.sqrt(area) <= 1.0

    def test_are_not_enlarged_further_than_said(self):
        assert min(right - left for _, (left, _, right, _) in boxes(crops(context=(0.01, 0.02)))) == pytest.approx(4)

    def test_leave_out_small_parts_and_crowds(self):
        found = boxes(crops(context=(0.01, 0.02)))
        assert {category for category, _ in found} == {SKY, ROAD, CAR}
        assert all(right < 45 for category, (_, _, right, _) in found if category == CAR)
        assert any(left > 55 for category, (left, *_) in boxes(crops(min_area=1)) if category == CAR)

    def test_of_a_picture_are_of_different_classes(self):
        for epoch in range(5):
            drawn = [category for category, _ in crops(crops_per_picture=6).draw_boxes(segments(), epoch)]
            assert sorted(drawn[:3]) == [SKY, ROAD, CAR]
            assert drawn[:3] == drawn[3:]

    def test_depend_on_seed_epoch_and_sample_alone(self):
        sample, other = segments(), dataclasses.replace(segments(), sample_id="b")
        drawn = crops().draw_boxes(sample, 3)
        assert drawn == crops().draw_boxes(sample, 3)
        for differing in (
            crops(seed=1).draw_boxes(sample, 3),
            crops().draw_boxes(sample, 4),
            crops().draw_boxes(other, 3),
        ):
            assert differing != drawn
        for once, again in zip(crops()(sample, 3), crops()(sample, 3), strict=True):
            assert torch.equal(once.pixel_values, again.pixel_values)

    def test_show_the_box_normalized_and_carry_all_synonyms(self):
        transform = crops(image_mean=(10, 10, 10), image_std=(2, 2, 2), context=(0.01, 0.02), max_enlargement=16)
        centers = {category: (box[0], box[1]) for category, box in transform.draw_boxes(segments())}
        for crop in transform(segments()):
            assert crop.pixel_values.shape == (3, 16, 16)
            assert crop.captions in VOCABULARY.synonyms
            category = VOCABULARY.synonyms.index(crop.captions)
            values = crop.pixel_values * 2 + 10
            left, top = (int(value) for value in centers[category])
            near = segments().segmentation[top : top + 2, left : left + 2] * 50
            assert near.min() - 0.6 <= values.min()
            assert values.max() <= near.max() + 0.6

    def test_are_flipped_as_often_as_said(self):
        straight, flipped = (crops(flip_probability=p)(segments()) for p in (0.0, 1.0))
        for one, other in zip(straight, flipped, strict=True):
            assert torch.equal(one.pixel_values, other.pixel_values.flip(-1))

    def test_of_a_picture_without_large_parts_are_none(self):
        assert crops(min_area=5000)(segments()) == []

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"crop_size": 0}, "crop_size"),
            ({"flip_probability": 1.5}, "flip_probability"),
            ({"crops_per_picture": 0}, "crops_per_picture"),
            ({"min_area": 0}, "min_area"),
            ({"context": (2.0, 1.0)}, "ascending"),
            ({"max_enlargement": 0.0}, "max_enlargement"),
        ],
    )
    def test_refuse_wrong_settings(self, options, message):
        with pytest.raises(ValueError, match=message):
            crops(**options)


class TestPictureCrops:
    def test_are_squares_that_cover_the_share(self, monkeypatch):
        seen = []
        monkeypatch.setattr(PictureCrops, "_cut", lambda _, image, box, rng: seen.append(box) or torch.zeros(3, 4, 4))
        transform = PictureCrops(crop_size=4, min_share=0.25)
        for epoch in range(50):
            (crop,) = transform(CaptionedPicture("a", picture(0, 40, 20), ("one", "two")), epoch)
            assert crop.captions == ("one", "two")
        sides = [right - left for left, _, right, _ in seen]
        assert all(left >= 0 and right <= 40 and top >= 0 and bottom <= 20 for left, top, right, bottom in seen)
        assert 10 <= min(sides) < 12
        assert 18 < max(sides) <= 20
        assert len({left for left, *_ in seen}) == 50

    def test_refuse_a_share_of_nothing(self):
        with pytest.raises(ValueError, match="min_share"):
            PictureCrops(crop_size=4, min_share=0)


def test_the_center_of_a_picture_is_its_largest_square_there_in_every_epoch():
    pixels = np.zeros((4, 10, 3), np.uint8)
    pixels[:, 3:7] = np.arange(48).reshape(4, 4, 3) * 5
    transform = PictureCenters(crop_size=4, image_mean=[0, 0, 0], image_std=[1, 1, 1])
    for epoch in range(5):
        (crop,) = transform(CaptionedPicture("a", Image.fromarray(pixels), ("one", "two")), epoch)
        assert crop.captions == ("one", "two")
        assert torch.equal(crop.pixel_values, torch.from_numpy(pixels[:, 3:7]).permute(2, 0, 1).float())


class TestCollator:
    def test_repeats_crops_where_a_picture_has_none(self):
        ones = [CaptionedCrop(torch.full((3, 2, 2), float(value)), (str(value),)) for value in range(3)]
        batch = CropCollator(2)([ones[:2], [], ones[2:]])
        assert batch["captions"] == [("0",), ("1",), ("2",), ("0",), ("1",), ("2",)]
        assert batch["pixel_values"][:, 0, 0, 0].tolist() == [0, 1, 2, 0, 1, 2]

    def test_of_nothing_says_what_to_change(self):
        with pytest.raises(DataError, match=r"None of 2 pictures.*500 connected pixels.*lower min_segment_area"):
            CropCollator(2, 500)([[], []])


class TestCaptionedPictures:
    def columns(self, **changes):
        columns = {
            "image": [{"bytes": encode(picture(i)), "path": None} for i in range(3)],
            "text": [["a dog", " a brown dog "], ["a cat"], ["a boat", "", "water"]],
        } | changes
        features = datasets.Features({"image": datasets.Image()})
        return datasets.Dataset.from_dict(columns).cast_column("image", features["image"])

    def test_have_one_or_several_captions(self):
        pictures = load_captioned_pictures(self.columns())
        assert len(pictures) == 3
        assert pictures.read(0).captions == ("a dog", "a brown dog")
        assert pictures.read(2).captions == ("a boat", "water")
        single = load_captioned_pictures(self.columns(text=["a dog", "a cat", "a boat"]), max_samples=2)
        assert len(single) == 2
        assert single.read(1).captions == ("a cat",)
        assert single.read(1).image.size == (16, 12)
        assert single.read(1).sample_id == "1"

    def test_of_a_folder_with_metadata(self, tmp_path):
        folder = tmp_path / "pictures"
        folder.mkdir()
        for name in ("a.png", "b.png"):
            picture().save(folder / name)
        (folder / "metadata.csv").write_text("file_name,caption\na.png,first\nb.png,second\n")
        pictures = load_captioned_pictures(folder, split="train", cache_dir=tmp_path / "cache")
        assert [pictures.read(item).captions for item in range(2)] == [("first",), ("second",)]

    def test_without_a_caption_are_named(self):
        with pytest.raises(DataError, match=r"sample '1': there is no caption"):
            load_captioned_pictures(self.columns(text=["a dog", " ", "a boat"])).read(1)

    def test_with_something_else_than_text_are_named(self):
        with pytest.raises(DataError, match=r"sample '0'.*must hold a caption or a list of captions, got int"):
            load_captioned_pictures(self.columns(text=[1, 2, 3])).read(0)

    def test_that_are_damaged_are_named(self):
        images = [{"bytes": b"no picture", "path": None}] * 3
        with pytest.raises(DataError, match=r"sample '2'.*picture cannot be read"):
            load_captioned_pictures(self.columns(image=images)).read(2)

    def test_need_a_column_with_captions(self):
        dataset = self.columns().rename_column("text", "words")
        with pytest.raises(DataError, match=r"no column with the captions.*image, words"):
            load_captioned_pictures(dataset)
        assert load_captioned_pictures(dataset, caption_column="words").read(1).captions == ("a cat",)
