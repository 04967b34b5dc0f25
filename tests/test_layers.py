"""The house holds: imports go down only, there are no circles, and tests take no package's name."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAY_IMPORT = {
    "isa": {"isa"},
    "passes": {"passes", "isa"},
    "runtime": {"runtime", "isa"},
    "pimc": {"pimc", "passes", "runtime", "isa"},
}
MAX_MODULE_LINES = 500


def read_modules() -> dict[str, str]:
    """Return dotted module name -> source text of the four packages."""
    found: dict[str, str] = {}
    for package in MAY_IMPORT:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = path.read_text(encoding="utf-8")
    return found


def imported_names(source: str) -> Iterator[str]:
    """Yield every name that a module imports, wherever the import stands in it.

    Imports inside functions and under TYPE_CHECKING count like any other: an arrow is an arrow,
    and a circle that a late import heals is still a circle.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import: write the full name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            called = ast.unparse(node.func)
            first = node.args[0]
            if called.endswith(("import_module", "__import__")) and isinstance(first, ast.Constant):
                yield str(first.value)


def dependencies(modules: Mapping[str, str]) -> dict[str, set[str]]:
    """Return module -> the modules among `modules` that it imports."""
    graph: dict[str, set[str]] = {}
    for name, source in modules.items():
        graph[name] = set()
        for imported in imported_names(source):
            target = imported
            while target and target not in modules:
                target = target.rpartition(".")[0]
            if target:
                graph[name].add(target)
    return graph


def wrong_arrows(graph: Mapping[str, set[str]]) -> list[str]:
    """Return `importer -> imported` for every import that does not go down."""
    return [
        f"{name} -> {target}"
        for name, targets in graph.items()
        for target in sorted(targets)
        if target.split(".")[0] not in MAY_IMPORT[name.split(".")[0]]
    ]


def find_circle(graph: Mapping[str, set[str]]) -> list[str]:
    """Return the modules of one import circle, or an empty list."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [str(name) for name in error.args[1]]
    return []


def test_imports_go_down_only() -> None:
    assert wrong_arrows(dependencies(read_modules())) == []


def test_no_import_circles_not_even_healed_by_late_imports() -> None:
    assert find_circle(dependencies(read_modules())) == []


def test_no_package_init_under_tests() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_every_module_says_what_it_is_for() -> None:
    without = [
        name for name, text in read_modules().items() if not ast.get_docstring(ast.parse(text))
    ]
    assert without == []


def test_no_module_grows_past_the_hard_limit() -> None:
    lengths = {name: text.count("\n") for name, text in read_modules().items()}
    assert {name: n for name, n in lengths.items() if n > MAX_MODULE_LINES} == {}


@pytest.mark.parametrize(
    ("importer", "statement"),
    [
        ("isa.a", "from passes.a import x"),
        ("isa.a", "import runtime.a"),
        ("passes.a", "import runtime.a"),
        ("passes.a", "def f():\n    from runtime.a import x"),
        ("runtime.a", "from passes import a"),
        ("runtime.a", "import importlib\nimportlib.import_module('pimc.a')"),
        ("passes.a", "from pimc import a"),
    ],
)
def test_a_forbidden_arrow_is_seen(importer: str, statement: str) -> None:
    modules = {"isa.a": "", "passes.a": "", "runtime.a": "", "pimc.a": "", importer: statement}
    assert len(wrong_arrows(dependencies(modules))) == 1


@pytest.mark.parametrize("late", ["import isa.a", "def f():\n    import isa.a"])
def test_a_circle_is_seen(late: str) -> None:
    graph = dependencies(
        {"isa.a": "from isa.b import x", "isa.b": "from isa import c", "isa.c": late}
    )
    assert set(find_circle(graph)) == {"isa.a", "isa.b", "isa.c"}
