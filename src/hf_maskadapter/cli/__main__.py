"""`python -m hf_maskadapter.cli`."""

import sys

from . import main

sys.exit(main())
