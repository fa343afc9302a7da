"""The program that lists a storage backend: one file, standard library only, one JSON answer; it changes nothing.

It runs as `python3 -` with a line `REQUEST = '<json>'` before it, or as a forced command that reads the request from
standard input, on a machine that has `rbd` and a key of Ceph's that may only read, or the LVM group itself.  Python 3.6
and later.  What it cannot read it says, with the reason, under `failed`: a part that failed has no list at all, so an
empty list always means that there is nothing.

It tells of images that are named as Nova and Cinder name theirs, and counts the others.
"""

# Machines with Python 3.6 have no newer spelling of types and no newer arguments.
# ruff: noqa: UP006, UP022, UP035, UP045

import json
import os
import re
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import Any, Callable, Dict, List, Optional, Tuple

_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
# Cinder's volume_name_template (cinder/db/api.py).  A volume that was deleted while clones stood on it is called
# volume-<id>.deleted, and a backup's base volume-<id>.backup.base: those are no volumes.
VOLUME = re.compile(r"volume-(" + _UUID + r")\Z")
# nova/virt/libvirt/imagebackend.py (Rbd, Lvm): the server, and the name of its disk: disk, disk.config, disk.eph0, ...
SERVER = re.compile(r"(" + _UUID + r")_disk(?:\.[a-z0-9_.]+)?\Z")
SNAPSHOT = re.compile(r"_?snapshot-" + _UUID + r"\Z")

# Where the programs are: on the machine itself, or where Kolla keeps those of Cinder.
CONTAINERS = [["docker", "exec", "-e", "LC_ALL=C", "-e", "TZ=UTC", "cinder_volume"],
              ["podman", "exec", "-e", "LC_ALL=C", "-e", "TZ=UTC", "cinder_volume"]]  # fmt: skip
# All that is ever asked of rbd.
ASKING = [["ls"], ["trash", "ls"], ["info"], ["snap", "ls", "--all"], ["children", "--all"], ["status"]]
COLUMNS = "lv_name,lv_size,lv_time,lv_device_open,origin"
# A pool of Ceph's, with a namespace or without; a volume group of LVM's.
NAMED = re.compile(r"[A-Za-z0-9_.+][A-Za-z0-9_.+/-]*\Z")
WORD = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_.,/@+-]*\Z")
LIST_SECONDS = 50
DETAIL_SECONDS = 20
AT_ONCE = 8


class Unread(Exception):
    """A part could not be read; the text says why."""


class Absent(Unread):
    """The image that was asked about is not there."""


def run(argv: List[str], seconds: float) -> str:
    """What a program prints.  Raises Absent if it is rbd and says that there is no such image, and Unread otherwise."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=seconds,
            env=dict(os.environ, LC_ALL="C", TZ="UTC", PATH=os.environ.get("PATH", "") + ":/usr/sbin:/sbin"),
        )
    except FileNotFoundError:
        raise Unread(argv[0] + " is not installed") from None
    except OSError as error:
        raise Unread(f"{argv[0]} cannot be run: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise Unread(f"{' '.join(argv)}: no answer within {seconds:g} s") from None
    if done.returncode != 0:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        why = f"{' '.join(argv)}: {lines[-1] if lines else f'it ended with status {done.returncode}'}"
        # A missing file or pool gives the same status (ENOENT).
        raise (Absent if done.returncode == 2 and b"error opening image" in done.stderr else Unread)(why)
    return done.stdout.decode("utf-8", "surrogateescape")


def parsed(argv: List[str], seconds: float) -> Any:
    """The JSON that a program prints."""
    try:
        return json.loads(run(argv, seconds))
    except ValueError as error:
        raise Unread(f"{' '.join(argv)}: its answer is no JSON: {error}") from None


def word(value: Any, of: str, pattern: Any = WORD) -> str:
    """A word of the request that goes to a program; never one that the program would take for an option."""
    if not isinstance(value, str) or not pattern.match(value):
        raise Unread(f"{of}: {value!r} is no name")
    return value


def named(name: str) -> Optional[Dict[str, Optional[str]]]:
    """Whose image has this name; None if it is named as neither Nova nor Cinder names theirs."""
    volume = VOLUME.match(name)
    server = None if volume else SERVER.match(name)
    if not (volume or server):
        return None
    return {"name": name, "volume": volume.group(1) if volume else None, "server": server.group(1) if server else None}


# ---------------------------------------------------------------------------------------------------------------------
# Ceph


class Rbd:
    """The rbd that answers here, as one user of Ceph's."""

    def __init__(self, request: Dict[str, Any]) -> None:
        self.options = ["--id=" + word(request["user"], "user"), "--format=json"]
        if request.get("conf") is not None:
            self.options.append("--conf=" + word(request["conf"], "conf"))
        self.pools = [word(pool, "pools", NAMED) for pool in request["pools"]]
        self.argv = self._find()

    def _find(self) -> List[str]:
        """Where rbd answers: the first that knows the first pool."""
        reasons = []  # type: List[str]
        for before in [[], *CONTAINERS]:
            self.argv = [*before, "rbd"]
            try:
                self.ask(["trash", "ls"], self.pools[0], LIST_SECONDS)
                return self.argv
            except Unread as error:
                if str(error) not in reasons:
                    reasons.append(str(error))
                if " is not installed" not in str(error) and not before:
                    break
        raise Unread("; ".join(reason for reason in reasons if "is not installed" not in reason) or reasons[0])

    def ask(self, question: List[str], of: str, seconds: float) -> Any:
        if question not in ASKING:
            raise ValueError(f"{question!r} is no question")
        return parsed([*self.argv, *self.options, *question, of], seconds)

    def listed(self) -> Tuple[List[Dict[str, Any]], int]:
        """The images of all pools, and those in their trash; and how many there are of any name."""
        images, count = [], 0
        for pool in self.pools:
            there = self.ask(["ls"], pool, LIST_SECONDS)
            thrown = self.ask(["trash", "ls"], pool, LIST_SECONDS)
            count += len(there) + len(thrown)
            for name, trash in [(name, None) for name in there] + [(one["name"], one["id"]) for one in thrown]:
                found = named(name)
                if found is not None:
                    images.append(dict(found, pool=pool, trash=trash))
        return images, count

    def uses(self, images: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
        """The details of the images that are in no trash; one that has gone meanwhile is not among them."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            found = list(pool.map(self.use, [image for image in images if image["trash"] is None]))
        return [one for one in found if one is not None]

    def use(self, image: Dict[str, Any]) -> Optional[Dict[str, Any]]:
        spec = image["pool"] + "/" + image["name"]
        try:
            info = self.ask(["info"], spec, DETAIL_SECONDS)
            snapshots = self.ask(["snap", "ls", "--all"], spec, DETAIL_SECONDS)
            children = self.ask(["children", "--all"], spec, DETAIL_SECONDS) if snapshots else []
            # Who uses it is asked last, for that acquits.
            watchers = self.ask(["status"], spec, DETAIL_SECONDS)["watchers"]
        except Absent:
            return None
        above = info.get("parent")
        return {
            "pool": image["pool"], "name": image["name"], "volume": image["volume"], "server": image["server"],
            "bytes": info["size"],
            "created_at": when(info.get("create_timestamp"), "%a %b %d %H:%M:%S %Y"),
            "parent": None if above is None else f"{within(above)}/{above['image']}@{above['snapshot']}",
            "snapshots": sorted(one["name"] for one in snapshots),
            "children": sorted(f"{within(one)}/{one['image']}" for one in children),
            "watchers": sorted(one["address"] for one in told(watchers)),
        }  # fmt: skip


def within(given: Dict[str, Any]) -> str:
    """A pool, with its namespace if it has one."""
    space = given.get("pool_namespace")
    return f"{given['pool']}/{space}" if space else str(given["pool"])


def told(watchers: Any) -> List[Dict[str, Any]]:
    """The watchers; Ceph before Nautilus (14) numbers them."""
    return [one.get("watcher", one) for one in watchers.values()] if isinstance(watchers, dict) else list(watchers)


def when(text: Optional[str], form: str) -> Optional[float]:
    """Seconds since 1970 of a date in UTC, or with its own zone; None where there is none, or it is not understood."""
    try:
        found = datetime.strptime(text or "", form)
    except ValueError:
        return None
    return (found if found.tzinfo else found.replace(tzinfo=timezone.utc)).timestamp()  # noqa: UP017 - Python 3.6


# ---------------------------------------------------------------------------------------------------------------------
# LVM


class Lvm:
    """A volume group of this machine; one call tells everything."""

    def __init__(self, request: Dict[str, Any]) -> None:
        self.group = word(request["group"], "group", NAMED)
        command = ["lvs", "--reportformat", "json", "--units", "b", "--nosuffix", "--options", COLUMNS, self.group]
        try:
            (report,) = parsed(command, LIST_SECONDS)["report"]
        except Unread as error:
            if "is not installed" in str(error):
                raise Unread("lvs is not installed") from None
            raise
        self.rows = report["lv"]  # type: List[Dict[str, str]]

    def listed(self) -> Tuple[List[Dict[str, Any]], int]:
        found = [named(row["lv_name"]) for row in self.rows]
        return [dict(one, pool=self.group, trash=None) for one in found if one is not None], len(self.rows)

    def uses(self, images: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
        below = {}  # type: Dict[str, List[str]]
        for row in self.rows:
            below.setdefault(row["origin"], []).append(row["lv_name"])
        rows = {row["lv_name"]: row for row in self.rows}
        return [self.use(image, rows[image["name"]], below.get(image["name"], [])) for image in images]

    def use(self, image: Dict[str, Any], row: Dict[str, str], below: List[str]) -> Dict[str, Any]:
        opened = row["lv_device_open"]
        return {
            "pool": image["pool"], "name": image["name"], "volume": image["volume"], "server": image["server"],
            "bytes": int(row["lv_size"]),
            "created_at": when(row["lv_time"], "%Y-%m-%d %H:%M:%S %z"),
            "parent": f"{self.group}/{row['origin']}" if row["origin"] else None,
            "snapshots": sorted(name for name in below if SNAPSHOT.match(name)),
            "children": sorted(f"{self.group}/{name}" for name in below if not SNAPSHOT.match(name)),
            # What is not known to be unused is used.
            "watchers": [] if opened == "" else [socket.gethostname()],
        }  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------------
# The answer.

KINDS = {"rbd": Rbd, "lvm": Lvm}


def readable(value: Any) -> Any:
    """The value with every text valid Unicode: bytes that are no UTF-8 come escaped."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {readable(key): readable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [readable(item) for item in value]
    return value


def reason(error: Exception) -> str:
    return str(error) if isinstance(error, Unread) else f"its answer is not understood: {type(error).__name__}: {error}"


def answer(request: Dict[str, Any]) -> Dict[str, Any]:
    """The whole answer to a request: `ids` are the UUIDs that are asked for, None: all.  It never raises for what could
    not be read.

    A listing of everything asks no details where they cost a call each.
    """
    said = {"version": 1, "clock": time.time(), "hostname": socket.gethostname()}  # type: Dict[str, Any]
    failed = {}  # type: Dict[str, str]
    ids = None if request.get("ids") is None else set(request["ids"])
    images = None  # type: Optional[List[Dict[str, Any]]]

    def attempt(part: str, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is said
            failed[part] = reason(error)
            return None

    if request.get("version") != 1 or request.get("kind") not in KINDS:
        failed["images"] = f"this program does not speak of {request.get('kind')!r} by {request.get('version')!r}"
    else:
        backend = attempt("images", lambda: KINDS[request["kind"]](request))
        found = None if backend is None else attempt("images", backend.listed)
        if found is not None:
            images, said["listed"] = found
            said["volumes"] = sum(one["trash"] is None and one["volume"] is not None for one in images)
            if ids is not None:
                images = [one for one in images if not ids.isdisjoint((one["volume"], one["server"]))]
        if images is not None and (ids is not None or request["kind"] == "lvm"):
            said["uses"] = attempt("uses", lambda: backend.uses(images))
            if said["uses"] is not None:
                there = {(one["pool"], one["name"]) for one in said["uses"]}
                images = [one for one in images if one["trash"] is not None or (one["pool"], one["name"]) in there]
    said["images"] = images
    said["failed"] = failed
    checked = readable(said)  # type: Dict[str, Any]
    return checked


def main() -> None:
    """Reads the request, prints the answer between its marks."""
    text = globals().get("REQUEST")
    request = json.loads(text if text is not None else sys.stdin.buffer.read().decode("utf-8"))
    nonce = request["nonce"]
    if not isinstance(nonce, str) or not re.match(r"[A-Za-z0-9_-]{1,128}\Z", nonce):
        raise SystemExit("the nonce is not a word")
    line = json.dumps(answer(request), sort_keys=True)
    sys.stdout.write(f"\n@@cloudfsck {nonce} begin@@\n{line}\n@@cloudfsck {nonce} end@@\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
