"""The app: a page in the browser for pictures, labels and what the model makes of them.

What it does is apart from how it looks: [`AppModels`], [`read_labels`] and [`segment_picture`] know no widget. Gradio
(extra `app`) is imported by [`run_app`] and [`build_app`] alone.
"""

from __future__ import annotations

from .labels import read_labels
from .settings import AppSettings

__all__ = ["AppSettings", "read_labels"]
