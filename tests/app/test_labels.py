"""Labels as people type them."""

import pytest

from hf_maskadapter.app.labels import describe_labels, labels_text, read_labels
from hf_maskadapter.model.vocabulary import Vocabulary


def test_lines_are_classes_and_commas_separate_synonyms():
    vocabulary = read_labels("cat, kitten\n\n  sofa \nwall,\n")
    assert vocabulary.synonyms == (("cat", "kitten"), ("sofa",), ("wall",))


def test_in_a_single_line_commas_separate_classes_as_in_the_command():
    assert read_labels("cat, kitten,, sofa").synonyms == (("cat",), ("kitten",), ("sofa",))


def test_a_label_set_wins_over_what_was_typed():
    assert read_labels("cat", "cityscapes_19") == Vocabulary.from_label_set("cityscapes_19")


def test_things_make_all_others_stuff_and_none_says_nothing():
    assert [entry.is_thing for entry in read_labels("cat, sky, dog", things="cat\ndog,")] == [True, False, True]
    assert [entry.is_thing for entry in read_labels("cat, sky")] == [None, None]


@pytest.mark.parametrize("text", ["", "  \n , \n"])
def test_without_labels_it_is_said_how_they_are_written(text):
    with pytest.raises(ValueError, match="Say what to look for: one label a line"):
        read_labels(text)


def test_too_many_names_are_refused_synonyms_included():
    assert len(read_labels("a, b\nc", max_names=3)) == 2
    with pytest.raises(ValueError, match="There are 4 names, and at most 3 are taken"):
        read_labels("a, b\nc, d", max_names=3)


def test_mistakes_are_the_vocabularys():
    with pytest.raises(ValueError, match="'cat' is given twice"):
        read_labels("cat\ndog\ncat")
    with pytest.raises(ValueError, match=r"the vocabulary does not have: \['cow'\]"):
        read_labels("cat\ndog", things="cow")


def test_people_are_told_how_labels_were_understood():
    assert describe_labels(read_labels("cat, kitten\nsofa")) == "2 labels: cat (or kitten), sofa"
    assert describe_labels(read_labels("cat")) == "1 label: cat"
    assert describe_labels(read_labels("a,b,c,d"), shown=2) == "4 labels: a, b and 2 more"


def test_labels_as_text_are_read_to_the_same_vocabulary():
    vocabulary = Vocabulary.from_list([["cat", "kitten"], ["sky"]], things=[True, False])
    text, things = labels_text(vocabulary)
    assert (text, things) == ("cat, kitten\nsky", "cat")
    assert read_labels(text, things=things) == vocabulary
    with pytest.raises(ValueError, match="cannot be told from several classes"):
        labels_text(Vocabulary.from_list([["cat", "kitten"]]))
