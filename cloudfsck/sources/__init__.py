"""Read a cloud into a snapshot, in the order that makes a finding safe; the only code that reads the outside.

What may be condemned is read before what may acquit it: first the roster, then the hypervisors, the storage backends,
OVN, NSX and the DNS servers, then Cinder, Designate, Neutron, Keystone and Octavia, then Nova's API database, its cells
last, and with them the roster again.  The same path reads everything or a scope.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import pyarrow as pa

from cloudfsck import tables
from cloudfsck.config import Config, Place
from cloudfsck.model import Gap, Hold, Piece, Scope, Trouble
from cloudfsck.remote import Target
from cloudfsck.snapshot import Snapshot
from cloudfsck.sources import backends, dns, hypervisors, nova, nsx, nsxapi, ovn, schema, service
from cloudfsck.sources.database import Database, Login, Unreadable

#: Hypervisor types that nova-compute's libvirt driver reports (nova/virt/libvirt/host.py: get_driver_type).
LIBVIRT = frozenset({"qemu", "kvm", "lxc", "parallels", "xen"})

#: Called with what is being read, how much of it is done, and how much there is.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Host:
    """A line of the roster."""

    host: str
    cell: str | None
    node: str | None
    hypervisor_type: str | None
    live: bool
    libvirt: bool
    host_ip: str | None = None


@dataclass(frozen=True)
class Roster:
    """The hosts that could hold anything; `gaps` say which cells could not be asked for theirs."""

    hosts: Mapping[str, Host]
    gaps: tuple[Gap, ...] = ()

    @property
    def asked(self) -> list[str]:
        return sorted(name for name, host in self.hosts.items() if host.libvirt)


@dataclass
class Sources:
    """Everything that the configuration says can be read.  `holds` gives what our own state store holds."""

    config: Config
    holds: Callable[[], Sequence[Hold]] = list
    _api: Database = field(init=False)
    _controller: nsxapi.Cluster | None = field(init=False, default=None)
    _cells: list[Database] | None = field(init=False, default=None)
    _known: Roster | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        account = self.config.read.database
        self.login = Login.of(account)
        if self.config.nsx is not None:
            self._controller = nsxapi.Cluster(self.config.nsx)
        self._api = Database(tables.API, self.config.nova.api_database, self.login)

    # ------------------------------------------------------------------------------------------ what there is

    @property
    def api(self) -> Database:
        return self._api

    def cells(self) -> list[Database]:
        """The cells' databases.  Raises Unreadable if Nova's API database cannot say which there are."""
        if self._cells is None:
            listed = self.config.nova.cells
            if listed is not None:
                self._cells = [Database(name, url, self.login) for name, url in listed.items()]
            else:
                self._cells = nova.cells(self._api, self.login, self.config.nova.template)
        return self._cells

    def database(self, part: str) -> Database:
        """The database of a cell, or of a service beside Nova.  Raises Trouble if there is none of that name, or nobody
        can say."""
        if part in tables.SERVICES:
            for database in self.services():
                if database.name == part:
                    return database
            raise Trouble(f"the configuration names no database of {part}")
        try:
            cells = self.cells()
        except Unreadable as error:
            raise Trouble(str(error)) from error
        for database in cells:
            if database.name == part:
                return database
        raise Trouble(f"Nova has no cell {part!r}")

    def services(self) -> list[Database]:
        """The databases of the services beside Nova."""
        return schema.databases(self.config, self.login)

    def roster(self) -> Roster:
        """The hosts, as Nova's databases and the inventory know them now."""
        self._known = self._read_roster()
        return self._known

    def _roster_for(self, scope: Scope) -> Roster:
        """The roster for a scope; where that names its hosts, only their addresses count, and those may be known."""
        return self._known if self._known is not None and scope.hosts is not None else self.roster()

    def _read_roster(self) -> Roster:
        try:
            cells = self.cells()
        except Unreadable as error:
            return self._roster([], [], [Gap("nova_cell_mappings", tables.API, str(error))])
        scratch = Snapshot.create()  # it turns a stream that breaks into a gap
        gaps = scratch.add(
            nova.read_api(self._api, cells, Scope(), frozenset({"nova_host_mappings", "nova_cell_mappings"}))
        )
        for cell in cells:
            gaps += scratch.add(nova.read_cell(cell, Scope(), frozenset({"nova_compute_nodes"})))
        mapped = scratch.rows(
            "SELECT m.host, c.cell FROM nova_host_mappings m LEFT JOIN nova_cell_mappings c ON c.id = m.cell_id"
        )
        nodes = scratch.rows("SELECT * FROM nova_compute_nodes WHERE host NOTNULL ORDER BY deleted = 0, id")
        scratch.close()
        return self._roster(mapped, nodes, gaps)

    def _roster(self, mapped: list[dict[str, Any]], nodes: list[dict[str, Any]], gaps: Sequence[Gap]) -> Roster:
        hosts = {row["host"]: Host(row["host"], row["cell"], None, None, False, True) for row in mapped}
        for row in nodes:  # the live ones come last, and win
            kind = str(row["hypervisor_type"])
            before = hosts.get(row["host"])
            libvirt = kind.lower() in LIBVIRT or bool(before and before.libvirt and before.hypervisor_type is not None)
            hosts[row["host"]] = Host(
                row["host"], row["cell"], row["hypervisor_hostname"], kind, not row["deleted"], libvirt, row["host_ip"]
            )
        for name in self.config.hosts.inventory:
            place = self.config.place(name)
            hosts.setdefault(name, Host(name, place.cell, None, None, False, True))
        for name in self.config.hosts.gone:
            hosts.pop(name, None)
        return Roster(hosts, tuple(gaps))

    # ------------------------------------------------------------------------------------------ reading

    def read(self, path: Path | None, progress: Progress) -> Snapshot:
        """Read the whole cloud into a snapshot, which is left open for writing: `finish` it."""
        snapshot = Snapshot.create(path)
        progress("roster", 0, 1)
        roster = self.roster()
        progress("roster", 1, 1)
        snapshot.add(self._own())
        total = len(roster.asked)
        waiting: list[Piece] = []
        for done, pieces in enumerate(self._hosts(roster, roster.asked, Scope()), start=1):
            waiting += pieces
            progress("hypervisors", done, total)
            if len(waiting) > 500:
                snapshot.add(waiting)
                waiting = []
        snapshot.add(waiting)
        snapshot.add(self._backends(roster, Scope()))
        snapshot.add(self._ovn())
        snapshot.add(self._nsx(Scope(), progress))
        snapshot.add(self._dns(Scope(), progress))
        self._databases(snapshot, Scope(), progress)
        # Ceph tells image by image who uses one: only of those that may be left over is that asked.
        ids = backends.suspects(snapshot)
        ceph = frozenset(name for name, backend in self.config.backend.items() if backend.kind == "rbd")
        snapshot.add(backends.uses(self._backends(roster, Scope(frozenset(), None, ids, ceph))))
        self._roster_again(snapshot, roster)
        return snapshot

    def prove(self, scope: Scope) -> tuple[Snapshot, Snapshot]:
        """Read a scope, all else before and again after Nova: two snapshots that share the latter."""
        scope = replace(scope, tables=None if scope.tables is None else scope.tables | ENGINE)
        roster = self._roster_for(scope)
        before = list(self._around_nova(roster, scope))
        between = list(self._nova(scope))
        after = list(self._around_nova(roster, scope))
        own = list(self._own())
        snapshots = []
        for around in (before, after):
            snapshot = Snapshot.create()
            snapshot.add([*own, *around, *between])
            self._roster_again(snapshot, roster)
            snapshots.append(snapshot)
        return snapshots[0], snapshots[1]

    def _around_nova(self, roster: Roster, scope: Scope) -> Iterator[Piece]:
        """Everything but Nova, of which each place is asked only for what is read of it."""

        def reads(per: tables.Per) -> bool:
            return any(scope.reads(table.name) for table in tables.TABLES if table.per == per)

        if reads("host"):
            asked = roster.asked if scope.hosts is None else sorted(scope.hosts)
            for pieces in self._hosts(roster, asked, scope):
                yield from pieces
        if reads("backend"):
            yield from self._backends(roster, scope)
        if reads("ovn"):
            yield from self._ovn()
        if reads("nsx"):
            yield from self._nsx(scope)
        if reads("copy"):
            yield from self._dns(scope)
        yield from self._services(scope)

    def look(self, scope: Scope, part: str) -> Snapshot:
        """Read what acts change, and nothing else: of the hypervisors of a scope what they hold now, or what a service
        beside Nova knows, or of a cell the volumes of its servers."""
        snapshot = Snapshot.create()
        if not part:
            roster = self._roster_for(scope)
            asked = roster.asked if scope.hosts is None else sorted(scope.hosts)
            snapshot.add(piece for pieces in self._hosts(roster, asked, scope) for piece in pieces)
        elif part in tables.SERVICES:
            snapshot.add(self._services(scope, part))
        elif part == tables.OVN:
            snapshot.add(self._ovn())
        elif part == tables.NSX:
            snapshot.add(self._nsx(scope))
        elif "@" in part:
            snapshot.add(self._dns(replace(scope, also=scope.also | {part})))
        else:
            snapshot.add(nova.read_cell(self.database(part), scope, frozenset({"nova_block_device_mapping"})))
        snapshot.add(self._own())
        _part_twins(snapshot)
        return snapshot

    def target(self, host: Host) -> tuple[Target, Place]:
        """How a host is reached, by the configuration.  Raises Trouble if the template of its address is none, and
        Unreadable if what that asks for is not known of this host."""
        place = self.config.place(host.host)
        given = {"host": host.host, "host_ip": host.host_ip, "node": host.node}
        for name, value in given.items():
            if f"{{{name}}}" in str(place.address) and not value:
                raise Unreadable(f"its address is not known: no database that could be read says its {name}")
        try:
            address = str(place.address).format(**given)
        except (KeyError, IndexError, ValueError) as error:
            raise Trouble(
                f"hosts.address {place.address!r} is no template with {{host}}, {{node}} or {{host_ip}}"
            ) from error
        jump = self.config.hosts.jump.get(place.cell or host.cell or "")
        # the defaults of [hosts] leave none of these open
        return Target(
            host.host, address, place.port or 22, place.transport or "ssh", place.python or "python3", jump
        ), place

    def _hosts(self, roster: Roster, names: Iterable[str], scope: Scope) -> Iterator[list[Piece]]:
        known, unknown, called = [], [], {}
        for name in names:
            if name not in roster.hosts:
                unknown.append(name)
                continue
            try:
                target, place = self.target(roster.hosts[name])
            except Unreadable as error:
                yield hypervisors.gaps([name], str(error))
                continue
            request = {
                "virsh": place.virsh,
                "ovs_vsctl": place.ovs_vsctl,
                "nova_conf": place.nova_conf,
                "instances_path": place.instances_path,
                "proc": place.proc,
                "sys": place.sys,
                "dev": place.dev,
            }
            known.append((target, request))
            if own := place.hostname or roster.hosts[name].node:
                called[name] = own
        if unknown:
            yield hypervisors.gaps(unknown, "Nova does not know this host any more")
        if known:
            yield from hypervisors.read(known, self.config.read.ssh, scope, called)

    def _backends(self, roster: Roster, scope: Scope) -> Iterator[Piece]:
        """The storage backends that a scope asks for, each on the host where our configuration says."""
        asked = []
        for name, backend in self.config.backend.items():
            if scope.backends is not None and name not in scope.backends:
                continue
            try:
                asked.append((replace(self._machine(roster, backend.host), host=name), backend))
            except Unreadable as error:
                yield from backends.gaps(name, str(error))
        if asked:
            yield from backends.read(asked, self.config.read.ssh, scope)

    def _machine(self, roster: Roster, name: str) -> Target:
        """A machine that may be no hypervisor, or "here".  Raises Unreadable as `target` does."""
        if name == "here":
            return Target(name, name, 0, "local", self.config.hosts.python)
        return self.target(roster.hosts.get(name) or Host(name, None, None, None, False, False))[0]

    def _databases(self, snapshot: Snapshot, scope: Scope, progress: Progress) -> None:
        progress("databases", 0, 1)
        try:
            total = len(self.cells()) + 1
        except Unreadable:
            total = 1
        total += sum(bool(service.tables_read_from(database)) for database in self.services())
        by_part = groupby(chain(self._services(scope), self._nova(scope)), lambda piece: piece.part)
        for done, (_, pieces) in enumerate(by_part):
            progress("databases", done, total)
            snapshot.add(pieces)
        progress("databases", total, total)

    def _services(self, scope: Scope, only: str | None = None) -> Iterator[Piece]:
        """What the services beside Nova know, or `only` one of them; nothing of one that the configuration does not
        name: then no check asks for it."""
        for database in self.services():
            wanted = [table for table in service.tables_read_from(database) if scope.reads(table.name)]
            if wanted and only in (None, database.name):
                yield from service.read(database, database.name, wanted, scope)

    def _ovn(self) -> Iterator[Piece]:
        """All of OVN, whatever the scope: the whole is read in a second."""
        if self.config.ovn is not None:
            yield from ovn.read(self.config.ovn)

    def _nsx(self, scope: Scope, progress: Progress = lambda what, done, total: None) -> Iterator[Piece]:
        if self._controller is not None:
            yield from nsx.read(self._controller, scope, progress)

    def _dns(self, scope: Scope, progress: Progress = lambda what, done, total: None) -> Iterator[Piece]:
        """The zones on the DNS servers that a scope asks for: a transfer each where that is everything."""
        settings = self.config.dns
        if scope.copies is not None:
            zones = {copy.rpartition("@")[0] for copy in scope.copies}
            yield from dns.read(dns.copies(settings, zones), scope)
            return
        if not settings.zone and not settings.servers:
            return
        listed = self._zones() if settings.servers else []
        if isinstance(listed, Gap):
            yield from dns.nothing(f"it is not known which zones Designate has: {listed.why}")
            listed = []
        wanted = dns.copies(settings, listed)
        for done, copy in enumerate(wanted):
            progress("DNS zones", done, len(wanted))
            yield from dns.read([copy], scope)
        progress("DNS zones", len(wanted), len(wanted))
        if not wanted:
            yield from dns.nothing(None)

    def _zones(self) -> list[str] | Gap:
        """The zones that Designate is the first to have; which they are is read once more when Designate is."""
        if self.config.designate is None:
            return []
        scratch = Snapshot.create()
        try:
            database = self.database(tables.DESIGNATE)
            gaps = scratch.add(service.read(database, tables.DESIGNATE, [tables.BY_NAME["designate_zones"]], Scope()))
            named = scratch.rows("SELECT name FROM designate_zones WHERE type = 'PRIMARY' ORDER BY name")
            return gaps[0] if gaps else [row["name"] for row in named]
        finally:
            scratch.close()

    def _nova(self, scope: Scope) -> Iterator[Piece]:
        try:
            cells = self.cells()
        except Unreadable as error:
            now = service.now()
            for table in tables.TABLES:
                if table.per == "api" and scope.reads(table.name):
                    yield Piece(table.name, tables.API, None, str(error), None, now, now)
            return
        yield from nova.read_api(self._api, cells, scope, scope.tables)
        for cell in cells:
            yield from nova.read_cell(cell, scope, scope.tables)

    def _roster_again(self, snapshot: Snapshot, first: Roster) -> None:
        """Put the roster into the snapshot, with what Nova's databases said of hosts after the hosts were asked."""
        late = snapshot.rows(
            "SELECT DISTINCT host FROM (SELECT host, hypervisor_type, deleted FROM nova_compute_nodes"
            " UNION ALL SELECT host, NULL, 0 FROM nova_host_mappings) WHERE host NOTNULL"
            " AND (hypervisor_type IS NULL OR lower(hypervisor_type) IN "
            f"({', '.join(repr(kind) for kind in sorted(LIBVIRT))}))"
        )
        new = {row["host"] for row in late} - set(first.hosts) - set(self.config.hosts.gone)
        _part_twins(snapshot)
        self._doubt_the_gone(snapshot)
        now = service.now()
        rows = [
            {"host": host.host, "cell": host.cell, "node": host.node, "hypervisor_type": host.hypervisor_type,
             "live": host.live, "libvirt": host.libvirt}
            for host in first.hosts.values()
        ]  # fmt: skip
        why = None
        if first.gaps:
            why = f"not every cell could be asked for its hosts: {first.gaps[0]}"
        elif new:
            why = f"hosts appeared while the cloud was read: {', '.join(sorted(new))}"
            snapshot.add(hypervisors.gaps(sorted(new), "appeared while the cloud was read"))
        table = pa.Table.from_pylist(rows, _ROSTER)
        snapshot.add([Piece("roster", "", None if why else table, why, None, now, now)])

    def _doubt_the_gone(self, snapshot: Snapshot) -> None:
        """A host that the configuration calls gone, and that Nova still uses, is a gap like any that was not asked."""
        used = snapshot.rows(
            "SELECT DISTINCT host FROM live_servers WHERE host IN (SELECT unnest($gone))"
            " UNION SELECT host FROM compute_services WHERE up AND host IN (SELECT unnest($gone)) ORDER BY host",
            {"gone": sorted(self.config.hosts.gone)},
        )
        hosts = [row["host"] for row in used]
        snapshot.add(hypervisors.gaps(hosts, "hosts.gone says that it is gone, and Nova still uses it"))

    def _own(self) -> Iterator[Piece]:
        """What comes from our configuration and our state store."""
        now = service.now()
        settings = [
            {"name": name, "value": getattr(self.config.nova, name)}
            for name in (
                "service_down_time",
                "long_rpc_timeout",
                "maximum_instance_delete_attempts",
                "reclaim_instance_interval",
            )
        ]
        if self.config.ovn is not None:
            settings.append({"name": "ovn_alone", "value": int(self.config.ovn.alone)})
        if self.config.nsx is not None:
            settings.append({"name": "nsx_policy", "value": int(self.config.nsx.api == "policy")})
        yield Piece("settings", "", pa.Table.from_pylist(settings), None, None, now, now)
        held = [
            {"check_name": hold.check, "kind": hold.kind, "host": hold.host, "server": hold.server, "rung": hold.rung,
             "since": hold.since, "run": hold.run, "entry": hold.entry}
            for hold in self.holds()
        ]  # fmt: skip
        yield Piece("holds", "", pa.Table.from_pylist(held, _HOLDS), None, None, now, now)


def _part_twins(snapshot: Snapshot) -> None:
    """Believe nothing of hosts that are one and the same machine: their addresses are wrong, or Nova knows it by two
    names, and everything on it would be seen twice."""
    twins = snapshot.rows(
        "SELECT list(host ORDER BY host) AS hosts FROM hypervisors GROUP BY hostname, boot_id HAVING count(*) > 1"
    )
    for row in twins:
        why = f"{' and '.join(row['hosts'])} are one and the same machine; see the addresses in [hosts]"
        snapshot.add(hypervisors.gaps(row["hosts"], why))


#: What is read for every proof, whatever its check reads: which hosts and cells there are, who of the hosts that are
#: said to be gone is used, and the tags that keep a server.
ENGINE = frozenset({
    "nova_cell_mappings", "nova_compute_nodes", "nova_host_mappings", "nova_instances", "nova_services", "nova_tags",
})  # fmt: skip

_ROSTER = pa.schema([
    ("host", pa.string()), ("cell", pa.string()), ("node", pa.string()), ("hypervisor_type", pa.string()),
    ("live", pa.bool_()), ("libvirt", pa.bool_()),
])  # fmt: skip

_HOLDS = pa.schema([
    ("check_name", pa.string()), ("kind", pa.string()), ("host", pa.string()), ("server", pa.string()),
    ("rung", pa.string()), ("since", pa.timestamp("us")), ("run", pa.string()), ("entry", pa.string()),
])  # fmt: skip
