import pytest

from support.extras import needs_extra

needs_extra("serve,test-all", "fastapi", "uvicorn", "prometheus_client", "python_multipart", "httpx")

from hf_maskadapter import Vocabulary  # noqa: E402
from hf_maskadapter.serving.errors import RequestError  # noqa: E402
from hf_maskadapter.serving.vocabularies import VocabularyStore  # noqa: E402


def test_labels_are_read_in_every_form():
    store = VocabularyStore(8, 100)
    expected = Vocabulary.from_list([["cat", "kitten"], ["sofa"]])
    assert store.get(["cat, kitten", "sofa"]) == expected
    assert store.get([["cat", "kitten"], "sofa"]) == expected
    assert store.get("cat, sofa") == Vocabulary.from_list([["cat"], ["sofa"]])
    assert store.get("cityscapes_19") == Vocabulary.from_label_set("cityscapes_19")
    assert store.get("cat, sofa", ["cat"]).stuff_ids == (1,)
    assert store.get("cat, sofa").stuff_ids == ()


def test_the_same_labels_give_the_same_object_and_the_last_used_ones_are_kept():
    store = VocabularyStore(2, 100)
    cat, dog = store.get("cat"), store.get("dog")
    assert store.get("cat") is cat
    store.get("cow")  # in place of the dog, which was used longest ago
    assert len(store) == 2
    assert store.get("cat") is cat
    assert store.get("dog") is not dog


@pytest.mark.parametrize(
    ("labels", "things", "sentence"),
    [
        ("", None, "empty"),
        ([], None, "empty"),
        (["cat", "Cat"], None, "given twice"),
        (["cat", ""], None, "empty"),
        ("a, b, c, d", None, "more than 3 names"),
        (["a, b", ["c", "d"]], None, "more than 3 names"),
        (["x" * 501], None, "longer than 500 characters"),
        ("cat", ["dog"], "does not have"),
        ("cat", ["cat"] * 4, "more than 3 names"),
    ],
)
def test_labels_that_cannot_be_used_are_refused(labels, things, sentence):
    with pytest.raises(RequestError, match=sentence) as refused:
        VocabularyStore(2, 3).get(labels, things)
    assert refused.value.status == 422


def test_a_path_is_a_name_and_no_file_is_read(tmp_path):
    file = tmp_path / "names.txt"
    file.write_text("secret")
    assert VocabularyStore(2, 3).get(str(file)).names == (str(file),)
    assert VocabularyStore(2, 3).get([str(file)]).names == (str(file),)


def test_a_vocabulary_is_encoded_once_for_all_requests_and_as_many_are_kept_as_the_option_says(segmenter, monkeypatch):
    from hf_maskadapter.serving.limits import QueueOptions, ServiceLimits
    from hf_maskadapter.serving.service import Service
    from support.service import as_file, running, scene

    encoded = []
    encode = type(segmenter.model).encode_vocabulary

    def counted(self, vocabulary, *arguments, **options):
        encoded.append(vocabulary.names)
        return encode(self, vocabulary, *arguments, **options)

    monkeypatch.setattr(type(segmenter.model), "encode_vocabulary", counted)
    monkeypatch.setattr(segmenter, "max_cached_vocabularies", 16)
    segmenter._encoded.clear()
    service = Service(segmenter, limits=ServiceLimits(queue=QueueOptions(vocabularies=2)))
    file = as_file(scene(96, 16))
    with running(service) as client:
        for labels in ("red", "blue", "red", ["red"], "green", "red", "blue"):  # green takes the place of blue
            answer = client.post("/v1/segment", files={"image": file}, data={"labels": labels})
            assert answer.status_code == 200
        assert "\nmaskadapter_vocabularies 2.0\n" in client.get("/metrics").text
    assert encoded == [("red",), ("blue",), ("green",), ("blue",)]
