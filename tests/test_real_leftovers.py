"""What else hosts and databases keep, on real servers: found alone, beside what only looks like it, and put right.

What a program repairs is repaired, taken back, repaired again and purged.  For all else the commands that the finding
names are typed, and then the cloud is clean.
"""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import real_cloud
from tests.bed import Hypervisor
from tests.real_cloud import DIRECTORY, HEALTHY, INSTANCES, LEFTOVER, TWIN, Cloud, User, ident

pytestmark = pytest.mark.real

BY_NAME = {server.name: server.uuid for server in HEALTHY}
#: Archived thirty days ago; it was on compute5.
ARCHIVED = BY_NAME["gone-2"]
#: nova-compute on compute5 is still removing what there is of it.
DELETING = BY_NAME["deleting-1"]
#: It lives, on compute1.
LIVING = BY_NAME["web-1"]
#: A server of which Nova knows no row any more; and one that no Nova ever knew.
FORGOTTEN, STRANGE = ident("server", "forgotten"), ident("server", "strange")
NVRAM = "/var/lib/libvirt/qemu/nvram"
SWTPM = "/var/lib/libvirt/swtpm"


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """The cloud without damage; each test takes away what it has made."""
    with Cloud(tmp_path_factory.mktemp("real")) as cloud:
        # Nova has this row whatever is broken: here its server runs once.
        cloud.host(TWIN.host).define(TWIN.uuid, "instance-0000aaaa", display=TWIN.name)
        yield cloud


@pytest.fixture
def user(cloud: Cloud, tmp_path: Path) -> Iterator[User]:
    cloud.forget()
    user = User(cloud, cloud.configure(tmp_path))
    before = cloud.neighbours()
    yield user
    assert cloud.neighbours() == before


def clean(user: User) -> None:
    ran = user("check")
    assert (ran.status, ran.data["findings"], ran.held) == (0, [], {}), ran.out


def only(user: User, check: str, key: str) -> dict[str, Any]:
    """The one thing that a check has found; it is proven, and every source was read whole."""
    ran = user("check")
    assert (ran.status, ran.data["unknown"]) == (4, []), ran.out
    ((found),) = ran.data["findings"]
    assert (found["check"], found["key"], found["state"]) == (check, key, "proven"), found
    assert isinstance(found, dict)
    return found


def test_without_damage_nothing_is_found(user: User) -> None:
    clean(user)


# -- directories that a program moves


@contextmanager
def directory(host: Hypervisor, server: str, suffix: str = "") -> Iterator[Path]:
    """A server's directory with its disks, under this name."""
    host.make_directory(server)
    here = host.path(f"{INSTANCES}/{server}")
    if suffix:
        here = here.rename(here.with_name(f"{server}{suffix}"))
    try:
        yield here
    finally:
        for name in (here.name, f"{here.name}.aside"):
            host.run(["rm", "-rf", f"{INSTANCES}/{name}"])


@contextmanager
def renamed(host: Hypervisor, server: str, suffix: str) -> Iterator[None]:
    here = host.path(f"{INSTANCES}/{server}")
    aside = here.rename(here.with_name(f"{server}{suffix}"))
    try:
        yield
    finally:
        aside.rename(here)


def quarantined_undone_and_purged(cloud: Cloud, user: User, host: Hypervisor, here: Path, key: str) -> None:
    """The directory into quarantine, back with every byte, into quarantine again, and away."""
    server = here.name[:36]
    was = host.facts(server)
    user("repair", "--yes").came_to(1, {key: "done"})
    assert not here.exists()
    (run,) = {one["run"] for one in user("undo").data}
    user("undo", run, "--yes").came_to(1, {key: "done"})
    assert host.facts(server) == was
    user("repair", "--yes").came_to(1, {key: "done"})
    assert set(user("purge", "--yes").outcomes.values()) == {"done"}
    assert not here.exists()
    clean(user)


@pytest.mark.long
@pytest.mark.parametrize(
    ("suffix", "check"), [("_del", "nova-del-directory-left"), ("_resize", "nova-resize-directory-left")]
)
def test_a_directory_that_nova_had_renamed(suffix: str, check: str, cloud: Cloud, user: User) -> None:
    host = cloud.host("compute5")
    # Beside it one that nova-compute still removes; and on compute1 stands the source of an open resize.
    with renamed(host, DELETING, suffix), directory(host, ARCHIVED, suffix) as here:
        key = f"compute5/{here.name}"
        found = only(user, check, key)
        assert found["risk"] == "ask"
        quarantined_undone_and_purged(cloud, user, host, here, key)


@pytest.mark.long
def test_a_directory_of_a_resize_that_may_be_the_only_copy(cloud: Cloud, user: User) -> None:
    host = cloud.host("compute3")
    with directory(host, LIVING, "_resize") as here:
        found = only(user, "nova-resize-directory-left", f"compute3/{here.name}")
        assert "the only good copy" in found["by_hand"]
        ran = user("repair", "--yes")
        assert (ran.status, ran.data["acts"]) == (4, [])
        typed_on_host(cloud, found)
        clean(user)


# -- what a person puts right


def typed_on_host(cloud: Cloud, found: dict[str, Any]) -> None:
    """Type what the finding says for its host: it looks, and then moves the thing aside."""
    name = found["evidence"]["host"]
    host, prefix = cloud.host(name), f"on {name}: "
    commands = [command.removeprefix(prefix) for command in found["commands"] if command.startswith(prefix)]
    assert commands[-1].startswith("mv -n ")
    for command in commands:
        host.run(["bash", "-c", command], check=command is commands[-1])


def typed_sql(cloud: Cloud, found: dict[str, Any], cell: str) -> None:
    """Type the SQL of the finding in one session in the cell's database, and commit: what must be one is one."""
    start = f"in the database of {cell} (MySQL)"
    (command,) = (command for command in found["commands"] if command.startswith(start))
    statements = "START TRANSACTION;" + command.partition("START TRANSACTION;")[2]
    assert cloud.places[cell].typed(f"nova_{cell}", f"{statements} COMMIT;").splitlines()[-1] == "1"


@contextmanager
def forgotten(cloud: Cloud) -> Iterator[str]:
    """A directory of a server of which Nova keeps nothing but what was asked for; and one of which it keeps nothing."""
    host = cloud.host("compute3")
    with directory(host, STRANGE), directory(host, FORGOTTEN):
        asked = "INSERT INTO request_specs (instance_uuid, spec) VALUES (%s, '{}')"
        cloud.first.execute("nova_api", asked, FORGOTTEN)
        try:
            yield f"compute3/{FORGOTTEN}"
        finally:
            cloud.first.execute("nova_api", "DELETE FROM request_specs WHERE instance_uuid = %s", FORGOTTEN)


@contextmanager
def old_image(cloud: Cloud) -> Iterator[str]:
    """A file system for the images of compute5 with one that nobody has used for ten days, one that is young, its own.

    Of a file's times, the change is the kernel's alone to write; so it is written into an unmounted file system.
    """
    host = cloud.host("compute5")
    here, content = host.path(f"{INSTANCES}/_base"), cloud.directory / "images"
    subprocess.run(["cp", "-a", here, content], check=True)
    for name in ("0" * 40, "1" * 40):
        (content / name).write_bytes(b"an image that was" * 4096)
    file = cloud.directory / "images.ext4"
    subprocess.run(["truncate", "--size=32M", file], check=True)
    subprocess.run(["/sbin/mkfs.ext4", "-q", "-d", content, file], check=True)
    then = int(time.time() - 10 * 86400)
    change = "".join(f"set_inode_field /{'0' * 40} {which} @{then}\n" for which in ("mtime", "ctime"))
    subprocess.run(["/sbin/debugfs", "-w", "-f", "-", file], input=change.encode(), check=True, capture_output=True)
    host.run(["mount", "-o", "loop", str(file), f"{INSTANCES}/_base"])
    try:
        yield f"compute5/{'0' * 40}"
    finally:
        host.run(["umount", f"{INSTANCES}/_base"])
        subprocess.run(["rm", "-rf", content, file], check=True)


@contextmanager
def keys_of_a_tpm(cloud: Cloud) -> Iterator[str]:
    """The state of a TPM of an archived server; beside it that of one that lives, and of one that no Nova knows."""
    host = cloud.host("compute5")
    servers = (ARCHIVED, BY_NAME["mail-1"], STRANGE)
    for server in servers:
        host.write_file(f"{SWTPM}/{server}/tpm2/tpm2-00.permall", "sealed keys")
    try:
        yield f"compute5/{ARCHIVED}"
    finally:
        host.run(["rm", "-r", SWTPM])


@contextmanager
def variables_of_a_firmware(cloud: Cloud) -> Iterator[str]:
    """A file of NVRAM of no domain; beside it those of two domains, one under its own name and one as it was given."""
    host, one = cloud.host("compute1"), BY_NAME["cache-1"]
    was = host.virsh(f"dumpxml {one} --inactive --security-info")
    given = f"<nvram>{NVRAM}/instance-0000beef_VARS.fd</nvram></os>"
    loader = "<loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE.fd</loader>"
    host.run(["virsh", "-q", "-c", "qemu:///system", "define /dev/stdin"], was.replace("</os>", loader + given))
    own = host.virsh(f"domname {LIVING}").strip()
    names = ("instance-0000dead_VARS.fd", "instance-0000beef_VARS.fd", f"{own}_VARS.fd", "firewall_VARS.fd")
    for name in names:
        host.write_file(f"{NVRAM}/{name}", "boot order")
    try:
        yield f"compute1/{names[0]}"
    finally:
        host.run(["bash", "-c", f"rm -f {NVRAM}/*_VARS.fd*"])
        host.run(["virsh", "-q", "-c", "qemu:///system", "define /dev/stdin"], was)


LEFT: dict[str, tuple[Callable[[Cloud], AbstractContextManager[str]], str]] = {
    "a directory of a server that Nova has forgotten": (forgotten, "nova-directory-unknown-to-nova"),
    "an image that nobody uses": (old_image, "nova-base-image-unused"),
    "the keys of a TPM": (keys_of_a_tpm, "libvirt-tpm-state-of-deleted-server"),
    "the variables of a firmware": (variables_of_a_firmware, "libvirt-nvram-without-domain"),
}


@pytest.mark.long
@pytest.mark.parametrize("name", LEFT)
def test_what_a_person_moves_aside(name: str, cloud: Cloud, user: User) -> None:
    make, check = LEFT[name]
    with make(cloud) as key:
        found = only(user, check, key)
        assert found["risk"] == "by-hand"
        ran = user("repair", "--yes")
        assert (ran.status, ran.data["acts"]) == (4, [])
        typed_on_host(cloud, found)
        clean(user)


def test_a_row_that_names_another_compute_node(cloud: Cloud, user: User) -> None:
    ((right,),) = cloud.first.execute("nova_cell1", "SELECT compute_id FROM instances WHERE uuid = %s", LIVING)
    change = "UPDATE instances SET compute_id = %s WHERE uuid = %s"
    cloud.first.execute("nova_cell1", change, right + 1, LIVING)
    try:
        found = only(user, "nova-server-of-other-compute-node", LIVING)
        assert user("repair", "--yes").data["acts"] == []
        typed_sql(cloud, found, "cell1")
        clean(user)
    finally:
        cloud.first.execute("nova_cell1", change, right, LIVING)


def test_a_server_in_two_cells(cloud: Cloud, user: User) -> None:
    """As after a move between cells that ended before the row of the old cell was deleted."""
    server = BY_NAME["crm-2"]
    columns = ("uuid", "user_id", "project_id", "display_name", "hostname", "vm_state", "power_state", "hidden",
               "created_at", "updated_at", "deleted")  # fmt: skip
    (row,) = cloud.second.execute("nova_cell2", f"SELECT {', '.join(columns)} FROM instances WHERE uuid = %s", server)
    cloud.first.execute(
        "nova_cell1", f"INSERT INTO instances ({', '.join(columns)}) VALUES ({', '.join(['%s'] * len(columns))})", *row
    )
    try:
        found = only(user, "nova-server-in-two-cells", server)
        assert user("repair", "--yes").data["acts"] == []
        typed_sql(cloud, found, "cell1")
        clean(user)
    finally:
        cloud.first.execute("nova_cell1", "DELETE FROM instances WHERE uuid = %s", server)


# -- two hosts, one file system


@contextmanager
def sharing(cloud: Cloud, one: str, other: str) -> Iterator[None]:
    """The instances of one host are mounted on another too, and both have noted it, as nova-compute does."""
    stands, mounts = cloud.host(one), cloud.host(other)
    noted = {name: time.time() for name in (one, other)}
    with ExitStack() as stack:
        file = stands.path(f"{INSTANCES}/compute_nodes")
        stack.enter_context(real_cloud.changed(file, json.dumps(noted)))
        mounts.run(["mount", "--bind", str(stands.directory / "lib-nova" / "instances"), INSTANCES])
        stack.callback(mounts.run, ["umount", INSTANCES])
        yield


def test_two_hosts_on_one_file_system_are_judged_as_one(cloud: Cloud, user: User) -> None:
    # Of what lies there, a part is of servers that run on the one host, a part of servers that run on the other.
    with sharing(cloud, "compute3", "compute1"), directory(cloud.host("compute3"), LEFTOVER.uuid) as here:
        found = only(user, DIRECTORY, f"compute1/{LEFTOVER.uuid}")
        assert found["evidence"]["seen_on"] == ["compute1", "compute3"]
        assert "may be shared" in found["by_hand"]
        ran = user("repair", "--yes")
        assert (ran.status, ran.data["acts"]) == (4, [])
        typed_on_host(cloud, found)
        assert not here.exists()
        clean(user)


def test_a_disk_on_a_shared_file_system_is_in_use_wherever_its_guest_runs(cloud: Cloud, user: User) -> None:
    with sharing(cloud, "compute3", "compute1"):
        host = cloud.host("compute1")
        with directory(host, ARCHIVED):
            host.define(ARCHIVED, "instance-0000bbbb")
            try:
                only(user, real_cloud.ARCHIVED, f"compute1/{ARCHIVED}")
            finally:
                host.virsh(f"destroy {ARCHIVED}", f"undefine {ARCHIVED}")
