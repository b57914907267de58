#!/usr/bin/env python
"""Measure a model; the same as `maskadapter evaluate`.

accelerate launch scripts/evaluate.py --model MODEL --benchmark ade20k_150 --data_dir ADEChallengeData2016
"""

import sys

from hf_maskadapter.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
