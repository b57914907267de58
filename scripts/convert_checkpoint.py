#!/usr/bin/env python
"""Convert a released checkpoint to a model of this package; the same as `maskadapter convert`.

python scripts/convert_checkpoint.py SOURCE --output DIR
"""

import sys

from hf_maskadapter.cli import main

if __name__ == "__main__":
    sys.exit(main(["convert", *sys.argv[1:]]))
