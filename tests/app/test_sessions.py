"""What an app keeps of its open pages."""

import pytest
from PIL import Image

from hf_maskadapter.app.sessions import Sessions, ShownResult


@pytest.fixture
def result():
    return ShownResult(Image.new("RGB", (1, 1)), (), "adapter")


def test_the_result_that_was_used_longest_ago_is_forgotten_first(result):
    sessions = Sessions(limit=2)
    sessions.keep("a", result)
    sessions.keep("b", result)
    sessions.result("a")
    sessions.keep("c", result)
    assert sessions.result("a") is result
    with pytest.raises(ValueError, match="kept no more, since others came after it: segment the picture again"):
        sessions.result("b")


def test_nothing_is_kept_of_a_page_that_was_closed(result):
    sessions = Sessions(limit=2)
    sessions.keep("a", result)
    sessions.forget("a")
    with pytest.raises(ValueError, match="kept no more"):
        sessions.result("a")


@pytest.fixture
def upload(tmp_path):
    def make(name):
        file = tmp_path / name / "picture.png"
        file.parent.mkdir()
        file.write_bytes(b"picture")
        return file

    return make


def test_an_upload_goes_with_its_folder_when_another_picture_takes_its_place(upload):
    sessions, first, second = Sessions(limit=2), upload("first"), upload("second")
    sessions.uploaded("a", first)
    sessions.uploaded("a", first)
    sessions.uploaded("a", second)
    assert not first.parent.exists()
    assert second.exists()
    sessions.uploaded("a", None)
    assert not second.parent.exists()


def test_a_file_that_two_pages_uploaded_goes_with_the_last_of_them(upload):
    sessions, file = Sessions(limit=2), upload("first")
    sessions.uploaded("a", file)
    sessions.uploaded("b", file)
    sessions.forget("a")
    assert file.exists()
    sessions.forget("b")
    assert not file.exists()


def test_a_file_that_is_gone_already_is_no_fault(upload):
    sessions, file = Sessions(limit=2), upload("first")
    sessions.uploaded("a", file)
    file.unlink()
    sessions.forget("a")
    assert sessions._uploads == {}
