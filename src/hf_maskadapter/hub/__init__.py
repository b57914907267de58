"""Models, adapters, data sets and results to the Hub, with their cards (names are imported when first used).

[`push_folder_to_hub`] publishes what lies in a folder, [`push_model_to_hub`] and [`push_adapter_to_hub`] what is in
memory. `cards` writes model cards.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .pushing import Publication, push_adapter_to_hub, push_folder_to_hub, push_model_to_hub

_MODULE_OF = {
    "Publication": "pushing",
    "push_adapter_to_hub": "pushing",
    "push_folder_to_hub": "pushing",
    "push_model_to_hub": "pushing",
}

__all__ = ["Publication", "push_adapter_to_hub", "push_folder_to_hub", "push_model_to_hub"]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
