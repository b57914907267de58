"""CLIP's tokenizer from its byte-pair-encoding file, without network."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from pathlib import Path

from transformers import CLIPTokenizer

#: Number of tokens that CLIP's text towers read, start and end tokens included.
CONTEXT_LENGTH = 77

_NUM_MERGES = 49152 - 256 - 2  # CLIP reads only the first ones of its file: 49152 tokens before the end-of-word bytes
_MERGES_SHA256 = "f61f2adf497e6f5357c347aeb4646fabe82f341e946de5bdec5d2858e41bef4a"
_MAX_BYTES = 16 * 2**20  # the real file unpacks to 3.2 MB
_GZIP_MAGIC = b"\x1f\x8b"


def build_clip_tokenizer(bpe_file: str | os.PathLike[str]) -> CLIPTokenizer:
    """Build the tokenizer of OpenAI's CLIP and OpenCLIP.

    Its token ids equal OpenCLIP's `SimpleTokenizer`'s up to and including the end token, except for text that
    OpenCLIP's cleaning alters: broken encodings, curly quotes and HTML entities. Behind it OpenCLIP pads with 0, this
    tokenizer with the end token; CLIP's text towers look at nothing behind the first end token.

    Args:
        bpe_file: the `bpe_simple_vocab_16e6.txt.gz` of CLIP's and OpenCLIP's repositories, packed or unpacked.

    Returns:
        A tokenizer with 49408 tokens and `model_max_length` 77.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is truncated or another file.
    """
    merges = [tuple(line.split()) for line in _read_merges(Path(bpe_file))]
    characters = list(_byte_characters().values())
    tokens = [*characters, *(character + "</w>" for character in characters), *map("".join, merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=merges,
        model_max_length=CONTEXT_LENGTH,
    )


def _read_merges(path: Path) -> list[str]:
    expected = "expected CLIP's bpe_simple_vocab_16e6.txt.gz, which comes with CLIP's and OpenCLIP's source code"
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; {expected}.")
    try:
        with path.open("rb") as file:
            packed = file.read(2) == _GZIP_MAGIC
        with gzip.open(path) if packed else path.open("rb") as file:
            raw = file.read(_MAX_BYTES)
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no file {path}; {expected}.") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is truncated or damaged ({error}); {expected}.") from None
    merges = raw.decode("utf-8", errors="replace").split("\n")[1 : _NUM_MERGES + 1]
    if hashlib.sha256("\n".join(merges).encode()).hexdigest() != _MERGES_SHA256:
        raise ValueError(f"{path} does not hold CLIP's {_NUM_MERGES} byte-pair merges; {expected}.")
    return merges


def _byte_characters() -> dict[int, str]:
    """GPT-2's printable stand-in for each byte, in its order: printable bytes as they are, the others from U+0100."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + index) for index, byte in enumerate(others)}


__all__ = ["CONTEXT_LENGTH", "build_clip_tokenizer"]
