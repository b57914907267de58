"""Run `maskadapter` in this process and write what it took: `python -m support.measured_command REPORT ARGUMENT...`.

The report has wall and CPU seconds and the peak of anonymous memory, which mapped files are no part of, for each stage
that the command tells on standard error; and the memory that the imports of the conversion leave.
"""

from __future__ import annotations

import importlib
import json
import sys
import threading
import time
from pathlib import Path

MODULES = ("conversion.convert", "conversion.released", "model.pipeline_zero_shot_image_segmentation")


def anonymous_memory() -> int:
    """Bytes of this process's memory that no file stands behind."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError("/proc/self/status tells no RssAnon")


class Stages:
    """Seconds and peaks of memory between the lines that begin a stage."""

    def __init__(self) -> None:
        self.found: list[dict] = []
        self.begin("start")
        threading.Thread(target=self._watch, daemon=True).start()

    def begin(self, title: str) -> None:
        """Begin a stage."""
        self._tick()
        self.found.append({"stage": title, "at": time.perf_counter(), "cpu": time.process_time(), "peak": 0})
        self._tick()

    def _tick(self) -> None:
        if self.found:
            self.found[-1]["peak"] = max(self.found[-1]["peak"], anonymous_memory())

    def _watch(self) -> None:
        while True:
            self._tick()
            time.sleep(0.01)

    def report(self) -> list[dict]:
        """Each stage with its wall and CPU seconds and its peak."""
        self.begin("end")
        return [
            {
                "stage": one["stage"],
                "seconds": after["at"] - one["at"],
                "cpu_seconds": after["cpu"] - one["cpu"],
                "peak": one["peak"],
            }
            for one, after in zip(self.found, self.found[1:], strict=False)
        ]


class _Lines:
    """Standard error that notes when the command reports a stage."""

    def __init__(self, stream, stages: Stages) -> None:
        self._stream, self._stages = stream, stages

    def write(self, text: str) -> int:
        if text.startswith(("Mask-Adapter", "Converting", "Ready")):
            self._stages.begin(text.split()[0].rstrip(":"))
        return self._stream.write(text)

    def __getattr__(self, name: str):
        return getattr(self._stream, name)


def main() -> int:
    """Run the command and write the report."""
    report, arguments = Path(sys.argv[1]), sys.argv[2:]
    stages = Stages()
    for name in MODULES:
        importlib.import_module(f"hf_maskadapter.{name}")
    from hf_maskadapter import cli

    after_imports = anonymous_memory()
    stages.begin("command")
    sys.stderr = _Lines(sys.stderr, stages)
    status = cli.main(arguments)
    report.write_text(json.dumps({"after_imports": after_imports, "stages": stages.report()}))
    return status


if __name__ == "__main__":
    sys.exit(main())
