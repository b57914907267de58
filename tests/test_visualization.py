"""Overlays, legends, heat maps and comparisons."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hf_maskadapter import visualization
from hf_maskadapter.visualization import (
    activation_heat_map,
    class_color,
    class_colors,
    heat_map,
    overlay,
    overlay_masks,
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


class TestColors:
    def test_color_of_a_name_is_the_same_in_another_process(self):
        code = "from hf_maskadapter.visualization import class_color; print(class_color('zebra'))"
        for seed in ("1", "2"):
            env = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
            printed = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
            assert printed.stdout.strip() == str(class_color("zebra"))

    def test_case_and_blanks_make_no_difference(self):
        assert class_color("Potted  Plant ") == class_color("potted plant")

    def test_first_name_of_a_vocabulary_keeps_its_own_color(self):
        assert class_colors(["zebra", "horse"])[0] == class_color("zebra")

    @settings(max_examples=20, deadline=None)
    @given(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=20, unique=True), st.text(min_size=1))
    def test_appending_a_class_changes_no_color(self, names, another):
        assert class_colors([*names, another])[:-1] == class_colors(names)

    @settings(max_examples=20, deadline=None)
    @given(st.lists(st.text("abcdefghij", min_size=3, max_size=8), min_size=2, max_size=16, unique=True))
    def test_colors_of_a_small_vocabulary_differ_visibly(self, names):
        colors = np.array(class_colors(names), dtype=float)
        distances = np.linalg.norm(colors[:, None] - colors[None], axis=-1) + 1e9 * np.eye(len(names))
        assert distances.min() > 20

    def test_large_vocabulary_has_a_color_for_each_class(self):
        colors = class_colors([f"class {number}" for number in range(847)])
        assert len(colors) == 847
        assert len(set(colors)) > 820

    def test_empty_vocabulary_has_no_colors(self):
        assert class_colors([]) == []


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
        assert tuple(painted[60, 99]) == class_colors(NAMES)[0]
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
        place = visualization._Placement.place

        def record(self, index, width, height):
            corner = place(self, index, width, height)
            if corner is not None:
                boxes.append((*corner, corner[0] + width, corner[1] + height))
            return corner

        monkeypatch.setattr(visualization._Placement, "place", record)
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
        grey = Image.fromarray(np.full((30, 40), 32896, dtype=np.uint16))
        painted = plain(grey, np.full((30, 40), -1), labels=NAMES)
        assert (painted == 128).all()


class TestOverlayMasks:
    def test_smaller_mask_lies_on_top(self):
        large = Image.new("L", (200, 120), 255)
        small = Image.new("L", (200, 120), 0)
        small.paste(255, (50, 50, 80, 80))
        for order in (1, -1):
            segments = [{"label": "cat", "mask": small, "score": 0.9}, {"label": "sofa", "mask": large, "score": 0.8}]
            options = {"alpha": 1.0, "outlines": False, "names": False, "legend": False}
            painted = np.asarray(overlay_masks(picture(), segments[::order], NAMES, **options))
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

    def test_long_title_is_shortened(self):
        assert side_by_side([picture()], ["a title " * 50]).width < 230

    def test_mismatched_titles_are_refused(self):
        with pytest.raises(ValueError, match="one title for each picture"):
            side_by_side([picture()], ["a", "b"])

    def test_no_pictures_are_refused(self):
        with pytest.raises(ValueError, match="at least one picture"):
            side_by_side([])


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
