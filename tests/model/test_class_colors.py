"""A colour for every class name."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_maskadapter.model.class_colors import class_color, class_colors
from hf_maskadapter.model.vocabulary import Vocabulary, label_sets


def test_color_of_a_name_is_the_same_in_another_process():
    code = "from hf_maskadapter.model.class_colors import class_color; print(class_color('zebra'))"
    for seed in ("1", "2"):
        env = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        printed = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        assert printed.stdout.strip() == str(class_color("zebra"))


def test_case_and_blanks_make_no_difference():
    assert class_color("Potted  Plant ") == class_color("potted plant")


@settings(max_examples=20)
@given(st.lists(st.sampled_from(["zebra", "person", "sky", "Haus", "a thing"]), unique=True))
def test_a_class_has_one_color_in_every_vocabulary(names):
    assert class_colors(names) == [class_color(name) for name in names]


def test_coco_and_others_give_the_same_class_the_same_color():
    assert class_color("sky-other-merged") == class_color("sky") == class_color("Sky")
    assert class_color("pavement-merged") == class_color("pavement")
    assert class_color("-other") != class_color("")


def test_frequent_classes_differ_visibly():
    names = ["person", "sky", "tree", "grass", "road", "building", "car", "wall", "floor", "water", "sidewalk"]
    colors = np.array(class_colors(names), dtype=float)
    distances = np.linalg.norm(colors[:, None] - colors[None], axis=-1) + 1e9 * np.eye(len(names))
    assert distances.min() > 45


@pytest.mark.parametrize("name", label_sets())
def test_classes_of_a_label_set_have_different_colors(name):
    names = Vocabulary.from_label_set(name).names
    assert len(set(class_colors(names))) >= 0.99 * len(names)


def test_colors_can_be_told_from_black_and_white():
    colors = np.array(class_colors(Vocabulary.from_label_set("ade20k_847").names))
    assert colors.max(axis=1).min() > 100
    assert colors.min(axis=1).max() < 230


def test_empty_vocabulary_has_no_colors():
    assert class_colors([]) == []
