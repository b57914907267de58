"""Results in the formats of other tools, and back: COCO, label maps, Label Studio, CVAT.

[`write_results`] writes the results of pictures, [`read_results`] reads them or what was made of them; a
[`ResultWriter`] does the same picture by picture and goes on where it was stopped. Each format has a file of its own.
"""

from .errors import ExchangeError
from .formats import ResultFormat
from .reading import LeftOut, StoredResults
from .writing import FORMATS, ResultWriter, read_results, write_results

__all__ = [
    "FORMATS",
    "ExchangeError",
    "LeftOut",
    "ResultFormat",
    "ResultWriter",
    "StoredResults",
    "read_results",
    "write_results",
]
