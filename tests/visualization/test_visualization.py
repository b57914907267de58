"""Overlays, legends, heat maps and comparisons."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hf_maskadapter.model.segments import Segment, Segments
from hf_maskadapter.model.vocabulary import Vocabulary
from hf_maskadapter.visualization import (
    activation_heat_map,
    class_color,
    class_colors,
    compare,
    heat_map,
    lettering,
    overlay,
    overlay_masks,
    overlays,
    side_by_side,
)

NAMES = ["cat", "sofa", "wall", "floor"]


def picture(width: int = 200, height: int = 120) -> Image.Image:
    columns, rows = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([columns, rows, (columns + rows) / 2], axis=-1).astype(np.uint8))


def label_map(width: int = 200, height: int = 120) -> np.ndarray:
    """Wall above, floor below, a cat in the middle."""
    values = np.full((height, width), 2)
    values[height // 2 :] = 3
    values[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = 0
    return values


def plain(image, segmentation, *args, **kwargs) -> np.ndarray:
    """The painted picture alone, as an array."""
    options = {"names": False, "legend": False, "outlines": False} | kwargs
    return np.asarray(overlay(image, segmentation, *args, **options))


class TestOverlay:
    def test_label_map_paints_each_class_in_its_color(self):
        painted = plain(picture(), label_map(), labels=NAMES, alpha=1.0)
        colors = class_colors(NAMES)
        assert tuple(painted[60, 100]) == colors[0]
        assert tuple(painted[5, 5]) == colors[2]
        assert tuple(painted[115, 5]) == colors[3]

    @pytest.mark.parametrize("unknown", [-1, 4, 255])
    def test_values_that_are_no_class_stay_unpainted(self, unknown):
        values = label_map()
        values[:30] = unknown
        painted = plain(picture(), values, labels=NAMES)
        assert np.array_equal(painted[:30], np.asarray(picture())[:30])
        assert not np.array_equal(painted[30:], np.asarray(picture())[30:])

    def test_segments_are_found_by_id_whatever_their_order(self):
        values = np.full((120, 200), 70_000)
        values[:, :100] = 12
        info = [{"id": 70_000, "label_id": 1}, {"id": 12, "label_id": 0}, {"id": 5, "label_id": 2}]
        painted = plain(picture(), values, info, NAMES, alpha=1.0)
        assert tuple(painted[0, 0]) == class_colors(NAMES)[0]
        assert tuple(painted[0, 199]) == class_colors(NAMES)[1]

    def test_ids_without_info_stay_unpainted(self):
        values = np.array(label_map() + 1)
        painted = plain(picture(), values, [{"id": 1, "label_id": 0}], NAMES)
        assert np.array_equal(painted[0], np.asarray(picture())[0])

    def test_no_segments_leave_the_picture_as_it_is(self):
        assert np.array_equal(plain(picture(), label_map(), [], NAMES), np.asarray(picture()))

    def test_info_may_carry_labels_instead_of_indices(self):
        painted = plain(picture(), np.ones((120, 200)), [{"id": 1, "label": "zebra"}], alpha=1.0)
        assert tuple(painted[0, 0]) == class_color("zebra")

    def test_alpha_zero_only_fades_the_picture(self):
        painted = plain(Image.new("RGB", (40, 30), (90, 90, 90)), np.zeros((30, 40)), labels=NAMES, alpha=0.0)
        assert (painted == 90).all()

    def test_outlines_separate_touching_segments_of_one_class(self):
        values = np.ones((120, 200), dtype=int)
        values[:, 100:] = 2
        info = [{"id": 1, "label_id": 0}, {"id": 2, "label_id": 0}]
        painted = plain(picture(), values, info, NAMES, outlines=True)
        assert tuple(painted[60, 100]) == class_colors(NAMES)[0]
        assert tuple(painted[60, 50]) != class_colors(NAMES)[0]

    def test_without_legend_the_size_is_the_pictures(self):
        assert overlay(picture(), label_map(), labels=NAMES, legend=False).size == (200, 120)

    def test_legend_lies_below_and_holds_each_color(self):
        result = overlay(picture(400, 200), label_map(400, 200), labels=NAMES)
        assert result.width == 400
        legend = np.asarray(result)[200:].reshape(-1, 3)
        for name in ("cat", "wall", "floor"):
            color = class_colors(NAMES)[NAMES.index(name)]
            assert (legend == color).all(axis=1).sum() > 30
        assert not (legend == class_colors(NAMES)[1]).all(axis=1).any(), "sofa is not in the picture"

    def test_names_are_written_only_where_there_is_room(self):
        values = np.zeros((120, 200), dtype=int)
        values[5:9, 5:9] = 1
        with_names = plain(picture(), values, labels=NAMES, names=True)
        without = plain(picture(), values, labels=NAMES)
        assert (with_names != without).any()
        assert np.array_equal(with_names[:20, :20], without[:20, :20])

    def test_names_do_not_cover_each_other(self, monkeypatch):
        boxes = []
        place = overlays._Placement.place

        def record(self, index, width, height):
            corner = place(self, index, width, height)
            if corner is not None:
                boxes.append((*corner, corner[0] + width, corner[1] + height))
            return corner

        monkeypatch.setattr(overlays._Placement, "place", record)
        values = np.zeros((300, 300), dtype=int)
        for number in range(9):
            row, column = divmod(number, 3)
            values[row * 100 : row * 100 + 100, column * 100 : column * 100 + 100] = number
        overlay(picture(300, 300), values, labels=[f"class {number}" for number in range(9)])
        assert len(boxes) == 9
        for i, (left, top, right, bottom) in enumerate(boxes):
            for other in boxes[i + 1 :]:
                assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top

    @pytest.mark.parametrize(("width", "height"), [(1, 1), (3, 400), (400, 3), (100, 60), (4000, 100)])
    def test_any_size_of_picture_works(self, width, height):
        result = overlay(picture(width, height), np.zeros((height, width)), labels=["a class with a long name"])
        assert result.height > height
        assert result.width >= width

    def test_legend_of_a_tiny_picture_stays_readable(self):
        result = overlay(picture(40, 30), np.zeros((30, 40)), labels=["television set"])
        assert result.width >= 120

    @pytest.mark.parametrize("size", [(100, 75), (640, 480), (4000, 300)])
    def test_legend_holds_every_name_in_full(self, size, monkeypatch):
        written = []
        draw = overlays.ImageDraw.ImageDraw.text

        def record(self, place, text, *args, **kwargs):
            written.append(text)
            assert 0 <= place[0] <= self.im.size[0] - kwargs["font"].getlength(text) + 1
            assert 0 <= place[1] <= self.im.size[1]
            draw(self, place, text, *args, **kwargs)

        monkeypatch.setattr(overlays.ImageDraw.ImageDraw, "text", record)
        labels = [f"class {number}, which has an uncommonly long-winded name" for number in range(60)]
        values = np.arange(size[0] * size[1]).reshape(size[1], size[0]) % 60
        overlay(picture(*size), values, labels=labels, names=False)
        assert "".join("".join(written).split()) == "".join("".join(sorted(labels)).split())

    @settings(max_examples=30)
    @given(st.text(st.characters(codec="ascii", exclude_categories=["C"]), min_size=1), st.integers(20, 300))
    def test_wrapped_text_fits_and_loses_no_letter(self, text, width):
        font = lettering.font_of(12, None)
        lines = lettering.wrap(font, text, width)
        assert "".join("".join(lines).split()) == "".join(text.split())
        assert all(font.getlength(line) <= width for line in lines)

    def test_name_lies_on_its_segment(self, monkeypatch):
        placed = []
        place = overlays._Placement.place

        def record(self, index, width, height):
            corner = place(self, index, width, height)
            if corner is not None:
                placed.append((index, corner[0] + width // 2, corner[1] + height // 2))
            return corner

        monkeypatch.setattr(overlays._Placement, "place", record)
        rows, columns = np.mgrid[:600, :800]
        radius = np.hypot(rows - 300, columns - 400)
        values = (radius < 250).astype(int) + (radius < 120)  # a ring, whose centre of gravity is in its hole
        overlay(picture(800, 600), values, labels=["outside", "ring", "hole"])
        assert {index for index, _, _ in placed} == {0, 1, 2}
        for index, column, row in placed:
            assert values[row, column] == index

    def test_outline_of_a_thumbnail_is_one_pixel_wide(self):
        values = np.zeros((75, 100), dtype=int)
        values[:, 50:] = 1
        with_outline = plain(picture(100, 75), values, labels=NAMES, outlines=True)
        changed = (with_outline != plain(picture(100, 75), values, labels=NAMES)).any(axis=-1)
        assert changed.any(axis=0).sum() == 1

    def test_letters_and_lines_grow_with_the_picture(self):
        heights = [
            overlay(picture(size, size), np.zeros((size, size)), labels=NAMES).height - size for size in (500, 2000)
        ]
        assert heights[1] == pytest.approx(4 * heights[0], rel=0.2)

    def test_tensors_arrays_and_pil_images_give_the_same(self):
        expected = plain(picture(), label_map(), labels=NAMES)
        assert np.array_equal(plain(np.asarray(picture()), torch.tensor(label_map()), labels=NAMES), expected)
        as_image = Image.fromarray(label_map().astype(np.uint8))
        assert np.array_equal(plain(picture(), as_image, labels=NAMES), expected)

    def test_picture_is_not_altered(self):
        image = picture()
        overlay(image, label_map(), labels=NAMES)
        assert image == picture()

    def test_rotated_photograph_is_painted_as_a_viewer_shows_it(self, tmp_path):
        image = picture()
        exif = image.getexif()
        exif[0x0112] = 6
        image.save(tmp_path / "rotated.png", exif=exif)
        with Image.open(tmp_path / "rotated.png") as rotated:
            assert overlay(rotated, np.zeros((200, 120)), labels=NAMES, legend=False).size == (120, 200)

    def test_names_with_letters_that_the_font_lacks_do_not_fail(self):
        for name in ("Größe", "猫", "café", "кошка"):
            overlay(picture(), np.zeros((120, 200)), labels=[name])

    def test_wrong_size_is_refused(self):
        with pytest.raises(ValueError, match="120 pixels high and 200 wide"):
            overlay(picture(), np.zeros((60, 100)), labels=NAMES)

    def test_label_map_without_names_is_refused(self):
        with pytest.raises(ValueError, match="needs labels="):
            overlay(picture(), label_map())

    def test_segments_without_names_are_refused(self):
        with pytest.raises(ValueError, match="needs labels="):
            overlay(picture(), label_map(), [{"id": 1, "label_id": 0}])

    def test_array_that_is_no_picture_is_refused(self):
        with pytest.raises(TypeError, match="must be a PIL image"):
            overlay("picture.png", label_map(), labels=NAMES)

    def test_picture_of_16_bits_keeps_its_brightness(self):
        gray = Image.fromarray(np.full((30, 40), 32896, dtype=np.uint16))
        painted = plain(gray, np.full((30, 40), -1), labels=NAMES)
        assert (painted == 128).all()


class TestSegments:
    def test_segments_are_painted_as_their_map_is(self):
        vocabulary = Vocabulary.from_list(NAMES)
        segments = Segments.from_label_map(label_map(), vocabulary)
        expected = overlay(picture(), label_map(), labels=NAMES)
        assert overlay(picture(), segments) == expected
        assert overlay_masks(picture(), segments) == expected

    def test_later_segments_lie_on_top(self):
        vocabulary = Vocabulary.from_list(NAMES)
        small = np.zeros((120, 200), dtype=bool)
        small[10:20, 10:20] = True
        found = [Segment.of_class(vocabulary, 1, small), Segment.of_class(vocabulary, 2, ~small | small)]
        painted = plain(picture(), Segments(found, (120, 200), vocabulary), alpha=1.0)
        assert (painted == class_color("wall")).all()

    def test_segments_of_another_picture_are_refused(self):
        segments = Segments([], (5, 6), Vocabulary.from_list(NAMES))
        with pytest.raises(ValueError, match=r"\(5, 6\).*120 pixels"):
            overlay(picture(), segments)


class TestOverlayMasks:
    def test_masks_of_zeros_and_ones_and_soft_masks_are_painted_alike(self):
        mask = np.zeros((120, 200), dtype=bool)
        mask[:, :50] = True
        forms = (mask, mask.astype(np.uint8), mask * np.uint8(255), np.where(mask, 0.6, 0.4))
        painted = [overlay_masks(picture(), [{"label": "cat", "mask": form}]) for form in forms]
        assert painted == [painted[0]] * 4

    def test_logits_are_refused_by_name(self):
        with pytest.raises(ValueError, match="mask of 'cat'"):
            overlay_masks(picture(), [{"label": "cat", "mask": np.full((120, 200), -3.5)}])

    def test_smaller_mask_lies_on_top(self):
        large = Image.new("L", (200, 120), 255)
        small = Image.new("L", (200, 120), 0)
        small.paste(255, (50, 50, 80, 80))
        for order in (1, -1):
            segments = [{"label": "cat", "mask": small, "score": 0.9}, {"label": "sofa", "mask": large, "score": 0.8}]
            options = {"alpha": 1.0, "outlines": False, "names": False, "legend": False}
            painted = np.asarray(overlay_masks(picture(), segments[::order], **options))
            assert tuple(painted[60, 60]) == class_colors(NAMES)[0]
            assert tuple(painted[0, 0]) == class_colors(NAMES)[1]

    def test_scores_are_written_on_request(self):
        segments = [{"label": "cat", "mask": np.ones((120, 200)), "score": 0.93}]
        with_scores = overlay_masks(picture(), segments, scores=True)
        assert with_scores != overlay_masks(picture(), segments)

    def test_nothing_found_is_said(self):
        result = overlay_masks(picture(), [])
        assert np.array_equal(np.asarray(result)[:120], np.asarray(picture()))
        assert (np.asarray(result)[120:] != 255).any()

    def test_mask_of_another_size_is_refused(self):
        with pytest.raises(ValueError, match="a mask has shape"):
            overlay_masks(picture(), [{"label": "cat", "mask": np.ones((10, 10))}])


class TestHeatMap:
    def test_high_values_are_brighter_than_low_ones(self):
        values = np.zeros((4, 8))
        values[:, 6:] = 1
        heat = np.asarray(heat_map(picture(), values, alpha=1.0).convert("L")).astype(int)
        assert heat[60, 190] > heat[60, 10] + 150

    def test_maximum_fixes_the_scale(self):
        values = np.full((2, 2), 0.5)
        half = np.asarray(heat_map(picture(), values, maximum=1.0, alpha=1.0)).mean()
        assert half < np.asarray(heat_map(picture(), values, alpha=1.0)).mean()

    @pytest.mark.parametrize("values", [np.zeros((3, 3)), np.full((3, 3), np.nan), np.ones((1, 1))])
    def test_degenerate_values_do_not_fail(self, values):
        assert heat_map(picture(), values).size == (200, 120)

    def test_wrong_shape_is_refused(self):
        with pytest.raises(ValueError, match="shape"):
            heat_map(picture(), np.zeros((2, 3, 4)))

    def test_activation_maps_are_cut_to_the_picture_without_padding(self):
        maps = torch.full((2, 8, 8), -8.0, dtype=torch.bfloat16)
        maps[:, :4, 3] = 8.0  # the last column that belongs to the picture
        heat = activation_heat_map(picture(200, 200), maps, image_size=(256, 128), padded_size=(256, 256), alpha=1.0)
        brightness = np.asarray(heat.convert("L"))
        assert brightness[20, 190] > 200
        assert brightness[20, 20] < 40
        assert brightness[190, 190] < 40

    def test_activation_maps_count_alike_whatever_their_height(self):
        maps = np.full((2, 4, 4), -6.0)
        maps[0, 0, 0] = 3.0
        maps[1, 3, 3] = -2.0
        heat = np.asarray(activation_heat_map(picture(200, 200), maps, alpha=1.0).convert("L")).astype(int)
        assert heat[0, 0] > 150
        assert heat[199, 199] > 100

    def test_sizes_come_together(self):
        with pytest.raises(ValueError, match="belong together"):
            activation_heat_map(picture(), np.zeros((2, 4, 4)), image_size=(64, 64))


class TestSideBySide:
    def test_pictures_get_one_height(self):
        result = side_by_side([picture(200, 120), picture(100, 60)])
        assert 2 * 200 < result.width < 2 * 200 + 40
        assert 120 < result.height < 150

    def test_titles_need_room(self):
        untitled = side_by_side([picture(), picture()])
        assert side_by_side([picture(), picture()], ["input", "result"]).height > untitled.height

    def test_columns_wrap(self):
        result = side_by_side([picture()] * 5, columns=2)
        assert result.width < 3 * 200
        assert result.height > 3 * 120

    def test_long_title_takes_several_lines(self):
        short, long = (side_by_side([picture()], ["a title " * count]) for count in (1, 50))
        assert long.width == short.width
        assert long.height > short.height + 60

    def test_mismatched_titles_are_refused(self):
        with pytest.raises(ValueError, match="one title for each picture"):
            side_by_side([picture()], ["a", "b"])

    def test_no_pictures_are_refused(self):
        with pytest.raises(ValueError, match="at least one picture"):
            side_by_side([])


class TestCompare:
    def test_each_form_of_result_gives_the_same_picture(self):
        values = label_map()
        info = [{"id": number, "label_id": number} for number in (0, 2, 3)]
        masks = [{"label": NAMES[number], "mask": values == number} for number in (0, 2, 3)]
        panoptic = {"segmentation": values, "segments_info": info}
        result = compare(picture(), {"A": values, "B": panoptic, "C": masks}, NAMES)
        alone = compare(picture(), {"A": values}, NAMES)
        assert result.width > 3 * 200
        width = (result.width - alone.width) // 2
        pixels = np.asarray(result)[: alone.height // 2]
        assert (pixels[30:, -width - 150 : -width - 10] == pixels[30:, -150:-10]).all()
        segments = Segments.from_label_map(values, Vocabulary.from_list(NAMES))
        assert compare(picture(), {"A": segments}) == alone

    def test_one_legend_holds_the_classes_of_all(self):
        first, second = np.zeros((120, 200), dtype=int), np.full((120, 200), 3)
        pixels = np.asarray(compare(picture(), {"A": first, "B": second}, NAMES)).reshape(-1, 3)
        for name, is_there in zip(NAMES, (True, False, False, True), strict=True):
            assert ((pixels == class_color(name)).all(axis=1).sum() > 30) == is_there

    def test_no_results_are_refused(self):
        with pytest.raises(ValueError, match="at least one result"):
            compare(picture(), {})


def test_real_photographs_with_their_panoptic_truth_are_painted_fast():
    shared = os.environ.get("MASKADAPTER_SHARED")
    if not shared:
        pytest.skip("MASKADAPTER_SHARED, the folder with the COCO sample, is not set")
    sample = Path(shared) / "data" / "coco_panoptic_sample"
    categories = json.loads((sample / "panoptic_coco_categories.json").read_text())
    labels = [category["name"] for category in categories]
    index = {category["id"]: position for position, category in enumerate(categories)}
    for annotation in json.loads((sample / "panoptic_examples.json").read_text())["annotations"]:
        with Image.open(sample / "panoptic_examples" / annotation["file_name"]) as file:
            channels = np.asarray(file.convert("RGB")).astype(int)
        ids = channels @ (1, 256, 256**2)
        with Image.open(sample / "input_images" / annotation["file_name"].replace(".png", ".jpg")) as image:
            info = [{"id": s["id"], "label_id": index[s["category_id"]]} for s in annotation["segments_info"]]
            result = overlay(image, ids, info, labels)
            assert result.width == image.width
            assert result.height > image.height
