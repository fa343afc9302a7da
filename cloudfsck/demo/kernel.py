"""A stand-in for the storage of a hypervisor that is only a folder: sysfs, /dev, and the programs that change them.

The folder's `bin/` has a shell script for each program, this module behind all of them:

    iscsiadm, multipath, multipathd, blockdev, tee    change `sys/` and `dev/` as the kernel and udev would
    python3                                           runs a program of cloudfsck's as `python3 -` does, where these
                                                      programs are found first, and a node in `dev/` is a device

It stands alone (standard library, nothing of ours), so that each call is over in an instant, and never touches a real
device: without root nobody can make one, so a node is a file with the number of its device in it.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator
from types import CodeType

PROGRAMS = ("iscsiadm", "multipath", "multipathd", "blockdev", "tee", "python3")
#: The multipathd of every host: it has each path open.
MULTIPATHD = 700
#: Names and numbers that hardly any machine has itself: its own mounts are looked at, too, before a device is removed.
_SCSI, _MAPS = 135, 1000


class Wrong(Exception):
    """What a program says when it does nothing, and its exit status."""

    def __init__(self, said: str, status: int = 1) -> None:
        super().__init__(said)
        self.status = status


# ---------------------------------------------------------------------------------------------------------------------
# What the kernel has.


class Storage:
    """The storage of one host.  Paths are those of this machine, names the kernel's: session3, sdb, dm-0."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.sys = os.path.join(place, "sys")
        self.dev = os.path.join(place, "dev")
        self.records = os.path.join(place, "iscsi")

    def make(self) -> None:
        """A host that nothing is connected to."""
        for folder in ("class/block", "class/iscsi_session", "class/iscsi_connection", "block"):
            os.makedirs(os.path.join(self.sys, folder))
        os.makedirs(self.dev)
        os.makedirs(self.records)

    def session(self, target: str, portal: str, up: bool = True) -> str:
        """The session to a target by a portal (address:port), which is made if there is none."""
        for name in os.listdir(os.path.join(self.sys, "class/iscsi_session")):
            if (self._target(name), self._portal(name)) == (target, portal):
                return name
        number = 1 + len(os.listdir(os.path.join(self.sys, "class/iscsi_session")))
        name = f"session{number}"
        top = f"devices/platform/host{number}/{name}"
        state, line = ("LOGGED_IN", "up") if up else ("FREE", "failed")
        here = self._put(f"{top}/iscsi_session/{name}", targetname=target, state=state)
        os.symlink(os.path.join(self.sys, top), os.path.join(here, "device"))
        self._linked("class/iscsi_session", here)
        address, _, port = portal.rpartition(":")
        said = {"persistent_address": address, "persistent_port": port, "address": address, "port": port}
        connection = f"connection{number}:0"
        self._linked(
            "class/iscsi_connection", self._put(f"{top}/{connection}/iscsi_connection/{connection}", **said, state=line)
        )
        with open(self._record(target, portal), "w"):
            pass
        return name

    def disk(self, session: str, lun: int, wwid: str, size: int) -> str:
        """A LUN (size in MiB) that was found in a session; its state is its session's."""
        number = session[len("session") :]
        nth = 1 + sum(name.startswith("sd") for name in os.listdir(os.path.join(self.sys, "block")))
        name = "sda" + chr(ord("a") + nth - 1)
        top = f"devices/platform/host{number}/{session}/target{number}:0:0/{number}:0:0:{lun}"
        with open(os.path.join(self.sys, "class/iscsi_session", session, "state")) as file:
            state = "running" if file.read().strip() == "LOGGED_IN" else "transport-offline"
        here = self._put(top, type="0", state=state, wwid=f"naa.{wwid}", delete="")
        block = self._block(f"{top}/block/{name}", f"{_SCSI}:{16 * nth}", size)
        os.symlink(here, os.path.join(block, "device"))
        way = f"ip-{self._portal(session)}-iscsi-{self._target(session)}-lun-{lun}"
        self._named(f"disk/by-path/{way}", name)
        held = os.path.join(self.place, "proc", str(MULTIPATHD), "fd")
        os.symlink(os.path.join(self.dev, name), os.path.join(held, str(5 + nth)))
        return name

    def map(self, paths: list[str], wwid: str, size: int) -> str:
        """The multipath map over these disks."""
        number = sum(name.startswith("dm-") for name in os.listdir(os.path.join(self.sys, "block")))
        name, label = f"dm-{number}", f"3{wwid}"
        block = self._block(f"devices/virtual/block/{name}", f"253:{_MAPS + number}", size)
        self._put(f"devices/virtual/block/{name}/dm", name=label, uuid=f"mpath-{label}", suspended="0")
        for path in paths:
            below = os.path.realpath(os.path.join(self.sys, "block", path))
            os.symlink(below, os.path.join(block, "slaves", path))
            os.symlink(block, os.path.join(below, "holders", name))
        self._named(f"mapper/{label}", name)
        self._named(f"disk/by-id/dm-uuid-mpath-{label}", name)
        return name

    def node(self, path: str) -> str:
        """Where a name that this host has below /dev lies."""
        return self.dev + path[len("/dev") :] if path.startswith("/dev/") else path

    # What takes it away.

    def remove_map(self, label: str) -> None:
        for name in os.listdir(os.path.join(self.sys, "block")):
            here = os.path.realpath(os.path.join(self.sys, "block", name))
            if not name.startswith("dm-") or _line(here, "dm", "name") != label:
                continue
            if any(os.path.realpath(link) == os.path.join(os.path.realpath(self.dev), name) for link in self._open()):
                raise Wrong(f"{label}: map in use")
            for path in os.listdir(os.path.join(here, "slaves")):
                os.unlink(os.path.join(here, "slaves", path, "holders", name))
            self._forget(name, here)
            return
        raise Wrong(f"{label}: not a multipath device")

    def remove_disk(self, delete: str) -> None:
        """`delete` is the file of that name in the folder of a SCSI device."""
        device = os.path.dirname(os.path.realpath(delete))
        if not device.startswith(os.path.realpath(self.sys) + "/devices/platform/"):
            raise Wrong(f"{delete}: not a disk of this host")
        for name in os.listdir(os.path.join(device, "block")):
            for link in self._open():
                if (
                    os.path.dirname(link).split("/")[-2] == str(MULTIPATHD)
                    and os.path.basename(os.readlink(link)) == name
                ):
                    os.unlink(link)
            self._forget(name, device)

    def remove_session(self, name: str) -> None:
        number = name[len("session") :]
        here = os.path.join(self.sys, "devices/platform", f"host{number}")
        if not os.path.isdir(here):
            raise Wrong(f"iscsiadm: No session found for SID {number}", 21)
        os.unlink(os.path.join(self.sys, "class/iscsi_session", name))
        os.unlink(os.path.join(self.sys, "class/iscsi_connection", f"connection{number}:0"))
        for disk in [one for one in os.listdir(os.path.join(self.sys, "block")) if self._way(one).startswith(here)]:
            self.remove_disk(os.path.join(self.sys, "block", disk, "device", "delete"))
        _rmtree(here)

    def remove_record(self, target: str, portal: str) -> None:
        try:
            os.unlink(self._record(target, portal))
        except FileNotFoundError:
            raise Wrong("iscsiadm: No records found", 21) from None

    def sessions(self) -> Iterator[str]:
        """As `iscsiadm -m session` lists them."""
        for name in sorted(os.listdir(os.path.join(self.sys, "class/iscsi_session")), key=lambda name: int(name[7:])):
            yield f"tcp: [{name[7:]}] {self._portal(name)},1 {self._target(name)} (non-flash)\n"

    # How it lies there.

    def _put(self, path: str, **files: str) -> str:
        here = os.path.join(self.sys, path)
        os.makedirs(here, exist_ok=True)
        for name, text in files.items():
            with open(os.path.join(here, name), "w") as file:
                file.write(f"{text}\n")
        return here

    def _linked(self, kind: str, here: str) -> None:
        os.symlink(here, os.path.join(self.sys, kind, os.path.basename(here)))

    def _block(self, path: str, number: str, size: int) -> str:
        here = self._put(path, dev=number, size=str(size * 2048))
        for folder in ("holders", "slaves"):
            os.mkdir(os.path.join(here, folder))
        for kind in ("class/block", "block"):
            self._linked(kind, here)
        with open(os.path.join(self.dev, os.path.basename(here)), "w") as file:
            file.write(f"{number}\n")
        return here

    def _named(self, name: str, device: str) -> None:
        """A name as udev gives it."""
        path = os.path.join(self.dev, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.symlink(os.path.join(self.dev, device), path)

    def _forget(self, name: str, here: str) -> None:
        for kind in ("class/block", "block"):
            os.unlink(os.path.join(self.sys, kind, name))
        _rmtree(here)
        for folder, _, links in os.walk(self.dev):
            for link in links:
                path = os.path.join(folder, link)
                if os.path.islink(path) and os.path.basename(os.readlink(path)) == name:
                    os.unlink(path)
        os.unlink(os.path.join(self.dev, name))

    def _open(self) -> Iterator[str]:
        """What the processes of this host hold."""
        proc = os.path.join(self.place, "proc")
        for pid in filter(str.isdigit, os.listdir(proc)):
            folder = os.path.join(proc, pid, "fd")
            yield from (os.path.join(folder, number) for number in os.listdir(folder))

    def _way(self, name: str) -> str:
        return os.path.realpath(os.path.join(self.sys, "block", name))

    def _target(self, session: str) -> str:
        return _line(self.sys, "class/iscsi_session", session, "targetname")

    def _portal(self, session: str) -> str:
        line = os.path.join(self.sys, "class/iscsi_connection", f"connection{session[7:]}:0")
        return f"{_line(line, 'persistent_address')}:{_line(line, 'persistent_port')}"

    def _record(self, target: str, portal: str) -> str:
        return os.path.join(self.records, f"{target},{portal}")


def _line(*steps: str) -> str:
    with open(os.path.join(*steps)) as file:
        return file.read().strip()


def _rmtree(path: str) -> None:
    import shutil  # a tenth of what all else costs, and needed by few

    shutil.rmtree(path)


# ---------------------------------------------------------------------------------------------------------------------
# The programs.


def run(storage: Storage, name: str, words: list[str]) -> str:
    """What a program says.  Raises Wrong for what it would not do, or what this one does not know."""
    match [name, *words]:
        case ["iscsiadm", "-m", "session"]:
            return "".join(storage.sessions())
        case ["iscsiadm", "-m", "session", "-r", number, "-u"]:
            storage.remove_session(f"session{number}")
        case ["iscsiadm", "-m", "node", "-T", target, "-p", portal, "-o", "delete"]:
            storage.remove_record(target, portal)
        case ["multipath", "-f", label]:
            storage.remove_map(label)
        case ["multipathd", "disablequeueing", "map", _]:
            return "ok\n"
        case ["blockdev", "--flushbufs", path]:
            if not os.path.isfile(storage.node(path)):
                raise Wrong(f"blockdev: cannot open {path}: {os.strerror(errno.ENOENT)}")
        case ["tee", path] if os.path.basename(path) == "delete":
            if sys.stdin.read().strip() != "1":
                raise Wrong(f"tee: {path}: {os.strerror(errno.EINVAL)}")
            storage.remove_disk(path)
        case _:
            raise Wrong(f"the demo's {name} does not know how to: {' '.join(words)}")
    return ""


def devices(dev: str) -> Callable[..., os.stat_result]:
    """os.stat as it would be if the nodes in this folder were devices."""
    top = os.path.realpath(dev) + "/"
    real = os.stat

    def found(path: str | int, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> os.stat_result:
        seen = real(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)
        if not isinstance(path, str) or dir_fd is not None or not stat.S_ISREG(seen.st_mode) or seen.st_size > 16:
            return seen
        node = os.path.realpath(path)
        if not node.startswith(top):
            return seen
        major, _, minor = _line(node).partition(":")
        facts = {name: getattr(seen, name) for name in dir(seen) if name.startswith("st_")}
        facts |= {"st_rdev": os.makedev(int(major), int(minor))}
        return os.stat_result([stat.S_IFBLK | 0o660, *list(seen)[1:]], facts)

    return found


def python(place: str) -> None:
    """Run the program on standard input as python3 would on this host."""
    folder = os.path.join(place, "bin")
    lacking = [name for name in PROGRAMS if not os.path.exists(os.path.join(folder, name))]
    if lacking:  # never those of this machine in their place
        raise SystemExit(f"{folder} has no {' '.join(lacking)}: make the demo anew")
    os.environ["PATH"] = f"{folder}:{os.environ.get('PATH', '')}"
    os.stat = devices(os.path.join(place, "dev"))
    given, _, program = sys.stdin.buffer.read().partition(b"\n")
    scope = {"__name__": "__main__"}
    # The request stands before the program, which is the same each time.
    exec(given, scope)
    exec(_compiled(program, folder), scope)


def _compiled(program: bytes, folder: str) -> CodeType:
    """Its code, which is kept as an import's is: it is sent often, and always the same."""
    import hashlib
    import marshal

    key = hashlib.sha256(sys.version.encode() + program).hexdigest()
    kept = os.path.join(folder, f".{key}.code")
    try:
        with open(kept, "rb") as file:
            code: CodeType = marshal.load(file)
            return code
    except (OSError, EOFError, ValueError):
        code = compile(program, "<stdin>", "exec", dont_inherit=True)
    aside = f"{kept}.{os.getpid()}"
    with open(aside, "wb") as file:
        marshal.dump(code, file)
    os.rename(aside, kept)
    return code


def main(argv: list[str]) -> int:
    """`argv`: the host's folder, the program's name, its arguments.  Returns the exit status."""
    place, name, *words = argv
    if name == "python3":
        python(place)
        return 0
    try:
        sys.stdout.write(run(Storage(place), name, words))
    except Wrong as error:
        print(error)
        return error.status
    return 0
