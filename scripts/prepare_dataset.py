#!/usr/bin/env python
"""Turn a raw benchmark download into a Hugging Face data set; the same as `maskadapter prepare`.

python scripts/prepare_dataset.py ade20k_150 ADEChallengeData2016 prepared/ade20k_150
"""

import sys

from hf_maskadapter.cli import main

if __name__ == "__main__":
    sys.exit(main(["prepare", *sys.argv[1:]]))
