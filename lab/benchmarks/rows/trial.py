"""A computation that only takes its time, to try the comparison itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any


def busy(inputs: Mapping[str, Any], doubled: bool = False) -> Callable[[], dict[str, Any]]:
    """Compute for some CPU seconds, and tell how many calls there were."""
    import torch

    seconds = inputs["seconds"] * (2 if doubled else 1)
    calls = 0

    def compute() -> dict[str, Any]:
        nonlocal calls
        calls += 1
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass
        return {"seconds": seconds, "threads": torch.get_num_threads(), "calls": calls}

    return compute
