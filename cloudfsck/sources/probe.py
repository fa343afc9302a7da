"""The program that reads on a hypervisor: one file, standard library only, one JSON answer; it never changes anything.

It runs as `python3 -` with a line `REQUEST = '<json>'` before it, or as a forced command that reads the request from
standard input.  Python 3.6 and later.  What it cannot read it says, with the reason, under `failed`: a part that
failed has no lists at all, so an empty list always means that there is nothing.
"""

# Hosts with Python 3.6 have no newer spelling of types and no newer arguments.
# ruff: noqa: B905, FA100, FURB188, UP006, UP022, UP035, UP045, PLW1510

import ctypes
import errno
import fnmatch
import hashlib
import json
import os
import re
import socket
import stat
import struct
import subprocess
import sys
import time
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Pattern, Set, Tuple
from xml.etree import ElementTree

# ---------------------------------------------------------------------------------------------------------------------
# Recipes held equal with the acting program by a test: each stands alone.


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


# ---------------------------------------------------------------------------------------------------------------------
# Domains: what libvirt says, by virsh, always read-only.

# The only virsh commands there are here; every one of them only asks.
ASKING = ("uri", "list", "dumpxml", "domstate", "domjobinfo", "echo")
LISTS = {
    "all": "list --all --uuid",
    "active": "list --uuid",
    "persistent": "list --all --persistent --uuid",
    "autostart": "list --all --autostart --uuid",
    "managed_save": "list --all --with-managed-save --uuid",
}
# Without a configured command: the host's own virsh, else the one in Kolla's container.
VIRSH = (
    ("virsh", "-c", "qemu:///system"),
    ("docker", "exec", "-e", "LC_ALL=C", "nova_libvirt", "virsh", "-c", "qemu:///system"),
    ("podman", "exec", "-e", "LC_ALL=C", "nova_libvirt", "virsh", "-c", "qemu:///system"),
)
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
#: The volume in the alias of a disk (nova/virt/libvirt/volume/volume.py), and in the name that Cinder gives it on its
#: backend (cinder.conf: volume_name_template), as a device, a target or an image has it.
ALIAS = re.compile(r"\Aua-(" + UUID.pattern + r")\Z")
STORED = re.compile(r"(?:\A|[/:.-])volume-(" + UUID.pattern + r")(?:\Z|[-./:])")
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
UNITS = {"b": 1, "bytes": 1, "KB": 1000, "k": 1024, "KiB": 1024, "MB": 10**6, "M": 2**20, "MiB": 2**20}
UNITS.update({"GB": 10**9, "G": 2**30, "GiB": 2**30, "TB": 10**12, "T": 2**40, "TiB": 2**40})
NOVA = "{http://openstack.org/xmlns/libvirt/nova/"
# One argument of a program may be 128 KiB long; what is left over is for the lists and marks.
LONGEST = 100 * 1000
LIST_SECONDS = 10
DETAIL_SECONDS = 90


class Unread(Exception):
    """A part could not be read; the text says why."""


def options_of(program: str, argv: List[str]) -> List[str]:
    """The options of a command line that runs this program, here or in a container.  A key that may only start the
    program in which this stands must not start any other by way of the request."""
    words = list(argv)
    if words and os.path.basename(words[0]) in ("docker", "podman"):
        if words[1:2] != ["exec"]:
            raise Unread("{0}: {1!r} is not an exec of {0} in a container".format(program, " ".join(argv)))
        words = words[2:]
        while words and words[0] in ("-e", "--env", "-u", "--user", "-i", "--interactive"):
            words = words[1:] if words[0] in ("-i", "--interactive") else words[2:]
        words = words[1:]
    if not words or os.path.basename(words[0]) != program:
        raise Unread("{0}: {1!r} does not run {0}".format(program, " ".join(argv)))
    return words[1:]


class Virsh:
    """A virsh command line that only reads: -r (a read-only connection) and a closed list of commands."""

    def __init__(self, argv: Iterable[str]) -> None:
        self.argv = list(argv)
        options = options_of("virsh", self.argv)
        if options and (len(options) != 2 or options[0] not in ("-c", "--connect")):
            raise Unread("virsh: of the options only -c URI is taken, not {!r}".format(" ".join(options)))
        if options and (not re.match(r"[a-z]+(\+unix)?:///", options[1]) or re.search(r"[?&]command=", options[1])):
            raise Unread(f"virsh: {options[1]!r} is not a connection on this host")

    def ask(self, commands: List[str], seconds: float) -> Tuple[List[str], str]:
        """The answers to the commands in order ("" where virsh has none), and what it said on standard error.

        All commands go to one process as one argument: in contrast to commands on standard input virsh then
        prints no prompts and writes no history file.
        """
        mark = f"@@{os.urandom(12).hex()}@@"
        for command in commands:
            if command.split()[0] not in ASKING or not re.match(r"[a-z0-9 -]+\Z", command):
                raise ValueError(f"{command!r} is no question")
        line = "; ".join(f"echo {mark}; {command}" for command in commands) + "; echo " + mark
        try:
            done = subprocess.run(
                self.argv + ["-r", "-q", line],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                timeout=seconds,
                env=dict(os.environ, LC_ALL="C"),
            )
        except FileNotFoundError:
            raise Unread(f"{self.argv[0]} is not installed") from None
        except OSError as error:
            raise Unread(f"{self.argv[0]} cannot be run: {error.strerror}") from None
        except subprocess.TimeoutExpired:
            raise Unread("{}: no answer within {:g} s".format(" ".join(self.argv), seconds)) from None
        said = done.stderr.decode("utf-8", "replace").strip()
        parts = done.stdout.decode("utf-8", "surrogateescape").split(mark)
        if len(parts) != len(commands) + 2:
            reason = said.replace("\n", "; ") or f"it ended with status {done.returncode} in the middle of its answers"
            raise Unread("{}: {}".format(" ".join(self.argv), reason))
        return parts[1:-1], said

    def lists(self) -> Dict[str, Set[str]]:
        """The sets of domains, or why they are not to be had."""
        answers, said = self.ask(QUESTIONS, LIST_SECONDS)
        # An empty list looks like a list that failed; the connection's own name is never empty.
        if not answers[0].strip() or re.search(r"^error:", said, re.MULTILINE):
            reason = said.replace("\n", "; ") or "libvirt does not answer"
            raise Unread("{}: {}".format(" ".join(self.argv), reason))
        return uuids_of(answers)

    def names(self) -> Set[str]:
        """The names of all domains, or why they are not to be had."""
        answers, said = self.ask(["uri", "list --all --name"], LIST_SECONDS)
        if not answers[0].strip() or re.search(r"^error:", said, re.MULTILINE):
            reason = said.replace("\n", "; ") or "libvirt does not answer"
            raise Unread("{}: {}".format(" ".join(self.argv), reason))
        return {line.strip() for line in answers[1].splitlines() if line.strip()}


def uuids_of(answers: List[str]) -> Dict[str, Set[str]]:
    """The sets of domains behind the answers to QUESTIONS."""
    return {key: set(UUID.findall(answer)) for key, answer in zip(sorted(LISTS), answers[1:])}


QUESTIONS = ["uri"] + [LISTS[key] for key in sorted(LISTS)]


def find_virsh(request: Dict[str, Any], ask: Callable[[Virsh], Any]) -> Tuple[Virsh, Any]:
    """The virsh that answers on this host, and its answer."""
    reasons = []  # type: List[str]
    for argv in [request["virsh"]] if request.get("virsh") else list(VIRSH):
        try:
            virsh = Virsh(argv)
            return virsh, ask(virsh)
        except Unread as error:
            reasons.append(str(error))
    raise Unread("; ".join(reasons))


def read_domains(request: Dict[str, Any]) -> List[Dict[str, Any]]:
    """All domains of this host, or those of the scope: those asked for, and those with a disk that is."""
    asked = request.get("servers")
    # Which domains have the disks of a volume only the domains themselves say.
    found = domains_among(request, None if request.get("also") else asked)
    return [domain for domain in found if asked is None or concerns(domain, asked)]


def domains_among(request: Dict[str, Any], scope: Optional[List[str]]) -> List[Dict[str, Any]]:
    """The domains of this host that are in the scope; None: all."""
    virsh, lists = find_virsh(request, Virsh.lists)
    found = {}  # type: Dict[str, Dict[str, Any]]
    said = ""
    # A domain that changes while it is read is read again.  That one vanished is only taken from a list of its own,
    # made without any error: the same list shows those that came meanwhile.
    for _ in range(5):
        todo = sorted(uuid for uuid in lists["all"] if uuid not in found and (scope is None or uuid in scope))
        if not todo:
            return [found[uuid] for uuid in sorted(found)]
        said = read_details(virsh, lists, todo, found)
        if any(uuid not in found for uuid in todo):
            lists = virsh.lists()
            for uuid in list(found):
                if uuid not in lists["all"]:
                    del found[uuid]
    names = ", ".join(todo)
    why = said or "it changes faster than it can be read"
    raise Unread("{}: domain {} is not read: {}".format(" ".join(virsh.argv), names, why))


def concerns(domain: Dict[str, Any], ids: List[str]) -> bool:
    """Whether a domain, or a volume that it has as a disk, or a port of an interface of its, is one of these."""
    named = {disk[key] for disk in domain["disks"] for key in ("serial", "alias", "stored")}
    named.update(interface["port"] for interface in domain["interfaces"])
    return not named.union([domain["uuid"]]).isdisjoint(ids)


def read_details(virsh: Virsh, lists: Dict[str, Set[str]], uuids: List[str], found: Dict[str, Dict[str, Any]]) -> str:
    """Reads the domains into `found`; one that vanished or changed meanwhile is left out.  Returns what virsh said."""
    chunks = [[]]  # type: List[List[Tuple[str, str, str]]]
    length = 0
    for uuid in uuids:
        questions = [("state", "domstate --reason " + uuid)]
        if uuid in lists["active"]:
            questions += [("live", "dumpxml " + uuid), ("job", "domjobinfo " + uuid)]
        if uuid in lists["persistent"]:
            questions.append(("kept", "dumpxml --inactive " + uuid))
        size = sum(len(command) + 40 for _, command in questions)
        if chunks[-1] and length + size > LONGEST:
            chunks.append([])
            length = 0
        length += size
        chunks[-1].extend((uuid, key, command) for key, command in questions)
    words = []  # type: List[str]
    for chunk in chunks:
        commands = [command for _, _, command in chunk] + QUESTIONS
        answers, said = virsh.ask(commands, DETAIL_SECONDS)
        after = uuids_of(answers[len(chunk) :])
        words += said.splitlines()
        texts = {}  # type: Dict[str, Dict[str, str]]
        for (uuid, key, _), answer in zip(chunk, answers):
            texts.setdefault(uuid, {})[key] = answer.strip()
        for uuid, text in texts.items():
            if uuid not in after["all"] or any((uuid in lists[key]) != (uuid in after[key]) for key in LISTS):
                continue
            if not all(answer for key, answer in text.items() if key != "job"):
                continue
            domain = describe(uuid, text, after, said)
            # A run that ended, or another that began, between two answers.
            if (domain["id"] is None) == (domain["state"] == "shutoff") or domain["state"] == "crashed":
                found[uuid] = domain
    return "; ".join(words)


def describe(uuid: str, text: Dict[str, str], lists: Dict[str, Set[str]], said: str) -> Dict[str, Any]:
    """One domain from virsh's answers."""
    match = re.match(r"([a-z ]+?) \((.*)\)$", text["state"])
    if not match or match.group(1) not in STATES:
        raise Unread("domain {}: virsh domstate says {!r}, which is not known".format(uuid, text["state"]))
    trees = {}  # type: Dict[str, ElementTree.Element]
    for key in ("live", "kept"):
        if key in text:
            try:
                trees[key] = xml_tree(text[key])
            except (ElementTree.ParseError, UnicodeError) as error:
                raise Unread(f"domain {uuid}: virsh dumpxml gives no XML: {error}") from None
    first = trees.get("live", trees.get("kept"))
    if first is None:
        raise Unread(f"domain {uuid} is neither active nor persistent")
    run = trees["live"].get("id") if "live" in trees else None
    nova = None
    for element in first.findall("metadata/*"):
        if element.tag.startswith(NOVA) and element.tag.endswith("}instance"):
            nova = element
    namespace = nova.tag[: nova.tag.index("}") + 1] if nova is not None else NOVA

    def said_by_nova(path: str) -> Optional[str]:
        words = nova.findtext("/".join(namespace + step for step in path.split("/"))) if nova is not None else None
        return words.strip() if words and words.strip() else None

    owner = nova.find(namespace + "owner/" + namespace + "project") if nova is not None else None
    product = [entry.text for entry in first.findall("sysinfo/system/entry") if entry.get("name") == "product"]
    nvram = first.find("os/nvram")
    nvram_path = None
    if nvram is not None:
        source = nvram.find("source")
        nvram_path = source.get("file") if source is not None else (nvram.text or "").strip() or None
    memory = first.find("memory")
    amount = int((memory.text or "0").strip()) if memory is not None else 0
    unit = UNITS[memory.get("unit", "KiB")] if memory is not None else 1024
    return {
        "uuid": uuid,
        "name": first.findtext("name", ""),
        "id": int(run) if run else None,
        "state": STATES[match.group(1)],
        "reason": match.group(2),
        "persistent": "kept" in trees,
        "autostart": uuid in lists["autostart"],
        "managed_save": uuid in lists["managed_save"],
        "nova": nova is not None or "OpenStack Nova" in product,
        "nova_name": said_by_nova("name"),
        "project": owner.get("uuid") if owner is not None else None,
        "created": said_by_nova("creationTime"),
        "memory_kib": amount * unit // 1024,
        "vcpus": int(first.findtext("vcpu", "1").strip()),
        "job": running_job(text, trees, said),
        "hostdevs": len(first.findall("devices/hostdev")) + len(first.findall("devices/interface[@type='hostdev']")),
        "nvram": nvram_path,
        "tpm": first.find("devices/tpm") is not None,
        "xml_sha256": xml_digest(text["kept"] if "kept" in text else text["live"]),
        "disks": read_disks(trees),
        "interfaces": read_interfaces(trees, nova, namespace),
    }


def running_job(text: Dict[str, str], trees: Dict[str, ElementTree.Element], said: str) -> Optional[str]:
    """The libvirt job or block job that runs on an active domain."""
    if "live" not in trees:
        return None
    if not text.get("job"):
        # libvirt does not say what runs as long as something holds the domain: that is a job too.
        held = [line for line in said.splitlines() if "state change lock" in line]
        return "unknown: " + (held[-1] if held else "virsh domjobinfo gives no answer")
    rows = dict(re.findall(r"^([A-Z][A-Za-z ]*):[ \t]+(.*?)[ \t]*$", text["job"], re.MULTILINE))
    if rows.get("Job type", "None") != "None":
        return rows.get("Operation", rows["Job type"])
    for disk in trees["live"].findall("devices/disk"):
        mirror = disk.find("mirror")
        if mirror is not None:
            target = disk.find("target")
            name = target.get("dev", "") if target is not None else ""
            return "block {} of {}".format(mirror.get("job", "copy"), name)
    return None


def source_of(element: ElementTree.Element) -> Optional[str]:
    """The file, device, network name or pool/volume that a <source> names."""
    source = element.find("source")
    if source is None:
        return None
    if source.get("volume"):
        return "{}/{}".format(source.get("pool", ""), source.get("volume"))
    for key in ("file", "dev", "name", "dir", "path"):
        if source.get(key):
            return source.get(key)
    return None


def merged(
    trees: Dict[str, ElementTree.Element],
    rows: Callable[[ElementTree.Element], List[Dict[str, Any]]],
    same: Tuple[str, ...],
) -> List[Dict[str, Any]]:
    """The rows of the live and of the persistent configuration; a row that both have comes once."""
    live = rows(trees["live"]) if "live" in trees else []
    kept = rows(trees["kept"]) if "kept" in trees else []
    answer = []
    for row in live:
        twin = next((other for other in kept if all(other[key] == row[key] for key in same)), None)
        if twin is not None:
            kept.remove(twin)
            for key in row:
                row[key] = twin[key] if row[key] is None else row[key]
        answer.append(dict(row, config="live" if twin is None else "both"))
    return answer + [dict(row, config="persistent") for row in kept]


def read_disks(trees: Dict[str, ElementTree.Element]) -> List[Dict[str, Any]]:
    def rows(tree: ElementTree.Element) -> List[Dict[str, Any]]:
        answer = []
        for disk in tree.findall("devices/disk"):
            target = disk.find("target")
            serial = disk.findtext("serial")
            alias = disk.find("alias")
            source = source_of(disk)
            backing = []
            below = disk.find("backingStore")
            while below is not None:
                name = source_of(below)
                backing += [name] if name else []
                below = below.find("backingStore")
            answer.append(
                {
                    "target": target.get("dev", "") if target is not None else "",
                    "type": disk.get("type", "file"),
                    "device": disk.get("device", "disk"),
                    "source": source,
                    "serial": serial.strip() if serial and serial.strip() else None,
                    "alias": volume_in(ALIAS, alias.get("name") if alias is not None else None),
                    "stored": volume_in(STORED, source),
                    "backing": backing,
                }
            )
        return answer

    # Only a domain that is active has aliases, unless they were given to it.
    return merged(trees, rows, ("target", "type", "device", "source", "serial"))


def volume_in(pattern: Pattern[str], text: Optional[str]) -> Optional[str]:
    """The UUID of a volume at its place in a text."""
    found = pattern.search(text) if text else None
    return found.group(1) if found else None


def read_interfaces(
    trees: Dict[str, ElementTree.Element], nova: Optional[ElementTree.Element], namespace: str
) -> List[Dict[str, Any]]:
    def rows(tree: ElementTree.Element) -> List[Dict[str, Any]]:
        answer = []
        for interface in tree.findall("devices/interface"):
            mac = interface.find("mac")
            target = interface.find("target")
            answer.append(
                {
                    "mac": mac.get("address", "").lower() if mac is not None else "",
                    "target": target.get("dev") if target is not None else None,
                    "port": None,
                }
            )
        return answer

    answer = merged(trees, rows, ("mac",))
    path = namespace + "ports/" + namespace + "port"
    ports = [port.get("uuid", "") for port in nova.findall(path)] if nova is not None else []
    # nova names most devices after the port; the others follow in order if none is missing or left over.
    for row in answer:
        named = [port for port in ports if row["target"] and row["target"][3:] == port[:11]]
        if named:
            row["port"] = named[0]
            ports.remove(named[0])
    rest = [row for row in answer if row["port"] is None]
    if len(rest) == len(ports):
        for row, port in zip(rest, ports):
            row["port"] = port
    return answer


# ---------------------------------------------------------------------------------------------------------------------
# Processes: what runs as QEMU, and what is held open.

GONE = " (deleted)"
# Memory that the kernel shows like a file without a name.
MEMORY = re.compile(r"/(memfd:|dev/|SYSV|anon_hugepage|proc/|sys/|\[)|.*/hugepages[^/]*/|.*/libvirt/qemu/ram/")


def read_processes(request: Dict[str, Any], proc: str, held: Dict[int, List[Tuple[str, str]]]) -> List[Dict[str, Any]]:
    """Every QEMU process that has a -uuid, or those of the scope."""
    scope = request.get("servers")
    with open(os.path.join(proc, "stat"), "rb") as file:
        boot = re.search(rb"^btime (\d+)", file.read(), re.MULTILINE)
    if not boot:
        raise Unread(f"{proc}/stat does not say when this host was started")
    huge = [mount["point"].rstrip("/") + "/" for mount in mounts() if mount["fstype"] == "hugetlbfs"]
    answer = []
    for pid in sorted(int(name) for name in os.listdir(proc) if name.isdigit()):
        folder = os.path.join(proc, str(pid))
        try:
            with open(os.path.join(folder, "cmdline"), "rb") as file:
                words = file.read().split(b"\0")
            if b"-uuid" not in words or not is_qemu(words):
                continue
            with open(os.path.join(folder, "stat"), "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        uuid = option(words, b"-uuid").lower()
        if len(uuid) != 36 or not UUID.match(uuid) or (scope is not None and uuid not in scope):
            continue
        name = ""
        for part in re.split(r"(?<!,),(?!,)", option(words, b"-name").replace(",,", "\1")):
            if part.startswith("guest=") or (not name and "=" not in part):
                name = part[len("guest=") :] if part.startswith("guest=") else part
        answer.append(
            {
                "pid": pid,
                "uuid": uuid,
                "name": name.replace("\1", ","),
                "started": int(boot.group(1)) + int(fields[19]) / float(os.sysconf("SC_CLK_TCK")),
                "unnamed": sum(1 for link, path in held.get(pid, []) if link and is_unnamed(link, path, huge)),
            }
        )
    return answer


def is_qemu(words: List[bytes]) -> bool:
    program = os.path.basename(words[0])
    return program.startswith(b"qemu") or program == b"kvm" or b"-machine" in words or b"-M" in words


def option(words: List[bytes], name: bytes) -> str:
    """The value of an option of a command line."""
    at = words.index(name) + 1 if name in words else len(words)
    return words[at].decode("utf-8", "surrogateescape") if at < len(words) else ""


def is_unnamed(link: str, path: str, huge: List[str]) -> bool:
    """Whether an open file is a regular file on disk whose name is gone."""
    if not path.endswith(GONE) or MEMORY.match(path) or any(path.startswith(point) for point in huge):
        return False
    try:
        found = os.stat(link)
    except FileNotFoundError:
        # The descriptor was closed meanwhile, unless the link itself is still there.
        return os.path.lexists(link)
    if not stat.S_ISREG(found.st_mode):
        return False
    try:
        # A file may bear a name that ends like this.
        return not os.path.samestat(found, os.lstat(path))
    except OSError:
        return True


def held_paths(proc: str) -> Dict[int, List[Tuple[str, str]]]:
    """The (link, path) pairs that each process holds."""
    answer = {}  # type: Dict[int, List[Tuple[str, str]]]
    for pid, link, path in open_paths(proc):
        answer.setdefault(pid, []).append((link, path))
    return answer


# ---------------------------------------------------------------------------------------------------------------------
# Instances: the directory where nova keeps its guests' files.

NOVA_CONF = ("/etc/nova/nova.conf", "/etc/nova/nova-compute.conf", "/etc/nova/nova.conf.d/*.conf")
STATE_PATH = "/var/lib/nova"
KOLLA_CONF = "/etc/kolla/nova-compute/nova.conf"
# The volume that stands for STATE_PATH in Kolla's containers.
KOLLA_VOLUMES = (
    "/var/lib/docker/volumes/nova_compute/_data",
    "/var/lib/containers/storage/volumes/nova_compute/_data",
)
LOCAL = ("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "reiserfs", "jfs", "tmpfs", "ramfs", "overlay")
KINDS = {"": "instance", "_resize": "resize", "_del": "del"}
QUARANTINE = ".cloudfsck"
BASE = "_base"


def read_options(text: str) -> Dict[Tuple[str, str], str]:
    """The options of a configuration file as oslo.config reads it."""
    options = {}  # type: Dict[Tuple[str, str], str]
    group = "DEFAULT"
    last = None  # type: Optional[Tuple[str, str]]
    for line in text.splitlines():
        if not line.strip():
            last = None
        elif line[0] in " \t" and last is not None:
            options[last] += "\n" + line.strip()
        elif line.lstrip()[0] in "#;":
            continue
        elif line[0] == "[":
            group = line.strip()[1:].partition("]")[0]
            last = None
        else:
            at = min([line.find(sign) for sign in ":=" if sign in line] or [len(line)])
            value = line[at + 1 :].strip()
            if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
                value = value[1:-1]
            last = (group, line[:at].strip())
            options[last] = value
    return options


def interpolated(options: Dict[Tuple[str, str], str], value: str, depth: int = 0) -> str:
    """A value with $name, ${name} and ${group.name} put in."""
    if depth > 10:
        raise Unread(f"instances_path is unknown: {value!r} refers to itself")

    def put(match: Any) -> str:
        name = match.group(1) or match.group(2)
        if name is None:
            return "$"
        group, _, key = name.rpartition(".")
        if (group or "DEFAULT", key) not in options:
            raise Unread(f"instances_path is unknown: {value!r} names the option {name}, which is not set")
        return interpolated(options, options[(group or "DEFAULT", key)], depth + 1)

    return re.sub(r"\$(?:\$|\{([\w.-]+)\}|(\w[\w.]*))", put, value)


def nova_path(files: List[str]) -> str:
    """The instances_path that these configuration files give; of several the later wins."""
    options = {("DEFAULT", "state_path"): STATE_PATH, ("DEFAULT", "instances_path"): "$state_path/instances"}
    for name in files:
        with open(name, "rb") as file:
            options.update(read_options(file.read().decode("utf-8", "surrogateescape")))
    path = interpolated(options, options[("DEFAULT", "instances_path")])
    if not path.startswith("/"):
        raise Unread("instances_path is unknown: {} says {!r}, which is not absolute".format(", ".join(files), path))
    return os.path.normpath(path)


def in_volume(path: str) -> Optional[str]:
    """Where a path below STATE_PATH is on a host whose nova runs in Kolla's container."""
    if path == STATE_PATH or path.startswith(STATE_PATH + "/"):
        for volume in KOLLA_VOLUMES:
            if os.path.isdir(volume):
                return volume + path[len(STATE_PATH) :]
    return None


def configuration_files(name: str) -> List[str]:
    """The files of this name or pattern; a folder that may not be read is an error, not an absence."""
    folder, pattern = os.path.split(name)
    try:
        if "*" in pattern:
            found = sorted(fnmatch.filter(os.listdir(folder), pattern))
            return [os.path.join(folder, file) for file in found if not file.startswith(".")]
        os.stat(name)
        return [name]
    except (FileNotFoundError, NotADirectoryError):
        return []


def find_instances(request: Dict[str, Any]) -> Tuple[str, str, str]:
    """The instances path as nova sees it, where it is on this host, and who says so."""
    path = request.get("instances_path")
    if path:
        if not path.startswith("/"):
            raise Unread(f"instances_path is unknown: the configuration says {path!r}, which is not absolute")
        path = os.path.normpath(path)
        real = path if os.path.lexists(path) else in_volume(path) or path
        return path, os.path.realpath(real), "configuration"
    asked = request.get("nova_conf")
    names = list(NOVA_CONF) if asked is None else asked
    files = [file for name in names for file in configuration_files(name)]
    ways = []  # type: List[Tuple[str, str, str]]
    if files:
        path = nova_path(files)
        # A container's own file may be named as well.
        mapped = in_volume(path) if all(file.startswith("/etc/kolla/") for file in files) else None
        ways.append((path, os.path.realpath(mapped or path), ", ".join(files)))
    if asked is None and configuration_files(KOLLA_CONF):
        path = nova_path([KOLLA_CONF])
        mapped = in_volume(path)
        if mapped:
            ways.append((path, os.path.realpath(mapped), KOLLA_CONF))
        elif not ways:
            raise Unread(
                "instances_path is unknown: {} says {} in the container, and none of {} is there".format(
                    KOLLA_CONF, path, ", ".join(KOLLA_VOLUMES)
                )
            )
    if not ways:
        looked = names + [KOLLA_CONF] * (asked is None)
        raise Unread("instances_path is unknown: there is none of {}".format(", ".join(looked)))
    if len({real for _, real, _ in ways}) > 1:
        raise Unread("instances_path is unknown: {}".format(", ".join(f"{way[2]} says {way[1]}" for way in ways)))
    return ways[0]


def unescaped(raw: bytes) -> str:
    """A path as the kernel writes it in its tables, blanks and the like as octal numbers."""
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match.group(1), 8) & 0xFF]), raw))


def mount_table(text: bytes) -> List[Dict[str, str]]:
    """The mounts of a mountinfo file, in the order they were made."""
    answer = []
    for line in text.splitlines():
        words, _, rest = line.partition(b" - ")
        fields = words.split()
        if len(fields) < 5:
            continue
        kind, source = (rest.split() + [b"", b""])[:2]
        texts = [unescaped(part) for part in (fields[2], fields[4], kind, source)]
        answer.append(dict(zip(("device", "point", "fstype", "source"), texts)))
    return answer


def mounts() -> List[Dict[str, str]]:
    """The mounts that this program sees, in the order they were made."""
    with open("/proc/self/mountinfo", "rb") as file:
        return mount_table(file.read())


def mount_of(real: str, device: int) -> Dict[str, str]:
    """The mount that a path lies on."""
    over = [m for m in mounts() if m["point"] == "/" or real == m["point"] or real.startswith(m["point"] + "/")]
    number = f"{os.major(device)}:{os.minor(device)}"
    # Of two mounts at the same point the later covers the other; btrfs shows other numbers than stat does.
    best = [mount for mount in over if mount["device"] == number] or over
    if not best:
        raise Unread(f"{real} lies on no mount that /proc/self/mountinfo shows")
    return max(enumerate(best), key=lambda pair: (len(pair[1]["point"]), pair[0]))[1]


def filesystem_id(path: str) -> str:
    """The f_fsid of the file system."""
    number = getattr(os.statvfs(path), "f_fsid", None)
    if number is None:
        # Python 3.6 does not show it: struct statfs of 64-bit Linux has it behind seven words.
        buffer = ctypes.create_string_buffer(256)
        if ctypes.CDLL(None, use_errno=True).statfs(os.fsencode(path), buffer) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
        number = struct.unpack("Q", buffer.raw[56:64])[0]
    return f"{number:x}"


def server_of(name: str) -> Tuple[str, Optional[str]]:
    """The kind of an entry and the server its name bears."""
    for suffix, kind in KINDS.items():
        if len(name) == 36 + len(suffix) and name.endswith(suffix) and UUID.match(name):
            return kind, name[:36]
    return {BASE: "base", QUARANTINE: "quarantine"}.get(name, "other"), None


def is_time(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e12


def read_json(path: str) -> Any:
    """A JSON file, or None if there is none; a file that is being written is read once more."""
    for last in (False, True):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        with open(descriptor, "rb") as file:
            text = file.read()
        try:
            return json.loads(text.decode("utf-8"))
        except ValueError as error:
            if last:
                raise Unread(f"{path} is no JSON: {error}") from None
        time.sleep(0.1)
    return None


def read_sharing(real: str) -> List[Dict[str, Any]]:
    """The hosts that nova has noted to use this directory."""
    path = os.path.join(real, "compute_nodes")
    found = read_json(path)
    if found is None:
        return []
    if not isinstance(found, dict) or not all(is_time(seen) for seen in found.values()):
        raise Unread(f"{path} does not hold hosts and times")
    return [{"host": host, "seen": found[host]} for host in sorted(found)]


def files_in(path: str) -> Iterator[Tuple[str, os.stat_result]]:
    """The regular files of a tree; symlinks are not followed, other file systems not entered."""
    top = os.lstat(path)
    todo = [path]
    while todo:
        folder = todo.pop()
        if folder == path and not stat.S_ISDIR(top.st_mode):
            names = [""]
        else:
            try:
                names = os.listdir(folder)
            except (FileNotFoundError, NotADirectoryError):
                continue
        for name in names:
            here = os.path.join(folder, name) if name else folder
            try:
                found = os.lstat(here)
            except FileNotFoundError:
                continue
            if found.st_dev != top.st_dev:
                continue
            if stat.S_ISDIR(found.st_mode):
                todo.append(here)
            elif stat.S_ISREG(found.st_mode):
                yield here, found


def read_images(path: str, server: Optional[str]) -> Iterator[Dict[str, Any]]:
    """The images of a tree: whatever has a qcow2 header, and the raw disks that nova makes."""
    try:
        for here, found in files_in(path):
            name = os.path.basename(here)
            disk = name == "disk" or (name.startswith("disk.") and name != "disk.info")
            if not found.st_size and not disk:
                continue
            try:
                image = qcow2_backing(here)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise OSError(error.errno, error.strerror, here) from error
            if image is None or (image[0] == "raw" and not disk):
                continue
            yield {
                "path": here,
                "server": server,
                "format": image[0],
                "bytes": found.st_blocks * 512,
                "inode": found.st_ino,
                "backing": image[1],
            }
    except FileNotFoundError:
        return


def read_quarantine(folder: str) -> Iterator[Dict[str, Any]]:
    """What lies in quarantine; an entry without a right manifest is shown as such."""
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return
    for entry in names:
        here = os.path.join(folder, entry)
        try:
            if not stat.S_ISDIR(os.lstat(here).st_mode):
                continue
            trees = sorted(os.listdir(os.path.join(here, "tree")))
        except FileNotFoundError:
            # An entry that is gone, or one that was begun and holds nothing yet.
            if not os.path.lexists(here):
                continue
            trees = []
        try:
            manifest = read_json(os.path.join(here, "manifest.json"))
        except Unread:
            manifest = None
        manifest = manifest if isinstance(manifest, dict) else {}
        server = entry[-36:] if UUID.match(entry[-36:]) else None
        tree = os.path.join(here, "tree", trees[0]) if trees else os.path.join(here, "tree", server or "")
        try:
            size = measure(tree) if trees else {}
        except FileNotFoundError:
            size = {}
        yield {
            "entry": entry,
            "server": server,
            "path": tree,
            "inode": size.get("inode", 0),
            "bytes": size.get("bytes", 0),
            "files": size.get("files", 0),
            "newest": size.get("newest", 0),
            "was_path": manifest["was_path"] if isinstance(manifest.get("was_path"), str) else None,
            "at": manifest["at"] if is_time(manifest.get("at")) else None,
            "manifest_ok": len(trees) == 1
            and server is not None
            and manifest.get("server") == server
            and manifest.get("inode") == size.get("inode")
            and isinstance(manifest.get("was_path"), str)
            and is_time(manifest.get("at")),
        }


def read_bases(real: str, images: List[Dict[str, Any]], opened: Dict[str, Set[int]]) -> Iterator[Dict[str, Any]]:
    """Nova's cache of images: each file, and what stands on it; `images` are all of this host, whatever the scope."""
    folder = os.path.join(real, BASE)
    try:
        if not stat.S_ISDIR(os.lstat(folder).st_mode):
            return
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return
    users = {}  # type: Dict[str, Set[str]]
    for image in images:
        if image["backing"] is not None and image["backing"].startswith("/"):
            users.setdefault(os.path.realpath(image["backing"]), set()).add(image["path"])
    for name in names:
        path = os.path.join(folder, name)
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(found.st_mode):
            continue
        yield {
            "name": name,
            "path": path,
            "inode": found.st_ino,
            "bytes": found.st_blocks * 512,
            # Nova's own clock for them: it touches what is in use (nova/virt/libvirt/imagecache.py: _mark_in_use).
            "changed": max(found.st_mtime, found.st_ctime),
            "users": sorted(users.get(path, ())),
            "open_by": sorted(opened.get(name, ())),
        }


class Holders:
    """Which processes hold something inside which entry, or a file of Nova's cache of images."""

    def __init__(self, path: str, real: str, device: int, names: Iterable[str]) -> None:
        self.prefixes = (real.rstrip("/") + "/", path.rstrip("/") + "/")
        self.device = device
        self.names = {name for name in names if server_of(name)[1]}
        self.pids = {}  # type: Dict[str, Set[int]]
        self.bases = {}  # type: Dict[str, Set[int]]

    def see(self, pid: int, link: str, path: str) -> None:
        plain = path[: -len(GONE)] if path.endswith(GONE) else path
        name = self.entry(link, plain)
        if name:
            self.pids.setdefault(name, set()).add(pid)
        # Whatever another mount namespace calls the folder above: a file too many is held, never one too few.
        steps = plain.split("/")
        if BASE in steps[:-1]:
            self.bases.setdefault(steps[-1], set()).add(pid)

    def entry(self, link: str, path: str) -> Optional[str]:
        for prefix in self.prefixes:
            if path.startswith(prefix):
                return path[len(prefix) :].partition("/")[0]
        # Another mount namespace may show the directory under another path: the file system then tells.
        for name in self.names.intersection(path.split("/")):
            try:
                if not link or os.stat(link).st_dev == self.device:
                    return name
            except FileNotFoundError:
                continue
            except OSError:
                return name
        return None


def read_instances(request: Dict[str, Any], held: Dict[int, List[Tuple[str, str]]]) -> Dict[str, Any]:
    """The instances directory: its file system, its entries, the images in it, the quarantine."""
    path, real, path_from = find_instances(request)
    scope = request.get("servers")
    top = os.stat(real)
    if not stat.S_ISDIR(top.st_mode):
        raise Unread(f"{real} is not a directory")
    mount = mount_of(real, top.st_dev)
    names = sorted(os.listdir(real))
    entries = []
    images = []  # type: List[Dict[str, Any]]
    holders = Holders(path, real, top.st_dev, names)
    for pid, pairs in held.items():
        for link, text in pairs:
            holders.see(pid, link, text)
    for name in names:
        here = os.path.join(real, name)
        kind, server = server_of(name)
        try:
            found = os.lstat(here)
            symlink = stat.S_ISLNK(found.st_mode)
            if not symlink and not stat.S_ISDIR(found.st_mode):
                kind, server = "other", None
            if scope is None or server in scope:
                size = measure(here)
                entries.append(
                    {
                        "name": name,
                        "kind": kind,
                        "server": server,
                        "inode": size["inode"],
                        "device": size["device"],
                        "bytes": size["bytes"],
                        "files": size["files"],
                        "newest": size["newest"],
                        "uid": found.st_uid,
                        "gid": found.st_gid,
                        "mode": stat.S_IMODE(found.st_mode),
                        "symlink": symlink,
                        "open_by": sorted(holders.pids.get(name, ())),
                    }
                )
        except FileNotFoundError:
            continue
        if kind != "quarantine":
            images.extend(read_images(here, server))
    quarantine = list(read_quarantine(os.path.join(real, QUARANTINE)))
    for row in quarantine:
        images.extend(read_images(row["path"], row["server"]))
    for image in images:
        image["backing"], image["backing_server"] = place(image["backing"], path, real)
    bases = list(read_bases(real, images, holders.bases))
    if scope is not None:
        images = [image for image in images if image["server"] in scope or image["backing_server"] in scope]
        quarantine = [row for row in quarantine if row["server"] in scope]
    return {
        "path": path,
        "real": real,
        "path_from": path_from,
        "inode": top.st_ino,
        "device": top.st_dev,
        "fsid": filesystem_id(real),
        "fstype": mount["fstype"],
        "mount": mount["source"],
        "local": mount["fstype"] in LOCAL,
        "sharing": read_sharing(real),
        "entries": entries,
        "images": images,
        "bases": bases,
        "quarantine": quarantine,
    }


def place(backing: Optional[str], path: str, real: str) -> Tuple[Optional[str], Optional[str]]:
    """A backing file as this host sees it, and the server in whose directory it lies."""
    if backing is None or not backing.startswith("/"):
        return backing, None
    if backing.startswith(path.rstrip("/") + "/"):
        backing = real + backing[len(path.rstrip("/")) :]
    inside = backing
    if not inside.startswith(real + "/"):
        inside = os.path.realpath(inside)
    if not inside.startswith(real + "/"):
        return backing, None
    steps = inside[len(real) + 1 :].split("/")
    if steps[0] == QUARANTINE:
        return backing, steps[3][:36] if len(steps) > 3 and server_of(steps[3])[1] else None
    return backing, server_of(steps[0])[1]


# ---------------------------------------------------------------------------------------------------------------------
# Firmware: what libvirt keeps of a guest outside of its definition and its disks.

LIBVIRT = (
    "/var/lib/libvirt",
    # Kolla's volume for its libvirt container.
    "/var/lib/docker/volumes/libvirtd/_data",
    "/var/lib/containers/storage/volumes/libvirtd/_data",
)


def libvirt_folders(proc: str, inside: str) -> Iterator[Tuple[str, str]]:
    """The entries of a folder below libvirt's own, wherever it is here: (path as this host has it, path to open).

    Where /proc is another host's, so is the root: what its first process sees.
    """
    root = "" if os.path.normpath(proc) == "/proc" else os.path.join(proc, "1", "root")
    for folder in LIBVIRT:
        here = os.path.join(folder, inside)
        try:
            names = sorted(os.listdir(root + here))
        except (FileNotFoundError, NotADirectoryError):
            continue
        for name in names:
            yield os.path.join(here, name), os.path.join(root + here, name)


def read_swtpm(request: Dict[str, Any], proc: str) -> List[Dict[str, Any]]:
    """The states of emulated TPMs, or those of the scope."""
    scope = request.get("servers")
    answer = []
    for path, here in libvirt_folders(proc, "swtpm"):
        server = os.path.basename(path)
        if len(server) != 36 or not UUID.match(server) or (scope is not None and server not in scope):
            continue
        try:
            size = measure(here)
        except FileNotFoundError:
            continue
        answer.append({"server": server, "path": path, "bytes": size["bytes"], "changed": size["newest"] / 1e9})
    return answer


def read_nvram(request: Dict[str, Any], proc: str, domains: Callable[[], List[Dict[str, Any]]]) -> List[Dict[str, Any]]:
    """The NVRAM files of guests, and the domains that have them: of all domains, whatever the scope."""
    answer = []
    for path, here in libvirt_folders(proc, "qemu/nvram"):
        try:
            found = os.lstat(here)
        except FileNotFoundError:
            continue
        if stat.S_ISREG(found.st_mode):
            changed = max(found.st_mtime, found.st_ctime)
            size = found.st_blocks * 512
            answer.append({"path": path, "name": os.path.basename(path), "bytes": size, "changed": changed})
    if not answer:
        return []
    # libvirt names the file after the domain; one that was moved is named by the definition.
    owners = {}  # type: Dict[str, Set[str]]
    for domain in domains():
        if domain["nvram"]:
            owners.setdefault(os.path.basename(domain["nvram"]), set()).add(domain["name"])
    for name in find_virsh(request, Virsh.names)[1]:
        for ending in (".fd", ".qcow2"):
            owners.setdefault(name + "_VARS" + ending, set()).add(name)
    return [dict(row, used_by=sorted(owners.get(str(row["name"]), set()))) for row in answer]


# ---------------------------------------------------------------------------------------------------------------------
# Storage: the connections over which volumes come, and the block devices that stand on them.

#: How the kernel says that a thing is not there (any more), or that this one has no such value.
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
#: What in a name of /dev is a WWID or an identity of NVMe's.
WORD = re.compile(UUID.pattern + r"|[0-9a-f]{16,}")
FABRICS = ("tcp", "rdma", "fc", "loop")
CONTROLLER = re.compile(r"nvme([0-9]+)\Z")
NAMESPACE = re.compile(r"nvme[0-9]+n[0-9]+\Z")
#: With NVMe's own multipath a controller has hidden nodes, each a path to the namespace without the middle part.
NODE = re.compile(r"(nvme[0-9]+)(?:c[0-9]+)?(n[0-9]+)\Z")
#: Where sysfs keeps a SCSI device that comes through an iSCSI session or from a remote port of Fibre Channel.
REMOTE = re.compile(r"/(?:(session[0-9]+)|(rport-[^/]+))/target[^/]+/[0-9]+:[0-9]+:[0-9]+:([0-9]+)/block/[^/]+\Z")
#: What makes a device-mapper device, by the prefix of its UUID.
MAPPED = (
    ("multipath", re.compile(r"mpath-")),
    ("partition", re.compile(r"part[0-9]+-")),
    ("crypt", re.compile(r"CRYPT-")),
    ("lvm", re.compile(r"LVM-")),
)
#: File systems on which a look at a file may wait for another machine without end; they hold no devices.
FAR = re.compile(r"nfs|ceph|cifs|smb|fuse|gluster|lustre|gpfs|beegfs|9p|afs")
#: What of the kernel holds devices beside file systems and holders, and where it names them: a step * is any name.
KERNEL = (
    ("lio", "kernel/config/target/core/*/*/udev_path"),
    ("nvmet", "kernel/config/nvmet/subsystems/*/namespaces/*/device_path"),
)


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


def number_of(text: Optional[str]) -> Optional[int]:
    return int(text) if text is not None and re.match(r"[0-9]{1,15}\Z", text) else None


def names_in(*steps: str) -> List[str]:
    """The names in a directory of sysfs, sorted; none where it is not there."""
    try:
        return sorted(os.listdir(os.path.join(*steps)))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENODEV):
            return []
        raise


def identity(path: str) -> Optional[Tuple[int, int]]:
    """What tells a directory of sysfs from a later one of the same name; None: it is not there."""
    try:
        found = os.stat(path)
    except OSError as error:
        if error.errno in ABSENT:
            return None
        raise
    return found.st_dev, found.st_ino


def address_of(host: str, port: Optional[str]) -> str:
    host = host.strip("[]")
    host = f"[{host}]" if ":" in host else host
    return host if port is None else f"{host}:{port}"


def read_sessions(top: str) -> List[Dict[str, Any]]:
    """The iSCSI sessions; who logs in and how is not looked at: user names and passwords stay where they are."""
    lines = {}  # type: Dict[str, str]
    for name in names_in(top, "class", "iscsi_connection"):
        # connection3:0; a session could have several, open-iscsi makes one.
        lines.setdefault("session" + name[len("connection") :].partition(":")[0], name)
    answer = []
    for name in names_in(top, "class", "iscsi_session"):
        here = os.path.join(top, "class", "iscsi_session", name)
        line = os.path.join(top, "class", "iscsi_connection", lines.get(name, "none"))
        # What it was told to log in to; where that sent it on is the plain address, which a dead connection lacks.
        host, port = told(line, "persistent_address"), told(line, "persistent_port")
        if host is None:
            host, port = told(line, "address"), told(line, "port")
        target = told(here, "targetname")
        row = {
            "session": name,
            "target": target,
            "portal": None if host is None else address_of(host, port),
            "state": told(here, "state"),
            "connection": told(line, "state"),
            "devices": [],
            "volume": volume_in(STORED, target),
        }  # type: Dict[str, Any]
        if identity(here) is not None:
            answer.append(row)
    return answer


def read_controllers(top: str) -> List[Dict[str, Any]]:
    """The NVMe controllers that are reached over a network."""
    answer = []
    for name in names_in(top, "class", "nvme"):
        here = os.path.realpath(os.path.join(top, "class", "nvme", name))
        transport = told(here, "transport")
        if not CONTROLLER.match(name) or not (transport in FABRICS or "/nvme-fabrics/" in here):
            continue
        nodes = [match for match in map(NODE.match, names_in(here)) if match]
        row = {
            "name": name,
            "target": told(here, "subsysnqn"),
            "transport": transport,
            "address": told(here, "address"),
            "state": told(here, "state"),
            "namespaces": sorted({match.group(1) + match.group(2) for match in nodes}),
        }
        if identity(here) is not None:
            answer.append(row)
    return answer


def read_blocks(top: str) -> Dict[str, Dict[str, Any]]:
    """Every block device by its name: its directory, number, disk (of a partition), and what it stands on."""
    folder = os.path.join(top, "class", "block")
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        raise Unread(f"{folder} is not there: is sysfs mounted at {top}?") from None
    found = {}  # type: Dict[str, Dict[str, Any]]
    for name in names:
        here = os.path.realpath(os.path.join(folder, name))
        known = identity(here)
        number = told(here, "dev")
        # A hidden node of NVMe's multipath has no number, and cannot be opened.
        if known is None or number is None:
            continue
        disk = os.path.basename(os.path.dirname(here)) if told(here, "partition") is not None else None
        found[name] = {"path": here, "identity": known, "number": number, "disk": disk, "slaves": []}
    for one in found.values():
        # The link to a device that was removed below a map leads nowhere, or by its old name to another.
        below = [
            name
            for name in names_in(one["path"], "slaves")
            if name in found and os.path.realpath(os.path.join(one["path"], "slaves", name)) == found[name]["path"]
        ]
        one["slaves"] = sorted({*below, *([one["disk"]] if one["disk"] in found else [])})
    return found


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


def connected(
    top: str, blocks: Dict[str, Dict[str, Any]], targets: Dict[str, Optional[str]], fabrics: Set[str]
) -> Dict[str, Dict[str, Any]]:
    """The devices that themselves come over the network: kind, session, places, volume, wwid and state of each."""
    answer = {}  # type: Dict[str, Dict[str, Any]]
    for name, one in blocks.items():
        here = one["path"]
        remote = REMOTE.search(here)
        image = re.match(r"rbd([0-9]+)\Z", name)
        row = None  # type: Optional[Dict[str, Any]]
        if remote:
            session, port, lun = remote.groups()
            if session:
                target = targets.get(session)
            else:
                target = told(top, "class", "fc_remote_ports", port, "port_name")
                # As Cinder and os-brick have it, without 0x (os_brick/initiator/connectors/fibre_channel.py).
                target = None if target is None else re.sub(r"\A0x", "", target.lower())
            device = os.path.dirname(os.path.dirname(here))
            row = {"kind": "scsi", "session": session or port, "places": lun_places(target, lun), "volume": target}
            row.update({"wwid": scsi_wwid(device), "state": told(device, "state")})
        elif NAMESPACE.match(name):
            row = connected_namespace(here, fabrics)
        elif image and one["disk"] is None:
            row = connected_image(os.path.join(top, "bus", "rbd", "devices", image.group(1)))
        if row is not None:
            row["volume"] = volume_in(STORED, row["volume"])
            answer[name] = row
    return answer


def connected_namespace(here: str, fabrics: Set[str]) -> Optional[Dict[str, Any]]:
    """A namespace of NVMe, unless its controllers are of this machine.  With NVMe's own multipath it hangs on the
    subsystem, else on its one controller (os_brick/initiator/connectors/nvmeof.py)."""
    above = os.path.dirname(here)
    owners = [os.path.basename(above)]
    if owners[0].startswith("nvme-subsys"):
        owners = sorted((name for name in names_in(above) if CONTROLLER.match(name)), key=lambda name: int(name[4:]))
    mine = [name for name in owners if name in fabrics]
    if owners and not mine:
        return None
    target = told(above, "subsysnqn")
    ids = []
    for key in ("uuid", "nguid"):
        said = told(here, key)
        if said is not None and said.strip("0-"):
            ids.append(said)
    number = told(here, "nsid")
    # An NGUID is written with dashes by the kernel, and by some drivers of Cinder's without.
    words = {*ids, *(one.replace("-", "") for one in ids[-1:]), *([] if number is None else [number])}
    places = [] if target is None else sorted(f"{target}/{word}" for word in words)
    row = {"kind": "nvme", "session": mine[0] if mine else None, "places": places, "volume": target}
    return dict(row, wwid=ids[0] if ids else None, state=None)


def connected_image(folder: str) -> Dict[str, Any]:
    """An image that the kernel has mapped itself (drivers/block/rbd.c); one of a snapshot is at another place."""
    pool, space, name = told(folder, "pool"), told(folder, "pool_ns"), told(folder, "name")
    snapshot = told(folder, "current_snap")
    places = []
    if pool is not None and name is not None:
        place = "/".join(step for step in (pool, space, name) if step)
        places.append(place if snapshot in (None, "-") else f"{place}@{snapshot}")
    return {"kind": "rbd", "session": None, "places": places, "volume": name, "wwid": None, "state": None}


def mapped(here: str, name: str, disk: Optional[str]) -> Dict[str, Any]:
    """What stands on other devices: kind, dm_name, wwid and state."""
    row = {"kind": "other", "dm_name": told(here, "dm", "name"), "wwid": told(here, "dm", "uuid"), "state": None}
    if disk is not None:
        row["kind"] = "partition"
    elif os.path.basename(here).startswith("dm-"):
        kinds = [kind for kind, prefix in MAPPED if row["wwid"] is not None and prefix.match(row["wwid"])]
        row["kind"] = kinds[0] if kinds else "dm"
        row["state"] = {"0": "active", "1": "suspended"}.get(told(here, "dm", "suspended") or "")
    elif re.match(r"md[0-9]", name) or re.match(r"md_", name):
        row["kind"] = "md"
    return row


def read_storage(request: Dict[str, Any]) -> Dict[str, Any]:
    """The sessions, controllers and devices, without who uses them (see `used`); `identities` and `loops` are for that.

    A device that stands on none and would need one is kept too: what was below it is gone.
    """
    top = request.get("sys") or "/sys"
    sessions = read_sessions(top)
    controllers = read_controllers(top)
    blocks = read_blocks(top)
    targets = {row["session"]: row["target"] for row in sessions}
    roots = connected(top, blocks, targets, {row["name"] for row in controllers})
    for session in sessions:
        session["devices"] = sorted(name for name, row in roots.items() if row["session"] == session["session"])
    above = {}  # type: Dict[str, Set[str]]
    for name, one in blocks.items():
        for below in one["slaves"]:
            above.setdefault(below, set()).add(name)
    rows = {}  # type: Dict[str, Dict[str, Any]]
    orphans = [name for name, one in blocks.items() if name not in roots and name[:3] == "dm-" and not one["slaves"]]
    lost = [name for name in orphans if mapped(blocks[name]["path"], name, None)["kind"] not in ("dm", "other")]
    todo = sorted(roots) + lost
    while todo:
        name = todo.pop()
        if name in rows:
            continue
        one = blocks[name]
        here = one["path"]
        sectors = number_of(told(here, "size"))
        size = None if sectors is None else sectors * 512
        row = {"name": name, "bytes": size, "dm_name": None, "session": None}  # type: Dict[str, Any]
        row.update({"number": one["number"], "places": [], "volume": None, "slaves": one["slaves"]})
        row.update(roots[name] if name in roots else mapped(here, name, one["disk"]))
        # What uses a partition uses its disk; the partition alone is no use of it (see `used`).
        stands = {other for other in above.get(name, ()) if blocks[other]["disk"] != name}
        row["holders"] = sorted(stands.union(names_in(here, "holders")))
        row.update({"links": [], "mounts": [], "held_by": []})
        rows[name] = row
        todo.extend(above.get(name, ()))
    for row in rows.values():
        if row["kind"] == "multipath":
            paths = [rows[below] for below in row["slaves"] if below in rows]
            row["places"] = sorted({place for path in paths for place in path["places"]})
            volumes = {path["volume"] for path in paths}
            row["volume"] = volumes.pop() if len(volumes) == 1 else None
    loops = {}  # type: Dict[str, str]
    for name in blocks:
        backing = told(blocks[name]["path"], "loop", "backing_file") if name.startswith("loop") else None
        if backing is not None:
            loops[name] = backing
    return {
        "sessions": sessions,
        "controllers": controllers,
        "devices": [rows[name] for name in sorted(rows)],
        "identities": {name: (blocks[name]["path"], blocks[name]["identity"]) for name in rows},
        "loops": loops,
    }


def device_names(dev: str, numbers: Dict[str, str]) -> Dict[str, str]:
    """The device behind each name in /dev that leads to one of these; `numbers` are their names by number.

    A special file tells by its number; where the node is a plain file (another root than this machine's), the kernel's
    own name of the device does, which has ! for /.
    """
    real = os.path.realpath(dev)
    top = os.stat(real)
    plain = {os.path.join(real, name.replace("!", "/")): name for name in numbers.values()}
    answer = {}  # type: Dict[str, str]
    todo = [real]
    while todo:
        folder = todo.pop()
        try:
            names = os.listdir(folder)
        except (FileNotFoundError, NotADirectoryError):
            continue
        for name in names:
            path = os.path.join(folder, name)
            try:
                found = os.lstat(path)
                if stat.S_ISDIR(found.st_mode):
                    # Shared memory and terminals are file systems of their own.
                    if found.st_dev == top.st_dev:
                        todo.append(path)
                    continue
                symlink = stat.S_ISLNK(found.st_mode)
                found = os.stat(path) if symlink else found
            except OSError as error:
                if error.errno in ABSENT + (errno.ELOOP,):
                    continue
                raise
            device = None
            if stat.S_ISBLK(found.st_mode):
                device = numbers.get(f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}")
            elif stat.S_ISREG(found.st_mode):
                device = plain.get(os.path.realpath(path) if symlink else path)
            if device is not None:
                answer["/dev" + path[len(real) :]] = device
    return answer


def spaces_of(proc: str) -> Tuple[Dict[int, str], Dict[str, List[Dict[str, str]]]]:
    """The mount namespace of each process, and the mounts of each."""
    inside = {}  # type: Dict[int, str]
    answer = {}  # type: Dict[str, List[Dict[str, str]]]
    for pid in sorted(int(name) for name in os.listdir(proc) if name.isdigit()):
        folder = os.path.join(proc, str(pid))
        try:
            space = os.readlink(os.path.join(folder, "ns", "mnt"))
        except (FileNotFoundError, ProcessLookupError):
            # A process tree without namespaces has the mounts of each process.
            space = str(pid)
        inside[pid] = space
        if space not in answer:
            # A process that has ended and is not buried yet has none; another of its namespace tells.
            text = content(os.path.join(folder, "mountinfo"))
            if text is not None:
                answer[space] = mount_table(text)
    return inside, answer


def command_of(proc: str, pid: int) -> str:
    """What a process calls itself: the file name of its program, never an argument."""
    name = told(proc, str(pid), "comm") or ""
    raw = content(os.path.join(proc, str(pid), "cmdline")) or b""
    word = os.path.basename(raw.partition(b"\0")[0].decode("utf-8", "surrogateescape").strip())
    # The kernel cuts the name off at 15 bytes; a title that the program made up is no file name.
    return word if word and word.startswith(name) else name


def marks_of(row: Dict[str, Any]) -> Set[str]:
    """The words by which the source of a guest's disk may mean the device: its names in /dev, and what is in those that
    udev would give it (60-persistent-storage.rules: by-path has the target and the LUN, by-id the WWID)."""
    marks = set(row["links"])
    for place in row["places"] if row["kind"] in ("scsi", "multipath") else ():
        target, _, lun = place.rpartition("/")
        marks.update((f"iscsi-{target}-lun-{lun}", f"fc-0x{target}-lun-{lun}"))
    for word in WORD.findall(row["wwid"] or ""):
        marks.update((word, word[1:] if row["kind"] == "multipath" else word))
    return marks


def marks_in(source: str) -> Set[str]:
    """The words in the source of a disk that can mean a device; who has a partition of it has it."""
    if not source.startswith("/dev/"):
        return set()
    name = re.sub(r"-part[0-9]+\Z", "", os.path.basename(source))
    path = re.search(r"(?:\A|-)((?:iscsi-|fc-0x).+-lun-[^-]+)\Z", name)
    words = WORD.findall(name)
    # In front of the WWID by-id has the kind of it, a digit (systemd's scsi_id).
    return {source, *words, *(word[1:] for word in words), *([path.group(1)] if path else [])}


def guests_on(rows: Iterable[Dict[str, Any]], domains: List[Dict[str, Any]]) -> Dict[str, List[str]]:
    """By device, the domains, running or only defined, that have a disk on it, or one that stands on such a disk."""
    means = {}  # type: Dict[str, Set[str]]
    for row in rows:
        for mark in marks_of(row):
            means.setdefault(mark, set()).add(row["name"])
    found = {}  # type: Dict[str, Set[str]]
    for domain in domains:
        for disk in domain["disks"]:
            for source in [disk["source"] or ""] + disk["backing"]:
                for mark in marks_in(source):
                    for name in means.get(mark, ()):
                        found.setdefault(name, set()).add(domain["uuid"])
    return {name: sorted(uuids) for name, uuids in found.items()}


def used(
    seen: Dict[str, Any],
    request: Dict[str, Any],
    proc: str,
    held: Dict[int, List[Tuple[str, str]]],
    guests: Callable[[], Optional[List[Dict[str, Any]]]],
) -> Dict[str, Any]:
    """The storage that was seen, with the names, mounts, processes and guests of each device; what is gone is left out.

    `guests` gives all domains of this host, whatever the scope, or None where they are not known.
    """
    answer = {key: seen[key] for key in ("sessions", "controllers", "devices")}
    if not seen["devices"]:
        return answer
    top, dev = request.get("sys") or "/sys", request.get("dev") or "/dev"
    rows = {row["name"]: row for row in seen["devices"]}  # type: Dict[str, Dict[str, Any]]
    numbers = {row["number"]: row["name"] for row in seen["devices"]}
    named = device_names(dev, numbers)
    users = {name: set() for name in rows}  # type: Dict[str, Set[Tuple[int, str]]]
    points = {name: set() for name in rows}  # type: Dict[str, Set[str]]
    for path, name in named.items():
        rows[name]["links"].append(path)

    def device_at(path: str) -> Optional[str]:
        """The device that a path names, whichever root /dev is below."""
        inside = path[len(dev) :] if path.startswith(dev.rstrip("/") + "/") else path[len("/dev") :]
        return named.get("/dev" + inside) if path.startswith(("/dev/", dev)) else None

    inside, spaces = spaces_of(proc)
    for mounted in spaces.values():
        for mount in mounted:
            # btrfs shows a number of its own.
            device = numbers.get(mount["device"]) or device_at(mount["source"])
            if device is not None:
                points[device].add(mount["point"])
    for line in (content(os.path.join(proc, "swaps")) or b"").splitlines()[1:]:
        device = device_at(unescaped(line.partition(b" ")[0].partition(b"\t")[0]))
        if device is not None:
            points[device].add("swap")
    far = {
        space: tuple(mount["point"].rstrip("/") + "/" for mount in mounted if FAR.match(mount["fstype"]))
        for space, mounted in spaces.items()
    }
    for pid, pairs in held.items():
        opened = set()
        for link, path in pairs:
            if os.path.basename(os.path.dirname(link)) != "fd" or path.startswith(far.get(inside.get(pid, ""), ())):
                continue
            opened.add(device_at(path))
            try:
                found = os.stat(link)
            except OSError as error:
                if error.errno in ABSENT + (errno.ELOOP,):
                    continue
                raise
            if stat.S_ISBLK(found.st_mode):
                opened.add(numbers.get(f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"))
        for device in opened:
            if device is not None:
                users[device].add((pid, ""))
    commands = {pid: command_of(proc, pid) for pid in {pid for known in users.values() for pid, _ in known}}
    for name, holding in kernel_holds(top, seen["loops"], device_at):
        users.setdefault(name, set()).add((0, holding))
    for name, row in rows.items():
        # multipathd has every path open; what it has open of a map is another matter.
        skipped = "multipathd" if row["kind"] in ("scsi", "nvme") else None
        known = sorted((pid, holding or commands[pid]) for pid, holding in users[name])
        row["held_by"] = [f"{pid} {word}".strip() for pid, word in known if not (pid and word == skipped)]
        row["mounts"] = sorted(points[name])
        row["links"].sort()
    domains = guests()
    having = guests_on(rows.values(), domains or [])
    for name, row in rows.items():
        row["guests"] = None if domains is None else having.get(name, [])
    for name, row in rows.items():
        # The kernel looks for partitions on whatever it is given: only one that is used says something.
        if row["kind"] == "partition" and not name.startswith("dm-"):
            if row["holders"] or row["mounts"] or row["held_by"] or row["guests"]:
                for disk in row["slaves"]:
                    rows[disk]["holders"] = sorted({*rows[disk]["holders"], name})
    here = [name for name, (path, known) in seen["identities"].items() if identity(path) == known]
    if here and not named:
        raise Unread(f"{dev} has none of the devices that {top} shows, such as {min(here)}")
    answer["devices"] = [row for row in seen["devices"] if row["name"] in here]
    return answer


def read_mounts(
    proc: str,
    held: Dict[int, List[Tuple[str, str]]],
    guests: Callable[[], Optional[List[Dict[str, Any]]]],
) -> List[Dict[str, Any]]:
    """The file systems of other machines that are mounted here, in any mount namespace, with the processes and domains
    that have a file in them.  None of those is looked at: it may not answer.

    `guests` gives all domains of this host, whatever the scope, or None where they are not known.
    """
    inside, spaces = spaces_of(proc)
    users = {}  # type: Dict[Tuple[str, str, str], Set[int]]
    below = {}  # type: Dict[str, List[Tuple[str, Tuple[str, str, str]]]]
    for space, mounted in spaces.items():
        for mount in mounted:
            if FAR.match(mount["fstype"]):
                key = (mount["point"], mount["source"], mount["fstype"])
                users.setdefault(key, set())
                below.setdefault(space, []).append((mount["point"].rstrip("/") + "/", key))
    if not users:
        return []
    for pid, pairs in held.items():
        for point, key in below.get(inside.get(pid, ""), ()):
            if any(path.startswith(point) or path == key[0] for _, path in pairs):
                users[key].add(pid)
    commands = {pid: command_of(proc, pid) for pids in users.values() for pid in pids}
    domains = guests()
    rows = []
    for (point, source, fstype), pids in sorted(users.items()):
        row = {"point": point, "source": source, "fstype": fstype, "guests": None}  # type: Dict[str, Any]
        row["held_by"] = [f"{pid} {commands[pid]}".strip() for pid in sorted(pids)]
        if domains is not None:
            row["guests"] = sorted(
                domain["uuid"]
                for domain in domains
                if any(
                    (path or "").startswith(point.rstrip("/") + "/")
                    for disk in domain["disks"]
                    for path in [disk["source"]] + disk["backing"]
                )
            )
        rows.append(row)
    return rows


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
# The answer.


# ---------------------------------------------------------------------------------------------------------------------
# Open vSwitch: which ports its interfaces bear.

# Without a configured command: the host's own ovs-vsctl, else the one in Kolla's container.
OVS_VSCTL = (
    ("ovs-vsctl",),
    ("docker", "exec", "-e", "LC_ALL=C", "openvswitch_vswitchd", "ovs-vsctl"),
    ("podman", "exec", "-e", "LC_ALL=C", "openvswitch_vswitchd", "ovs-vsctl"),
)
OVS_SECONDS = 10
# What a program has where it was ever started; where none of that is, it is installed as a dependency, and no more.
STARTED = {
    "ovs-vsctl": ("/etc/openvswitch/conf.db", "/var/lib/openvswitch/conf.db"),
    "docker": ("/var/lib/docker",),
}
# Open vSwitch's datapath in the kernel, of a container's too.
OVS_DATAPATH = "module/openvswitch"
# All three in one transaction.  Without --dry-run it would fill a database that is empty.
OVS_QUESTION = (
    "--dry-run --no-wait --timeout=8 --format=json --columns=name,ports list Bridge"
    " -- --columns=_uuid,interfaces list Port -- --columns=_uuid,name,external_ids,ofport,error list Interface"
).split()
# What a container runtime says where there is no such container: then there is no Open vSwitch in one.
NO_CONTAINER = re.compile(r"no such container|no container with name or id", re.IGNORECASE)


def read_ovs(request: Dict[str, Any]) -> List[Dict[str, Any]]:
    """The interfaces of Open vSwitch that bear a port; none where it is not installed.  A request with an empty command
    says that there is none."""
    given = request.get("ovs_vsctl")
    for argv in OVS_VSCTL if given is None else [given] if given else []:
        traces = STARTED.get(argv[0])
        datapath = os.path.join(request.get("sys") or "/sys", OVS_DATAPATH)
        if given is None and traces and not any(map(there, (*traces, datapath))):
            continue  # one that was started and does not answer is no empty one
        answer = ask_ovs(list(argv), given is not None)
        if answer is not None:
            asked = request.get("servers")
            rows = ovs_interfaces(answer)
            return [row for row in rows if asked is None or row["iface_id"] in asked or row["vm"] in asked]
    return []


def there(path: str) -> bool:
    """Whether there is such a file; one that cannot be looked at counts as there."""
    try:
        os.stat(path)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True


def ask_ovs(argv: List[str], named: bool) -> Optional[str]:
    """What ovs-vsctl says of its interfaces; None where there is no such program, unless somebody named it."""
    if options_of("ovs-vsctl", argv):
        raise Unread("ovs-vsctl: no options are taken, not {!r}".format(" ".join(argv)))
    try:
        done = subprocess.run(
            argv + OVS_QUESTION,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=OVS_SECONDS,
            env=dict(os.environ, LC_ALL="C"),
        )
    except FileNotFoundError:
        if named:
            raise Unread(f"{argv[0]} is not installed") from None
        return None
    except OSError as error:
        raise Unread(f"{argv[0]} cannot be run: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise Unread("{}: no answer within {:g} s".format(" ".join(argv), OVS_SECONDS)) from None
    if done.returncode == 0:
        return done.stdout.decode("utf-8", "surrogateescape")
    said = done.stderr.decode("utf-8", "replace").strip()
    if not named and len(argv) > 1 and NO_CONTAINER.search(said):
        return None
    why = said.replace("\n", "; ") or f"it ended with status {done.returncode}"
    raise Unread("{}: {}".format(" ".join(argv), why))


def ovs_interfaces(answer: str) -> List[Dict[str, Any]]:
    """The interfaces with a port that the answer to OVS_QUESTION tells of."""
    lines = [line for line in answer.splitlines() if line.strip()]
    if len(lines) != 3:
        raise Unread(f"ovs-vsctl: {len(lines)} answers to three questions")
    tables = []  # type: List[List[Dict[str, Any]]]
    for line in lines:
        table = json.loads(line)
        tables.append([dict(zip(table["headings"], map(ovs_value, row))) for row in table["data"]])
    bridges, ports, interfaces = tables
    bridge_of = {port: bridge["name"] for bridge in bridges for port in as_list(bridge["ports"])}
    owner = {one: bridge_of.get(port["_uuid"]) for port in ports for one in as_list(port["interfaces"])}
    return [
        {
            "bridge": owner.get(one["_uuid"]),
            "name": one["name"],
            "iface_id": one["external_ids"]["iface-id"],
            "mac": one["external_ids"].get("attached-mac"),
            "vm": one["external_ids"].get("vm-uuid"),
            "ofport": (as_list(one["ofport"]) or [None])[0],
            "error": (as_list(one["error"]) or [None])[0],
        }
        for one in interfaces
        if "iface-id" in one["external_ids"]
    ]


def ovs_value(value: Any) -> Any:
    """A value as OVSDB writes it: a set as a list, a map as a dictionary, a UUID as its text."""
    if not isinstance(value, list):
        return value
    kind, content = value
    if kind == "map":
        return {ovs_value(key): ovs_value(item) for key, item in content}
    return [ovs_value(item) for item in content] if kind == "set" else content


def as_list(value: Any) -> List[Any]:
    """The members of a set; OVSDB writes one of a single member as that."""
    return value if isinstance(value, list) else [value]


def readable(value: Any) -> Any:
    """The value with every text valid Unicode: bytes that are no UTF-8 come as \\xNN."""
    if isinstance(value, str):
        try:
            value.encode("utf-8")
            return value
        except UnicodeEncodeError:
            try:
                return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            except UnicodeEncodeError:
                return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {readable(key): readable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [readable(item) for item in value]
    return value


def reason(error: Exception) -> str:
    """Why a part failed, in the system's own words."""
    if isinstance(error, Unread):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    return f"{type(error).__name__}: {error}"


def canonical(name: str) -> str:
    """The name under which libvirt, and so Nova, knows a machine of this host name (libvirt: virGetHostname)."""
    if "." in name or name.startswith("localhost"):
        return name
    try:
        found = socket.getaddrinfo(name, None, flags=socket.AI_CANONNAME)[0][3]
    except (OSError, UnicodeError):
        return name
    return name if not found or found.startswith("localhost") else found


def probe(request: Dict[str, Any]) -> Dict[str, Any]:
    """The whole answer to a request; never raises for what a part could not read."""
    clock = time.time()
    started = time.monotonic()
    proc = request.get("proc") or "/proc"
    failed = {}  # type: Dict[str, str]
    answer = {"version": 1, "clock": clock, "hostname": socket.gethostname(), "boot_id": ""}  # type: Dict[str, Any]
    for key, path in (("boot_id", "sys/kernel/random/boot_id"), ("hostname", "sys/kernel/hostname")):
        for folder in (proc, "/proc"):
            try:
                with open(os.path.join(folder, path), "rb") as file:
                    answer[key] = file.read().decode("ascii", "replace").strip()
                break
            except OSError:
                continue
    answer["canonical"] = canonical(answer["hostname"])
    held = {}  # type: Dict[int, List[Tuple[str, str]]]

    def attempt(part: str, read: Callable[[], Any]) -> None:
        try:
            answer[part] = read()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is said, and the other parts are read
            failed[part] = reason(error)

    def known_domains() -> List[Dict[str, Any]]:
        if "domains" in failed:
            raise Unread("which domains there are is not known: " + failed["domains"])
        found = answer["domains"]  # type: List[Dict[str, Any]]
        return found

    def every_domain() -> Optional[List[Dict[str, Any]]]:
        try:
            return answer.get("domains") if request.get("servers") is None else domains_among(request, None)
        except Exception:  # noqa: BLE001 - whatever it is, nobody knows then what the guests have
            return None

    if request.get("version") != 1:
        why = "this program speaks version 1, not {!r}".format(request.get("version"))
        parts = ("domains", "processes", "instances", "storage", "mounts", "ovs", "swtpm", "nvram")
        failed = dict.fromkeys(parts, why)
    else:
        # A device is looked at before the guests and processes that may be using it.
        attempt("storage", lambda: read_storage(request))
        attempt("domains", lambda: read_domains(request))
        seen = answer.pop("storage", None)
        unheld = None
        try:
            held.update(held_paths(proc))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is said, and the other parts are read
            failed["processes"] = reason(error)
            unheld = "which files are open is not known: " + reason(error)
            failed["instances"] = failed["mounts"] = unheld
        else:
            attempt("processes", lambda: read_processes(request, proc, held))
            attempt("instances", lambda: read_instances(request, held))
            attempt("mounts", lambda: read_mounts(proc, held, every_domain))
        # Where there are no devices, nobody has one open.
        if unheld is not None and seen is not None and seen["devices"]:
            failed["storage"] = unheld
        elif seen is not None:
            attempt("storage", lambda: used(seen, request, proc, held, every_domain))
        attempt("ovs", lambda: read_ovs(request))
        attempt("swtpm", lambda: read_swtpm(request, proc))
        attempt("nvram", lambda: read_nvram(request, proc, known_domains))
    answer["failed"] = failed
    answer["seconds"] = round(time.monotonic() - started, 3)
    checked = readable(answer)  # type: Dict[str, Any]
    return checked


def main() -> None:
    """Reads the request, prints the answer between its marks."""
    text = globals().get("REQUEST")
    request = json.loads(text if text is not None else sys.stdin.buffer.read().decode("utf-8"))
    nonce = request["nonce"]
    if not isinstance(nonce, str) or not re.match(r"[A-Za-z0-9_-]{1,128}\Z", nonce):
        raise SystemExit("the nonce is not a word")
    line = json.dumps(probe(request), sort_keys=True)
    sys.stdout.write(f"\n@@cloudfsck {nonce} begin@@\n{line}\n@@cloudfsck {nonce} end@@\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
