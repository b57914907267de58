#!/usr/bin/env python
"""Measure and print the tables of the project's reports.

python scripts/benchmark.py metrics
python scripts/benchmark.py speed --quick
python scripts/benchmark.py paper --output-dir paper
"""

import sys

from laboratory import run

if __name__ == "__main__":
    sys.exit(run())
