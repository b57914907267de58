import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_maskadapter.model import vocabulary as vocabulary_module
from hf_maskadapter.model.vocabulary import PROMPT_TEMPLATES, Vocabulary, VocabularyClass, label_sets, load_label_set

FIXTURES = os.environ.get("MASKADAPTER_FIXTURES")
SHARED = os.environ.get("MASKADAPTER_SHARED")
needs_fixtures = pytest.mark.skipif(not FIXTURES, reason="MASKADAPTER_FIXTURES does not name the golden folders")
needs_shared = pytest.mark.skipif(not SHARED, reason="MASKADAPTER_SHARED does not name the folder with data/")

NUM_CLASSES = {
    "ade20k_150": 150,
    "ade20k_847": 847,
    "cityscapes_19": 19,
    "coco_panoptic_133": 133,
    "coco_stuff_171": 171,
    "pascal_context_459": 459,
    "pascal_context_59": 59,
    "pascal_voc_20": 20,
    "pascal_voc_21": 21,
}
SYNONYM_FILE_OF = {
    "ade20k_150": "ade20k_150",
    "ade20k_847": "ade20k_847",
    "cityscapes_19": "cityscapes",
    "coco_panoptic_133": "coco_panoptic",
    "coco_stuff_171": "coco_stuff",
    "pascal_context_459": "pascal_ctx_459",
    "pascal_context_59": "pascal_ctx_59",
    "pascal_voc_20": "pascal_voc_21",
    "pascal_voc_21": "pascal_voc_21",
}
LVIS_CLASSES, MAPILLARY_CLASSES = 1203, 65


def golden_metas():
    return sorted(Path(FIXTURES).glob("*/meta.json")) if FIXTURES else []


def vocabulary_file(name):
    return Path(SHARED, "data", "vocabularies", f"{name}_with_prompt_eng.txt")


def write(folder, text, name="names.txt"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# Building from lists


def test_a_string_in_a_list_holds_the_synonyms_of_one_class():
    vocabulary = Vocabulary.from_list(["cat, kitten", "automobile,sedan", "traffic light"])
    assert vocabulary.names == ("cat", "automobile", "traffic light")
    assert vocabulary.synonyms == (("cat", "kitten"), ("automobile", "sedan"), ("traffic light",))
    assert vocabulary.num_classes == len(vocabulary) == 3


def test_a_list_of_synonyms_is_taken_as_it_is():
    vocabulary = Vocabulary.from_list([["Washington, D.C.", "the capital"]])
    assert vocabulary.synonyms == (("Washington, D.C.", "the capital"),)


def test_superfluous_spaces_are_dropped():
    assert Vocabulary.from_list(["  traffic   light ,\tlamp "]).synonyms == (("traffic light", "lamp"),)


def test_records_and_classes_may_stand_in_a_list():
    vocabulary = Vocabulary.from_list(
        [VocabularyClass("cat", is_thing=True), {"name": "sky", "synonyms": ["clouds"], "thing": False}, "dog"]
    )
    assert vocabulary.names == ("cat", "sky", "dog")
    assert vocabulary.synonyms[1] == ("clouds",)
    assert [entry.is_thing for entry in vocabulary] == [True, False, None]


def test_coco_categories_are_read():
    category = {"supercategory": "person", "color": [220, 20, 60], "isthing": 1, "id": 7, "name": "person"}
    assert Vocabulary.from_list([category]).classes == (VocabularyClass("person", is_thing=True, dataset_id=7),)


@pytest.mark.parametrize("names", [[""], ["  "], ["cat,,dog"], ["cat,"], [[""]], [["cat", " "]], [[]]])
def test_an_empty_name_is_refused(names):
    with pytest.raises(ValueError, match=r"class 1: .* empty"):
        Vocabulary.from_list(names)


@pytest.mark.parametrize(
    "build", [lambda: Vocabulary.from_list([]), lambda: Vocabulary.from_dict({}), lambda: Vocabulary(())]
)
def test_an_empty_vocabulary_is_refused(build):
    with pytest.raises(ValueError, match="vocabulary is empty"):
        build()


@pytest.mark.parametrize("name", ["\ud800", "caf\udce9"])  # of JSON; of a command line in another encoding
def test_names_that_no_tokenizer_reads_are_refused(name):
    for build in (lambda: Vocabulary.parse(f"dog, {name}"), lambda: VocabularyClass("dog", ("puppy", name))):
        with pytest.raises(ValueError, match="is no text, since it holds half a character or a stray byte"):
            build()


@pytest.mark.parametrize(
    "names",
    [["cat", "dog", "cat"], ["cat, kitten", "dog", "kitten,cat"], ["cat", "dog", "Cat"], ["cat", "dog", "cat,cat"]],
)
def test_a_class_given_twice_is_refused(names):
    with pytest.raises(ValueError, match=r"class 3: the class .* is given twice, first in class 1"):
        Vocabulary.from_list(names)


def test_classes_constructed_directly_must_be_distinct():
    with pytest.raises(ValueError, match="'cat' is given twice"):
        Vocabulary((VocabularyClass("cat", ("tom",)), VocabularyClass("cat", ("kitty",))))


def test_a_synonym_may_be_shared_by_classes_and_repeated_in_one():
    vocabulary = Vocabulary.from_list(["stove, oven, stove", "oven, cooker", "bag", "bag, handbag"])
    assert vocabulary.synonyms[0] == ("stove", "oven", "stove")
    assert vocabulary.names == ("stove", "oven", "bag", "bag (handbag)")


def test_names_of_classes_with_the_same_synonym_in_front_are_told_apart():
    names = Vocabulary.from_list(["bag, sack", "bag, sack, handbag", "bag, purse, sack"]).names
    assert names == ("bag (sack)", "bag (handbag)", "bag (purse)")


@pytest.mark.parametrize("classes", ["cat", {"cat", "dog"}, 3])
def test_from_list_refuses_what_has_no_order_or_is_no_list(classes):
    with pytest.raises(TypeError, match="must come in a list"):
        Vocabulary.from_list(classes)


def test_an_entry_of_the_wrong_type_is_named():
    with pytest.raises(TypeError, match=r"class 2 .*got int: 7"):
        Vocabulary.from_list(["cat", 7])


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"name": "cat", "synonym": ["kitten"]}, "unknown keys .'synonym'"),
        ({"synonyms": ["cat"]}, "no 'name'"),
        ({"name": "cat", "thing": "yes"}, "'thing' must be true or false"),
        ({"name": "cat", "dataset_id": "7"}, "'dataset_id' must be a whole number"),
    ],
)
def test_a_wrong_record_is_refused(record, message):
    with pytest.raises(ValueError, match=f"class 1: {message}"):
        Vocabulary.from_list([record])


# Things


def test_thing_flags_are_unknown_unless_given():
    vocabulary = Vocabulary.from_list(["cat", "sky"])
    assert [entry.is_thing for entry in vocabulary] == [None, None]
    assert vocabulary.thing_ids == (0, 1)
    assert vocabulary.stuff_ids == ()


@pytest.mark.parametrize("things", [[True, False, True], {"cat", "sedan"}])
def test_things_are_given_by_flags_or_names(things):
    vocabulary = Vocabulary.from_list(["cat", "sky", "car, sedan"], things=things)
    assert vocabulary.thing_ids == (0, 2)
    assert vocabulary.stuff_ids == (1,)


def test_no_thing_makes_every_class_stuff():
    assert Vocabulary.from_list(["sky", "sea"], things=[]).stuff_ids == (0, 1)


@pytest.mark.parametrize(
    ("things", "error", "message"),
    [
        ([True], ValueError, "1 flags, but the vocabulary has 2 classes"),
        (["dog"], ValueError, "does not have: .'dog'"),
        ("cat", TypeError, "collection of names"),
    ],
)
def test_things_that_do_not_fit_are_refused(things, error, message):
    with pytest.raises(error, match=message):
        Vocabulary.from_list(["cat", "sky"], things=things)


# Building from dicts


def test_dict_of_synonyms_puts_the_name_first_unless_listed():
    vocabulary = Vocabulary.from_dict({"cat": ["kitten"], "car": "sedan, car", "dog": None, "sky": []})
    assert vocabulary.synonyms == (("cat", "kitten"), ("sedan", "car"), ("dog",), ("sky",))
    assert vocabulary.names == ("cat", "car", "dog", "sky")


def test_dict_of_dicts_holds_thing_flags_and_ids():
    vocabulary = Vocabulary.from_dict({"cat": {"synonyms": ["kitten"], "thing": True, "dataset_id": 17}, "sky": {}})
    assert vocabulary.classes == (VocabularyClass("cat", ("cat", "kitten"), True, 17), VocabularyClass("sky"))


@pytest.mark.parametrize(
    "classes",
    [{"id2label": {"1": "sky", "0": "wall, walls"}}, {1: "sky", 0: "wall, walls"}, {"1": "sky", "0": "wall, walls"}],
)
def test_id2label_is_read_in_the_order_of_its_ids(classes):
    vocabulary = Vocabulary.from_dict(classes)
    assert vocabulary.synonyms == (("wall", "walls"), ("sky",))
    assert vocabulary.dataset_ids == (0, 1)


def test_a_misspelt_key_of_a_class_is_refused():
    with pytest.raises(ValueError, match=r"class 'cat': unknown keys .'is_thing'"):
        Vocabulary.from_dict({"cat": {"is_thing": True}})


def test_to_dict_and_back_through_json_gives_an_equal_vocabulary():
    vocabulary = Vocabulary.from_list(
        ["bag", "bag, handbag", {"name": "wall-other", "synonyms": ["wall"], "thing": False}]
    )
    assert Vocabulary.from_dict(json.loads(json.dumps(vocabulary.to_dict()))) == vocabulary


name_strategy = st.text(st.characters(exclude_categories=("Cs", "Cc", "Z")), min_size=1, max_size=8)


@given(
    st.lists(
        st.tuples(name_strategy, st.lists(name_strategy, max_size=3), st.sampled_from([None, False, True])),
        min_size=1,
        max_size=6,
        unique_by=lambda entry: entry[0].casefold(),
    )
)
def test_to_dict_and_back_gives_any_vocabulary_again(entries):
    classes = [
        VocabularyClass(name, (name, *(f"{name} {other}" for other in others)), thing)
        for name, others, thing in entries
    ]
    vocabulary = Vocabulary(tuple(classes))
    assert Vocabulary.from_dict(json.loads(json.dumps(vocabulary.to_dict()))) == vocabulary


# Reading files


def test_file_with_one_class_a_line(tmp_path):
    path = write(tmp_path, b"\xef\xbb\xbfcat, kitten\r\n\r\ndog\r\n")
    assert Vocabulary.from_file(path).synonyms == (("cat", "kitten"), ("dog",))


def test_file_with_ids_keeps_them_and_skips_placeholders(tmp_path):
    path = write(tmp_path, "0:invalid_class_id\n1:wall,walls\n7: sky, clouds\n")
    vocabulary = Vocabulary.from_file(path, things=[False, False])
    assert vocabulary.synonyms == (("wall", "walls"), ("sky", "clouds"))
    assert vocabulary.dataset_ids == (1, 7)
    assert vocabulary.stuff_ids == (0, 1)


@pytest.mark.parametrize(
    "content", ['["cat, kitten", ["dog"]]', '{"cat": ["kitten"], "dog": null}', '{"classes": ["cat, kitten", "dog"]}']
)
def test_json_file_with_a_list_or_dict(tmp_path, content):
    assert Vocabulary.from_file(write(tmp_path, content, "names.json")).synonyms == (("cat", "kitten"), ("dog",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"cat\ndog\nna\xefve\n", "line 3: not UTF-8"),
        ("cat\ndog,,puppy\n", "line 2: a name in 'dog,,puppy' is empty"),
        ("1:cat\n2:\n", "line 2: the class name is empty"),
        ("1:cat\n2:dog\n1:bird\n", "line 3: the id 1 is given twice, first in line 1"),
        ("1:cat\ndog\n", "line 2: expected 'id:name,name' as in line 1, got 'dog'"),
        ("\n1:cat\n-2:dog\n", "line 3: expected 'id:name,name' as in line 2, got '-2:dog'"),
        ("cat\n2:dog\n", "line 2: expected names without an id as in line 1"),
        ("cat\ndog\n\nCat\n", "line 4: the class 'Cat' is given twice, first in .*names.txt, line 1"),
        ("\n", "the vocabulary is empty"),
        ("0:invalid_class_id\n", "the vocabulary is empty"),
    ],
)
def test_a_wrong_file_gets_one_error_with_file_and_line(tmp_path, content, message):
    with pytest.raises(ValueError, match=f"names.txt(, |: ){message}"):
        Vocabulary.from_file(write(tmp_path, content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('["cat",\n"dog"', "names.json, line 2: not valid JSON"),
        ('{"cat": [], "cat": []}', "names.json: 'cat' is given twice"),
        ('"cat"', "names.json: expected a list or a dict"),
        ('["cat", 3]', "names.json: class 2"),
        ("[]", "names.json: The vocabulary is empty"),
    ],
)
def test_a_wrong_json_file_gets_one_error_with_its_name(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        Vocabulary.from_file(write(tmp_path, content, "names.json"))


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no vocabulary file .*nowhere\.txt"):
        Vocabulary.from_file(tmp_path / "nowhere.txt")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        Vocabulary.from_file(tmp_path)


# parse


def test_parse_reads_every_form(tmp_path, monkeypatch):
    expected = (("cat",), ("dog",))
    path = write(tmp_path, "cat\ndog\n")
    vocabulary = Vocabulary.parse(["cat", "dog"])
    assert Vocabulary.parse(vocabulary) is vocabulary
    monkeypatch.chdir(tmp_path)
    for value in (
        "cat, dog",
        ("cat", "dog"),
        (name for name in ("cat", "dog")),
        {"cat": None, "dog": None},
        path,
        str(path),
        "names.txt",
    ):
        assert Vocabulary.parse(value).synonyms == expected
    assert Vocabulary.parse("cityscapes_19") == Vocabulary.from_label_set("cityscapes_19")


def test_parse_takes_a_misspelt_path_for_a_path():
    with pytest.raises(FileNotFoundError):
        Vocabulary.parse("nowhere.txt")


def test_parse_refuses_an_empty_string():
    with pytest.raises(ValueError, match="vocabulary is empty"):
        Vocabulary.parse("  ")


# Prompts and seen classes


def test_prompts_come_in_the_order_class_synonym_template():
    prompts, class_ids = Vocabulary.from_list(["cat, kitten", "dog"]).prompts(["a {}.", "the {}"])
    assert prompts == ["a cat.", "the cat", "a kitten.", "the kitten", "a dog.", "the dog"]
    assert class_ids == [0, 0, 1]


def test_braces_in_a_name_are_text():
    assert Vocabulary.from_list([["{} {0} {name}"]]).prompts(["a {}."])[0] == ["a {} {0} {name}."]


@pytest.mark.parametrize("templates", [[], ["a photo."], ["{} and {}"], "a {}.", [3]])
def test_templates_need_one_place_for_the_name(templates):
    with pytest.raises(ValueError, match=r"[Tt]emplate"):
        Vocabulary.from_list(["cat"]).prompts(templates)


def test_seen_compares_every_synonym_exactly():
    vocabulary = Vocabulary.from_list(["sky, clouds", "Dog", "zebra", "puppy, dog"])
    for training in (["sky", "dog, hound"], [["sky"], ["dog", "hound"]], Vocabulary.from_list(["sky", "dog"])):
        assert vocabulary.seen(training) == [True, False, False, True]
    assert vocabulary.seen(None) == vocabulary.seen([]) == [False] * 4


def test_the_templates_are_the_published_ones():
    sizes = ("small", "medium", "large")
    expected = (
        "a photo of a {}.",
        "This is a photo of a {}",
        "There is a {} in the scene",
        "There is the {} in the scene",
        "a photo of a {} in the scene",
        *(f"a photo of a {size} {{}}." for size in sizes),
        *(f"This is a photo of a {size} {{}}." for size in sizes),
        *(f"There is a {size} {{}} in the scene." for size in sizes),
    )
    assert expected == PROMPT_TEMPLATES


@needs_fixtures
def test_golden_templates_prompts_and_seen_classes():
    metas = [json.loads(path.read_text()) for path in golden_metas()]
    assert metas
    for meta in metas:
        assert list(PROMPT_TEMPLATES) == meta["prompt_templates"]
        vocabulary = Vocabulary.from_list(meta.get("test_classes") or meta["classes"])
        prompts, class_ids = vocabulary.prompts(meta["prompt_templates"])
        assert prompts == (meta.get("test_prompts") or meta["prompts"])
        if "test_num_synonyms" in meta:
            assert [class_ids.count(index) for index in range(len(vocabulary))] == meta["test_num_synonyms"]
        if "train_classes" in meta and meta["arch"] != "mask_adapter":  # the warm-up model compares test with test
            assert vocabulary.seen(meta["train_classes"]) == list(map(bool, meta["category_overlapping_mask"]))


# Label sets


def test_label_sets_are_the_data_files_of_the_package():
    folder = Path(vocabulary_module.__file__).parents[1] / "label_sets"
    assert sorted(label_sets()) == sorted(path.stem for path in folder.iterdir() if path.suffix == ".json")
    assert set(label_sets()) == set(NUM_CLASSES)


@pytest.mark.parametrize("name", label_sets())
def test_label_set_loads(name):
    vocabulary = Vocabulary.from_label_set(name)
    assert len(vocabulary) == NUM_CLASSES[name]
    assert len(set(vocabulary.dataset_ids)) == len(vocabulary)
    assert None not in vocabulary.dataset_ids
    assert len(set(vocabulary.names)) == len(vocabulary)
    assert load_label_set(name)["note"]


def test_coco_panoptic_has_80_things_and_53_stuff_classes():
    vocabulary = Vocabulary.from_label_set("coco_panoptic_133")
    assert vocabulary.thing_ids == tuple(range(80))
    assert vocabulary.stuff_ids == tuple(range(80, 133))


def test_voc_20_is_voc_21_without_background():
    with_background = Vocabulary.from_label_set("pascal_voc_21")
    assert with_background.names[0] == "background"
    assert Vocabulary.from_label_set("pascal_voc_20").classes == with_background.classes[1:]


@pytest.mark.parametrize("name", ["ade20k-150", "ADE20K_150", "ade_150"])
def test_an_unknown_label_set_gets_the_known_ones(name):
    with pytest.raises(ValueError, match=rf"no label set '{name}'\. Did you mean 'ade20k_150'.*coco_stuff_171"):
        Vocabulary.from_label_set(name)


@needs_shared
@pytest.mark.parametrize("name", label_sets())
def test_label_set_holds_the_published_facts(name):
    source = "pascal_voc_21" if name == "pascal_voc_20" else name
    rows = json.loads(Path(SHARED, "data", "label_sets", f"{source}.json").read_text())["classes"]
    rows = rows[1:] if name == "pascal_voc_20" else rows
    vocabulary = Vocabulary.from_label_set(name)
    assert vocabulary.synonyms == Vocabulary.from_list([row["name"] for row in rows]).synonyms
    assert list(vocabulary.dataset_ids) == [row["dataset_id"] for row in rows]
    unknown = False if name == "coco_stuff_171" else None  # its things alone are flagged
    assert [entry.is_thing for entry in vocabulary] == [row.get("thing", unknown) for row in rows]


@needs_shared
@pytest.mark.parametrize("name", label_sets())
def test_label_set_with_prompt_engineered_synonyms(name):
    path = vocabulary_file(SYNONYM_FILE_OF[name])
    plain, combined = Vocabulary.from_label_set(name), Vocabulary.from_label_set(name, synonyms_file=path)
    synonyms = Vocabulary.from_file(path).synonyms
    assert combined.synonyms == (synonyms[1:] if name == "pascal_voc_20" else synonyms)
    assert combined.names == plain.names
    assert [(entry.is_thing, entry.dataset_id) for entry in combined] == [
        (entry.is_thing, entry.dataset_id) for entry in plain
    ]


@needs_shared
def test_every_official_list_loads():
    paths = sorted(Path(SHARED, "data", "vocabularies").glob("*.txt"))
    counts = {path.name: len(Vocabulary.from_file(path)) for path in paths}
    expected = {vocabulary_file(file).name: NUM_CLASSES[name] for name, file in SYNONYM_FILE_OF.items()}
    expected[vocabulary_file("pascal_voc_21").name] = NUM_CLASSES["pascal_voc_21"]
    expected |= {
        vocabulary_file("lvis_1203").name: LVIS_CLASSES,
        vocabulary_file("mapillary_vistas").name: MAPILLARY_CLASSES,
    }
    assert counts == expected


def test_a_synonyms_file_for_another_label_set_is_refused(tmp_path):
    path = write(tmp_path, "road\nsidewalk\n")
    with pytest.raises(ValueError, match=r"names\.txt lists 2 classes, but the label set 'cityscapes_19' has 19"):
        Vocabulary.from_label_set("cityscapes_19", synonyms_file=path)


def test_background_is_left_out_of_a_voc_21_list_only_if_it_is_there(tmp_path):
    names = list(Vocabulary.from_label_set("pascal_voc_21").names)
    path = write(tmp_path, "\n".join(names))
    assert Vocabulary.from_label_set("pascal_voc_20", synonyms_file=path).names == tuple(names[1:])
    path = write(tmp_path, "\n".join([*names[1:], "zebra"]))
    with pytest.raises(ValueError, match="lists 21 classes"):
        Vocabulary.from_label_set("pascal_voc_20", synonyms_file=path)


def test_alone_the_file_works_without_the_package_except_for_label_sets(tmp_path):
    copy = tmp_path / "copied_vocabulary.py"
    copy.write_bytes(Path(vocabulary_module.__file__).read_bytes())
    program = (
        "import sys, copied_vocabulary as v\n"
        "assert v.Vocabulary.parse(['cat']).names == ('cat',)\n"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)\n"
        "try:\n    v.Vocabulary.from_label_set('ade20k_150')\n"
        "except ImportError as error:\n    print(error)\n"
    )
    run = subprocess.run(
        [
            sys.executable,
            "-I",
            "-c",
            f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nsys.modules['hf_maskadapter'] = None\n{program}",
        ],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert "hf_maskadapter, which is not installed here" in run.stdout


def test_a_vocabulary_is_hashable_and_shows_briefly():
    vocabulary = Vocabulary.from_label_set("ade20k_847")
    assert hash(vocabulary) == hash(Vocabulary.from_label_set("ade20k_847"))
    assert repr(vocabulary) == "Vocabulary(847 classes: wall, building, sky, tree, road, ...)"


def test_a_vocabulary_of_another_copy_of_the_code_is_read():
    copy = types.ModuleType("copy_of_vocabulary")
    sys.modules[copy.__name__] = copy
    try:
        exec(compile(Path(vocabulary_module.__file__).read_text(), "copy", "exec"), copy.__dict__)
        other = copy.Vocabulary.from_list(["cat, kitten", "sky"], things=["cat"])
    finally:
        del sys.modules[copy.__name__]
    assert Vocabulary.parse(other) == Vocabulary.from_list(["cat, kitten", "sky"], things=["cat"])
