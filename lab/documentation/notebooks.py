"""The notebooks in `examples/`, made from pages of the documentation and executed.

Run `python -m lab.documentation.notebooks` in the root of a clone, after a change of those pages; it needs
`pip install -c constraints.txt -e '.[docs,exchange]'`. `--check` executes them without writing.
"""

from __future__ import annotations

import argparse
import posixpath
import re
from typing import Any

from hf_maskadapter.files import write_text
from lab.documentation.site import FENCED, LINK, ROOT

NOTEBOOKS = {
    "examples/python.ipynb": "docs/learn/python.md",
    "examples/own_masks.ipynb": "docs/learn/own_masks.md",
    "examples/annotate.ipynb": "docs/learn/annotate.md",
}
"""Each notebook and the page that it is made from."""

SETUP = 'import os\n\nos.chdir("..")  # the folder of the clone, in which the documentation runs'


def page_cells(text: str, page: str, notebook: str) -> list[tuple[str, str]]:
    """The cells that a page becomes.

    Args:
        text: the page.
        page: its path in the repository, from which its links start.
        notebook: the notebook's path.

    Returns:
        Pairs of `"markdown"` or `"code"` and the cell's source. Python blocks become code, so do commands; blocks that
        install something or are not run stay text.
    """
    cells: list[tuple[str, str]] = []
    end = 0
    for fence in FENCED.finditer(text):
        kind, _, code = fence.group().removeprefix("```").removesuffix("```").partition("\n")
        lines = code.strip("\n").splitlines()
        if kind not in ("python", "bash") or any(line.startswith("pip ") for line in lines):
            continue
        cells += _text_cells(text[end : fence.start()], page, notebook)
        cells.append(("code", "\n".join(lines if kind == "python" else [f"!{line}" for line in lines])))
        end = fence.end()
    return [*cells[:1], ("code", SETUP), *cells[1:], *_text_cells(text[end:], page, notebook)]


def _text_cells(text: str, page: str, notebook: str) -> list[tuple[str, str]]:
    def rewrite(match: re.Match[str]) -> str:
        picture, words, target = match.groups()
        if re.match(r"[a-z]+:|#", target):
            return match.group()
        there = posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
        if not (ROOT / there.partition("#")[0]).exists():  # pages that only the site has
            return words
        return f"{picture}[{words}]({posixpath.relpath(there, posixpath.dirname(notebook))})"

    source = LINK.sub(rewrite, re.sub(r"<!-- .*? -->\n", "", text)).strip()
    return [("markdown", source)] if source else []


def make_notebook(notebook: str, page: str) -> Any:
    """A notebook of a page, executed in its folder.

    Raises:
        nbclient.exceptions.CellExecutionError: if a cell fails.
    """
    import nbformat
    from nbclient import NotebookClient

    cells = page_cells((ROOT / page).read_text(encoding="utf-8"), page, notebook)
    made = nbformat.v4.new_notebook(
        cells=[
            (nbformat.v4.new_code_cell if kind == "code" else nbformat.v4.new_markdown_cell)(
                source, id=f"cell-{number}"
            )
            for number, (kind, source) in enumerate(cells)
        ],
        metadata={"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
    )
    client = NotebookClient(
        made,
        resources={"metadata": {"path": str((ROOT / notebook).parent)}},
        record_timing=False,
        coalesce_streams=True,
    )
    client.execute()
    for cell in made.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in map(_readable, cell.outputs) if output is not None]
    made.metadata.pop("language_info", None)
    return made


def _readable(output: Any) -> Any:
    """An output without what is nobody's reading: progress bars, warnings of the machine at hand, a picture twice."""
    if output.output_type == "stream":
        lines = output.text.replace("\r\n", "\n").split("\n")
        kept = [line for line in lines if "\r" not in line and "%|" not in line]
        output.text = "\n".join(kept).lstrip("\n")
        return output if output.name == "stdout" and output.text.strip() else None
    data = output.get("data", {})
    if "image/jpeg" in data:
        data.pop("image/png", None)
    return output


def main() -> None:
    """Execute every notebook, and write it unless `--check` is given."""
    import nbformat

    parser = argparse.ArgumentParser(description="Make the notebooks in examples/ from pages of the documentation.")
    parser.add_argument("--check", action="store_true", help="execute them without writing")
    check = parser.parse_args().check
    for notebook, page in NOTEBOOKS.items():
        made = make_notebook(notebook, page)
        if not check:
            write_text(ROOT / notebook, nbformat.writes(made, indent=1) + "\n")
        print(f"{notebook}: {sum(cell.cell_type == 'code' for cell in made.cells)} cells ran")


if __name__ == "__main__":
    main()
