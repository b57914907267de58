#!/usr/bin/env python
"""Build the embedded miniature checkpoint from seeds: CLIP, mask generator, adapter, measured results.

python scripts/build_miniature.py --work-dir miniature-build --output-dir src/hf_maskadapter/miniature/checkpoint
"""

import sys

from laboratory import run

if __name__ == "__main__":
    sys.exit(run("build-miniature"))
