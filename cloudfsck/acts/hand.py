"""The program that acts on a hypervisor: one act a run, and it never acts on anything but what was seen.

It runs as `python3 -` with a line `REQUEST = '<json>'` before it, or as a forced command that reads the request from
standard input.  Standard library only, Python 3.6 and later.  Every act takes the lock, checks the fence, reads again,
compares with what was seen (`was`), refuses what is unsafe, acts, looks again, and answers:

    done     it stands as asked
    moved    what was seen no longer holds; nothing is changed (or what was changed is changed back)
    refused  it holds, but to act would not be safe; nothing is changed
    failed   an error; `changed` says whether anything may be changed
"""

import ctypes
import errno
import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from typing import Any, Callable, Dict, Iterator, List, Optional, Set, Tuple

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
QUARANTINE = ".cloudfsck"
MANIFEST = "manifest.json"
# A tree with this beside it is being removed: it is no longer whole, and never comes back.
REMOVING = "removing"
GONE = " (deleted)"
# Memory that the kernel shows like a file without a name.
MEMORY = re.compile(r"/(memfd:|dev/|SYSV|anon_hugepage|proc/|sys/|\[)|.*/hugepages[^/]*/|.*/libvirt/qemu/ram/")
# libvirt itself gives up after 30 s when another job holds a domain.
VIRSH_SECONDS = 90
LOCK_SECONDS = 20
RESUME_SECONDS = 60
# What os-brick does takes a moment; what takes longer than this hangs, and os-brick waits for us meanwhile.
PROGRAM_SECONDS = 20
FLUSH_SECONDS = 30
BRICK_SECONDS = 10
VANISH_SECONDS = 10
SETTLE_SECONDS = 5
# One argument of a program may be 128 KiB long.
LONGEST = 100 * 1000
STATES = {
    "no state": "nostate",
    "running": "running",
    "idle": "blocked",
    "paused": "paused",
    "in shutdown": "shutdown",
    "shut off": "shutoff",
    "crashed": "crashed",
    "pmsuspended": "pmsuspended",
}
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
# renameat2, for a C library that does not know it by name.
RENAMEAT2 = {"x86_64": 316, "aarch64": 276, "ppc64le": 357, "ppc64": 357, "s390x": 347, "riscv64": 276}
RENAME_NOREPLACE = 1
# Why a hard link cannot be, by what the file system or the kernel's settings allow.
NO_LINK = (errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS)

# The only words of storage that go into a command or a path.
DISK = re.compile(r"sd[a-z]{1,8}\Z")
MAP = re.compile(r"dm-[0-9]{1,7}\Z")
NUMBER = re.compile(r"[0-9]{1,7}:[0-9]{1,7}\Z")
SESSION = re.compile(r"session[0-9]{1,9}\Z")
TARGET = re.compile(r"(iqn|eui|naa)\.[A-Za-z0-9._:-]{1,220}\Z")
PORTAL = re.compile(r"(\[[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?\]|[A-Za-z0-9][A-Za-z0-9.-]*):[0-9]{1,5}\Z")
MAP_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:=@+#-]{0,126}\Z")
# The volume in the name that Cinder gives a target (cinder.conf: volume_name_template).
VOLUME = re.compile(r"(?:\A|[/:.-])volume-(" + UUID.pattern[:-2] + r")(?:\Z|[-./:])")
# SCSI types of a LUN that is nobody's volume: array controller, enclosure, well-known unit, none.
NO_VOLUME = ("12", "13", "30", "31")
# A disk to which nothing gets through any more (Linux: drivers/scsi/scsi_sysfs.c, sdev_states).
DEAD = ("transport-offline", "offline")
# How the kernel says that a thing is not there (any more), or that this one has no such value.
ABSENT = (
    errno.ENOENT,
    errno.ENOTDIR,
    errno.ENODEV,
    errno.ENXIO,
    errno.EINVAL,
    errno.ENOTCONN,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
    errno.ESRCH,
)
# What of the kernel holds devices beside file systems and holders, and where it names them: a step * is any name.
KERNEL = (
    ("lio", "kernel/config/target/core/*/*/udev_path"),
    ("nvmet", "kernel/config/nvmet/subsystems/*/namespaces/*/device_path"),
)
# Who attaches volumes on a host by os-brick, and whose configuration says where it locks.
ATTACHERS = {
    "nova-compute": "nova",
    "cinder-volume": "cinder",
    "cinder-backup": "cinder",
    "glance-api": "glance",
    "ironic-conductor": "ironic",
}
# oslo.concurrency makes this of the prefix os-brick- and the name of the lock (os_brick/initiator/connectors/base.py).
BRICK_LOCK = "os-brick-connect_volume"
PROGRAM_FOLDERS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")

# The keys of each act, and of its `was`.
ACTS = {
    "domain.pause": ({"server", "was"}, {"id", "state", "persistent"}),
    "domain.resume": ({"server", "was"}, {"id", "state"}),
    "domain.stop": ({"server", "was"}, {"id", "state", "persistent"}),
    "domain.start": ({"server", "was", "paused"}, {"state"}),
    "domain.undefine": ({"server", "was"}, {"state", "xml_sha256"}),
    "domain.define": ({"server", "saved"}, None),
    "directory.quarantine": ({"server", "path", "was", "entry"}, {"inode", "device", "newest", "files", "bytes"}),
    "directory.restore": ({"server", "path", "was", "entry"}, {"inode"}),
    "directory.remove": ({"server", "path", "was", "entry"}, {"inode"}),
    "device.remove": ({"server", "device", "sessions", "was"}, {"number", "wwid", "paths"}),
    "session.logout": ({"server", "session", "target", "portal"}, None),
}  # type: Dict[str, Tuple[Set[str], Optional[Set[str]]]]
STATES_BEFORE = {
    "domain.pause": ("running", "paused"),
    "domain.resume": ("paused",),
    "domain.stop": ("running", "paused", "shutoff"),
    "domain.start": ("shutoff",),
    "domain.undefine": ("shutoff",),
}


class Moved(Exception):
    """What was seen no longer holds."""

    def __init__(self, why: str, saw: Optional[Dict[str, Any]] = None) -> None:
        super().__init__(why)
        self.saw = saw or {}


class Refused(Exception):
    """It holds, but to act would not be safe."""

    def __init__(self, why: str, saw: Optional[Dict[str, Any]] = None) -> None:
        super().__init__(why)
        self.saw = saw or {}


class Failed(Exception):
    """Something could not be read or done."""


# ---------------------------------------------------------------------------------------------------------------------
# Recipes held equal with the reading program by a test: each stands alone.


def xml_tree(xml_text: str) -> ElementTree.Element:
    """The XML of a domain.  libvirt writes no DOCTYPE, and only by one can a small text expand without end."""
    if "<!DOCTYPE" in xml_text:
        raise ElementTree.ParseError("it has a DOCTYPE, which libvirt never writes")
    # The encoding is ours, whatever the text says of it.
    return ElementTree.fromstring(xml_text.encode("utf-8", "surrogateescape"), ElementTree.XMLParser(encoding="utf-8"))


def xml_digest(xml_text: str) -> str:
    """The sha256 of a domain's XML, whatever its indentation, attribute order, comments, prefixes and CDATA marks."""
    digest = hashlib.sha256()

    def put(text: str) -> None:
        piece = text.encode("utf-8")
        digest.update(b"%d:" % len(piece))
        digest.update(piece)

    todo = [xml_tree(xml_text)]
    while todo:
        element = todo.pop()
        children = list(element)
        put(element.tag)
        put(str(len(element.attrib)))
        for key in sorted(element.attrib):
            put(key)
            put(element.attrib[key])
        # Text that is only white space is indentation; any other text counts to the last blank.
        put(element.text if element.text and element.text.strip() else "")
        put(element.tail if element.tail and element.tail.strip() else "")
        put(str(len(children)))
        todo.extend(reversed(children))
    return digest.hexdigest()


def measure(path: str) -> Dict[str, int]:
    """The size and age of a tree: inode and device of its top, files (all that is no directory), bytes (blocks on
    disk, once an inode), newest (nanoseconds: the newest mtime or ctime of all that is in it, the top included).

    Symlinks are counted, never followed; other file systems mounted inside are not entered.  What vanishes meanwhile is
    not there; a top that is not there raises FileNotFoundError; anything else that cannot be read raises OSError
    with the path.
    """
    top = os.lstat(path)
    answer = {
        "inode": top.st_ino,
        "device": top.st_dev,
        "files": 0 if stat.S_ISDIR(top.st_mode) else 1,
        "bytes": top.st_blocks * 512,
        "newest": max(top.st_mtime_ns, top.st_ctime_ns),
    }
    if not stat.S_ISDIR(top.st_mode):
        return answer
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    seen = {top.st_ino}
    # Descends by descriptor, so that a directory swapped for a symlink meanwhile does not lead out of the tree.
    folders = []  # type: List[Tuple[int, str, List[str]]]
    here = path
    try:
        descriptor = os.open(path, flags)
        folders.append((descriptor, path, []))
        folders[-1][2].extend(os.listdir(descriptor))
        while folders:
            descriptor, folder, names = folders[-1]
            if not names:
                folders.pop()
                os.close(descriptor)
                continue
            name = names.pop()
            here = os.path.join(folder, name)
            try:
                found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            except FileNotFoundError:
                continue
            is_folder = stat.S_ISDIR(found.st_mode)
            answer["newest"] = max(answer["newest"], found.st_mtime_ns, found.st_ctime_ns)
            answer["files"] += 0 if is_folder else 1
            if found.st_dev != top.st_dev:
                continue
            if found.st_ino not in seen:
                seen.add(found.st_ino)
                answer["bytes"] += found.st_blocks * 512
            if is_folder:
                try:
                    below = os.open(name, flags, dir_fd=descriptor)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    # The directory is no directory any more: somebody replaced it.
                    if error.errno in (errno.ENOTDIR, errno.ELOOP):
                        continue
                    raise
                folders.append((below, here, []))
                try:
                    folders[-1][2].extend(os.listdir(below))
                except FileNotFoundError:
                    # Removed after it was opened; the top would be gone, this is only empty.
                    continue
    except OSError as error:
        raise OSError(error.errno, error.strerror, here) from error
    finally:
        for descriptor, _, _ in folders:
            os.close(descriptor)
    return answer


def qcow2_backing(path: str) -> Optional[Tuple[str, Optional[str]]]:
    """What the header of an image says: (format, backing file), or None if the path is no regular file.

    The format is "qcow2", "raw" (no qcow2 header) or "corrupt" (a qcow2 mark, but what follows cannot be right, so that
    the backing file is not known).  A backing file is absolute (a relative name is taken from the image's folder) or,
    when it is not a local file, the name as the header has it.
    """
    # Never follows a symlink, never waits for the other end of a FIFO.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.ENODEV):
            return None
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        header = os.pread(descriptor, 72, 0)
        if header[:4] != b"QFI\xfb":
            return "raw", None
        if len(header) < 72:
            return "corrupt", None
        version, offset, length = struct.unpack(">IQI", header[4:20])
        if version not in (2, 3):
            return "corrupt", None
        if offset == 0:
            return "qcow2", None
        # The name is at most 1023 bytes long and lies in the first cluster, which is at most 2 MiB.
        if not 0 < length <= 1023 or not 72 <= offset <= 2 * 1024 * 1024:
            return "corrupt", None
        raw = os.pread(descriptor, length, offset)
    finally:
        os.close(descriptor)
    if len(raw) != length or b"\0" in raw:
        return "corrupt", None
    name = os.fsdecode(raw)
    if name.startswith("json:"):
        try:
            node = json.loads(name[len("json:") :])
        except (ValueError, RecursionError):
            return "corrupt", None
        local = None
        while isinstance(node, dict) and local is None:
            if node.get("driver") in (None, "file", "host_device", "qcow2", "raw"):
                local = node.get("filename", node.get("file.filename"))
            node = node.get("file")
        if not isinstance(local, str):
            return "qcow2", name
        name = local
    if name.startswith("file:"):
        name = name[len("file:") :]
        if name.startswith("///"):
            name = name[2:]
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", name):
        return "qcow2", name
    return "qcow2", os.path.normpath(os.path.join(os.path.dirname(path), name))


def open_paths(proc: str) -> Iterator[Tuple[int, str, str]]:
    """All paths that processes hold: (pid, link, path) with the link to stat through (fd, cwd, root), "" for mappings.

    A path is as the kernel shows it: in the process's own mount namespace, with " (deleted)" behind a name that is
    gone.  Sockets, pipes and other things without a path are left out.  A process that ends meanwhile is not there;
    one that may not be read raises OSError.
    """
    for pid in sorted(int(name) for name in os.listdir(proc) if name.isdigit()):
        folder = os.path.join(proc, str(pid))
        links = [os.path.join(folder, "cwd"), os.path.join(folder, "root")]
        try:
            links.extend(os.path.join(folder, "fd", number) for number in os.listdir(os.path.join(folder, "fd")))
        except (FileNotFoundError, ProcessLookupError):
            pass
        for link in links:
            try:
                path = os.readlink(link)
            except (FileNotFoundError, ProcessLookupError):
                continue
            if path.startswith("/"):
                yield pid, link, path
        try:
            with open(os.path.join(folder, "maps"), "rb") as file:
                maps = file.read()
        except (FileNotFoundError, ProcessLookupError):
            continue
        for raw in set(re.findall(rb"^\S+ \S+ \S+ \S+ [1-9][0-9]* +(/.*)$", maps, re.MULTILINE)):
            yield pid, "", os.fsdecode(raw.replace(b"\\012", b"\n"))


def told(*steps: str) -> Optional[str]:
    """What a file of sysfs says in one line; None where it says nothing, or is not there."""
    path = os.path.join(*steps)
    raw = content(path)
    text = "" if raw is None else raw.decode("utf-8", "surrogateescape").partition("\0")[0].strip()
    return None if text in ("", "(null)", "<NULL>") else text


def content(path: str) -> Optional[bytes]:
    """A file of sysfs or /proc; None where it is not there, or has no value."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        if error.errno in ABSENT:
            return None
        raise OSError(error.errno, error.strerror, path) from error


def names_in(*steps: str) -> List[str]:
    """The names in a directory of sysfs, sorted; none where it is not there."""
    try:
        return sorted(os.listdir(os.path.join(*steps)))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENODEV):
            return []
        raise


def address_of(host: str, port: Optional[str]) -> str:
    host = host.strip("[]")
    host = f"[{host}]" if ":" in host else host
    return host if port is None else f"{host}:{port}"


def scsi_wwid(device: str) -> Optional[str]:
    """The WWID as the kernel has it (drivers/scsi/scsi_lib.c: scsi_vpd_lun_id), or as page 0x83 itself says it."""
    said = told(device, "wwid")
    page = content(os.path.join(device, "vpd_pg83")) if said is None else None
    best = None  # type: Optional[Tuple[int, str]]
    at = 4
    while page is not None and at + 4 <= len(page):
        kind, size = page[at + 1] & 0x3F, page[at + 3]
        value = page[at + 4 : at + 4 + size]
        # Of the logical unit, in binary; of several the better kind, and of that the longer.
        if kind in (2, 3) and len(value) == size and size and page[at] & 0x0F == 1:
            text = ("naa." if kind == 3 else "eui.") + "".join(f"{byte:02x}" for byte in value)
            best = max(best or (0, ""), (kind * 256 + size, text))
        at += 4 + size
    return best[1] if best is not None else said


def lun_places(target: Optional[str], lun: str) -> List[str]:
    """Where a LUN is, as Cinder says it.  A LUN of flat space addressing has 0x4000 added to it (SAM-5, 4.7)."""
    if target is None:
        return []
    number = int(lun)
    numbers = {number, number & 0x3FFF} if 0x4000 <= number <= 0x7FFF else {number}
    return sorted(f"{target}/{one}" for one in numbers)


def kernel_holds(
    top: str, loops: Dict[str, str], device_at: Callable[[str], Optional[str]]
) -> Iterator[Tuple[str, str]]:
    """The devices that the kernel holds on its own account, beside mounts and holders, and for what."""
    for loop, path in loops.items():
        name = device_at(path)
        if name is not None:
            yield name, loop
    for what, pattern in KERNEL:
        found = [top]
        for step in pattern.split("/"):
            found = [os.path.join(path, name) for path in found for name in (names_in(path) if step == "*" else [step])]
        for path in found:
            name = device_at(told(path) or "")
            if name is not None:
                yield name, "{} {}".format(what, path[len(top) :].split("/", 5)[5].rpartition("/")[0])
    for label in names_in(top, "fs", "btrfs"):
        for member in names_in(top, "fs", "btrfs", label, "devices"):
            name = device_at("/dev/" + member)
            if name is not None:
                yield name, "btrfs"


# ---------------------------------------------------------------------------------------------------------------------
# libvirt.


class Virsh:
    """A virsh command line of this host, or of the container that libvirt runs in."""

    def __init__(self, argv: List[str]) -> None:
        self.argv = list(argv)
        # A key that may only start this program must not start any other by way of the request.
        words = list(self.argv)
        self.container = bool(words) and os.path.basename(words[0]) in ("docker", "podman")
        if self.container:
            if words[1:2] != ["exec"]:
                raise Failed("virsh: {!r} is not an exec of virsh in a container".format(" ".join(self.argv)))
            words = words[2:]
            while words and words[0].startswith("-"):
                words = words[2:] if words[0] in ("-e", "--env", "-u", "--user") else words[1:]
            words = words[1:]
        options = words[1:]
        if not words or os.path.basename(words[0]) != "virsh":
            raise Failed("virsh: {!r} does not run virsh".format(" ".join(self.argv)))
        if options and (len(options) != 2 or options[0] not in ("-c", "--connect")):
            raise Failed("virsh: of the options only -c URI is taken, not {!r}".format(" ".join(options)))
        if options and (not re.match(r"[a-z]+(\+unix)?://", options[1]) or "command" in options[1]):
            raise Failed("virsh: {!r} is not a connection on this host".format(options[1]))
        self.prefix = self.argv[: len(self.argv) - len(words)]

    def run(self, words: List[str], feed: Optional[bytes] = None) -> Tuple[int, str, str]:
        """The status, output and error text of one virsh command."""
        status, said, wrong = self.program(self.argv + ["-q"] + words, feed)
        return status, said.decode("utf-8", "surrogateescape"), wrong

    def program(self, argv: List[str], feed: Optional[bytes] = None) -> Tuple[int, bytes, str]:
        if self.container and feed is not None and "-i" not in argv[: len(self.prefix)]:
            argv = argv[:2] + ["-i"] + argv[2:]
        process = None
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL if feed is None else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=dict(os.environ, LC_ALL="C"),
            )
            out, wrong = process.communicate(feed, VIRSH_SECONDS)
        except subprocess.TimeoutExpired:
            assert process is not None
            process.kill()
            process.communicate()
            raise Failed("{}: no answer within {} s".format(" ".join(argv), VIRSH_SECONDS)) from None
        except OSError as error:
            raise Failed("{} cannot be run: {}".format(argv[0], error.strerror)) from error
        text = wrong.decode("utf-8", "replace").strip()
        return process.returncode, out, "; ".join(line for line in text.splitlines() if line) or "no reason given"

    def must(self, words: List[str]) -> str:
        """The output of a virsh command that has to succeed."""
        status, said, wrong = self.run(words)
        if status != 0:
            raise Failed("virsh {}: {}".format(" ".join(words), wrong))
        return said

    def ask(self, questions: List[str]) -> List[str]:
        """The answers to the questions in order, of one virsh process; "" where virsh has none."""
        mark = "@@" + os.urandom(12).hex() + "@@"
        line = "".join("echo {}; {}; ".format(mark, question) for question in questions) + "echo " + mark
        status, said, wrong = self.run([line])
        parts = said.split(mark)
        if len(parts) != len(questions) + 2:
            raise Failed("virsh does not answer: {} (status {})".format(wrong, status))
        return [part.strip() for part in parts[1:-1]]

    def uuids(self) -> Set[str]:
        """All domains.  virsh says by its status that this list is whole."""
        return {line.strip().lower() for line in self.must(["list", "--all", "--uuid"]).splitlines() if line.strip()}

    def names(self) -> Set[str]:
        return {line.strip() for line in self.must(["list", "--all", "--name"]).splitlines() if line.strip()}


def find_virsh(given: Optional[List[str]]) -> Virsh:
    """The virsh that answers."""
    if given:
        return Virsh(given)
    reasons = []
    local = ["virsh", "-c", "qemu:///system"]
    for before in ([], ["docker", "exec", "nova_libvirt"], ["podman", "exec", "nova_libvirt"]):
        argv = before + local
        if shutil.which(argv[0]) is None:
            reasons.append(argv[0] + " is not installed")
            continue
        virsh = Virsh(argv)
        status, said, wrong = virsh.run(["uri"])
        if status == 0 and said.strip():
            return virsh
        reasons.append("{}: {}".format(" ".join(argv), wrong))
    raise Failed("libvirt does not answer: " + "; ".join(reasons))


def parse_xml(text: str) -> ElementTree.Element:
    try:
        return xml_tree(text)
    except ElementTree.ParseError as error:
        raise Failed("virsh dumpxml gives no XML: {}".format(error)) from error


class Domains:
    """The domains of this host, and the acts on one of them."""

    def __init__(self, hand: "Hand") -> None:
        self.hand = hand
        self.virsh = hand.virsh
        self.server = hand.server
        self.was = hand.was

    # What is read.

    def facts(self) -> Optional[Dict[str, Any]]:
        """The server's domain, read in one moment; None if there is none."""
        for _ in range(5):
            if self.server not in self.virsh.uuids():
                return None
            server = self.server
            first, state, job, last = self.virsh.ask(
                ["dominfo " + server, "domstate --reason " + server, "domjobinfo " + server, "dominfo " + server]
            )
            info = self.fields(first)
            again = self.fields(last)
            known = ("Id", "UUID", "Name", "State", "Persistent", "Autostart", "Managed save")
            words = re.match(r"([a-z ]+?)(?: \((.*)\))?$", state)
            if any(info.get(key) != again.get(key) or key not in info for key in known) or not words:
                continue
            if info["State"] != words.group(1):
                continue
            if info["UUID"].lower() != server:
                raise Failed("virsh shows domain {} under the name {}".format(info["UUID"], server))
            if words.group(1) not in STATES:
                raise Failed("virsh domstate says {!r}, which is not known".format(state))
            found = {
                "id": None if info["Id"] == "-" else int(info["Id"]),
                "name": info["Name"],
                "state": STATES[words.group(1)],
                "reason": words.group(2) or "",
                "persistent": info["Persistent"] == "yes",
                "autostart": info["Autostart"] == "enable",
                "managed_save": info["Managed save"] == "yes",
                "job": None,
            }  # type: Dict[str, Any]
            if found["id"] is not None:
                told = self.fields(job)
                if "Job type" not in told:
                    status, said, wrong = self.virsh.run(["domjobinfo", server])
                    if status != 0 and ("is not running" in wrong or "failed to get domain" in wrong):
                        continue
                    if status != 0 and "only on the source host" in wrong:
                        said = "Job type: incoming migration"
                    elif status != 0:
                        raise Failed("virsh domjobinfo {}: {}".format(server, wrong))
                    told = self.fields(said)
                if told.get("Job type") != "None":
                    found["job"] = told.get("Operation") or told.get("Job type") or "unknown"
            return found
        raise Failed("domain {} changes while it is read".format(self.server))

    @staticmethod
    def fields(text: str) -> Dict[str, str]:
        pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
        return {key.strip(): value.strip() for key, value in pairs}

    def expected(self) -> Dict[str, Any]:
        """The facts, if they are as `was` says."""
        found = self.facts()
        if found is None:
            raise Moved("domain {} does not exist".format(self.server), {"exists": False})
        for key, value in sorted(self.was.items()):
            if key != "xml_sha256" and found[key] != value:
                text = "domain {}: {} is {!r}, was {!r}".format(self.server, key, found[key], value)
                raise Moved(text, found)
        return found

    def no_job(self, found: Dict[str, Any]) -> None:
        """Refuses while libvirt works on the domain."""
        if found["job"]:
            raise Refused("a libvirt job runs on domain {}: {}".format(self.server, found["job"]), found)
        if found["id"] is None:
            return
        tree = parse_xml(self.virsh.must(["dumpxml", self.server]))
        if tree.find("devices/disk/mirror") is not None:
            raise Refused("a block job runs on domain {}".format(self.server), found)
        for target in tree.findall("devices/disk/target"):
            name = target.get("dev") or ""
            status, said, wrong = self.virsh.run(["blockjob", self.server, name, "--info"])
            if status != 0 and "has no drive" not in wrong and "not currently have a source" not in wrong:
                raise Failed("virsh blockjob {} {}: {}".format(self.server, name, wrong))
            if status == 0 and said.strip() and "No current block job" not in said:
                text = "a block job runs on disk {} of domain {}: {}".format(name, self.server, said.strip())
                raise Refused(text, found)

    def handle(self, found: Dict[str, Any]) -> str:
        """What names just this run of the domain to virsh: its id.  A run that comes after it has another."""
        number = str(found["id"])
        return self.server if number in self.virsh.names() else number

    # Pause and its way back.

    def pause(self) -> Dict[str, Any]:
        found = self.expected()
        if found["state"] == "paused":
            return found
        self.no_job(found)
        handle = self.handle(found)
        self.hand.changed = True
        status, _, wrong = self.virsh.run(["suspend", handle])
        now = self.facts()
        same = now is not None and all(now[key] == found[key] for key in ("id", "persistent"))
        if status != 0:
            if now is None or not same or now["state"] != "running":
                self.hand.changed = now is not None and now["state"] == "paused"
                if self.hand.changed:
                    raise Failed("virsh suspend: {}; domain {} is paused now".format(wrong, self.server))
                raise Moved("domain {} changed while it was to be paused: {}".format(self.server, wrong), now)
            self.hand.changed = False
            raise Failed("virsh suspend: {}".format(wrong))
        if now is not None and same and now["state"] == "paused" and not now["job"]:
            return now
        if now is not None and now["state"] == "paused":
            what = "a libvirt job began ({})".format(now["job"]) if same else "it became another run"
            now = self.run_again(now["id"], what)
        else:
            what = "it is {} now".format("gone" if now is None else now["state"])
        self.hand.changed = False
        raise Moved("domain {} changed while it was paused: {}".format(self.server, what), now)

    def run_again(self, run: Optional[int], what: str) -> Optional[Dict[str, Any]]:
        """Let a domain run on that was paused by mistake.  A job on it (a migration) may hold it for a while."""
        end = time.monotonic() + RESUME_SECONDS
        while True:
            status, _, wrong = self.virsh.run(["resume", self.server])
            now = self.facts()
            # It is another's affair once it is gone, runs, or is another run.
            if now is None or now["state"] != "paused" or now["id"] != run:
                return now
            if time.monotonic() > end:
                text = "domain {} is paused, {}, and could not be resumed: {}; it takes: virsh resume {}"
                raise Failed(text.format(self.server, what, wrong if status else "it is still paused", self.server))
            time.sleep(0.5)

    def resume(self) -> Dict[str, Any]:
        found = self.expected()
        if found["job"]:
            raise Refused("a libvirt job runs on domain {}: {}".format(self.server, found["job"]), found)
        if found["reason"].startswith("post-copy") or found["reason"] == "starting up":
            raise Refused("domain {} is paused for {}".format(self.server, found["reason"]), found)
        handle = self.handle(found)
        self.hand.changed = True
        status, _, wrong = self.virsh.run(["resume", handle])
        now = self.facts()
        same = now is not None and now["id"] == found["id"]
        if now is not None and same and now["state"] == "running":
            return now
        if now is not None and same and now["state"] == "paused":
            self.hand.changed = status == 0
            raise Failed("virsh resume: {}".format(wrong if status else "the domain is still paused: " + now["reason"]))
        self.hand.changed = False
        raise Moved("domain {} changed while it was to be resumed".format(self.server), now or {"exists": False})

    # Stop and its way back.

    def stop(self) -> Dict[str, Any]:
        found = self.expected()
        if found["state"] == "shutoff":
            return found
        self.stoppable(found)
        saved = self.save_xml("stop")
        # Saving took a while: once more, and then at once.
        found = self.expected()
        self.stoppable(found)
        handle = self.handle(found)
        self.hand.changed = True
        status, _, wrong = self.virsh.run(["destroy", handle])
        now = self.facts()
        if now is not None and now["state"] == "shutoff" and now["persistent"]:
            if status != 0:
                self.hand.changed = False
                raise Moved("domain {} stopped by itself: {}".format(self.server, wrong), now)
            left = self.processes()
            if left:
                text = "virsh destroy is done and domain {} is shut off, but process {} is still there"
                raise Failed(text.format(self.server, left[0]))
            now["saved"] = saved
            return now
        if status != 0:
            same = now is not None and now["id"] == found["id"]
            self.hand.changed = False
            if same:
                raise Failed("virsh destroy: {}".format(wrong))
            raise Moved("domain {} changed while it was to be stopped: {}".format(self.server, wrong), now or {})
        if now is None:
            text = "domain {} was undefined by somebody else while it was stopped, and is gone; its XML is in {}"
            raise Failed(text.format(self.server, saved))
        text = "virsh destroy is done, but domain {} is {} (id {}); its XML is in {}"
        raise Failed(text.format(self.server, now["state"], now["id"], saved))

    def stoppable(self, found: Dict[str, Any]) -> None:
        if not found["persistent"]:
            text = "domain {} is transient: if it is stopped, nothing of it is left".format(self.server)
            raise Refused(text, found)
        self.no_job(found)
        pids = self.processes()
        if len(pids) != 1:
            text = "domain {} is {}, but {} QEMU processes with its uuid are to be seen, not one"
            raise Refused(text.format(self.server, found["state"], len(pids)), found)
        unnamed = self.unnamed(pids[0])
        if unnamed:
            text = "process {} of domain {} holds a file open that has no name any more: {}"
            raise Refused(text.format(pids[0], self.server, unnamed[0]), found)

    def processes(self) -> List[int]:
        """The QEMU processes of the server, whether libvirt knows of them or not."""
        answer = []
        for pid in sorted(int(name) for name in os.listdir(self.hand.proc) if name.isdigit()):
            try:
                with open(os.path.join(self.hand.proc, str(pid), "cmdline"), "rb") as file:
                    words = file.read().split(b"\0")
                with open(os.path.join(self.hand.proc, str(pid), "stat"), "rb") as file:
                    ended = file.read().rpartition(b")")[2].split()[:1] in ([b"Z"], [b"X"])
            except (FileNotFoundError, ProcessLookupError):
                continue
            if b"-uuid" not in words or ended:
                continue
            if words[words.index(b"-uuid") + 1 :][:1] == [self.server.encode("ascii")]:
                answer.append(pid)
        return answer

    def unnamed(self, pid: int) -> List[str]:
        """The regular files on disk that a process holds open and that have no name any more."""
        folder = os.path.join(self.hand.proc, str(pid), "fd")
        huge = []
        with open("/proc/self/mountinfo", "rb") as file:
            for line in file.read().splitlines():
                words, _, rest = line.partition(b" - ")
                if rest.startswith(b"hugetlbfs "):
                    huge.append(unescape(words.split()[4]).rstrip("/") + "/")
        answer = []
        for number in os.listdir(folder):
            link = os.path.join(folder, number)
            try:
                path = os.readlink(link)
            except FileNotFoundError:
                continue
            if not path.startswith("/") or not path.endswith(GONE) or MEMORY.match(path):
                continue
            if any(path.startswith(point) for point in huge):
                continue
            try:
                found = os.stat(link)
            except FileNotFoundError:
                # The descriptor was closed meanwhile, unless the link itself is still there.
                if os.path.lexists(link):
                    answer.append(path)
                continue
            if not stat.S_ISREG(found.st_mode):
                continue
            try:
                # A file may bear a name that ends like this.
                if os.path.samestat(found, os.lstat(path)):
                    continue
            except OSError:
                pass
            answer.append(path)
        return answer

    def lost_process(self, found: Dict[str, Any]) -> None:
        """Refuses if libvirt takes the domain for shut off and its guest still runs."""
        pids = self.processes()
        if pids:
            text = "domain {} is shut off for libvirt, but process {} still runs it".format(self.server, pids[0])
            raise Refused(text, found)

    def start(self) -> Dict[str, Any]:
        found = self.expected()
        self.lost_process(found)
        paused = self.hand.act["paused"]
        self.hand.changed = True
        status, _, wrong = self.virsh.run(["start", self.server] + (["--paused"] if paused else []))
        now = self.facts()
        if status == 0 and now is not None and now["state"] == ("paused" if paused else "running"):
            return now
        if now is not None and now["state"] == "shutoff":
            self.hand.changed = False
            raise Failed("virsh start: {}".format(wrong))
        if status != 0:
            self.hand.changed = False
            raise Moved("domain {} changed while it was to be started: {}".format(self.server, wrong), now)
        raise Failed("virsh start is done, but domain {} is {}".format(self.server, now["state"] if now else "gone"))

    # Undefine and its way back.

    def save_folder(self) -> int:
        """<state_dir>/domains/<server>, open."""
        base = self.hand.state
        for name in ("domains", self.server):
            try:
                os.mkdir(name, 0o700, dir_fd=base)
                sync(base)
            except FileExistsError:
                pass
            base = self.hand.keep(os.open(name, FOLDER, dir_fd=base))
        return base

    def save_xml(self, verb: str) -> str:
        """Save the domain's XML, secrets and all; the path of the persistent one."""
        folder = self.save_folder()
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()) + "-{}-{}".format(os.getpid(), verb)
        for kind, words in (("live", ["dumpxml"]), ("inactive", ["dumpxml", "--inactive"])):
            text = self.virsh.must(words + ["--security-info", self.server])
            parse_xml(text)
            write(folder, "{}-{}.xml".format(stamp, kind), text.encode("utf-8", "surrogateescape"))
        sync(folder)
        return os.path.join(self.hand.state_dir, "domains", self.server, stamp + "-inactive.xml")

    def digest(self) -> str:
        text = self.virsh.must(["dumpxml", "--inactive", self.server])
        parse_xml(text)
        return xml_digest(text)

    def same_xml(self, found: Dict[str, Any]) -> None:
        now = self.digest()
        if now != self.was["xml_sha256"]:
            found["xml_sha256"] = now
            raise Moved("domain {}: its XML is another than was seen".format(self.server), found)

    def undefine(self) -> Dict[str, Any]:
        found = self.expected()
        self.same_xml(found)
        self.lost_process(found)
        text = self.virsh.must(["dumpxml", "--inactive", "--security-info", self.server])
        tree = parse_xml(text)
        nvram = self.nvram_path(tree)
        base = self.save_folder()
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()) + "-{}-undefine".format(os.getpid())
        os.mkdir(stamp, 0o700, dir_fd=base)
        folder = self.hand.keep(os.open(stamp, FOLDER, dir_fd=base))
        saved = os.path.join(self.hand.state_dir, "domains", self.server, stamp)
        kept = self.read_nvram(nvram) if nvram else None
        if kept is not None:
            write(folder, "nvram", kept)
        write(folder, "domain.xml", text.encode("utf-8", "surrogateescape"))
        owner = None if nvram is None or kept is None else self.nvram_owner(nvram)
        facts = dict(found, xml_sha256=self.was["xml_sha256"])
        facts.update(nvram=nvram, nvram_owner=owner, nvram_saved=kept is not None)
        write(folder, "facts.json", json.dumps(facts, sort_keys=True).encode("ascii"))
        sync(folder)
        sync(base)
        flags = []
        if found["managed_save"]:
            flags.append("--managed-save")
        if nvram:
            # libvirt would remove it even under a domain that was started just now; it goes after the domain is gone.
            flags.append("--keep-nvram")
        if tree.find("devices/tpm") is not None:
            status, known, _ = self.virsh.run(["help", "undefine"])
            if status == 0 and "--keep-tpm" in known:
                flags.append("--keep-tpm")
        found = self.expected()
        self.same_xml(found)
        self.lost_process(found)
        self.hand.changed = True
        status, _, wrong = self.virsh.run(["undefine", self.server] + flags)
        now = self.facts()
        if now is None:
            answer = {"exists": False, "saved": saved, "managed_save": found["managed_save"]}  # type: Dict[str, Any]
            if nvram and kept is not None and not self.drop_nvram(nvram, kept):
                answer["left"] = nvram
            return answer
        if status != 0:
            self.hand.changed = False
            if now["state"] == "shutoff":
                raise Failed("virsh undefine: {}".format(wrong))
            raise Moved("domain {} changed while it was to be undefined: {}".format(self.server, wrong), now)
        if not now["persistent"]:
            # It was started in between, and lost only its definition: it gets that back.
            status, _, wrong = self.virsh.run(["define", "/dev/stdin"], text.encode("utf-8", "surrogateescape"))
            now = self.facts()
            if status != 0 or now is None or not now["persistent"]:
                said = "domain {} was started while it was undefined, and its definition could not be put back: {}; {}"
                raise Failed(said.format(self.server, wrong, "it is in " + saved))
        self.hand.changed = False
        raise Moved("domain {} was started or defined while it was undefined".format(self.server), now)

    @staticmethod
    def nvram_path(tree: ElementTree.Element) -> Optional[str]:
        """The file with the UEFI variables, if the domain has one on this host."""
        found = tree.find("os/nvram")
        if found is None:
            return None
        source = found.find("source")
        path = (source.get("file") if source is not None else found.text) or ""
        return path.strip() if path.strip().startswith("/") else None

    def read_nvram(self, path: str) -> Optional[bytes]:
        """What is in it, or None if there is none.  It lies where libvirt is, which may be a container."""
        if self.virsh.container:
            status, _, _ = self.virsh.program(self.virsh.prefix + ["test", "-e", path])
            if status == 1:
                return None
            status, said, wrong = self.virsh.program(self.virsh.prefix + ["cat", path])
            if status != 0:
                raise Failed("the NVRAM {} cannot be read: {}".format(path, wrong))
            return said
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Failed("the NVRAM {} is no file".format(path))
            return file.read()

    def nvram_owner(self, path: str) -> Optional[List[int]]:
        if self.virsh.container:
            return None
        found = os.stat(path)
        return [found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)]

    def drop_nvram(self, path: str, kept: bytes) -> bool:
        """Remove it if it is still what was saved."""
        try:
            if self.read_nvram(path) != kept:
                return False
            if self.virsh.container:
                return self.virsh.program(self.virsh.prefix + ["rm", "-f", "--", path])[0] == 0
            os.unlink(path)
        except (OSError, Failed):
            return False
        return True

    def define(self) -> Dict[str, Any]:
        saved = self.hand.act["saved"]
        base = os.path.join(self.hand.state_dir, "domains", self.server)
        if os.path.dirname(saved) != base or not NAME.match(os.path.basename(saved)):
            raise Failed("{} is not a folder in {}".format(saved, base))
        try:
            folder = self.hand.keep(os.open(os.path.basename(saved), FOLDER, dir_fd=self.save_folder()))
            text = read(folder, "domain.xml").decode("utf-8", "surrogateescape")
            facts = json.loads(read(folder, "facts.json").decode("ascii"))
            kept = read(folder, "nvram") if facts["nvram_saved"] else None
        except (OSError, ValueError, KeyError) as error:
            raise Failed("what was saved in {} cannot be read: {}".format(saved, reason(error))) from error
        tree = parse_xml(text)
        name = (tree.findtext("name") or "").strip()
        if (tree.findtext("uuid") or "").strip().lower() != self.server:
            raise Failed("{} is the definition of another domain".format(saved))
        nvram = self.nvram_path(tree)
        if nvram and kept is not None:
            there = self.read_nvram(nvram)
            if there is not None and there != kept:
                raise Refused("another NVRAM is at {}".format(nvram))
        found = self.facts()
        if found is not None:
            raise Refused("domain {} exists".format(self.server), found)
        if name in self.virsh.names():
            raise Refused("another domain has the name {}".format(name))
        self.hand.changed = True
        if nvram and kept is not None and there is None:
            self.put_nvram(nvram, kept, facts)
        status, _, wrong = self.virsh.run(["define", "/dev/stdin"], text.encode("utf-8", "surrogateescape"))
        if status == 0 and facts.get("autostart"):
            self.virsh.must(["autostart", self.server])
        now = self.facts()
        if status != 0 or now is None:
            self.hand.changed = now is not None or bool(nvram)
            raise Failed("virsh define: {}".format(wrong))
        now["xml_sha256"] = self.digest()
        return now

    def put_nvram(self, path: str, kept: bytes, facts: Dict[str, Any]) -> None:
        if self.virsh.container:
            status, _, wrong = self.virsh.program(self.virsh.prefix + ["tee", path], kept)
            if status != 0:
                raise Failed("the NVRAM {} cannot be written: {}".format(path, wrong))
            return
        folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            write(folder, os.path.basename(path), kept)
            if facts.get("nvram_owner"):
                user, group, mode = facts["nvram_owner"]
                os.chown(os.path.basename(path), user, group, dir_fd=folder, follow_symlinks=False)
                os.chmod(os.path.basename(path), mode, dir_fd=folder)
            sync(folder)
        except OSError as error:
            raise Failed("the NVRAM {} cannot be written: {}".format(path, reason(error))) from error
        finally:
            os.close(folder)

    # For the acts on directories.

    def texts(self) -> Iterator[Tuple[str, str]]:
        """(domain, text) for every text and attribute of every domain's live and persistent XML."""
        todo = sorted(self.virsh.uuids())
        for _ in range(5):
            missed = []
            for start in range(0, len(todo), 400):
                part = todo[start : start + 400]
                asked = [way + uuid for uuid in part for way in ("dumpxml ", "dumpxml --inactive ")]
                assert sum(len(question) + 40 for question in asked) < LONGEST
                answers = self.virsh.ask(asked)
                for number, uuid in enumerate(part):
                    live, kept = answers[2 * number : 2 * number + 2]
                    if not live or not kept:
                        missed.append(uuid)
                        continue
                    for text in (live, kept):
                        for element in parse_xml(text).iter():
                            for value in [element.text or ""] + list(element.attrib.values()):
                                yield uuid, value.strip()
            todo = sorted(set(missed) & self.virsh.uuids())
            if not todo:
                return
        raise Failed("the XML of domain {} cannot be read".format(todo[0]))


# ---------------------------------------------------------------------------------------------------------------------
# Files.


def unescape(text: bytes) -> str:
    """A path of mountinfo."""
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match.group(1), 8)]), text))


def reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return "{}: {}".format(error.filename, error.strerror) if error.filename is not None else error.strerror
    return "{}: {}".format(type(error).__name__, error)


def sync(folder: int) -> None:
    """A directory onto the disk; not every file system can."""
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise


def write(folder: int, name: str, data: bytes, replace: bool = False) -> None:
    """A file that is there as a whole or not at all, and on the disk."""
    if not replace and exists(folder, name):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
    aside = name + ".tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(aside, flags, 0o600, dir_fd=folder)
    try:
        left = data
        while left:
            left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
    except OSError as error:
        raise OSError(error.errno, error.strerror, name) from error
    finally:
        os.close(descriptor)
    if replace:
        os.rename(aside, name, src_dir_fd=folder, dst_dir_fd=folder)
    else:
        rename_new(folder, aside, folder, name)


def read(folder: int, name: str) -> bytes:
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    with open(descriptor, "rb") as file:
        return file.read()


def look(folder: int, name: str) -> Optional[os.stat_result]:
    """What a name is, or None if nothing has it."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def exists(folder: int, name: str) -> bool:
    return look(folder, name) is not None


def rename_new(old_folder: int, old: str, new_folder: int, new: str) -> None:
    """Rename, but never onto anything."""
    libc = ctypes.CDLL(None, use_errno=True)
    words = (old_folder, os.fsencode(old), new_folder, os.fsencode(new), RENAME_NOREPLACE)
    number = RENAMEAT2.get(os.uname().machine)
    if hasattr(libc, "renameat2"):
        status = libc.renameat2(*words)
    elif number is not None:
        status = libc.syscall(ctypes.c_long(number), *words)
    else:
        status = -1
        ctypes.set_errno(errno.ENOSYS)
    if status == 0:
        return
    why = ctypes.get_errno()
    if why not in (errno.EINVAL, errno.ENOSYS):
        raise OSError(why, os.strerror(why), old, None, new)
    # The file system (NFS) or the kernel does not know how.
    if exists(new_folder, new):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new)
    os.rename(old, new, src_dir_fd=old_folder, dst_dir_fd=new_folder)


def walk(top: str) -> Iterator[Tuple[str, os.stat_result]]:
    """All that is in a tree, as (path within, what it is), the top as ("", ...).  Symlinks are not followed; what
    vanishes meanwhile is not there; anything that cannot be read raises OSError with the path."""
    found = os.lstat(top)
    yield "", found
    todo = [""] if stat.S_ISDIR(found.st_mode) else []
    while todo:
        folder = todo.pop()
        path = os.path.join(top, folder) if folder else top
        try:
            descriptor = os.open(path, FOLDER)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                continue
            raise
        try:
            names = sorted(os.listdir(descriptor))
            entries = [(name, look(descriptor, name)) for name in names]
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from error
        finally:
            os.close(descriptor)
        for name, entry in entries:
            if entry is None:
                continue
            inside = os.path.join(folder, name)
            yield inside, entry
            if stat.S_ISDIR(entry.st_mode):
                todo.append(inside)


def contents(top: str) -> Dict[str, Tuple[int, ...]]:
    """A tree as it is, but for what a rename of its top changes."""
    answer = {}  # type: Dict[str, Tuple[int, ...]]
    for path, found in walk(top):
        answer[path] = (found.st_dev, found.st_ino, found.st_mode, found.st_uid, found.st_gid, found.st_mtime_ns)
        if path:
            answer[path] += (found.st_size, found.st_ctime_ns)
    return answer


def mount_number(descriptor: int) -> Optional[bytes]:
    """The mount that an open file lies on."""
    with open("/proc/self/fdinfo/{}".format(descriptor), "rb") as file:
        found = re.search(rb"^mnt_id:\s*(\d+)", file.read(), re.MULTILINE)
    return found.group(1) if found else None


def mounts(proc: str) -> Iterator[Tuple[str, bytes]]:
    """All mounts of all mount namespaces: (file that tells of it, line)."""
    seen = set()  # type: Set[str]
    files = ["/proc/self/mountinfo"]
    for pid in sorted(name for name in os.listdir(proc) if name.isdigit()):
        try:
            space = os.readlink(os.path.join(proc, pid, "ns", "mnt"))
        except (FileNotFoundError, ProcessLookupError):
            continue
        if space not in seen:
            seen.add(space)
            files.append(os.path.join(proc, pid, "mountinfo"))
    for path in files:
        try:
            with open(path, "rb") as file:
                lines = file.read().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        except OSError as error:
            # A process that ended meanwhile.
            if error.errno == errno.EINVAL:
                continue
            raise
        for line in lines:
            yield path, line


def loops(top: str) -> Iterator[str]:
    """The files and devices that stand below loop devices."""
    for path in glob.glob(os.path.join(glob.escape(top), "block/loop*/loop/backing_file")):
        try:
            with open(path, "rb") as file:
                yield os.fsdecode(file.read().strip())
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
                raise


def remove_tree(folder: int, name: str) -> None:
    """Remove a directory and all in it by descriptors, so that nothing outside is ever reached: no symlink is
    followed and no mount is entered."""
    top = os.open(name, FOLDER, dir_fd=folder)
    stack = [(top, name, folder)]
    device = os.fstat(top).st_dev
    mount = mount_number(top)
    try:
        if os.fstat(folder).st_dev != device or mount_number(folder) != mount:
            raise OSError(errno.EXDEV, "something is mounted there", name)
        while stack:
            here, path, above = stack[-1]
            below = None
            for child in os.listdir(here):
                found = look(here, child)
                if found is None:
                    continue
                if not stat.S_ISDIR(found.st_mode):
                    os.unlink(child, dir_fd=here)
                    continue
                below = os.open(child, FOLDER, dir_fd=here)
                stack.append((below, os.path.join(path, child), here))
                if os.fstat(below).st_dev != device or mount_number(below) != mount:
                    raise OSError(errno.EXDEV, "something is mounted there", os.path.join(path, child))
                break
            if below is None:
                os.rmdir(os.path.basename(path), dir_fd=above)
                stack.pop()
                os.close(here)
    finally:
        for descriptor, _, _ in stack:
            os.close(descriptor)


def same_bytes(one: int, name: str, other: int, other_name: str) -> bool:
    """Whether two files hold the same."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(name, flags, dir_fd=one), "rb") as left:
        with open(os.open(other_name, flags, dir_fd=other), "rb") as right:
            if os.fstat(left.fileno()).st_size != os.fstat(right.fileno()).st_size:
                return False
            while True:
                block = left.read(1 << 20)
                if block != right.read(1 << 20):
                    return False
                if not block:
                    return True


class Directory:
    """A server's directory in the instances path, and the acts on it.

    The entry in quarantine is made so that a crash between any two steps leaves the directory in one of its two
    places, whole, and the entry such that the same act, or `restore`, goes on from there:
    folders, manifest (which tells of the links to come), links, then the rename.
    """

    def __init__(self, hand: "Hand") -> None:
        self.hand = hand
        self.server = hand.server
        self.was = hand.was
        self.path = hand.act["path"]
        self.entry = hand.act["entry"]
        self.root = os.path.dirname(self.path)
        self.name = os.path.basename(self.path)
        if self.name not in (self.server, self.server + "_del", self.server + "_resize"):
            raise Failed("{} is not a directory of server {}".format(self.path, self.server))
        if not self.path.startswith("/") or os.path.normpath(self.path) != self.path or self.root == "/":
            raise Failed("{} is not an absolute path".format(self.path))
        if not NAME.match(self.entry) or not self.entry.endswith("-" + self.server):
            raise Failed("{} is not an entry for server {}".format(self.entry, self.server))
        if os.path.realpath(self.root) != self.root:
            raise Refused("{} is reached through a symlink; the real path is wanted".format(self.root))
        try:
            self.root_fd = hand.keep(os.open(self.root, FOLDER))
        except OSError as error:
            raise Failed("{}: {}".format(self.root, error.strerror)) from error
        self.aside = os.path.join(self.root, QUARANTINE, self.entry, "tree", self.name)
        self.made = []  # type: List[Tuple[int, str]]

    # What is read.

    def facts(self, path: str) -> Dict[str, Any]:
        try:
            answer = dict(measure(path))  # type: Dict[str, Any]
        except FileNotFoundError:
            return {"exists": False}
        answer["path"] = path
        return answer

    def inside(self, text: str) -> bool:
        """Whether a path, of whoever's mount namespace, leads into the directory."""
        return text.startswith("/") and (
            self.name in text.split("/") or text == self.path or text.startswith(self.path + "/")
        )

    def unused(self, place: str) -> None:
        """Refuses if anything on this host uses the directory, which is at `place` now."""
        domains = Domains(self.hand)
        # What Nova has renamed to be removed no guest comes back to; one that still uses it is seen below.
        if not self.name.endswith("_del"):
            if self.server in domains.virsh.uuids():
                raise Refused("domain {} exists on this host".format(self.server))
            pids = domains.processes()
            if pids:
                raise Refused("process {} runs server {}".format(pids[0], self.server))
        nodes = set()
        for path, found in walk(place):
            nodes.add((found.st_dev, found.st_ino))
            if found.st_dev != self.was.get("device", found.st_dev):
                raise Refused("another file system is mounted at {}".format(os.path.join(place, path)))
        for uuid, text in domains.texts():
            if text.startswith("/") and (self.inside(text) or self.leads(text, nodes)):
                raise Refused("domain {} uses {}".format(uuid, text))
        self.not_mounted(place)
        self.not_open(place, nodes)
        for path, found in walk(self.root):
            whole = os.path.join(self.root, path)
            if not stat.S_ISREG(found.st_mode) or whole.startswith(place + "/"):
                continue
            try:
                image = qcow2_backing(whole)
            except FileNotFoundError:
                continue
            if image is None:
                continue
            if image[0] == "corrupt":
                raise Refused("the header of {} is corrupt: its backing file is not known".format(whole))
            if image[1] is not None and (self.inside(image[1]) or self.leads(image[1], nodes)):
                raise Refused("{} has its backing file in the directory: {}".format(whole, image[1]))

    @staticmethod
    def leads(text: str, nodes: Set[Tuple[int, int]]) -> bool:
        """Whether a path leads, by whatever links, to one of the files."""
        try:
            found = os.stat(text)
        except (OSError, ValueError):
            return False
        return (found.st_dev, found.st_ino) in nodes

    def not_mounted(self, place: str) -> None:
        """Refuses if the directory, or anything in it, is mounted or mounted over, in any mount namespace."""
        for path, line in mounts(self.hand.proc):
            for text in (unescape(word) for word in line.split()[3:5]):
                if self.inside(text) or text == place or text.startswith(place + "/"):
                    raise Refused("{} is mounted ({})".format(text, path))
        for text in loops(self.hand.sys):
            if self.inside(text):
                raise Refused("a loop device uses {}".format(text))

    def not_open(self, place: str, nodes: Set[Tuple[int, int]]) -> None:
        """Refuses if a process has a file of the directory open, mapped, or stands in it."""
        for pid, link, path in open_paths(self.hand.proc):
            if pid == os.getpid():
                continue
            plain = path[: -len(GONE)] if path.endswith(GONE) else path
            if self.inside(plain) or plain.startswith(place + "/") or (link and self.leads(link, nodes)):
                raise Refused("process {} has {} open".format(pid, path))

    def chain(self) -> Tuple[Dict[str, List[str]], Dict[str, Dict[str, Any]]]:
        """What the images in the directory rest on outside of it: ({image: files}, {file: what it is})."""
        chains = {}  # type: Dict[str, List[str]]
        needed = {}  # type: Dict[str, Dict[str, Any]]
        for path, found in walk(self.path):
            if not stat.S_ISREG(found.st_mode):
                continue
            at = os.path.join(self.path, path)
            seen = {at}
            while True:
                try:
                    image = qcow2_backing(at)
                except FileNotFoundError:
                    raise Moved("{} vanished".format(at), self.facts(self.path)) from None
                if image is None or image[1] is None:
                    if image is not None and image[0] == "corrupt":
                        raise Refused("the header of {} is corrupt: its backing file is not known".format(at))
                    break
                at, outside = self.resolve(at, image[1])
                if at in seen:
                    raise Refused("the backing files of {} go in a circle".format(path))
                seen.add(at)
                if outside is not None:
                    chains.setdefault(path, []).append(at)
                    needed[at] = outside
                    if outside["missing"]:
                        break
                elif not os.path.lexists(at):
                    break
        return chains, needed

    def resolve(self, image: str, backing: str) -> Tuple[str, Optional[Dict[str, Any]]]:
        """A backing file as this host sees it, and what it is if it lies outside of the directory."""
        if not backing.startswith("/"):
            raise Refused("the backing file of {} is no local file: {}".format(image, backing))
        parts = backing.split("/")
        if self.inside(backing):
            if backing.startswith(self.path + "/"):
                return backing, None
            return os.path.join(self.path, *parts[parts.index(self.name) + 1 :]), None
        # Nova in a container has another path for the same directory: the end of it is the same.
        tails = [backing] + [os.path.join(self.root, *parts[start:]) for start in range(1, len(parts) - 1)]
        there = []  # type: List[str]
        for tail in tails:
            try:
                os.stat(tail)
            except (FileNotFoundError, NotADirectoryError):
                continue
            there.append(os.path.realpath(tail))
        own = [path for path in there if path.startswith(self.root + "/")]
        if not there:
            return backing, {"missing": True, "inode": None, "size": None, "link": None}
        if not own:
            text = "the backing file {} of {} lies outside of {}: it cannot be kept from being removed"
            raise Refused(text.format(backing, image, self.root))
        found = os.lstat(own[0])
        if not stat.S_ISREG(found.st_mode):
            raise Refused("the backing file {} of {} is no regular file".format(own[0], image))
        if found.st_dev != self.was["device"]:
            raise Refused("the backing file {} of {} lies on another file system".format(own[0], image))
        link = "{}-{}".format(found.st_ino, os.path.basename(own[0])[-100:])
        facts = {"missing": False, "inode": found.st_ino, "size": found.st_size, "link": "backing/" + link}
        return own[0], facts

    # The entry.

    def open_below(self, parts: List[str]) -> int:
        """A folder below the instances path, reached without following any symlink."""
        here = self.root_fd
        for part in parts:
            if part in ("", ".", ".."):
                raise Failed("{} is not a path below {}".format("/".join(parts), self.root))
            here = self.hand.keep(os.open(part, FOLDER, dir_fd=here))
        return here

    def parent_of(self, path: str) -> Tuple[int, str]:
        """(the open folder of a file below the instances path, its name)"""
        if not path.startswith(self.root + "/"):
            raise Failed("{} does not lie in {}".format(path, self.root))
        parts = path[len(self.root) + 1 :].split("/")
        return self.open_below(parts[:-1]), parts[-1]

    def open_keep(self, make: bool) -> Optional[int]:
        """The folder of all quarantines."""
        return self.folder(self.root_fd, QUARANTINE, make)

    def folder(self, above: int, name: str, make: bool) -> Optional[int]:
        """A folder of ours, made if it is not there and wanted."""
        if make:
            try:
                os.mkdir(name, 0o700, dir_fd=above)
                self.made.append((above, name))
                sync(above)
            except FileExistsError:
                pass
        try:
            here = self.hand.keep(os.open(name, FOLDER, dir_fd=above))
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise Refused("{} in {} is no directory".format(name, self.root)) from error
            raise
        found = os.fstat(here)
        if found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise Refused("{} in {} belongs to, or may be written by, another user".format(name, self.root))
        return here

    def manifest(self, entry: int) -> Optional[Dict[str, Any]]:
        """What the entry's manifest says; None if there is none.  Raises ValueError if it says nothing right."""
        try:
            found = json.loads(read(entry, MANIFEST).decode("utf-8"))
        except FileNotFoundError:
            return None
        if not isinstance(found, dict) or not isinstance(found.get("backing"), dict):
            raise ValueError("the manifest of {} is not as it is written".format(self.entry))
        for path, facts in found["backing"].items():
            link = facts.get("link") if isinstance(facts, dict) else ""
            if link is not None and not re.match(r"backing/[^/]+$", link):
                raise ValueError("the manifest of {} has a wrong link for {}".format(self.entry, path))
        return found

    def quarantine(self) -> Dict[str, Any]:
        here = look(self.root_fd, self.name)
        if here is None:
            return self.quarantined_before()
        if stat.S_ISLNK(here.st_mode):
            raise Refused("{} is a symlink".format(self.path))
        if os.path.ismount(self.path):
            raise Refused("{} is a mount point".format(self.path))
        self.as_seen()
        self.unused(self.path)
        chains, needed = self.chain()
        try:
            tree = self.prepare(here, chains, needed)
            # All that took a while: once more, and then at once.
            before = contents(self.path)
            self.as_seen()
            self.not_open(self.path, {(found[0], found[1]) for found in before.values()})
        except Exception:
            self.discard()
            raise
        self.hand.changed = True
        try:
            rename_new(self.root_fd, self.name, tree, self.name)
        except OSError as error:
            self.hand.changed = exists(tree, self.name)
            if self.hand.changed:
                raise
            self.discard()
            if error.errno == errno.ENOENT:
                raise Moved("{} is gone".format(self.path), {"exists": False}) from None
            raise
        try:
            sync(tree)
            sync(self.root_fd)
            if contents(self.aside) != before:
                raise Moved("{} was written to, or is another directory, since it was looked at".format(self.path))
            self.unused(self.aside)
        except Exception as error:
            self.bring_back(tree, error)
        return dict(self.facts(self.aside), entry=self.entry, missing=[p for p in needed if needed[p]["missing"]])

    def as_seen(self) -> None:
        """Raises Moved if the directory is not as it was seen."""
        found = self.facts(self.path)
        if "inode" not in found:
            raise Moved("{} is gone".format(self.path), found)
        for key, value in sorted(self.was.items()):
            if found[key] != value:
                raise Moved("{}: {} is {}, was {}".format(self.path, key, found[key], value), found)
        if not stat.S_ISDIR(os.lstat(self.path).st_mode):
            raise Moved("{} is no directory".format(self.path), found)

    def quarantined_before(self) -> Dict[str, Any]:
        """The answer of an act that was cut off after its rename."""
        found = self.facts(self.aside)
        if found.get("inode") != self.was["inode"] or found.get("files") != self.was["files"]:
            raise Moved("{} is gone".format(self.path), {"exists": False})
        entry = self.open_below([QUARANTINE, self.entry])
        if exists(entry, REMOVING):
            raise Moved("{} is being removed".format(self.aside), {"exists": False})
        tree = self.open_below([QUARANTINE, self.entry, "tree"])
        sync(tree)
        sync(self.root_fd)
        manifest = self.manifest(entry)
        backing = manifest["backing"] if manifest is not None else {}
        return dict(found, entry=self.entry, missing=[path for path in backing if backing[path]["missing"]])

    def bring_back(self, tree: int, error: Exception) -> None:
        """What was moved is not what was seen, or not safe to move: it goes back, and nothing has happened."""
        try:
            rename_new(tree, self.name, self.root_fd, self.name)
            sync(self.root_fd)
        except OSError as other:
            text = "{}; and it could not be brought back from {}: {}"
            raise Failed(text.format(error, self.aside, reason(other))) from error
        self.hand.changed = False
        self.discard()
        if isinstance(error, (Moved, Refused)):
            raise Moved("{} (it is back in its place)".format(error), self.facts(self.path))
        raise error

    def prepare(self, here: os.stat_result, chains: Dict[str, List[str]], needed: Dict[str, Dict[str, Any]]) -> int:
        """Make the entry, or go on with the one of an act that was cut off; its open folder for the tree."""
        keep = self.open_keep(True)
        entry = None if keep is None else self.folder(keep, self.entry, True)
        tree = None if entry is None else self.folder(entry, "tree", True)
        backing = None if entry is None else self.folder(entry, "backing", True)
        if keep is None or entry is None or tree is None or backing is None:
            raise Failed("the entry {} vanished while it was made".format(self.entry))
        if os.fstat(tree).st_dev != here.st_dev or os.fstat(backing).st_dev != here.st_dev:
            raise Refused("{} lies on another file system".format(os.path.join(self.root, QUARANTINE)))
        if os.listdir(tree) or exists(entry, REMOVING):
            raise Refused("the entry {} is in use".format(self.entry))
        try:
            before = self.manifest(entry)
        except ValueError as error:
            raise Refused(str(error)) from error
        old = before["backing"] if before is not None else {}
        for path, facts in needed.items():
            # An act that was cut off may have linked what has vanished since: the link is all that is left of it.
            link = old.get(path, {}).get("link")
            if facts["missing"] and link and exists(backing, link[len("backing/") :]):
                facts.update(old[path], missing=False)
        wanted = {facts["link"] for facts in needed.values()}
        for name in os.listdir(backing):
            if "backing/" + name not in wanted:
                self.unlink_spare(backing, name)
        manifest = {
            "version": 1,
            "cloud": self.hand.cloud,
            "entry": self.entry,
            "server": self.server,
            "was_path": self.path,
            "at": time.time(),
            "uid": here.st_uid,
            "gid": here.st_gid,
            "mode": stat.S_IMODE(here.st_mode),
            "chain": {image: {path: needed[path]["link"] for path in paths} for image, paths in chains.items()},
            "backing": needed,
        }
        manifest.update(self.was)
        write(entry, MANIFEST, json.dumps(manifest, sort_keys=True).encode("ascii"), replace=True)
        sync(entry)
        for path, facts in sorted(needed.items()):
            if not facts["missing"]:
                self.link(path, facts, backing)
        sync(backing)
        return tree

    def link(self, path: str, facts: Dict[str, Any], backing: int) -> None:
        name = facts["link"][len("backing/") :]
        found = look(backing, name)
        if found is None:
            try:
                folder, last = self.parent_of(path)
                os.link(last, name, src_dir_fd=folder, dst_dir_fd=backing, follow_symlinks=False)
            except FileNotFoundError:
                raise Moved("the backing file {} vanished".format(path), self.facts(self.path)) from None
            except OSError as error:
                if error.errno in NO_LINK:
                    raise Refused("the backing file {} cannot be linked: {}".format(path, error.strerror)) from error
                raise
            found = look(backing, name)
        if found is None or found.st_ino != facts["inode"] or not stat.S_ISREG(found.st_mode):
            raise Moved("the backing file {} was replaced by another".format(path), self.facts(self.path))

    @staticmethod
    def unlink_spare(backing: int, name: str) -> None:
        """Remove a link, but never the last name of a file."""
        found = look(backing, name)
        if found is None:
            return
        if found.st_nlink < 2:
            raise Refused("{} is the last copy of a backing file".format(name))
        os.unlink(name, dir_fd=backing)

    def discard(self) -> None:
        """Leave nothing of an entry without a tree.  The directory is in its place, so a rest of it harms nobody."""
        try:
            self.discard_entry()
        except (OSError, Refused) as other:
            text = other.args[0] if isinstance(other, Refused) else reason(other)
            self.hand.notes.append("{} is left, without the directory: {}".format(self.entry, text))
        if (self.root_fd, QUARANTINE) in self.made:
            try:
                os.rmdir(QUARANTINE, dir_fd=self.root_fd)
            except OSError:
                pass

    def discard_entry(self) -> None:
        try:
            keep = self.open_below([QUARANTINE])
            entry = self.open_below([QUARANTINE, self.entry])
        except FileNotFoundError:
            return
        tree = self.folder(entry, "tree", False)
        if exists(entry, REMOVING) or (tree is not None and os.listdir(tree)):
            return
        backing = self.folder(entry, "backing", False)
        if backing is not None:
            for link in os.listdir(backing):
                self.unlink_spare(backing, link)
            os.rmdir("backing", dir_fd=entry)
        if tree is not None:
            os.rmdir("tree", dir_fd=entry)
        for name in (MANIFEST, MANIFEST + ".tmp"):
            if exists(entry, name):
                os.unlink(name, dir_fd=entry)
        os.rmdir(self.entry, dir_fd=keep)

    def restore(self) -> Dict[str, Any]:
        keep = self.open_keep(False)
        entry = None if keep is None else self.folder(keep, self.entry, False)
        tree = None if entry is None else self.folder(entry, "tree", False)
        aside = None if tree is None else look(tree, self.name)
        here = look(self.root_fd, self.name)
        if entry is not None and exists(entry, REMOVING):
            raise Refused("{} is being removed and no longer whole".format(self.aside))
        if aside is None:
            if here is None or here.st_ino != self.was["inode"] or not stat.S_ISDIR(here.st_mode):
                raise Moved("{} holds no directory of {}".format(self.entry, self.server), self.facts(self.path))
        else:
            if aside.st_ino != self.was["inode"] or not stat.S_ISDIR(aside.st_mode):
                raise Moved("{}: inode is {}, was {}".format(self.aside, aside.st_ino, self.was["inode"]))
            if here is not None:
                raise Refused("{} exists".format(self.path), self.facts(self.path))
        if entry is None:
            return self.facts(self.path)
        try:
            manifest = self.manifest(entry)
        except ValueError:
            manifest = None
        if manifest is not None and (manifest.get("was_path"), manifest.get("server")) != (self.path, self.server):
            raise Refused("{} was taken from {}".format(self.entry, manifest.get("was_path")))
        backing = self.folder(entry, "backing", False)
        if manifest is not None and backing is not None:
            self.link_back(manifest["backing"], backing)
        if aside is not None and tree is not None:
            self.hand.changed = True
            try:
                rename_new(tree, self.name, self.root_fd, self.name)
            except FileExistsError:
                self.hand.changed = False
                raise Refused("{} exists".format(self.path), self.facts(self.path)) from None
            except OSError:
                self.hand.changed = look(self.root_fd, self.name) is not None
                raise
            sync(self.root_fd)
            sync(tree)
        answer = self.facts(self.path)
        if answer.get("inode") != self.was["inode"]:
            raise Failed("{} is not what was brought back from {}".format(self.path, self.aside))
        left = self.drop_entry(manifest, False)
        if left:
            answer["left"] = left
        return answer

    def link_back(self, needed: Dict[str, Dict[str, Any]], backing: int) -> None:
        """Give a backing file that vanished meanwhile its name back; refuse if another file has it."""
        for path, facts in sorted(needed.items()):
            if not facts["link"]:
                continue
            name = facts["link"][len("backing/") :]
            kept = look(backing, name)
            if kept is None:
                # The act was cut off before this link, or after it was given back.
                continue
            try:
                folder, last = self.parent_of(path)
                found = look(folder, last)
            except FileNotFoundError as error:
                raise Refused("the backing file {} cannot be given back: {}".format(path, reason(error))) from error
            if found is None:
                self.hand.changed = True
                try:
                    os.link(name, last, src_dir_fd=backing, dst_dir_fd=folder, follow_symlinks=False)
                except FileExistsError:
                    found = look(folder, last)
                else:
                    sync(folder)
                    continue
            if found is not None and (found.st_dev, found.st_ino) == (kept.st_dev, kept.st_ino):
                continue
            if found is None or not stat.S_ISREG(found.st_mode) or not same_bytes(folder, last, backing, name):
                raise Refused("the backing file {} is another than before".format(path))

    def drop_entry(self, manifest: Optional[Dict[str, Any]], purge: bool) -> Optional[str]:
        """Remove an entry whose tree is gone from it; what of it had to be left.  Only `purge` removes a link that
        the manifest does not explain."""
        path = os.path.join(self.root, QUARANTINE, self.entry)
        try:
            entry = self.open_below([QUARANTINE, self.entry])
            backing = self.folder(entry, "backing", False)
            if backing is not None:
                known = {facts["link"] for facts in manifest["backing"].values()} if manifest is not None else set()
                for name in os.listdir(backing):
                    if not purge and "backing/" + name not in known:
                        return os.path.join(path, "backing", name)
                    os.unlink(name, dir_fd=backing)
                os.rmdir("backing", dir_fd=entry)
            if exists(entry, "tree"):
                os.rmdir("tree", dir_fd=entry)
            for name in (MANIFEST + ".tmp", REMOVING + ".tmp", MANIFEST, REMOVING):
                if exists(entry, name):
                    os.unlink(name, dir_fd=entry)
            keep = self.open_below([QUARANTINE])
            os.rmdir(self.entry, dir_fd=keep)
            sync(keep)
        except OSError as error:
            return "{}: {}".format(path, reason(error))
        except Refused as error:
            return "{}: {}".format(path, error)
        return None

    def remove(self) -> Dict[str, Any]:
        keep = self.open_keep(False)
        entry = None if keep is None else self.folder(keep, self.entry, False)
        here = look(self.root_fd, self.name)
        if here is not None and here.st_ino == self.was["inode"]:
            raise Moved("{} is in its place again".format(self.path), self.facts(self.path))
        if entry is None:
            return {"exists": False}
        tree = self.folder(entry, "tree", False)
        aside = None if tree is None else look(tree, self.name)
        if tree is None or aside is None:
            # A removal that was cut off after the tree; nothing else leaves an entry without tree and directory.
            if not exists(entry, REMOVING) and exists(entry, MANIFEST):
                raise Moved("{} holds no directory".format(self.entry), {"exists": False})
            self.hand.changed = True
            return self.removed()
        if aside.st_ino != self.was["inode"] or not stat.S_ISDIR(aside.st_mode):
            raise Moved("{}: inode is {}, was {}".format(self.aside, aside.st_ino, self.was["inode"]))
        if os.listdir(tree) != [self.name]:
            raise Refused("{} holds more than the directory of {}".format(self.entry, self.server))
        self.was.setdefault("device", aside.st_dev)
        self.unused(self.aside)
        again = look(tree, self.name)
        if again is None or again.st_ino != self.was["inode"]:
            raise Moved("{} was replaced by another directory".format(self.aside))
        self.hand.changed = True
        write(entry, REMOVING, str(self.was["inode"]).encode("ascii"), replace=True)
        sync(entry)
        remove_tree(tree, self.name)
        sync(tree)
        return self.removed()

    def removed(self) -> Dict[str, Any]:
        left = self.drop_entry(None, True)
        if left:
            raise Failed("the directory is removed, but something is left: {}".format(left))
        return {"exists": False}


# ---------------------------------------------------------------------------------------------------------------------
# Storage that is reached over the network: sysfs, the programs and the lock of os-brick, devices and sessions.


def block_number(path: str) -> Optional[str]:
    """The major:minor of the block device that a path leads to; None if it leads to none."""
    try:
        found = os.stat(path)
    except ValueError:
        return None
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ESRCH):
            return None
        raise
    if not stat.S_ISBLK(found.st_mode):
        return None
    return "{}:{}".format(os.major(found.st_rdev), os.minor(found.st_rdev))


def character_number(path: str) -> Optional[str]:
    """The same of a character device, as the generic node of a SCSI disk is."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return "{}:{}".format(os.major(found.st_rdev), os.minor(found.st_rdev)) if stat.S_ISCHR(found.st_mode) else None


def is_claimed(path: str) -> bool:
    """Whether the kernel says that somebody has a block device for himself: a mount, swap, LVM, another map."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_EXCL | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.EBUSY:
            return True
        # Nothing gets through to a dead disk, and a map without a path has none.
        if error.errno not in (errno.ENXIO, errno.ENODEV, errno.EIO, errno.ENOMEDIUM):
            raise
    return False


def wwid_of(folder: str) -> Optional[str]:
    """What names a disk or a map wherever it is connected; the folder is /sys/block/sda or /sys/block/dm-0."""
    return told(folder, "dm", "uuid") or scsi_wwid(os.path.join(folder, "device"))


def slaves_of(top: str, name: str) -> List[str]:
    """What a map stands on.  The link to a disk that was deleted below it leads nowhere, or by its old name to another
    disk."""
    folder = os.path.join(top, "block", name, "slaves")
    answer = []
    for one in names_in(folder):
        here = os.path.realpath(os.path.join(folder, one))
        if os.path.exists(here) and here == os.path.realpath(os.path.join(top, "block", one)):
            answer.append(one)
    return answer


def iscsi_session(top: str, name: str) -> Optional[Dict[str, Any]]:
    """A session as sysfs shows it: target, state, portals, luns (all that is or may be somebody's volume in it).  None:
    there is none."""
    folder = os.path.join(top, "class/iscsi_session", name)
    target = told(folder, "targetname")
    if target is None:
        return None
    portals = set()
    connections = os.path.join(top, "class/iscsi_connection")
    for one in names_in(connections):
        if not one.startswith("connection{}:".format(name[len("session") :])):
            continue
        for address, port in (("persistent_address", "persistent_port"), ("address", "port")):
            host = told(connections, one, address)
            number = told(connections, one, port)
            if host is not None:
                portals.add(address_of(host, number))
    luns = []
    device = os.path.realpath(os.path.join(folder, "device"))
    if not os.path.isdir(device):
        if not os.path.lexists(folder):
            return None
        raise Failed("{} is not there, so nobody knows what is in {}".format(device, name))
    for bus in names_in(device):
        if not bus.startswith("target"):
            continue
        for lun in names_in(device, bus):
            if not re.match(r"[0-9]+:[0-9]+:[0-9]+:[0-9]+$", lun):
                continue
            here = os.path.join(device, bus, lun)
            blocks = names_in(here, "block")
            # A disk that was just found has no name yet.
            if blocks or told(here, "type") not in NO_VOLUME:
                luns.append(blocks[0] if blocks else lun)
    return {"target": target, "state": told(folder, "state"), "portals": portals, "luns": luns}


def scsi_path(top: str, name: str) -> Optional[Dict[str, Any]]:
    """A SCSI disk as sysfs shows it: number, wwid, session (session3, rport-2:0-1; None: not over the network), places,
    state, up (whether its session is), folder (of its SCSI device).  None: there is none."""
    folder = os.path.join(top, "block", name)
    number = told(folder, "dev")
    if number is None:
        return None
    device = os.path.realpath(os.path.join(folder, "device"))
    found = {"number": number, "wwid": wwid_of(folder), "session": None, "places": [], "up": False}  # type: Dict[str, Any]
    found["state"] = told(device, "state")
    found["folder"] = device
    way = re.search(
        r"/(session[0-9]+|rport-[0-9]+:[0-9]+-[0-9]+)/target[0-9:]+/[0-9]+:[0-9]+:[0-9]+:([0-9]+)\Z", device
    )
    if way is None:
        return found
    found["session"], lun = way.groups()
    if found["session"].startswith("session"):
        session = iscsi_session(top, found["session"])
        target = session["target"] if session is not None else None
        found["up"] = session is not None and session["state"] == "LOGGED_IN"
    else:
        port = os.path.join(top, "class/fc_remote_ports", found["session"])
        target = told(port, "port_name")
        # As Cinder and os-brick have it, without 0x (os_brick/initiator/connectors/fibre_channel.py).
        target = None if target is None else re.sub(r"\A0x", "", target.lower())
        found["up"] = told(port, "port_state") == "Online"
    found["places"] = lun_places(target, lun)
    return found


def below(root: str, path: str) -> str:
    """Where a path of a process with this root directory lies for us: symlinks on the way stay below its root."""
    done = ""
    todo = [part for part in path.split("/") if part]
    for _ in range(200):
        if not todo:
            return root.rstrip("/") + (done or "/")
        part = todo.pop(0)
        if part == "..":
            done = os.path.dirname(done)
        elif part != ".":
            try:
                link = os.readlink(root.rstrip("/") + done + "/" + part)
            except OSError:
                done += "/" + part
                continue
            done = "" if link.startswith("/") else done
            todo = [step for step in link.split("/") if step] + todo
    raise Failed("the symlinks of {} go in a circle".format(path))


class Options:
    """Options of an OpenStack service, from its files and its environment, as oslo.config reads them."""

    def __init__(self, files: List[str], environment: Dict[str, str]) -> None:
        self.found = {}  # type: Dict[Tuple[str, str], str]
        self.environment = environment
        for path in files:
            with open(path, "rb") as file:
                text = file.read().decode("utf-8", "surrogateescape")
            group = "DEFAULT"
            for line in text.splitlines():
                header = re.match(r"\[([^\]]+)\]", line)
                pair = re.match(r"([A-Za-z0-9_-]+)\s*[=:]\s*(.*)$", line)
                if header:
                    group = header.group(1).strip()
                elif pair:
                    value = pair.group(2).strip()
                    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
                        value = value[1:-1]
                    self.found[group, pair.group(1).replace("-", "_")] = value

    def get(self, group: str, name: str, depth: int = 0) -> Optional[str]:
        """The value, with what it refers to put in.  Raises Refused if that is not known."""
        value = self.environment.get("OS_{}__{}".format(group, name).upper(), self.found.get((group, name)))
        if not value or "$" not in value:
            return value

        def put(match: "re.Match[str]") -> str:
            words = (match.group(1) or match.group(2)).split(".")
            groups = [words[0]] if len(words) == 2 else [group, "DEFAULT"]
            for one in groups if depth < 8 else []:
                known = self.get(one, words[-1], depth + 1)
                if known is not None:
                    return known
            raise Refused("what {} of [{}] stands for is not known".format(name, group))

        return re.sub(r"\$(?:\{([A-Za-z0-9_.]+)\}|([A-Za-z0-9_.]+))", put, value)


class Brick:
    """What os-brick locks, and its programs, where nova-compute has them: here, or in its container."""

    def __init__(self, hand: "Hand") -> None:
        self.hand = hand
        self.root = "/"
        self.prefix = []  # type: List[str]
        self.locked = set()  # type: Set[Tuple[int, int]]

    def attachers(self) -> Iterator[Tuple[str, str, List[str]]]:
        """The services here that attach volumes: (pid, name, words of the command line)."""
        for pid in sorted((name for name in os.listdir(self.hand.proc) if name.isdigit()), key=int):
            try:
                with open(os.path.join(self.hand.proc, pid, "cmdline"), "rb") as file:
                    words = [os.fsdecode(word) for word in file.read().split(b"\0")]
            except (FileNotFoundError, ProcessLookupError):
                continue
            for name in [os.path.basename(word) for word in words[:3]]:
                if name in ATTACHERS:
                    yield pid, name, words
                    break

    def files(self, root: str, name: str, words: List[str]) -> List[str]:
        """The configuration files of a service, in the order in which they count (oslo.config: find_config_files)."""
        project = ATTACHERS[name]
        given = {"--config-file": [], "--config-dir": []}  # type: Dict[str, List[str]]
        for number, word in enumerate(words):
            key, equals, value = word.partition("=")
            if key in given:
                given[key].append(value if equals else "".join(words[number + 1 : number + 2]))
        plain = ["/usr/share/{0}/{0}-dist.conf", "/etc/{0}/{0}.conf", "/etc/{0}/{1}.conf"]
        folders = ["/etc/{0}/{0}.conf.d", "/etc/{0}/{1}.conf.d"]
        answer = [below(root, path) for path in given["--config-file"]]
        if not answer:
            answer = [below(root, path.format(project, name)) for path in plain]
            answer = [path for path in answer if os.path.exists(path)]
        for folder in given["--config-dir"] or [path.format(project, name) for path in folders]:
            here = below(root, folder)
            answer += [os.path.join(here, one) for one in names_in(here) if one.endswith(".conf")]
        return answer

    def take(self) -> None:
        """Hold os-brick's lock until the act is over, so that no volume comes or goes meanwhile.

        Refuses while os-brick works, and where its lock cannot be found: without it nobody knows whether it works.
        """
        known = False
        for pid, name, words in self.attachers():
            root = os.path.join(self.hand.proc, pid, "root")
            try:
                with open(os.path.join(self.hand.proc, pid, "environ"), "rb") as file:
                    pairs = [os.fsdecode(word).partition("=") for word in file.read().split(b"\0")]
                files = self.files(root, name, words)
                same = os.path.samestat(os.stat(root), os.stat("/"))
            except (FileNotFoundError, ProcessLookupError) as error:
                raise Refused("the configuration of {} cannot be read: {}".format(name, reason(error))) from error
            self.lock(name, root, files, {key: value for key, _, value in pairs})
            if name == "nova-compute" and not known:
                known = True
                self.root = root
                if not same:
                    self.prefix = ["nsenter", "--mount=" + os.path.join(self.hand.proc, pid, "ns/mnt"), "--"]
        if not known:
            # It does not run, but may be started in this very moment.
            files = self.files("/", "nova-compute", [])
            if not files:
                raise Refused("nova-compute does not run here, and no nova.conf says where it locks")
            self.lock("nova-compute", "/", files, {})

    def lock(self, name: str, root: str, files: List[str], environment: Dict[str, str]) -> None:
        options = Options(files, environment)
        if (options.get("oslo_concurrency", "disable_process_locking") or "").lower() in ("1", "true", "yes", "on"):
            raise Refused(
                "{} has disable_process_locking set, so nobody knows whether it attaches a volume".format(name)
            )
        # os_brick/opts.py: set_defaults; older than 2023.1 it knows only the second.
        folder = options.get("os_brick", "lock_path") or options.get("oslo_concurrency", "lock_path")
        folder = folder or environment.get("OSLO_LOCK_PATH")
        needed = name == "nova-compute"
        if not folder:
            # oslo.concurrency takes no lock between processes without it, and raises.
            if needed:
                raise Refused("{} does not say where nova-compute locks (lock_path)".format(" ".join(files)))
            return
        path = below(root, os.path.join(folder, BRICK_LOCK))
        # It is not made here: os-brick makes it when it first attaches a volume, so it is there where one was, and one
        # that is ours os-brick could not open.
        try:
            found = os.stat(path)
            if (found.st_dev, found.st_ino) in self.locked:
                return
            lock = self.hand.keep(os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC))
        except FileNotFoundError:
            if needed:
                text = "the lock of os-brick is not at {}, so nobody knows whether it attaches a volume"
                raise Refused(text.format(path)) from None
            return
        self.locked.add((found.st_dev, found.st_ino))
        end = time.monotonic() + BRICK_SECONDS
        while True:
            try:
                # As fasteners' InterProcessLock does it; the lock is gone when any descriptor of the file is closed.
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EAGAIN):
                    raise
                if time.monotonic() > end:
                    raise Refused("os-brick attaches or detaches a volume on this host ({})".format(path)) from None
                time.sleep(0.1)
        if not os.path.samestat(os.stat(path), os.fstat(lock)):
            raise Refused("the lock of os-brick at {} was replaced".format(path))

    def need(self, names: List[str]) -> None:
        """Refuses if a program is missing, before anything is begun."""
        for name in names:
            if self.prefix:
                there = any(os.path.exists(below(self.root, folder + "/" + name)) for folder in PROGRAM_FOLDERS)
            else:
                there = shutil.which(name, path=self.search()) is not None
            if not there:
                raise Refused("{} is not installed where nova-compute is".format(name))

    @staticmethod
    def search() -> str:
        return ":".join([os.environ.get("PATH", "")] + list(PROGRAM_FOLDERS)).lstrip(":")

    def run(self, argv: List[str], seconds: float = 0, feed: bytes = b"", here: bool = False) -> Tuple[int, str]:
        """The status of a program, and what it said; by a list of words, never by a shell.

        A program that hangs in the kernel cannot be ended.  It is left behind, but not waited for: meanwhile nobody
        attaches a volume here.
        """
        seconds = seconds or PROGRAM_SECONDS
        words = argv if here else self.prefix + argv
        with tempfile.TemporaryFile() as said:
            try:
                process = subprocess.Popen(
                    words,
                    stdin=subprocess.PIPE,
                    stdout=said,
                    stderr=subprocess.STDOUT,
                    env=dict(os.environ, LC_ALL="C", PATH=self.search()),
                )
            except OSError as error:
                raise Failed("{} cannot be run: {}".format(words[0], error.strerror)) from error
            try:
                assert process.stdin is not None
                try:
                    process.stdin.write(feed)
                    process.stdin.close()
                except BrokenPipeError:
                    pass
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                try:
                    process.wait(1)
                except subprocess.TimeoutExpired:
                    pass
                raise Failed("{}: no answer within {} s".format(" ".join(argv), seconds)) from None
            said.seek(0)
            text = said.read(4000).decode("utf-8", "replace")
        return process.returncode, "; ".join(line.strip() for line in text.splitlines() if line.strip())

    def must(self, argv: List[str], seconds: float = 0, feed: bytes = b"", here: bool = False) -> None:
        status, said = self.run(argv, seconds, feed, here)
        self.hand.step("{}: {}".format(" ".join(argv), "done" if status == 0 else said or "status {}".format(status)))
        if status != 0:
            raise Failed("{}: {}".format(" ".join(argv), said or "status {}".format(status)))


def vanished(path: str) -> bool:
    """Whether something goes from sysfs, which may take a moment."""
    end = time.monotonic() + VANISH_SECONDS
    while os.path.lexists(path):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


class Sessions:
    """iSCSI sessions that nobody needs any more."""

    def __init__(self, hand: "Hand", brick: Optional[Brick] = None) -> None:
        self.hand = hand
        self.brick = brick or Brick(hand)

    @staticmethod
    def checked(given: Any) -> Dict[str, str]:
        """What an order says of a session.  Raises Failed if a word of it is none that may go into a command."""
        words = {"session": SESSION, "target": TARGET, "portal": PORTAL}
        if not isinstance(given, dict) or set(given) != set(words):
            raise Failed("a session is told by {}".format(", ".join(sorted(words))))
        for key, pattern in sorted(words.items()):
            if not isinstance(given[key], str) or not pattern.match(given[key]):
                raise Failed("{!r} is not a {}".format(given[key], key))
        return dict(given)

    def same(self, asked: Dict[str, str]) -> Optional[Dict[str, Any]]:
        """The session, if it still is the one that was seen; None if it is another, or gone."""
        found = iscsi_session(self.hand.sys, asked["session"])
        if found is None or found["target"] != asked["target"]:
            return None
        if found["portals"] and asked["portal"] not in found["portals"]:
            return None
        return found

    def end(self, asked: Dict[str, str]) -> str:
        """Log out of the session if nothing at all is left in it; what became of it."""
        found = self.same(asked)
        if found is None:
            return "gone"
        if found["luns"]:
            return "kept: {} is in it".format(", ".join(found["luns"]))
        before = self.hand.changed
        self.hand.changed = True
        folder = os.path.join(self.hand.sys, "class/iscsi_session", asked["session"])
        argv = ["iscsiadm", "-m", "session", "-r", asked["session"][len("session") :], "-u"]
        status, said = self.brick.run(argv)
        # Somebody else may have logged out of it; what counts is that it is gone.
        if os.path.lexists(folder) if status else not vanished(folder):
            self.hand.changed = before or status == 0 or self.same(asked) != found
            raise Failed("{}: {}, and {} is still there".format(" ".join(argv), said or status, asked["session"]))
        self.hand.step("{}: {}".format(" ".join(argv), "done" if status == 0 else said))
        others = [
            name
            for name in names_in(self.hand.sys, "class", "iscsi_session")
            if self.same(dict(asked, session=name)) is not None
        ]
        if others:
            return "logged out; the node record is that of {}, too".format(others[0])
        argv = ["iscsiadm", "-m", "node", "-T", asked["target"], "-p", asked["portal"], "-o", "delete"]
        status, said = self.brick.run(argv)
        # 21 (ISCSI_ERR_NO_OBJS_FOUND): there is no such record.
        if status not in (0, 21):
            raise Failed("{}: {}".format(" ".join(argv), said or status))
        self.hand.step("{}: {}".format(" ".join(argv), "done" if status == 0 else "no record"))
        return "logged out"

    def logout(self) -> Dict[str, Any]:
        asked = self.checked({key: self.hand.act[key] for key in ("session", "target", "portal")})
        self.brick.take()
        found = self.same(asked)
        if found is None:
            raise Moved("{} is not the session to {} at {}".format(asked["session"], asked["target"], asked["portal"]))
        if found["luns"]:
            raise Moved("{} has {} in it".format(asked["session"], ", ".join(found["luns"])))
        self.brick.need(["iscsiadm"])
        for uuid, text in Domains(self.hand).texts():
            if asked["target"] in text:
                raise Refused("domain {} uses {}".format(uuid, text))
        became = self.end(asked)
        if became.startswith("kept"):
            raise Moved("{} was {}".format(asked["session"], became))
        return {"exists": False, "sessions": {asked["session"]: became}, "steps": list(self.hand.steps)}


class Device:
    """A multipath map with its paths, or one SCSI disk, that nobody needs any more, and its way out.

    The order is os-brick's (os_brick/initiator/linuxscsi.py: remove_connection, iscsi.py: _cleanup_connection).  Only
    `multipath -f` refuses what is in use; a disk that is deleted, and a session that is logged out of, is taken away
    under whoever uses it.  So every user is looked for here.
    """

    def __init__(self, hand: "Hand") -> None:
        self.hand = hand
        self.name = hand.act["device"]
        self.is_map = bool(MAP.match(self.name))
        self.was = hand.was
        if not self.is_map and not DISK.match(self.name):
            raise Failed("{!r} is not a map or a disk".format(self.name))
        if not isinstance(hand.act["sessions"], list):
            raise Failed("`sessions` is a list")
        self.sessions = [Sessions.checked(given) for given in hand.act["sessions"]]
        self.wanted = {}  # type: Dict[str, Dict[str, Any]]
        for given in self.was["paths"] if isinstance(self.was["paths"], list) else [None]:
            if not isinstance(given, dict) or set(given) != {"name", "number", "wwid", "session", "places"}:
                raise Failed("a path is told by name, number, wwid, session and places")
            if not isinstance(given["name"], str) or not DISK.match(given["name"]):
                raise Failed("{!r} is not a disk".format(given["name"]))
            places = given["places"]
            if not isinstance(places, list) or not places:
                raise Failed("{} has no place on a backend".format(given["name"]))
            if not all(isinstance(place, str) and re.match(r"[^/]+/[0-9]{1,9}\Z", place) for place in places):
                raise Failed("{} is at {!r}, which is no place on a backend".format(given["name"], places))
            self.wanted[given["name"]] = given
        for given in [self.was] + list(self.wanted.values()):
            if not isinstance(given["number"], str) or not NUMBER.match(given["number"]):
                raise Failed("{!r} is not a device number".format(given["number"]))
            if given["wwid"] is not None and not isinstance(given["wwid"], str):
                raise Failed("{!r} is not a WWID".format(given["wwid"]))
        if not self.is_map and list(self.wanted) != [self.name]:
            raise Failed("the path of {} is itself".format(self.name))
        self.brick = Brick(hand)
        self.paths = {}  # type: Dict[str, Dict[str, Any]]
        self.alias = ""

    def folder(self, name: str) -> str:
        return os.path.join(self.hand.sys, "block", name)

    # The device is the one that was seen.

    def same(self) -> None:
        """Raises Moved unless the device and each of its paths is what was seen."""
        if self.is_map:
            self.compare(self.name, "number", told(self.folder(self.name), "dev"), self.was)
            self.compare(self.name, "wwid", wwid_of(self.folder(self.name)), self.was)
            paths = slaves_of(self.hand.sys, self.name)
            if paths != sorted(self.wanted):
                text = "the paths of {} are {}, were {}"
                raise Moved(text.format(self.name, " ".join(paths) or "none", " ".join(sorted(self.wanted)) or "none"))
            if not str(self.was["wwid"]).startswith("mpath-"):
                raise Refused("{} is no multipath map".format(self.name))
            if told(self.folder(self.name), "dm", "suspended") != "0":
                raise Refused("{} is suspended: somebody is changing it".format(self.name))
            self.alias = told(self.folder(self.name), "dm", "name") or ""
            if not MAP_NAME.match(self.alias):
                raise Refused("the name of {}, {!r}, is none that goes into a command".format(self.name, self.alias))
        self.same_paths(sorted(self.wanted))

    def same_paths(self, names: List[str]) -> None:
        for name in names:
            found = scsi_path(self.hand.sys, name)
            if found is None:
                raise Moved("{} is gone".format(name))
            for key in ("number", "wwid", "session"):
                self.compare(name, key, found[key], self.wanted[name])
            self.compare(name, "places", sorted(found["places"]), {"places": sorted(self.wanted[name]["places"])})
            if found["session"] is None:
                raise Refused("{} is not reached over the network".format(name))
            self.paths[name] = found
        if not self.is_map:
            self.compare(self.name, "number", self.paths[self.name]["number"], self.was)
            self.compare(self.name, "wwid", self.paths[self.name]["wwid"], self.was)

    @staticmethod
    def compare(name: str, key: str, now: Any, was: Dict[str, Any]) -> None:
        if now is None and key == "number":
            raise Moved("{} is gone".format(name), {"exists": False})
        if now != was[key]:
            raise Moved("{}: {} is {!r}, was {!r}".format(name, key, now, was[key]))

    def alive(self) -> bool:
        """Whether something still gets through to the device.  Refuses while that is being decided."""
        found = False
        for name, path in sorted(self.paths.items()):
            if path["state"] == "running" and path["up"]:
                found = True
            elif path["state"] not in DEAD:
                text = "{} is {} and {} is {}: the kernel is at it"
                raise Refused(text.format(name, path["state"], path["session"], "up" if path["up"] else "not up"))
        return found

    # Nobody uses it.

    def parts(self) -> Dict[str, str]:
        """The device, its paths, and the partitions of them: {name: number}.  Refuses if anything else stands on it."""
        answer = {}  # type: Dict[str, str]
        for name in sorted(self.wanted):
            answer.update(self.disk_parts(name, [self.name] if self.is_map else []))
        if self.is_map:
            answer[self.name] = self.was["number"]
            holders = names_in(self.folder(self.name), "holders")
            # kpartx maps the partitions of a guest, and `multipath -f` takes them away with the map.
            mapped = re.compile("part[0-9]+-" + re.escape(self.was["wwid"]) + "\\Z")
            for one in list(holders):
                number = told(self.folder(one), "dev")
                if number is not None and mapped.match(wwid_of(self.folder(one)) or ""):
                    holders.remove(one)
                    answer[one] = number
                    self.no_holder(one, names_in(self.folder(one), "holders"))
            self.no_holder(self.name, holders)
        return answer

    def disk_parts(self, name: str, holders: List[str]) -> Dict[str, str]:
        """A disk and its partitions: {name: number}.  Refuses if anything but these holders stands on it."""
        folder = self.folder(name)
        answer = {name: self.wanted[name]["number"]}
        # A partition's folder lies in that of its disk.
        for one in names_in(folder):
            number = told(folder, one, "dev") if one.startswith(name) else None
            if number is not None:
                answer[one] = number
                self.no_holder(one, names_in(folder, one, "holders"))
        self.no_holder(name, [one for one in names_in(folder, "holders") if one not in holders])
        return answer

    @staticmethod
    def no_holder(name: str, holders: List[str]) -> None:
        if holders:
            raise Refused("{} stands on {}".format(" ".join(holders), name))

    def unused(self) -> None:
        """Refuses if anything on this host uses the device, a path or a partition of it."""
        parts = self.parts()
        numbers = {number: name for name, number in parts.items()}
        self.not_in_a_domain(numbers)
        self.not_mounted(numbers)
        self.not_held(numbers)
        # What stands on a map, or has partitions of its own mapped, is claimed by that.
        tops = [name for name in sorted(parts) if not self.is_map or MAP.match(name)]
        for name in tops if len(tops) == 1 else [name for name in tops if name != self.name]:
            node = os.path.join(self.hand.dev, name)
            if block_number(node) != parts[name]:
                raise Refused("{} is not the device {}".format(node, parts[name]))
            if is_claimed(node):
                raise Refused("the kernel says that {} is in use".format(node))
        self.not_open(numbers)

    def not_in_a_domain(self, numbers: Dict[str, str]) -> None:
        """Refuses if the XML of a domain, live or kept, names the device in any way."""
        places = {place for path in self.wanted.values() for place in path["places"]}
        volumes = {match.group(1) for match in map(VOLUME.search, places) if match}
        wwids = set()
        for given in [self.was] + list(self.wanted.values()):
            # mpath-3600..., naa.600..., t10.IET 0001...: the rest stands in the names that udev gives.
            rest = re.sub(r"\A(mpath-[0-9]?|naa\.|eui\.|t10\.|uuid\.)", "", given["wwid"] or "")
            wwids |= {word for word in [rest, re.sub(r"\s+", "_", rest)] if len(word) >= 8}
        ways = []
        for place in places:
            target, _, lun = place.rpartition("/")
            # udev: path_id; os_brick/initiator/linuxscsi.py: process_lun_id.
            number = int(lun)
            far = "0x{:04x}{:04x}00000000".format(number & 0xFFFF, number >> 16 & 0xFFFF)
            ways.append("(iscsi|fc)-(0x)?{}-lun-({}|{})(?![0-9A-Za-z])".format(re.escape(target), number, far))
        named = re.compile("|".join(ways)) if ways else None
        for uuid, text in Domains(self.hand).texts():
            # os-brick's own link has the device's name in its own (os_brick/utils.py: _symlink_name_from_device_path).
            mark = "/dev/disk/by-id/os-brick"
            each = [text] + ([text[len(mark) :].replace("+", "/")] if text.startswith(mark) else [])
            if (
                any(one.startswith("/dev/") and block_number(self.node(one)) in numbers for one in each)
                or any(named is not None and named.search(one) for one in each)
                or any(word in one for word in wwids for one in each)
                or text in places
                or text + "/0" in places
                or text in volumes
                or (text.startswith("ua-") and text[3:] in volumes)
            ):
                raise Refused("domain {} uses {}".format(uuid, text))

    def node(self, path: str) -> str:
        """A path below /dev, where it is here."""
        return self.hand.dev + path[len("/dev") :]

    def not_mounted(self, numbers: Dict[str, str]) -> None:
        for path, line in mounts(self.hand.proc):
            words, _, rest = line.partition(b" - ")
            number = words.split()[2:3]
            source = unescape(b"".join(rest.split()[1:2]))
            if (number and os.fsdecode(number[0]) in numbers) or (
                source.startswith("/dev/") and block_number(self.node(source)) in numbers
            ):
                raise Refused("{} is mounted at {} ({})".format(source, unescape(words.split()[4]), path))
        for area in (content(os.path.join(self.hand.proc, "swaps")) or b"").splitlines()[1:]:
            path = unescape(b"".join(area.split()[:1]))
            if path.startswith("/dev/") and block_number(self.node(path)) in numbers:
                raise Refused("the host swaps to {}".format(path))

    def not_held(self, numbers: Dict[str, str]) -> None:
        """Refuses if the kernel itself hands the device on: as a loop device, to other machines, or to a file system of
        several devices."""

        def device_at(path: str) -> Optional[str]:
            return numbers.get(block_number(self.node(path)) or "") if path.startswith("/dev/") else None

        found = {text: text for text in loops(self.hand.sys)}
        for name, holding in kernel_holds(self.hand.sys, found, device_at):
            raise Refused("the kernel has {} in use: {}".format(name, holding))

    def not_open(self, numbers: Dict[str, str], patience: float = 0) -> None:
        """Refuses if a process has the device open for longer than `patience` seconds, as udev's have after a change.
        multipathd has every disk open, and does no I/O of anybody's."""
        end = time.monotonic() + patience
        while True:
            user = self.user(numbers)
            if user is None:
                return
            if time.monotonic() >= end:
                raise Refused(user)
            time.sleep(0.2)

    def user(self, numbers: Dict[str, str]) -> Optional[str]:
        generic = self.generic()
        for pid, link, path in open_paths(self.hand.proc):
            if (not link and not path.startswith("/dev/")) or pid == os.getpid():
                continue
            node = link or self.node(path)
            name = numbers.get(block_number(node) or "")
            if name is None:
                name = generic.get(character_number(node) or "") if generic else None
                if name is None:
                    continue
            comm = told(self.hand.proc, str(pid), "comm") or "?"
            if comm != "multipathd" or name not in self.wanted:
                return "process {} ({}) has {} open".format(pid, comm, name)
        return None

    def generic(self) -> Dict[str, str]:
        """The numbers of the generic nodes of the paths, by which a guest may have a whole disk: {number: name}."""
        answer = {}  # type: Dict[str, str]
        for path in self.paths.values():
            for kind in ("scsi_generic", "bsg"):
                for name in names_in(path["folder"], kind):
                    number = told(path["folder"], kind, name, "dev")
                    if number is not None:
                        answer[number] = name
        return answer

    # Away with it.

    def remove(self) -> Dict[str, Any]:
        self.brick.take()
        self.same()
        alive = self.alive()
        programs = ["multipath", "multipathd"] if self.is_map else []
        self.brick.need(programs + (["iscsiadm"] if self.sessions else []))
        self.unused()
        self.same()
        if self.alive() != alive:
            raise Refused("the paths of {} come and go".format(self.name))
        if alive:
            self.brick.must(["blockdev", "--flushbufs", "/dev/" + self.name], FLUSH_SECONDS, here=True)
        else:
            self.hand.step("{} is not flushed: no path gets through".format(self.name))
        if self.is_map:
            self.remove_map(alive)
        for name in sorted(self.wanted):
            self.remove_path(name)
        ended = {asked["session"]: Sessions(self.hand, self.brick).end(asked) for asked in self.sessions}
        return {"exists": False, "removed": self.gone, "sessions": ended, "steps": list(self.hand.steps)}

    @property
    def gone(self) -> List[str]:
        names = ([self.name] if self.is_map else []) + sorted(self.wanted)
        return [name for name in names if not os.path.lexists(self.folder(name))]

    def remove_map(self, alive: bool) -> None:
        if not alive:
            # A map that waits for a path to come back never gives up by itself, and whoever flushes it waits, too.
            self.hand.changed = True
            status, said = self.brick.run(["multipathd", "disablequeueing", "map", self.alias])
            if status == 0 and "fail" not in said:
                self.hand.step("multipathd disablequeueing map {}: done".format(self.alias))
            else:
                self.brick.must(["dmsetup", "message", self.alias, "0", "fail_if_no_path"])
        before = self.hand.changed
        parts = sorted(self.parts())
        self.hand.changed = True
        status, said = self.brick.run(["multipath", "-f", self.alias], FLUSH_SECONDS)
        if status == 0 and vanished(self.folder(self.name)):
            self.hand.step("multipath -f {}: done".format(self.alias))
            return
        try:
            self.same()
            untouched = sorted(self.parts()) == parts
        except (Moved, Refused):
            untouched = False
        if untouched:
            self.hand.changed = before
        raise Refused("multipath -f {}: {}".format(self.alias, said or "status {}".format(status)))

    def remove_path(self, name: str) -> None:
        """Delete one disk, if it still is the one, and nobody has it."""
        self.same_paths([name])
        numbers = {number: part for part, number in self.disk_parts(name, []).items()}
        self.not_mounted(numbers)
        self.not_held(numbers)
        self.not_open(numbers, SETTLE_SECONDS)
        # By the folder of its SCSI address: another disk may get the name, but none gets this session and LUN.
        path = os.path.join(self.paths[name]["folder"], "delete")
        self.hand.changed = True
        self.brick.must(["tee", path], feed=b"1", here=True)
        if not vanished(self.folder(name)):
            raise Failed("{} is told to go, and is still there".format(name))


# ---------------------------------------------------------------------------------------------------------------------
# The act: request, lock, fence, answer.


class Hand:
    """One run of this program: what is asked, what it holds open, and whether anything may be changed."""

    def __init__(self, request: Dict[str, Any]) -> None:
        self.changed = False
        self.opened = []  # type: List[int]
        if request.get("version") != 1:
            raise Failed("version {!r} of the request is not known".format(request.get("version")))
        self.cloud = request.get("cloud")  # type: Any
        self.fence = request.get("fence")  # type: Any
        self.state_dir = request.get("state_dir")  # type: Any
        self.proc = request.get("proc") or "/proc"  # type: str
        self.sys = request.get("sys") or "/sys"  # type: str
        self.dev = request.get("dev") or "/dev"  # type: str
        self.act = request.get("act")  # type: Any
        self.notes = []  # type: List[str]
        self.steps = []  # type: List[str]
        if not isinstance(self.cloud, str) or not NAME.match(self.cloud):
            raise Failed("the request names no cloud")
        if not isinstance(self.fence, int) or isinstance(self.fence, bool) or self.fence < 0:
            raise Failed("the request has no fence")
        if not isinstance(self.state_dir, str) or os.path.normpath(self.state_dir) != self.state_dir:
            raise Failed("the request has no state_dir")
        if not self.state_dir.startswith("/"):
            raise Failed("state_dir {} is not absolute".format(self.state_dir))
        if not isinstance(self.act, dict) or self.act.get("do") not in ACTS:
            raise Failed("the request has no act that is known")
        keys, was = ACTS[self.act["do"]]
        if set(self.act) != keys | {"do"}:
            raise Failed("{} takes {}, not {}".format(self.act["do"], sorted(keys), sorted(set(self.act) - {"do"})))
        self.was = self.act.get("was", {})
        if was is not None and (not isinstance(self.was, dict) or set(self.was) != was):
            raise Failed("the `was` of {} takes {}".format(self.act["do"], sorted(was)))
        if not all(isinstance(self.act[key], str) for key in keys - {"was", "paused", "sessions"}):
            raise Failed("{}: a value is no text".format(self.act["do"]))
        if not isinstance(self.act.get("paused", False), bool):
            raise Failed("`paused` is true or false")
        states = STATES_BEFORE.get(self.act["do"])
        if states is not None and self.was["state"] not in states:
            raise Failed("{} is for a domain that is {}".format(self.act["do"], " or ".join(states)))
        self.was = dict(self.was)
        self.server = self.act["server"]
        # What is left of a connection may be no server's.
        nobodys = self.act["do"] in ("device.remove", "session.logout") and self.server == ""
        if not nobodys and not UUID.match(self.server):
            raise Failed("{!r} is not a server".format(self.server))
        given = request.get("virsh")
        if given is not None and not (isinstance(given, list) and all(isinstance(word, str) for word in given)):
            raise Failed("virsh is a list of words")
        self.given = given
        self.found = None  # type: Optional[Virsh]

    def keep(self, descriptor: int) -> int:
        """Close it when the act is over."""
        self.opened.append(descriptor)
        return descriptor

    def step(self, text: str) -> None:
        """Something of an act with several steps is done."""
        self.steps.append(text)

    def take(self) -> None:
        """The lock, for the whole act, and the fence: whoever was overtaken by another writer acts no more."""
        os.makedirs(self.state_dir, 0o700, exist_ok=True)
        self.state = self.keep(os.open(self.state_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        lock = self.keep(os.open(self.cloud + ".lock", flags, 0o600, dir_fd=self.state))
        end = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise Failed("another act on this host takes longer than {} s".format(LOCK_SECONDS)) from None
                time.sleep(0.1)
        name = self.cloud + ".fence"
        try:
            text = read(self.state, name).decode("ascii", "replace").strip()
        except FileNotFoundError:
            text = "0"
        if not re.match(r"[0-9]+$", text):
            raise Failed("{} is not a number: {!r}".format(os.path.join(self.state_dir, name), text))
        if self.fence < int(text):
            raise Refused("writer {} is behind {}".format(self.fence, int(text)))
        if self.fence > int(text):
            write(self.state, name, str(self.fence).encode("ascii"), replace=True)
            sync(self.state)

    def perform(self) -> Dict[str, Any]:
        self.take()
        kind, verb = self.act["do"].split(".")
        kinds = {"domain": Domains, "directory": Directory, "device": Device, "session": Sessions}  # type: Dict[str, Any]
        saw = getattr(kinds[kind](self), verb)()  # type: Dict[str, Any]
        return saw

    @property
    def virsh(self) -> Virsh:
        """Looked for when it is first needed: to bring a directory back takes no libvirt."""
        if self.found is None:
            self.found = find_virsh(self.given)
        return self.found

    def close(self) -> None:
        while self.opened:
            os.close(self.opened.pop())


def answer(request: Any) -> Dict[str, Any]:
    """Perform the request.  Never raises."""
    hand = None
    outcome, why, saw = "done", None, {}  # type: str, Optional[str], Dict[str, Any]
    try:
        if not isinstance(request, dict):
            raise Failed("the request is no object")
        hand = Hand(request)
        saw = hand.perform()
    except Moved as error:
        outcome, why, saw = "moved", str(error), error.saw
    except Refused as error:
        outcome, why, saw = "refused", str(error), error.saw
    except Failed as error:
        outcome, why = "failed", str(error)
    except Exception as error:
        outcome, why = "failed", reason(error)
    finally:
        if hand is not None:
            hand.close()
    if hand is not None and why is not None:
        why = "; ".join([why] + hand.notes)
        if hand.steps:
            saw = dict(saw, steps=hand.steps)
            why += " (before that: {})".format("; ".join(hand.steps))
    told = {"version": 1, "outcome": outcome, "why": why, "saw": saw}  # type: Dict[str, Any]
    if outcome in ("moved", "refused") and hand is not None and hand.changed:
        told["outcome"] = "failed"
    if told["outcome"] == "failed":
        told["changed"] = hand is not None and hand.changed
    return told


def main(given: Optional[str]) -> None:
    # An act that has begun is ended, even if whoever asked for it is gone.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.umask(0o077)
    nonce = ""
    try:
        request = json.loads(given if given is not None else sys.stdin.read())
        nonce = str(request.get("nonce", "")) if isinstance(request, dict) else ""
        if not re.match(r"[A-Za-z0-9_-]*$", nonce):
            nonce = ""
    except ValueError as error:
        request = None
        told = {"version": 1, "outcome": "failed", "why": "the request is no JSON: {}".format(error), "saw": {}}
        told["changed"] = False
    else:
        told = answer(request)
    print("\n@@cloudfsck {} begin@@\n{}\n@@cloudfsck {} end@@".format(nonce, json.dumps(told), nonce), flush=True)


if __name__ == "__main__":
    main(globals().get("REQUEST"))
