#!/usr/bin/env python
"""Train a Mask-Adapter or a mask generator; the same as `maskadapter train`.

accelerate launch scripts/train.py --stage warmup --preset fcclip --model MODEL --dataset COCO --output_dir runs/stage1
"""

import sys

from hf_maskadapter.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
