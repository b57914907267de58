"""The example notebooks hold what the documentation's pages hold, with outputs worth looking at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.documentation.notebooks import NOTEBOOKS, SETUP, page_cells
from support.documentation import blocks, command_lines

PROJECT = Path(__file__).parents[3]


def cells_of(notebook: str) -> list[dict]:
    return json.loads((PROJECT / notebook).read_text(encoding="utf-8"))["cells"]


@pytest.mark.parametrize(("notebook", "page"), NOTEBOOKS.items())
def test_a_notebook_is_what_its_page_becomes(notebook, page):
    written = [(cell["cell_type"], "".join(cell["source"])) for cell in cells_of(notebook)]
    again = "run python -m lab.documentation.notebooks"
    assert written == page_cells((PROJECT / page).read_text(encoding="utf-8"), page, notebook), again


@pytest.mark.parametrize(("notebook", "page"), NOTEBOOKS.items())
def test_a_notebook_runs_the_blocks_that_the_test_of_its_page_runs(notebook, page):
    expected = [SETUP]
    for block in blocks((PROJECT / page).read_text(encoding="utf-8")):
        if block.kind == "python":
            expected.append(block.text.rstrip("\n"))
        elif block.kind == "bash" and not block.text.startswith("pip "):
            expected.append("\n".join(f"!{line}" for line in command_lines(block)))
    assert ["".join(cell["source"]) for cell in cells_of(notebook) if cell["cell_type"] == "code"] == expected


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_a_notebook_was_executed_from_its_first_cell_to_its_last_without_an_error(notebook):
    code = [cell for cell in cells_of(notebook) if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert outputs
    assert all(output["output_type"] in ("stream", "execute_result", "display_data") for output in outputs)


def test_the_notebook_of_python_shows_pictures_and_a_result():
    kinds = [
        set(output.get("data", {})) for cell in cells_of("examples/python.ipynb") for output in cell.get("outputs", [])
    ]
    assert sum("image/jpeg" in kind for kind in kinds) == 2
    assert sum("text/html" in kind for kind in kinds) == 1


def test_links_of_a_notebook_lead_on_from_its_own_folder():
    page = (
        "# Title\n\n[next](train.md), [home](../../README.md), [names](../reference/models.md), [web](https://a.org)\n"
    )
    expected = "# Title\n\n[next](../docs/learn/train.md), [home](../README.md), names, [web](https://a.org)"
    assert page_cells(page, "docs/learn/x.md", "examples/x.ipynb")[-1] == ("markdown", expected)
