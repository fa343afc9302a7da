"""A whole reading of a large cloud and all checks on it, against what the C client needs for the same columns.

    python -m benchmarks.large_cloud [--servers N] [--deleted N] [--hosts N] [--rounds N]

MariaDB runs with Nova's real schemas, one cell.  The hypervisors' answers are JSON as the probe gives it, parsed and
joined as ever; only the way over SSH is left out.  `raw` is `mariadb --quick` reading the same columns of the same rows
into nothing, table after table.  The reading is a process of its own, whose peak of memory is measured.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import md5
from pathlib import Path
from typing import Any
from unittest import mock

from cloudfsck import checking, checks, config, remote, tables
from cloudfsck.sources import Sources
from tests.bed import MariaDB

API, CELL = "nova_api", "nova_cell1"
INSTANCES = "/var/lib/nova/instances"

#: The UUID of the n-th server, as SQL of its number, and as Python.
UUID = "INSERT(INSERT(INSERT(INSERT(MD5({n}), 9, 0, '-'), 14, 0, '-'), 19, 0, '-'), 24, 0, '-')"
PROJECT = "MD5(CONCAT('project', {n} MOD 1000))"

#: How Nova reaches a volume, as SQL: 800 bytes of JSON, as of an array with multipath.
CONNECTION = (
    """CONCAT('{{"driver_volume_type": "iscsi", "data": {{"target_iqns": ["iqn.2000-01.example:a","""
    """ "iqn.2000-01.example:b"], "target_portals": ["192.0.2.1:3260", "192.0.2.2:3260"],"""
    """ "target_luns": [', seq MOD 255, ', ', seq MOD 255, '],"""
    """ "auth_password": "', REPEAT('p', 400), '"}}, "serial": "', {uuid}, '"}}')"""
)

#: How each table is filled: {live} servers run, those after them up to {all} are deleted, {hosts} hosts have them.
#: 200 of the deleted still run, each beside the living of its host.
FILL = {
    API: [
        "INSERT INTO cell_mappings (id, uuid, name, transport_url, database_connection, disabled) VALUES"
        " (1, '00000000-0000-0000-0000-000000000000', 'cell0', 'none:///', '{cell0}', 0),"
        " (2, '{cell_uuid}', 'cell1', 'none:///', '{cell1}', 0)",
        "INSERT INTO host_mappings (created_at, host, cell_id) SELECT NOW(), CONCAT('compute', seq), 2 FROM"
        " seq_1_to_{hosts}",
        "INSERT INTO instance_mappings (created_at, instance_uuid, cell_id, project_id, user_id, queued_for_delete)"
        " SELECT NOW() - INTERVAL 90 DAY, {uuid}, 2, {project}, MD5('user'), seq > {live} FROM seq_1_to_{all}",
        "INSERT INTO request_specs (created_at, instance_uuid, spec) SELECT NOW(), {uuid}, REPEAT('x', 2000) FROM"
        " seq_1_to_{live}",
    ],
    CELL: [
        "INSERT INTO services (created_at, host, `binary`, topic, report_count, disabled, last_seen_up, forced_down,"
        " version, deleted, uuid) SELECT NOW(), CONCAT('compute', seq), 'nova-compute', 'compute', 100, 0,"
        " UTC_TIMESTAMP() + INTERVAL 1 DAY, 0, 68, 0, {uuid} FROM seq_1_to_{hosts}",
        "INSERT INTO compute_nodes (created_at, host, hypervisor_hostname, hypervisor_type, hypervisor_version, vcpus,"
        " memory_mb, local_gb, vcpus_used, memory_mb_used, local_gb_used, cpu_info, deleted, uuid, host_ip, mapped)"
        " SELECT NOW(), CONCAT('compute', seq), CONCAT('compute', seq), 'QEMU', 8002000, 64, 512000, 4000, 0, 0, 0,"
        " REPEAT('c', 1500), 0, {uuid}, '192.0.2.1', 1 FROM seq_1_to_{hosts}",
        "INSERT INTO instances (created_at, updated_at, deleted_at, deleted, uuid, project_id, user_id, image_ref,"
        " hostname, display_name, host, node, vm_state, power_state, launched_at, launched_on, memory_mb, vcpus,"
        " root_gb, ephemeral_gb, user_data, cleaned, hidden) SELECT NOW() - INTERVAL 90 DAY, NOW() - INTERVAL 9 DAY,"
        " IF(seq > {live}, NOW() - INTERVAL 9 DAY, NULL), IF(seq > {live}, seq, 0), {uuid}, {project}, MD5('user'),"
        " MD5('image'), CONCAT('server-', seq), CONCAT('server-', seq), CONCAT('compute', 1 + seq MOD {hosts}),"
        " CONCAT('compute', 1 + seq MOD {hosts}), IF(seq > {live}, 'deleted', 'active'), 1, NOW() - INTERVAL 90 DAY,"
        " CONCAT('compute', 1 + seq MOD {hosts}), 4096, 2, 20, 0, REPEAT('u', 500), seq > {live}, 0 FROM"
        " seq_1_to_{all}",
        "INSERT INTO instance_system_metadata (created_at, instance_uuid, `key`, value, deleted) SELECT NOW(), {uuid},"
        " ELT(1 + (seq MOD 2), 'image_base_image_ref', 'clean_attempts'), '1', IF(seq > {live}, seq, 0) FROM"
        " seq_1_to_{all}",
        "INSERT INTO block_device_mapping (created_at, updated_at, deleted_at, deleted, uuid, instance_uuid,"
        " source_type, destination_type, volume_id, device_name, boot_index, delete_on_termination, no_device,"
        " connection_info) SELECT NOW(), NOW(), IF(seq > {live}, NOW(), NULL), IF(seq > {live}, seq, 0), {uuid},"
        " {uuid}, 'image', IF(seq MOD 2, 'volume', 'local'), IF(seq MOD 2, {uuid}, NULL), '/dev/vda', 0, 1, 0,"
        " IF(seq MOD 2, {connection}, NULL) FROM seq_1_to_{all}",
        "INSERT INTO virtual_interfaces (created_at, address, instance_uuid, uuid, deleted) SELECT NOW(),"
        " CONCAT('fa:16:3e:', seq), {uuid}, {uuid}, IF(seq > {live}, seq, 0) FROM seq_1_to_{all}",
        "INSERT INTO migrations (created_at, updated_at, uuid, instance_uuid, status, migration_type, source_compute,"
        " dest_compute, source_node, dest_node, deleted) SELECT NOW(), NOW(), {uuid}, {uuid}, 'completed',"
        " 'live-migration', CONCAT('compute', 1 + (seq + 1) MOD {hosts}), CONCAT('compute', 1 + seq MOD {hosts}),"
        " CONCAT('compute', 1 + (seq + 1) MOD {hosts}), CONCAT('compute', 1 + seq MOD {hosts}),"
        " IF(seq > {live}, seq, 0) FROM seq_1_to_{all} WHERE seq MOD 4 = 0",
        "INSERT INTO instance_faults (created_at, instance_uuid, code, message, host, deleted) SELECT NOW(), {uuid},"
        " 500, 'No valid host was found.', 'compute1', 0 FROM seq_1_to_{live} WHERE seq MOD 20 = 0",
        "INSERT INTO instance_extra (created_at, instance_uuid, flavor, deleted) SELECT NOW(), {uuid},"
        " REPEAT('f', 1500), IF(seq > {live}, seq, 0) FROM seq_1_to_{live}",
    ],
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--servers", type=int, default=100_000, help="servers that live")
    parser.add_argument("--deleted", type=int, default=1_000_000, help="rows of servers that are deleted")
    parser.add_argument("--hosts", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.read:
        print(json.dumps(measured(given.read)))
        return
    with tempfile.TemporaryDirectory(prefix="cfsck-benchmark-") as folder, MariaDB(Path(folder) / "db") as server:
        said("filling the databases")
        fill(server, given.servers, given.servers + given.deleted, given.hosts)
        said("writing the hypervisors' answers")
        answers(Path(folder), given.servers, given.hosts)
        configuration(Path(folder), server)
        rounds = []
        for number in range(given.rounds):
            said(f"round {number + 1} of {given.rounds}")
            raw = quick(server)
            child = [sys.executable, "-m", "benchmarks.large_cloud", "--read", folder]
            done = subprocess.run(child, stdout=subprocess.PIPE, text=True, check=True)
            rounds.append({"raw": raw, **json.loads(done.stdout)})
    told(rounds)


def told(rounds: Sequence[Mapping[str, float]]) -> None:
    def row(name: str, values: Iterable[float], unit: str) -> None:
        ordered = sorted(values)
        print(f"{name:<44}{ordered[0]:9.2f}{ordered[len(ordered) // 2]:9.2f}{ordered[-1]:9.2f}  {unit}")

    print(f"{'':<44}{'least':>9}{'middle':>9}{'most':>9}")
    row("raw: mariadb --quick", (one["raw"] for one in rounds), "s")
    row("databases read", (one["databases"] for one in rounds), "s")
    row("all checks", (one["checks"] for one in rounds), "s")
    row("hypervisors' answers read", (one["hypervisors"] for one in rounds), "s")
    row("databases / raw", (one["databases"] / one["raw"] for one in rounds), "times")
    row("databases and checks / raw", ((one["databases"] + one["checks"]) / one["raw"] for one in rounds), "times")
    row("peak of memory", (one["memory"] for one in rounds), "MB")
    row("size of the snapshot", (one["snapshot"] for one in rounds), "MB")
    row("findings", (one["findings"] for one in rounds), "")


def fill(server: MariaDB, live: int, every: int, hosts: int) -> None:
    server.create(API, "nova_api")
    server.create(CELL, "nova_cell")
    server.create("nova_cell0", "nova_cell")
    values = {
        "live": live, "all": every, "hosts": hosts, "uuid": UUID.format(n="seq"), "project": PROJECT.format(n="seq"),
        "connection": CONNECTION.format(uuid=UUID.format(n="seq")),
        "cell0": f"mysql+pymysql://nova:secret@127.0.0.1:{server.port}/nova_cell0",
        "cell1": f"mysql+pymysql://nova:secret@127.0.0.1:{server.port}/{CELL}",
        "cell_uuid": "11111111-2222-3333-4444-555555555555",
    }  # fmt: skip
    server.execute("", "SET GLOBAL foreign_key_checks = 0, GLOBAL unique_checks = 0")
    for database, statements in FILL.items():
        for statement in statements:
            server.execute(database, statement.format(**values))


def answers(folder: Path, live: int, hosts: int) -> None:
    """What each host's probe would say, a file each."""
    place = folder / "answers"
    place.mkdir()
    clock = time.time()
    zombies = range(live + 1, live + 201)
    on: dict[int, list[int]] = {}
    for number in [*range(1, live + 1), *zombies]:
        on.setdefault(1 + number % hosts, []).append(number)

    def uuid(number: int) -> str:
        digits = md5(str(number).encode(), usedforsecurity=False).hexdigest()
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))

    for host in range(1, hosts + 1):
        mine = [(number, uuid(number)) for number in on.get(host, [])]
        answer = {
            "version": 1, "clock": clock, "hostname": f"compute{host}", "canonical": f"compute{host}",
            "boot_id": str(host), "seconds": 0.5, "failed": {}, "swtpm": [], "nvram": [], "mounts": [],
            "storage": {"sessions": [], "controllers": [], "devices": []},
            "domains": [_domain(number, server) for number, server in mine],
            "processes": [
                {"pid": number, "uuid": server, "name": f"instance-{number:08x}", "started": clock - 9e6, "unnamed": 0}
                for number, server in mine
            ],
            "instances": {
                "path": INSTANCES, "real": INSTANCES, "path_from": "/etc/nova/nova.conf", "device": 1, "inode": 2,
                "fsid": f"{host:x}", "fstype": "ext4", "mount": "/dev/vda1", "local": True, "sharing": [],
                "entries": [_entry(number, server) for number, server in mine],
                "images": [
                    {"path": f"{INSTANCES}/{server}/disk", "server": server, "format": "qcow2",
                     "bytes": 5 << 30, "inode": 2 * number, "backing": f"{INSTANCES}/_base/5f1d",
                     "backing_server": None}
                    for number, server in mine
                ],
                "quarantine": [],
                "bases": [],
            },
        }  # fmt: skip
        (place / f"compute{host}").write_text(json.dumps(answer))


def _domain(number: int, server: str) -> dict[str, Any]:
    return {
        "uuid": server, "name": f"instance-{number:08x}", "id": number, "state": "running", "reason": "booted",
        "persistent": True, "autostart": False, "managed_save": False, "nova": True, "nova_name": f"server-{number}",
        "project": "0" * 32, "created": "2026-01-01 00:00:00", "memory_kib": 4 << 20, "vcpus": 2, "job": None,
        "hostdevs": 0, "nvram": None, "tpm": False, "xml_sha256": f"{number:064x}",
        "disks": [
            {"target": f"vd{letter}", "type": "file", "device": "disk", "config": "both", "serial": None, "alias": None,
             "stored": None, "backing": [], "source": f"{INSTANCES}/{server}/disk.{letter}"}
            for letter in "ab"
        ],
        "interfaces": [{"mac": f"fa:16:3e:{number}", "target": f"tap{number}", "config": "both", "port": server}],
    }  # fmt: skip


def _entry(number: int, server: str) -> dict[str, Any]:
    return {
        "name": server, "kind": "instance", "server": server, "inode": number, "device": 1, "bytes": 5 << 30,
        "files": 4, "newest": 1_790_000_000 * 10**9, "uid": 64055, "gid": 64055, "mode": 493, "symlink": False,
        "open_by": [number],
    }  # fmt: skip


def configuration(folder: Path, server: MariaDB) -> None:
    (folder / "password").write_text(server.reader.password)
    (folder / "cloudfsck.toml").write_text(f"""\
[cloud]
name = "large"
state = "state"
[nova]
api_database = "mysql+pymysql://127.0.0.1:{server.port}/{API}"
[read.database]
user = "{server.reader.user}"
password_file = "password"
[hosts]
transport = "local"
""")


def quick(server: MariaDB) -> float:
    """How long the C client takes to read the same columns of the same rows into nothing."""
    began = time.monotonic()
    for database, per in ((API, "api"), (CELL, "cell"), ("nova_cell0", "cell")):
        known = dict(server.execute("", "SELECT table_name, GROUP_CONCAT(column_name) FROM information_schema.columns"
                                        f" WHERE table_schema = '{database}' GROUP BY table_name"))  # fmt: skip
        for table in tables.TABLES:
            if table.per == per and table.origin:
                have = set(known[table.origin].split(","))
                columns = ", ".join(f"`{column.name}`" for column in table.asked if column.name in have)
                where = f" WHERE {table.where.replace('{key}', '`key`')}" if table.where else ""
                client = ["mariadb", "--quick", "-N", "-B", f"--socket={server.directory}/socket", database, "-e",
                          f"SELECT {columns} FROM `{table.origin}`{where}"]  # fmt: skip
                subprocess.run(client, stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - began


def measured(folder: Path) -> dict[str, float]:
    """Read it all and ask every check; seconds of each, MB, and how many findings there were."""
    settings = config.load(folder / "cloudfsck.toml")

    def ask(asked: Iterable[tuple[remote.Target, Mapping[str, Any]]], *_: object) -> Iterator[tuple[str, Any]]:
        for target, _request in asked:
            yield target.host, json.loads((folder / "answers" / target.host).read_text())

    moments: dict[str, float] = {}

    def progress(what: str, done: int, total: int) -> None:
        moments[f"{what} {'ended' if done == total else 'began'}"] = time.monotonic()

    began = time.monotonic()
    path = folder / f"{datetime.now(UTC):%H%M%S}.duckdb"
    with mock.patch.object(remote, "ask", ask):
        snapshot = Sources(settings).read(path, progress)
    read = time.monotonic()
    gaps = snapshot.heard().gaps
    if gaps:
        raise SystemExit(f"not all was read: {next(iter(gaps.values()))}")
    answers = checking.run_all(checks.load(), snapshot)
    checked = time.monotonic()
    snapshot.finish()
    size = path.stat().st_size / 2**20
    path.unlink()
    return {
        "hypervisors": moments["hypervisors ended"] - moments["roster ended"],
        "databases": read - moments["hypervisors ended"] + moments["roster ended"] - began,
        "checks": checked - read,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "snapshot": size,
        "findings": sum(len(answer.findings) for answer in answers.values()),
    }


def said(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr)


if __name__ == "__main__":
    main()
