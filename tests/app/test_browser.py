"""The app as a person uses it: the command, and a real browser that clicks through the page."""

import json
import signal
import time

import numpy as np
import pytest
from PIL import Image

from support.extras import needs_extra, needs_program

needs_extra("app", "gradio", "selenium", "httpx")
needs_program("chromium", "on Debian: apt-get install chromium")
needs_program("chromedriver", "on Debian: apt-get install chromium-driver")

from lab.documentation.app_process import running_app  # noqa: E402
from lab.documentation.browser import browser  # noqa: E402


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """The app; when the tests are done it is told to end, and must have left nothing."""
    folder = tmp_path_factory.mktemp("temporary")
    with running_app(folder, "--max-megapixels", "1") as running:
        yield running
        running.process.send_signal(signal.SIGTERM)
        out, errors = running.process.communicate(timeout=60)
        assert running.process.returncode == 143
        assert out == ""
        assert errors.splitlines() == [
            f"The app is at {running.address} (Ctrl-C ends it).",
            "maskadapter app: terminated",
        ]
        assert list(folder.glob("*maskadapter*")) == []


@pytest.fixture
def picture(scene, tmp_path):
    scene.picture.save(tmp_path / "scene.png")
    return tmp_path / "scene.png"


@pytest.fixture(params=["desk", "phone"])
def page(request, app, tmp_path):
    """The page, on a desk's screen and on a phone's; it must ask nothing of other machines, and not complain."""
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    size = (1280, 900) if request.param == "desk" else (390, 844)
    with browser(*size, downloads, is_phone=request.param == "phone") as opened:
        opened.driver.get(app.address)
        opened.one(".ma-scene")
        yield opened
        elsewhere = {url for url in opened.requested() if not url.startswith((app.address, "data:", "blob:"))}
        assert elsewhere == set()
        assert opened.complaints() == []
        assert not opened.overflows()


def choose_picture(page, file):
    page.driver.find_element("css selector", "#ma-picture-input input[type=file]").send_keys(str(file))
    page.one("#ma-picture-input img")


def type_labels(page, text):
    labels = page.one("#ma-labels textarea")
    labels.clear()
    labels.send_keys(text)


def is_in_sight(page, selector):
    box = page.driver.execute_script("return arguments[0].getBoundingClientRect().toJSON()", page.one(selector))
    return box["top"] > -1 and box["bottom"] < page.driver.execute_script("return window.innerHeight") + 1


def legend(page):
    return [button.text.splitlines()[0] for button in page.all(".ma-legend button")]


def test_a_person_uploads_labels_chooses_compares_and_downloads(page, picture, scene):
    choose_picture(page, picture)
    type_labels(page, scene.labels)
    page.click("#ma-segment")
    page.one(".ma-legend button")
    assert "8 segments; 21 labels: plain cyan triangle, " in page.text("#ma-told")
    assert {"plain cyan triangle", "sand", "water"} <= set(legend(page))

    # Pointing at the picture tells the name, clicking there why: here is the large triangle.
    if not page.is_phone:
        page.points_at(".ma-picture", 0.86, 0.25)
        assert page.text(".ma-tip").startswith("plain cyan triangle: ")
    page.points_at(".ma-picture", 0.86, 0.25, click=True)
    page.wait(lambda: page.all("#ma-explanation table"))
    assert page.text("#ma-explanation h3") == "plain cyan triangle"
    assert "Probability 0.9" in page.text("#ma-explanation")
    assert "nothing of these" in page.text("#ma-explanation")
    assert page.one("#ma-explanation img").get_attribute("alt").startswith("Heat over the picture.")
    pressed = [button.text.splitlines()[0] for button in page.all(".ma-legend button[aria-pressed=true]")]
    assert pressed == ["plain cyan triangle"]

    # The same by the list, with the keyboard.
    sand = page.all(".ma-legend button")[legend(page).index("sand")]
    page.driver.execute_script("arguments[0].focus()", sand)
    sand.send_keys("\ue007")  # the key Enter
    page.wait(lambda: page.text("#ma-explanation h3") == "sand")

    page.driver.get_log("performance")
    for title, name in (("Masks (PNG)", "scene_masks.png"), ("JSON", "scene.json"), ("COCO", "scene_coco.json")):
        page.driver.find_element("link text", title).click()
        page.wait(lambda name=name: (page.downloads / name).exists())
    told = json.loads((page.downloads / "scene.json").read_text())
    ids = np.asarray(Image.open(page.downloads / "scene_masks.png"))
    assert ids.shape == (384, 384)
    for record in told["segments"]:
        assert (ids == record["id"]).sum() == record["area"]
    coco = json.loads((page.downloads / "scene_coco.json").read_text())
    assert len(coco["annotations"]) == len(told["segments"]) == 8

    page.click("#ma-compare")
    page.wait(lambda: len(page.all("#ma-comparison img")) == 3)
    page.wait(lambda: is_in_sight(page, "#ma-told"))
    assert "striped green ring" in page.text("#ma-comparison table")


def test_a_person_tries_a_scene_and_makes_mistakes(page, tmp_path):
    page.click("#ma-segment")
    page.wait(lambda: "Choose a picture first" in page.text("#ma-told"))
    page.wait(lambda: is_in_sight(page, "#ma-told"))
    assert page.one("#ma-told [role=alert]").text.startswith("That did not work.")

    page.click(".ma-scene:nth-of-type(2)")
    page.wait(lambda: page.one("#ma-labels textarea").get_attribute("value").count("\n") > 5)
    page.one("#ma-picture-input img")
    page.wait(lambda: "Choose a picture first" not in page.driver.find_element("id", "ma-told").text)
    page.click("#ma-task label:nth-of-type(3)")
    page.one("#ma-threshold")
    page.click("#ma-segment")
    page.wait(lambda: len(page.all(".ma-legend button")) > 3)
    assert "score" in page.all(".ma-legend .ma-facts")[0].text
    assert page.one(".ma-picture").get_attribute("alt").startswith("The picture with its segments painted over it: ")

    Image.new("1", (1200, 1000)).save(tmp_path / "huge.png")
    page.click("#ma-picture-input button[aria-label='Remove Image']")
    choose_picture(page, tmp_path / "huge.png")
    sentence = "huge.png cannot be read: it has 1200 x 1000 pixels, 1.2 million, and at most 1 million are taken"
    page.wait(lambda: sentence in page.text("#ma-told"))


def test_a_closed_page_leaves_no_file(app, picture, tmp_path):
    with browser(1280, 900, tmp_path) as page:
        page.driver.get(app.address)
        page.one(".ma-scene")
        choose_picture(page, picture)
        assert [file.name for file in app.files.rglob("*.png") if file.name == picture.name] == ["scene.png"]
    limit = time.monotonic() + 60
    while any(file.name == picture.name for file in app.files.rglob("*.png")):
        assert time.monotonic() < limit
        time.sleep(0.2)
