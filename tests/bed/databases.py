"""Real MariaDB and PostgreSQL servers with Nova's real schemas; each has its own directory, port and accounts.

A schema is made once by Nova's own migrations, today's (nova_*) or OpenStack Zed's (zed_*), and dumped to
.cache/nova-schema-<which Nova>/ in the repository; every later database is restored from that dump.
"""

import abc
import contextlib
import hashlib
import os
import pwd
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import sqlalchemy as sa

from .programs import ENVIRONMENT, INSTALLER, REPOSITORY, Failed, Missing, await_true, end, need, run, serve

Schema = Literal["nova_api", "nova_cell", "zed_api", "zed_cell"]
NOVA = REPOSITORY / ".venv-nova"
LOCK = REPOSITORY / "tests" / "nova-requirements.txt"
# Debian keeps nova-manage in a package that asks which database to set up; python3-nova has all of it but the name.
ZED = ["/usr/bin/python3", "-c", "import sys; from nova.cmd.manage import main; sys.exit(main())"]

MARIADB = """\
[mariadbd]
datadir={data}
socket={socket}
pid-file={data}/pid
# A server that starts removes what another has left there, and what one that runs has there now.
tmpdir={tmp}
bind-address=127.0.0.1
port={port}
{extra}
skip-name-resolve
character-set-server=utf8mb4
innodb_buffer_pool_size=64M
innodb_log_file_size=16M
innodb_flush_log_at_trx_commit=0
innodb_flush_method=nosync
innodb_doublewrite=0
aria_log_file_size=8M
max_connections=300
"""

POSTGRESQL = """\
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{data}'
fsync = off
synchronous_commit = off
full_page_writes = off
shared_buffers = 64MB
max_connections = 100
"""


@dataclass(frozen=True)
class Account:
    """A user of a database server."""

    user: str
    password: str


class Server(abc.ABC):
    """What both servers have in common; a context manager that starts and stops it."""

    kind: str
    driver: str
    nova_driver: str
    shutdown = signal.SIGTERM
    reader = Account("reader", "reads-only")

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()
        self.data = self.directory / "data"
        self.log = self.directory / "log"
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._engines: dict[str, sa.Engine] = {}

    def __enter__(self) -> Self:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self.port = free_port()
            self._install()
            self.start()
            self._open_reader()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._remove()

    def start(self) -> None:
        """Start the server, after stop() with the port and the databases that it had; on return it answers."""
        self._process = self._serve()
        await_true(f"{self.kind} answers on its socket", self._answers)

    def stop(self) -> None:
        """Stop the server as a shutdown does; its port then refuses connections."""
        if self._process is not None:
            end(self._process, self.shutdown)
            self._process = None

    def create(self, name: str, schema: Schema | None = None) -> None:
        """Make a database, empty or with one of Nova's schemas, which the reader may read."""
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise ValueError(f"{name} is no name for a database of the bed")
        self._create_empty(name)
        if schema is not None:
            dump = self._dump(schema)
            if not dump.exists():
                scratch = f"schema_of_{schema}"
                self._create_empty(scratch)
                self._migrate(scratch, schema)
                # Written aside: two test runs may be at this at the same time.
                aside = dump.with_suffix(f".{os.getpid()}")
                aside.write_text(self._dumped(scratch))
                aside.rename(dump)
                self.execute("", f"DROP DATABASE {scratch}")
            self._restore(name, dump)
        self._let_read(name)

    def url(self, name: str, account: Account | None = None) -> str:
        """Where a database is, as SQLAlchemy writes it; the account is the reader's unless another is given."""
        account = account or self.reader
        return f"{self.driver}://{account.user}:{account.password}@127.0.0.1:{self.port}/{name}"

    def execute(self, name: str, sql: str, *args: Any) -> list[tuple[Any, ...]]:
        """Run one statement in a database as the server's owner, commit, and return the rows if it has any.

        A value stands in the statement as %s. One list of tuples as the only argument runs it for many rows.
        """
        many = len(args) == 1 and isinstance(args[0], list)
        with self._engine(name).connect() as connection:
            # Without values, % is only a sign; outside transactions, so that CREATE DATABASE may be sent too.
            connection = connection.execution_options(isolation_level="AUTOCOMMIT", no_parameters=not args)
            result = connection.exec_driver_sql(sql, args[0] if many else args or None)
            return [tuple(row) for row in result] if result.returns_rows else []

    @abc.abstractmethod
    def _install(self) -> None:
        """Make the data directory, or raise Missing."""

    @abc.abstractmethod
    def _serve(self) -> subprocess.Popen[bytes]: ...

    @abc.abstractmethod
    def _socket(self) -> Path: ...

    @abc.abstractmethod
    def _owner_url(self, name: str, driver: str) -> str:
        """The way in by socket, without a password."""

    @abc.abstractmethod
    def _open_reader(self) -> None: ...

    @abc.abstractmethod
    def _create_empty(self, name: str) -> None: ...

    @abc.abstractmethod
    def _let_read(self, name: str) -> None: ...

    @abc.abstractmethod
    def _dumped(self, name: str) -> str: ...

    @abc.abstractmethod
    def _restore(self, name: str, dump: Path) -> None: ...

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise Failed(f"{self.kind} ended at its start: {self.log.read_text(errors='replace')[-2000:]}")
        # PyMySQL leaves a socket open when it finds nobody there; this one is closed.
        with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError, sa.exc.OperationalError):
            probe.connect(str(self._socket()))
            with self._engine("").connect():
                return True
        return False

    def _engine(self, name: str) -> sa.Engine:
        if name not in self._engines:
            # No pool: a connection that is kept does not outlive stop().
            self._engines[name] = sa.create_engine(self._owner_url(name, self.driver), poolclass=sa.pool.NullPool)
        return self._engines[name]

    def _dump(self, schema: Schema) -> Path:
        which = zed() if schema.startswith("zed_") else checksum()[:12]
        directory = REPOSITORY / ".cache" / f"nova-schema-{which}"
        directory.mkdir(parents=True, exist_ok=True)
        return directory / f"{self.kind.lower()}-{schema}.sql"

    def _migrate(self, name: str, schema: Schema) -> None:
        """Let Nova itself make its schema."""
        release, per = schema.split("_")
        stamp = NOVA / "lock.sha256"
        if release == "nova" and (not stamp.exists() or stamp.read_text().strip() != checksum()):
            raise Missing(f"Nova's schemas: .venv-nova is not there, or not of today's lock ({INSTALLER} makes it)")
        manage = ZED if release == "zed" else [NOVA / "bin" / "nova-manage"]
        section = {"api": "api_database", "cell": "database"}[per]
        command = {"api": ["api_db", "sync"], "cell": ["db", "sync", "--local_cell"]}[per]
        configuration = self.directory / "nova.conf"
        configuration.write_text(f"[{section}]\nconnection = {self._owner_url(name, self.nova_driver)}\n")
        home = {**ENVIRONMENT, "HOME": str(self.directory)}
        run([*manage, "--config-file", configuration, *command], environment=home)

    def _remove(self) -> None:
        self.stop()
        shutil.rmtree(self.data, ignore_errors=True)


class MariaDB(Server):
    """A real mariadbd; its owner comes in by socket.

    `tls` are the names its certificate holds, ("127.0.0.1", "localhost") for one that can be verified here; then `ca`
    is the file of the authority that signed it. Without names it offers no TLS.
    """

    kind = "MariaDB"
    driver = "mysql+pymysql"
    nova_driver = "mysql+pymysql"

    def __init__(self, directory: Path, tls: Sequence[str] = ()) -> None:
        super().__init__(directory)
        self.ca = self.directory / "ca.pem"
        self._tls = tuple(tls)
        self._options = self.directory / "my.cnf"
        self._owner = pwd.getpwuid(os.geteuid()).pw_name

    def _install(self) -> None:
        need("MariaDB", "mariadbd", "mariadb-install-db", "mariadb", "mariadb-dump", "openssl", "setpriv")
        if len(str(self._socket())) > 100:
            raise ValueError(f"{self._socket()} is too long for a socket")
        shutil.rmtree(self.data, ignore_errors=True)
        # mariadbd runs as root only if it is told so.
        extra = f"user={self._owner}\n"
        if self._tls:
            self._certify()
            extra += f"ssl-ca={self.ca}\nssl-cert={self.directory}/server.pem\nssl-key={self.directory}/server.key\n"
        else:
            extra += "skip-ssl\n"
        tmp = self.directory / "tmp"
        tmp.mkdir(exist_ok=True)
        values = {"data": self.data, "tmp": tmp, "socket": self._socket(), "port": self.port, "extra": extra}
        self._options.write_text(MARIADB.format(**values))
        method = ["--auth-root-authentication-method=socket", f"--auth-root-socket-user={self._owner}"]
        run(["mariadb-install-db", f"--defaults-file={self._options}", *method, "--skip-test-db"])

    def _certify(self) -> None:
        """Make an authority, and a certificate of it for the names that were asked for."""
        at = self.directory
        names = ",".join(("IP:" if re.fullmatch(r"[0-9.]+", name) else "DNS:") + name for name in self._tls)
        (at / "server.ext").write_text(f"subjectAltName={names}\nbasicConstraints=CA:FALSE\n")
        new = "openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
        for command in (
            f"{new} -x509 -days 30 -subj /CN=authority -keyout ca.key -out ca.pem",
            f"{new} -subj /CN=MariaDB -keyout server.key -out server.csr",
            "openssl x509 -req -days 30 -CA ca.pem -CAkey ca.key -CAcreateserial -extfile server.ext"
            " -in server.csr -out server.pem",
        ):
            words = command.split()
            run([at / word if word.endswith((".pem", ".key", ".csr", ".ext")) else word for word in words])

    def _serve(self) -> subprocess.Popen[bytes]:
        return serve(["mariadbd", f"--defaults-file={self._options}"], self.log)

    def _socket(self) -> Path:
        return self.directory / "socket"

    def _owner_url(self, name: str, driver: str) -> str:
        return f"{driver}://{self._owner}@localhost/{name}?unix_socket={self._socket()}&charset=utf8mb4"

    def _open_reader(self) -> None:
        self.execute("", f"CREATE USER {self.reader.user} IDENTIFIED BY '{self.reader.password}'")

    def _create_empty(self, name: str) -> None:
        self.execute("", f"CREATE DATABASE {name} CHARACTER SET utf8mb3")

    def _let_read(self, name: str) -> None:
        # In a grant, _ stands for any sign unless it is escaped.
        self.execute("", f"GRANT SELECT ON `{name.replace('_', chr(92) + '_')}`.* TO {self.reader.user}")

    def _dumped(self, name: str) -> str:
        how = ["--single-transaction", "--skip-comments"]
        return run(["mariadb-dump", f"--socket={self._socket()}", f"--user={self._owner}", *how, name])

    def _restore(self, name: str, dump: Path) -> None:
        self.typed(name, dump.read_text())

    def typed(self, name: str, statements: str) -> str:
        """Run statements in one session of the client, as a person types them, and return the rows without headings."""
        return run(["mariadb", "-N", f"--socket={self._socket()}", f"--user={self._owner}", name], statements)


class PostgreSQL(Server):
    """A real postgres; its owner comes in by socket.

    It refuses to be root. Where root runs the tests, it runs as the user postgres, and its data directory lies in /tmp,
    since that user cannot go into root's directories.
    """

    kind = "PostgreSQL"
    driver = "postgresql+psycopg"
    nova_driver = "postgresql+psycopg2"
    # At SIGTERM it would wait until all its clients have gone.
    shutdown = signal.SIGINT

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._user = "postgres" if os.geteuid() == 0 else None

    def _install(self) -> None:
        need("PostgreSQL", "postgres", "initdb", "psql", "pg_dump", "setpriv")
        change: list[str] = []
        if self._user is not None:
            try:
                user = pwd.getpwnam(self._user)
            except KeyError:
                raise Missing(f"PostgreSQL: this machine has no user {self._user} for it to run as") from None
            remove_left_over()
            # The name says whose it is, for the one who clears up after a bed that was killed.
            self.data = Path(tempfile.mkdtemp(prefix=f"cfsck-postgresql-{os.getpid()}-", dir="/tmp"))
            os.chown(self.data, user.pw_uid, user.pw_gid)
            change = ["setpriv", "--reuid", self._user, "--regid", self._user, "--init-groups"]
        else:
            shutil.rmtree(self.data, ignore_errors=True)
        how = "--username=owner --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8 --no-sync"
        run([*change, "initdb", f"--pgdata={self.data}", *how.split()])
        with (self.data / "postgresql.conf").open("a") as options:
            options.write(POSTGRESQL.format(data=self.data, port=self.port))

    def _serve(self) -> subprocess.Popen[bytes]:
        return serve(["postgres", "-D", self.data], self.log, self._user)

    def _socket(self) -> Path:
        return self.data / f".s.PGSQL.{self.port}"

    def _owner_url(self, name: str, driver: str) -> str:
        return f"{driver}://owner@/{name or 'postgres'}?host={self.data}&port={self.port}"

    def _open_reader(self) -> None:
        self.execute("", f"CREATE ROLE {self.reader.user} LOGIN PASSWORD '{self.reader.password}'")

    def _create_empty(self, name: str) -> None:
        self.execute("", f"CREATE DATABASE {name}")

    def _let_read(self, name: str) -> None:
        self.execute(name, f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {self.reader.user}")
        self.execute(name, f"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO {self.reader.user}")

    def _dumped(self, name: str) -> str:
        return run(["pg_dump", f"--host={self.data}", f"--port={self.port}", "--username=owner", name])

    def _restore(self, name: str, dump: Path) -> None:
        at = [f"--host={self.data}", f"--port={self.port}", "--username=owner", f"--dbname={name}"]
        run(["psql", *at, "--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1", f"--file={dump}"])


def checksum() -> str:
    """Of the lock of the Nova environment."""
    return hashlib.sha256(LOCK.read_bytes()).hexdigest()


def zed() -> str:
    """The version of the Nova that Debian 12 has, which is Zed's (26); raises Missing where it is not installed."""
    what = "Zed's schemas"
    need(what, "dpkg-query")
    said = run(["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Version}", "python3-nova"], check=False)
    found = re.fullmatch(r"installed (?:\d+:)?(26\..+)", said)
    if found is None:
        raise Missing(f"{what}: Debian 12's python3-nova (26) is not installed ({INSTALLER} installs it there)")
    return found[1]


def free_port() -> int:
    """A loopback port below those that the kernel gives to clients, so that it stays free while a server is stopped."""
    for port in random.sample(range(20000, 30000), 200):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise Missing("databases: no loopback port is free")


def remove_left_over() -> None:
    """Remove the data directories of beds whose process was killed; their servers died with it."""
    for path in Path("/tmp").glob("cfsck-postgresql-*-*"):
        if not Path(f"/proc/{path.name.split('-')[2]}").exists():
            shutil.rmtree(path, ignore_errors=True)
