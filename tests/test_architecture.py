"""Who may import whom: arrows point down only, nothing runs in a circle, and the model's room stands alone."""

import ast
from pathlib import Path

import pytest

from support.import_graph import draw, find_circle, import_graph, imported_names, modules_in, parameter_counts

PROJECT = Path(__file__).parents[1]
SOURCE = PROJECT / "src"
PACKAGE = "hf_maskadapter"
#: The rooms from the ground up. A file imports its own room and lower ones; rooms of one floor do not know each other.
FLOORS: list[set[str]] = [
    {""},  # the package itself, which loads its names on first use
    {"files", "provenance"},
    {"model"},
    {"encoded_vocabularies"},
    {"data", "exchange", "visualization", "hub"},
    {"conversion", "miniature"},
    {"loading"},
    {"evaluation"},
    {"training"},
    {"export", "serving", "app", "distributed"},
    {"cli"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
MOST_FILES_AT_THE_TOP = 5
MOST_PARAMETERS = 12
#: Functions whose parameters Transformers dictates: it calls `forward` with every input by its name.
DICTATED = {
    # Transformers calls `forward` with every input by its name, and the image processor's method with every option.
    "hf_maskadapter.model.modeling_maskadapter.MaskAdapterForOpenVocabularySegmentation.forward",
    "hf_maskadapter.model.image_processing_maskadapter.MaskAdapterImageProcessorPil._preprocess_image_like_inputs",
}


def room_of(module: str) -> str:
    return [*module.split("."), ""][1]


@pytest.fixture(scope="module")
def graph():
    return import_graph(SOURCE)


def test_no_files_import_each_other_in_a_circle(graph):
    circle = find_circle(graph)
    assert not circle, f"a circle of imports:\n{draw(graph, circle)}"


def test_no_files_of_the_laboratory_import_each_other_in_a_circle():
    laboratory = import_graph(PROJECT / "lab", PROJECT)
    assert "lab.commands" in laboratory["lab.__main__"]  # names are read as what they are
    circle = find_circle(laboratory)
    assert not circle, f"a circle of imports:\n{draw(laboratory, circle)}"


def test_every_room_has_a_floor(graph):
    assert {room_of(module) for module in graph} <= set(FLOOR_OF)


def test_no_arrow_points_from_a_lower_room_to_a_higher_one_or_to_one_beside_it(graph):
    wrong = [
        draw(graph, [source, target])
        for source in graph
        for target in graph[source]
        if room_of(source) != room_of(target) and FLOOR_OF[room_of(source)] <= FLOOR_OF[room_of(target)]
    ]
    assert not wrong, "arrows that do not point down:\n" + "\n".join(wrong)


def test_the_model_imports_nothing_of_the_package_outside_its_folder(graph):
    outside = [
        draw(graph, [source, target])
        for source in graph
        for target in graph[source]
        if room_of(source) == "model" != room_of(target)
    ]
    assert not outside, "imports out of the model's room:\n" + "\n".join(outside)


def test_the_package_does_not_import_the_laboratory():
    wrong = [
        f"{module}, line {line}"
        for module, path in modules_in(SOURCE).items()
        for name, line in imported_names(ast.parse(path.read_text()), module)
        if name.partition(".")[0] == "lab"
    ]
    assert not wrong


def test_the_top_of_the_package_holds_few_files():
    files = sorted(path.name for path in (SOURCE / PACKAGE).iterdir() if path.is_file())
    assert len(files) <= MOST_FILES_AT_THE_TOP, files


def test_no_function_takes_too_many_parameters():
    counts = [
        *parameter_counts(modules_in(SOURCE).values(), SOURCE),
        *parameter_counts(modules_in(PROJECT / "lab", PROJECT).values(), PROJECT),
    ]
    too_many = {count.function: count.number for count in counts if count.number > MOST_PARAMETERS}
    assert {name: number for name, number in too_many.items() if name not in DICTATED} == {}
    assert set(too_many) >= DICTATED


@pytest.fixture
def little_package(tmp_path):
    folder = tmp_path / "house"
    (folder / "room").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "room" / "__init__.py").write_text("from ..cellar import wine\n")
    (folder / "room" / "table.py").write_text(
        "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from .chair import Chair\n"
    )
    (folder / "room" / "chair.py").write_text("def sit():\n    from . import table\n    import house.cellar.wine\n")
    (folder / "cellar.py").write_text(
        "def wine(a, /, b, *c, d, **e): ...\n\n\nclass Cask:\n    def tap(self, a): ...\n"
    )
    return tmp_path


def test_the_graph_sees_relative_absolute_local_and_type_checking_imports(little_package):
    assert import_graph(little_package) == {
        "house": {},
        "house.cellar": {},
        "house.room": {"house.cellar": 1},
        "house.room.chair": {"house.room.table": 2, "house.cellar": 3},
        "house.room.table": {"house.room.chair": 4},
    }


def test_a_circle_is_found_and_drawn(little_package):
    graph = import_graph(little_package)
    circle = find_circle(graph)
    assert circle == ["house.room.chair", "house.room.table", "house.room.chair"]
    assert draw(graph, circle) == (
        "house.room.chair\n"
        "  -> house.room.table  (house.room.chair, line 2)\n"
        "  -> house.room.chair  (house.room.table, line 4)"
    )
    assert find_circle({"a": {"b": 1, "c": 2}, "b": {"c": 1}, "c": {}}) == []


def test_parameters_are_counted_without_the_instance(little_package):
    counts = parameter_counts([little_package / "house" / "cellar.py"], little_package)
    assert list(counts) == [("house.cellar.wine", 5), ("house.cellar.Cask.tap", 1)]
