"""The import graph of a folder of Python files: every import statement, inside functions and for type checkers, too."""

import ast
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

Graph = Mapping[str, Mapping[str, int]]
"""For each module, the modules that it imports, with the line that does."""


class ParameterCount(NamedTuple):
    """How many parameters a function takes, `self` and `cls` left out."""

    function: str
    number: int


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules_in(root: Path, base: Path | None = None) -> dict[str, Path]:
    """The modules below a folder, by their names from the folder that Python finds them in, `root` by default."""
    return {module_name(path, base or root): path for path in sorted(root.rglob("*.py"))}


def imported_names(tree: ast.AST, package: str) -> Iterator[tuple[str, int]]:
    """Absolute dotted names that a file of a package imports, as far as they go, with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: -(node.level - 1) or None] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)


def import_graph(root: Path, base: Path | None = None) -> dict[str, dict[str, int]]:
    """The imports among the modules below a folder; for `base` see [`modules_in`]."""
    modules = modules_in(root, base)
    graph: dict[str, dict[str, int]] = {}
    for module, path in modules.items():
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        found: dict[str, int] = {}
        for name, line in imported_names(ast.parse(path.read_text()), package):
            while name and name not in modules:  # a name inside a module, or something from outside
                name = name.rpartition(".")[0]
            if name and name != module:
                found.setdefault(name, line)
        graph[module] = found
    return graph


def find_circle(graph: Graph) -> list[str]:
    """Modules that import each other in a circle, the first one again at the end; empty if there is none."""
    state: dict[str, bool] = {}  # False while on the way, True when done
    for start in graph:
        if start in state:
            continue
        way, pending = [start], [iter(graph[start])]
        state[start] = False
        while way:
            following = next(pending[-1], None)
            if following is None:
                state[way.pop()] = True
                pending.pop()
            elif following not in state:
                state[following] = False
                way.append(following)
                pending.append(iter(graph[following]))
            elif not state[following]:
                return [*way[way.index(following) :], following]
    return []


def draw(graph: Graph, path: list[str]) -> str:
    """A path through the graph, one arrow a line."""
    arrows = pairwise(path)
    return "\n".join(
        [path[0], *(f"  -> {target}  ({source}, line {graph[source][target]})" for source, target in arrows)]
    )


def parameter_counts(paths: Iterable[Path], root: Path) -> Iterator[ParameterCount]:
    """Every function's and method's number of parameters."""
    for path in paths:
        module = module_name(path, root)
        yield from _counts(ast.parse(path.read_text()).body, module)


def _counts(nodes: Iterable[ast.AST], owner: str) -> Iterator[ParameterCount]:
    for node in nodes:
        name = owner
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            name = f"{owner}.{node.name}"
            arguments = node.args
            named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
            named += [extra for extra in (arguments.vararg, arguments.kwarg) if extra is not None]
            yield ParameterCount(name, sum(argument.arg not in ("self", "cls") for argument in named))
        elif isinstance(node, ast.ClassDef):
            name = f"{owner}.{node.name}"
        yield from _counts(ast.iter_child_nodes(node), name)
