"""What MkDocs cannot find in `docs/`: pages of the project's root, pictures of the reports, and the reference.

MkDocs loads this file as a hook (`hooks:` in `mkdocs.yml`). Markdown files link each other as they lie in the
repository, so that they can be read there, too; links are turned into the site's when a page is built.
"""

from __future__ import annotations

import argparse
import ast
import posixpath
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "hf_maskadapter"

SITE_PATHS = {
    "README.md": "index.md",
    "CHANGELOG.md": "about/changelog.md",
    "CONTRIBUTING.md": "about/contributing.md",
    "SECURITY.md": "about/security.md",
    "configs/README.md": "learn/launching.md",
    "findings/README.md": "findings.md",
    "src/hf_maskadapter/data/SCENES.md": "results/scenes.md",
    "model_cards/results/paper.md": "results/paper_tables.md",
    "model_cards/results/speed.md": "results/speed_tables.md",
    "model_cards/results/comparison.md": "results/builds_tables.md",
    "model_cards/results/thresholds.md": "results/thresholds.md",
    "model_cards/results/demo.md": "results/demo.md",
} | {
    str(picture.relative_to(ROOT)): f"results/{picture.name}"
    for picture in sorted((ROOT / "model_cards" / "results").glob("*.png"))
}
"""Files outside `docs/` that are part of the site, and where they lie in it."""

REPOSITORY_PATHS = {site: repository for repository, site in SITE_PATHS.items()}

MOVED_PATHS = "<!-- the table of moved paths -->"
"""Where the migration page shows them."""

LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")
FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files outside `docs/` and the reference pages."""
    from mkdocs.structure.files import File  # here, so that tests read the tables of this file without MkDocs

    for repository, site in SITE_PATHS.items():
        files.append(File.generated(config, site, abs_src_path=str(ROOT / repository)))
    for site, content in reference_pages().items():
        files.append(File.generated(config, site, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Turn links between files of the repository into links between pages of the site."""
    site = page.file.src_uri
    markdown = markdown.replace(MOVED_PATHS, moved_paths())
    return site_links(markdown, site, REPOSITORY_PATHS.get(site, f"docs/{site}"))


def moved_paths() -> str:
    """The table of old import paths, as the package itself has it."""
    from hf_maskadapter import _MOVED, _new_path

    rows = ["| old | new |", "|---|---|"]
    for old in _MOVED:
        path, name = _new_path(old)
        new = path if path.startswith("lab.") else f"hf_maskadapter.{path}"
        rows.append(f"| `hf_maskadapter.{old.replace(':', '.')}` | `{new}{'.' * bool(name)}{name}` |")
    return "\n".join(rows)


def site_links(markdown: str, site: str, repository: str) -> str:
    """Rewrite the links of one page.

    Args:
        markdown: the page's text.
        site: the page's path in the site.
        repository: its path in the repository, from which its links start.

    Returns:
        The text; a link to a file that is not part of the site becomes plain text.
    """

    def rewrite(match: re.Match[str]) -> str:
        picture, text, target = match.groups()
        if re.match(r"[a-z]+:|#", target):
            return match.group()
        path, _, anchor = target.partition("#")
        there = posixpath.normpath(posixpath.join(posixpath.dirname(repository), path))
        if there.startswith("docs/"):
            there = there.removeprefix("docs/")
        elif there in SITE_PATHS:
            there = SITE_PATHS[there]
        elif there.startswith("reference/"):  # made here, and read in the site only
            pass
        else:
            return text
        there = posixpath.relpath(there, posixpath.dirname(site) or ".")
        return f"{picture}[{text}]({there}{'#' * bool(anchor)}{anchor})"

    parts, end = [], 0
    for fence in FENCED.finditer(markdown):
        parts += [LINK.sub(rewrite, markdown[end : fence.start()]), fence.group()]
        end = fence.end()
    return "".join([*parts, LINK.sub(rewrite, markdown[end:])])


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Turn references in the docstrings, which are written as Transformers writes them, into links."""
    from mkdocs.utils import get_relative_url

    anchors = reference_anchors()

    def link(match: re.Match[str]) -> str:
        name = match[1].removeprefix("~")
        owner, _, last = name.rpartition(".")
        owner = owner.rpartition(".")[2]
        known, member = (last, "") if last in anchors else (owner, f".{last}")
        if known not in anchors:
            return f"<code>{name}</code>"
        site, anchor = anchors[known]
        target = get_relative_url(files.src_uris[site].url, page.url)
        return f'<a href="{target}#{anchor}{member}"><code>{name}</code></a>'

    html = re.sub(r"\[<code>(~?[A-Za-z_][\w.]*)</code>\]", link, html)
    return re.sub(r"<code>([^<]*`[^<]*)</code>", lambda match: match.group().replace("`", ""), html)


@cache
def reference_anchors() -> dict[str, tuple[str, str]]:
    """Page and anchor of each public name."""
    return {
        path.rpartition(".")[2]: (site, f"hf_maskadapter.{path}")
        for site, page in reference_pages().items()
        for path in re.findall(r"^::: hf_maskadapter\.(\S+)$", page, re.MULTILINE)
    }


def public_names() -> dict[str, list[str]]:
    """The public names: for each package that has an `__all__`, the dotted paths of its names, below `hf_maskadapter`.

    Read from the source, so that neither PyTorch nor Transformers is imported. The package's own names are those of its
    table of lazily loaded names; paths lead to the modules that define them.
    """
    found: dict[str, list[str]] = {"": lazy_names()}
    for init in sorted(PACKAGE.rglob("__init__.py")):
        package = ".".join(init.parent.relative_to(PACKAGE).parts)
        for node in ast.parse(init.read_text(encoding="utf-8")).body:
            if package and isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "__all__":
                found[package] = [f"{package}.{name}" for name in ast.literal_eval(node.value)]
    return found


def lazy_names() -> list[str]:
    """Dotted paths of the names that `hf_maskadapter` itself offers."""
    from hf_maskadapter import _MODULE_OF

    return [f"{module}.{name}" for name, module in _MODULE_OF.items()]


TOPICS = (
    ("models", "Models", r"model\.(modeling_maskadapter|modeling_adapter.*|modeling_text_.*|mask_embedding|cpu_mlp)\."),
    ("clips", "CLIPs", r"model\.modeling_clip.*\."),
    ("mask_generators", "Mask generators", r"model\.modeling_mask_generator.*\."),
    ("configurations", "Configurations", r"model\.configuration_.*\."),
    ("processors", "Processors and vocabularies", r"model\.(image_processing_.*|processing_.*|vocabulary|pictures)\."),
    ("results", "Pipeline, masks and segments", r"model\..*"),
    ("weights", "Checkpoints and adapters", r".*"),
)
"""Pages of the names that `hf_maskadapter` itself offers: file, title, the modules that belong there (first fit)."""


def reference_pages() -> dict[str, str]:
    """The reference: a page for each topic of the main names, one for each package, one for the commands."""
    names = public_names()
    pages: dict[str, str] = {}
    topics: dict[str, list[str]] = {file: [] for file, _, _ in TOPICS}
    main_names = names.pop("")
    for path in sorted(set(main_names) - {path for paths in names.values() for path in paths}, key=main_names.index):
        topics[next(file for file, _, modules in TOPICS if re.match(modules, path))].append(path)
    for file, title, _ in TOPICS:
        pages[f"reference/{file}.md"] = reference_page(
            title, "All of these are imported from `hf_maskadapter`.", topics[file]
        )
    for package, paths in names.items():
        if package == "cli":
            pages["reference/commands.md"] = commands_page()
            continue
        init = PACKAGE / package.replace(".", "/") / "__init__.py"
        docstring = ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))) or ""
        title = f"hf_maskadapter.{package}"
        pages[f"reference/{package.replace('.', '_')}.md"] = reference_page(title, docstring, paths)
    return pages


def reference_page(title: str, introduction: str, paths: list[str]) -> str:
    """One page of docstrings."""
    entries = [f"::: hf_maskadapter.{path}" for path in paths]
    return "\n\n".join([f"# {title}", introduction, *entries, ""])


def commands_page() -> str:
    """Every command with its options, as its `--help` has them."""
    from hf_maskadapter.cli import build_parser

    parts = ["# Commands", "What `maskadapter COMMAND --help` says. `-` and `_` in an option's name mean the same."]
    for name, command in subcommands(build_parser()).items():
        parts += [f"## maskadapter {name}", command.description or "", f"```text\n{usage(command, name)}\n```"]
        for group in command._action_groups:
            shown = [action for action in group._group_actions if action.help != argparse.SUPPRESS]
            if shown:
                parts += [f"**{(group.title or 'options').capitalize()}**", *map(definition, shown)]
    return "\n\n".join([*parts, ""])


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The commands of a parser by name."""
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return dict(commands.choices)


def usage(command: argparse.ArgumentParser, name: str) -> str:
    """The command with what it needs."""
    needed = [action for action in command._actions if action.required or not action.option_strings]
    return " ".join([f"maskadapter {name}", *map(signature, needed), "[OPTIONS]"])


def signature(action: argparse.Action) -> str:
    """An option as one types it: its longest name and its value."""
    words = [max(action.option_strings, key=len)] if action.option_strings else []
    if action.nargs != 0:
        choices = "{" + ",".join(map(str, action.choices)) + "}" if action.choices else ""
        value = action.metavar if isinstance(action.metavar, str) else choices or action.dest.upper()
        words.append(value + "..." * (action.nargs in ("*", "+")))
    return " ".join(words)


def definition(action: argparse.Action) -> str:
    """An option and its help, as an entry of a definition list."""
    names = [f"`{signature(action)}`", *(f"`{name}`" for name in sorted(action.option_strings, key=len)[:-1])]
    text = (action.help or "").replace("%(default)s", str(action.default)).replace("%%", "%")
    return f"{', '.join(names)}\n:   {text}"
