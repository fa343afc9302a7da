"""The program that reads on a hypervisor: recorded answers of a real virsh, real directories, process trees on disk."""

import ast
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudfsck.sources import probe

SAMPLES = Path(__file__).parent / "probe_samples"
SOURCE = Path(probe.__file__)
# The domains of the recording (libvirt 9.0, QEMU 7.2), by what is particular about them.
PLAIN = "29871920-0999-543d-bd68-5b2d5119b424"
ODD_NAME = "7eb99e4a-f250-5b31-a27e-1086e946a963"
MANY_LINES = "5cafb1f4-d3b6-5896-9c36-ce6d4c59388e"
SHUT_OFF = "608c814e-f93a-54ae-8a48-17af99ccfc9c"
TRANSIENT = "3a4995ef-2402-5648-a80f-4d58540377ba"
AUTOSTARTED = "51ba9c1d-f57c-5fd0-9319-fbb1f8bcf495"
SAVED = "a7a592f2-f6ba-5bdf-98c7-8e36b63a16c9"
RUNNING = "d263996e-90fa-5f2a-8e24-35f5e7dcba54"
A, B, C, D = (f"{letter * 8}-0000-4000-8000-000000000001" for letter in "abcd")

VIRSH = """#!{python}
import json, re, sys
answers = json.load(open({answers!r}))
open({log!r}, "a").write(json.dumps(sys.argv[1:]) + "\\n")
assert sys.argv[-3:-1] == ["-r", "-q"], sys.argv
call = sum(1 for _ in open({log!r}))
for command in sys.argv[-1].split("; "):
    if command.startswith("echo "):
        sys.stdout.write(command[5:])
        continue
    answer = answers.get(command, {{"error": "error: failed to get domain '%s'" % command.split()[-1]}})
    if isinstance(answer, list):
        answer = answer[min(call, len(answer)) - 1]
    if isinstance(answer, dict):
        sys.stderr.write(answer["error"].rstrip() + "\\n")
    else:
        sys.stdout.write(answer)
"""


class Recorded:
    """A virsh that answers as the recorded one did; an answer that is a list holds one answer for each run."""

    def __init__(self, folder: Path) -> None:
        self.answers: dict[str, Any] = json.loads((SAMPLES / "virsh.json").read_text())
        self.folder = folder
        self.path = folder / "virsh"
        self.log = folder / "calls"

    def read(self, servers: list[str] | None = None) -> dict[str, dict[str, Any]]:
        (self.folder / "answers.json").write_text(json.dumps(self.answers))
        program = VIRSH.format(python=sys.executable, answers=str(self.folder / "answers.json"), log=str(self.log))
        self.path.write_text(program)
        self.path.chmod(0o755)
        request = {"virsh": [str(self.path), "-c", "qemu:///system"], "servers": servers}
        return {domain["uuid"]: domain for domain in probe.read_domains(request)}

    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def without(self, key: str, uuid: str) -> str:
        text: str = self.answers[key]
        return text.replace(uuid + "\n", "")


@pytest.fixture
def virsh(tmp_path: Path) -> Recorded:
    return Recorded(tmp_path)


def qcow2(backing: bytes = b"", version: int = 3, offset: int | None = None, length: int | None = None) -> bytes:
    at = (104 if backing else 0) if offset is None else offset
    size = len(backing) if length is None else length
    return (struct.pack(">4sIQI", b"QFI\xfb", version, at, size) + bytes(84) + backing).ljust(4096, b"\0")


def instances_of(path: Path, held: dict[int, list[tuple[str, str]]] | None = None, **request: Any) -> dict[str, Any]:
    return probe.read_instances({"instances_path": str(path), **request}, held or {})


def entries_of(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in answer["entries"]}


# ---------------------------------------------------------------------------------------------------------------------
# Read-only by construction.


WRITES = """
rename renames replace unlink remove rmdir removedirs mkdir makedirs mknod mkfifo link symlink chmod fchmod lchmod chown
fchown lchown utime truncate ftruncate write pwrite writev writelines sendfile copy_file_range setxattr removexattr
posix_fallocate chflags kill killpg system popen fork execv execve execvp execvpe execl execlp spawnv spawnl posix_spawn
write_text write_bytes touch rmtree move copy copyfile dump mount umount setns unshare chroot
Popen call check_call check_output getoutput getstatusoutput eval exec compile __import__ setattr putenv unsetenv
"""


def test_source_contains_no_call_that_writes() -> None:
    tree = ast.parse(SOURCE.read_text())
    writes = set(WRITES.split())
    opened = {"O_RDONLY", "O_DIRECTORY", "O_NOFOLLOW", "O_CLOEXEC", "O_NONBLOCK", "O_NOCTTY"}
    runs = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            assert not node.attr.startswith("O_") or node.attr in opened, node.attr
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = {alias.name for alias in node.names} | {getattr(node, "module", "")}
            assert not names & {"shutil", "tempfile", "pathlib", "fcntl", "mmap", "pty", "signal"}
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        whole = ast.unparse(node)
        if name == "write":
            assert whole.startswith("sys.stdout.write(")
        elif name == "replace":
            # Of texts; os.replace takes two arguments as well.
            assert not whole.startswith("os."), whole
        elif name == "remove":
            assert whole in ("kept.remove(twin)", "ports.remove(named[0])")
        elif name == "compile":
            assert whole.startswith("re.compile(")
        else:
            assert name not in writes, whole
        if name == "open" and isinstance(node.func, ast.Name):
            assert ast.unparse(node.args[1]) == "'rb'", whole
        if name == "run":
            runs += 1
            starts = ("self.argv + ['-r', '-q', line]", "argv + OVS_QUESTION")
            assert whole.startswith(tuple(f"subprocess.run({argv}, stdin=subprocess.DEVNULL" for argv in starts))
        if isinstance(node.func, ast.Call) or name == "CDLL":
            assert whole.startswith("ctypes.CDLL(None, use_errno=True)"), whole
        if whole.startswith("ctypes.CDLL(None, use_errno=True)."):
            assert name == "statfs"
    assert runs == 2


def test_source_runs_on_old_hosts_and_through_any_locale() -> None:
    source = SOURCE.read_text()
    ast.parse(source, feature_version=(3, 6))
    assert source.isascii()
    assert not re.search(r"removesuffix|removeprefix|capture_output|text=True|functools.cache", source)


def test_virsh_is_asked_only() -> None:
    assert set(probe.ASKING) == {"uri", "list", "dumpxml", "domstate", "domjobinfo", "echo"}
    for command in ("destroy x", "undefine x", "list; destroy x", "list\ndestroy x", "dumpxml --security-info 'x'"):
        with pytest.raises(ValueError, match="is no question"):
            probe.Virsh(["virsh"]).ask([command], 1)


@pytest.mark.parametrize(
    "argv",
    [
        ["sh", "-c", "id"],
        [],
        ["virsh", "-c", "qemu+ssh://root@other/system"],
        ["virsh", "-c", "qemu+ext:///system?command=/bin/sh"],
        ["virsh", "-c", "qemu:///system?command=/bin/sh"],
        ["virsh", "destroy", "x"],
        ["virsh", "-c", "qemu:///system", "destroy x"],
        ["docker", "run", "image", "virsh"],
        ["docker", "exec", "--detach-keys", "x", "virsh"],
        ["docker", "exec", "nova_libvirt", "sh", "-c", "virsh"],
    ],
)
def test_only_virsh_is_run(argv: list[str]) -> None:
    with pytest.raises(probe.Unread, match="virsh"):
        probe.Virsh(argv)


@pytest.mark.parametrize(
    "argv",
    [
        ["virsh"],
        ["/usr/bin/virsh", "-c", "qemu:///system?socket=/run/libvirt/libvirt-sock"],
        ["virsh", "--connect", "test:///default"],
        ["podman", "exec", "-i", "-e", "LC_ALL=C", "nova_libvirt", "virsh", "-c", "qemu:///system"],
        *probe.VIRSH,
    ],
)
def test_virsh_here_or_in_a_container_is_run(argv: list[str]) -> None:
    assert probe.Virsh(argv).argv == list(argv)


# ---------------------------------------------------------------------------------------------------------------------
# Domains.


def test_domains_as_recorded(virsh: Recorded) -> None:
    domains = virsh.read()
    assert set(domains) == {PLAIN, ODD_NAME, MANY_LINES, SHUT_OFF, TRANSIENT, AUTOSTARTED, SAVED, RUNNING}
    plain = dict(domains[PLAIN])
    assert re.fullmatch("[0-9a-f]{64}", plain.pop("xml_sha256"))
    assert plain.pop("id") > 0
    disk = f"/var/lib/nova/instances/{PLAIN}/disk"
    port = plain["interfaces"][0]["port"]
    assert plain == {
        "uuid": PLAIN,
        "name": "instance-00000001",
        "state": "paused",
        "reason": "user",
        "persistent": True,
        "autostart": False,
        "managed_save": False,
        "nova": True,
        "nova_name": "vm <1> & co",
        "project": "cd" * 16,
        "created": "2026-10-02 10:00:00",
        "memory_kib": 1024,
        "vcpus": 1,
        "job": None,
        "hostdevs": 0,
        "nvram": None,
        "tpm": False,
        "disks": [
            {
                "config": "both",
                "target": "vda",
                "type": "file",
                "device": "disk",
                "source": disk,
                "serial": port,
                "alias": None,
                "stored": None,
                "backing": ["/var/lib/nova/instances/_base/f15b0bd091b902dfb79cc920ec14ea6e41803547"],
            }
        ],
        "interfaces": [{"config": "both", "mac": "fa:16:3e:00:00:01", "target": "tap" + port[:11], "port": port}],
    }
    assert domains[ODD_NAME]["name"] == "odd; name 'x\" & é"
    assert domains[MANY_LINES]["nova_name"] == "vm <4> & co"
    assert (domains[SHUT_OFF]["id"], domains[SHUT_OFF]["state"]) == (None, "shutoff")
    assert domains[SHUT_OFF]["disks"][0]["config"] == "persistent"
    assert (domains[TRANSIENT]["persistent"], domains[TRANSIENT]["disks"][0]["config"]) == (False, "live")
    assert {uuid for uuid in domains if domains[uuid]["autostart"]} == {AUTOSTARTED, SAVED}
    assert {uuid for uuid in domains if domains[uuid]["managed_save"]} == {SAVED}
    assert (domains[RUNNING]["state"], domains[RUNNING]["reason"]) == ("running", "unpaused")
    # One process for the lists, one for all the rest, both read-only.
    assert len(virsh.calls()) == 2


def test_a_scope_reads_only_its_domains(virsh: Recorded) -> None:
    assert set(virsh.read([PLAIN, A])) == {PLAIN}
    assert SHUT_OFF not in virsh.calls()[1][-1]


def test_many_domains_stay_below_the_longest_argument(virsh: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "LONGEST", 700)
    assert len(virsh.read()) == 8
    assert len(virsh.calls()) > 3
    assert max(len(call[-1]) for call in virsh.calls()) < 2000


def test_a_domain_that_vanishes_meanwhile_is_not_there(virsh: Recorded) -> None:
    gone = {"error": f"error: failed to get domain '{PLAIN}'"}
    for key in list(virsh.answers):
        if PLAIN in key:
            virsh.answers[key] = gone
        elif PLAIN in virsh.answers[key]:
            virsh.answers[key] = [virsh.answers[key], virsh.without(key, PLAIN)]
    domains = virsh.read()
    assert PLAIN not in domains
    assert len(domains) == 7


def test_a_domain_that_stops_while_it_is_read_is_read_again(virsh: Recorded) -> None:
    active = virsh.answers["list --uuid"]
    virsh.answers["list --uuid"] = [active, virsh.without("list --uuid", PLAIN)]
    virsh.answers["domstate --reason " + PLAIN] = "shut off (destroyed)\n"
    domain = virsh.read()[PLAIN]
    assert (domain["id"], domain["state"], domain["reason"]) == (None, "shutoff", "destroyed")
    assert domain["disks"][0]["config"] == "persistent"


def test_a_domain_that_comes_while_another_goes_is_read(virsh: Recorded) -> None:
    for key in probe.LISTS.values():
        before, after = virsh.without(key, SHUT_OFF), virsh.without(key, PLAIN)
        virsh.answers[key] = [before, after]
    assert SHUT_OFF in virsh.read()


def test_a_domain_that_cannot_be_read_fails_the_part(virsh: Recorded) -> None:
    virsh.answers["dumpxml " + PLAIN] = {"error": "error: internal error: cannot format"}
    with pytest.raises(probe.Unread, match=f"domain {PLAIN} is not read: error: internal error: cannot format"):
        virsh.read()


def test_no_xml_or_an_unknown_state_fails_the_part(virsh: Recorded) -> None:
    virsh.answers["domstate --reason " + PLAIN] = "in limbo (who knows)\n"
    with pytest.raises(probe.Unread, match="in limbo"):
        virsh.read()
    virsh.answers["domstate --reason " + PLAIN] = "paused (user)\n"
    virsh.answers["dumpxml " + PLAIN] = "<domain"
    with pytest.raises(probe.Unread, match="no XML"):
        virsh.read()


def test_lists_lost_halfway_are_no_absence(virsh: Recorded) -> None:
    # libvirtd ends between the two processes: its lists are empty from then on, with an error.
    lost = {"error": "error: Disconnected from qemu:///system due to end of file"}
    for key in list(virsh.answers):
        first = virsh.answers[key] if key == "uri" or key.startswith("list") else lost
        virsh.answers[key] = [first, virsh.answers[key] if key == "uri" else lost]
    with pytest.raises(probe.Unread, match="Disconnected"):
        virsh.read()


def test_a_list_that_fails_is_no_empty_list(virsh: Recorded) -> None:
    virsh.answers["list --all --uuid"] = {"error": "error: Failed to list domains\nerror: Cannot recv data"}
    with pytest.raises(probe.Unread, match="Failed to list domains; error: Cannot recv data"):
        virsh.read()


def test_warnings_are_no_failure(virsh: Recorded) -> None:
    virsh.answers["list --uuid --nothing"] = ""
    program = VIRSH.replace("answers = json", "sys.stderr.write('warning: deprecated\\\\n')\nanswers = json")
    (virsh.folder / "answers.json").write_text(json.dumps(virsh.answers))
    virsh.path.write_text(
        program.format(python=sys.executable, answers=str(virsh.folder / "answers.json"), log=str(virsh.log))
    )
    virsh.path.chmod(0o755)
    assert len(probe.read_domains({"virsh": [str(virsh.path)]})) == 8


def test_a_host_without_domains(virsh: Recorded) -> None:
    for key in probe.LISTS.values():
        virsh.answers[key] = "\n"
    assert virsh.read() == {}


def test_why_libvirt_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "virsh"
    with pytest.raises(probe.Unread, match="virsh is not installed"):
        probe.read_domains({"virsh": [str(path)]})
    path.write_text("#!/bin/sh\necho 'error: failed to connect to the hypervisor' >&2\nexit 1\n")
    path.chmod(0o755)
    with pytest.raises(probe.Unread, match="failed to connect to the hypervisor"):
        probe.read_domains({"virsh": [str(path)]})
    path.write_text("#!/bin/sh\nexec sleep 600\n")
    monkeypatch.setattr(probe, "LIST_SECONDS", 0.2)
    with pytest.raises(probe.Unread, match=r"no answer within 0.2 s"):
        probe.read_domains({"virsh": [str(path)]})
    # Nothing configured: every candidate's own reason is said.
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(probe.Unread, match="virsh is not installed; docker is not installed; podman is not installed"):
        probe.read_domains({"virsh": None})


def describe(live: str | None, kept: str | None, state: str = "running (booted)", job: str = "") -> dict[str, Any]:
    text = {"state": state}
    if live is not None:
        text.update(live=live, job=job or "Job type:         None")
    if kept is not None:
        text["kept"] = kept
    nothing: set[str] = set()
    return probe.describe(A, text, {"autostart": nothing, "managed_save": nothing}, "")


def test_a_domain_of_a_real_nova() -> None:
    live = (SAMPLES / "nova.xml").read_text()
    domain = describe(live, None)
    assert domain["nova_name"] == "f-zombie"
    assert domain["project"] == "8ca28ab4b3fb4b3a90d2547da35db857"
    assert domain["created"] == "2026-11-22 06:41:14"
    assert domain["interfaces"] == [
        {
            "config": "live",
            "mac": "fa:16:3e:e0:1d:81",
            "target": "tap11860801-1e",
            "port": "11860801-1eb8-4b28-8f62-333b370ce329",
        }
    ]
    old = describe(live.replace("nova/1.1", "nova/1.0"), None)
    assert (old["nova"], old["nova_name"]) == (True, "f-zombie")
    foreign = re.sub("<metadata>.*</metadata>", "", live, flags=re.DOTALL)
    assert describe(foreign, None)["nova"]
    assert describe(foreign, None)["nova_name"] is None
    assert not describe(foreign.replace("OpenStack Nova", "Something else"), None)["nova"]


DOMAIN = "<domain><name>x</name><memory unit='MiB'>2</memory><vcpu>3</vcpu>{}<devices>{}</devices></domain>"


def test_what_hangs_on_a_domain() -> None:
    devices = """
      <disk type='network' device='disk'><source protocol='rbd' name='volumes/volume-1'/><target dev='vda'/></disk>
      <disk type='block' device='disk'><source dev='/dev/sdb'/><target dev='vdb'/><serial> s </serial></disk>
      <disk type='volume' device='disk'><source pool='p' volume='v'/><target dev='vdc'/></disk>
      <disk type='file' device='cdrom'><target dev='hda'/></disk>
      <disk type='file' device='disk'><source file='/top'/><target dev='vdd'/>
        <backingStore type='file'><source file='/middle'/>
          <backingStore type='network'><source protocol='rbd' name='images/i'/><backingStore/></backingStore>
        </backingStore></disk>
      <hostdev/><interface type='hostdev'><mac address='FA:16:3E:00:00:01'/></interface><tpm/>"""
    kept = DOMAIN.format("<os><nvram template='/t'>/var/lib/nvram/x.fd</nvram></os>", devices)
    domain = describe(None, kept, "shut off (shutdown)")
    assert (domain["memory_kib"], domain["vcpus"], domain["hostdevs"], domain["tpm"]) == (2048, 3, 2, True)
    assert domain["nvram"] == "/var/lib/nvram/x.fd"
    assert domain["interfaces"][0]["mac"] == "fa:16:3e:00:00:01"
    disks = [(disk["target"], disk["source"], disk["serial"], disk["backing"]) for disk in domain["disks"]]
    assert disks == [
        ("vda", "volumes/volume-1", None, []),
        ("vdb", "/dev/sdb", "s", []),
        ("vdc", "p/v", None, []),
        ("hda", None, None, []),
        ("vdd", "/top", None, ["/middle", "images/i"]),
    ]
    other = DOMAIN.format("<os><nvram type='file'><source file='/n.fd'/></nvram></os>", "")
    assert describe(None, other, "shut off (unknown)")["nvram"] == "/n.fd"


def test_live_and_persistent_configuration_that_differ() -> None:
    def disk(target: str, source: str) -> str:
        return f"<disk type='file' device='disk'><source file='{source}'/><target dev='{target}'/></disk>"

    nic = "<interface><mac address='fa:16:3e:00:00:0{}'/>{}</interface>"
    live = DOMAIN.format("", disk("vda", "/a") + disk("vdb", "/b") + nic.format(1, "<target dev='tap1'/>"))
    kept = DOMAIN.format("", disk("vda", "/a") + disk("vdb", "/c") + nic.format(1, "") + nic.format(2, ""))
    domain = describe(live.replace("<domain>", "<domain id='7'>"), kept)
    assert domain["id"] == 7
    seen = [(disk["config"], disk["target"], disk["source"]) for disk in domain["disks"]]
    assert seen == [("both", "vda", "/a"), ("live", "vdb", "/b"), ("persistent", "vdb", "/c")]
    nics = [(nic["config"], nic["mac"][-1], nic["target"]) for nic in domain["interfaces"]]
    assert nics == [("both", "1", "tap1"), ("persistent", "2", None)]


def test_ports_are_matched_by_name_then_by_order() -> None:
    nova = (
        "<metadata><n:instance xmlns:n='http://openstack.org/xmlns/libvirt/nova/1.1'><n:ports>{}</n:ports>"
        "</n:instance></metadata>"
    )
    ports = [f"<n:port uuid='{uuid}'/>" for uuid in (A, B, C)]
    nic = "<interface><mac address='{}'/><target dev='{}'/></interface>"
    # The second device bears the first port's name; the others have names of their own.
    nics = nic.format("1", "macvtap0") + nic.format("2", "tap" + A[:11]) + nic.format("3", "vhu")
    rows = describe(None, DOMAIN.format(nova.format("".join(ports)), nics), "shut off (x)")["interfaces"]
    assert [row["port"] for row in rows] == [B, A, C]
    # One port is missing: the order says nothing about the others.
    rows = describe(None, DOMAIN.format(nova.format("".join(ports[:2])), nics), "shut off (x)")["interfaces"]
    assert [row["port"] for row in rows] == [None, A, None]


def test_what_runs_on_a_domain() -> None:
    live = DOMAIN.format("", "<disk><target dev='vda'/><mirror job='copy'/></disk>")
    job = "Job type:         Unbounded   \nOperation:        Outgoing migration\nTime elapsed:     12 ms\n"
    assert describe(live, None, job=job)["job"] == "Outgoing migration"
    assert describe(live, None, job="Job type:         Bounded     \n")["job"] == "Bounded"
    assert describe(live, None)["job"] == "block copy of vda"
    text = {"state": "running (booted)", "live": live, "job": ""}
    held = "error: Timed out during operation: cannot acquire state change lock (held by monitor=remoteDispatch)"
    nothing: set[str] = set()
    answer = probe.describe(A, text, {"autostart": nothing, "managed_save": nothing}, held)["job"]
    assert answer == "unknown: " + held
    assert describe(None, live, "shut off (x)")["job"] is None


def test_the_digest_is_of_the_content() -> None:
    first = "<d xmlns:n='urn:n' b='2' a='1'>\n  <!-- x --><e>t &lt;</e>\n<n:f/></d>"
    same = "<d a='1' b=\"2\"><e><![CDATA[t <]]></e><m:f xmlns:m='urn:n'></m:f></d>"
    assert probe.xml_digest(first) == probe.xml_digest(same)
    others = [first.replace("t &lt;", "t"), first.replace("'2'", "'3'"), first.replace("<n:f/>", "")]
    others += [
        first.replace("<n:f/>", "<f/>"),
        first.replace("t &lt;", " t &lt;"),
        "<d><a/><b/></d>",
        "<d><a><b/></a></d>",
    ]
    assert len({probe.xml_digest(text) for text in [first, *others]}) == len(others) + 1
    # The value itself is part of the contract with the program that acts.
    assert probe.xml_digest("<domain type='kvm'><name>é</name></domain>") == (
        "dc310b51a7570c6e1441fb596da3a456652951cbe06d945f52f015997ee7ce29"
    )
    deep = "<a>" * 5000 + "</a>" * 5000
    assert len(probe.xml_digest(deep)) == 64


# ---------------------------------------------------------------------------------------------------------------------
# Processes.


class Processes:
    """A process tree on disk, laid out as the kernel lays out /proc."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "proc"
        self.path.mkdir()
        (self.path / "stat").write_text("cpu  1 2 3\nbtime 1000\nprocesses 5\n")
        (self.path / "self").mkdir()

    def add(self, pid: int, words: list[bytes], held: list[str | bytes], maps: bytes = b"", cwd: str = "/") -> None:
        folder = self.path / str(pid)
        (folder / "fd").mkdir(parents=True)
        (folder / "cmdline").write_bytes(b"".join(word + b"\0" for word in words))
        ticks = os.sysconf("SC_CLK_TCK") * 50
        fields = ["S", *["0"] * 18, str(ticks), "0", "0"]
        (folder / "stat").write_text(f"{pid} (qemu (x) y) {' '.join(fields)}\n")
        (folder / "maps").write_bytes(maps)
        os.symlink(cwd, folder / "cwd")
        os.symlink("/", folder / "root")
        for number, path in enumerate(held):
            os.symlink(
                path,
                os.fsencode(folder / "fd" / str(number)) if isinstance(path, bytes) else folder / "fd" / str(number),
            )

    def read(self, **request: Any) -> list[dict[str, Any]]:
        return probe.read_processes(request, str(self.path), probe.held_paths(str(self.path)))


@pytest.fixture
def processes(tmp_path: Path) -> Processes:
    return Processes(tmp_path)


def test_processes_with_a_uuid(processes: Processes) -> None:
    qemu = b"/usr/bin/qemu-system-x86_64"
    processes.add(10, [qemu, b"-name", b"guest=a,,b=c,debug-threads=on", b"-S", b"-uuid", A.encode()], [])
    processes.add(11, [b"/usr/libexec/qemu-kvm", b"-name", b"instance-1", b"-uuid", B.upper().encode()], [])
    processes.add(12, [b"grep", b"-uuid", C.encode()], [])
    processes.add(13, [qemu, b"-uuid", b"nonsense"], [])
    processes.add(14, [qemu, b"-uuid"], [])
    processes.add(15, [], [])
    assert processes.read() == [
        {"pid": 10, "uuid": A, "name": "a,b=c", "started": 1050.0, "unnamed": 0},
        {"pid": 11, "uuid": B, "name": "instance-1", "started": 1050.0, "unnamed": 0},
    ]
    assert [row["pid"] for row in processes.read(servers=[B])] == [11]


def test_files_without_a_name(processes: Processes, tmp_path: Path) -> None:
    literal = tmp_path / "ends with (deleted)"
    literal.touch()
    held: list[str | bytes] = [
        "/var/lib/nova/instances/x/disk (deleted)",
        b"/var/lib/nova/instances/x/\xff (deleted)",
        str(literal),
        "/memfd:pc.ram (deleted)",
        "/dev/shm/x (deleted)",
        "/SYSV00000000 (deleted)",
        "/anon_hugepage (deleted)",
        "/dev/hugepages/libvirt/qemu/1/x (deleted)",
        "/mnt/hugepages-1G/x (deleted)",
        "/var/lib/libvirt/qemu/ram/1-x/pc.ram (deleted)",
        "socket:[12]",
        "anon_inode:[eventfd]",
        "/var/lib/nova/instances/x/disk.config",
    ]
    processes.add(10, [b"qemu-kvm", b"-uuid", A.encode()], held)
    assert processes.read()[0]["unnamed"] == 2


def test_a_real_process_with_a_file_without_a_name(tmp_path: Path) -> None:
    for name in ("kept", "gone", "ends with (deleted)"):
        (tmp_path / name).touch()
    files = [(tmp_path / name).open() for name in ("kept", "gone", "ends with (deleted)")]
    (tmp_path / "gone").unlink()
    unnamed = []
    for file in files:
        link = f"/proc/self/fd/{file.fileno()}"
        unnamed.append(probe.is_unnamed(link, os.readlink(link), []))
    link = f"/proc/self/fd/{files[1].fileno()}"
    for file in files:
        file.close()
    assert unnamed == [False, True, False]
    assert not probe.is_unnamed(link, "/gone (deleted)", [])


def test_processes_that_cannot_be_read_are_said(tmp_path: Path) -> None:
    answer = probe.probe(
        {
            "version": 1,
            "nonce": "n",
            "virsh": [str(tmp_path / "virsh")],
            "proc": str(tmp_path / "none"),
            "instances_path": str(tmp_path),
        }
    )
    assert answer["failed"]["processes"] == f"{tmp_path}/none: No such file or directory"
    assert answer["failed"]["instances"].startswith("which files are open is not known: ")
    assert not {"domains", "processes", "instances"} & set(answer)


def test_what_is_held_open_in_which_entry(processes: Processes, tmp_path: Path) -> None:
    real = tmp_path / "instances"
    for name in (A, B, C, D, "_base"):
        (real / name).mkdir(parents=True)
        (real / name / "disk").touch()
    # Mounted under another path in another mount namespace: the file system is the same.
    (tmp_path / "seen" / D).mkdir(parents=True)
    (tmp_path / "seen" / D / "disk").touch()
    maps = f"7f00-7f01 r--p 00000000 fe:00 12                       {real}/{C}/a\\012b\n7f00-7f01 r-xp 0 00:00 0 \n"
    processes.add(10, [b"x"], [f"{real}/{A}/disk", f"{real}/_base/disk"])
    processes.add(11, [b"x"], [], cwd=f"{real}/{B}")
    processes.add(12, [b"x"], [f"{real}/{A}/disk (deleted)", str(real)], maps=maps.encode())
    processes.add(13, [b"x"], [f"{tmp_path}/seen/{D}/disk"])
    processes.add(14, [b"x"], [f"{real}-other/{A}/x", f"/dev/{B}x"])
    os.symlink(f"/dev/shm/{C}", processes.path / "14" / "fd" / "9")
    held = probe.held_paths(str(processes.path))
    entries = entries_of(instances_of(real, held))
    assert {name: entry["open_by"] for name, entry in entries.items()} == {
        A: [10, 12], B: [11], C: [12], D: [13], "_base": [10],
    }  # fmt: skip
    assert [(base["name"], base["open_by"]) for base in instances_of(real, held)["bases"]] == [("disk", [10])]


def test_paths_as_nova_sees_them_count_too(
    processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = tmp_path / "volume"
    (volume / "instances" / A).mkdir(parents=True)
    monkeypatch.setattr(probe, "KOLLA_VOLUMES", (str(volume),))
    monkeypatch.setattr(probe, "STATE_PATH", "/nowhere/nova")
    processes.add(10, [b"x"], [f"/nowhere/nova/instances/{A}/disk"])
    answer = instances_of(Path("/nowhere/nova/instances"), probe.held_paths(str(processes.path)))
    assert (answer["path"], answer["real"]) == ("/nowhere/nova/instances", str(volume / "instances"))
    assert answer["entries"][0]["open_by"] == [10]


# ---------------------------------------------------------------------------------------------------------------------
# Instances.


def test_measure(tmp_path: Path) -> None:
    top = tmp_path / "top"
    (top / "a" / "b").mkdir(parents=True)
    (top / "a" / "data").write_bytes(b"x" * 10000)
    os.link(top / "a" / "data", top / "a" / "b" / "again")
    os.symlink("/", top / "link")
    with (top / "sparse").open("wb") as file:
        file.truncate(10**9)
    os.mkfifo(top / "disk")
    os.utime(top / "a" / "data", ns=(1, 2**61))
    found = probe.measure(str(top))
    assert found["files"] == 5
    assert found["newest"] == 2**61
    assert (found["inode"], found["device"]) == (top.stat().st_ino, top.stat().st_dev)
    inodes = {path.lstat().st_ino: path.lstat().st_blocks for path in [top, *top.rglob("*")]}
    assert found["bytes"] == sum(inodes.values()) * 512 < 10**7
    alone = probe.measure(str(top / "link"))
    assert (alone["files"], alone["inode"]) == (1, (top / "link").lstat().st_ino)
    with pytest.raises(FileNotFoundError):
        probe.measure(str(top / "none"))


def test_measure_while_the_tree_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    top = tmp_path / "top"
    (top / "a").mkdir(parents=True)
    (top / "b").touch()
    listdir = os.listdir

    def removing(where: int) -> list[str]:
        # What is listed is gone when it is looked at; a directory is gone when it is listed.
        names = listdir(where)
        if "b" in names:
            (top / "b").unlink()
        else:
            (top / "a").rmdir()
            return listdir(where)
        return names

    monkeypatch.setattr(os, "listdir", removing)
    assert probe.measure(str(top))["files"] == 0


AS_NOBODY = """
import json, os, sys
from cloudfsck.sources import probe
request = json.loads(sys.argv[1])
if os.geteuid() == 0:
    os.seteuid(65534)
try:
    probe.read_swtpm(request, request["proc"]) if "proc" in request else probe.read_instances(request, {})
except Exception as error:
    print(probe.reason(error))
"""


def as_nobody(**request: Any) -> str:
    """Why the instances, or with `proc` the states of TPMs, cannot be read without root's rights."""
    argv = [sys.executable, "-c", AS_NOBODY, json.dumps(request)]
    root = str(SOURCE.parents[2])
    return subprocess.run(argv, capture_output=True, text=True, check=True, cwd=root).stdout.rstrip("\n")


def test_what_may_not_be_read_fails_the_whole_part() -> None:
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        top.chmod(0o755)
        (top / A / "inside").mkdir(parents=True)
        (top / A / "inside").chmod(0)
        assert as_nobody(instances_path=name) == f"{top}/{A}/inside: Permission denied"
        (top / A / "inside").rmdir()
        (top / A / "disk").touch()
        (top / A / "disk").write_bytes(b"x")
        (top / A / "disk").chmod(0)
        assert as_nobody(instances_path=name) == f"{top}/{A}/disk: Permission denied"
        (top / "nova.conf").write_text("[DEFAULT]\n")
        (top / "nova.conf").chmod(0)
        said = as_nobody(nova_conf=[str(top / "nova.conf")])
        assert said == f"{top}/nova.conf: Permission denied"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", ("raw", None)),
        (b"anything", ("raw", None)),
        (qcow2(), ("qcow2", None)),
        (qcow2(b"/base/x"), ("qcow2", "/base/x")),
        (qcow2(b"/base/x", version=2), ("qcow2", "/base/x")),
        (qcow2(b"../other/disk"), ("qcow2", "{parent}/other/disk")),
        (qcow2(b"file:/base/x"), ("qcow2", "/base/x")),
        (qcow2(b"file:///base/x"), ("qcow2", "/base/x")),
        (qcow2(b"rbd:images/x:id=nova"), ("qcow2", "rbd:images/x:id=nova")),
        (qcow2(b'json:{"driver":"qcow2","file":{"driver":"file","filename":"/b"}}'), ("qcow2", "/b")),
        (qcow2(b'json:{"driver":"raw","file.filename":"/b"}'), ("qcow2", "/b")),
        (qcow2(b'json:{"driver":"nbd","host":"h"}'), ("qcow2", 'json:{"driver":"nbd","host":"h"}')),
        (qcow2(b"json:{"), ("corrupt", None)),
        (qcow2(version=9), ("corrupt", None)),
        (qcow2(b"/x", offset=2**40), ("corrupt", None)),
        (qcow2(b"/x", length=5000), ("corrupt", None)),
        (qcow2(offset=4090, length=20), ("corrupt", None)),
        (qcow2(offset=1000, length=20), ("corrupt", None)),
        (b"QFI\xfb\0\0", ("corrupt", None)),
    ],
)
def test_image_headers(tmp_path: Path, content: bytes, expected: tuple[str, str | None]) -> None:
    path = tmp_path / "x" / "disk"
    path.parent.mkdir()
    path.write_bytes(content)
    kind, backing = expected
    assert probe.qcow2_backing(str(path)) == (kind, backing and backing.replace("{parent}", str(tmp_path)))


def test_what_is_no_image_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "disk")
    os.symlink("/etc/passwd", tmp_path / "disk.local")
    (tmp_path / "disk.eph0").mkdir()
    for name in ("disk", "disk.local", "disk.eph0"):
        assert probe.qcow2_backing(str(tmp_path / name)) is None
    assert probe.qcow2_backing("/dev/null") is None
    with pytest.raises(FileNotFoundError):
        probe.qcow2_backing(str(tmp_path / "none"))


@pytest.fixture
def instances(tmp_path: Path) -> Path:
    top = tmp_path / "instances"
    for name in (A, B, A + "_resize", B + "_del", "_base", "locks", "snapshots", "instance-00000001"):
        (top / name).mkdir(parents=True)
    (top / "_base" / "f15b").write_bytes(b"raw")
    (top / A / "disk").write_bytes(qcow2(os.fsencode(top / "_base" / "f15b")))
    (top / A / "disk.info").write_text("{}")
    (top / A / "disk.config").write_bytes(b"iso")
    (top / A / "console.log").write_text("x")
    (top / B / "disk").write_bytes(qcow2(f"../{A}/disk".encode()))
    (top / (A + "_resize") / "disk").write_bytes(b"QFI\xfb broken")
    (top / C).write_text("a file")
    os.symlink("/etc", top / D)
    (top / "compute_nodes").write_text('{"two": 2.5, "one": 1}')
    return top


def test_entries(instances: Path) -> None:
    answer = instances_of(instances)
    entries = entries_of(answer)
    assert {name: (entry["kind"], entry["server"], entry["symlink"]) for name, entry in entries.items()} == {
        A: ("instance", A, False),
        B: ("instance", B, False),
        C: ("other", None, False),
        D: ("instance", D, True),
        A + "_resize": ("resize", A, False),
        B + "_del": ("del", B, False),
        "_base": ("base", None, False),
        "locks": ("other", None, False),
        "snapshots": ("other", None, False),
        "instance-00000001": ("other", None, False),
        "compute_nodes": ("other", None, False),
    }
    assert entries[A]["files"] == 4
    assert entries[D]["files"] == 1
    assert entries[A]["mode"] == instances.joinpath(A).stat().st_mode & 0o7777
    assert (entries[A]["uid"], entries[A]["gid"]) == (os.getuid(), os.getgid())
    assert answer["path"] == answer["real"] == str(instances)
    assert answer["path_from"] == "configuration"
    assert answer["sharing"] == [{"host": "one", "seen": 1}, {"host": "two", "seen": 2.5}]
    assert (answer["device"], answer["inode"]) == (instances.stat().st_dev, instances.stat().st_ino)
    assert answer["fsid"] == f"{os.statvfs(instances).f_fsid:x}"


def test_images(instances: Path) -> None:
    images = {image["path"][len(str(instances)) + 1 :]: image for image in instances_of(instances)["images"]}
    seen = {
        path: (image["server"], image["format"], image["backing"], image["backing_server"])
        for path, image in images.items()
    }
    assert seen == {
        f"{A}/disk": (A, "qcow2", f"{instances}/_base/f15b", None),
        f"{A}/disk.config": (A, "raw", None, None),
        f"{B}/disk": (B, "qcow2", f"{instances}/{A}/disk", A),
        f"{A}_resize/disk": (A, "corrupt", None, None),
    }
    assert images[f"{B}/disk"]["inode"] == (instances / B / "disk").stat().st_ino


def test_a_scope_keeps_the_images_that_need_its_directories(instances: Path) -> None:
    answer = instances_of(instances, servers=[A])
    assert set(entries_of(answer)) == {A, A + "_resize"}
    assert {image["path"] for image in answer["images"]} == {
        f"{instances}/{A}/disk", f"{instances}/{A}/disk.config", f"{instances}/{A}_resize/disk",
        f"{instances}/{B}/disk",
    }  # fmt: skip


def test_the_cache_of_images(instances: Path) -> None:
    base = instances / "_base" / "f15b"
    (instances / "_base" / "swap_1").write_bytes(b"raw")
    (instances / "_base" / "folder").mkdir()
    os.symlink(base, instances / "_base" / "link")
    for name in (A + "_resize", B + "_del", f".cloudfsck/7-1-{C}/tree/{C}"):
        (instances / name).mkdir(parents=True, exist_ok=True)
        (instances / name / "disk").write_bytes(qcow2(os.fsencode(base)))
    (instances / B / "disk.rescue").write_bytes(qcow2(os.fsencode(instances / "_base" / "link")))
    os.utime(base, (1700000000, 1600000000))
    for servers in (None, [D]):
        found = {row["name"]: row for row in instances_of(instances, servers=servers)["bases"]}
        assert set(found) == {"f15b", "swap_1"}
        assert found["f15b"]["path"] == str(base)
        assert [user[len(str(instances)) + 1 :] for user in found["f15b"]["users"]] == sorted([
            f".cloudfsck/7-1-{C}/tree/{C}/disk", f"{A}/disk", f"{A}_resize/disk", f"{B}/disk.rescue", f"{B}_del/disk",
        ])  # fmt: skip
        assert found["f15b"]["changed"] == base.stat().st_ctime
        assert (found["swap_1"]["users"], found["swap_1"]["open_by"]) == ([], [])


def test_no_cache_of_images(instances: Path) -> None:
    (instances / "_base" / "f15b").unlink()
    assert instances_of(instances)["bases"] == []
    (instances / "_base").rmdir()
    assert instances_of(instances)["bases"] == []
    (instances / "_base").touch()
    assert instances_of(instances)["bases"] == []


def test_names_that_are_no_text(instances: Path, tmp_path: Path) -> None:
    (Path(os.fsdecode(os.fsencode(instances) + b"/\xff\n\xc3\xa9"))).touch()
    os.symlink("/", Path(os.fsdecode(os.fsencode(instances / A) + b"/\xfe")))
    answer = probe.probe(
        {
            "version": 1,
            "nonce": "n",
            "virsh": [str(tmp_path / "virsh")],
            "instances_path": str(instances),
            "proc": str(tmp_path),
        }
    )
    names = {entry["name"] for entry in answer["instances"]["entries"]}
    assert "\\xff\né" in names
    json.dumps(answer, ensure_ascii=False).encode("utf-8")
    # A path that a C locale has decoded byte by byte is the same text.
    assert probe.readable("\udcc3\udca9\udcff") == "é\\xff"
    assert probe.readable({"\udcff": ["\ud800"]}) == {"\\xff": ["\\ud800"]}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"x": "y"}', '{"x": NaN}', '{"x": 1e999}'])
def test_a_broken_compute_nodes_file_is_said(instances: Path, text: str) -> None:
    (instances / "compute_nodes").write_text(text)
    with pytest.raises(probe.Unread, match="compute_nodes"):
        instances_of(instances)


def test_no_compute_nodes_file(instances: Path) -> None:
    (instances / "compute_nodes").unlink()
    assert instances_of(instances)["sharing"] == []


def test_quarantine(instances: Path) -> None:
    good = instances / ".cloudfsck" / f"prod-7-1-{C}" / "tree" / C
    good.mkdir(parents=True)
    (good / "disk").write_bytes(qcow2(os.fsencode(instances / B / "disk")))
    was = str(instances / C)
    manifest = {"server": C, "was_path": was, "inode": good.stat().st_ino, "at": 1700000000.5}
    (good.parents[1] / "manifest.json").write_text(json.dumps(manifest))
    (instances / ".cloudfsck" / f"prod-7-2-{D}").mkdir()
    torn = instances / ".cloudfsck" / f"prod-7-3-{A}"
    (torn / "tree" / A).mkdir(parents=True)
    (torn / "manifest.json").write_text("{")
    answer = instances_of(instances)
    assert entries_of(answer)[".cloudfsck"]["kind"] == "quarantine"
    rows = {row["server"]: row for row in answer["quarantine"]}
    size = probe.measure(str(good))
    assert rows[C] == {
        "entry": f"prod-7-1-{C}",
        "server": C,
        "path": str(good),
        "inode": size["inode"],
        "bytes": size["bytes"],
        "files": 1,
        "newest": size["newest"],
        "was_path": was,
        "at": 1700000000.5,
        "manifest_ok": True,
    }
    assert [(rows[server]["manifest_ok"], rows[server]["inode"] > 0) for server in (D, A)] == [
        (False, False),
        (False, True),
    ]
    # What lies in quarantine still needs its backing file, and may be one.
    (instances / A / "disk.local").write_bytes(qcow2(os.fsencode(good / "disk")))
    backing = {image["path"]: image["backing_server"] for image in instances_of(instances)["images"]}
    assert backing[str(good / "disk")] == B
    assert backing[str(instances / A / "disk.local")] == C
    assert [row["server"] for row in instances_of(instances, servers=[C])["quarantine"]] == [C]


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        instances_of(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(probe.Unread, match="is not a directory"):
        instances_of(tmp_path / "file")


def test_the_mount_of_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    def mount(device: str, point: str, fstype: str, source: str = "x") -> dict[str, str]:
        return {"device": device, "point": point, "fstype": fstype, "source": source}

    table = [
        mount("8:1", "/", "ext4"),
        mount("0:50", "/var/lib/nova", "nfs4", "filer:/nova"),
        mount("0:60", "/var/lib/nova/instances", "xfs"),
        mount("0:61", "/var/lib/nova/instances", "ceph"),
        mount("0:62", "/var/lib/nova-other", "tmpfs"),
    ]
    monkeypatch.setattr(probe, "mounts", lambda: table)
    assert probe.mount_of("/var/lib/nova/instances", os.makedev(0, 61))["fstype"] == "ceph"
    assert probe.mount_of("/var/lib/nova/instances/x", os.makedev(0, 60))["fstype"] == "xfs"
    assert probe.mount_of("/var/lib/nova/x", os.makedev(0, 50))["source"] == "filer:/nova"
    assert probe.mount_of("/var/lib/nova-other2", os.makedev(8, 1))["fstype"] == "ext4"
    # btrfs: stat shows another device than the table of mounts.
    assert probe.mount_of("/var/lib/nova-other/x", os.makedev(0, 99))["fstype"] == "tmpfs"
    monkeypatch.undo()
    assert probe.mount_of("/proc", os.stat("/proc").st_dev)["fstype"] == "proc"
    assert not {"nfs", "nfs4", "ceph", "fuse", "glusterfs", "proc"} & set(probe.LOCAL)


# ---------------------------------------------------------------------------------------------------------------------
# Where the instances are.


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(
        probe,
        "NOVA_CONF",
        tuple(f"{tmp_path}/nova/{name}" for name in ("nova.conf", "nova-compute.conf", "nova.conf.d/*.conf")),
    )
    monkeypatch.setattr(probe, "KOLLA_CONF", f"{tmp_path}/kolla/nova.conf")
    monkeypatch.setattr(probe, "KOLLA_VOLUMES", (f"{tmp_path}/docker", f"{tmp_path}/podman"))
    for name in ("nova/nova.conf.d", "kolla"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def test_the_hosts_own_nova_conf(etc: Path) -> None:
    with pytest.raises(probe.Unread, match=f"instances_path is unknown: there is none of {etc}/nova/nova.conf, "):
        probe.find_instances({})
    (etc / "nova/nova.conf").write_text("# only defaults\n[DEFAULT]\n")
    assert probe.find_instances({}) == (
        "/var/lib/nova/instances",
        os.path.realpath("/var/lib/nova/instances"),
        f"{etc}/nova/nova.conf",
    )
    (etc / "nova/nova.conf").write_text("[DEFAULT]\nstate_path: '/srv/nova'\n;x\n[other]\ninstances_path=/wrong\n")
    (etc / "nova/nova-compute.conf").write_text('[DEFAULT]\ninstances_path = "${state_path}/vm$$s"\n')
    assert probe.find_instances({})[0] == "/srv/nova/vm$s"
    (etc / "nova/nova.conf.d/b.conf").write_text("[DEFAULT]\nstate_path = $paths.base/b/\n[paths]\nbase = /mnt\n")
    (etc / "nova/nova.conf.d/a.conf").write_text("[DEFAULT]\nstate_path = /a\n")
    path, _, said = probe.find_instances({})
    assert path == "/mnt/b/vm$s"
    assert said == ", ".join(
        f"{etc}/nova/{name}" for name in ("nova.conf", "nova-compute.conf", "nova.conf.d/a.conf", "nova.conf.d/b.conf")
    )
    assert probe.find_instances({"instances_path": "/given/"})[0::2] == ("/given", "configuration")
    assert probe.find_instances({"nova_conf": [f"{etc}/nova/nova.conf"]})[0] == "/srv/nova/instances"


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("$pybasedir/x", "pybasedir, which is not set"),
        ("relative", "not absolute"),
        ("$instances_path", "refers to itself"),
    ],
)
def test_paths_that_nobody_can_tell(etc: Path, value: str, why: str) -> None:
    (etc / "nova/nova.conf").write_text(f"[DEFAULT]\ninstances_path = {value}\n")
    with pytest.raises(probe.Unread, match=why):
        probe.find_instances({})


def test_kolla(etc: Path) -> None:
    (etc / "kolla/nova.conf").write_text("[DEFAULT]\nstate_path = /var/lib/nova\n")
    with pytest.raises(probe.Unread, match=f"none of {etc}/docker, {etc}/podman is there"):
        probe.find_instances({})
    (etc / "podman").mkdir()
    where = ("/var/lib/nova/instances", f"{etc}/podman/instances", f"{etc}/kolla/nova.conf")
    assert probe.find_instances({}) == where
    (etc / "nova/nova.conf").write_text("[DEFAULT]\ninstances_path = /srv/nova\n")
    with pytest.raises(probe.Unread, match=r"nova.conf says /srv/nova, .* says .*/podman/instances"):
        probe.find_instances({})


# ---------------------------------------------------------------------------------------------------------------------
# Firmware.


@pytest.fixture
def libvirt(processes: Processes) -> Path:
    """libvirt's own folder, as the first process of the host sees it."""
    top = processes.path / "1" / "root" / "var/lib/libvirt"
    (top / "swtpm").mkdir(parents=True)
    (top / "qemu/nvram").mkdir(parents=True)
    return top


def test_states_of_tpms(processes: Processes, libvirt: Path) -> None:
    for server in (A, B):
        (libvirt / "swtpm" / server / "tpm2").mkdir(parents=True)
        (libvirt / "swtpm" / server / "tpm2" / "tpm2-00.permall").write_bytes(b"keys")
    (libvirt / "swtpm" / "lost+found").mkdir()
    (libvirt / "swtpm" / (C + ".aside")).mkdir()
    kolla = processes.path / "1/root/var/lib/docker/volumes/libvirtd/_data/swtpm" / D
    kolla.mkdir(parents=True)
    found = {row["server"]: row for row in probe.read_swtpm({}, str(processes.path))}
    size = probe.measure(str(libvirt / "swtpm" / A))
    assert found[A] == {
        "server": A, "path": f"/var/lib/libvirt/swtpm/{A}", "bytes": size["bytes"], "changed": size["newest"] / 1e9,
    }  # fmt: skip
    assert found[D]["path"] == f"/var/lib/docker/volumes/libvirtd/_data/swtpm/{D}"
    assert set(found) == {A, B, D}
    assert [row["server"] for row in probe.read_swtpm({"servers": [B]}, str(processes.path))] == [B]


def test_nvram_and_whose_it_is(processes: Processes, libvirt: Path, virsh: Recorded) -> None:
    names = ["instance-0000002a_VARS.fd", "instance-0000002b_VARS.qcow2", "moved.fd", "left_VARS.fd"]
    for name in names:
        (libvirt / "qemu/nvram" / name).write_bytes(b"vars")
    (libvirt / "qemu/nvram/folder").mkdir()
    virsh.answers["list --all --name"] = "instance-0000002b\ninstance-0000002a\n\n"
    virsh.read()
    request = {"virsh": [str(virsh.path), "-c", "qemu:///system"], "servers": [A]}
    domains: list[dict[str, Any]] = [{"name": "x", "nvram": "/elsewhere/moved.fd"}, {"name": "y", "nvram": None}]
    found = {row["name"]: row for row in probe.read_nvram(request, str(processes.path), lambda: domains)}
    assert {name: row["used_by"] for name, row in found.items()} == {
        names[0]: ["instance-0000002a"], names[1]: ["instance-0000002b"], names[2]: ["x"], names[3]: [],
    }  # fmt: skip
    path = libvirt / "qemu/nvram" / names[0]
    assert (found[names[0]]["path"], found[names[0]]["bytes"]) == (
        f"/var/lib/libvirt/qemu/nvram/{names[0]}", path.stat().st_blocks * 512,
    )  # fmt: skip
    assert found[names[0]]["changed"] == path.stat().st_ctime


def test_nvram_is_nobodys_only_where_libvirt_answers(processes: Processes, libvirt: Path, virsh: Recorded) -> None:
    request: dict[str, Any] = {"virsh": [str(virsh.path), "-c", "qemu:///system"]}
    assert probe.read_nvram(request, str(processes.path), list) == []
    (libvirt / "qemu/nvram/instance-0000002a_VARS.fd").touch()
    virsh.read()
    with pytest.raises(probe.Unread, match="failed to get domain"):
        probe.read_nvram(request, str(processes.path), list)
    answer = run({"version": 1, "nonce": "n-1", "virsh": ["/none/virsh"], "proc": str(processes.path)}, True)
    assert answer["failed"]["nvram"] == "which domains there are is not known: /none/virsh is not installed"
    assert answer["swtpm"] == []


def test_firmware_that_may_not_be_read_is_no_absence() -> None:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        top = Path(name) / "1/root/var/lib/libvirt/swtpm"
        top.mkdir(parents=True)
        top.chmod(0)
        assert as_nobody(proc=name) == f"{top}: Permission denied"


# ---------------------------------------------------------------------------------------------------------------------
# The program.


def run(request: dict[str, Any], forced: bool) -> dict[str, Any]:
    text = json.dumps(request)
    if forced:
        done = subprocess.run([sys.executable, str(SOURCE)], input=text.encode(), capture_output=True, check=True)
    else:
        source = f"REQUEST = {text!r}\n".encode() + SOURCE.read_bytes()
        done = subprocess.run([sys.executable, "-"], input=source, capture_output=True, check=True, env={"LC_ALL": "C"})
    found = re.fullmatch(rb"\n@@cloudfsck n-1 begin@@\n(.*)\n@@cloudfsck n-1 end@@\n", done.stdout)
    assert found, done
    answer: dict[str, Any] = json.loads(found.group(1))
    return answer


@pytest.mark.parametrize("forced", [False, True])
def test_the_program_answers_between_its_marks(
    virsh: Recorded, processes: Processes, tmp_path: Path, forced: bool
) -> None:
    virsh.read()
    top = tmp_path / "instances"
    (top / A).mkdir(parents=True)
    (processes.path / "sys/kernel/random").mkdir(parents=True)
    (processes.path / "sys/kernel/random/boot_id").write_text("boot\n")
    processes.add(10, [b"qemu", b"-uuid", A.encode()], [f"{top}/{A}/disk (deleted)"])
    request = {
        "version": 1,
        "nonce": "n-1",
        "virsh": [str(virsh.path)],
        "ovs_vsctl": [],
        "nova_conf": None,
        "instances_path": str(top),
        "proc": str(processes.path),
        "servers": None,
    }
    answer = run(request, forced)
    assert answer["failed"] == {}
    assert (answer["version"], answer["boot_id"]) == (1, "boot")
    assert len(answer["domains"]) == 8
    assert answer["processes"][0]["unnamed"] == 1
    assert answer["instances"]["entries"][0]["open_by"] == [10]
    assert set(answer) == {
        "version", "clock", "hostname", "canonical", "boot_id", "seconds", "failed", "domains", "processes",
        "instances", "storage", "mounts", "ovs", "swtpm", "nvram",
    }  # fmt: skip


def test_a_version_that_is_not_spoken() -> None:
    answer = run({"version": 2, "nonce": "n-1"}, True)
    assert set(answer["failed"]) == {"domains", "processes", "instances", "storage", "mounts", "ovs", "swtpm", "nvram"}
    assert not set(answer["failed"]) & set(answer)


@pytest.mark.parametrize("nonce", ["", "a b", "x\n", None, "end@@"])
def test_a_nonce_that_could_forge_a_mark(nonce: str | None) -> None:
    done = subprocess.run(
        [sys.executable, str(SOURCE)],
        input=json.dumps({"version": 1, "nonce": nonce}).encode(),
        capture_output=True,
        check=False,
    )
    assert done.returncode != 0
    assert done.stdout == b""


# ---------------------------------------------------------------------------------------------------------------------
# Open vSwitch.

PORT, OWNER = "11111111-0000-4000-8000-000000000001", "22222222-0000-4000-8000-000000000001"


@pytest.fixture
def switch(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """A real database of Open vSwitch, with nothing in it; and its own ovs-vsctl, as that of a host."""
    schema = Path("/usr/share/openvswitch/vswitch.ovsschema")
    if shutil.which("ovsdb-server") is None or not schema.exists():
        pytest.skip("Open vSwitch is not installed")
    subprocess.run(["ovsdb-tool", "create", tmp_path / "db", schema], check=True)
    socket = tmp_path / "db.sock"
    server = subprocess.Popen(
        ["ovsdb-server", tmp_path / "db", f"--remote=punix:{socket}", f"--unixctl={tmp_path / 'ctl'}", "-vconsole:off"]
    )
    try:
        program = tmp_path / "ovs-vsctl"
        program.write_text(f'#!/bin/sh\nexec /usr/bin/ovs-vsctl --db=unix:{socket} "$@"\n')
        program.chmod(0o755)
        while not socket.exists():
            time.sleep(0.01)
        yield lambda *words: subprocess.run(
            [program, "--no-wait", *words], check=True, capture_output=True
        ).stdout.decode()
    finally:
        server.terminate()
        server.wait()


@pytest.mark.real
def test_interfaces_of_a_real_switch(switch: Callable[..., str], tmp_path: Path) -> None:
    request: dict[str, Any] = {"ovs_vsctl": [str(tmp_path / "ovs-vsctl")]}
    assert probe.read_ovs(request) == []
    empty = subprocess.run(["ovsdb-tool", "show-log", "-m", tmp_path / "db"], check=True, capture_output=True).stdout
    assert b"insert" not in empty, "whoever only reads leaves an empty database empty"
    marks = [
        f"external_ids:iface-id={PORT}",
        'external_ids:attached-mac="fa:16:3e:00:00:01"',
        f"external_ids:vm-uuid={OWNER}",
    ]
    switch("add-br", "br-int", "--", "add-port", "br-int", "tap1", "--", "set", "Interface", "tap1", *marks)
    switch("add-bond", "br-int", "bond0", "tap2", "tap3", "--", "set", "Interface", "tap3", "external_ids:iface-id=x")
    one = {"bridge": "br-int", "name": "tap1", "iface_id": PORT, "mac": "fa:16:3e:00:00:01", "vm": OWNER,
           "ofport": None, "error": None}  # fmt: skip
    other = {**one, "name": "tap3", "iface_id": "x", "mac": None, "vm": None}
    assert sorted(probe.read_ovs(request), key=lambda row: str(row["name"])) == [one, other]
    assert probe.read_ovs({**request, "servers": [PORT]}) == [one]
    assert probe.read_ovs({**request, "servers": [OWNER]}) == [one]
    assert probe.read_ovs({**request, "servers": ["another"]}) == []


def test_interfaces_that_work_and_that_do_not() -> None:
    bridges = {"headings": ["name", "ports"], "data": [["br-int", ["uuid", "p"]]]}
    ports = {"headings": ["_uuid", "interfaces"], "data": [[["uuid", "p"], ["set", [["uuid", "i"], ["uuid", "j"]]]]]}
    of = ["map", [["iface-id", PORT]]]
    gone = "could not open network device tap2 (No such device)"
    interfaces = {
        "headings": ["_uuid", "name", "external_ids", "ofport", "error"],
        "data": [
            [["uuid", "i"], "tap1", of, 7, ["set", []]],
            [["uuid", "j"], "tap2", of, -1, gone],
            [["uuid", "k"], "tap3", ["map", []], 8, ["set", []]],
        ],
    }
    answer = "\n".join(map(json.dumps, (bridges, ports, interfaces)))
    found = [(row["name"], row["bridge"], row["ofport"], row["error"]) for row in probe.ovs_interfaces(answer)]
    assert found == [("tap1", "br-int", 7, None), ("tap2", "br-int", -1, gone)]


@pytest.mark.parametrize("answer", ["", "{}\n{}"])
def test_an_answer_that_is_cut_off_is_no_empty_switch(answer: str) -> None:
    with pytest.raises(probe.Unread, match="answers to three questions"):
        probe.ovs_interfaces(answer)


def test_a_host_without_open_vswitch_has_no_interface_of_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert probe.read_ovs({"ovs_vsctl": []}) == [], "the configuration says that there is none"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert probe.read_ovs({}) == []
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\necho 'Cannot connect to the Docker daemon' >&2\nexit 1\n")
    docker.chmod(0o755)
    monkeypatch.setattr(probe, "STARTED", {"docker": (str(tmp_path / "lib"),)})
    assert probe.read_ovs({"sys": "/nowhere"}) == [], "its daemon was never started"
    (tmp_path / "lib").mkdir()
    docker.write_text("#!/bin/sh\necho 'Error: No such container: openvswitch_vswitchd' >&2\nexit 1\n")
    docker.chmod(0o755)
    assert probe.read_ovs({}) == []
    docker.write_text("#!/bin/sh\necho 'Cannot connect to the Docker daemon' >&2\nexit 1\n")
    with pytest.raises(probe.Unread, match="Cannot connect to the Docker daemon"):
        probe.read_ovs({})


@pytest.mark.parametrize("trace", ["conf.db", "sys/module/openvswitch", None])
def test_a_switch_that_was_never_started_has_no_interface(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trace: str | None
) -> None:
    (tmp_path / "conf.db").symlink_to(tmp_path / "nowhere" if trace != "conf.db" else __file__)
    (tmp_path / (trace if trace and "/" in trace else "sys")).mkdir(parents=True)
    program = tmp_path / "ovs-vsctl"
    program.write_text("#!/bin/sh\necho 'ovs-vsctl: database connection failed' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(probe, "STARTED", {"ovs-vsctl": (str(tmp_path / "conf.db"),)})
    request = {"sys": str(tmp_path / "sys")}
    if trace is None:
        assert probe.read_ovs(request) == []
    else:
        with pytest.raises(probe.Unread, match="database connection failed"):
            probe.read_ovs(request)


def test_a_switch_that_does_not_answer_is_no_empty_one(tmp_path: Path) -> None:
    program = tmp_path / "ovs-vsctl"
    with pytest.raises(probe.Unread, match="is not installed"):
        probe.read_ovs({"ovs_vsctl": [str(program)]})
    program.write_text("#!/bin/sh\necho 'ovs-vsctl: database connection failed' >&2\nexit 1\n")
    program.chmod(0o755)
    with pytest.raises(probe.Unread, match="database connection failed"):
        probe.read_ovs({"ovs_vsctl": [str(program)]})
    program.chmod(0o644)
    with pytest.raises(probe.Unread, match="cannot be run"):
        probe.read_ovs({"ovs_vsctl": [str(program)]})


@pytest.mark.parametrize(
    "argv", [["sh", "-c", "id"], ["ovs-vsctl", "--", "del-br", "br-int"], ["docker", "run", "x", "ovs-vsctl"]]
)
def test_only_ovs_vsctl_is_run(argv: list[str]) -> None:
    with pytest.raises(probe.Unread, match="ovs-vsctl"):
        probe.read_ovs({"ovs_vsctl": argv})
