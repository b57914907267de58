"""Masks in every form that people and other tools have them in."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter
from transformers import EomtImageProcessorPil, Mask2FormerImageProcessorPil, MaskFormerImageProcessorPil
from transformers.models.mask2former.modeling_mask2former import Mask2FormerForUniversalSegmentationOutput

from hf_maskadapter import read_masks
from hf_maskadapter.model.post_processing_maskadapter import post_process_instance_segmentation
from support.masks import encoded

SIZE = (6, 8)
FIRST, SECOND = np.zeros(SIZE, dtype=bool), np.zeros(SIZE, dtype=bool)
FIRST[1:4, 2:6] = True
SECOND[4:, :3] = True
BOTH = np.stack([FIRST, SECOND])
LABELS = np.where(FIRST, 7, np.where(SECOND, 3, 0))


def assert_reads(value, expected=BOTH, ids=(0, 1), **options):
    read = read_masks(value, SIZE, **options)
    np.testing.assert_array_equal(read.masks, expected)
    assert tuple(read.ids) == tuple(ids)


@pytest.mark.parametrize(
    "value",
    [
        BOTH,
        torch.from_numpy(BOTH),
        BOTH.astype(np.uint8) * 255,
        BOTH.astype(np.int64),
        torch.from_numpy(BOTH).bfloat16(),
        [FIRST, SECOND],
        [torch.from_numpy(FIRST), SECOND],
        [Image.fromarray(mask) for mask in BOTH],
        SimpleNamespace(mask=BOTH),
        {"masks": BOTH, "scores": [0.5, 0.4]},
        [{"label": "cat", "score": None, "mask": Image.fromarray(mask.astype(np.uint8) * 255)} for mask in BOTH],
        [encoded(mask, compress=True) for mask in BOTH],
        [encoded(mask, compress=False) for mask in BOTH],
        [{"segmentation": encoded(mask, compress=True), "category_id": 1} for mask in BOTH],
        [{"segmentation": [[2, 1, 6, 1, 6, 4, 2, 4]]}, {"segmentation": [[0, 4, 3, 4, 3, 6, 0, 6]]}],
        [[2, 1, 6, 1, 6, 4, 2, 4], [0, 4, 3, 4, 3, 6, 0, 6]],
        [[[2, 1], [6, 1], [6, 4], [2, 4]], np.array([[0, 4], [3, 4], [3, 6], [0, 6]])],
        {"segmentation": [encoded(mask, compress=False) for mask in BOTH], "segments_info": [{"id": 1}, {"id": 2}]},
    ],
)
def test_masks_are_read_in_every_form(value):
    assert_reads(value)


@pytest.mark.parametrize(
    "value",
    [FIRST, FIRST.astype(float), encoded(FIRST, True), encoded(FIRST, False), [2, 1, 6, 1, 6, 4, 2, 4]],
)
def test_one_mask_may_come_alone(value):
    assert_reads(value, FIRST[None], ids=(0,))


def test_soft_masks_stay_soft():
    soft = np.random.default_rng(0).random((2, *SIZE)).astype(np.float32)
    assert_reads(soft, soft)


@pytest.mark.parametrize(
    "value",
    [
        LABELS,
        torch.from_numpy(LABELS),
        Image.fromarray(LABELS.astype(np.uint8)),
        {"segmentation": torch.from_numpy(LABELS)},
        np.stack([LABELS, LABELS * 0, LABELS * 0], axis=-1).astype(np.uint8),
        Image.fromarray(np.stack([LABELS, LABELS * 0, LABELS * 0], axis=-1).astype(np.uint8)),
    ],
)
def test_each_value_of_a_map_is_a_mask(value):
    assert_reads(value, BOTH[::-1], ids=(3, 7))


def test_colors_of_a_panoptic_map_are_numbers():
    ids = np.where(FIRST, 5 + 256 * 2 + 65536, 0)
    rgb = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
    assert_reads(rgb, FIRST[None], ids=(66053,))


def test_segments_info_says_which_segments_count_and_in_which_order():
    assert_reads(LABELS, BOTH, ids=(7, 3), segments_info=[{"id": 7}, {"id": 3}])
    assert_reads({"segmentation": LABELS, "segments_info": [{"id": 7}]}, FIRST[None], ids=(7,))


def test_the_value_that_is_no_mask_can_be_another_or_none():
    assert_reads(LABELS, np.stack([LABELS == 0, FIRST]), ids=(0, 7), ignore_index=3)
    assert_reads(LABELS, np.stack([LABELS == 0, SECOND, FIRST]), ids=(0, 3, 7), ignore_index=None)


def test_negative_values_of_a_map_are_no_masks():
    assert_reads(np.where(FIRST, 2, -1), FIRST[None], ids=(2,))


def test_files_are_read(tmp_path):
    Image.fromarray(LABELS.astype(np.uint8)).save(tmp_path / "map.png")
    assert_reads(tmp_path / "map.png", BOTH[::-1], ids=(3, 7))
    assert_reads(str(tmp_path / "map.png"), BOTH[::-1], ids=(3, 7))
    undecoded = {"bytes": (tmp_path / "map.png").read_bytes(), "path": None}
    assert_reads(undecoded, BOTH[::-1], ids=(3, 7))


def test_polygons_of_one_object_belong_together():
    read = read_masks([[[2, 1, 6, 1, 6, 4, 2, 4], [0, 4, 3, 4, 3, 6, 0, 6]]], SIZE)
    np.testing.assert_array_equal(read.masks, (FIRST | SECOND)[None])


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (np.zeros((2, 3, 3), bool), ValueError, r"shape \(num_masks, 6, 8\)"),
        (np.full((2, *SIZE), 3), ValueError, "booleans, integers 0 and 1"),
        (np.full((2, *SIZE), np.nan), ValueError, "floats in"),
        (np.zeros((0, *SIZE), bool), ValueError, "There is no mask"),
        ([], ValueError, "There is no mask"),
        (np.stack([FIRST, FIRST & SECOND]), ValueError, "Mask 1 is empty"),
        (np.zeros(SIZE, int), ValueError, "which is no mask"),
        (np.ones((3, 3), int), ValueError, "must be of one size"),
        ([FIRST, np.ones((3, 3), bool)], ValueError, "Mask 1: Masks must have shape"),
        (SimpleNamespace(mask=None), ValueError, "hold no masks"),
        ([{"size": [6, 8], "counts": [3, 4]}], ValueError, "Mask 0: The counts"),
        ([{"size": [6, 8], "counts": [50, -2]}], ValueError, "Mask 0: The counts"),
        ([{"size": [6, 8]}], ValueError, 'needs "size"'),
        ([{"size": [8, 6], "counts": [0, 48]}], ValueError, "of a picture of 8x6, this one is 6x8"),
        ([{"size": [6, 8], "counts": "a b"}], ValueError, "it is broken"),
        ([{"size": [6, 8], "counts": "o"}], ValueError, "ends in the middle"),
        ([[1, 2, 3, 4]], ValueError, "at least three points"),
        ([[1, 2, 3, 4, 5, 6, 7]], ValueError, "at least three points"),
        ([[1, 2, 3, float("nan"), 5, 6]], ValueError, "finite numbers"),
        ([["cat"]], ValueError, "at least three points"),
        ([None], TypeError, "Mask 0 is None"),
        (3, TypeError, "Masks must be an array"),
        ("missing.png", FileNotFoundError, "missing.png"),
    ],
)
def test_malformed_masks_are_one_clear_error(value, error, message):
    with pytest.raises(error, match=message):
        read_masks(value, SIZE)


@pytest.mark.parametrize(
    ("info", "message"), [([{"id": 4}], "no pixel of segment 4"), ([{"category_id": 3}], 'dicts with an "id"')]
)
def test_segments_that_are_not_there_are_an_error(info, message):
    with pytest.raises(ValueError, match=message):
        read_masks(LABELS, SIZE, segments_info=info)


def test_a_file_that_is_no_picture_is_an_error(tmp_path):
    (tmp_path / "map.png").write_text("no picture")
    with pytest.raises(ValueError, match="cannot be read"):
        read_masks(tmp_path / "map.png", SIZE)


# Results of Transformers


SHAPE = (16, 20)
LEFT, RIGHT, DOT = np.zeros((3, *SHAPE), dtype=bool)
LEFT[2:8, 3:9] = True
RIGHT[5:14, 6:16] = True
DOT[7:9, 9:11] = True
PROCESSORS = (Mask2FormerImageProcessorPil, MaskFormerImageProcessorPil, EomtImageProcessorPil)


def outputs_of(masks, labels, num_classes=4):
    """What a model says that is sure of some masks and their classes; class 4 is void."""
    class_logits = torch.full((1, len(masks), num_classes + 1), -9.0)
    class_logits[0, range(len(masks)), labels] = 9.0
    mask_logits = torch.where(torch.from_numpy(np.stack(masks)), 9.0, -9.0)[None]
    return Mask2FormerForUniversalSegmentationOutput(
        class_queries_logits=class_logits, masks_queries_logits=mask_logits
    )


def result_of(processor, task, masks, labels, **options):
    post_process = getattr(processor(), f"post_process_{task}_segmentation")
    return post_process(outputs_of(masks, labels), target_sizes=[SHAPE], **options)[0]


@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize("task", ["panoptic", "instance"])
def test_results_of_transformers_are_read_by_their_list(processor, task):
    result = result_of(processor, task, [LEFT, RIGHT], [1, 2])
    values = result["segmentation"].numpy()
    read = read_masks(result, SHAPE)
    assert read.ids == [info["id"] for info in result["segments_info"]]
    assert len(read.ids) == 2
    np.testing.assert_array_equal(read.masks, [values == read.ids[0], values == read.ids[1]])


@pytest.mark.parametrize("processor", PROCESSORS)
def test_instances_that_others_cover_wholly_are_left_out(processor):
    result = result_of(processor, "instance", [DOT, RIGHT], [1, 2])
    assert [info["id"] for info in result["segments_info"]] == [0, 1]
    read = read_masks(result, SHAPE)
    assert read.ids == [1]
    np.testing.assert_array_equal(read.masks, [result["segmentation"].numpy() == 1])


@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize("task", ["panoptic", "instance"])
def test_a_result_in_which_nothing_was_found_has_no_mask(processor, task):
    result = result_of(processor, task, [LEFT], [4])
    assert result["segments_info"] == []
    assert read_masks(result, SHAPE).masks.shape == (0, *SHAPE)


@pytest.mark.parametrize("processor", [Mask2FormerImageProcessorPil, MaskFormerImageProcessorPil])
def test_binary_maps_of_transformers_are_read_whole(processor):
    result = result_of(processor, "instance", [DOT, RIGHT], [1, 2], return_binary_maps=True)
    read = read_masks(result, SHAPE)
    np.testing.assert_array_equal(read.masks > 0.5, result["segmentation"].numpy() == 1)
    assert len(read.masks) == 2


@pytest.mark.parametrize("processor", [Mask2FormerImageProcessorPil, MaskFormerImageProcessorPil])
def test_run_lengths_of_transformers_count_from_one_along_the_rows(processor):
    result = result_of(processor, "instance", [LEFT, RIGHT], [1, 2])
    values = result["segmentation"].numpy()
    encoded_result = result_of(processor, "instance", [LEFT, RIGHT], [1, 2], return_coco_annotation=True)
    assert len(encoded_result["segmentation"]) == 3
    np.testing.assert_array_equal(read_masks(encoded_result, SHAPE).masks, [values == 0, values == 1])
    with pytest.raises(ValueError, match=r'Transformers.*give the whole result, a dict with "segmentation"'):
        read_masks(encoded_result["segmentation"], SHAPE)
    with pytest.raises(ValueError, match="do not tile a picture of 16x21"):
        read_masks(encoded_result, (16, 21))


def test_run_lengths_of_transformers_that_may_be_of_several_segments_are_refused():
    result = result_of(Mask2FormerImageProcessorPil, "instance", [DOT, RIGHT], [1, 2], return_coco_annotation=True)
    with pytest.raises(ValueError, match="2 values of its map, but segments_info lists 2 segments"):
        read_masks(result, SHAPE)


def test_segments_may_be_numbered_from_zero():
    read = read_masks({"segmentation": [[0, 1, -1]], "segments_info": [{"id": 0}, {"id": 1}]}, (1, 3))
    np.testing.assert_array_equal(read.masks, [[[True, False, False]], [[False, True, False]]])
    assert read.ids == [0, 1]


def test_a_fused_segment_is_read_once_and_an_id_of_two_classes_is_refused():
    values = np.array([[1, 1, 2]])
    sky, person, cat = ({"id": number, "label_id": label} for number, label in ((1, 0), (2, 1), (2, 2)))
    read = read_masks({"segmentation": values, "segments_info": [sky, person, dict(sky, score=0.5)]}, (1, 3))
    assert read.ids == [1, 2]
    with pytest.raises(ValueError, match=r"segment 2 twice, as class 1 and as class 2: .*label_ids_to_fuse"):
        read_masks({"segmentation": values, "segments_info": [sky, person, sky, cat]}, (1, 3))


def test_fused_results_of_transformers_whose_ids_collide_are_refused():
    bands = np.zeros((4, *SHAPE), dtype=bool)
    for number in range(4):
        bands[number, 4 * number : 4 * number + 4] = True
    result = result_of(Mask2FormerImageProcessorPil, "panoptic", list(bands), [0, 1, 0, 2], label_ids_to_fuse={0})
    assert [info["id"] for info in result["segments_info"]] == [1, 2, 1, 2]
    with pytest.raises(ValueError, match="segment 2 twice"):
        read_masks(result, SHAPE)


def test_our_own_instances_are_read():
    outputs = outputs_of([RIGHT, DOT], [2, 1])
    outputs.image_sizes, outputs.padded_size, outputs.valid_masks = [SHAPE], SHAPE, None
    painted, maps, encodings = (
        post_process_instance_segmentation(outputs, threshold=0.5, target_sizes=[SHAPE], **options)[0]
        for options in ({}, {"return_binary_maps": True}, {"return_coco_annotation": True})
    )
    whole = np.stack([RIGHT, DOT])
    order = [info["label_id"] == 2 for info in painted["segments_info"]]
    expected = whole if order[0] else whole[::-1]
    np.testing.assert_array_equal(read_masks(maps, SHAPE).masks, expected)
    np.testing.assert_array_equal(read_masks(encodings, SHAPE).masks, expected)
    visible = [expected[0]] if order[0] else [expected[0], expected[1] & ~expected[0]]
    np.testing.assert_array_equal(read_masks(painted, SHAPE).masks, visible)


# Other tools


def block(top=1, left=2, height=3, width=4, size=SIZE):
    mask = np.zeros(size, dtype=bool)
    mask[top : top + height, left : left + width] = True
    return mask


class OnlyArray:
    """Masks that are no array, but become one (supervision's compact masks)."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype=dtype)


class Detections:
    """Detections of any tool: as many as boxes."""

    def __init__(self, mask, number):
        self.mask, self.number = mask, number

    def __len__(self):
        return self.number


@pytest.mark.parametrize(
    "value",
    [
        [{"segmentation": mask, "area": int(mask.sum()), "bbox": [0, 0, 1, 1], "predicted_iou": 0.9} for mask in BOTH],
        [{"segmentation": encoded(mask, compress=True), "predicted_iou": 0.9} for mask in BOTH],
        Detections(OnlyArray(BOTH), 2),
        Detections(BOTH, 2),
        SimpleNamespace(pred_masks=torch.from_numpy(BOTH)),
        OnlyArray(BOTH),
        torch.from_numpy(BOTH)[:, None].float(),
        {"masks": torch.from_numpy(BOTH)[:, None].float(), "boxes": torch.zeros(2, 4), "labels": torch.ones(2)},
        [SimpleNamespace(mask=mask, label="cat") for mask in BOTH],
        [mask[None] for mask in BOTH],
        [np.array([2, 1, 6, 1, 6, 4, 2, 4]), np.array([0, 4, 3, 4, 3, 6, 0, 6], dtype=np.float32)],
        [[np.int64(value) for value in (2, 1, 6, 1, 6, 4, 2, 4)], [np.float32(v) for v in (0, 4, 3, 4, 3, 6, 0, 6)]],
        np.array([[[2, 1], [6, 1], [6, 4], [2, 4]], [[0, 4], [3, 4], [3, 6], [0, 6]]]),
        [np.array([[[2, 1]], [[2, 3]], [[5, 3]], [[5, 1]]]), np.array([[[0, 4]], [[0, 5]], [[2, 5]], [[2, 4]]])],
    ],
    ids=[
        "sam",
        "sam-rle",
        "supervision-compact",
        "supervision",
        "detectron2",
        "only-array",
        "torchvision-masks",
        "torchvision",
        "objects",
        "one-channel",
        "flat-arrays",
        "lists-of-numpy-numbers",
        "array-of-polygons",
        "opencv",
    ],
)
def test_masks_of_other_tools_are_read(value):
    read = read_masks(value, SIZE)
    np.testing.assert_array_equal(read.masks > 0.5, BOTH)
    assert read.ids == [0, 1]


@pytest.mark.parametrize(
    "value",
    [
        np.array([2, 1, 6, 1, 6, 4, 2, 4]),
        np.array([[2, 1], [6, 1], [6, 4], [2, 4]], dtype=float),
        np.array([[[2, 1]], [[2, 3]], [[5, 3]], [[5, 1]]]),
        [np.int64(value) for value in (2, 1, 6, 1, 6, 4, 2, 4)],
        [np.array(pair) for pair in ([2, 1], [6, 1], [6, 4], [2, 4])],
    ],
    ids=["flat", "pairs", "contour", "numbers", "points"],
)
def test_one_outline_may_come_alone(value):
    np.testing.assert_array_equal(read_masks(value, SIZE).masks, [block()])


def test_contours_of_a_dot_a_line_and_two_parts():
    dot, line = np.array([[[3, 2]]]), np.array([[[1, 1]], [[4, 4]]])
    read = read_masks([dot, line, [dot, line]], SIZE)
    expected_line = np.zeros(SIZE, dtype=bool)
    expected_line[[1, 2, 3, 4], [1, 2, 3, 4]] = True
    expected = [block(2, 3, 1, 1), expected_line, block(2, 3, 1, 1) | expected_line]
    np.testing.assert_array_equal(read.masks, expected)


def test_pixels_may_come_in_nested_lists_objects_and_channels_and_maps_in_pairs():
    size = (16, 20)
    first, second = block(2, 3, 5, 6, size), block(10, 4, 3, 3, size)
    both = np.stack([first, second])
    for value in (
        [mask.astype(int).tolist() for mask in both],
        np.array([first, second, None], dtype=object)[:2],
        both.astype(object),
    ):
        np.testing.assert_array_equal(read_masks(value, size).masks, both)
    values = first * 1 + second * 2
    np.testing.assert_array_equal(read_masks(values.tolist(), size).masks, both)
    np.testing.assert_array_equal(read_masks(first[..., None], size).masks, [first])
    listed = [{"id": torch.tensor(2)}, {"id": np.int64(1)}]
    read = read_masks((torch.from_numpy(values), listed), size)
    np.testing.assert_array_equal(read.masks, both[::-1])
    assert read.ids == [2, 1]


def test_detections_of_nothing_are_no_mask():
    assert len(read_masks(Detections(None, 0), SIZE).masks) == 0
    assert len(read_masks({"masks": torch.zeros(0, 1, *SIZE), "scores": []}, SIZE).masks) == 0
    assert len(read_masks([], SIZE, may_be_empty=True).masks) == 0


def test_detections_with_an_empty_mask_are_left_out():
    read = read_masks(Detections(np.stack([FIRST, FIRST & SECOND, SECOND]), 3), SIZE)
    np.testing.assert_array_equal(read.masks, BOTH)
    assert read.ids == [0, 2]


# Pictures of masks


def disc(size=(60, 80), softness=1.5):
    """A disc with smooth edges, and what of it is more than half white."""
    image = Image.new("L", size[::-1])
    ImageDraw.Draw(image).ellipse((20, 10, 60, 50), fill=255)
    image = image.filter(ImageFilter.GaussianBlur(softness))
    return image, np.asarray(image) > 127


def through_file(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return Image.open(buffer)


@pytest.mark.parametrize("quality", [10, 50, 75, 95])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_mask_saved_as_jpeg_is_one_mask(quality, mode, tmp_path):
    _, inside = disc()
    image = Image.fromarray(inside).convert(mode)
    path = tmp_path / "mask.jpg"
    image.save(path, quality=quality)
    expected = np.asarray(Image.open(path).convert("L")) > 127
    assert (expected != inside).mean() < 0.02
    for value in (path, Image.open(path)):
        np.testing.assert_array_equal(read_masks(value, inside.shape).masks, [expected])


@pytest.mark.parametrize("quality", [10, 50, 80, 95])
def test_a_mask_saved_as_lossy_webp_is_one_mask_and_its_copy_one_mask_or_an_error(quality):
    _, inside = disc()
    picture = through_file(Image.fromarray(inside).convert("L"), format="WEBP", quality=quality)
    values = np.asarray(picture.convert("L"))
    np.testing.assert_array_equal(read_masks(picture, inside.shape).masks, [values > 127])
    copy = through_file(Image.fromarray(values), format="PNG")  # shows the same noise, but nothing says that it is some
    if quality < 80:
        with pytest.raises(ValueError, match=rf"{len(np.unique(values))} different values.* lossy format"):
            read_masks(copy, inside.shape)
    else:
        np.testing.assert_array_equal(read_masks(copy, inside.shape).masks, [values > 127])


def test_label_maps_of_thin_lines_and_of_lossless_webp_stay_maps():
    values = np.zeros((120, 60), dtype=np.uint8)
    values[1:118:2] = np.arange(1, 60, dtype=np.uint8)[:, None] * 4
    values[-1] = 255
    assert read_masks(Image.fromarray(values), values.shape).ids == [*range(4, 237, 4), 255]
    cities = np.repeat(np.arange(19, dtype=np.uint8), 8)[:, None].repeat(40, axis=1)
    cities[:, :5] = 255
    picture = through_file(Image.fromarray(cities).convert("RGB"), format="WEBP", lossless=True)
    assert read_masks(picture, cities.shape).ids == [value * 65_793 for value in [*range(1, 19), 255]]


def test_a_jpeg_of_three_values_is_no_mask():
    values = np.zeros((60, 80), dtype=np.uint8)
    for side in (10, 25):
        values[10:40, 10:40], values[20 : 20 + side, 45 : 45 + side] = 255, 128
        with pytest.raises(ValueError, match=r"JPEG with \d+ different values"):
            read_masks(through_file(Image.fromarray(values), format="JPEG"), values.shape)


@pytest.mark.parametrize("softness", [0.6, 1.5, 4])
@pytest.mark.parametrize("mode", ["L", "RGB", "P", "RGBA"])
def test_a_mask_with_smooth_edges_is_one_mask(mode, softness, tmp_path):
    soft, inside = disc(softness=softness)
    assert len(np.unique(np.asarray(soft))) > 10
    soft.convert(mode).save(tmp_path / "mask.png")
    for value in (soft.convert(mode), tmp_path / "mask.png", [soft.convert(mode)], [tmp_path / "mask.png"]):
        np.testing.assert_array_equal(read_masks(value, inside.shape).masks, [inside])
    if mode == "L":
        np.testing.assert_array_equal(read_masks(np.asarray(soft), inside.shape).masks, [inside])
        np.testing.assert_array_equal(read_masks(np.asarray(soft)[None], inside.shape).masks, [inside])
    elif mode != "P":
        np.testing.assert_array_equal(read_masks(np.asarray(soft.convert(mode)), inside.shape).masks, [inside])


@pytest.mark.parametrize("softness", [0, 1.5])
def test_a_mask_in_the_alpha_channel_is_one_mask(softness):
    soft, inside = disc(softness=softness)
    photograph = np.random.default_rng(0).integers(0, 256, (*inside.shape, 3), dtype=np.uint8)
    alpha = np.asarray(soft)
    for under in (photograph, np.zeros_like(photograph), np.full_like(photograph, 200)):
        value = Image.fromarray(np.dstack([under, alpha]))
        np.testing.assert_array_equal(read_masks(value, inside.shape).masks, [inside])
    gray = Image.fromarray(np.dstack([np.zeros_like(alpha), alpha]))
    assert gray.mode == "LA"
    np.testing.assert_array_equal(read_masks(gray, inside.shape).masks, [inside])


def test_colors_under_an_alpha_channel_that_varies_are_not_guessed():
    colors = np.zeros((60, 80, 3), dtype=np.uint8)
    colors[:, :30, 0], colors[:, 30:60, 1] = 200, 200
    alpha = np.where(np.arange(80) < 60, 255, 0).astype(np.uint8) * np.ones((60, 1), dtype=np.uint8)
    with pytest.raises(ValueError, match="2 different colours where it is opaque"):
        read_masks(Image.fromarray(np.dstack([colors, alpha])), (60, 80))


@pytest.mark.parametrize("highest", [3, 18, 150])
def test_a_label_map_with_an_ignored_value_of_255_stays_a_map(highest):
    labels = np.arange(highest).repeat(40).reshape(-1, 1) * np.ones((1, 7), dtype=int)
    labels = labels.astype(np.uint8)
    labels[:9] = 255
    read = read_masks(Image.fromarray(labels), labels.shape)
    assert read.ids == [*range(1, highest), 255]
    np.testing.assert_array_equal(read.masks[3 - 2], labels == 2)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_photograph_is_no_map_of_masks(kind, mode):
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    picture = through_file(
        Image.fromarray(noise).resize((320, 240), Image.Resampling.BICUBIC).convert(mode), format=kind
    )
    pixels = np.asarray(picture)
    number = len(np.unique(pixels.reshape(-1, pixels.shape[2] if mode == "RGB" else 1), axis=0))
    with pytest.raises(ValueError, match=rf"\b{number} different values"):
        read_masks(picture, (240, 320))


def test_a_map_of_too_many_segments_is_refused_before_memory_is_taken():
    values = np.arange(4000 * 4000, dtype=np.int32).reshape(4000, 4000) // 16
    with pytest.raises(ValueError, match=r"1000000 different values"):
        read_masks(values, (4000, 4000))


def test_a_map_with_negative_values_and_zero_needs_to_say_what_zero_is():
    values = np.where(FIRST, 0, -1)
    with pytest.raises(ValueError, match="not clear whether 0 is one"):
        read_masks(values.astype(float), SIZE)
    assert_reads(values, FIRST[None], ids=(0,), ignore_index=-1)
    assert_reads(values.astype(np.float32), FIRST[None], ids=(0,), segments_info=[{"id": 0}])


def test_a_palette_that_holds_a_panoptic_map_shows_its_colors():
    ids = np.where(FIRST, 5 + 256 * 2, np.where(SECOND, 70_000, 0))
    colors = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
    palette = Image.fromarray(colors).quantize(3)
    assert palette.mode == "P"
    assert_reads(palette, BOTH, ids=(517, 70_000), segments_info=[{"id": 517}, {"id": 70_000}])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((2, 3, *SIZE)), r"got \(2, 3, 6, 8\)"),
        (np.full((2, *SIZE), 2.5), "Turn logits into probabilities"),
        (np.where(FIRST, 5.0, -5.0), "Turn logits into probabilities"),
        ([np.full(SIZE, np.inf)], "Mask 0: .*floats in"),
        ([{"segmentation": [], "bbox": [0, 0, 2, 2]}], "Mask 0: the object has no outline"),
        ([[1e12, 0, 1e12, 5, 0, 5]], "Mask 0: .*at most 1e.09 away"),
        ([[100, 100, 200, 100, 200, 200]], "Mask 0 is empty"),
        ([{"size": [6, 8], "counts": [48.5]}], "Mask 0: The counts"),
        ([{"size": [6, 8], "counts": [2**62, 2**62, 2**63 - 1]}], "Mask 0: The counts"),
        ({"segmentation": LABELS, "segments_info": [{"id": 5}, {"id": 6}]}, "no pixel of any segment .* such as 5"),
        ({"segmentation": [FIRST], "segments_info": [{"id": 0}, {"id": 1}]}, "1 masks, but .* 2 segments"),
        (np.full(SIZE, 2**63 + 5, dtype=np.uint64), "too large"),
    ],
)
def test_masks_that_cannot_be_right_are_refused(value, message):
    with pytest.raises(ValueError, match=message):
        read_masks(value, SIZE)


def test_outlines_far_outside_take_no_memory():
    wide = [-5e8, -5e8, 5e8, -5e8, 5e8, 5e8, -5e8, 5e8]
    np.testing.assert_array_equal(read_masks([wide], SIZE).masks, np.ones((1, *SIZE)))
    contour = np.array(wide, dtype=np.int64).reshape(-1, 1, 2)
    np.testing.assert_array_equal(read_masks([contour], SIZE).masks, np.ones((1, *SIZE)))


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr"])
def test_a_mask_is_the_same_in_modes_of_print_and_television(mode):
    image = Image.fromarray(FIRST.astype(np.uint8) * 255).convert("RGB").convert(mode)
    np.testing.assert_array_equal(read_masks(image, SIZE).masks, [FIRST])


def test_a_picture_that_is_transparent_everywhere_is_no_mask_of_its_color():
    values = np.full((*SIZE, 4), 255, dtype=np.uint8)
    values[..., 3] = 0
    for value in (values, Image.fromarray(values)):
        with pytest.raises(ValueError, match="transparent everywhere"):
            read_masks(value, SIZE)
    np.testing.assert_array_equal(read_masks(values[..., :3], SIZE).masks, np.ones((1, *SIZE)))


@pytest.mark.parametrize("quality", [98, 100])
def test_traces_of_the_best_jpeg_quality_are_no_segments(quality):
    image = Image.new("L", (60, 90))
    ImageDraw.Draw(image).polygon([(5, 7), (52, 30), (20, 80)], fill=255)
    values = np.asarray(through_file(image, format="JPEG", quality=quality))
    assert 3 <= len(np.unique(values)) <= 16
    for copy in (values, np.dstack([values] * 3), Image.fromarray(values), Image.fromarray(values).convert("RGB")):
        with pytest.raises(ValueError, match=rf"holds {len(np.unique(values))} different values, .* lossy format"):
            read_masks(copy, values.shape)


def test_traces_of_a_poor_jpeg_quality_are_no_segments_but_thin_segments_are():
    image = Image.new("L", (24, 30))
    ImageDraw.Draw(image).line([(3, 3), (10, 9)], fill=140)
    values = np.asarray(through_file(image, format="JPEG", quality=10))
    assert 16 < len(np.unique(values)) <= 64
    with pytest.raises(ValueError, match=rf"holds {len(np.unique(values))} different values, which change from pixel"):
        read_masks(values, values.shape)
    cells = np.zeros((64, 64), dtype=np.uint8)
    for number in range(1, 31):
        row, column = divmod(number, 6)
        cells[row * 10 + 2 : row * 10 + 4, column * 10 + 2 : column * 10 + 4] = number
    assert read_masks(cells, cells.shape).ids == list(range(1, 31))
    cells[0] = 255
    assert read_masks(np.where(np.isin(cells, (1, 255)), cells, 0), cells.shape).ids == [1, 255]


def test_a_panoptic_jpeg_is_refused_beside_segments_info():
    picture = through_file(Image.fromarray(LABELS.astype(np.uint8)), format="JPEG")
    with pytest.raises(ValueError, match="map of segments is a JPEG"):
        read_masks(picture, SIZE, [{"id": 7}, {"id": 3}])


def test_no_listed_segment_means_no_mask_wherever_the_list_stands():
    nothing = np.full(SIZE, -1.0, dtype=np.float32)
    for value in (nothing, torch.from_numpy(nothing), Image.fromarray(nothing)):
        assert_reads(value, np.zeros((0, *SIZE)), (), segments_info=[])
    for missing in (None, []):
        with pytest.raises(ValueError, match="no masks, but segments_info lists 1 segments"):
            read_masks({"segmentation": missing, "segments_info": [{"id": 1}]}, SIZE)


def test_a_list_of_one_result_is_that_result_and_of_several_refused():
    values = np.where(FIRST, 0, np.where(SECOND, 1, -1))
    result = {"segmentation": values, "segments_info": [{"id": 0, "label_id": 4}, {"id": 1, "label_id": 4}]}
    assert_reads([result])
    assert_reads([{"masks": torch.from_numpy(BOTH)[:, None] * 0.7}], BOTH * np.float32(0.7))
    with pytest.raises(ValueError, match="list of 2 results"):
        read_masks([result, result], SIZE)


class _Masks(SimpleNamespace):
    """What Ultralytics call masks: a tensor of the network's size, and the outlines in pixels of the picture."""

    def __len__(self):
        return len(self.data)


def test_results_of_ultralytics_are_read_at_the_pictures_size_and_refused_at_the_networks():
    outlines = [np.array([[2, 1], [6, 1], [6, 4], [2, 4]], np.float32), np.array([[0, 4], [3, 4], [3, 6], [0, 6]])]
    result = SimpleNamespace(masks=_Masks(data=torch.from_numpy(BOTH).float(), xy=outlines))
    for value in (result, [result], result.masks, outlines):
        assert_reads(value)
    result.masks.data = torch.zeros(2, 12, 16)
    with pytest.raises(ValueError, match=r"12x16, the size that the network saw.*6x8.*retina_masks=True"):
        read_masks(result, SIZE)


def test_contours_with_their_hierarchy_are_refused_by_name():
    contour = np.array([[[2, 1]], [[5, 1]], [[5, 3]], [[2, 3]]], dtype=np.int32)
    assert_reads([contour], [FIRST], (0,))
    for hierarchy in (np.full((1, 1, 4), -1, dtype=np.int32), None):
        with pytest.raises(ValueError, match=r"cv2.findContours returns: give the contours alone"):
            read_masks(((contour,), hierarchy), SIZE)
