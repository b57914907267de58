"""Where the scripts of `scripts/` are, for tests that start them as processes."""

from pathlib import Path

SCRIPTS = Path(__file__).parents[2] / "scripts"
