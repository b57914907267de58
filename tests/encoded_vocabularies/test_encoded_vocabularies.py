"""Encoded vocabularies in files: saved and loaded, and found again on disk instead of encoded once more."""

import os
import time

import pytest
import torch
from safetensors.torch import load_file, safe_open, save_file

from hf_maskadapter import Vocabulary, load_segmenter, load_vocabulary, save_vocabulary
from hf_maskadapter.encoded_vocabularies.cache import VocabularyCache
from hf_maskadapter.encoded_vocabularies.form import VocabularyFileError
from hf_maskadapter.encoded_vocabularies.hashes import text_tower_hash
from hf_maskadapter.model.modeling_maskadapter import MaskAdapterForOpenVocabularySegmentation
from hf_maskadapter.model.processing_maskadapter import MaskAdapterProcessor
from support import tiny_models

NAMES = ["cat, kitten", "dog", "kitten, puss"]


@pytest.fixture
def model():
    return tiny_models.segmenter()


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_models.byte_level_tokenizer()


@pytest.fixture
def segmenter(tiny_model_dir):
    """A segmenter with a tokenizer of Transformers', and the processor."""
    model = MaskAdapterForOpenVocabularySegmentation.from_pretrained(tiny_model_dir)
    return model.eval(), MaskAdapterProcessor.from_pretrained(tiny_model_dir)


@pytest.fixture
def cache(tmp_path):
    return VocabularyCache(tmp_path / "cache")


@pytest.fixture
def passes(monkeypatch):
    """How many passes the text tower made."""
    from transformers.models.clip.modeling_clip import CLIPTextModel

    counted = []
    forward = CLIPTextModel.forward
    monkeypatch.setattr(
        CLIPTextModel, "forward", lambda self, *args, **kwargs: counted.append(1) or forward(self, *args, **kwargs)
    )
    return counted


def assert_same(found, expected):
    for name in ("text_embeds", "class_ids", "seen_classes"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name


class TestFiles:
    def test_what_was_saved_is_loaded(self, segmenter, tmp_path):
        model, processor = segmenter
        encoded = model.encode_vocabulary(NAMES, processor)
        save_vocabulary(encoded, tmp_path / "names.safetensors", model)
        assert_same(load_vocabulary(tmp_path / "names.safetensors", model), encoded)
        with safe_open(tmp_path / "names.safetensors", framework="pt") as file:
            assert file.metadata()["format"] == "maskadapter.encoded_vocabulary"
            assert file.metadata()["version"] == "1"

    def test_a_file_of_another_text_tower_is_refused(self, segmenter, tmp_path):
        model, processor = segmenter
        save_vocabulary(model.encode_vocabulary(NAMES, processor), tmp_path / "names.safetensors", model)
        with torch.no_grad():
            model.clip.text_model.text_projection.weight[0, 0] += 1e-3
        with pytest.raises(VocabularyFileError, match="another text tower than this model's: encode its names again"):
            load_vocabulary(tmp_path / "names.safetensors", model)

    def test_tensors_of_other_names_are_left_alone(self, segmenter, tmp_path):
        """Later files may hold more beside the texts."""
        model, processor = segmenter
        path = tmp_path / "names.safetensors"
        encoded = model.encode_vocabulary(NAMES, processor)
        save_vocabulary(encoded, path, model)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
        save_file(load_file(path) | {"example_embeds": torch.ones(2, 3)}, path, metadata)
        assert_same(load_vocabulary(path, model), encoded)

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (lambda path: path.write_bytes(path.read_bytes()[:-7]), "is damaged, or no safetensors file"),
            (lambda path: path.write_bytes(b""), "is damaged, or no safetensors file"),
            (lambda path: save_file({"text_embeds": torch.ones(2, 3)}, path), "holds no encoded vocabulary"),
            (lambda path: rewrite(path, version="2"), "has version 2 of its form"),
            (lambda path: rewrite(path, text_embeds=torch.full((4, 16), float("nan"))), "do not fit together"),
            (lambda path: rewrite(path, class_ids=torch.tensor([0, 0, 1, 7, 7])), "do not fit together"),
            (lambda path: rewrite(path, seen_classes=torch.zeros(0, dtype=torch.bool)), "do not fit together"),
        ],
    )
    def test_other_files_are_refused(self, segmenter, tmp_path, damage, message):
        model, processor = segmenter
        path = tmp_path / "names.safetensors"
        save_vocabulary(model.encode_vocabulary(NAMES, processor), path, model)
        damage(path)
        with pytest.raises(VocabularyFileError, match=message):
            load_vocabulary(path, model)

    def test_a_missing_file_is_told(self, model, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"There is no file .*none\.safetensors"):
            load_vocabulary(tmp_path / "none.safetensors", model)


def rewrite(path, **changes):
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    version = changes.pop("version", metadata["version"])
    save_file(load_file(path) | changes, path, metadata | {"version": version})


class TestCache:
    def test_the_second_time_nothing_is_computed_and_the_result_is_the_same(self, segmenter, cache, passes):
        model, processor = segmenter
        expected = model.encode_vocabulary(NAMES, processor)
        model.text_store = cache
        passes.clear()
        assert_same(model.encode_vocabulary(NAMES, processor), expected)
        assert passes
        passes.clear()
        assert_same(model.encode_vocabulary(NAMES, processor), expected)
        assert not passes
        # The same names in other classes are the same names.
        regrouped = model.encode_vocabulary(["cat", "kitten", "dog", "puss"], processor)
        assert regrouped.class_ids.tolist() == [0, 1, 2, 3]
        assert not passes

    def test_the_names_themselves_are_not_written(self, segmenter, cache):
        model, processor = segmenter
        model.text_store = cache
        model.encode_vocabulary(["qqqzzz"], processor)
        (path,) = cache.folder.iterdir()
        assert b"qqqzzz" not in path.read_bytes()

    def test_everything_that_changes_the_result_is_part_of_the_key(self, segmenter, cache, passes):
        model, processor = segmenter
        model.text_store = cache

        def computes(*arguments) -> bool:
            passes.clear()
            model.encode_vocabulary(*arguments)
            return bool(passes)

        assert computes(NAMES, processor)
        assert not computes(NAMES, processor)
        assert computes([*NAMES, "sky"], processor)
        assert computes(NAMES, processor, ["{}"])
        assert computes(list(reversed(NAMES)), processor)
        torch.set_float32_matmul_precision("high")
        try:
            assert computes(NAMES, processor)
        finally:
            torch.set_float32_matmul_precision("highest")
        with torch.autocast("cpu", torch.bfloat16):
            assert computes(NAMES, processor)
        assert not computes(NAMES, processor)
        processor.tokenizer.add_tokens(["kitten"])
        with pytest.raises(ValueError, match="The tokenizer gives a token"):  # so the text tower is asked
            computes(NAMES, processor)

    @pytest.mark.parametrize(
        "change",
        [
            lambda weights: weights["text_model.final_layer_norm.weight"].mul_(1.5),
            lambda weights: weights["text_model.embeddings.token_embedding.weight"][3].add_(1),
            lambda weights: weights["text_model.encoder.layers.0.mlp.fc1.weight"].data.mul_(2),
        ],
        ids=["one weight", "one row", "past the version counter"],
    )
    def test_changed_weights_are_noticed(self, segmenter, cache, passes, change):
        model, processor = segmenter
        model.text_store = cache
        model.encode_vocabulary(NAMES, processor)
        before = text_tower_hash(model.clip)
        with torch.no_grad():
            change(model.clip.text_weights())
        assert text_tower_hash(model.clip) != before
        passes.clear()
        found = model.encode_vocabulary(NAMES, processor)
        assert passes
        model.text_store = None
        assert_same(found, model.encode_vocabulary(NAMES, processor))

    def test_the_hash_is_that_of_the_weights_wherever_they_come_from(self, tiny_model_dir):
        first, second = (MaskAdapterForOpenVocabularySegmentation.from_pretrained(tiny_model_dir) for _ in range(2))
        assert text_tower_hash(first.clip) == text_tower_hash(second.clip)
        assert text_tower_hash(first.clip) != text_tower_hash(second.to(torch.bfloat16).clip)
        assert text_tower_hash(first.clip) != text_tower_hash(tiny_models.segmenter().clip)
        before = text_tower_hash(first.clip)
        with torch.no_grad():
            for parameter in first.clip.vision_model.parameters():
                parameter.add_(1)
        assert text_tower_hash(first.clip) == before

    @pytest.mark.parametrize("kind", ["cut off", "foreign", "of other names"])
    def test_a_damaged_or_foreign_file_is_ignored_with_a_warning_and_written_anew(self, segmenter, cache, passes, kind):
        model, processor = segmenter
        expected = model.encode_vocabulary(NAMES, processor)
        model.text_store = cache
        model.encode_vocabulary(["sky", "sea", "sand", "star"], processor)
        (other,) = cache.folder.iterdir()
        model.encode_vocabulary(NAMES, processor)
        (path,) = set(cache.folder.iterdir()) - {other}
        if kind == "cut off":
            path.write_bytes(path.read_bytes()[:100])
        elif kind == "foreign":
            save_file({"weight": torch.ones(3)}, path)
        else:
            path.write_bytes(other.read_bytes())
        passes.clear()
        with pytest.warns(UserWarning, match="An encoded vocabulary in the cache is not used"):
            found = model.encode_vocabulary(NAMES, processor)
        assert_same(found, expected)
        assert passes
        passes.clear()
        assert_same(model.encode_vocabulary(NAMES, processor), expected)
        assert not passes

    def test_what_was_not_used_for_longest_goes_when_there_is_too_much(self, segmenter, tmp_path, passes):
        model, processor = segmenter
        model.text_store = VocabularyCache(tmp_path, max_files=2)
        for name in ("cat", "dog"):
            model.encode_vocabulary([name], processor)
            time.sleep(0.02)
        model.encode_vocabulary(["cat"], processor)  # used again
        time.sleep(0.02)
        model.encode_vocabulary(["sky"], processor)
        assert len(os.listdir(tmp_path)) == 2
        passes.clear()
        model.encode_vocabulary(["cat"], processor)
        assert not passes
        model.encode_vocabulary(["dog"], processor)
        assert passes

    def test_bytes_are_bounded_and_what_is_larger_than_all_of_them_is_not_kept(self, segmenter, tmp_path):
        model, processor = segmenter
        size = 4 * 16
        model.text_store = VocabularyCache(tmp_path, max_bytes=2 * size)
        model.encode_vocabulary(["a", "b", "c"], processor)
        assert os.listdir(tmp_path) == []

    def test_a_folder_that_cannot_be_written_costs_only_a_warning(self, segmenter, tmp_path):
        model, processor = segmenter
        (tmp_path / "file").write_text("")
        model.text_store = VocabularyCache(tmp_path / "file" / "cache")
        with pytest.warns(UserWarning, match="cannot be kept for the next time"):
            model.encode_vocabulary(NAMES, processor)

    def test_a_tokenizer_that_cannot_tell_its_rules_is_not_cached_for(self, model, cache):
        model.text_store = cache
        model.encode_vocabulary(NAMES, tiny_models.CharacterTokenizer())
        assert not cache.folder.exists()


class TestWhereItIsUsed:
    def test_a_loaded_segmenter_finds_what_another_process_left(self, tmp_path, monkeypatch, passes, picture):
        monkeypatch.setenv("MASKADAPTER_VOCABULARY_CACHE", str(tmp_path))
        first = load_segmenter(device="cpu")(picture, candidate_labels=["grass", "water"])
        assert len(os.listdir(tmp_path)) == 1
        passes.clear()
        second = load_segmenter(device="cpu")(picture, candidate_labels=["grass", "water"])
        assert not passes
        assert [(one["label"], one["score"]) for one in first] == [(one["label"], one["score"]) for one in second]

    def test_it_lies_beside_the_models_and_can_be_switched_off(self, tmp_path, monkeypatch):
        monkeypatch.delenv("MASKADAPTER_VOCABULARY_CACHE")
        monkeypatch.setenv("MASKADAPTER_CACHE", str(tmp_path))
        assert load_segmenter(device="cpu").model.text_store.folder == tmp_path / "vocabularies"
        monkeypatch.setenv("MASKADAPTER_VOCABULARY_CACHE", "off")
        assert load_segmenter(device="cpu").model.text_store is None

    @pytest.mark.parametrize(("options", "files"), [([], 1), (["--no-vocabulary-cache"], 0)])
    def test_commands_use_it_unless_told_otherwise(self, tmp_path, monkeypatch, picture, options, files):
        from hf_maskadapter import cli

        monkeypatch.setenv("MASKADAPTER_VOCABULARY_CACHE", str(tmp_path / "cache"))
        (tmp_path / "cache").mkdir()
        picture.save(tmp_path / "in.png")
        words = ["segment", tmp_path / "in.png", "--labels", "grass, water", "--output", tmp_path / "out.png"]
        assert cli.main([*map(str, words), "--device", "cpu", *options]) == 0
        assert len(os.listdir(tmp_path / "cache")) == files

    def test_measurements_use_it(self, tmp_path, monkeypatch, passes):
        from hf_maskadapter.evaluation.loading import load_predictor
        from hf_maskadapter.miniature import checkpoint_path

        monkeypatch.setenv("MASKADAPTER_VOCABULARY_CACHE", str(tmp_path))
        vocabulary = Vocabulary.parse(NAMES)
        expected = load_predictor(str(checkpoint_path()), vocabulary).encode_vocabulary()
        passes.clear()
        found = load_predictor(str(checkpoint_path()), vocabulary).encode_vocabulary()
        assert not passes
        assert_same(found, expected)
