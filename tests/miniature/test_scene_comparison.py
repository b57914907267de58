"""What two methods make of a scene: scores by hand, and what of it the picture marks."""

import itertools

import numpy as np
import pytest
from PIL import Image

from hf_maskadapter.miniature.demonstration_picture import _DIFFERENT, _RIGHT, _WRONG, _free_box, draw_comparison
from hf_maskadapter.miniature.scene_comparison import SceneComparison

SIZE = 96
PANEL = 192


def comparison(**changes) -> SceneComparison:
    """Grass with a star at the left and a ring at the right; the adapter takes the ring for a star, pooling the star.

    The star covers 16 columns and the ring 32 of 96, each at full height.
    """
    masks = np.zeros((3, SIZE, SIZE), dtype=bool)
    masks[1, :, :16], masks[2, :, 64:] = True, True
    masks[0] = ~masks[1] & ~masks[2]
    truth = np.select(list(masks), [2, 0, 1])
    pooling, adapter = truth.copy(), truth.copy()
    pooling[masks[1]] = 1
    adapter[masks[2]] = 0
    arguments = {
        "picture": np.full((SIZE, SIZE, 3), 128, dtype=np.uint8),
        "masks": masks,
        "true_names": ["grass", "dotted red star", "plain blue ring"],
        "names": ["dotted red star", "plain blue ring", "grass"],
        "label_maps": {"pooling": pooling, "adapter": adapter},
        "called": {"pooling": ["grass"] * 3, "adapter": ["grass"] * 3},
        "proposals": masks,
        "activation_maps": np.zeros((3, 2, 12, 12), dtype=np.float32),
    }
    return SceneComparison(**(arguments | changes))


def test_mean_iou_is_over_the_classes_that_the_scene_shows():
    # pooling: star 0, ring 32 of 48 columns, grass 1; adapter: star 16 of 48, ring 0, grass 1
    assert comparison().mean_iou("pooling") == pytest.approx(100 * (0 + 32 / 48 + 1) / 3)
    assert comparison().mean_iou("adapter") == pytest.approx(100 * (16 / 48 + 0 + 1) / 3)


def test_a_segment_is_named_by_most_of_its_pixels():
    label_map = comparison().truth
    label_map[:50, :16] = 1
    changed = comparison(label_maps={"pooling": label_map, "adapter": comparison().truth})
    assert changed.named("pooling") == ["grass", "plain blue ring", "plain blue ring"]
    assert changed.named("adapter") == ["grass", "dotted red star", "plain blue ring"]


def test_segments_with_different_names_come_first_then_large_things_then_backgrounds():
    assert comparison().segments_to_explain(2) == [2, 1]
    assert comparison().segments_to_explain(5) == [2, 1, 0]
    agreed = comparison().truth
    only_star = agreed.copy()
    only_star[:, :16] = 1
    changed = comparison(label_maps={"pooling": only_star, "adapter": agreed})
    assert changed.segments_to_explain(3) == [1, 2, 0]


def test_without_the_true_names_among_the_labels_there_is_no_right_and_wrong():
    unknown = comparison(names=["star", "ring", "grass"])
    assert comparison().has_truth
    assert not unknown.has_truth
    colors = {color for _, color in draw_comparison(unknown, PANEL, 3).getcolors(1 << 20)}
    assert _WRONG not in colors
    assert _RIGHT not in colors


def panels(picture: Image.Image) -> list[np.ndarray]:
    """Pixels of truth, pooling and adapter."""
    third = picture.width // 3
    pixels = np.asarray(picture)[: PANEL + 20]
    return [pixels[:, start : start + third] for start in (0, third, 2 * third)]


def share(pixels: np.ndarray, color: tuple[int, int, int], columns: slice = slice(None)) -> float:
    return float((pixels[:, columns] == color).all(axis=-1).mean())


def test_wrong_pixels_are_hatched_and_differences_framed_in_both_results():
    truth, pooling, adapter = panels(draw_comparison(comparison(), PANEL, 3))
    left, right = slice(0, PANEL // 6), slice(2 * PANEL // 3 + 10, PANEL)
    assert share(truth, _WRONG) == share(truth, _DIFFERENT) == 0
    assert share(pooling, _WRONG, left) > 0.2 > share(pooling, _WRONG, right)
    assert share(adapter, _WRONG, right) > 0.2 > share(adapter, _WRONG, left)
    assert share(pooling, _DIFFERENT) > 0.01
    assert share(adapter, _DIFFERENT) > 0.01


def test_where_the_methods_agree_nothing_is_framed():
    same = comparison().truth
    for panel in panels(draw_comparison(comparison(label_maps={"pooling": same, "adapter": same}), PANEL, 3)):
        assert share(panel, _DIFFERENT) == share(panel, _WRONG) == 0


def test_names_do_not_cover_each_other():
    taken: list[tuple[int, int, int, int]] = []
    for x, y in itertools.product((100, 130, 160), (100, 120, 140)):
        taken.append(_free_box((x, y), (90, 40), (400, 400), taken, []))
    for (left, top, right, bottom), other in itertools.combinations(taken, 2):
        assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top
