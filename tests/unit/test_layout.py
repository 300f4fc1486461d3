"""The house keeps its floors: who imports whom, with no circle, and no topology without a test."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("packets", "topologies", "controller", "hosts", "experiments", "benchmarks")

# What each floor may import of ours, besides itself.
FLOORS = {
    "packets": (),
    "topologies": (),
    "controller": ("packets", "topologies"),
    "hosts": (
        "packets",
        "topologies",
        "controller.engines",
        "controller.intelligence",
        "controller.topology",
        "controller.values",
    ),
    "experiments": ("packets", "topologies", "controller", "hosts"),
    "benchmarks": ("packets", "topologies", "controller", "hosts", "experiments"),
}
# The rooms of the control centre, from the lowest: each knows those in lines above it, and itself.
ROOMS = (
    ("errors",),
    ("values", "runtime"),
    ("store", "domain"),
    ("engines", "southbound"),
    ("topology", "plugins"),
    ("intelligence",),
    ("tools",),
    ("border",),
    ("placement",),
    ("services",),
    ("access",),
    ("steering",),
    ("inference", "training"),
    ("dcc",),
    ("oam",),
    ("app", "lives"),
    ("__main__",),
)
MOST_LINES, MOST_MODULES = 350, 15
LONGER: set[str] = set()  # nothing is longer, and nothing is to be
FOR_TYPES_ALONE = {  # still to be opened; this list only shrinks
    "experiments.scenarios.events": "experiments.testbed.testbed",
}
TOLD_IN_WORDS = 0.9  # of the public classes and functions of the control centre
SIZED = ("controller", "hosts", "experiments", "packets")
# The engines decide; they know no OpenFlow, no socket, no clock and no thread of their own.
NOT_IN_ENGINES = (
    "os_ken",
    "socket",
    "asyncio",
    "selectors",
    "time",
    "datetime",
    "threading",
    "subprocess",
    "sqlite3",
    "flask",
)


def modules(package: str) -> Iterator[Path]:
    return (path for path in sorted((ROOT / package).rglob("*.py")) if "__pycache__" not in path.parts)


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


ALL = {dotted(path): path for package in PACKAGES for path in modules(package)}


def imports(tree: ast.AST, *, at_load: bool = False) -> Iterator[str]:
    """Names of imported modules; ``at_load``: only those that run when the module is loaded."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            module = node.module or ""
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names if f"{module}.{alias.name}" in ALL)
        elif at_load and (isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or is_type_checking(node)):
            continue
        else:
            yield from imports(node, at_load=at_load)


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def under(name: str, roots: tuple[str, ...]) -> bool:
    return any(name == root or name.startswith(root + ".") for root in roots)


def breaches(module: str, source: str) -> list[str]:
    """Which imports of a module go up, sideways where it is not allowed, or to what its floor does not know."""
    package = module.split(".")[0]
    names = list(imports(ast.parse(source)))
    ours = [name for name in names if under(name, PACKAGES)]
    if package == "hosts":  # ``from controller import engines`` names the package first
        ours = [name for name in ours if name != "controller"]
    bad = [name for name in ours if not under(name, (package, *FLOORS[package]))]
    if package in ("controller", "hosts"):
        bad += [name for name in names if under(name, ("scapy",))]
    if under(module, ("controller.engines", "controller.intelligence", "controller.topology")):
        bad += [name for name in names if under(name, NOT_IN_ENGINES)]
    return bad


@pytest.mark.parametrize("module", sorted(ALL))
def test_a_module_imports_only_floors_below_it(module: str) -> None:
    assert breaches(module, ALL[module].read_text()) == []


def rises(module: str, source: str) -> list[str]:
    """Which imports of a module of the control centre go to a room above its own, or to another one beside it."""
    at = {name: floor for floor, names in enumerate(ROOMS) for name in names}
    room = module.split(".")[1]
    others = [name for name in imports(ast.parse(source)) if name.startswith("controller.")]
    return [n for n in others if (other := n.split(".")[1]) != room and at[other] >= at[room] and n in ALL]


IN_ROOMS = sorted(name for name in ALL if name.startswith("controller."))


@pytest.mark.parametrize("module", IN_ROOMS)
def test_a_room_of_the_control_centre_knows_only_rooms_below_it(module: str) -> None:
    assert rises(module, ALL[module].read_text()) == []


def test_rises_are_seen() -> None:
    assert rises("controller.access.x", "from controller.training.groups import decide") == [
        "controller.training.groups"
    ]
    assert rises("controller.engines.x", "def f():\n    import controller.topology.krrm") == [
        "controller.topology.krrm"
    ]
    assert rises("controller.training.x", "from controller.access.places import Places") == []


def test_no_module_and_no_folder_is_too_large() -> None:
    paths = [path for package in SIZED for path in modules(package)]
    folders = Counter(path.parent for path in paths if path.name != "__init__.py")
    assert {str(f.relative_to(ROOT)): n for f, n in folders.items() if n > MOST_MODULES} == {}
    lines = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in paths}
    assert {path for path, n in lines.items() if n > MOST_LINES} == LONGER


def public(tree: ast.AST) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield the classes, functions and methods that others may use."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public(node)


def undocumented(tree: ast.AST) -> list[str]:
    return [node.name for node in public(tree) if not ast.get_docstring(node)]


def test_the_control_centre_says_what_it_does() -> None:
    trees = {dotted(path): ast.parse(path.read_text()) for path in modules("controller")}
    silent = {module: names for module, tree in trees.items() if (names := undocumented(tree))}
    everything = sum(len(list(public(tree))) for tree in trees.values())
    assert sum(map(len, silent.values())) <= (1 - TOLD_IN_WORDS) * everything, silent
    assert [path for path, tree in trees.items() if tree.body and not ast.get_docstring(tree)] == []


def test_silence_is_seen() -> None:
    source = 'class A:\n    """Is."""\n    def f(self): ...\n    def _g(self): ...\ndef h(): ...'
    assert undocumented(ast.parse(source)) == ["f", "h"]


def test_breaches_are_seen() -> None:
    assert breaches("packets.x", "from topologies.plan import NetworkPlan") == ["topologies.plan"]
    assert breaches("controller.x", "def f():\n    import hosts.agent") == ["hosts.agent"]
    assert breaches("hosts.x", "from controller.dcc import Dcc\nfrom controller.engines import types") == [
        "controller.dcc"
    ]
    assert breaches("hosts.x", "from scapy.all import IP") == ["scapy.all"]
    assert breaches("controller.engines.x", "import time") == ["time"]
    assert breaches("experiments.x", "import hosts.agent, controller.dcc") == []


def circle(edges: dict[str, set[str]]) -> list[str]:
    """Return the modules of one import circle, or nothing."""
    done: set[str] = set()

    def walk(name: str, trail: list[str]) -> list[str]:
        if name in trail:
            return [*trail[trail.index(name) :], name]
        if name in done:
            return []
        for other in sorted(edges.get(name, ())):
            if found := walk(other, [*trail, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(edges) if (found := walk(name, []))), [])


def test_no_import_goes_in_circles() -> None:
    edges = {
        name: {i for i in imports(ast.parse(path.read_text()), at_load=True) if i in ALL} - {name}
        for name, path in ALL.items()
    }
    assert circle(edges) == []


def test_no_import_for_types_alone_goes_in_circles() -> None:
    edges = {n: {i for i in imports(ast.parse(p.read_text())) if i in ALL} - {n} for n, p in ALL.items()}
    for module, other in FOR_TYPES_ALONE.items():
        edges[module].remove(other)
    assert circle(edges) == []


def test_circles_are_seen() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_every_topology_file_is_imported_by_a_test() -> None:
    assigned = {path.stem for path in modules("topologies") if "topos" in assignments(ast.parse(path.read_text()))}
    used = {name for path in (ROOT / "tests").rglob("test_*.py") for name in imports(ast.parse(path.read_text()))}
    assert {stem for stem in assigned if f"topologies.{stem}" not in used} == set()


def assignments(tree: ast.Module) -> set[str]:
    targets = [t for n in tree.body if isinstance(n, ast.Assign) for t in n.targets]
    targets += [n.target for n in tree.body if isinstance(n, ast.AnnAssign)]
    return {t.id for t in targets if isinstance(t, ast.Name)}
