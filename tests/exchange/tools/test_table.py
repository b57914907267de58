"""The documentation's table of what other tools change."""

import re
from pathlib import Path

PROJECT = Path(__file__).parents[3]


def test_each_row_names_a_test_that_there_is():
    defined = {
        name
        for path in (PROJECT / "tests" / "exchange").rglob("test_*.py")
        for name in re.findall(r"^ *(?:def|class) (test_\w+|Test\w+)", path.read_text(), re.MULTILINE)
    }
    page = (PROJECT / "docs" / "other_tools.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if re.match(r"\| (datumaro|label|supervision|pycoco)", line)]
    assert len(rows) > 20
    for row in rows:
        names = re.findall(r"`(?:test_\w+\.py::)?(test_\w+|Test\w+)`", row.rsplit("|", 2)[1])
        assert names or "tests/exchange/" in row, row
        assert set(names) <= defined, row
