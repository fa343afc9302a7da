"""The bed is real: the hypervisors, their sshds and domains, the databases and what their readers may do."""

import asyncio
import contextlib
import socket
import ssl
import uuid
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import pytest
import sqlalchemy as sa

from tests.bed import Array, Hypervisors, MariaDB, PostgreSQL, image
from tests.bed.programs import run
from tests.bed.targets import MIB, Portal

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def hypervisors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hypervisors]:
    with Hypervisors(tmp_path_factory.mktemp("hypervisors")) as hypervisors:
        yield hypervisors


@pytest.fixture(scope="module", params=[MariaDB, PostgreSQL])
def database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MariaDB | PostgreSQL]:
    with request.param(tmp_path_factory.mktemp("database")) as database:
        database.create("nova_api", "nova_api")
        database.create("nova_cell1", "nova_cell")
        yield database


def test_five_hosts_answer_over_ssh_as_who_they_are(hypervisors: Hypervisors) -> None:
    async def ask(address: str, key: Path) -> str:
        async with asyncssh.connect(
            address,
            username="root",
            client_keys=[str(key)],
            known_hosts=str(hypervisors.known_hosts),
            config=None,
            agent_path=None,
        ) as connection:
            done = await connection.run("hostname; virsh capabilities | grep -m1 '<uuid>'", check=True)
            assert isinstance(done.stdout, str)
            return done.stdout

    async def ask_all(key: Path) -> list[str]:
        return await asyncio.gather(*(ask(host.address, key) for host in hypervisors))

    answers = asyncio.run(ask_all(hypervisors.read_key))
    assert [answer.split()[0] for answer in answers] == ["hv1", "hv2", "hv3", "hv4", "hv5"]
    assert [answer.split()[1] for answer in answers] == [f"<uuid>{host.uuid}</uuid>" for host in hypervisors]
    assert asyncio.run(ask_all(hypervisors.write_key)) == answers


def test_another_hosts_key_is_not_trusted(hypervisors: Hypervisors, tmp_path: Path) -> None:
    lines = hypervisors.known_hosts.read_text().splitlines()
    first, second = lines[0].split(), lines[1].split()
    known = tmp_path / "known_hosts"
    known.write_text(" ".join([first[0], *second[1:]]) + "\n")

    async def connect() -> None:
        async with asyncssh.connect(
            hypervisors["hv1"].address,
            username="root",
            client_keys=[str(hypervisors.read_key)],
            known_hosts=str(known),
            config=None,
            agent_path=None,
        ):
            pass

    with pytest.raises(asyncssh.HostKeyNotVerifiable):
        asyncio.run(connect())


def test_domains_run_and_their_fingerprint_notices_every_change(hypervisors: Hypervisors) -> None:
    host = hypervisors["hv2"]
    runs, paused, off, transient, foreign = (str(uuid.uuid4()) for _ in range(5))
    host.define(runs, "instance-00000001")
    host.define(paused, "instance-00000002", start="paused", ports=["11860801-1eb8-4b28-8f62-333b370ce329"])
    host.define(off, "instance-00000003", start="no")
    host.define(transient, "instance-00000004", persistent=False)
    host.define(foreign, "not-nova's", nova=False, disk=False)
    states = {runs: "running", paused: "paused", off: "shutoff", transient: "running", foreign: "running"}
    assert host.states() == states
    assert "openstack.org/xmlns/libvirt/nova" not in host.virsh(f"dumpxml {foreign}")
    assert "_base/" in host.run(["qemu-img", "info", "-U", f"{host.instances}/{runs}/disk"])

    servers = list(states)
    before = host.fingerprint(*servers)
    host.stop_libvirtd()
    assert host.run(["virsh", "-c", "qemu:///system", "list"], check=False) == ""
    host.start_libvirtd()
    assert host.states() == states
    assert host.fingerprint(*servers) == before

    host.virsh(f"suspend {runs}", f"resume {runs}")
    seen = {host.fingerprint(*servers)}
    host.path(f"{host.instances}/{off}/disk.info").chmod(0o600)
    seen.add(host.fingerprint(*servers))
    host.virsh(f"destroy {paused}")
    seen.add(host.fingerprint(*servers))
    host.virsh(f"undefine {foreign}")
    seen.add(host.fingerprint(*servers))
    base = next(host.path(f"{host.instances}/_base").iterdir())
    base.write_bytes(base.read_bytes() + b"x")
    seen.add(host.fingerprint(*servers))
    assert before not in seen
    assert len(seen) == 5


def test_one_server_can_run_on_two_hosts_with_the_same_tap(hypervisors: Hypervisors) -> None:
    server, port = str(uuid.uuid4()), str(uuid.uuid4())
    for name in ("hv3", "hv4"):
        hypervisors[name].define(server, "instance-0000000a", ports=[port])
        assert hypervisors[name].states() == {server: "running"}


def test_a_host_that_is_off_refuses_is_silent_or_hangs(hypervisors: Hypervisors) -> None:
    host = hypervisors["hv5"]

    def greeting() -> bytes:
        with socket.create_connection((host.address, host.port), timeout=0.5) as connection:
            return connection.recv(7)

    assert greeting() == b"SSH-2.0"
    host.off()
    with pytest.raises(ConnectionRefusedError):
        greeting()
    host.on()
    assert greeting() == b"SSH-2.0"
    host.off("silent")
    with pytest.raises(TimeoutError):
        greeting()
    host.on()
    host.off("hung")
    with socket.create_connection((host.address, host.port), timeout=0.5) as connection, pytest.raises(TimeoutError):
        connection.recv(7)
    host.on()
    assert greeting() == b"SSH-2.0"


def test_a_host_writes_nothing_on_this_machine(hypervisors: Hypervisors) -> None:
    host = hypervisors["hv1"]
    for path in ("/etc/cloudfsck-test", "/var/lib/cloudfsck/test", "/var/lib/cloudfsck-test", "/root/.bashrc"):
        host.write_file(path, "# of the test bed\n")
        assert host.run(["cat", path]) == "# of the test bed\n"
        here = Path(path)
        assert not here.exists() or here.read_text() != "# of the test bed\n"
    host.write_file("/root/.bashrc", "")


def test_novas_tables_are_there_and_the_reader_cannot_write(database: MariaDB | PostgreSQL) -> None:
    reader = sa.create_engine(database.url("nova_cell1"), poolclass=sa.pool.NullPool)
    tables = set(sa.inspect(reader).get_table_names())
    assert {"instances", "shadow_instances", "compute_nodes", "migrations", "alembic_version"} <= tables
    api = sa.create_engine(database.url("nova_api"), poolclass=sa.pool.NullPool)
    assert {"cell_mappings", "instance_mappings", "host_mappings"} <= set(sa.inspect(api).get_table_names())

    columns = "(host, topic, report_count, deleted)"
    database.execute("nova_cell1", f"INSERT INTO services {columns} VALUES (%s, 'compute', 0, 0)", "hv1")
    assert database.execute("nova_cell1", "SELECT host FROM services WHERE host LIKE 'hv%'") == [("hv1",)]
    with reader.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM services").scalar() == 1
    for sql in ("DELETE FROM services", "UPDATE services SET deleted = 1", "CREATE TABLE mine (a integer)"):
        with reader.connect() as connection, pytest.raises(sa.exc.DBAPIError, match="denied"):
            connection.exec_driver_sql(sql)


def test_a_database_can_go_and_come_back(database: MariaDB | PostgreSQL) -> None:
    database.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", database.port), timeout=2)
    database.start()
    assert database.execute("nova_cell1", "SELECT count(*) FROM instances") == [(0,)]


def test_mariadbs_certificate_holds_for_this_machine(tmp_path: Path) -> None:
    with MariaDB(tmp_path / "named", tls=["127.0.0.1", "localhost"]) as database:
        verified = ssl.create_default_context(cafile=database.ca)
        engine = sa.create_engine(database.url(""), connect_args={"ssl": verified})
        with engine.connect() as connection:
            cipher = connection.exec_driver_sql("SHOW STATUS LIKE 'Ssl_cipher'").one()
        assert cipher[1].startswith("TLS_")


def test_a_portal_of_an_array_can_be_cut_off_alone(tmp_path: Path) -> None:
    def reach(portal: Portal) -> socket.socket:
        return socket.create_connection(("127.0.0.1", portal.port), timeout=5)

    with Array(tmp_path) as array:
        name = array.target(str(uuid.uuid4()))
        array.shared_target("iqn.1992-08.com.netapp:sn.1", [1, 255], MIB)
        with pytest.raises(ValueError, match="no such LUNs"):
            array.shared_target("iqn.1992-08.com.netapp:sn.2", [0])
        first, second = array.portals
        with reach(first) as lost, reach(second) as kept:
            first.block()
            with contextlib.suppress(ConnectionResetError):
                assert lost.recv(1) == b""
            with pytest.raises(ConnectionRefusedError):
                reach(first)
            kept.settimeout(0.2)
            with pytest.raises(TimeoutError):
                kept.recv(1)
            first.unblock()
            reach(first).close()
        array.remove_target(name)
        array.target(name.rpartition("volume-")[2])
        ports = [portal.port for portal in array.portals]
    for port in ports:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)


def test_an_archive_is_what_cpio_reads(tmp_path: Path) -> None:
    entries: dict[str, image.Entry] = {
        "/empty": None, "/etc/name": (b"one\n", False), "/usr/bin/own": Path(__file__),
        "/bin": image.Link("usr/bin"), "/init": (b"#!/bin/sh\n", True),
    }  # fmt: skip
    with (tmp_path / "archive").open("wb") as file:
        image.write(file, entries)
    (tmp_path / "out").mkdir()
    run(["bash", "-c", f"cd {tmp_path}/out && busybox cpio -im <../archive"])
    out = tmp_path / "out"
    assert (out / "bin/own").read_bytes() == Path(__file__).read_bytes()
    assert (out / "usr/bin/own").stat().st_mtime == int(Path(__file__).stat().st_mtime)
    assert (out / "etc/name").read_text() == "one\n"
    assert [(out / name).stat().st_mode & 0o777 for name in ("init", "etc/name", "empty")] == [0o755, 0o600, 0o755]
