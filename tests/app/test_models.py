"""The models that an app offers."""

from types import SimpleNamespace

import pytest

from hf_maskadapter.app import models as app_models
from hf_maskadapter.app.models import AppModels
from hf_maskadapter.loading import list_models


def test_a_model_is_loaded_once(models, miniature):
    assert models.get("miniature") is miniature
    assert miniature.known_world is not None


def test_no_model_keeps_what_people_ask_for_on_disk(miniature):
    assert miniature.pipeline.model.text_store is None


def test_no_other_model_than_those_offered_is_opened(models, tmp_path):
    with pytest.raises(ValueError, match=r"This app has no model '.*'; it has miniature\."):
        models.get(str(tmp_path))


def test_a_wrong_name_gets_the_packages_sentence():
    with pytest.raises(ValueError, match=r"There is no model 'fcclip-larg'.*Did you mean fcclip-large"):
        AppModels(["fcclip-larg"]).get("fcclip-larg")


def test_two_models_stay_loaded_at_most(monkeypatch):
    loaded = []

    def load(name, **options):
        loaded.append(name)
        return SimpleNamespace(model=SimpleNamespace(mask_generator=object(), name_or_path="/no/folder"))

    monkeypatch.setattr(app_models, "load_segmenter", load)
    offered = AppModels(["a", "b", "c"])
    for name in ("a", "b", "a", "c", "a", "b"):
        offered.get(name)
    assert loaded == ["a", "b", "c", "b"]


def test_a_model_without_mask_generator_is_refused(monkeypatch):
    model = SimpleNamespace(mask_generator=None, name_or_path="x")
    monkeypatch.setattr(app_models, "load_segmenter", lambda name, **options: SimpleNamespace(model=model))
    with pytest.raises(ValueError, match="x has no mask generator; convert it again with --generator-from"):
        AppModels(["x"]).get("x")


def test_the_menu_tells_what_has_to_be_downloaded_first(monkeypatch, tmp_path):
    monkeypatch.setenv("MASKADAPTER_CACHE", str(tmp_path))
    size = next(entry.download_bytes for entry in list_models() if entry.name == "maft-base")
    assert AppModels(["miniature", "maft-base", "my/model", "miniature"]).choices() == [
        ("miniature: drawn shapes only", "miniature"),
        (f"maft-base: {size / 1e9:.2f} GB to download first", "maft-base"),
        ("my/model", "my/model"),
    ]
    (tmp_path / "maft-base-1").mkdir()
    (tmp_path / "maft-base-1" / "conversion.json").write_text("{}")
    assert AppModels(["maft-base"]).choices() == [("maft-base", "maft-base")]
