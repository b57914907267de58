#!/usr/bin/env python
"""Write the cards in model_cards/ anew, with the numbers that the miniature's build and the benchmark measured.

python scripts/write_model_cards.py
"""

import sys

from laboratory import run

if __name__ == "__main__":
    sys.exit(run("write-model-cards"))
