"""The documentation site: what its pages are made of, and where their links lead."""

from __future__ import annotations

import importlib
from pathlib import Path

import yaml

import hf_maskadapter
from lab.documentation import site

PROJECT = Path(__file__).parents[3]


def navigation(entries: list) -> list[str]:
    """The pages that a part of the navigation names."""
    found = []
    for entry in entries:
        target = next(iter(entry.values())) if isinstance(entry, dict) else entry
        found += navigation(target) if isinstance(target, list) else [target]
    return found


def test_every_public_name_stands_on_one_page_of_the_reference():
    pages = site.reference_pages()
    entries = [line.removeprefix("::: hf_maskadapter.") for page in pages.values() for line in page.splitlines()]
    entries = [line for line in entries if not line.startswith("#")]
    for name, module in hf_maskadapter._MODULE_OF.items():
        assert entries.count(f"{module}.{name}") == 1, name
    for package in ("conversion", "data", "evaluation", "exchange", "hub", "miniature", "visualization"):
        for name in importlib.import_module(f"hf_maskadapter.{package}").__all__:
            assert entries.count(f"{package}.{name}") == 1, f"{package}.{name}"


def test_every_topic_of_the_reference_has_names():
    assert all("\n::: " in page for file, page in site.reference_pages().items() if file != "reference/commands.md")


def test_the_page_of_commands_has_every_command_and_option():
    from hf_maskadapter.cli import build_parser

    page = site.reference_pages()["reference/commands.md"]
    for name, command in site.subcommands(build_parser()).items():
        section = page.split(f"\n## maskadapter {name}\n")[1].split("\n## ")[0]
        for action in command._actions:
            for option in action.option_strings:
                assert action.help == "==SUPPRESS==" or f"`{option}" in section, option


def test_the_navigation_names_every_page_once():
    text = (PROJECT / "mkdocs.yml").read_text(encoding="utf-8")
    named = navigation(yaml.safe_load(text)["nav"])
    written = [page.relative_to(PROJECT / "docs").as_posix() for page in (PROJECT / "docs").rglob("*.md")]
    brought = [page for page in site.SITE_PATHS.values() if page.endswith(".md")]
    assert sorted(named) == sorted([*written, *brought, *site.reference_pages()])


def test_the_site_fetches_nothing_from_elsewhere():
    settings = yaml.safe_load((PROJECT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert settings["theme"]["font"] is False
    assert "extra_javascript" not in settings
    assert all("//" not in sheet for sheet in settings["extra_css"])


def test_links_between_files_of_the_repository_become_links_of_the_site():
    page = "see [training](docs/learn/train.md#two-stages), [the licence](LICENSE), ![x](model_cards/results/demo.png)"
    expected = "see [training](learn/train.md#two-stages), the licence, ![x](results/demo.png)"
    assert site.site_links(page, "index.md", "README.md") == expected

    page = (
        "[home](../../README.md), [next](train.md), [names](../reference/models.md), [web](https://a.org/b), [up](#up)"
    )
    expected = (
        "[home](../index.md), [next](train.md), [names](../reference/models.md), [web](https://a.org/b), [up](#up)"
    )
    assert site.site_links(page, "learn/pictures.md", "docs/learn/pictures.md") == expected


def test_code_is_no_link():
    page = "```python\nfound[0](a)\n```\n[all](CHANGELOG.md)\n"
    assert site.site_links(page, "index.md", "README.md") == "```python\nfound[0](a)\n```\n[all](about/changelog.md)\n"


def test_the_migration_page_shows_every_moved_path():
    page = (PROJECT / "docs" / "migration.md").read_text(encoding="utf-8")
    assert site.MOVED_PATHS in page
    table = site.moved_paths()
    assert "| `hf_maskadapter.vocabulary` | `hf_maskadapter.model.vocabulary` |" in table.splitlines()
    assert len(table.splitlines()) == 2 + len(hf_maskadapter._MOVED)
