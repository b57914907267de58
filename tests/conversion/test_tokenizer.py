import gzip
import json
import os
import subprocess
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from transformers import AutoTokenizer, CLIPTokenizer

from hf_maskadapter.conversion.tokenizer import build_clip_tokenizer
from hf_maskadapter.model.vocabulary import Vocabulary

FIXTURES = os.environ.get("MASKADAPTER_FIXTURES")
SHARED = os.environ.get("MASKADAPTER_SHARED")
BPE_FILE = Path(SHARED or "", "data", "clip_bpe", "bpe_simple_vocab_16e6.txt.gz")
needs_fixtures = pytest.mark.skipif(not FIXTURES, reason="MASKADAPTER_FIXTURES does not name the golden folders")
needs_bpe_file = pytest.mark.skipif(not SHARED, reason="MASKADAPTER_SHARED does not name the folder with data/")

START, END = 49406, 49407


@pytest.fixture(scope="module")
def tokenizer():
    return build_clip_tokenizer(BPE_FILE)


class SimpleTokenizer:
    """CLIP's byte-pair encoding written from its definition: the two adjacent parts of the lowest rank are merged."""

    def __init__(self, path):
        regex = pytest.importorskip("regex")
        self.words = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+", regex.IGNORECASE)
        merges = [tuple(line.split()) for line in gzip.decompress(path.read_bytes()).decode().split("\n")[1:48895]]
        self.rank = {pair: rank for rank, pair in enumerate(merges)}
        printable = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or 174 <= b <= 255]
        order = printable + [b for b in range(256) if b not in printable]
        self.character = {b: chr(b) if b in printable else chr(256 + order.index(b) - len(printable)) for b in order}
        tokens = [self.character[b] + end for end in ("", "</w>") for b in order] + ["".join(pair) for pair in merges]
        self.id_of = {token: index for index, token in enumerate(tokens)}

    @cache  # noqa: B019
    def encode_word(self, word):
        parts = [self.character[b] for b in word.encode()]
        parts[-1] += "</w>"
        while len(parts) > 1:
            rank, first = min((self.rank.get(pair, len(self.rank)), i) for i, pair in enumerate(pairwise(parts)))
            if rank == len(self.rank):
                break
            parts[first : first + 2] = ["".join(parts[first : first + 2])]
        return [self.id_of[part] for part in parts]

    def __call__(self, text):
        words = self.words.findall(" ".join(text.split()).lower())
        return [START, *(index for word in words for index in self.encode_word(word)), END]


@pytest.fixture(scope="module")
def simple_tokenizer():
    return SimpleTokenizer(BPE_FILE)


@needs_bpe_file
def test_the_tokenizer_has_clips_sizes_and_special_tokens(tokenizer):
    assert len(tokenizer) == tokenizer.vocab_size == 49408
    assert tokenizer.model_max_length == 77
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (START, END, END)
    assert tokenizer("a photo of a cat")["input_ids"] == [START, 320, 1125, 539, 320, 2368, END]


@needs_bpe_file
@needs_fixtures
def test_golden_prompts_have_openclips_tokens_up_to_the_end_token(tokenizer):
    folders = [path.parent for path in sorted(Path(FIXTURES).glob("*/meta.json"))]
    assert folders
    for folder in folders:
        meta = json.loads((folder / "meta.json").read_text())
        with safe_open(folder / "inputs.safetensors", "pt") as inputs:
            name = "test_prompt_tokens" if "test_prompt_tokens" in inputs.keys() else "prompt_tokens"  # noqa: SIM118
            golden = inputs.get_tensor(name).tolist()
        prompts = meta.get("test_prompts") or meta["prompts"]
        assert len(prompts) == len(golden)
        for prompt, ids, expected in zip(prompts, tokenizer(prompts)["input_ids"], golden, strict=True):
            assert ids == expected[: len(ids)], prompt
            assert not any(expected[len(ids) :])


@needs_bpe_file
def test_every_official_class_name_has_clips_tokens(tokenizer, simple_tokenizer):
    paths = sorted(Path(SHARED, "data", "vocabularies").glob("*.txt"))
    names = {name for path in paths for synonyms in Vocabulary.from_file(path).synonyms for name in synonyms}
    prompts = [f"There is the {name} in the scene" for name in sorted(names)]
    assert len(prompts) > 2000
    for prompt, ids in zip(prompts, tokenizer(prompts)["input_ids"], strict=True):
        assert ids == simple_tokenizer(prompt), prompt


ordinary_text = st.text(st.sampled_from("abcxyzABCXYZ0189 .,-'()/&+!?:;\"éüñßøÅ漢字дом"), max_size=30)


@needs_bpe_file
@given(text=ordinary_text)
def test_ordinary_text_has_clips_tokens(tokenizer, simple_tokenizer, text):
    assert tokenizer(text)["input_ids"] == simple_tokenizer(text)


@needs_bpe_file
def test_an_unpacked_file_does_as_well(tokenizer, tmp_path):
    path = tmp_path / "bpe.txt"
    path.write_bytes(gzip.decompress(BPE_FILE.read_bytes()))
    assert build_clip_tokenizer(path).get_vocab() == tokenizer.get_vocab()


@needs_bpe_file
def test_saved_it_loads_in_a_process_without_the_package(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    program = (
        "import sys; sys.modules['hf_maskadapter'] = None\n"
        "from transformers import AutoTokenizer\n"
        f"tokenizer = AutoTokenizer.from_pretrained({str(tmp_path)!r}, local_files_only=True)\n"
        "print(type(tokenizer).__name__, tokenizer.model_max_length, *tokenizer('a CAT')['input_ids'])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["CLIPTokenizer", "77", str(START), "320", "2368", str(END)]


@needs_bpe_file
def test_save_and_load_round_trip(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert isinstance(loaded, CLIPTokenizer)
    assert loaded.get_vocab() == tokenizer.get_vocab()
    texts = ["Lord's table, (rubber) 42!", "Åland naïve 漢字"]
    assert loaded(texts)["input_ids"] == tokenizer(texts)["input_ids"]


@needs_bpe_file
def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "bpe.txt.gz"
    path.write_bytes(BPE_FILE.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"bpe\.txt\.gz is truncated or damaged .*expected CLIP's bpe_simple_vocab"):
        build_clip_tokenizer(path)


@needs_bpe_file
def test_altered_merges_are_refused(tmp_path):
    path = tmp_path / "bpe.txt.gz"
    path.write_bytes(gzip.compress(gzip.decompress(BPE_FILE.read_bytes()).replace(b"\ni n\n", b"\nn i\n")))
    with pytest.raises(ValueError, match="does not hold CLIP's 48894 byte-pair merges"):
        build_clip_tokenizer(path)


@pytest.mark.parametrize("content", [b"", b"#version: 0.2\ni n\n", bytes(range(256)), gzip.compress(b"i n\n" * 50000)])
def test_another_file_is_refused(tmp_path, content):
    path = tmp_path / "bpe.txt.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="does not hold CLIP's 48894 byte-pair merges"):
        build_clip_tokenizer(path)


@pytest.mark.parametrize(
    "damage",
    [b"\x1f\x8b", b"\x1f\x8b\x08\x00rubbish, not gzip", gzip.compress(b"i n\n" * 9)[:-4]],
    ids=["empty", "rubbish", "cut"],
)
def test_a_damaged_archive_is_refused(tmp_path, damage):
    path = tmp_path / "bpe.txt.gz"
    path.write_bytes(damage)
    with pytest.raises(ValueError, match="is truncated or damaged"):
        build_clip_tokenizer(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*nowhere\.gz; expected CLIP's"):
        build_clip_tokenizer(tmp_path / "nowhere.gz")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        build_clip_tokenizer(tmp_path)
