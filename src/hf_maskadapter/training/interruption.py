"""Ctrl-C and SIGTERM during training: noted, so that the loop can save a checkpoint before it ends."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
ECHO_SECONDS = 2.0
"""Launchers pass Ctrl-C on to processes that the terminal has told already: so long it counts as the same one."""


class TrainingInterrupted(KeyboardInterrupt):
    """A training was ended by a signal, after a checkpoint was saved.

    Args:
        signal_number: the signal.
        step: the last optimiser step that was done.
        checkpoint: the folder of its checkpoint.
    """

    def __init__(self, signal_number: int, step: int, checkpoint: Path) -> None:
        self.signal_number, self.step, self.checkpoint = signal.Signals(signal_number), step, checkpoint
        super().__init__(f"interrupted by {self.signal_number.name} after step {step}, saved in {checkpoint}")


class ValidationInterrupted(KeyboardInterrupt):
    """A validation ended before it had a result, since a signal asks for an end: raised on all processes."""


class StopSignals:
    """Within it, the first SIGINT or SIGTERM is only noted; the second one has its usual effect, at once.

    Python handles signals in the main thread alone: elsewhere nothing is noted, and signals do what they did. One that
    came before, and that a library swallowed, has its effect at the beginning, if the handler before remembers it.

    Attributes:
        received: the signal that came within it, if one did.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._at: float = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        self.received = None
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                if getattr(signal.getsignal(number), "received", None) == number:  # before, and it did not arrive
                    signal.raise_signal(number)
            self._before = {number: signal.signal(number, self._note) for number in STOP_SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def is_received(self) -> bool:
        """Whether one came; what takes long asks now and then."""
        return self.received is not None

    def _note(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.received is None:
            self.received, self._at = number, now
        elif now - self._at > ECHO_SECONDS:
            self.__exit__()
            signal.raise_signal(number)


__all__ = ["STOP_SIGNALS", "StopSignals", "TrainingInterrupted", "ValidationInterrupted"]
