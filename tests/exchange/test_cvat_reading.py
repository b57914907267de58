"""What CVAT exports, read: shapes, layers, tracks, groups, and what is malformed."""

import logging
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from hf_maskadapter.exchange import ExchangeError, StoredResults, read_results
from support.result_samples import box, centers_inside

LABELS = "<labels><label><name>cat</name></label><label><name>dog</name></label></labels>"


def read(folder: Path, shapes: str, size: tuple[int, int] = (8, 10)) -> StoredResults:
    """A picture with some shapes, in an export of CVAT for images."""
    path = folder / "annotations.xml"
    path.write_text(
        f"<annotations><version>1.1</version><meta><task>{LABELS}</task></meta>"
        f'<image id="0" name="a.png" width="{size[1]}" height="{size[0]}">{shapes}</image></annotations>'
    )
    return read_results(path, "cvat")


def read_masks(folder: Path, shapes: str, size: tuple[int, int] = (8, 10)) -> list[np.ndarray]:
    (result,) = read(folder, shapes, size).results
    return [segment.mask for segment in result]


def points(corners: list[tuple[float, float]]) -> str:
    return ";".join(f"{x:.2f},{y:.2f}" for x, y in corners)


class TestShapes:
    def test_polygon_of_a_corrector_encloses_twelve_pixels(self, tmp_path):
        (mask,) = read_masks(tmp_path, '<polygon label="cat" points="2,2;6,2;6,5;2,5"/>')
        assert mask.sum() == 12
        assert (mask == box((8, 10), 2, 5, 2, 6)).all()

    @pytest.mark.parametrize("size", [(8, 14), (14, 8)])
    @pytest.mark.parametrize(
        "corners",
        [
            [(1.2, 1.1), (7.3, 2.9), (4.1, 7.4)],
            [(1.1, 0.9), (7.2, 0.9), (7.2, 6.7), (4.3, 2.4), (1.1, 6.7)],  # concave
            [(-3.3, 2.2), (20.4, 3.6), (20.4, 5.1), (-3.3, 4.2)],  # beyond both edges
        ],
    )
    def test_slanted_and_concave_polygons_are_those_of_matplotlib(self, tmp_path, size, corners):
        (mask,) = read_masks(tmp_path, f'<polygon label="cat" points="{points(corners)}"/>', size)
        assert mask.shape == size
        assert (mask == centers_inside(corners, size)).all()

    def test_boxes_are_rectangles_turned_about_their_center(self, tmp_path):
        upright, turned = read_masks(
            tmp_path,
            '<box label="cat" xtl="2.0" ytl="2.0" xbr="6.0" ybr="5.0"/>'
            '<box label="dog" xtl="1.0" ytl="3.0" xbr="7.0" ybr="5.0" rotation="90.0"/>',
        )
        assert (upright == box((8, 10), 2, 5, 2, 6)).all()
        assert (turned == box((8, 10), 1, 7, 3, 5)).all()

    def test_ellipses_are_ellipses(self, tmp_path):
        (mask,) = read_masks(tmp_path, '<ellipse label="cat" cx="5" cy="4" rx="3" ry="2"/>')
        assert mask.astype(int).tolist() == [
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            [0, 0, 0, 1, 1, 1, 1, 0, 0, 0],
            [0, 0, 1, 1, 1, 1, 1, 1, 0, 0],
            [0, 0, 1, 1, 1, 1, 1, 1, 0, 0],
            [0, 0, 0, 1, 1, 1, 1, 0, 0, 0],
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ]  # fmt: skip

    def test_what_is_no_region_is_named_once_with_counts(self, tmp_path, caplog):
        shapes = (
            '<polyline label="cat" points="1,1;2,2"/><points label="cat" points="1,1"/><tag label="cat"/>'
            '<cuboid label="cat" xtl1="1"/><skeleton label="cat"><points label="1" points="1,1"/></skeleton>'
            '<polyline label="cat" points="1,1;2,2"/><box label="dog" xtl="2" ytl="2" xbr="6" ybr="5"/>'
            '<box label="dog" xtl="2.1" ytl="2.1" xbr="2.2" ybr="5"/>'
        )
        stored = read(tmp_path, shapes)
        with caplog.at_level(logging.WARNING):
            (result,) = stored.results
        assert [segment.label for segment in result] == ["dog"]
        assert stored.left_out.counts == {
            "polylines": 2, "points": 1, "tags": 1, "cuboids": 1, "skeletons": 1, "shapes without a pixel": 1,
        }  # fmt: skip
        (record,) = caplog.records
        assert "2 polylines (first: " in record.getMessage()
        assert "picture 'a.png', skeleton 4" in record.getMessage()

    def test_shapes_of_a_group_and_a_label_are_one_object(self, tmp_path):
        shapes = (
            '<box label="cat" group_id="3" xtl="0" ytl="0" xbr="2" ybr="2"/>'
            '<box label="dog" group_id="3" xtl="4" ytl="0" xbr="6" ybr="2"/>'
            '<box label="cat" group_id="3" xtl="0" ytl="4" xbr="2" ybr="6"/>'
            '<box label="cat" group_id="0" xtl="7" ytl="7" xbr="8" ybr="8"/>'
            '<box label="cat" group_id="0" xtl="8" ytl="7" xbr="9" ybr="8"/>'
        )
        (result,) = read(tmp_path, shapes).results
        assert [(segment.label, segment.area) for segment in result] == [("cat", 8), ("dog", 4), ("cat", 1), ("cat", 1)]

    def test_shapes_that_are_outside_are_not_seen(self, tmp_path):
        shape = '<box label="cat" xtl="0" ytl="0" xbr="2" ybr="2" outside="{}"/>'
        assert len(read_masks(tmp_path, shape.format(1) + shape.format(0))) == 1

    @pytest.mark.parametrize(("value", "is_crowd"), [("true", True), ("1", True), ("false", False), ("0", False)])
    def test_crowds_are_those_of_cvats_attribute(self, tmp_path, value, is_crowd):
        shape = (
            '<box label="cat" xtl="0" ytl="0" xbr="2" ybr="2"><attribute name="color">red</attribute>'
            f'<attribute name="is_crowd">{value}</attribute></box>'
        )
        (result,) = read(tmp_path, shape).results
        assert result[0].is_crowd is is_crowd


class TestLayers:
    def test_z_order_decides_who_lies_on_top(self, tmp_path):
        shapes = (
            '<box label="cat" xtl="0" ytl="0" xbr="4" ybr="4" z_order="5"/>'
            '<box label="dog" xtl="2" ytl="2" xbr="8" ybr="6" z_order="-1"/>'
            '<box label="dog" xtl="3" ytl="3" xbr="5" ybr="5" z_order="5"/>'
        )
        (result,) = read(tmp_path, shapes).results
        assert [segment.area for segment in result] == [24, 16, 4]  # the lowest first
        labels = result.label_map()
        assert labels[2, 2] == 0  # the cat over the large dog
        assert labels[3, 3] == 1  # among equal layers the later one is on top


class TestVideo:
    HEAD = (
        "<meta><task><size>6</size><mode>interpolation</mode><start_frame>0</start_frame><stop_frame>10</stop_frame>"
        f"<frame_filter>step=2</frame_filter>{LABELS}"
        "<original_size><width>10</width><height>8</height></original_size></task></meta>"
    )

    def write(self, folder: Path, tracks: str, head: str = HEAD) -> Path:
        path = folder / "annotations.xml"
        path.write_text(f"<annotations>{head}{tracks}</annotations>")
        return path

    def test_tracks_become_segments_of_their_frames(self, tmp_path):
        tracks = (
            '<track id="0" label="cat">'
            '<box frame="2" outside="0" keyframe="1" xtl="0" ytl="0" xbr="4" ybr="4" z_order="1"/>'
            '<box frame="4" outside="0" keyframe="0" xtl="1" ytl="0" xbr="5" ybr="4" z_order="1"/>'
            '<box frame="6" outside="1" keyframe="1" xtl="1" ytl="0" xbr="5" ybr="4" z_order="1"/></track>'
            '<track id="1" label="dog">'
            '<mask frame="4" outside="0" keyframe="1" rle="2, 1, 3" left="3" top="1" width="3" height="2"/>'
            '<mask frame="6" outside="1" keyframe="1" rle="2, 1, 3" left="3" top="1" width="3" height="2"/></track>'
        )
        stored = read_results(self.write(tmp_path, tracks), "cvat")
        results = {result.picture: result for result in stored.results}
        assert sorted(results) == [f"frame_{frame:06d}.png" for frame in range(0, 12, 2)]
        assert [len(results[f"frame_{frame:06d}.png"]) for frame in range(0, 12, 2)] == [0, 1, 2, 0, 0, 0]
        dog, cat = results["frame_000004.png"]
        assert (dog.label, cat.label) == ("dog", "cat")
        assert (cat.mask == box((8, 10), 0, 4, 1, 5)).all()
        assert np.argwhere(dog.mask).tolist() == [[1, 5]]
        assert stored.left_out.counts == {}

    def test_frames_between_key_frames_that_are_not_in_the_file_are_named(self, tmp_path):
        tracks = (
            '<track id="7" label="cat"><box frame="0" outside="0" xtl="0" ytl="0" xbr="4" ybr="4"/>'
            '<box frame="8" outside="0" xtl="1" ytl="0" xbr="5" ybr="4"/>'
            '<box frame="10" outside="1" xtl="1" ytl="0" xbr="5" ybr="4"/></track>'
        )
        stored = read_results(self.write(tmp_path, tracks), "cvat")
        assert [len(result) for result in stored.results] == [1, 0, 0, 0, 1, 0]
        ((kind, count),) = stored.left_out.counts.items()
        assert "between key frames" in kind
        assert count == 3

    def test_skeleton_tracks_are_named(self, tmp_path):
        tracks = (
            '<track id="7" label="cat"><skeleton frame="0" outside="0"/><skeleton frame="2" outside="0"/>'
            '<skeleton frame="4" outside="1"/></track>'
        )
        stored = read_results(self.write(tmp_path, tracks), "cvat")
        assert [len(result) for result in stored.results] == [0] * 6
        assert stored.left_out.counts == {"skeletons": 2}

    def test_tracks_that_end_before_their_object_does_are_named(self, tmp_path):
        tracks = '<track id="7" label="cat"><box frame="4" outside="0" xtl="0" ytl="0" xbr="4" ybr="4"/></track>'
        stored = read_results(self.write(tmp_path, tracks), "cvat")
        assert [len(result) for result in stored.results] == [0, 0, 1, 0, 0, 0]
        ((kind, count),) = stored.left_out.counts.items()
        assert "after the last that is told" in kind
        assert count == 3  # frames 6, 8, 10

    @pytest.mark.parametrize(("stop", "message"), [(10**12, "cannot be"), (-5, "cannot be")])
    def test_videos_that_cannot_be_are_refused(self, tmp_path, stop, message):
        head = self.HEAD.replace("<stop_frame>10<", f"<stop_frame>{stop}<")
        with pytest.raises(ExchangeError, match=message):
            read_results(self.write(tmp_path, "", head), "cvat")

    def test_frames_of_long_videos_come_one_by_one(self, tmp_path):
        tracemalloc.start()
        head = self.HEAD.replace("<stop_frame>10<", "<stop_frame>9000000<")
        results = read_results(self.write(tmp_path, "", head), "cvat").results
        assert next(results).picture == "frame_000000.png"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()

    def test_frames_before_the_first_are_refused(self, tmp_path):
        tracks = '<track id="7" label="cat"><box frame="-1" outside="1" xtl="0" ytl="0" xbr="4" ybr="4"/></track>'
        with pytest.raises(ExchangeError, match="track 7, frame -1: frames are counted from 0"):
            list(read_results(self.write(tmp_path, tracks), "cvat").results)

    def test_tracks_on_named_pictures_are_theirs(self, tmp_path):
        content = (
            '<image id="0" name="a.png" width="10" height="8"/><image id="1" name="b.png" width="10" height="8"/>'
            '<track id="0" label="cat"><box frame="1" outside="0" xtl="0" ytl="0" xbr="4" ybr="4"/>'
            '<box frame="2" outside="0" xtl="0" ytl="0" xbr="4" ybr="4"/></track>'
        )
        stored = read_results(self.write(tmp_path, content, f"<meta><task>{LABELS}</task></meta>"), "cvat")
        assert [(result.picture, len(result)) for result in stored.results] == [("a.png", 0), ("b.png", 1)]
        assert list(stored.left_out.counts.values()) == [1]

    def test_video_without_a_size_or_of_several_tasks_is_refused(self, tmp_path):
        track = '<track id="0" label="cat" task_id="{}"><box frame="1" xtl="0" ytl="0" xbr="4" ybr="4"/></track>'
        path = self.write(tmp_path, track.format(1), f"<meta><task>{LABELS}</task></meta>")
        with pytest.raises(ExchangeError, match=r"annotations\.xml.*original_size"):
            list(read_results(path, "cvat").results)
        with pytest.raises(ExchangeError, match="several tasks"):
            list(read_results(self.write(tmp_path, track.format(1) + track.format(2)), "cvat").results)


class TestHead:
    def test_labels_are_matched_as_the_file_spells_them(self, tmp_path):
        path = tmp_path / "annotations.xml"
        path.write_text(
            "<annotations><meta><task><labels><label><name> big  cat </name></label></labels></task></meta>"
            '<image id="0" name="a.png" width="5" height="5">'
            '<box label=" big  cat " xtl="0" ytl="0" xbr="2" ybr="2"/></image></annotations>'
        )
        ((segment,),) = read_results(path, "cvat").results
        assert segment.class_id == 0

    @pytest.mark.parametrize("kind", ["task", "job", "project"])
    def test_exports_of_tasks_jobs_and_projects_are_read(self, tmp_path, kind):
        path = tmp_path / "annotations.xml"
        path.write_text(f"<annotations><meta><{kind}>{LABELS}</{kind}></meta></annotations>")
        assert read_results(path, "cvat").vocabulary.names == ("cat", "dog")

    def test_points_of_skeletons_and_repeated_labels_are_no_further_classes(self, tmp_path):
        path = tmp_path / "annotations.xml"
        path.write_text(
            f"<annotations><meta><project>{LABELS}<tasks><task>{LABELS}</task></tasks></project><task><labels><label>"
            "<name>nose</name><type>points</type><parent>cat</parent></label></labels></task></meta></annotations>"
        )
        assert read_results(path, "cvat").vocabulary.names == ("cat", "dog")

    @pytest.mark.parametrize(
        "content",
        [
            "<annotations/>",
            "<annotations><meta></meta></annotations>",
            "<annotations",
            "[]",
            "<annotations><meta><task><labels><label><name/></label></labels></task></meta></annotations>",
        ],
    )
    def test_other_files_get_one_error(self, tmp_path, content):
        path = tmp_path / "annotations.xml"
        path.write_text(content)
        with pytest.raises(ExchangeError, match=r"annotations\.xml"):
            read_results(path, "cvat")


class TestMalformed:
    @pytest.mark.parametrize(
        ("shape", "message"),
        [
            ('<box xtl="0" ytl="0" xbr="1" ybr="1"/>', r"box 0: .*label None"),
            ('<box label="bird" xtl="0" ytl="0" xbr="1" ybr="1"/>', r"box 0: .*label 'bird'"),
            ('<box label="cat" ytl="0" xbr="1" ybr="1"/>', "box 0: xtl is missing"),
            ('<box label="cat" xtl="nan" ytl="0" xbr="1" ybr="1"/>', "box 0: xtl must be a finite number"),
            ('<box label="cat" xtl="0" ytl="0" xbr="1e99" ybr="1"/>', "box 0: .*1e"),
            ('<polygon label="cat" points="1,1;2"/>', "polygon 0: points must be pairs"),
            ('<polygon label="cat" points="1,1;2,2"/>', "polygon 0: .*at least three points"),
            ('<polygon label="cat" points="1,1;x,2;3,3"/>', "polygon 0: points must be a finite number, got 'x'"),
            ('<mask label="cat" rle="1" left="0" top="0" width="1" height="2"/>', "mask 0: .*sum to 1"),
            ('<mask label="cat" rle="-1, 3" left="0" top="0" width="1" height="2"/>', "mask 0: .*none negative"),
            ('<mask label="cat" rle="a" left="0" top="0" width="1" height="2"/>', "mask 0: rle"),
            ('<mask label="cat" left="0" top="0" width="1" height="2"/>', "mask 0: rle"),
            ('<mask label="cat" rle="0, 2" left="9" top="7" width="2" height="1"/>', "mask 0: .*outside"),
            ('<mask label="cat" rle="0, 2" left="-1" top="7" width="2" height="1"/>', "mask 0: .*outside"),
            ('<box label="cat" xtl="0" ytl="0" xbr="1" ybr="1" z_order="top"/>', "box 0: z_order"),
            (
                '<box label="cat" xtl="0" ytl="0" xbr="1" ybr="1"><attribute name="is_crowd">x</attribute></box>',
                "box 0: the attribute is_crowd",
            ),
        ],
    )  # fmt: skip
    def test_error_names_file_picture_and_shape(self, tmp_path, shape, message):
        with pytest.raises(ExchangeError, match=rf"annotations\.xml, picture 'a\.png', {message}"):
            list(read(tmp_path, shape).results)

    @pytest.mark.parametrize("size", [(0, 5), (5, -1), ("", 5), (10**7, 10**7), ("1.5", 4)])
    def test_sizes_that_cannot_be_are_refused(self, tmp_path, size):
        with pytest.raises(ExchangeError, match=r"annotations\.xml, picture 'a\.png'"):
            list(read(tmp_path, "", size).results)

    def test_picture_without_a_name_is_refused(self, tmp_path):
        path = tmp_path / "annotations.xml"
        path.write_text(
            f'<annotations><meta><task>{LABELS}</task></meta><image id="4" width="5" height="5"/></annotations>'
        )
        with pytest.raises(ExchangeError, match=r"image 4: the picture's file name"):
            list(read_results(path, "cvat").results)

    def test_polygons_far_away_take_no_memory(self, tmp_path):
        shape = '<polygon label="cat" points="-100000000,2;100000000,2;100000000,4;-100000000,4"/>'
        (mask,) = read_masks(tmp_path, shape)
        assert (mask == box((8, 10), 2, 4, 0, 10)).all()


def test_objects_with_parts_below_and_above_another_are_named(tmp_path):
    shapes = (
        '<box label="cat" group_id="1" xtl="0" ytl="0" xbr="4" ybr="4" z_order="0"/>'
        '<box label="dog" xtl="2" ytl="2" xbr="8" ybr="6" z_order="1"/>'
        '<box label="cat" group_id="1" xtl="7" ytl="5" xbr="9" ybr="7" z_order="2"/>'
    )
    stored = read(tmp_path, shapes)
    (result,) = stored.results
    assert [segment.area for segment in result] == [20, 24]
    ((kind, count),) = stored.left_out.counts.items()
    assert "layers" in kind
    assert count == 1


@pytest.mark.parametrize("outside", ["1", "true", "True"])
def test_shapes_outside_are_none_however_that_is_written(tmp_path, outside):
    assert read_masks(tmp_path, f'<box label="cat" xtl="0" ytl="0" xbr="4" ybr="4" outside="{outside}"/>') == []


def test_the_crowd_attribute_may_have_spaces_around(tmp_path):
    box_with = '<box label="cat" xtl="0" ytl="0" xbr="4" ybr="4"><attribute name="is_crowd"> true\n</attribute></box>'
    (result,) = read(tmp_path, box_with).results
    assert [segment.is_crowd for segment in result] == [True]


def test_more_masks_than_memory_are_refused_before_they_are_made(tmp_path):
    shapes = '<box label="cat" xtl="0" ytl="0" xbr="4" ybr="4"/>' * 102
    with pytest.raises(ExchangeError, match=r"picture 'a\.png': 102 masks of 13000×13000 pixels do not fit"):
        list(read(tmp_path, shapes, (13_000, 13_000)).results)
