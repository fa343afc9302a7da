"""The screen of one server, volume or port: what every place says of it side by side, which row disagrees, the verdict.

Two readings of it go in, a rich text or JSON comes out.  What a place says is declared in LINES; which row
disagrees is told by the findings alone: a row is marked when the check of a finding accuses its table.
"""

from __future__ import annotations

import datetime as dt
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from rich.text import Text

from cloudfsck import checking, proof, report
from cloudfsck.acts.directory import size
from cloudfsck.config import Config
from cloudfsck.model import Check, Finding, Gap, Row, Scope, copies
from cloudfsck.proof import words
from cloudfsck.snapshot import Heard, Snapshot, same
from cloudfsck.tables import API, BY_NAME, SINGLE, TABLES, Table

Kind = Literal["server", "volume", "port"]


@dataclass(frozen=True)
class Subject:
    """What is shown: its UUID, and those of what hangs together with it: a server's volumes, attachments, ports,
    floating IPs and names, a volume's servers and attachments, or a port's server, floating IPs and place in NSX."""

    kind: Kind
    id: str
    beside: frozenset[str] = frozenset()

    @property
    def scope(self) -> Scope:
        """What must be read to show it."""
        if self.kind == "server":
            return Scope(frozenset({self.id}), None, self.beside)
        return Scope(frozenset(), None, self.beside | {self.id})


#: What hangs together with a server, and with a volume, by whoever says so.
_BESIDE: Mapping[Kind, str] = {
    "server": """
        SELECT unnest([volume, attachment]) AS id FROM server_volumes WHERE server = $id
        UNION
        SELECT unnest([volume, attachment]) FROM live_attachments WHERE server = $id
        UNION
        SELECT unnest([serial, alias, stored]) FROM libvirt_disks WHERE uuid = $id
        UNION
        SELECT port FROM server_ports WHERE server = $id
        UNION
        SELECT port FROM libvirt_interfaces WHERE uuid = $id
        UNION
        SELECT f.id FROM neutron_floating_ips f JOIN server_ports p ON p.port = f.fixed_port_id WHERE p.server = $id
        UNION
        SELECT w.path FROM nsx_places w JOIN server_ports p ON p.port = w.neutron WHERE p.server = $id
        UNION
        SELECT recordset FROM records_of_servers WHERE server = $id
        """,
    "volume": """
        SELECT unnest([server, attachment]) AS id FROM server_volumes WHERE volume = $id
        UNION
        SELECT unnest([server, attachment]) FROM live_attachments WHERE volume = $id
        UNION
        SELECT unnest([uuid, stored]) FROM libvirt_disks WHERE $id IN (serial, alias, stored)
        UNION
        SELECT stored FROM live_volumes WHERE volume = $id
        """,
    "port": """
        SELECT device_id AS id FROM neutron_ports WHERE id = $id AND device_id <> ''
        UNION
        SELECT id FROM neutron_floating_ips WHERE $id IN (fixed_port_id, floating_port_id)
        UNION
        SELECT device_id FROM ovn_switch_ports WHERE name = $id AND device_id <> ''
        UNION
        SELECT uuid FROM libvirt_interfaces WHERE port = $id
        UNION
        SELECT unnest([path, '/fabric/vifs/' || neutron]) FROM nsx_places WHERE neutron = $id
        """,
}


#: Why something is under way with it.
_BUSY: Mapping[Kind, str] = {
    "server": "busy_servers WHERE server = $id",
    "volume": "busy_volumes WHERE volume = $id",
    "port": "busy_servers b JOIN neutron_ports p ON p.device_id = b.server WHERE p.id = $id",
}


def around(kind: Kind, id: str, snapshot: Snapshot, names: frozenset[str] = frozenset()) -> Subject:
    """The subject, with what a reading of it alone says that hangs together with it, and the `names` of a server."""
    found = snapshot.rows(f"SELECT DISTINCT id FROM ({_BESIDE[kind]}) WHERE id <> $id", {"id": id})
    return Subject(kind, id, names | {str(row["id"]) for row in found})


@dataclass(frozen=True)
class Line:
    """One line of a place's block: the rows of a table, put into words.  `of` are the kinds of subject that have it.

    `says` is the row in a word or two, `date` the column that tells when, `more` the columns beside them (one with a
    `?` is shown only where it is true or there is something in it).  `plus` are columns that take SQL, in which the
    row is `t` and the subject's UUID $id; they are shown without their name.  `where` says which rows of the table are
    meant; of many only the newest `last` are shown and those that are `open`.  That there is no row is told of the
    kinds in `always`.
    """

    label: str
    table: str
    says: str
    date: str = ""
    more: str = ""
    plus: Mapping[str, str] = field(default_factory=dict)
    where: str = "TRUE"
    open: str = "FALSE"
    last: int | None = None
    always: str = ""
    of: str = "server"


_BOTH = "server volume"
_NET = "server port"
_ALL = "server volume port"


def _other(what: str, column: str) -> dict[str, str]:
    """A column that says whose row it is, where that is not the subject."""
    return {what: f"CASE WHEN t.{column} <> $id THEN '{what} ' || t.{column} END"}


_WHICH, _WHOSE, _VOLUME = _other("server", "uuid"), _other("server", "instance_uuid"), _other("volume", "volume_id")
_LIVES = {"row": "CASE WHEN t.deleted = 0 THEN 'row lives' ELSE 'row deleted' END"}
_WAY = {"way": "coalesce(t.source_compute, 'nowhere') || ' -> ' || coalesce(t.dest_compute, 'no host yet')"}
_HELD = "FROM held_domains h WHERE h.host = t.host AND h.server = t.uuid"

#: What each place says, in this order.
LINES: tuple[Line, ...] = (
    Line("mapping", "nova_instance_mappings", "in {in_cell}", "updated_at", "queued_for_delete created_at",
         always="server",
         plus={"in_cell": "coalesce((SELECT any_value(c.cell) FROM nova_cell_mappings c WHERE c.id = t.cell_id),"
                          " 'cell number ' || t.cell_id, 'no cell yet')"}),
    Line("build request", "nova_build_requests", "asked for", "created_at", "server", plus=_WHOSE,
         always="server", of=_BOTH),
    Line("request spec", "nova_request_specs", "kept", always="server"),
    Line("row", "nova_instances", "{vm_state}", "updated_at",
         "server row task_state power_state host node hidden? deleted_at?", plus=_LIVES | _WHICH, always="server",
         of=_ALL),
    Line("shadow row", "nova_shadow_instances", "{vm_state}", "updated_at",
         "server archived power_state host node deleted_at?", plus={"archived": "'archived'"} | _WHICH, of=_ALL),
    Line("migration", "nova_migrations", "{migration_type} {status}", "updated_at", "way id created_at", plus=_WAY,
         last=3, open="EXISTS (SELECT 1 FROM busy_servers b WHERE b.server = t.instance_uuid"
              " AND starts_with(b.why, 'migration ' || t.id || ' '))"),
    Line("migration", "nova_shadow_migrations", "{migration_type} {status}", "updated_at", "archived way id",
         plus={**_WAY, "archived": "'archived'"}, last=1),
    Line("action", "nova_instance_actions", "{action}", "start_time", "events request_id",
         plus={"events": "coalesce((SELECT string_agg(e.event || coalesce(' on ' || e.host, ''), ', ' ORDER BY e.id)"
                         " FROM nova_instance_actions_events e WHERE e.cell = t.cell AND e.action_id = t.id"
                         " AND e.finish_time IS NULL), 'no event of it is open')"}),
    Line("fault", "nova_instance_faults", "{code}", "created_at", "sentence host", plus={"sentence": "t.message"},
         last=1),
    Line("disk", "nova_block_device_mapping", "{device_name} {destination_type}", "updated_at",
         "server volume attachment_id? places? boot_index? delete_on_termination?",
         plus=_WHOSE | _VOLUME,
         where="t.volume_id IS NOT NULL OR t.instance_uuid = $id", open="coalesce(t.deleted, 0) = 0", last=0,
         always="volume", of=_BOTH),
    Line("volume", "cinder_volumes", "{status}", "updated_at",
         "volume deleted? attach_status migration_status? multiattach? _name_id? host size display_name?",
         plus=_other("volume", "id"), always="volume", of=_BOTH),
    Line("attachment", "cinder_volume_attachment", "{attach_status}", "updated_at",
         "server volume attachment attached_host? connector_host? places?",
         plus={**_WHOSE, **_VOLUME, "attachment": "'attachment ' || t.id"},
         open="NOT coalesce(t.deleted, FALSE)", last=0, always="volume", of=_BOTH),
    Line("worker", "cinder_workers", "{status}", "updated_at", "resource_id", of=_BOTH),
    Line("port", "neutron_ports", "{status}", "updated_at", "server port mac_address device_owner name?",
         plus={"server": "CASE WHEN t.device_id <> $id THEN 'device ' || t.device_id END", **_other("port", "id")},
         always="port", of=_NET),
    Line("binding", "neutron_port_bindings", "{status}", "", "bound port vif_type",
         plus={"bound": "'on ' || coalesce(nullif(t.host, ''), 'no host')", **_other("port", "port_id")}, of=_NET),
    Line("address", "neutron_ip_allocations", "{ip_address}", "", "port subnet_id", plus=_other("port", "port_id"),
         of=_NET),
    Line("floating IP", "neutron_floating_ips", "{floating_ip_address}", "updated_at",
         "floating fixed_ip_address? fixed_port_id? status", plus={"floating": "t.id"}, of=_NET),
    Line("port", "ovn_switch_ports", "{state}", "", "name switch revision?",
         plus={"state": "CASE WHEN t.up THEN 'up' ELSE 'down' END"}, always="port", of=_NET),
    Line("NAT rule", "ovn_nats", "{external_ip}", "", "port logical_ip router revision?", plus=_other("port", "port"),
         of=_NET),
    Line("port", "nsx_objects", "{id}", "changed", "of path revision? attachment? protected?",
         plus={"of": "CASE WHEN t.neutron <> t.id THEN 'port ' || t.neutron END"}, where="t.kind = 'port'",
         always="port", of=_NET),
    Line("interface", "nsx_interfaces", "{attachment}", "", "machine mac?", of=_NET),
    Line("record", "designate_records", "{data}", "updated_at", "named status action",
         plus={"named": "(SELECT s.name || ' ' || s.type FROM designate_recordsets s WHERE s.id = t.recordset_id)"}),
    Line("name", "dns_records", "{name}", "", "type ttl data"),
    Line("domain", "libvirt_domains", "{state}", "held", "server rung reason? id persistent job? unmarked name",
         always="server", of=_ALL,
         plus={**_WHICH, "rung": f"(SELECT 'cloudfsck holds it ' || h.rung {_HELD})",
               "held": f"(SELECT h.since {_HELD})",
               "unmarked": "CASE WHEN NOT t.nova THEN 'without Nova''s marks' END"}),
    Line("disk", "libvirt_disks", "{target} {device}", "", "server serial? alias? stored? source config",
         where="t.serial IS NOT NULL OR t.alias IS NOT NULL OR t.stored IS NOT NULL", plus=_WHICH, of=_BOTH),
    Line("device", "block_devices", "{name} {kind}", "", "state? places? wwid? slaves? holders? mounts? use links",
         plus={"use": "CASE WHEN t.guests IS NULL OR t.held_by IS NULL THEN 'who uses it is not known'"
                      " WHEN len(t.guests) + len(t.held_by) = 0 THEN 'no guest and no process has it'"
                      " ELSE concat_ws(', ', 'used by guest ' || nullif(array_to_string(t.guests, ', '), ''),"
                      " 'open by ' || nullif(array_to_string(t.held_by, ', '), '')) END"},
         always="volume", of=_BOTH),
    Line("session", "iscsi_sessions", "{session} {state}", "", "connection? target portal devices", of=_BOTH),
    Line("controller", "nvme_controllers", "{name} {state}", "", "transport target address namespaces", of=_BOTH),
    Line("mount", "network_mounts", "{fstype}", "", "source point held_by? guests?", of=_BOTH),
    Line("interface", "libvirt_interfaces", "{target}", "", "server mac port? config", where="t.port IS NOT NULL",
         plus=_WHICH, of=_NET),
    Line("process", "qemu_processes", "pid {pid}", "started", "gone", always="server",
         plus={"gone": "CASE WHEN t.unnamed > 0 THEN t.unnamed || ' of its open files have no name any more' END"}),
    Line("directory", "instance_dirs", "{bytes}", "changed", "open_by symlink? path", where="t.kind = 'instance'",
         always="server"),
    Line("_resize", "instance_dirs", "{bytes}", "changed", "open_by symlink? path", where="t.kind = 'resize'"),
    Line("_del", "instance_dirs", "{bytes}", "changed", "open_by symlink? path", where="t.kind = 'del'"),
    Line("quarantine", "quarantine", "{bytes}", "at", "broken was_path path",
         plus={"broken": "CASE WHEN NOT t.manifest_ok THEN 'its manifest cannot be read' END"}),
    Line("TPM state", "swtpm_states", "{bytes}", "changed", "path"),
    Line("image", "backend_images", "{pool}", "", "trash? name", of=_BOTH),
    Line("image", "backend_image_uses", "{bytes}", "created_at", "watchers children? snapshots? parent? name",
         of=_BOTH),
    Line("hold", "holds", "{kind} {rung}", "since", "host run"),
)  # fmt: skip

#: What a host has of a volume knows neither its id nor its server's: where it lies tells, by whoever says where it was
#: connected, or its name on the backend, or the disk of the guest that is on it.  `at` are the places.
_FOUND = {
    "block_devices": """
        t.volume = $id OR t.volume IN $beside OR list_has_any(t.places, $at)
        OR EXISTS (SELECT 1 FROM libvirt_disks k
                    WHERE k.host = t.host AND list_contains(t.links, k.source)
                      AND list_has_any([k.serial, k.alias, k.stored, k.uuid], list_append($beside, $id)))
        """,
    "iscsi_sessions": """
        t.volume = $id OR t.volume IN $beside
        OR list_contains(list_transform($at, lambda place: regexp_replace(place, '/[^/]*$', '')), t.target)
        """,
    "nvme_controllers": """
        list_contains(list_transform($at, lambda place: regexp_replace(place, '/[^/]*$', '')), t.target)
        """,
    "network_mounts": "len(list_filter($at, lambda place: starts_with(place, t.source || '/'))) > 0",
}

_AT = """
    SELECT DISTINCT unnest(places) AS place FROM live_attachments
     WHERE volume = $id OR server = $id OR volume IN $beside
    UNION
    SELECT unnest(places) FROM server_volumes WHERE volume = $id OR server = $id OR volume IN $beside
    """

#: The tables that are shown.
SHOWN = tuple(table for table in TABLES if table.key or table.name in _FOUND)

#: The places, in the order of their blocks, and what a block is headed.
_PLACES = {
    "api": "Nova's API database",
    "cell": "cell {part}",
    "cinder": "Cinder's database",
    "neutron": "Neutron's database",
    "designate": "Designate's database",
    "keystone": "Keystone's database",
    "octavia": "Octavia's database",
    "neutron_nsx": "Neutron's plugin for NSX",
    "ovn": "OVN's northbound database",
    "nsx": "NSX",
    "host": "host {part}",
    "backend": "storage backend {part}",
    "copy": "zone {part}",
    "cloud": "cloudfsck itself",
}

_POWER = {
    0: "none",
    1: "running",
    3: "paused",
    4: "shut down",
    6: "crashed",
    7: "suspended",
}  # nova/compute/power_state.py

#: Dates whose columns do not say what happened then.
_DATES = {"at": "moved", "start_time": "began"}

#: By what objects of one subject are told apart: the column of a finding, where it has that, and of the table.
_IDENTITY = {
    "instance_dirs": {"inode": "inode", "entry": "entry"},
    "quarantine": {"inode": "inode", "entry": "entry"},
    "block_devices": {"name": "name"},
    "iscsi_sessions": {"session": "session"},
    "neutron_ports": {"port": "id"},
    "neutron_floating_ips": {"floating_ip": "id"},
}

#: A blank at which nothing is folded.
_GLUE = "\N{NO-BREAK SPACE}"

Outcome = Literal["fault", "busy", "unsure", "held", "clean", "nowhere"]

_VERDICTS: dict[Outcome, tuple[str, str]] = {
    "fault": ("something is wrong with it", "bold red"),
    "busy": ("something is under way with it, and until that is over it is innocent", "bold cyan"),
    "unsure": ("nothing is proven wrong, but not every place was heard", "bold magenta"),
    "held": ("nothing is wrong with it but what cloudfsck holds already", "bold cyan"),
    "clean": ("clean: all that can be asked was heard, and no check finds anything", "bold green"),
    "nowhere": ("no place knows it", "bold"),
}

_MARKS = {"seen": ("✗", "bold red"), "proven": ("✗", "bold red"), "unproven": ("?", "magenta"), "held": ("h", "cyan")}


@dataclass(frozen=True)
class Mark:
    """A row that a finding accuses: the row's table, its place in `places`, and the finding."""

    table: str
    part: str
    row: int
    finding: Finding


@dataclass(frozen=True)
class Said:
    """A line of a block in words, with the marks that it bears."""

    label: str
    says: str = ""
    date: str = ""
    more: tuple[str, ...] = ()
    marks: tuple[Mark, ...] = ()
    style: str = ""


@dataclass(frozen=True)
class Block:
    """What one place says; `unheard` is why it says nothing at all."""

    title: str
    about: str
    lines: tuple[Said, ...] = ()
    unheard: str = ""


@dataclass(frozen=True)
class View:
    """All that is known of one subject now.  `places` has its rows as they were read, `quiet` sums up who was heard and
    knows nothing of it."""

    subject: Subject
    name: str
    project: str
    now: dt.datetime
    places: Mapping[str, Sequence[Row]]
    blocks: tuple[Block, ...]
    quiet: tuple[str, ...]
    busy: tuple[str, ...]
    findings: tuple[Finding, ...]
    marks: tuple[Mark, ...]
    gaps: tuple[Gap, ...]

    @property
    def unsure(self) -> bool:
        """Whether somebody was not heard who could have told more."""
        return bool(self.gaps) or any(finding.state == "unproven" for finding in self.findings)

    @property
    def outcome(self) -> Outcome:
        states = {finding.state for finding in self.findings}
        if states & {"seen", "proven"}:
            return "fault"
        if self.busy:
            return "busy"
        if self.unsure:
            return "unsure"
        return "held" if states else "clean" if self.places else "nowhere"


# ------------------------------------------------------------------------------------------------ looking


def look(
    before: Snapshot, after: Snapshot, subject: Subject, checks: Mapping[str, Check], config: Config,
    first_seen: Callable[[str, str], dt.datetime | None], now: dt.datetime,
) -> View:  # fmt: skip
    """Put two readings of one subject side by side; what is shown is the later one."""
    found = _findings(before, after, subject, checks, config, first_seen)
    wide: dict[str, list[Row]] = {table.name: _rows(after, table, subject) for table in SHOWN}
    places = {
        name: [{column.name: row[column.name] for column in BY_NAME[name].columns} for row in rows]
        for name, rows in wide.items()
        if rows
    }
    marks = [
        Mark(name, _part(BY_NAME[name], row), number, finding)
        for finding in found
        for name, rows in places.items()
        if name in checks[finding.check].accused
        for number, row in enumerate(rows)
        if _accuses(finding, BY_NAME[name], row)
    ]
    blocks, quiet = _Blocks(after, subject, wide, marks, config, now).all()
    busy = after.rows(f"SELECT DISTINCT why FROM {_BUSY[subject.kind]} ORDER BY why", {"id": subject.id})
    gaps = [gap for _, gap in sorted(after.heard().gaps.items())]
    return View(
        subject, *_called(subject, places), now, places, tuple(blocks), tuple(quiet), tuple(row["why"] for row in busy),
        tuple(found), tuple(marks), tuple(gaps),
    )  # fmt: skip


def _findings(
    before: Snapshot, after: Snapshot, subject: Subject, checks: Mapping[str, Check], config: Config,
    first_seen: Callable[[str, str], dt.datetime | None],
) -> list[Finding]:  # fmt: skip
    """What the checks find wrong with the subject, and what keeps each finding from counting."""

    # A zone has the names of many.
    mine = {subject.id, *subject.beside} - copies(subject.beside)

    def concerns(finding: Finding) -> bool:
        return subject.id == finding.server or not finding.also.isdisjoint(mine)

    earlier = {
        (one.check, one.key): one
        for answer in checking.run_all(checks, before).values()
        for one in answer.findings
        if concerns(one)
    }
    clocks = after.clocks()
    found = []
    for answer in checking.run_all(checks, after).values():
        for finding in filter(concerns, answer.findings):
            one = replace(finding, first_seen=first_seen(finding.check, finding.key))
            was = earlier.get((one.check, one.key))
            if one.state == "seen" and (was is None or not same(was.row, one.row)):
                one = replace(one, why="it was not there, or not the same, a moment before")
            elif one.state == "seen":
                one = replace(one, why=proof.unsettled(one, checks[one.check], config, clocks))
            found.append(one)
    return found


def _rows(snapshot: Snapshot, table: Table, subject: Subject) -> list[Row]:
    """The rows of a table that are about the subject, with what LINES want to know of them beside."""
    asked = [f't."{column.name}"' for column in table.columns]
    for number, line in enumerate(LINES):
        if line.table == table.name:
            asked += [f'({sql}) AS "{number} {name}"' for name, sql in line.plus.items()]
            asked += [f'({line.where}) AS "{number} where"', f'({line.open}) AS "{number} open"']
    mine = " OR ".join(f't."{column}" = $id OR t."{column}" IN $beside' for column in table.key)
    known: dict[str, Any] = {"id": subject.id, "beside": sorted(subject.beside)}
    query = f"SELECT {', '.join(asked)} FROM {table.name} t WHERE {_FOUND.get(table.name, mine)} ORDER BY ALL"
    if "$at" in query:
        known["at"] = sorted(row["place"] for row in snapshot.rows(_AT, known))
    return list(snapshot.rows(query, {name: value for name, value in known.items() if f"${name}" in query}))


def _part(table: Table, row: Row) -> str:
    """The place that a row was read from."""
    return str(row[table.part]) if table.part else SINGLE[table.per]


def _accuses(finding: Finding, table: Table, row: Row) -> bool:
    """Whether a finding accuses this row of a table that its check accuses: on the same host or in the same cell, and
    the same object where both say which."""
    if table.part and finding.row.get(table.part) != row[table.part]:
        return False
    return all(
        finding.row.get(its) is None or row.get(own) is None or finding.row[its] == row[own]
        for its, own in _IDENTITY.get(table.name, {}).items()
    )


def _called(subject: Subject, places: Mapping[str, Sequence[Row]]) -> tuple[str, str]:
    """The subject's name and project, by whoever knows them."""
    sources = (
        ("cinder_volumes", "display_name", "project_id"),
    ) if subject.kind == "volume" else (
        ("neutron_ports", "name", "project_id"),
    ) if subject.kind == "port" else (
        ("nova_instances", "display_name", "project_id"), ("nova_shadow_instances", "display_name", "project_id"),
        ("libvirt_domains", "nova_name", "project"), ("nova_instance_mappings", "", "project_id"),
    )  # fmt: skip
    for table, name, project in sources:
        for row in places.get(table, ()):
            if row.get(name) is not None or row[project] is not None:
                return str(row.get(name) or ""), str(row[project] or "")
    return "", ""


class _Blocks:
    """The blocks of a subject, made of one reading."""

    def __init__(
        self, snapshot: Snapshot, subject: Subject, rows: Mapping[str, Sequence[Row]], marks: Sequence[Mark],
        config: Config, now: dt.datetime,
    ) -> None:  # fmt: skip
        self.snapshot = snapshot
        self.subject = subject
        self.rows = rows
        self.marks = marks
        self.config = config
        self.now = now
        self.heard: Heard = snapshot.heard()
        ledger = snapshot.rows("SELECT table_name, part, clock FROM ledger")
        self.clocks = {(row["table_name"], row["part"]): row["clock"] for row in ledger}

    def all(self) -> tuple[list[Block], list[str]]:
        blocks: list[Block] = []
        quiet: list[str] = []
        known = any(self.rows.values())
        abouts = self._abouts()
        for per in dict.fromkeys([*_PLACES, *(table.per for table in SHOWN)]):
            tables = [table for table in SHOWN if table.per == per]
            speaking = {_part(table, row) for table in tables for row in self.rows[table.name]}
            parts = {part for table in tables for part in self.heard.parts(table.name)}
            named = {host for host, about in abouts.items() if about.named} if per == "host" else set()
            silent = []
            for part in sorted(parts | speaking | named):
                title = _PLACES.get(per, f"{per} {{part}}").format(part=part)
                about = abouts[part].text if per == "host" and part in abouts else ""
                gaps = {table.name: self.heard.lacks(table.name, part, [self.subject.id]) for table in tables}
                lacks = {name: gap.why for name, gap in gaps.items() if gap}
                if part not in parts:
                    blocks.append(Block(title, about, unheard=f"not asked: {self._unasked(part)}"))
                elif len(lacks) == len(tables) and len(set(lacks.values())) == 1:
                    blocks.append(Block(title, about, unheard=f"not heard: {next(iter(lacks.values()))}"))
                elif (
                    lacks
                    or part in speaking
                    or part in named
                    or (known and per in ("api", "ovn" if self.subject.kind == "port" else ""))
                ):
                    lines = tuple(self._lines(tables, part, lacks))
                    if lines or per == "host":  # what a port's server has in Nova's API database is nothing of the port
                        blocks.append(Block(title, about, lines))
                else:
                    silent.append(part)
            quiet += self._quiet(per, silent, bool(blocks))
        return blocks, quiet

    def _quiet(self, per: str, silent: Sequence[str], others: bool) -> list[str]:
        said = []
        listed = {"host": self.heard.lacks("roster", "", ()), "cell": self.heard.lacks("nova_cell_mappings", API, ())}
        if silent and per in ("host", "cell"):
            place = f"{per}{'s' if len(silent) > 1 else ''}"
            names = f": {', '.join(silent)}" if len(silent) < 6 else ""
            at = "on" if per == "host" else "in"
            said.append(f"nothing {at} {len(silent)} {'other ' if others else ''}{place}{names}")
        if gap := listed.get(per):
            said.append(f"there may be more {per}s, not heard: {gap.why}")
        return said

    def _lines(self, tables: Sequence[Table], part: str, lacks: Mapping[str, str]) -> Iterable[Said]:
        own = {table.name for table in tables}
        missing: list[str] = []
        told: set[str] = set()
        for number, line in enumerate(LINES):
            if line.table not in own or self.subject.kind not in line.of.split():
                continue
            always = self.subject.kind in line.always.split()
            if line.table in lacks:
                if always or lacks[line.table] not in told:
                    yield Said(line.label, f"not heard: {lacks[line.table]}", style="magenta")
                told.add(lacks[line.table])
                continue
            mine = [
                (index, row) for index, row in enumerate(self.rows[line.table])
                if _part(BY_NAME[line.table], row) == part and row[f"{number} where"]
            ]  # fmt: skip
            if not mine and always:
                missing.append(f"no {line.label}")
            yield from self._rows_of(number, line, mine)
        if missing:
            yield Said("", ", ".join(missing), style="dim")
        if self.subject.kind == "server":  # of what hangs together with a volume the lines tell all that matters
            yield from self._rest(own - {line.table for line in LINES}, part, lacks, told)

    def _rows_of(self, number: int, line: Line, mine: Sequence[tuple[int, Row]]) -> Iterable[Said]:
        """The rows of a line that are shown: all, or the newest and those that are open or accused."""
        if line.last is not None:
            first = dt.datetime.min
            mine = sorted(mine, key=lambda at: at[1][line.date] or first, reverse=True)
        shown = 0
        for place, (index, row) in enumerate(mine):
            marks = tuple(mark for mark in self.marks if (mark.table, mark.row) == (line.table, index))
            if line.last is None or place < line.last or row[f"{number} open"] or marks:
                yield self._said(number, line, row, marks)
                shown += 1
        if shown < len(mine):
            yield Said(line.label, f"{len(mine) - shown} {'older' if line.last else 'deleted'}", style="dim")

    def _rest(self, names: set[str], part: str, lacks: Mapping[str, str], told: set[str]) -> Iterable[Said]:
        """Tables that LINES do not name: their number of rows, and whole rows where a finding accuses them."""
        counts = []
        for name in sorted(names):
            if name in lacks:
                if lacks[name] not in told:
                    yield Said(name, f"not heard: {lacks[name]}", style="magenta")
                told.add(lacks[name])
                continue
            mine = [(index, row) for index, row in enumerate(self.rows[name]) if _part(BY_NAME[name], row) == part]
            for index, row in mine:
                marks = tuple(mark for mark in self.marks if (mark.table, mark.row) == (name, index))
                if marks:
                    more = " ".join(f"{column}?" for column in row if column not in ("host", "cell"))
                    yield self._said(-1, Line(name, name, "", more=more), row, marks)
            if mine:
                counts.append(f"{name} {len(mine)}")
        if counts:
            yield Said("also", ", ".join(counts), style="dim")

    def _said(self, number: int, line: Line, row: Row, marks: tuple[Mark, ...]) -> Said:
        columns = {column.name: column.type for column in BY_NAME[line.table].columns}
        facts = {name: row[name] for name in columns} | {name: row[f"{number} {name}"] for name in line.plus}
        clock = self.clocks.get((line.table, _part(BY_NAME[line.table], row))) or self.now
        values = {name: _plain(name, value) for name, value in facts.items()}
        more = []
        for word in line.more.split():
            name = word.rstrip("?")
            value = facts[name]
            if name in line.plus:
                more += [str(value)] if value is not None else []
            elif name.endswith("?") or not (word.endswith("?") and value in (None, False, [], "")):
                more.append(_fact(name, value, clock))
        date = ""
        if line.date and (when := facts[line.date]) is not None:
            date = f"{_caption(line.date):7} {_when(when, clock)}"
        return Said(line.label, line.says.format(**values), date, tuple(more), marks)

    def _unasked(self, host: str) -> str:
        """Why a host that Nova names was not asked."""
        if host in self.config.hosts.gone:
            return f"gone: {self.config.hosts.gone[host]}"
        kinds = self.snapshot.rows("SELECT hypervisor_type AS kind FROM roster WHERE host = $host", {"host": host})
        return f"its hypervisor is {kinds[0]['kind']}, not libvirt" if kinds else "no list of hosts has it"

    def _abouts(self) -> dict[str, _About]:
        """What else is known of the hosts: cell and node, whether nova-compute is up, whether Nova names it."""
        texts: dict[str, list[str]] = {}
        for row in self.snapshot.rows("SELECT host, cell, node FROM roster ORDER BY ALL"):
            texts[row["host"]] = [str(value) for value in (row["cell"], row["node"]) if value is not None]
        services = self.snapshot.rows(
            "SELECT s.host, s.up, max(s.last_seen_up) AS seen, max(c.now) AS now FROM compute_services s"
            " JOIN clocks c ON c.table_name = 'nova_services' GROUP BY s.host, s.up ORDER BY s.host, s.up"
        )
        for row in services:
            seen = f"last seen {words(row['now'] - row['seen'])} ago" if row["seen"] and row["now"] else "never seen"
            texts.setdefault(row["host"], []).append(f"nova-compute {'up' if row['up'] else f'down, {seen}'}")
        named: dict[str, str] = {}
        for table in ("nova_shadow_instances", "nova_instances"):
            for one in self.rows[table]:
                if one["host"] is not None:
                    lives = table == "nova_instances" and one["deleted"] == 0
                    named[one["host"]] = "Nova has it here" if lives else "it was here last"
        return {
            host: _About(", ".join([*texts.get(host, []), *([named[host]] if host in named else [])]), host in named)
            for host in {*texts, *named}
        }


@dataclass(frozen=True)
class _About:
    """What is said beside a host's name; `named` when a row of Nova's names the host."""

    text: str
    named: bool


def _plain(name: str, value: Any) -> str:
    """A value in words, without its name."""
    if value is None:
        return "-"
    if name in ("bytes", "memory_kib"):
        return size(value * 1024 if name == "memory_kib" else value)
    if name == "power_state":
        return _POWER.get(value, str(value))
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def _fact(name: str, value: Any, clock: dt.datetime) -> str:
    """A value with its name: `host c1`, `not persistent`, `no task_state`, `created 2026-01-01 12:00:00 (3 d ago)`."""
    if name == "open_by":
        return "open by nobody" if value == [] else f"open by {_plain(name, value)}"
    if value is None:
        return f"no {name}"
    if isinstance(value, bool):
        return name if value else f"not {name}"
    if isinstance(value, dt.datetime):
        return f"{_caption(name)} {_spoken(value, clock)}"
    return _plain(name, value) if name == "path" else f"{name} {_plain(name, value)}"


def _caption(column: str) -> str:
    return _DATES.get(column, column.removesuffix("_at"))


def _when(when: dt.datetime, clock: dt.datetime) -> str:
    age = clock - when
    told = f"{words(age)} ago" if age >= dt.timedelta() else f"in {words(-age)}"
    return f"{when:%Y-%m-%d %H:%M:%S}  {told}"


def _spoken(when: dt.datetime, clock: dt.datetime) -> str:
    date, told = _when(when, clock).split("  ")
    return f"{date} ({told})"


# ------------------------------------------------------------------------------------------------ text


def text(view: View, checks: Mapping[str, Check], config: Config, width: int | None) -> Text:
    """The screen, no wider than `width`; with None as wide as it comes, a row a line.  Only what a person may copy and
    paste is never folded."""
    read = f"read {view.now:%Y-%m-%d %H:%M:%S} UTC"
    of = f"of project {view.project}, {read}" if view.project else read
    lines = [
        Text.assemble((view.subject.id, "bold"), f"  {view.name}" if view.name else ""),
        Text(_fold(of, width, 0), "dim"),
        Text(),
    ]
    if not view.places:
        lines += [Text(f"No place that was read knows {view.subject.id}."), Text()]
    columns = _Columns.of(view.blocks, width)
    for block in view.blocks:
        about = _fold(block.about, width, len(block.title) + 2)
        lines.append(Text.assemble((block.title, "bold"), (f"  {about}" if about else "", "dim")))
        if block.unheard:
            lines.append(Text(f"  {_fold(block.unheard, width, 2)}", "magenta"))
        for number, line in enumerate(block.lines):
            lines += columns.lines(line)
            later = {mark.finding for other in block.lines[number + 1 :] for mark in other.marks}
            for mark in line.marks:
                if mark.finding not in later:
                    lines.append(columns.why(mark.finding, checks[mark.finding.check]))
        lines.append(Text())
    if view.quiet:
        lines += [*(Text(_fold(line, width, 0), "dim") for line in view.quiet), Text()]
    says, style = _VERDICTS[view.outcome]
    lines.append(Text.assemble(("Verdict: ", "bold"), (_fold(says, width, 9), style)))
    lines += [Text(_fold(f"  busy: {why}", width, 4), "cyan") for why in view.busy]
    for finding in view.findings:
        lines += _finding(finding, checks[finding.check], config, view.now, width)
    if view.gaps:
        lines += [Text(), Text("Could not be read, and nothing is said of what rests on it:", "bold magenta")]
        lines += [Text(_fold(line.plain, width, 4)) for line in report.gaps_text(view.gaps)]
    return Text("\n").join(lines)


@dataclass(frozen=True)
class _Columns:
    """How wide the columns of all blocks are.  `beside` is whether a row's last column has room beside the others;
    else it goes beneath, and where it is narrower still so does the date."""

    label: int
    says: int
    date: int
    width: int | None
    beside: bool
    dated: bool

    @classmethod
    def of(cls, blocks: Iterable[Block], width: int | None) -> _Columns:
        lines = [line for block in blocks for line in block.lines]
        rows = [line for line in lines if line.date or line.more]
        label, says, date = (
            max((len(text) for text in texts), default=0)
            for texts in ([line.label for line in lines], [line.says for line in rows], [line.date for line in rows])
        )
        used = 2 + label + 2 + says + 2 + date
        return cls(label, says, date, width, width is None or width - used >= 42, width is None or width >= used)

    @property
    def indent(self) -> int:
        return 2 + self.label + 2

    def lines(self, line: Said) -> Iterable[Text]:
        cross, colour = _MARKS[_worst(line.marks)] if line.marks else (" ", "")
        room = 42 if self.width is None else min(42, self.width - self.indent)
        more = ", ".join(fact.replace(" ", _GLUE) if len(fact) < room else fact for fact in line.more)
        made = Text.assemble((cross, colour), " ", (f"{line.label:{self.label}}", "dim"), "  ")
        style = line.style or ("bold red" if cross == "✗" else "")
        if not (line.date or more):
            made.append(_fold(line.says, self.width, self.indent), style)
            return [_ended(made)]
        made.append(f"{line.says:{self.says}}", style)
        if self.dated:
            made.append(f"  {line.date:{self.date}}")
        else:
            more = "; ".join(filter(None, [" ".join(line.date.split()), more]))
        if more and self.beside:
            at = self.indent + self.says + 2 + self.date + 2
            made.append("  ")
            made.append(_fold(more, self.width, at))
            return [_ended(made)]
        beneath = [Text(f"{' ' * self.indent}{_fold(more, self.width, self.indent)}")] if more else []
        return [_ended(made), *beneath]

    def why(self, finding: Finding, check: Check) -> Text:
        cross, colour = _MARKS[finding.state]
        said = {"unproven": "unproven: ", "held": "held: "}.get(finding.state, "")
        return Text(f"{' ' * self.indent}{cross} {_fold(said + check.title, self.width, self.indent + 2)}", colour)


def _ended(line: Text) -> Text:
    line.rstrip()
    return line


def _worst(marks: Iterable[Mark]) -> str:
    states = {mark.finding.state for mark in marks}
    return next(state for state in _MARKS if state in states)


def _fold(words: str, width: int | None, indent: int) -> str:
    """Words folded to what is left of the width, each line but the first indented."""
    if width is not None:
        folded = textwrap.wrap(words, max(width - indent, 20), break_long_words=False, break_on_hyphens=False)
        words = ("\n" + " " * indent).join(folded)
    return words.replace(_GLUE, " ")


def _finding(
    finding: Finding, check: Check, config: Config, now: dt.datetime, width: int | None
) -> Iterable[Text]:  # fmt: skip
    """One finding: how sure, since when, and what would be done about it, or what a person may do."""
    row = finding.row
    cross, colour = _MARKS[finding.state]
    since = row["rung_since"] if finding.state == "held" else row["since"] or finding.first_seen
    yield Text()
    yield Text.assemble((f"{cross} {finding.state}", colour), f"  {_fold(check.title, width, len(finding.state) + 4)}")
    yield Text(f"    {finding.check}  {finding.key}", "dim")
    if since:
        of = f"on its rung, {row['rung']}, " if finding.state == "held" else ""
        yield Text(f"    {of}since {_spoken(since, now)}")
    told = [(finding.why, "magenta" if finding.state == "unproven" else "yellow")]
    if finding.risk == "by-hand":
        told.append((f"by hand: {row['by_hand'] or 'no program repairs this'}", ""))
    if row.get("nova_will"):
        told.append((f"if left alone: {row['nova_will']}", ""))
    yield from (Text(f"    {_fold(line, width, 4)}", style) for line, style in told if line)
    yield from _next(finding, check, config, now)


def _next(finding: Finding, check: Check, config: Config, now: dt.datetime) -> Iterable[Text]:
    """What would be done, or may be typed: never folded, so that it can be copied."""
    if finding.state == "unproven":
        yield Text("    nothing is done about it, and nothing should be, until that is heard")
        return
    for act in report.steps(finding, check):
        when = ""
        if finding.state == "held" and finding.row["rung_since"] is not None:
            left = finding.row["rung_since"] + config.ladder.time(str(finding.row["rung"])) - now
            when = f"in {words(left)} " if left > dt.timedelta() else "now "
        who = "purge would" if act.destroys else "repair would"
        yield Text.assemble(f"    {when}{who} {act}", (f"  ({finding.risk}; undo {act.undoing})", "dim"))
    commands = report.commands(finding, check)
    if commands:
        yield Text("    whoever is sure may type")
        yield from (Text(f"      {command}", "bold") for command in commands)


# ------------------------------------------------------------------------------------------------ JSON


def as_json(view: View, checks: Mapping[str, Check]) -> dict[str, Any]:
    """The same for a program; docs/operating.md says what each part means."""
    says, _ = _VERDICTS[view.outcome]
    return {
        "schema_version": report.VERSION,
        view.subject.kind: view.subject.id,
        "name": view.name or None,
        "project": view.project or None,
        "read_at": f"{view.now.replace(microsecond=0).isoformat()}Z",
        "verdict": {"outcome": view.outcome, "says": says},
        "busy": list(view.busy),
        "places": {name: report.rows_json(rows) for name, rows in view.places.items()},
        "findings": report.findings_json(view.findings, checks),
        "marks": [
            {"table": mark.table, "part": mark.part, "row": mark.row, "check": mark.finding.check,
             "key": mark.finding.key, "state": mark.finding.state, "why": checks[mark.finding.check].title}
            for mark in view.marks
        ],
        "unknown": [{"table": gap.table, "part": gap.part, "why": gap.why} for gap in view.gaps],
    }  # fmt: skip
