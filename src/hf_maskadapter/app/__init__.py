"""The app: a page in the browser for pictures, labels and what the model makes of them.

`maskadapter app` serves it; in Python, [`run_app`] with [`AppSettings`]. What it does is apart from how it looks, and
can be used without a page: `models`, `labels`, `segmenting`, `viewing` and `downloads` know no widget. Gradio (extra
`app`) is imported by [`run_app`] alone.
"""

from __future__ import annotations

from .labels import read_labels
from .launching import PortInUseError, run_app
from .settings import AppSettings

__all__ = ["AppSettings", "PortInUseError", "read_labels", "run_app"]
