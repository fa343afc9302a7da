"""The hypervisors: one round trip each by probe.py, its answer as pieces of the snapshot; it changes nothing there."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from typing import Any

import pyarrow as pa

from cloudfsck import remote, tables
from cloudfsck.config import Ssh
from cloudfsck.model import Piece, Scope
from cloudfsck.remote import Failure, Target
from cloudfsck.sources import service

#: Which part of probe.py's answer each table is made from; None: from the whole.
PARTS: dict[str, str | None] = {
    "hypervisors": None,
    "libvirt_domains": "domains",
    "libvirt_disks": "domains",
    "libvirt_interfaces": "domains",
    "qemu_processes": "processes",
    "instances_paths": "instances",
    "instances_path_sharing": "instances",
    "instance_dirs": "instances",
    "disk_images": "instances",
    "quarantine": "instances",
    "base_images": "instances",
    "swtpm_states": "swtpm",
    "nvram_files": "nvram",
    "iscsi_sessions": "storage",
    "nvme_controllers": "storage",
    "block_devices": "storage",
    "network_mounts": "mounts",
    "ovs_interfaces": "ovs",
}

#: How each of our types comes from a source.
ARROW = {
    "VARCHAR": pa.string(),
    "BIGINT": pa.int64(),
    "INTEGER": pa.int32(),
    "UBIGINT": pa.uint64(),
    "DOUBLE": pa.float64(),
    "BOOLEAN": pa.bool_(),
    "TIMESTAMP": pa.timestamp("us"),
    "VARCHAR[]": pa.list_(pa.string()),
    "BIGINT[]": pa.list_(pa.int64()),
}

_SCHEMAS = {
    name: pa.schema([
        (column.name, ARROW[column.type]) for column in tables.BY_NAME[name].columns if column.name != "host"
    ])
    for name in PARTS
}  # fmt: skip


def read(
    hosts: Iterable[tuple[Target, Mapping[str, Any]]], ssh: Ssh | None, scope: Scope,
    names: Mapping[str, str] | None = None,
) -> Iterator[list[Piece]]:  # fmt: skip
    """Ask each host and yield its pieces as its answer comes; a host that does not answer gives gaps.

    Each host comes with what its request says beside the scope (`servers`, the UUIDs that are asked for, and `also`,
    whether some of them may be volumes): virsh, ovs_vsctl, nova_conf, instances_path, proc, sys, dev.  `names` are the
    machines' own names where they are known: another machine that answers is not believed.
    """
    program = files("cloudfsck.sources").joinpath("probe.py").read_text(encoding="utf-8")
    ids = None if scope.ids is None else sorted(scope.ids)
    asked = [(target, {"version": 1, **given, "servers": ids, "also": bool(scope.also)}) for target, given in hosts]
    started = service.now()
    for host, answer in remote.ask(asked, program, ssh):
        yield _pieces(host, answer, started, scope.ids, (names or {}).get(host))


def _pieces(
    host: str, answer: remote.Answer, started: dt.datetime, keys: frozenset[str] | None, name: str | None = None
) -> list[Piece]:
    finished = service.now()
    if isinstance(answer, Failure):
        return gaps([host], answer.why, started)
    try:
        said = answer["hostname"]
        if name is not None and not any(_same_machine(name, own) for own in (said, answer["canonical"])):
            why = f"it answers as {said!r}, and is known as {name!r}: see its address; if it is the right machine,"
            return gaps([host], f"{why} say hostname = {json.dumps(said)} under [host.{host}]", started)
        clock = _date(answer["clock"])
        failed = dict(answer["failed"])
        rows = _rows(answer)
        return [
            Piece(name, host, None, str(failed[part]), None, started, finished, keys)
            if part in failed
            else Piece(
                name, host, pa.Table.from_pylist(rows[name], _SCHEMAS[name]), None, clock, started, finished, keys
            )
            for name, part in PARTS.items()
        ]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, OSError, pa.ArrowException) as error:
        return gaps([host], f"its answer is not understood: {type(error).__name__}: {error}", started)


def _same_machine(name: str, said: str) -> bool:
    """Whether a machine that says so of itself has that name; it may call itself by the first part of it alone."""
    one, other = (text.lower().rstrip(".") for text in (name, said))
    return one == other or (one.partition(".")[0] == other.partition(".")[0] and not ("." in one and "." in other))


def gaps(hosts: Iterable[str], why: str, started: dt.datetime | None = None) -> list[Piece]:
    """Every table of hosts that could not be asked."""
    now = service.now()
    return [Piece(name, host, None, why, None, started or now, now) for host in hosts for name in PARTS]


def _rows(answer: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The rows of every table whose part did not fail."""
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in PARTS}
    rows["hypervisors"] = [{"hostname": answer["hostname"], "boot_id": answer["boot_id"], "seconds": answer["seconds"]}]
    if "domains" not in answer["failed"]:
        for domain in answer["domains"]:
            rows["libvirt_domains"].append(_only("libvirt_domains", domain))
            for table, inner in (("libvirt_disks", "disks"), ("libvirt_interfaces", "interfaces")):
                rows[table] += [_only(table, {**item, "uuid": domain["uuid"]}) for item in domain[inner]]
    if "processes" not in answer["failed"]:
        rows["qemu_processes"] = [
            {**_only("qemu_processes", process), "started": _date(process["started"])}
            for process in answer["processes"]
        ]
    if "instances" not in answer["failed"]:
        found = answer["instances"]
        rows["instances_paths"] = [_only("instances_paths", found)]
        rows["instances_path_sharing"] = [
            {"other": item["host"], "seen": _date(item["seen"])} for item in found["sharing"]
        ]
        rows["instance_dirs"] = [
            _only("instance_dirs", {
                **entry, "path": f"{found['real']}/{entry['name']}", "changed": _date(entry["newest"] / 1e9),
            })
            for entry in found["entries"]
        ]  # fmt: skip
        rows["disk_images"] = [_only("disk_images", image) for image in found["images"]]
        rows["quarantine"] = [
            {**_only("quarantine", entry), "at": None if entry["at"] is None else _date(entry["at"])}
            for entry in found["quarantine"]
        ]
        rows["base_images"] = [_dated("base_images", image) for image in found["bases"]]
    for table, part in (("swtpm_states", "swtpm"), ("nvram_files", "nvram")):
        if part not in answer["failed"]:
            rows[table] = [_dated(table, item) for item in answer[part]]
    if "storage" not in answer["failed"]:
        for table, inner in (
            ("iscsi_sessions", "sessions"), ("nvme_controllers", "controllers"), ("block_devices", "devices")
        ):  # fmt: skip
            rows[table] = [_only(table, item) for item in answer["storage"][inner]]
    if "mounts" not in answer["failed"]:
        rows["network_mounts"] = [_only("network_mounts", item) for item in answer["mounts"]]
    if "ovs" not in answer["failed"]:
        rows["ovs_interfaces"] = [_only("ovs_interfaces", item) for item in answer["ovs"]]
    return rows


def _only(table: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of the table.  Raises KeyError on one that the answer lacks: no default hides an absence."""
    return {name: given[name] for name in _SCHEMAS[table].names}


def _dated(table: str, given: Mapping[str, Any]) -> dict[str, Any]:
    return {**_only(table, given), "changed": _date(given["changed"])}


def _date(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).replace(tzinfo=None)
