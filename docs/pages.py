"""The generated pages of docs/, written from the program itself: `python -m docs.pages`.

With --check it writes nothing, and fails if a page is not what it would write.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from textwrap import dedent, fill
from typing import Any

import typer.main

from cloudfsck import checking, checks, cli, proof, scenario, tables
from cloudfsck.model import RISKS, Check, Finding, Scenario
from cloudfsck.snapshot import OWN, Snapshot, tables_read
from docs import places

DOCS = Path(__file__).parent
TESTS = DOCS.parent / "tests"
CLOUD_TESTS = DOCS.parent / "testbed/tests"

#: As wide as help is made, whatever the terminal.
WIDTH = 100

_MADE = "<!-- Written by `make docs` from the program itself: change that, not this page. -->"


# ------------------------------------------------------------------------------------------ Markdown


def prose(text: str) -> str:
    """Plain text as Markdown that shows it as it is; what stands between backticks stays code."""
    pieces = text.split("`")
    for number in range(0, len(pieces), 2):
        pieces[number] = re.sub(r"[\\*|]|(?<!\w)_|_(?!\w)", r"\\\g<0>", pieces[number]).replace("<", "&lt;")
    return "`".join(pieces)


def wrapped(text: str) -> str:
    return fill(text, 118, break_long_words=False, break_on_hyphens=False)


def code(text: object) -> str:
    return f"`{text}`"


def block(text: str, language: str = "text") -> list[str]:
    return [f"```{language}", *text.strip("\n").splitlines(), "```", ""]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head), *lines, ""]


def page(title: str, text: str, lines: Iterable[str]) -> str:
    whole = "\n".join([f"# {title}", "", _MADE, "", dedent(text).strip(), "", *lines])
    return "\n".join(line.rstrip() for line in whole.splitlines()).rstrip() + "\n"


def to_tables(names: Iterable[str]) -> str:
    return ", ".join(f"[{code(name)}](tables.md#{name})" for name in names)


# ------------------------------------------------------------------------------------------ checks.md


def checks_page() -> str:
    known = checks.load()
    lines = table(
        ("check", "risk", "finds"),
        ((f"[{code(name)}](#{name})", check.risk, prose(check.title)) for name, check in known.items()),
    )
    lines += ["What a risk lets `repair` do:", ""]
    lines += table(("risk", "what is done"), ((code(risk), _RISKS[risk]) for risk in RISKS))
    for name, check in known.items():
        lines += _check(name, check)
    return page("Checks", _ABOUT_CHECKS, lines)


_ABOUT_CHECKS = """
Each check is one file of `cloudfsck/checks/`, and everything on this page comes from it. `cloudfsck explain CHECK`
prints one of them. A check is one query to the snapshot; [tables.md](tables.md) has the tables,
[coverage.md](coverage.md) says where each check was seen to work, and [operating.md](operating.md) what to do with
what it finds.

A query selects, beside the evidence, what the engine goes by: the `server` at the root of the case; the `hosts` and
`cells` that could acquit the row (NULL: all of them); `since` when, and by whose `clock`; why only a person may
repair it (`by_hand`); and the `rung` on which it stands because cloudfsck put it there. A finding is *unproven*
unless every table that the query reads was read whole on all those hosts and cells.

A scenario is a tiny cloud, written as tables: `-` is NULL, `-2h` two hours ago, `hosts cell1 c1` a healthy host of a
cell, `lost T P` a part of a table that could not be read. What is not named was read, and is empty. Each is a test.
"""

_RISKS = {
    "safe": "As `ask`. It is earned by an exact undo and a proof on a real cloud.",
    "ask": "`repair` asks before it acts; `--yes` agrees beforehand.",
    "by-hand": "Nothing: only a person can tell what is right.",
}


def _check(name: str, check: Check) -> list[str]:
    read = sorted(tables_read(check.query))
    lines = [f"## {name}", "", f"**{prose(check.title)}**", ""]
    for head, text in sections(check):
        lines += [wrapped(f"**{prose(head)}.** {prose(text)}"), ""]
    lines += [
        f"- Risk: {code(check.risk)}.",
        f"- Settle: it counts once it has lasted {proof.words(check.settle)}.",
        f"- Limit: none is repaired when there are more than {check.limit} in 24 hours, or more than {proof.FEW} and"
        f" more than {check.share:.0%} of what it looked at.",
        f"- Accuses: {to_tables(check.accused)}.",
        f"- Reads: {to_tables(read)}.",
        "",
    ]
    lines += ["The query:", "", *block(scenario.plain(check.query), "sql")]
    lines += ["The scenarios:", ""]
    for case in check.scenarios:
        lines += _scenario(name, check, case)
    return lines


def sections(check: Check) -> Iterator[tuple[str, str]]:
    """The parts of a check's text, each with its head: a line at the margin, and what is indented under it."""
    head, under = "", [""]
    for line in check.text.strip().splitlines()[1:]:
        if line and not line[0].isspace():
            if head:
                yield head, dedent("\n".join(under)).strip()
            head, under = line.strip(), []
        else:
            under.append(line)
    if head:
        yield head, dedent("\n".join(under)).strip()


def _scenario(name: str, check: Check, case: Scenario) -> list[str]:
    lines = [f"*{prose(case.title[:1].upper() + case.title[1:])}*", "", *block(scenario.plain(case.world))]
    if not case.finds:
        return [*lines, "Finds nothing.", ""]
    snapshot = scenario.build(case.world)
    found = {finding.key: finding for finding in checking.run(name, check, snapshot).findings}
    snapshot.close()
    lines += ["Finds", "", *(f"- {_found(key, found[key])}" for key in case.finds), ""]
    if case.plans.strip():
        lines += ["and plans", "", *block(scenario.plain(case.plans))]
    return lines


def _found(key: str, finding: Finding) -> str:
    said = [code(key)]
    if finding.state == "held":
        said.append(f"held, {finding.row['rung']}")
    elif finding.state == "unproven":
        said.append(f"unproven: {prose(finding.why)}")
    if finding.row["by_hand"] is not None:
        said.append(f"by hand: {prose(finding.row['by_hand'])}")
    return "; ".join(said)


@cache
def _engine() -> Snapshot:
    return Snapshot.create()


# ------------------------------------------------------------------------------------------ tables.md


def tables_page() -> str:
    lines = table(
        ("table", "one part for", "holds"),
        ((f"[{code(one.name)}](#{one.name})", _PER[one.per], prose(one.text)) for one in tables.TABLES),
    )
    for one in tables.TABLES:
        lines += _table(one)
    lines += ["## The engine's own tables", "", prose(_ABOUT_OWN), ""]
    for name, text in _OWN_TABLES.items():
        lines += [f"### {name}", "", prose(text), ""]
        columns = _engine().rows("SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = $name"
                                 " AND database_name = current_database()"
                                 " ORDER BY column_index", {"name": name})  # fmt: skip
        lines += table(("column", "type", "meaning"), (
            (code(row["column_name"]), row["data_type"], prose(_OWN_COLUMNS[name, row["column_name"]]))
            for row in columns
        ))  # fmt: skip
    lines += ["## Views", "", _ABOUT_VIEWS.strip(), ""]
    for view in views():
        read = sorted(tables_read(f"SELECT * FROM {view.name}"))
        lines += [f"### {view.name}", "", prose(view.text), ""]
        lines += [f"Reads {to_tables(read).replace('tables.md', '')}.", ""] if read else []
        lines += block(view.sql, "sql")
    return page("Tables", _ABOUT_TABLES, lines)


_ABOUT_TABLES = """
A snapshot is one DuckDB file, and these are its tables. `cloudfsck sql 'SELECT …'` asks the newest one; `duckdb
-readonly FILE` opens any, with `cloudfsck check --format json` naming the file. The last ten are kept in `snapshots`
of the state directory. All times are UTC.

A table comes in parts, each read whole or not at all; the `ledger` says which were, and why others were not. No rows
in a table mean nothing without it. Passwords, tokens and connection strings are never read into a snapshot.
"""

_ABOUT_OWN = "The ledger and what a snapshot says of itself. No check reads them but for the clocks."

_ABOUT_VIEWS = """
Facts that many checks need, named once in `cloudfsck/views.sql`. An unknown value never makes anything look dead.
"""

_PER = {
    "cloud": "the cloud",
    "api": "Nova's API database",
    "cell": "each cell",
    "cinder": "Cinder's database",
    "designate": "Designate's database",
    "neutron": "Neutron's database",
    "neutron_nsx": "Neutron's database, where it has a plugin for NSX",
    "keystone": "Keystone's database",
    "octavia": "Octavia's database",
    "placement": "Placement's database",
    "ovn": "OVN's northbound database",
    "nsx": "NSX",
    "host": "each host",
    "backend": "each storage backend",
    "copy": "each zone on each of its servers",
}

_OWN_TABLES = {
    "ledger": "One row for each part of each table: whether it was read, for whom, when, and why not.",
    "meta": "Facts about the snapshot: its format, its cloud, its run, and the version of cloudfsck.",
}

_OWN_COLUMNS = {
    ("ledger", "table_name"): "The table.",
    ("ledger", "per"): "What its parts are parts of: cloud, api, cell, host, cinder, neutron, …",
    (
        "ledger",
        "part",
    ): "The cell or the host; nova_api for Nova's API database, cinder for Cinder's; empty for the cloud.",
    ("ledger", "whole"): "Whether the part was read whole.",
    ("ledger", "why"): "Why it was not.",
    ("ledger", "clock"): "What the clock of that system said then.",
    ("ledger", "started"): "When the reading began.",
    ("ledger", "finished"): "When it ended.",
    ("ledger", "keys"): "The servers that were asked for; NULL: all.",
    ("meta", "name"): "The fact.",
    ("meta", "value"): "What it is.",
}


def _table(one: tables.Table) -> list[str]:
    said = [prose(one.text)]
    if one.origin:
        where = "of the cell's database" if one.per == "cell" else f"of {_PER[one.per]}"
        filtered = f", where {code(_where(one.where))}" if one.where else ""
        said.append(f"Read from {code(one.origin)} {where}{filtered}.")
        if one.late:
            said.append("Older releases do not have it: there it is empty, not a gap.")
    elif one.per == "host":
        said.append("Read on each hypervisor by `cloudfsck/sources/probe.py`.")
    if one.key:
        said.append(f"A proof asks for single servers by {' and '.join(map(code, one.key))}.")
    rows = (
        (code(column.name), column.type, prose(column.text) + (" *Not in every release.*" if column.optional else ""))
        for column in one.columns
    )
    return [f"## {one.name}", "", " ".join(said), "", *table(("column", "type", "meaning"), rows)]


def _where(text: str) -> str:
    """A filter without the braces in which the source puts the names that it has to quote."""
    return text.replace("{", "").replace("}", "")


@dataclass(frozen=True)
class View:
    name: str
    text: str
    sql: str


def views() -> list[View]:
    """The views of views.sql, each with the comment above it; one comment can stand above several."""
    text, found = "", []
    source = files("cloudfsck").joinpath("views.sql").read_text(encoding="utf-8")
    for piece in source.split("\n\n"):
        lines = piece.strip().splitlines()
        comment = [line.removeprefix("--").strip() for line in lines if line.startswith("--")]
        sql = "\n".join(line for line in lines if not line.startswith("--"))
        text = " ".join(comment) or text
        if sql:
            found.append(View(sql.split()[2], text, sql))
    return found


# ------------------------------------------------------------------------------------------ cli.md


def cli_page() -> str:
    lines = ["## Exit status", "", _ABOUT_STATUS.strip(), ""]
    lines += table(("status", "means"), ((str(status), prose(text)) for status, text in _STATUSES.items()))
    for path, text in helps():
        lines += [f"## {path}", "", *block(text)]
    return page("Commands", _ABOUT_CLI, lines)


_ABOUT_CLI = """
What `--help` says of each command. `-c` stands before the command: `cloudfsck -c /etc/cloudfsck/prod.toml check`.
Text is for a person, and has no colour where it goes to no terminal; `--format json` is for a program, and
[check.schema.json](check.schema.json) describes what `check` gives. Progress and questions go to standard error.
"""

_ABOUT_STATUS = """
The exit status is fsck's, a sum of bits: 5 is 1 and 4, something was corrected and something is left. `check` never
gives 1; what is held stands where cloudfsck put it, and is no fault left.
"""

_STATUSES = {
    cli.CLEAN: "Clean: everything that could be wrong was looked at, and nothing is.",
    cli.CORRECTED: "Faults were corrected, or put on a rung of their ladder, or taken back by `undo`.",
    cli.LEFT: "Faults are left.",
    cli.TROUBLE: "Something could not be read or done, or nothing may be repaired now: what is not known is not clean.",
    cli.USAGE: "The command or the configuration is not understood.",
    cli.CANCELLED: "Cancelled.",
}


def helps() -> Iterator[tuple[str, str]]:
    """Every command as it is typed, with its help, as wide as WIDTH on any terminal."""

    def walk(command: Any, parent: Any, name: str) -> Iterator[tuple[str, str]]:
        context = command.context_class(command, info_name=name, parent=parent, terminal_width=WIDTH)
        yield context.command_path, command.get_help(context)
        for under in getattr(command, "commands", {}):
            yield from walk(command.commands[under], context, under)

    yield from walk(typer.main.get_command(cli.app), None, "cloudfsck")


# ------------------------------------------------------------------------------------------ coverage.md

_LEFT_OVER = (
    "test_real_leftovers.py::test_a_directory_that_nova_had_renamed",
    "test_real_leftovers.py::test_what_a_person_moves_aside",
    "test_real_leftovers.py::test_a_row_that_names_another_compute_node",
    "test_real_leftovers.py::test_a_server_in_two_cells",
)

_OF_ZONES = "test_dns_cloud.py::test_what_leads_to_nobody_is_taken_away_and_put_back"

#: The tests that hold that a check fires, and that its repair is carried out.  They count for a check that they name.
_WITNESSES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "demo": (
        ("test_cli.py::test_a_damaged_cloud_from_the_first_check_to_the_last_purge",),
        ("test_cli.py::test_a_damaged_cloud_from_the_first_check_to_the_last_purge",),
    ),
    "real component": (
        (
            "test_real.py::test_each_fault_is_found_and_proven_and_nothing_else",
            "test_real.py::test_the_same_is_found_with_postgresql",
            "test_real_volumes.py::test_each_is_judged_right",
            *_LEFT_OVER,
            _OF_ZONES,
            "test_dns.py::test_three_servers_with_three_answers",
        ),
        (
            "test_real.py::test_each_is_repaired_rung_by_rung_taken_back_and_purged",
            "test_real.py::test_the_same_is_found_with_postgresql",
            "test_real_volumes.py::test_what_is_left_is_cleared_beside_a_guest_at_work",
            *_LEFT_OVER,
            _OF_ZONES,
        ),
    ),
}


@cache
def _on_the_cloud() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The same of the real cloud: whoever tells a story of a fault has seen it fire, and most go on to its repair."""
    fire, repair = [], []
    for path in sorted(CLOUD_TESTS.glob("test_*.py")):
        for name, test in _parsed(path)[0].items():
            if name.startswith("test_") and any(argument.arg == "story" for argument in test.args.args):
                called = {ast.unparse(one.func) for one in ast.walk(test) if isinstance(one, ast.Call)}
                fire.append(f"{path.name}::{name}")
                repair += [fire[-1]] if "story.repaired" in called else []
    return tuple(fire), tuple(repair)


_NEVER = (
    ("Fibre Channel", "What the kernel shows of it is read; in the tests that is folders. No HBA was ever asked."),
    ("NVMe-oF", "What a real kernel shows of its own loop target is read. No array, and no act on one."),
    ("RabbitMQ 4", "Not read at all yet, nor is any other release of it."),
    ("NSX", "It cannot be had: a simulator stands for it, which its real client (vmware-nsxlib) drives as well. VPN,"
     " NSX-V and NSX-MH are not read."),
    ("Name servers", "BIND and PowerDNS are asked and changed for real; no other, and none with DNSSEC."),
    ("Other services", "Of Keystone its projects are read, of Octavia what NSX has of it, of Placement what is"
     " allocated and no inventory; of all others but Nova, Cinder, Neutron and Designate nothing."),
    ("virsh in a container", "The command lines for docker and podman, and the paths of Kolla's volumes, are tested on"
     " folders. No container was ever asked."),
    ("An instances path on NFS", "Worlds only: scenarios and innocent look-alikes. No NFS was ever mounted."),
    ("A Galera cluster", "One real node alone, where its provider is installed. Never several."),
    ("A replica", "What a replica may not do is tested on a server that says it is one. None ever replicated."),
    ("MySQL", "MariaDB and PostgreSQL run. MySQL itself never did."),
    ("KVM", "The guests of the tests run in QEMU without it."),
    ("Other releases of OpenStack", "The whole cloud is of 2026.2. Nova's schema is also held to Debian 12's (Zed)."),
)  # fmt: skip

_ABOUT_COVERAGE = """
Where each check was seen to fire, and its repair to be carried out. A fake stands beside the real thing, never
instead of it; so this page also says what nobody has seen yet.

- **Scenario**: the check's own tiny clouds, in every run of the tests. Where it plans something, the plan's effects
  are played on the snapshot, after which the check is clean, and taken back.
- **Demo**: the commands and both programs for hypervisors, on a cloud of SQLite files and folders.
- **Real component**: the same on MariaDB or PostgreSQL, sshd, libvirt and QEMU, where the machine has them.
- **Real cloud**: a whole OpenStack of today (`make cloud`, `make test-cloud`), where the fault is made as it happens.

A test is listed for a check only if it names that check.
"""


def coverage_page() -> str:
    lines = []
    for name, check in checks.load().items():
        fires = sum(bool(case.finds) for case in check.scenarios)
        plans = sum(bool(case.plans.strip()) for case in check.scenarios)
        rows = [("scenario", f"in {fires}, and stays silent in {len(check.scenarios) - fires}",
                 f"in {plans}" if plans else "not at all")]  # fmt: skip
        for where, (fire, repair) in {**_WITNESSES, "real cloud": _on_the_cloud()}.items():
            rows.append((where, _named(name, fire), _named(name, repair)))
        lines += [f"## {name}", "", f"[{prose(check.title)}](checks.md#{name})", ""]
        lines += table(("where", "seen to fire", "seen to be repaired"), rows)
    lines += ["## Recorded or imagined, not run", ""]
    lines += table(("what", "how far"), ((f"**{what}**", prose(text)) for what, text in _NEVER))
    return page("Coverage", _ABOUT_COVERAGE, lines)


def _named(check: str, witnesses: Iterable[str]) -> str:
    return (
        "<br>".join(code(witness) for witness in witnesses if check in words_of(_folder(witness), witness)) or "not yet"
    )


def _folder(witness: str) -> Path:
    """The folder that holds the test; there is no file of one name in both."""
    return next((folder for folder in (TESTS, CLOUD_TESTS) if (folder / witness.partition("::")[0]).exists()), TESTS)


@cache
def words_of(folder: Path, test: str) -> frozenset[str]:
    """Every string that a test names: in its own source, or by a constant of its file or of one that it imports.

    Raises ValueError if there is no such test.
    """
    file, _, name = test.partition("::")
    functions, constants = _parsed(folder / file)
    if name not in functions:
        raise ValueError(f"coverage rests on {test}, and there is no such test")
    return frozenset(_words(functions[name], constants))


def _parsed(path: Path) -> tuple[Mapping[str, ast.FunctionDef], Mapping[str, ast.expr]]:
    """The functions of a file, and its constants; also those of the files beside it from which it imports."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    functions = {node.name: node for node in body if isinstance(node, ast.FunctionDef)}
    constants: dict[str, ast.expr] = {}
    for node in body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests."):
            beside = path.with_name(f"{(node.module or '').removeprefix('tests.')}.py")
            if beside.exists():
                constants |= _parsed(beside)[1]
        elif isinstance(node, ast.Assign):
            constants |= {target.id: node.value for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            constants[node.target.id] = node.value
    return functions, constants


def _words(node: ast.AST, constants: Mapping[str, ast.expr]) -> set[str]:
    """Every string in a piece of source, and in the constants that it names."""
    words: set[str] = set()
    for under in ast.walk(node):
        if isinstance(under, ast.Constant) and isinstance(under.value, str):
            words.add(under.value)
        elif isinstance(under, ast.Name) and under.id in constants:
            words |= _words(constants[under.id], {name: value for name, value in constants.items() if name != under.id})
    return words


# ------------------------------------------------------------------------------------------ all of them

# ------------------------------------------------------------------------------------------ volumes.md

_ABOUT_VOLUMES = """
A volume that a server has stands in five places: while the server is asked for, in Nova's API database, with the build
request; in the database of its cell, as a block device mapping; in Cinder's, as an attachment, from which Cinder
derives the volume's status; in the guest, as a disk of the domain; and on its host, as a block device.  Each
combination of there (x) and not there (-) is a small world, to which all checks were put: these are their answers.
The server is on a host that answers, everything is older than any check's patience, and the volume is attached
nowhere else.
"""


def volumes_page() -> str:
    known = checks.load()
    judged = places.judged(known)
    lines: list[str] = []
    for lives, title in ((True, "Of a server that lives"), (False, "Of a server that is deleted")):
        lines += [f"## {title}", ""]
        rows = []
        for one, found in judged.items():
            if one.lives != lives:
                continue
            marks = ("x" if place in one.there else "-" for place in places.PLACES)
            said = "; ".join(f"[{code(finding.check)}](checks.md#{finding.check})" for finding in found)
            done = "; ".join(_done(known[finding.check], finding) for finding in found)
            rows.append((*marks, said or "nothing", done or "-"))
        lines += table((*places.PLACES, "found", "repair"), rows)
    return page("A volume in its five places", _ABOUT_VOLUMES, lines)


def _done(check: Check, finding: Finding) -> str:
    """What the repair of a finding does first."""
    if check.repair is None or finding.risk == "by-hand":
        return "by hand"
    return ", ".join(code(act.kind) for act in check.repair(finding.row))


PAGES: Mapping[str, Callable[[], str]] = {
    "checks.md": checks_page,
    "tables.md": tables_page,
    "cli.md": cli_page,
    "coverage.md": coverage_page,
    "volumes.md": volumes_page,
}


def stale(folder: Path) -> list[str]:
    """The pages in a folder that are not what would be written, each with where it differs first."""
    found = []
    for name, made in PAGES.items():
        path = folder / name
        if not path.exists():
            found.append(f"{name} is missing")
            continue
        there, wanted = path.read_text(encoding="utf-8").splitlines(), made().splitlines()
        if there != wanted:
            same = next((n for n, (one, other) in enumerate(zip(there, wanted, strict=False)) if one != other),
                        min(len(there), len(wanted)))  # fmt: skip
            found.append(f"{name} is stale from line {same + 1} on: {(wanted[same:] or ['it ends here'])[0]!r}")
    return found


def main(arguments: Sequence[str]) -> int:
    if arguments not in ([], ["--check"]):
        print("usage: python -m docs.pages [--check]", file=sys.stderr)
        return 2
    if arguments:
        found = stale(DOCS)
        for line in found:
            print(f"docs/{line}; `make docs` writes it anew", file=sys.stderr)
        return 1 if found else 0
    for name, made in PAGES.items():
        (DOCS / name).write_text(made(), encoding="utf-8")
    return 0


assert frozenset(_OWN_TABLES) == OWN

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
