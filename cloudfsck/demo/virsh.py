"""A stand-in for virsh on a hypervisor that is only a folder: answers as virsh 9.0 does, and keeps its /proc in step.

    python -m cloudfsck.demo.virsh DIR/hosts/compute1 list --all

The folder's `libvirt/` holds a domain as two files, its definition and what libvirt knows of its run.  It stands alone
(standard library, nothing of ours), does without dataclasses, and imports only where it is needed what few calls need:
to import takes longer than all the rest.  So each call is over in an instant; it never touches a real hypervisor.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

TYPE_CHECKING = False  # as typing's, which takes as long to import as pathlib
if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

VERSION = """Compiled against library: libvirt 9.0.0
Using library: libvirt 9.0.0
Using API: QEMU 9.0.0
Running hypervisor: QEMU 7.2.0
"""
NOT_RUNNING = "Requested operation is not valid: domain is not running"


class Wrong(Exception):
    """What virsh says on standard error, a line for each `error:`."""


# ---------------------------------------------------------------------------------------------------------------------
# What libvirt knows.


class Domain:
    """A domain.  `xml` is its definition, secrets and all; `job` the operation of the libvirt job that runs on it."""

    def __init__(
        self,
        name: str,
        uuid: str,
        xml: str,
        id: int | None = None,
        state: str = "shut off",
        reason: str = "unknown",
        persistent: bool = True,
        autostart: bool = False,
        managed_save: bool = False,
        job: str | None = None,
        pid: int | None = None,
    ) -> None:
        self.name = name
        self.uuid = uuid
        self.xml = xml
        self.id = id
        self.state = state
        self.reason = reason
        self.persistent = persistent
        self.autostart = autostart
        self.managed_save = managed_save
        self.job = job
        self.pid = pid

    def element(self) -> Element:
        from xml.etree import ElementTree

        return ElementTree.fromstring(self.xml)

    def disks(self) -> list[tuple[str, str]]:
        """(target, source) of each disk that is a file or a device."""
        return [
            (target.get("dev", ""), path)
            for disk in self.element().findall("devices/disk")
            if (target := disk.find("target")) is not None
            and (source := disk.find("source")) is not None
            and (path := source.get("file") or source.get("dev"))
        ]

    def nvram(self) -> str | None:
        return self.element().findtext("os/nvram")


class Host:
    """A hypervisor that is a folder with `libvirt/` and `proc/`.  Whoever changes it holds its lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "libvirt"
        self.proc = folder / "proc"

    @contextmanager
    def locked(self) -> Iterator[None]:
        with (self.state / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def path(self, source: str) -> str:
        """Where a file or a device of this host lies."""
        return os.path.realpath(str(self.folder) + source) if source.startswith("/dev/") else source

    def domains(self) -> list[Domain]:
        """All domains, in the order in which virsh lists them: by id, then the inactive ones by name."""
        found = [self._load(path) for path in self.state.glob("*.json")]
        return sorted(found, key=lambda domain: (domain.id is None, domain.id or 0, domain.name))

    def find(self, text: str) -> Domain:
        """The domain of that id, UUID or name."""
        if len(text) == 36 and (self.state / f"{text}.json").exists():  # it is asked for by its UUID, and often
            return self._load(self.state / f"{text}.json")
        known = self.domains()
        for key in ("id", "uuid", "name"):
            for domain in known:
                if str(getattr(domain, key)) == text:
                    return domain
        raise Wrong(f"failed to get domain '{text}'")

    @staticmethod
    def _load(path: Path) -> Domain:
        return Domain(xml=path.with_suffix(".xml").read_text(), **json.loads(path.read_text()))

    def save(self, domain: Domain) -> None:
        facts = dict(vars(domain))
        _write(self.state / f"{domain.uuid}.xml", facts.pop("xml"))
        _write(self.state / f"{domain.uuid}.json", json.dumps(facts, indent=1) + "\n")

    def forget(self, domain: Domain) -> None:
        (self.state / f"{domain.uuid}.json").unlink()
        (self.state / f"{domain.uuid}.xml").unlink()

    def begin(self, domain: Domain, state: str, reason: str, started: float | None = None) -> None:
        """A run of the domain begins: it gets the next id, and a QEMU process."""
        domain.id = 1 + self._count("next-id")
        domain.pid = 2000 + 17 * domain.id
        domain.state, domain.reason = state, reason
        folder = self.proc / f".{domain.pid}"
        _rmtree(folder)
        (folder / "fd").mkdir(parents=True)
        name = f"guest={domain.name.replace(',', ',,')},debug-threads=on"
        words = ["/usr/bin/qemu-system-x86_64", "-name", name, "-S", "-machine", "pc-i440fx-7.2,accel=kvm"]
        words += ["-uuid", domain.uuid, "-nodefaults"]
        (folder / "cmdline").write_bytes(b"".join(os.fsencode(word) + b"\0" for word in words))
        (folder / "comm").write_text("qemu-system-x86\n")
        ticks = int(((started or time.time()) - self._boot()) * os.sysconf("SC_CLK_TCK"))
        fields = ["S", "1", *["0"] * 17, str(max(0, ticks)), *["0"] * 30]
        (folder / "stat").write_text(f"{domain.pid} (qemu-system-x86) {' '.join(fields)}\n")
        (folder / "maps").write_text("")
        for link in ("cwd", "root"):
            (folder / link).symlink_to("/")
        tops = [self.path(source) for _, source in domain.disks()]
        files = [path for top in tops for path in (top, *backing_chain(top))]
        for number, path in enumerate(["/dev/null", *files]):
            (folder / "fd" / str(number)).symlink_to(path)
        folder.rename(self.proc / str(domain.pid))

    def end(self, domain: Domain, reason: str) -> None:
        """The run is over: its process is gone, and so is a domain that is not defined."""
        folder = self.proc / str(domain.pid)
        gone = self.proc / f".{domain.pid}-gone"
        if folder.exists():
            folder.rename(gone)
            _rmtree(gone)
        domain.id = domain.pid = domain.job = None
        domain.state, domain.reason = "shut off", reason
        if domain.persistent:
            self.save(domain)
        else:
            self.forget(domain)

    def _count(self, name: str) -> int:
        path = self.state / name
        number = int(path.read_text()) if path.exists() else 0
        _write(path, f"{number + 1}\n")
        return number

    def _boot(self) -> int:
        found = re.search(r"^btime (\d+)", (self.proc / "stat").read_text(), re.MULTILINE)
        assert found is not None
        return int(found[1])


def _rmtree(path: Path) -> None:
    import shutil

    shutil.rmtree(path, ignore_errors=True)


def _write(path: Path, text: str) -> None:
    """A file that is there as a whole or not at all, and only for its owner: it may hold secrets."""
    aside = path.with_name(f".{path.name}.tmp")
    aside.touch(mode=0o600)
    aside.write_text(text)
    aside.rename(path)


# ---------------------------------------------------------------------------------------------------------------------
# XML.


def backing_chain(path: str) -> list[str]:
    """The files on which a qcow2 image stands, from its header."""
    chain: list[str] = []
    while True:
        try:
            with open(path, "rb") as image:
                header = image.read(20)
                if len(header) < 20 or header[:4] != b"QFI\xfb":
                    return chain
                _, offset, length = struct.unpack(">IQI", header[4:])
                if offset == 0:
                    return chain
                image.seek(offset)
                path = os.path.join(os.path.dirname(path), os.fsdecode(image.read(length)))
        except FileNotFoundError:
            return chain
        chain.append(path)


def without_secrets(xml: str) -> str:
    return re.sub(r" passwd='[^']*'", "", xml)


def live(domain: Domain) -> str:
    """The XML of the run: what libvirt adds to the definition when it starts a domain."""
    text = re.sub(r"^<domain type='(\w+)'>", rf"<domain type='\1' id='{domain.id}'>", domain.xml)
    count = {"disk": 0, "interface": 0, "index": 0}

    def number(what: str) -> int:
        count[what] += 1
        return count[what]

    def images(match: re.Match[str]) -> str:
        source = f"{match[1]} index='{number('index')}'/>\n"
        chain = backing_chain(_unescape(match[2]))
        before, after = "", "      <backingStore/>\n"
        for depth, path in enumerate(chain):
            pad = "  " * (depth + 3)
            kind = "qcow2" if depth + 1 < len(chain) else "raw"
            before += (
                f"{pad}<backingStore type='file' index='{number('index')}'>\n{pad}  <format type='{kind}'/>\n"
                f"{pad}  <source file='{escape(path)}'/>\n"
            )
            after = "".join(f"{'  ' * (level + 3)}</backingStore>\n" for level in range(depth, -1, -1))
            after = f"{'  ' * (depth + 4)}<backingStore/>\n{after}"
        return source + before + after

    def device(match: re.Match[str]) -> str:
        kind, block = match[1], match[0]
        alias = f"virtio-disk{number(kind) - 1}" if kind == "disk" else f"net{number(kind) - 1}"
        block = re.sub(r"^(      <source file='([^']*)')/>\n", images, block, flags=re.MULTILINE)
        return re.sub(r"^(?=      <address type='pci'|    </)", f"      <alias name='{alias}'/>\n", block, count=1,
                      flags=re.MULTILINE)  # fmt: skip

    text = re.sub(r"^    <(disk|interface) .*?^    </\1>\n", device, text, flags=re.MULTILINE | re.DOTALL)
    return text.replace(" port='-1'", f" port='{5899 + (domain.id or 1)}'")


def escape(text: str) -> str:
    """Text as libvirt writes it into an attribute."""
    for sign, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("'", "&apos;"), ('"', "&quot;")):
        text = text.replace(sign, entity)
    return text


def _unescape(text: str) -> str:
    for sign, entity in (("<", "&lt;"), (">", "&gt;"), ("'", "&apos;"), ('"', "&quot;"), ("&", "&amp;")):
        text = text.replace(entity, sign)
    return text


# ---------------------------------------------------------------------------------------------------------------------
# Commands.


class Call:
    """One command with its options and its arguments by name."""

    def __init__(self, host: Host, readonly: bool, options: frozenset[str], given: dict[str, str]) -> None:
        self.host = host
        self.readonly = readonly
        self.options = options
        self.given = given

    def domain(self) -> Domain:
        return self.host.find(self.given["domain"])

    def failing(self, verb: str, why: str) -> Wrong:
        return Wrong(f"Failed to {verb} domain '{self.given['domain']}'\n{why}")

    def writing(self, verb: str, function: str) -> Domain:
        """The domain, for a command that changes it."""
        domain = self.domain()
        if self.readonly:
            raise self.failing(verb, f"operation forbidden: read only access prevents {function}")
        return domain


def _list(call: Call) -> str:
    wanted = [domain for domain in call.host.domains() if "all" in call.options or domain.id is not None]
    if "inactive" in call.options:
        wanted = [domain for domain in call.host.domains() if domain.id is None]
    if "persistent" in call.options or "transient" in call.options:
        wanted = [domain for domain in wanted if domain.persistent == ("persistent" in call.options)]
    if "autostart" in call.options:
        wanted = [domain for domain in wanted if domain.autostart]
    if "with-managed-save" in call.options:
        wanted = [domain for domain in wanted if domain.managed_save]
    if "uuid" in call.options:
        return "".join(f"{domain.uuid}\n" for domain in wanted)
    if "name" in call.options:
        return "".join(f"{domain.name}\n" for domain in wanted)
    rows = [(str(domain.id or "-"), domain.name, domain.state) for domain in wanted]
    return _table(rows if "quiet" in call.options else [("Id", "Name", "State"), *rows], "quiet" not in call.options)


def _table(rows: Sequence[tuple[str, ...]], headed: bool) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [" " + "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines = [line[: len(line) - (widths[-1] - len(row[-1]))] for line, row in zip(lines, rows, strict=True)]
    if headed:
        lines.insert(1, "-" * sum(width + 3 for width in widths))
    return "".join(line + "\n" for line in lines)


def _dumpxml(call: Call) -> str:
    domain = call.domain()
    secrets = "security-info" in call.options
    if secrets and call.readonly:
        raise Wrong("operation forbidden: virDomainGetXMLDesc with secure flag")
    text = domain.xml if domain.id is None or "inactive" in call.options else live(domain)
    return text if secrets else without_secrets(text)


def _domstate(call: Call) -> str:
    domain = call.domain()
    return f"{domain.state} ({domain.reason})\n" if "reason" in call.options else f"{domain.state}\n"


def _dominfo(call: Call) -> str:
    domain = call.domain()
    tree = domain.element()
    memory = tree.findtext("memory", "0")
    rows = {
        "Id": str(domain.id or "-"),
        "Name": domain.name,
        "UUID": domain.uuid,
        "OS Type": tree.findtext("os/type", "hvm"),
        "State": domain.state,
        "CPU(s)": tree.findtext("vcpu", "1"),
        "CPU time": None if domain.id is None else "4711.2s",
        "Max memory": f"{memory} KiB",
        "Used memory": f"{memory} KiB",
        "Persistent": "yes" if domain.persistent else "no",
        "Autostart": "enable" if domain.autostart else "disable",
        "Managed save": "yes" if domain.managed_save else "no",
        "Security model": "none",
        "Security DOI": "0",
    }
    return "".join(f"{key + ':':15} {value}\n" for key, value in rows.items() if value is not None)


def _domjobinfo(call: Call) -> str:
    domain = call.domain()
    if domain.id is None:
        raise Wrong(NOT_RUNNING)
    if domain.job == "Incoming migration":
        raise Wrong("Requested operation is not valid: migration statistics are available only on the source host")
    if domain.job is None:
        return f"{'Job type:':17} {'None':12}\n"
    rows = (("Job type", "Unbounded"), ("Operation", domain.job), ("Time elapsed", f"{'61234':12} ms"))
    return "".join(f"{key + ':':17} {value:12}\n" for key, value in rows)


def _blockjob(call: Call) -> str:
    domain = call.domain()
    if domain.id is None:
        raise Wrong(NOT_RUNNING)
    targets = [target.get("dev") for target in domain.element().findall("devices/disk/target")]
    if call.given["path"] not in targets:
        raise Wrong(f"invalid argument: disk '{call.given['path']}' not found in domain")
    return ""


def _domblklist(call: Call) -> str:
    rows = [("Target", "Source"), *call.domain().disks()]
    return _table(rows[1:] if "quiet" in call.options else rows, "quiet" not in call.options) if rows[1:] else ""


def _suspend(call: Call) -> str:
    domain = call.writing("suspend", "virDomainSuspend")
    if domain.id is None:
        raise call.failing("suspend", NOT_RUNNING)
    if domain.state != "paused":
        domain.state, domain.reason = "paused", "user"
        call.host.save(domain)
    return f"Domain '{call.given['domain']}' suspended\n"


def _resume(call: Call) -> str:
    domain = call.writing("resume", "virDomainResume")
    if domain.id is None:
        raise call.failing("resume", NOT_RUNNING)
    if domain.state == "running":
        raise call.failing("resume", "Requested operation is not valid: domain is already running")
    domain.state, domain.reason = "running", "unpaused"
    call.host.save(domain)
    return f"Domain '{call.given['domain']}' resumed\n"


def _destroy(call: Call) -> str:
    domain = call.writing("destroy", "virDomainDestroy")
    if domain.id is None:
        raise call.failing("destroy", NOT_RUNNING)
    call.host.end(domain, "destroyed")
    return f"Domain '{call.given['domain']}' destroyed\n"


def _start(call: Call) -> str:
    domain = call.domain()
    if domain.id is not None:
        raise Wrong("Domain is already active")
    paused = "paused" in call.options
    call.given["domain"] = domain.name
    call.writing("start", "virDomainCreateWithFlags" if paused else "virDomainCreate")
    for _, top in domain.disks():
        for path in (top, *backing_chain(top)):
            if not os.path.exists(call.host.path(path)):
                what = f"storage file '{top}'" if path == top else f"backing file '{path}' of storage file '{top}'"
                raise call.failing("start", f"Cannot access {what} (as uid:0, gid:0): No such file or directory")
    reason = "user" if paused else "restored" if domain.managed_save else "booted"
    domain.managed_save = False
    call.host.begin(domain, "paused" if paused else "running", reason)
    call.host.save(domain)
    return f"Domain '{domain.name}' started\n"


def _undefine(call: Call) -> str:
    domain = call.writing("undefine", "virDomainUndefineFlags")
    refused = "Requested operation is not valid: "
    if not domain.persistent:
        raise call.failing("undefine", refused + "cannot undefine transient domain")
    if domain.managed_save and "managed-save" not in call.options:
        raise Wrong("Refusing to undefine while domain managed save image exists")
    nvram = domain.nvram()
    if nvram and os.path.exists(nvram) and not call.options & {"nvram", "keep-nvram"}:
        raise call.failing("undefine", refused + "cannot undefine domain with nvram")
    if nvram and "nvram" in call.options:
        Path(nvram).unlink(missing_ok=True)
    domain.persistent = domain.managed_save = domain.autostart = False
    if domain.id is None:
        call.host.forget(domain)
    else:
        call.host.save(domain)
    return f"Domain '{call.given['domain']}' has been undefined\n"


def _define(call: Call) -> str:
    from xml.etree import ElementTree

    file = call.given["file"]
    try:
        text = Path(file).read_text()
    except OSError as error:
        raise Wrong(f"Failed to open file '{file}': {error.strerror}") from error
    failed = f"Failed to define domain from {file}\n"
    if call.readonly:
        raise Wrong(failed + "operation forbidden: read only access prevents virDomainDefineXML")
    try:
        tree = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise Wrong(f"{failed}(domain_definition): {error}") from error
    name, uuid = tree.findtext("name", "").strip(), tree.findtext("uuid", "").strip()
    xml = re.sub(r"^<domain type='(\w+)' id='\d+'>", r"<domain type='\1'>", text[text.index("<domain") :])
    domain = Domain(name, uuid, xml)
    for known in call.host.domains():
        if known.name == name and known.uuid != uuid:
            raise Wrong(f"{failed}operation failed: domain '{name}' already exists with uuid {known.uuid}")
        if known.uuid == uuid and known.name != name:
            raise Wrong(f"{failed}operation failed: domain '{known.name}' is already defined with uuid {uuid}")
        if known.uuid == uuid:
            domain = known
            domain.xml, domain.persistent = xml, True
    call.host.save(domain)
    return f"Domain '{name}' defined from {file}\n"


def _autostart(call: Call) -> str:
    domain = call.domain()
    if call.readonly:
        what = f"Failed to mark domain '{call.given['domain']}' as autostarted"
        raise Wrong(f"{what}\noperation forbidden: read only access prevents virDomainSetAutostart")
    domain.autostart = "disable" not in call.options
    call.host.save(domain)
    return f"Domain '{call.given['domain']}' {'' if domain.autostart else 'un'}marked as autostarted\n"


def _help(call: Call) -> str:
    name = call.given.get("command")
    if name is None:
        return "".join(f"    {known}\n" for known in COMMANDS)
    if name not in COMMANDS:
        raise Wrong(f"command or command group '{name}' doesn't exist")
    command = COMMANDS[name]
    words = " ".join([*(f"<{argument}>" for argument in command.arguments), *(f"[--{flag}]" for flag in command.flags)])
    return f"  NAME\n    {name}\n\n  SYNOPSIS\n    {name} {words}\n"


class Command:
    """`arguments` it cannot do without unless their name ends in `?`; `flags` it knows; `acts` has no say in -q."""

    def __init__(
        self,
        run: Callable[[Call], str],
        arguments: tuple[str, ...] = (),
        flags: tuple[str, ...] = (),
        acts: bool = False,
    ) -> None:
        self.run = run
        self.arguments = arguments
        self.flags = flags
        self.acts = acts


_LISTS = ("all", "inactive", "uuid", "name", "persistent", "transient", "autostart", "with-managed-save")
COMMANDS: dict[str, Command] = {
    "list": Command(_list, (), _LISTS),
    "dumpxml": Command(_dumpxml, ("domain",), ("inactive", "security-info")),
    "domstate": Command(_domstate, ("domain",), ("reason",)),
    "dominfo": Command(_dominfo, ("domain",)),
    "domjobinfo": Command(_domjobinfo, ("domain",)),
    "domblklist": Command(_domblklist, ("domain",)),
    "domid": Command(lambda call: f"{call.domain().id or '-'}\n", ("domain",)),
    "domname": Command(lambda call: f"{call.domain().name}\n", ("domain",)),
    "domuuid": Command(lambda call: f"{call.domain().uuid}\n", ("domain",)),
    "blockjob": Command(_blockjob, ("domain", "path"), ("info",)),
    "suspend": Command(_suspend, ("domain",), acts=True),
    "resume": Command(_resume, ("domain",), acts=True),
    "destroy": Command(_destroy, ("domain",), acts=True),
    "start": Command(_start, ("domain",), ("paused",), acts=True),
    "undefine": Command(_undefine, ("domain",), ("managed-save", "nvram", "keep-nvram", "tpm", "keep-tpm"), acts=True),
    "define": Command(_define, ("file",), acts=True),
    "autostart": Command(_autostart, ("domain",), ("disable",), acts=True),
    "echo": Command(lambda call: call.given.get("text", ""), ("text*",)),
    "uri": Command(lambda call: "qemu:///system\n"),
    "hostname": Command(lambda call: f"{call.host.folder.name}\n"),
    "version": Command(lambda call: VERSION),
    "help": Command(_help, ("command?",)),
}


def parse(words: list[str]) -> tuple[Command, frozenset[str], dict[str, str]]:
    """A command with its flags and arguments."""
    name, rest = words[0], words[1:]
    if name not in COMMANDS:
        raise Wrong(f"unknown command: '{name}'")
    command = COMMANDS[name]
    if command.arguments == ("text*",):
        return command, frozenset(), {"text": " ".join(rest)}
    flags, given = set(), {}
    free = [argument.rstrip("?") for argument in command.arguments]
    while rest:
        word = rest.pop(0)
        option, _, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") and free:
            given[free.pop(0)] = word
        elif not word.startswith("--"):
            raise Wrong(f"unexpected data '{word}'")
        elif option in command.flags:
            flags.add(option)
        elif option in free:
            free.remove(option)
            given[option] = value or (rest.pop(0) if rest else "")
        else:
            raise Wrong(f"command '{name}' doesn't support option --{option}")
    missing = [argument for argument in free if argument in command.arguments]
    if missing:
        raise Wrong(f"command '{name}' requires <{missing[0]}> option")
    return command, frozenset(flags), given


def split(line: str) -> list[list[str]]:
    """The commands of a line, which are apart by semicolons."""
    if not set(line) & set("\"';\\#"):
        return [words] if (words := line.split()) else []
    import shlex

    lexer = shlex.shlex(line, posix=True, punctuation_chars=";")
    lexer.whitespace_split = True
    commands: list[list[str]] = [[]]
    for word in lexer:
        if word.strip(";"):
            commands[-1].append(word)
        else:
            commands.append([])
    return [command for command in commands if command]


class Virsh:
    """One run of virsh."""

    def __init__(self, host: Host, readonly: bool, quiet: bool) -> None:
        self.host = host
        self.readonly = readonly
        self.quiet = quiet

    def run(self, commands: list[list[str]]) -> bool:
        """Runs the commands; all have to be right before the first is run.  Says whether the last succeeded."""
        try:
            parsed = [parse(words) for words in commands]
        except Wrong as error:
            self.complain(error)
            return False
        fine = True
        for command, flags, given in parsed:
            options = flags | {"quiet"} if self.quiet else flags
            try:
                with self.host.locked():
                    said = command.run(Call(self.host, self.readonly, frozenset(options), given))
                if not (command.acts and self.quiet):
                    sys.stdout.write(said)
                fine = True
            except Wrong as error:
                self.complain(error)
                fine = False
            if not self.quiet:
                sys.stdout.write("\n")
        return fine

    def complain(self, error: Wrong) -> None:
        sys.stdout.flush()
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)

    def listen(self) -> None:
        """Commands come on standard input, a line each."""
        if not self.quiet:
            sys.stdout.write("Welcome to virsh, the virtualization interactive terminal.\n\n"
                             "Type:  'help' for help with commands\n       'quit' to quit\n\n")  # fmt: skip
        while True:
            sys.stdout.write("virsh # ")
            line = sys.stdin.readline()
            if not sys.stdin.isatty():
                sys.stdout.write(line)
            if line.strip() in ("quit", "exit") or not line:
                sys.stdout.write("\n")
                return
            self.run(split(line))


def main(argv: list[str]) -> int:
    """`argv`: the host's folder, then virsh's own arguments.  Returns the exit status."""
    folder, *words = argv
    readonly = quiet = False
    while words and words[0].startswith("-"):
        option = words.pop(0)
        if option in ("-r", "--readonly"):
            readonly = True
        elif option in ("-q", "--quiet"):
            quiet = True
        elif option in ("-c", "--connect") and words:
            words.pop(0)
        elif option in ("-v", "--version"):
            print("9.0.0")
            return 0
        else:
            print(f"error: unsupported option '{option}'. See --help.", file=sys.stderr)
            return 1
    host = Host(Path(folder))
    if not host.state.is_dir():
        print("error: failed to connect to the hypervisor", file=sys.stderr)
        print(f"error: there is no host in {folder}", file=sys.stderr)
        return 1
    virsh = Virsh(host, readonly, quiet)
    if not words:
        virsh.listen()
        return 0
    return 0 if virsh.run(split(words[0]) if len(words) == 1 else [words]) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
