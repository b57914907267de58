"""Labeling interfaces of Label Studio."""

from pathlib import Path

import pytest

from hf_maskadapter.exchange import ExchangeError
from hf_maskadapter.exchange.label_studio_interface import LabelingInterface, read_interface


def read(folder: Path, content: str) -> LabelingInterface:
    path = folder / "label_config.xml"
    path.write_text(content)
    return read_interface(path)


def test_brushes_and_polygons_with_the_same_names_are_the_same_classes(tmp_path):
    interface = read(
        tmp_path,
        '<View><Image name="img" value="$photo"/>'
        '<BrushLabels name="brush" toName="img"><Label value="cat"/><Label value="dog"/></BrushLabels>'
        '<PolygonLabels name="polygon" toName="img"><Label value="dog"/><Label value="sky"/></PolygonLabels></View>',
    )
    assert interface.names == ["cat", "dog", "sky"]
    assert interface.data_keys == {"img": "photo"}


def test_results_hold_aliases(tmp_path):
    interface = read(
        tmp_path,
        '<View><Image name="img" value="$image"/>'
        '<BrushLabels name="a" toName="img"><Label value="domestic cat" alias="c"/></BrushLabels>'
        '<PolygonLabels name="b" toName="img"><Label value="car" alias="c"/></PolygonLabels></View>',
    )
    assert interface.names == ["domestic cat", "car"]
    assert [interface.class_of(control, "c") for control in ("a", "b", None)] == ["domestic cat", "car", "domestic cat"]
    assert interface.class_of("a", "domestic cat") is None


def test_labels_of_texts_are_no_classes_of_the_picture(tmp_path):
    interface = read(
        tmp_path,
        '<View><Image name="img" value="$image"/><Text name="text" value="$caption"/>'
        '<Labels name="words" toName="text"><Label value="verb"/></Labels>'
        '<Choices name="quality" toName="img"><Choice value="good"/></Choices>'
        '<BrushLabels name="a" toName="img"><View><Label value="cat"/></View></BrushLabels></View>',
    )
    assert interface.names == ["cat"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<View>", "no labeling interface"),
        ('<View><BrushLabels name="a"><Label/></BrushLabels></View>', "a label of the control 'a' has no value"),
    ],
)
def test_malformed_ones_get_one_error(tmp_path, content, message):
    with pytest.raises(ExchangeError, match=rf"label_config\.xml.*{message}"):
        read(tmp_path, content)
