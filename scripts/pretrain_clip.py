#!/usr/bin/env python
"""Teach a model's CLIP the words of your own domain; the same as `maskadapter pretrain`.

accelerate launch scripts/pretrain_clip.py --dataset FOLDER --output_dir runs/clip --max_steps 500
"""

import sys

from hf_maskadapter.cli import main

if __name__ == "__main__":
    sys.exit(main(["pretrain", *sys.argv[1:]]))
