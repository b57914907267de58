"""What a labeling interface asks for, and segments as its brush regions."""

import numpy as np
import pytest

from hf_maskadapter.exchange.errors import ExchangeError
from hf_maskadapter.exchange.label_studio_brush import decode_brush
from hf_maskadapter.exchange.label_studio_predictions import BrushControl, predict_for, read_brush_control
from hf_maskadapter.model.vocabulary import Vocabulary
from support.tool_samples import CROWD, PARTS, RING, SIZE, SKY, scene

INTERFACE = """
<View>
  <Header value="Draw"/>
  <Image name="other" value="$second"/>
  <Image name="img" value="$photo" zoom="true"/>
  <BrushLabels name="elsewhere" toName="audio"><Label value="noise"/></BrushLabels>
  <RectangleLabels name="boxes" toName="img"><Label value="box"/></RectangleLabels>
  <BrushLabels name="brush" toName="img" model_task="panoptic" model_things="Cat" strokeWidth="3">
    <Label value="Sky" predicted_values=" blue sky, clouds ,"/>
    <Label value="Cat" alias="c" background="red"/>
    <Label value="dog"/>
  </BrushLabels>
</View>
"""


def test_the_first_brush_for_a_picture_tells_labels_synonyms_and_settings():
    assert read_brush_control(INTERFACE) == BrushControl(
        name="brush",
        image="img",
        data_key="photo",
        results=("Sky", "c", "dog"),
        synonyms=(("blue sky", "clouds"), ("Cat",), ("dog",)),
        settings={"task": "panoptic", "things": "Cat"},
    )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("", "cannot be read"),
        ("<View/>", "no BrushLabels for an Image"),
        (INTERFACE.replace('toName="img"', 'toName="x"'), "no BrushLabels for an Image"),
        (INTERFACE.replace('"$photo"', '"photo"'), "Image 'img' must say where a task's picture is"),
        (INTERFACE.replace('value="dog"', 'value=""'), "a label of the control 'brush' has no value"),
        (INTERFACE.replace('value="dog"', 'value="c"'), "'brush' holds a label twice"),
    ],
)
def test_an_interface_that_cannot_be_used_is_told(config, message):
    with pytest.raises(ExchangeError, match=message):
        read_brush_control(config)


def test_regions_have_the_controls_names_and_the_segments_masks():
    result = scene(Vocabulary.from_list(["sky", "cat", "dog"]))
    found = predict_for(read_brush_control(INTERFACE), result, "small")
    assert (found["model_version"], "score" in found) == ("small", False)
    assert [region["value"]["brushlabels"] for region in found["result"]] == [["Sky"], ["c"], ["dog"], ["dog"]]
    assert [region["id"] for region in found["result"]] == [f"segment-{number}" for number in range(1, 5)]
    for region, mask in zip(found["result"], (SKY, RING, PARTS, CROWD), strict=True):
        assert (region["from_name"], region["to_name"]) == ("brush", "img")
        assert (region["original_height"], region["original_width"]) == SIZE
        assert np.array_equal(decode_brush(region["value"]["rle"], SIZE), mask)
