#!/usr/bin/env python
"""Publish a model, an adapter, a data set or results on the Hub; the same as `maskadapter publish`.

python scripts/push_to_hub.py runs/stage2/model jane/my-segmenter --private
"""

import sys

from hf_maskadapter.cli import main

if __name__ == "__main__":
    sys.exit(main(["publish", *sys.argv[1:]]))
