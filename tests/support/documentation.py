"""The pages of the documentation, and their code blocks, run as they stand."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from hf_maskadapter import cli
from hf_maskadapter.cli.errors import EXIT_TERMINATED
from support.commands import ENVIRONMENT, command

PROJECT = Path(__file__).parents[2]
README = PROJECT / "README.md"
PAGES = [README, *sorted((PROJECT / "docs").rglob("*.md"))]

FENCE = re.compile(r"^(?P<before>[^\n]*)\n(?:[ \t]*\n)*^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
SERVED = re.compile(r"--port (\d+) &$", re.MULTILINE)
COMMENT = re.compile(r"<!-- (?P<word>slow|not run): (?P<reason>[^>]+) -->")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        kind: the language that it names.
        text: what it holds.
        line: number of lines of the page before it.
        comment: the word of the comment in the line before it (`slow` or `not run`), or an empty text.
        reason: what that comment gives as its reason.
    """

    kind: str
    text: str
    line: int
    comment: str = ""
    reason: str = ""


def blocks(page: str) -> list[Block]:
    """The code blocks of a page's text, in its order."""
    found = []
    for match in FENCE.finditer(page):
        comment = COMMENT.fullmatch(match["before"].strip())
        line = page.count("\n", 0, match.start("text"))
        found.append(Block(match["kind"], match["text"], line, *(comment.groups() if comment else ())))
    return found


def prose(page: str) -> str:
    """A page's text without its code blocks."""
    return re.sub(r"^```.*?^```$", "", page, flags=re.DOTALL | re.MULTILINE)


def slug(title: str) -> str:
    """The anchor of a heading, as GitHub and MkDocs make it."""
    plain = re.sub(r"[^\w\s-]", "", title.replace("`", "")).strip().lower()
    return re.sub(r"\s", "-", plain)


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings."""
    return {slug(title) for title in re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)}


def links(page: str) -> list[str]:
    """Where a page's links and pictures lead."""
    return re.findall(r"\]\(([^()\s]+)\)", prose(page))


def commands(line: str) -> list[list[str]]:
    """The commands of a shell line, as lists of words."""
    return [shlex.split(command, comments=True) for command in line.split(" && ")]


def command_lines(block: Block) -> list[str]:
    """The lines of a shell block, continued ones joined."""
    return [line for line in block.text.replace("\\\n", " ").strip().splitlines() if not line.startswith("#")]


def launched(words: list[str]) -> list[str]:
    """The arguments of Python that `accelerate launch ...` or `python ...` run, in one process."""
    arguments = words[2:] if words[:2] == ["accelerate", "launch"] else words[1:]
    return [sys.executable, *arguments]


def run_line(line: str) -> None:
    """Run a shell line of `maskadapter` commands and launched scripts; installing is not repeated."""
    for words in commands(line):
        if not words or words[0] == "pip":
            continue
        if words[0] in ("accelerate", "python"):
            finished = subprocess.run(launched(words), capture_output=True, text=True)
            assert finished.returncode == 0, f"{line}\n{finished.stdout}\n{finished.stderr}"
        else:
            assert words[0] == "maskadapter", f"a page runs {words[0]}, which the tests do not know"
            assert cli.main(words[1:]) == 0, line


def run_page(name: str, found: list[Block], namespace: dict) -> None:
    """Run the blocks of a page from the first to the last; Python blocks share their names.

    A command that ends with `&` runs until the page ends, at a free port in place of the one that the page names.
    """
    ports = {port: str(_free_port()) for block in found for port in SERVED.findall(block.text)}

    def at_free_ports(text: str) -> str:
        for port, free in ports.items():
            text = re.sub(rf"\b{port}\b", free, text)
        return text

    with contextlib.ExitStack() as servers:
        for block in found:
            if block.kind == "python":
                exec(compile("\n" * block.line + at_free_ports(block.text), name, "exec"), namespace)
            elif block.kind == "bash" and "pytest" not in block.text:
                for line in command_lines(block):
                    if line.endswith(" &"):
                        servers.enter_context(_running(at_free_ports(line.removesuffix(" &"))))
                    else:
                        run_line(line)
            elif block.kind == "json":
                json.loads(block.text)
            elif block.kind == "yaml":
                yaml.safe_load(block.text)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@contextlib.contextmanager
def _running(line: str) -> Iterator[None]:
    """Run a command of `maskadapter` beside the block, and end it gently."""
    program, *arguments = shlex.split(line)
    assert program == "maskadapter", f"a page starts {program}, which the tests do not know"
    process = subprocess.Popen(command(*arguments), env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    try:
        yield
        assert process.poll() is None, f"{line} ended by itself"
        process.terminate()
        process.communicate(timeout=120)
        assert process.returncode == EXIT_TERMINATED, line
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
