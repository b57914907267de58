"""A panoptic map is colours in whatever mode it was saved: every reader finds the same segments, or refuses alike."""

import json

import numpy as np
import pytest
from PIL import Image

from hf_maskadapter import MaskAdapterImageProcessorPil, read_masks
from hf_maskadapter.data import SampleReader, load_segmentation_dataset
from hf_maskadapter.evaluation.functional import match_detections, match_panoptic
from hf_maskadapter.exchange import read_results
from hf_maskadapter.model.vocabulary import Vocabulary
from support.pictures import encoded

SIZE = (4, 6)
GRAY_IDS = (65_793 * 5, 65_793 * 200)  # colours (5, 5, 5) and (200, 200, 200)
COLOR_IDS = (7 + 256 * 80, 70_000)
NUMBERS = (3, 200)
NAMES = ["sky", "road"]


def map_of(ids):
    values = np.zeros(SIZE, dtype=np.int64)
    values[1:, :3], values[1:, 3:] = ids
    return values


def colors(values):
    return np.stack([values % 256, values // 256 % 256, values // 65536], axis=-1).astype(np.uint8)


FORMS = {
    "colors": (COLOR_IDS, Image.fromarray(colors(map_of(COLOR_IDS)))),
    "colors with alpha": (COLOR_IDS, Image.fromarray(colors(map_of(COLOR_IDS))).convert("RGBA")),
    "palette of colors": (COLOR_IDS, Image.fromarray(colors(map_of(COLOR_IDS))).quantize(3)),
    "palette of grays": (GRAY_IDS, Image.fromarray(colors(map_of(GRAY_IDS))).quantize(3)),
    "gray": (GRAY_IDS, Image.fromarray(colors(map_of(GRAY_IDS))).convert("L")),
    "gray with alpha": (GRAY_IDS, Image.fromarray(colors(map_of(GRAY_IDS))).convert("LA")),
    "one bit": ((16_777_215,), Image.fromarray(np.arange(24).reshape(SIZE) >= 6).convert("1")),
    "8 bits of numbers": (NUMBERS, Image.fromarray(map_of(NUMBERS).astype(np.uint8))),
    "palette of numbers": (NUMBERS, Image.fromarray(map_of(NUMBERS).astype(np.uint8), mode="P")),
    "16 bits of numbers": (NUMBERS, Image.fromarray(map_of(NUMBERS).astype(np.uint16))),
}
FORMS["palette of numbers"][1].putpalette(([9, 9, 60] + list(range(1, 256)) * 3)[:768])


def expected_masks(ids):
    values = map_of(ids if len(ids) == 2 else ids * 2)
    return [values == number for number in ids]


def infos(ids):
    return [{"id": number, "category_id": place % 2} for place, number in enumerate(ids)]


def by_sample_reader(image, records, tmp_path):
    reader = SampleReader(
        Vocabulary.from_list(NAMES), panoptic_column="panoptic_map", segments_column="segments_info", name="streets"
    )
    picture = Image.new("RGB", (6, 4))
    sample = reader({"image": picture, "panoptic_map": encoded(image), "segments_info": records}, 0)
    return [sample.segmentation == segment.id for segment in sample.segments_info]


def write_coco_files(image, records, tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "panoptic").mkdir()
    Image.new("RGB", (6, 4)).save(tmp_path / "pictures" / "a.png")
    image.save(tmp_path / "panoptic" / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 4, "width": 6}],
        "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": records}],
        "categories": [{"id": number, "name": name} for number, name in enumerate(NAMES)],
    }
    (tmp_path / "panoptic.json").write_text(json.dumps(content))


def from_coco_files(image, records, tmp_path):
    write_coco_files(image, records, tmp_path)
    (sample,) = load_segmentation_dataset(tmp_path / "panoptic.json", image_folder=tmp_path / "pictures")
    return [sample.segmentation == segment.id for segment in sample.segments_info]


def by_exchange(image, records, tmp_path):
    write_coco_files(image, records, tmp_path)
    (result,) = read_results(tmp_path / "panoptic.json", "coco-panoptic").results
    return [segment.mask for segment in result]


def by_read_masks(image, records, tmp_path):
    return list(read_masks(image, SIZE, segments_info=records).masks)


def by_image_processor(image, records, tmp_path):
    processor = MaskAdapterImageProcessorPil(do_resize=False, size_divisor=1)
    features = processor(np.zeros((*SIZE, 3), np.uint8), [image], [records], return_tensors="np")
    order = np.argsort(np.argsort([record["id"] for record in records]))
    return [features["mask_labels"][0][place] > 0 for place in order]


READERS = (by_sample_reader, from_coco_files, by_exchange, by_read_masks, by_image_processor)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("form", FORMS)
def test_every_reader_finds_the_same_segments(read, form, tmp_path):
    ids, image = FORMS[form]
    np.testing.assert_array_equal(read(image, infos(ids), tmp_path), expected_masks(ids))


@pytest.mark.parametrize("form", FORMS)
def test_metrics_find_the_same_segments(form):
    ids, image = FORMS[form]
    values = map_of(ids if len(ids) == 2 else ids * 2)
    plain = {"segmentation": values, "segments_info": infos(ids)}
    for annotated in (image, encoded(image), {"bytes": encoded(image), "path": None}):
        counts = match_panoptic(plain, {"segmentation": annotated, "segments_info": infos(ids)})
        found = {
            number: (m.true_positives, m.false_positives, m.false_negatives) for number, m in counts.categories.items()
        }
        assert found == {place: (1, 0, 0) for place in range(len(ids))}
        records = [record | {"score": 0.5} for record in infos(ids)]
        as_prediction, as_plain = (
            match_detections({"segmentation": segmentation, "segments_info": records}, plain)
            for segmentation in (annotated, values)
        )
        assert as_prediction.state_dict() == as_plain.state_dict()


@pytest.mark.parametrize("read", [by_sample_reader, from_coco_files, by_exchange])
@pytest.mark.parametrize(
    ("records", "message"),
    [
        (infos(COLOR_IDS[:1]), "70000"),
        ([*infos(COLOR_IDS), infos(COLOR_IDS)[0]], f"{COLOR_IDS[0]}.* twice"),
    ],
)
def test_segments_that_are_not_listed_or_listed_twice_are_refused_alike(read, records, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read(FORMS["colors"][1], records, tmp_path)


@pytest.mark.parametrize("role", [0, 1])
def test_metrics_refuse_them_alike(role):
    good = {"segmentation": FORMS["colors"][1], "segments_info": infos(COLOR_IDS)}
    for records, message in ((infos(COLOR_IDS[:1]), "70000"), (infos(COLOR_IDS) * 2, f"{COLOR_IDS[0]} twice")):
        pair = [good, good]
        pair[role] = good | {"segments_info": records}
        with pytest.raises(ValueError, match=message):
            match_panoptic(*pair)


def test_a_panoptic_map_of_another_size_is_refused_by_every_reader(tmp_path):
    image = FORMS["colors"][1].resize((7, 4), Image.Resampling.NEAREST)
    for number, read in enumerate(READERS):
        (tmp_path / str(number)).mkdir()
        with pytest.raises(ValueError, match=r"size|4x7|shape"):
            read(image, infos(COLOR_IDS), tmp_path / str(number))
