"""The released models by one-word names: facts for the list of models, the conversion and the cards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

REPOSITORY = "owl10/Mask-Adapter"
"""The Hub repository of the released checkpoints with Mask-Adapter."""

_LAION_LARGE = "laion/CLIP-convnext_large_d_320.laion2B-s29B-b131K-ft-soup"
_LAION_BASE = "laion/CLIP-convnext_base_w_320-laion_aesthetic-s13B-b82K-augreg"


@dataclass(frozen=True)
class ReleasedModel:
    """A released checkpoint with Mask-Adapter.

    Args:
        name: the one word that users choose it by.
        preset: the preset that converts it, which names its card, too.
        title: what readers call it.
        file: its file in [`REPOSITORY`], as it was called when this was written; the repository's listing decides.
        download_bytes: size of that file, about.
        num_parameters: parameters and buffers of the converted model.
        published_as: its name in the tables of published numbers.
        clip: Hub id of the CLIP that it was made from.
        family: whose mask generator it has.
        license: the licences of code and weights in one line.
        notes: what else to know.
    """

    name: str
    preset: str
    title: str
    file: str
    download_bytes: int
    num_parameters: int
    published_as: str
    clip: str
    family: str
    license: str
    notes: tuple[str, ...] = ()


RELEASED: Mapping[str, ReleasedModel] = {
    model.name: model
    for model in (
        ReleasedModel(
            "fcclip-large",
            "mask-adapter-fcclip-convnext-large",
            "Mask-Adapter on FC-CLIP-L",
            "fcclip_convnext_large_maskadapter.pth",
            1_670_000_000,
            387_401_778,
            "FC-CLIP-L with Mask-Adapter",
            _LAION_LARGE,
            "fc-clip",
            "Mask-Adapter and FC-CLIP: Apache-2.0; CLIP: MIT",
        ),
        ReleasedModel(
            "maft-base",
            "mask-adapter-maft-plus-convnext-base",
            "Mask-Adapter on MAFT+-B",
            "maftp_convnext_base_maskadapter.pth",
            985_000_000,
            216_610_930,
            "MAFT+-B with Mask-Adapter",
            _LAION_BASE,
            "maft-plus",
            "Mask-Adapter: Apache-2.0; MAFT+ and CLIP: MIT",
        ),
        ReleasedModel(
            "maft-large",
            "mask-adapter-maft-plus-convnext-large",
            "Mask-Adapter on MAFT+-L",
            "maftp_convnext_large_maskadapter.pth",
            1_680_000_000,
            390_279_474,
            "MAFT+-L with Mask-Adapter",
            _LAION_LARGE,
            "maft-plus",
            "Mask-Adapter: Apache-2.0; MAFT+ and CLIP: MIT",
            (
                "The published number of A-150 was measured with MAFT+'s panoptic formula of the text transfer, which "
                "this preset sets; the others without it (preset `mask-adapter-maft-plus-convnext-large-semantic`, or "
                "`--no-text_transfer_panoptic` of `maskadapter evaluate`).",
            ),
        ),
    )
}
"""The released checkpoints with Mask-Adapter, by name."""

__all__ = ["RELEASED", "REPOSITORY", "ReleasedModel"]
