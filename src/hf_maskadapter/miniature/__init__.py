"""The miniature: a small trained checkpoint of the whole method, for the drawn world of `hf_maskadapter.data.scenes`.

It knows coloured, textured shapes on six backgrounds and nothing else; on photographs its answers mean nothing. See
`scripts/build_miniature.py` for how it is built.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..model.modeling_maskadapter import MaskAdapterForOpenVocabularySegmentation
    from ..model.processing_maskadapter import MaskAdapterProcessor


def checkpoint_path() -> Path:
    """Folder of the embedded checkpoint, in the form that `from_pretrained` reads.

    Raises:
        FileNotFoundError: if this installation holds none.
    """
    path = Path(__file__).parent / "checkpoint"
    if not (path / "config.json").is_file():
        raise FileNotFoundError(
            f"This installation has no embedded checkpoint ({path} is missing). Build it: "
            f"python scripts/build_miniature.py --output-dir {path}"
        )
    return path


def load_miniature(
    path: str | os.PathLike | None = None,
) -> tuple[MaskAdapterForOpenVocabularySegmentation, MaskAdapterProcessor]:
    """A miniature, in evaluation mode, and its processor; nothing is downloaded.

    Args:
        path: folder of another miniature than the embedded one.

    Raises:
        FileNotFoundError: if there is no such folder, or see [`checkpoint_path`].
        ValueError: if it holds a model without an adapter or with another mask generator than FC-CLIP's.
    """
    if path is not None and not Path(path).is_dir():
        raise FileNotFoundError(f"There is no folder {os.fspath(path)}.")
    from ..model.modeling_mask_generator_fcclip import FcClipMaskGenerator
    from ..model.modeling_maskadapter import MaskAdapterForOpenVocabularySegmentation
    from ..model.processing_maskadapter import MaskAdapterProcessor

    path = checkpoint_path() if path is None else path
    segmenter = MaskAdapterForOpenVocabularySegmentation.from_pretrained(path, local_files_only=True).eval()
    if segmenter.adapter is None or not isinstance(segmenter.mask_generator, FcClipMaskGenerator):
        raise ValueError(f"{path} is no miniature: it has no adapter, or no mask generator of FC-CLIP's kind.")
    return segmenter, MaskAdapterProcessor.from_pretrained(path, local_files_only=True)


__all__ = ["checkpoint_path", "load_miniature"]
