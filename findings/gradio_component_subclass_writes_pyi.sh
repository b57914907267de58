#!/usr/bin/env bash
# What: deriving a class from one of gradio's components writes a .pyi file beside the module that does it.
# Version: gradio 6.31.0 (gradio.component_meta.create_or_modify_pyi)
# Seen: importing a module with `class Picture(gr.Image)` copies the module's source up to the class, with the class's
#   interface below, to the same name with the ending .pyi. It is not renewed where the module changes outside the
#   class, and in a folder that cannot be written nothing is said.
# Why it matters: running an app changes its source folder, or the installed package: type checkers then read the stub
#   instead of the module, and a wheel's folder holds a file that nobody packed. Override `preprocess` of the instance.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check \
    gradio==6.31.0 pillow==12.3.0

mkdir app
cat > app/pictures.py <<'PY'
import gradio as gr

LIMIT = 10


class Picture(gr.Image):
    """A picture."""

    def preprocess(self, payload):
        return payload
PY
before=$(ls app)
(cd app && PYTHONDONTWRITEBYTECODE=1 GRADIO_ANALYTICS_ENABLED=False ../venv/bin/python -c 'import pictures, gradio; print("gradio", gradio.__version__)')
after=$(ls app)
echo "before: $before"
echo "after:" $after
sed 's/^/  /' app/pictures.pyi | head -12
[ "$before" = pictures.py ] && [ "$(echo $after)" = "pictures.py pictures.pyi" ] || { echo "changed" >&2; exit 1; }

sed -i 's/LIMIT = 10/LIMIT = 20/' app/pictures.py
(cd app && PYTHONDONTWRITEBYTECODE=1 GRADIO_ANALYTICS_ENABLED=False ../venv/bin/python -c 'import pictures')
echo "after LIMIT was changed to 20, the stub says: $(grep LIMIT app/pictures.pyi)"
grep -q 'LIMIT = 10' app/pictures.pyi
