"""Who may import whom, and who alone may print, exit, reach the outside or catch everything.

ARCHITECTURE.md holds the picture of the imports: between two marks, a line for each module or package.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from sqlglot import exp, parse_one

from cloudfsck import tables

REPO = Path(__file__).parents[1]
ROOT = REPO / "cloudfsck"

#: Programs of their own, which run on a hypervisor or stand for one.
PROGRAMS = {
    "sources/probe.py",
    "sources/images.py",
    "acts/hand.py",
    "demo/kernel.py",
    "demo/neutron.py",
    "demo/virsh.py",
}

MAY_CATCH_EVERYTHING = {
    "cli.py": "a fault of ours must not end with the status that says that faults were corrected",
    "remote.py": "whatever a host's connection raises is handed to the caller",
    "snapshot.py": "a stream that breaks off is a gap; connectorx panics with a BaseException",
    "sources/database.py": "the same: a PanicException is no Exception",
    "sources/nova.py": "whatever a source raises is a gap with its reason",
    "sources/service.py": "the same",
    "sources/probe.py": "whatever fails on a host is said in the answer",
    "sources/images.py": "the same",
    "acts/hand.py": "whatever fails on a host is said in the answer",
}

#: Libraries that reach something outside, and who alone may use them.
REACHES = {
    "asyncssh": {"remote.py"},
    "connectorx": {"sources/database.py"},
    "keystoneauth1": {"acts/api.py"},
    "openstack": {"acts/api.py"},
    "requests": {"acts/api.py"},
    "dns": {"sources/dns.py", "acts/dns.py"},
    "subprocess": {"remote.py", "sources/dns.py", *PROGRAMS, "demo"},  # dig transfers zones
    # the lease says which machine holds it
    "socket": {"sources/ovsdb.py", "sources/dns.py", "state.py", "demo", *PROGRAMS},
    "typer": {"cli.py"},
}

Picture = dict[str, frozenset[str]]

FILES = {path.relative_to(ROOT).as_posix(): path for path in sorted(ROOT.rglob("*.py"))}
EACH_FILE = pytest.mark.parametrize("name", FILES)


def tree(name: str) -> ast.Module:
    return ast.parse(FILES[name].read_text(encoding="utf-8"))


def part(name: str) -> str:
    """The module or package right under cloudfsck to which a file belongs."""
    return name.removesuffix(".py").split("/")[0]


PARTS = frozenset(part(name) for name in FILES) - {"__init__"}


def imports(name: str, module: ast.Module) -> Iterator[str]:
    """The full names of all that a file imports, also inside functions: 'sys', 'cloudfsck.acts.domain'."""
    package = ["cloudfsck", *name.split("/")[:-1]]
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def ours(name: str, module: ast.Module) -> frozenset[str]:
    """The parts of cloudfsck that a file imports, but for its own."""
    found = {full.split(".")[1] for full in imports(name, module) if full.startswith("cloudfsck.")}
    return frozenset(found & PARTS - {part(name)})


def picture(text: str) -> Picture:
    """The picture between the marks.  Raises ValueError if there is none, or a line is not `name: names`."""
    block = re.search(r"<!-- imports -->\s*```[a-z]*\n(.*?)```\s*<!-- /imports -->", text, re.DOTALL)
    if block is None:
        raise ValueError("there is no picture of the imports")
    lines = {}
    for line in filter(str.strip, block[1].splitlines()):
        match = re.fullmatch(r"\s*(\w+)\s*:\s*(-|\w+(?:\s+\w+)*)\s*", line)
        if match is None:
            raise ValueError(f"not `name: names`: {line!r}")
        if match[1] in lines:
            raise ValueError(f"{match[1]} stands there twice")
        lines[match[1]] = frozenset() if match[2] == "-" else frozenset(match[2].split())
    return lines


def drawn() -> Picture:
    """What the picture must say: every part with what it imports."""
    found: dict[str, set[str]] = {name: set() for name in sorted(PARTS)}
    for name in FILES:
        if name != "__init__.py":
            found[part(name)] |= ours(name, tree(name))
    return {name: frozenset(names) for name, names in found.items()}


def test_a_picture_is_read() -> None:
    text = "before\n<!-- imports -->\n```text\nmodel: -\nchecking:  model tables\n\n```\n<!-- /imports -->\nafter"
    assert picture(text) == {"model": frozenset(), "checking": frozenset({"model", "tables"})}


@pytest.mark.parametrize("text", [
    "no picture",
    "<!-- imports -->\n```\nmodel ->  x\n```\n<!-- /imports -->",
    "<!-- imports -->\n```\nmodel:\n```\n<!-- /imports -->",
    "<!-- imports -->\n```\nmodel: -\nmodel: -\n```\n<!-- /imports -->",
])  # fmt: skip
def test_a_picture_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no picture|not `name|twice"):
        picture(text)


def test_imports_are_seen_however_they_are_written() -> None:
    module = ast.parse(
        "import cloudfsck.tables\nfrom cloudfsck import snapshot\nfrom . import domain\nfrom ..model import Act\n"
        "from cloudfsck import __version__\ndef late():\n    from cloudfsck.acts.domain import Pause\n    import sys\n"
    )
    assert ours("checks/one.py", module) == {"tables", "snapshot", "model", "acts"}


def test_the_picture_is_what_the_code_says() -> None:
    should = drawn()
    lines = "\n".join(f"{name}: {' '.join(sorted(names)) or '-'}" for name, names in should.items())
    assert picture((REPO / "ARCHITECTURE.md").read_text(encoding="utf-8")) == should, f"it should say\n{lines}"


def test_imports_run_in_no_circle() -> None:
    try:
        TopologicalSorter(drawn()).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_the_model_imports_nothing_of_ours() -> None:
    assert drawn()["model"] == frozenset()


def test_a_check_reads_only_the_snapshot() -> None:
    assert drawn()["checks"] <= {"model", "acts"}
    for name in FILES:
        if name.startswith("checks/") and name != "checks/__init__.py":
            foreign = {full.split(".")[0] for full in imports(name, tree(name))} - {"cloudfsck", "__future__"}
            assert foreign <= {"collections", "datetime"}, name


def test_what_is_pure_knows_of_no_source_and_no_act() -> None:
    for name in ("model", "tables", "snapshot", "checking", "scenario"):
        assert not drawn()[name] & {"sources", "acts", "remote", "cli"}, name
    assert not drawn()["screen"] & {"sources", "remote", "state", "cli"}


@pytest.mark.parametrize("name", [name for name in sorted(PROGRAMS) if not name.startswith("demo/")])
def test_a_program_for_hypervisors_stands_alone(name: str) -> None:
    foreign = {full.split(".")[0] for full in imports(name, tree(name))} - set(sys.stdlib_module_names)
    assert foreign == set()


@EACH_FILE
def test_only_the_command_line_prints_or_exits(name: str) -> None:
    if name == "cli.py" or name in PROGRAMS:
        return
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("print", "exit", "quit", "sys.exit", "os._exit", "os.abort"), f"line {node.lineno}"
            assert not called.endswith((".print", ".echo", "stdout.write", "stderr.write")), f"line {node.lineno}"
        if isinstance(node, ast.Raise) and node.exc is not None:
            assert not ast.unparse(node.exc).startswith(("SystemExit", "typer.Exit")), f"line {node.lineno}"


@EACH_FILE
def test_only_who_must_catches_everything(name: str) -> None:
    catches = []
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.ExceptHandler) and not _passes_on(node):
            kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            catches += [kind is None or ast.unparse(kind) in ("Exception", "BaseException") for kind in kinds]
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
            catches += [ast.unparse(kind) in ("Exception", "BaseException") for kind in node.args]
    assert any(catches) == (name in MAY_CATCH_EVERYTHING), MAY_CATCH_EVERYTHING.get(name, "it may not")


def _passes_on(handler: ast.ExceptHandler) -> bool:
    """Whether it only tidies up, and raises again what it caught."""
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


@EACH_FILE
def test_only_who_must_reaches_the_outside(name: str) -> None:
    used = {full.split(".")[0] for full in imports(name, tree(name))}
    for library, may in REACHES.items():
        assert library not in used or name in may or part(name) in may, library


@EACH_FILE
def test_each_module_says_in_one_sentence_what_it_is(name: str) -> None:
    said = (ast.get_docstring(tree(name)) or "").split("\n\n")[0]
    assert said.rstrip().endswith((".", ":")), "its first paragraph is its sentence"


@pytest.mark.parametrize("table", [table for table in tables.TABLES if table.where], ids=lambda table: table.name)
def test_what_a_table_is_filtered_by_is_read_and_so_granted(table: tables.Table) -> None:
    read = {column.name for one in tables.TABLES if one.per == table.per for column in one.columns}
    filter_by = parse_one(table.where.replace("{key}", '"key"'))
    assert {column.name for column in filter_by.find_all(exp.Column)} <= read
