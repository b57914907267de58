"""MAFT+'s content-dependent transfer (arXiv 2408.00744) → [`TextTransfer`]."""

from __future__ import annotations

from .key_tables import KeyTable

TRANSFER_KEYS = KeyTable(
    {
        "cross_atten.multihead_attn.in_proj_{p}": "attention.in_proj_{p}",
        "cross_atten.multihead_attn.out_proj.{p}": "attention.out_proj.{p}",
        "cross_atten.norm.{p}": "norm.{p}",
        "cross_atten.MLP.{p}": "projection.{p}",
    }
)

#: What MAFT+'s files may hold beside the model, by how the keys begin.
MAFT_PLUS_IGNORED = {"backbone_t.": "the original CLIP, which held MAFT+'s own to it in training"}

__all__ = ["MAFT_PLUS_IGNORED", "TRANSFER_KEYS"]
