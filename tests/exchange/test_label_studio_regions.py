"""The regions of Label Studio's results, against values counted by hand and matplotlib's polygons."""

import base64
import io
import math

import numpy as np
import pytest
from PIL import Image, ImageFilter

from hf_maskadapter.exchange import ExchangeError, LeftOut
from hf_maskadapter.exchange.label_studio_brush import encode_brush
from hf_maskadapter.exchange.label_studio_regions import region_mask, regions_of
from support.result_samples import box, centers_inside, png_claiming

SIZE = (8, 10)


def mask_of(kind: str, value: dict, size: tuple[int, int] = SIZE) -> np.ndarray:
    (region,) = regions_of([{"id": "r", "type": kind, "value": {kind: ["cat"], **value}}], "here", LeftOut("x"))
    return region_mask(region, size, "here")


def data_url(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


class TestShapes:
    def test_polygon_of_a_corrector_encloses_twelve_pixels(self):
        mask = mask_of("polygonlabels", {"points": [[20, 25], [60, 25], [60, 62.5], [20, 62.5]], "closed": True})
        assert mask.sum() == 12
        assert (mask == box(SIZE, 2, 5, 2, 6)).all()

    @pytest.mark.parametrize("size", [(8, 14), (14, 8)])
    @pytest.mark.parametrize(
        "corners", [[(12, 11), (73, 29), (41, 94)], [(11, 9), (92, 9), (92, 87), (43, 24), (11, 87)]]
    )
    def test_slanted_and_concave_polygons_are_those_of_matplotlib(self, size, corners):
        mask = mask_of("polygonlabels", {"points": [list(corner) for corner in corners]}, size)
        assert mask.shape == size
        assert (mask == centers_inside([(x * size[1] / 100, y * size[0] / 100) for x, y in corners], size)).all()

    def test_rectangles_are_turned_about_their_left_top_corner(self):
        upright = mask_of("rectanglelabels", {"x": 20, "y": 25, "width": 40, "height": 37.5, "rotation": 0})
        assert (upright == box(SIZE, 2, 5, 2, 6)).all()
        turned = mask_of("rectanglelabels", {"x": 60, "y": 25, "width": 40, "height": 25, "rotation": 90})
        assert (turned == box(SIZE, 2, 6, 4, 6)).all()  # 4 pixels wide and 2 high, to the left and below of (6, 2)

    def test_slanted_rectangles_keep_their_angles_in_pixels(self):
        # In per cents, where the picture is a square, they would be sheared.
        size, angle = (20, 50), math.radians(30)
        corners = [
            (15 + x * math.cos(angle) - y * math.sin(angle), 2 + x * math.sin(angle) + y * math.cos(angle))
            for x, y in [(0, 0), (20, 0), (20, 6), (0, 6)]
        ]
        value = {"x": 30, "y": 10, "width": 40, "height": 30, "rotation": 30}
        assert (mask_of("rectanglelabels", value, size) == centers_inside(corners, size)).all()

    def test_ellipses_are_given_by_their_center_and_radii(self):
        mask = mask_of("ellipselabels", {"x": 50, "y": 50, "radiusX": 30, "radiusY": 25, "rotation": 0})
        assert mask.sum(axis=1).tolist() == [0, 0, 4, 6, 6, 4, 0, 0]
        turned = mask_of("ellipselabels", {"x": 50, "y": 50, "radiusX": 30, "radiusY": 25, "rotation": 90})
        assert turned.sum(axis=1).tolist() == [0, 2, 4, 4, 4, 4, 2, 0]

    def test_bit_masks_are_black_on_transparent_ground(self):
        mask = np.zeros(SIZE, dtype=bool)
        mask[2:5, 2:6] = True
        pixels = np.zeros((*SIZE, 4), dtype=np.uint8)
        pixels[mask, 3] = 255
        assert (mask_of("bitmasklabels", {"imageDataURL": data_url(Image.fromarray(pixels))}) == mask).all()
        white = Image.fromarray(mask.astype(np.uint8) * 255)
        assert (mask_of("bitmasklabels", {"imageDataURL": data_url(white)}) == mask).all()
        assert (mask_of("bitmasklabels", {"imageDataURL": data_url(white.convert("1"))}) == mask).all()

    def test_brushes_are_run_lengths(self):
        mask = box(SIZE, 2, 5, 2, 6)
        assert (mask_of("brushlabels", {"format": "rle", "rle": encode_brush(mask)}) == mask).all()


class TestEntries:
    MASK = box(SIZE, 2, 5, 2, 6)

    @pytest.mark.parametrize("is_first", [True, False])
    def test_a_shape_and_labels_of_one_id_are_one_region(self, is_first):
        value = {"format": "rle", "rle": encode_brush(self.MASK)}
        entries = [
            {"id": "r", "type": "brush", "from_name": "brush", "value": value},
            {"id": "r", "type": "labels", "from_name": "classes", "value": {**value, "labels": ["cat"]}},
        ]
        left_out = LeftOut("x")
        (region,) = regions_of(entries if is_first else entries[::-1], "here", left_out)
        assert (region.shape, region.control, region.labels) == ("brush", "classes", ["cat"])
        assert (region_mask(region, SIZE, "here") == self.MASK).all()
        assert left_out.counts == {}

    @pytest.mark.parametrize(
        ("shape", "value"),
        [
            ("brush", {"rle": encode_brush(MASK)}),
            ("polygon", {"points": [[20, 25], [60, 25], [60, 62.5], [20, 62.5]]}),
            ("rectangle", {"x": 20, "y": 25, "width": 40, "height": 37.5, "rotation": 0}),
        ],
    )
    def test_labels_alone_carry_the_shape_along(self, shape, value):
        entry = {"id": "r", "type": "labels", "from_name": "classes", "value": {**value, "labels": ["cat"]}}
        (region,) = regions_of([entry], "here", LeftOut("x"))
        assert (region.shape, region.labels) == (shape, ["cat"])
        assert (region_mask(region, SIZE, "here") == self.MASK).all()

    def test_a_shape_without_labels_has_none(self):
        (region,) = regions_of([{"id": "r", "type": "polygon", "value": {"points": []}}], "here", LeftOut("x"))
        assert region.labels == []

    def test_what_is_no_region_or_cannot_be_placed_is_counted(self):
        rectangle = {"x": 20, "y": 25, "width": 40, "height": 37.5, "rectanglelabels": ["cat"]}
        entries = [
            {"id": "1", "type": "choices", "value": {"choices": ["good"]}},
            {"id": "2", "type": "keypointlabels", "value": {"x": 1, "y": 2, "width": 1, "keypointlabels": ["cat"]}},
            {"id": "3", "type": "vectorlabels", "value": {"vertices": [], "vectorlabels": ["cat"]}},
            {"id": "4", "type": "rectanglelabels", "value": rectangle, "image_rotation": 90},
            {"id": "5", "type": "rectanglelabels", "value": rectangle, "item_index": 1},
            {"id": "6", "type": "polygonlabels", "value": {"points": [[1, 1]], "closed": False}},
            {"id": "7", "type": "rectanglelabels", "value": rectangle, "image_rotation": 0, "item_index": 0},
            {"type": "relation", "from_id": "1", "to_id": "2"},
            {"id": "8", "type": "labels", "value": {"start": 1, "end": 2, "labels": ["verb"]}},
        ]
        left_out = LeftOut("x")
        assert [region.name for region in regions_of(entries, "here", left_out)] == ["'7'"]
        assert left_out.counts == {
            "results of type choices": 1,
            "results of type keypointlabels": 1,
            "results of type vectorlabels": 1,
            "regions that were drawn on a turned picture (image_rotation)": 1,
            "regions on further pictures of a task (item_index)": 1,
            "polygons that are not closed": 1,
            "results of type relation": 1,
            "results of type labels": 1,
        }


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("brushlabels", {"rle": "abc"}, "list of whole numbers"),
        ("brushlabels", {"rle": [1, 2, 300]}, "list of whole numbers"),
        ("brushlabels", {"rle": encode_brush(np.ones((4, 4), dtype=bool))}, "holds 64 values"),
        ("brushlabels", {}, "must be a PNG in a data URL"),
        ("bitmasklabels", {"imageDataURL": "https://example.org/a.png"}, "must be a PNG in a data URL"),
        ("bitmasklabels", {"imageDataURL": "data:image/png;base64,AAAA"}, "no PNG"),
        ("bitmasklabels", {"imageDataURL": data_url(Image.new("L", (3, 3)))}, "is 3×3, its picture 10×8"),
        ("polygonlabels", {"points": [[1, 1], [2, 2]]}, "at least three points"),
        ("polygonlabels", {"points": [1, 2, 3]}, "points must be a list of pairs"),
        ("polygonlabels", {}, "points must be a list of pairs"),
        ("polygonlabels", {"points": [[1, 1], [2, "x"], [3, 3]]}, "points must be a finite number, got 'x'"),
        ("rectanglelabels", {"x": 1, "y": 1, "width": 3}, "height is missing"),
        ("rectanglelabels", {"x": 1, "y": 1, "width": 3, "height": None}, "height is missing"),
        ("ellipselabels", {"x": 1, "y": 1, "radiusX": 3, "radiusY": float("inf")}, "radiusY must be a finite number"),
    ],
)
def test_malformed_shapes_get_one_error(kind, value, message):
    with pytest.raises(ExchangeError, match=f"here: .*{message}|here: {message}"):
        mask_of(kind, value)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "result must be a list"),
        (["a"], "result must be a list of objects"),
        ([{"id": "r", "type": "polygonlabels", "value": None}], "region 'r': its value must be an object"),
        ([{"id": "r", "type": "polygonlabels", "value": {"polygonlabels": "cat"}}], "'r': its labels must be a list"),
    ],
)
def test_malformed_results_get_one_error(result, message):
    with pytest.raises(ExchangeError, match=f"here.*{message}"):
        regions_of(result, "here", LeftOut("x"))


def labels(control: str, *names: str, **value: object) -> dict:
    return {"id": "r", "type": "labels", "from_name": control, "value": {"labels": list(names), **value}}


def test_labels_of_a_second_control_are_counted():
    shape = {"x": 0, "y": 0, "width": 50, "height": 50}
    entry = {"id": "r", "type": "rectangle", "value": shape}
    for entries in ([entry, labels("what", "cat", "pet"), labels("color", "red")], [labels("what", "cat", **shape)]):
        (region,) = regions_of(entries, "here", LeftOut("x"))
        assert (region.control, region.labels[0]) == ("what", "cat")
        assert region.num_further_labels == (2 if len(entries) > 1 else 0)


def test_labels_of_two_controls_on_a_shape_that_was_not_exported_are_one_region():
    shape = {"x": 0, "y": 0, "width": 50, "height": 50}
    entries = [labels("what", "cat", **shape), labels("color", "red", **shape)]
    (region,) = regions_of(entries, "here", LeftOut("x"))
    assert (region.labels, region.num_further_labels) == (["cat"], 1)


def test_bit_masks_with_smooth_edges_end_halfway():
    hard = box((60, 80), 10, 40, 20, 60)
    smooth = Image.fromarray(hard.astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(1))
    mask = mask_of("bitmasklabels", {"imageDataURL": data_url(smooth)}, (60, 80))
    assert (mask == (np.asarray(smooth) > 127)).all()
    assert mask.sum() < (np.asarray(smooth) > 0).sum()


def test_bit_masks_that_leave_nothing_outside_but_have_two_colors_are_refused():
    grays = np.where(box(SIZE, 2, 5, 2, 6), 255, 5).astype(np.uint8)
    with pytest.raises(ExchangeError, match="no pixel of the bit mask is transparent or black"):
        mask_of("bitmasklabels", {"imageDataURL": data_url(Image.fromarray(grays))})


def test_bit_masks_that_claim_a_size_are_refused():
    address = "data:image/png;base64," + base64.b64encode(png_claiming(30_000, 30_000)).decode()
    with pytest.raises(ExchangeError, match=r"here: it cannot be read: the bit mask is no PNG: .*900000000 pixels"):
        mask_of("bitmasklabels", {"imageDataURL": address})
