"""Small data sets on disk and in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pytest

from support.data_samples import encode, labels, picture, save

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """Keep what `datasets` caches out of the user's home, and its progress bars out of the output."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
    datasets.disable_progress_bars()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real data."""
    root = os.environ.get("MASKADAPTER_SHARED")
    if not root or not Path(root, "data").is_dir():
        pytest.skip("needs real data: set MASKADAPTER_SHARED to the folder that has data/")
    return Path(root)


@pytest.fixture
def make_dataset() -> Callable[..., datasets.Dataset]:
    """Make a data set in memory, of pictures and label maps with 3 classes."""

    def make(size: int = 5, image_column: str = "image", label_column: str = "label_map") -> datasets.Dataset:
        columns = {
            "id": [f"s{i}" for i in range(size)],
            image_column: [{"bytes": encode(picture(i)), "path": None} for i in range(size)],
            label_column: [{"bytes": encode(labels(i)), "path": None} for i in range(size)],
        }
        features = {"id": datasets.Value("string"), image_column: datasets.Image(), label_column: datasets.Image()}
        return datasets.Dataset.from_dict(columns, features=datasets.Features(features))

    return make


@pytest.fixture
def picture_folder(tmp_path: Path) -> Path:
    """Splits with pictures and label maps; a file tells the classes, whose values in the maps are 10, 20, 30."""
    root = tmp_path / "folder"
    for split, size in (("train", 4), ("val", 2)):
        for i in range(size):
            save(root / split / "images" / f"p{i}.jpg", picture(i))
            values = (labels(i) + 1) * 10
            values[0, 0] = 99
            save(root / split / "annotations" / f"p{i}.png", values)
    classes = {"id2label": {"10": "sky", "20": "road", "30": "car"}, "ignore_index": 99}
    (root / "classes.json").write_text(json.dumps(classes))
    return root


@pytest.fixture
def coco_root(tmp_path: Path) -> Path:
    """An imitation of COCO's root folder with panoptic annotations: person (1), car (3) and grass (193)."""
    root = tmp_path / "coco"
    for split, ids in (("train2017", (9, 25)), ("val2017", (30,))):
        images, annotations = [], []
        for image_id in ids:
            name = f"{image_id:012d}"
            save(root / split / f"{name}.jpg", picture(image_id))
            panoptic = np.zeros((12, 16, 3), dtype=np.uint8)
            panoptic[:6] = (1, 1, 0)  # 257
            panoptic[6:, :8] = (0, 0, 1)  # 65536
            panoptic[6:, 12:] = (7, 0, 0)
            save(root / "annotations" / f"panoptic_{split}" / f"{name}.png", panoptic)
            images.append({"id": image_id, "file_name": f"{name}.jpg", "width": 16, "height": 12})
            segments = [
                {"id": 257, "category_id": 193, "iscrowd": 0, "area": 96, "bbox": [0, 0, 16, 6]},
                {"id": 65536, "category_id": 1, "iscrowd": 0, "area": 48, "bbox": [0, 6, 8, 6]},
                {"id": 7, "category_id": 1, "iscrowd": 1, "area": 24, "bbox": [12, 6, 4, 6]},
            ]
            annotations.append({"image_id": image_id, "file_name": f"{name}.png", "segments_info": segments})
        categories = [
            {"id": 1, "name": "person", "isthing": 1, "supercategory": "person", "color": [0, 0, 1]},
            {"id": 3, "name": "car", "isthing": 1, "supercategory": "vehicle", "color": [0, 0, 2]},
            {"id": 193, "name": "grass-merged", "isthing": 0, "supercategory": "plant", "color": [0, 0, 3]},
        ]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"panoptic_{split}.json").write_text(json.dumps(content))
    return root
