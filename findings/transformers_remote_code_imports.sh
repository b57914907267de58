#!/usr/bin/env bash
# What: Transformers requires of a model with code of its own whatever that code imports anywhere, even where it never
#   runs, and the modules that a docstring's example imports.
# Version: transformers 5.23.0 (`trust_remote_code`, dynamic_module_utils)
# Seen: `import pandas` in a method nobody calls or under `if TYPE_CHECKING` stops `from_pretrained` with ImportError;
#   in a try block it does not. For `import cv2` the error says `pip install cv2`, which is not OpenCV's package. A line
#   `from .modeling_tiny import TinyModel` in a docstring stops it with FileNotFoundError.
# Why it matters: Code that is saved with a model and defers imports to the function that needs them, as one does for
#   optional packages, cannot be loaded without them. Put such imports into a try block, or use
#   `importlib.import_module`, and keep relative imports out of docstrings.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check transformers==5.23.0

cat > check.py <<'PY'
import json
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from transformers import AutoConfig
from transformers.utils import logging

logging.set_verbosity_error()
print("transformers", version("transformers"), "pandas", find_spec("pandas"), "cv2", find_spec("cv2"))
CODE = """{top}
from transformers import PretrainedConfig


class TinyConfig(PretrainedConfig):
    model_type = "{name}"

    def table(self):
        {method}
"""


def check(what, seen, expected):
    print(f"{what}: {seen}")
    if seen != expected:
        raise SystemExit(f"  changed: it was {expected}")


def loading(name, top="", method="pass"):
    folder = Path(name)
    folder.mkdir()
    (folder / "configuration_tiny.py").write_text(CODE.format(top=top, name=name, method=method))
    configuration = {"model_type": name, "auto_map": {"AutoConfig": "configuration_tiny.TinyConfig"}}
    (folder / "config.json").write_text(json.dumps(configuration))
    try:
        return type(AutoConfig.from_pretrained(f"./{name}", trust_remote_code=True)).__name__
    except ImportError as error:
        return str(error).split("environment: ")[-1]
    except FileNotFoundError as error:
        return f"FileNotFoundError: {Path(error.filename).name}"


PANDAS = "pandas. Run `pip install pandas`"
check("no import", loading("nothing"), "TinyConfig")
check("import pandas in a method", loading("method", method="import pandas"), PANDAS)
typing = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import pandas"
check("import pandas under TYPE_CHECKING", loading("typing", top=typing), PANDAS)
check("import cv2 in a method", loading("opencv", method="import cv2"), "cv2. Run `pip install cv2`")
attempt = "try:\n            import pandas\n        except ImportError:\n            raise"
check("import pandas in a method's try block", loading("attempt", method=attempt), "TinyConfig")
named = "import importlib\n        importlib.import_module('pandas')"
check("importlib.import_module in a method", loading("named", method=named), "TinyConfig")
example = '"""The settings of a model:\n\nfrom .modeling_tiny import TinyModel\n"""'
check("a relative import in a docstring", loading("example", top=example), "FileNotFoundError: modeling_tiny.py")
PY
HF_HUB_OFFLINE=1 HF_HOME="$work/home" venv/bin/python check.py
