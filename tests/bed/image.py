"""The file system of a virtual hypervisor: this machine's own programs in one archive, with which a kernel boots.

There is no distribution to unpack and none to start: the archive holds the programs, the libraries that they load,
today's os-brick, and the modules of Debian's cloud kernel. The last two are what tests/install-bed has put into
.venv-nova/ and .cache/kernel/. It is made once for what is installed, in .cache/initiator-<digest of that>.img. It is
not compressed: a kernel that is emulated takes half a minute to unpack it.
"""

import hashlib
import itertools
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .programs import INSTALLER, REPOSITORY, Missing, need, program, run

KERNEL = REPOSITORY / ".cache" / "kernel"
#: Today's Nova, and with it today's os-brick; tests/install-bed makes it, with Debian's own Python.
NOVA = REPOSITORY / ".venv-nova"
LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")

PROGRAMS = [
    "bash", "kmod", "udevadm", "dmsetup", "blkid", "blockdev", "multipath", "multipathd",
    "iscsid", "iscsiadm", "cryptsetup", "sshd", "libvirtd", "virsh", "qemu-system-x86_64", "qemu-img",
]  # fmt: skip
#: What these programs and the kernel ask for by another name.
LINKS = {
    "/usr/sbin/modprobe": "../bin/kmod",
    "/usr/sbin/insmod": "../bin/kmod",
    "/usr/bin/lsmod": "kmod",
    "/usr/bin/sh": "bash",
    "/usr/lib/systemd/systemd-udevd": "../../bin/udevadm",
    "/var/run": "../run",
}
#: What they load by name while they run, and so no ldd shows.
LOADED = [
    "qemu/accel-tcg-*.so",
    *(f"libvirt/connection-driver/libvirt_driver_{name}.so" for name in ("qemu", "nodedev", "secret", "storage")),
    "libgcc_s.so.1",
]
MULTIPATH = Path("/usr/lib/multipath")
DATA = [
    "/usr/share/libvirt/cpu_map", "/usr/share/libvirt/schemas", "/usr/share/seabios", "/usr/share/qemu/kvmvapic.bin",
    "/usr/share/qemu/linuxboot_dma.bin", "/usr/lib/ipxe/qemu/efi-virtio.rom", "/usr/lib/udev/scsi_id",
    "/usr/lib/locale/C.utf8", "/etc/ld.so.cache",
]  # fmt: skip
#: Of udev's rules those for block devices: every rule costs each event, and an emulated processor is slow.
RULES = [
    "50-udev-default", "55-dm", "56-dm-mpath", "60-block", "60-multipath",
    "60-persistent-storage", "60-persistent-storage-dm", "95-dm-notify",
]  # fmt: skip
MODULES = [
    "virtio_pci", "virtio_net", "virtio-rng", "iscsi_tcp", "sd_mod", "dm-mod", "dm-multipath", "dm-round-robin",
    "dm-service-time", "dm-crypt", "xts", "aes_generic", "ecb", "nvme-tcp", "nvmet-tcp", "brd",
]  # fmt: skip
#: Parts of Python's library that no program on a hypervisor imports, and that weigh most.
UNNEEDED = re.compile(
    r"config-.*|tests?|idlelib|lib2to3|ensurepip|tkinter|turtledemo|pydoc_data|distutils|dist-packages"
)
#: Tells what there is of all that is imported where os-brick attaches volumes, below the folder that has it.
BRICK = """\
import importlib.metadata, pathlib, sys
import os_brick.initiator.connector, oslo_concurrency.lockutils, oslo_config.cfg, oslo_log.log
site = pathlib.Path(os_brick.__file__).parents[1]
files = [pathlib.Path(each.__file__) for each in sys.modules.values() if getattr(each, "__file__", None)]
names = {path.relative_to(site).parts[0] for path in files if path.is_relative_to(site)}
made_by = importlib.metadata.packages_distributions()
for name in {one for name in names for one in made_by.get(name.partition(".")[0], ())}:
    names.add(importlib.metadata.distribution(name)._path.name)
print(*sorted(names))
"""
#: Where Debian's Python looks for them.
PACKAGES = Path("/usr/lib/python3/dist-packages")

USERS = """\
root:x:0:0:root:/root:/bin/bash
sshd:x:106:65534::/run/sshd:/usr/sbin/nologin
libvirt-qemu:x:64055:107::/var/lib/libvirt:/usr/sbin/nologin
nobody:x:65534:65534::/:/usr/sbin/nologin
"""
GROUPS = """\
root:x:0:
tty:x:5:
disk:x:6:
lp:x:7:
kmem:x:15:
dialout:x:20:
cdrom:x:24:
tape:x:26:
video:x:44:
render:x:105:
input:x:106:
kvm:x:107:
sgx:x:108:
libvirt:x:109:
libvirt-qemu:x:64055:
nogroup:x:65534:
"""
NAMES = """\
passwd: files
group: files
hosts: files
"""
FOLDERS = [
    "dev", "proc", "sys", "run", "tmp", "var/empty", "var/log/libvirt/qemu", "var/cache/libvirt", "var/lib/libvirt",
    "var/lib/nova", "var/lib/cloudfsck", "var/lib/iscsi", "etc/multipath", "etc/iscsi/nodes", "etc/libvirt/qemu",
]  # fmt: skip


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    target: str


#: What stands at a path: a directory, a link, a file of this machine, or bytes and whether they are a program.
Entry = None | Link | Path | tuple[bytes, bool]


def kernel() -> Path:
    """Debian's cloud kernel. Raises Missing where it was not fetched."""
    found = sorted(KERNEL.glob("boot/vmlinuz-*"))
    if not found:
        raise Missing(f"initiator: {KERNEL} has no kernel with an iSCSI initiator ({INSTALLER} fetches it)")
    return found[-1]


def base() -> Path:
    """The archive of all that does not change from one boot to the next; made if it is not there."""
    need("initiator", *PROGRAMS, "busybox", "ldd", "modprobe", "dpkg-query", root=True)
    booted = kernel()
    installed = run(["dpkg-query", "--show"])
    lock = NOVA / "lock.sha256"
    if not lock.exists():
        raise Missing(f"initiator: {NOVA} has no os-brick ({INSTALLER} installs it)")
    said = f"{booted.name}\n{installed}{lock.read_text()}"
    made = hashlib.sha256(said.encode() + Path(__file__).read_bytes()).hexdigest()
    path = REPOSITORY / ".cache" / f"initiator-{made[:12]}.img"
    if not path.exists():
        # Written aside: two test runs may be at this at the same time.
        aside = path.with_suffix(f".{os.getpid()}")
        with aside.open("wb") as file:
            write(file, _entries(booted.name.removeprefix("vmlinuz-")))
        for old in path.parent.glob("initiator-*.img"):
            old.unlink(missing_ok=True)
        aside.rename(path)
    return path


def write(file: BinaryIO, entries: dict[str, Entry]) -> None:
    """Write an archive in cpio's "newc" form, as the kernel reads it (Documentation/driver-api/early-userspace)."""
    whole: dict[str, Entry] = {}
    for name, entry in sorted(entries.items()):
        parts = name.strip("/").split("/")
        for above in itertools.accumulate(parts[:-1], "{}/{}".format):
            whole.setdefault(above, None)
        whole["/".join(parts)] = entry
    for number, (name, entry) in enumerate(whole.items(), 1):
        changed = 0.0
        match entry:
            case None:
                mode, content = stat.S_IFDIR | 0o755, b""
            case Link(target):
                mode, content = stat.S_IFLNK | 0o777, target.encode()
            case Path():
                found = entry.stat()
                # Python takes what it compiled before only if the source still has its time.
                mode, content, changed = stat.S_IFREG | stat.S_IMODE(found.st_mode), entry.read_bytes(), found.st_mtime
            case bytes() as text, bool() as executable:
                mode, content = stat.S_IFREG | (0o755 if executable else 0o600), text
        _append(file, number, mode, int(changed), name.encode(), content)
    _append(file, 0, 0, 0, b"TRAILER!!!", b"")
    file.write(b"\0" * (-file.tell() % 512))


def _append(file: BinaryIO, number: int, mode: int, changed: int, name: bytes, content: bytes) -> None:
    fields = (number, mode, 0, 0, 1, changed, len(content), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name + b"\0"
    file.write(head + b"\0" * (-len(head) % 4) + content + b"\0" * (-len(content) % 4))


def _entries(version: str) -> dict[str, Entry]:
    """Everything in the archive, by its path."""
    entries: dict[str, Entry] = dict.fromkeys(FOLDERS)
    entries |= {f"/{name}": Link(f"usr/{name}") for name in ("bin", "sbin", "lib", "lib64")}
    busybox = Path(program("busybox"))
    for applet in run([busybox, "--list"]).split():
        entries[f"/usr/bin/{applet}"] = Link("/usr/bin/busybox")
    entries["/usr/bin/busybox"] = busybox
    python = Path("/usr/bin/python3").resolve()
    library = Path(f"/usr/lib/{python.name}")
    files = [
        *(Path(program(name)) for name in PROGRAMS), python,
        *itertools.chain.from_iterable(LIBRARIES.glob(name) for name in LOADED),
        *MULTIPATH.glob("*.so"), *(path for name in DATA for path in _below(Path(name))),
        *(path for path in _below(library)), *(Path(f"/usr/lib/udev/rules.d/{name}.rules") for name in RULES),
    ]  # fmt: skip
    packages = _packages()
    entries |= packages
    for path in [*files, *_libraries([*files, *(one for one in packages.values() if isinstance(one, Path))])]:
        if path.exists():
            entries[str(path.parent.resolve() / path.name)] = path
    # What is a program of its own goes before what busybox has by the same name.
    entries |= {path: Link(target) for path, target in LINKS.items()}
    entries["/usr/bin/python3"] = Link(python.name)
    for path in _modules(version):
        entries["/usr/" + str(path.relative_to(KERNEL))] = path
    texts = {"passwd": USERS, "group": GROUPS, "nsswitch.conf": NAMES}
    return entries | {f"/etc/{name}": (text.encode(), False) for name, text in texts.items()}


def _packages() -> dict[str, Entry]:
    """os-brick and the packages of Python that it loads, with what they say of themselves."""
    (site,) = NOVA.glob("lib/python3*/site-packages")
    names = run([NOVA / "bin" / "python", "-W", "ignore", "-c", BRICK]).split()
    files = [path for name in names for path in _below(site / name)]
    return {str(PACKAGES / path.relative_to(site)): path for path in files}


def _below(path: Path) -> Iterator[Path]:
    """A file, or every file below a directory that is of use."""
    if not path.is_dir():
        yield path
        return
    for folder, below, files in os.walk(path):
        below[:] = [name for name in below if not UNNEEDED.fullmatch(name)]
        yield from (Path(folder, name) for name in files)


def _libraries(files: Iterable[Path]) -> set[Path]:
    """The libraries that these programs and libraries load, and what these load in turn."""
    said = run(["ldd", *(path for path in files if _is_code(path))], check=False)
    return {Path(found) for found in re.findall(r"(/\S+\.so\S*) \(0x", said)}


def _is_code(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _modules(version: str) -> set[Path]:
    """The kernel's modules that are wanted, those that they need, and its lists of modules."""
    folder = KERNEL / "lib" / "modules" / version
    found = set(folder.glob("modules.*"))
    for name in MODULES:
        said = run([shutil.which("modprobe") or "/sbin/modprobe", "-d", KERNEL, "-S", version, "--show-depends", name])
        found |= {Path(line.split()[1]) for line in said.splitlines() if line.startswith("insmod ")}
    return found
