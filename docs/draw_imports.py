"""Draws which room imports which: `python docs/draw_imports.py [CHECKOUT]`.

A room is a direct child of a folder, a file or a folder with all below it; an arrow A -> B means that something in A
imports something in B. `__init__.py` of the folder itself is no room. Prints the number of arrows of every folder, the
import circles between modules, and the rooms of the whole project as a Mermaid graph.
"""

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOP = ("memory", "policies", "sim", "deploy", "scripts")
FOLDERS = ("memory", "memory/designs", "memory/success", "memory/train", "policies", "sim", "sim/bench", "deploy")
Arrows = set[tuple[str, str]]


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Every module of the project by its installed name."""
    found = {}
    for base in (*(root / top for top in TOP), root / "vlamem" / "core"):
        for path in sorted(base.rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join(parts if parts[0] == "vlamem" else ("vlamem", *parts))
            found[name.removesuffix(".__init__")] = path
    return found


def imports(path: Path, known: Mapping[str, Path], top_level: bool = False) -> Iterator[str]:
    """Modules of the project that a file imports; with `top_level` only those that importing it imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in _running(tree) if top_level else ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for name in node.names:
                yield from (m for m in (f"{node.module}.{name.name}", node.module) if m in known)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name in known)


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes that are run when a module is imported: no bodies of functions, nothing for type checkers alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from _running(node)


def arrows(folder: str, root: Path = ROOT) -> Arrows:
    """Arrows between the rooms of a folder."""
    known, base, found = modules(root), root / folder, set()

    def room(path: Path) -> str | None:
        if not path.is_relative_to(base) or path == base / "__init__.py":
            return None
        return path.relative_to(base).with_suffix("").parts[0]

    for path in known.values():
        here = room(path)
        for module in imports(path, known) if here else ():
            there = room(known[module])
            if there is not None and there != here:
                found.add((here, there))
    return found


def _with_packages(importer: str, imported: Iterator[str]) -> set[str]:
    """The modules and the packages that they lie in, which are imported first; not those of the importer itself."""
    found = set()
    for module in imported:
        while "." in module:
            if module != importer and not importer.startswith(f"{module}."):
                found.add(module)
            module = module.rpartition(".")[0]
    return found


def circles(root: Path = ROOT) -> list[list[str]]:
    """Modules that import each other when they are imported, each circle once (Tarjan 1972)."""
    known = modules(root)
    graph = {name: sorted(_with_packages(name, imports(path, known, top_level=True))) for name, path in known.items()}
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        stack.append(name)
        for other in graph.get(name, ()):
            if other not in order:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], order[other])
        if low[name] == order[name]:
            at = stack.index(name)
            circle = stack[at:]
            del stack[at:]
            if len(circle) > 1:
                found.append(sorted(circle))

    sys.setrecursionlimit(10_000)
    for name in graph:
        if name not in order and name in graph:
            visit(name)
    return found


def mermaid(root: Path = ROOT) -> str:
    """The rooms of the project's top folders and their arrows."""
    lines = ["graph TD"]
    for folder in ("sim", "deploy", "memory", "policies"):
        rooms = sorted({room for arrow in arrows(folder, root) for room in arrow})
        lines += [f"  subgraph {folder}", *(f"    {folder}_{room}[{room}]" for room in rooms), "  end"]
        lines += [f"  {folder}_{a} --> {folder}_{b}" for a, b in sorted(arrows(folder, root))]
    return "\n".join(lines)


def main(words: list[str]) -> int:
    """Prints the drawing; 1 when there is a circle."""
    root = Path(words[0]).resolve() if words else ROOT
    for folder in FOLDERS:
        if (root / folder).is_dir():
            print(f"{folder}: {len(arrows(folder, root))} arrows")
    found = circles(root)
    for circle in found:
        print("circle:", " ".join(circle))
    print(mermaid(root))
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
