"""Real DNS servers, BIND and PowerDNS, with zones that take transfers and updates only with a key."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from .databases import free_port
from .programs import await_true, end, need, run, serve

#: Who may do what: the first may have whole zones, the second change them.
TRANSFER, UPDATE = "transfer", "update"
_SECRETS = {TRANSFER: "dHJhbnNmZXIgdHJhbnNmZXIgdHJhbnNmZXI=", UPDATE: "dXBkYXRlIHVwZGF0ZSB1cGRhdGUgdXBkYXRl"}

Record = tuple[str, str, str, str]

SCHEMA = Path("/usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql")


def key_file(directory: Path, name: str, secret: str = "") -> Path:
    """A key as tsig-keygen writes it."""
    path = directory / f"{name}{'-wrong' if secret else ''}.key"
    path.write_text(
        f'key "{name}" {{\n\talgorithm hmac-sha256;\n\tsecret "{secret or _SECRETS[name]}";\n}};\n', encoding="utf-8"
    )
    return path


class _Server(ABC):
    """One server on one port of loopback, with the zones that it is given: their records but for SOA and NS."""

    serial = 1

    def __init__(self, directory: Path, zones: Mapping[str, Iterable[Record]], primary: str = "") -> None:
        self.directory = directory.resolve()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.zones = zones
        self.primary = primary
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.transfer, self.update = (key_file(self.directory, name) for name in (TRANSFER, UPDATE))
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def _command(self) -> list[str | Path]: ...
    @abstractmethod
    def _prepare(self) -> None: ...

    def start(self) -> None:
        """On return it answers for all its zones."""
        self._process = serve(self._command(), self.directory / "log")
        for zone in self.zones:
            await_true(f"{self.address} answers for {zone}", partial(self._answers, zone))

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            end(self._process, how)
            self._process = None

    def pause(self, paused: bool = True) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP if paused else signal.SIGCONT)

    def _answers(self, zone: str) -> bool:
        said = run(["dig", "-r", "+norec", "+tries=1", "+time=1", "-p", str(self.port), "@127.0.0.1", zone, "SOA"],
                   check=False)  # fmt: skip
        flags = [line for line in said.splitlines() if line.startswith(";; flags:")]
        return any("aa" in line.partition(";; flags:")[2].partition(";")[0].split() for line in flags)

    def records(self, zone: str) -> set[tuple[str, ...]]:
        """All that it has of a zone, but for the SOA."""
        said = run(["dig", "-r", "-k", self.transfer, "+noall", "+answer", "-p", str(self.port), "@127.0.0.1", zone,
                    "AXFR"])  # fmt: skip
        found = {tuple(line.split(None, 4)) for line in said.splitlines() if line and line[0] != ";"}
        return {record for record in found if record[3] != "SOA"}

    def change(self, *lines: str) -> None:
        """Somebody else changes a zone: lines as nsupdate takes them."""
        text = "\n".join([f"server 127.0.0.1 {self.port}", *lines, "send", ""])
        run(["nsupdate", "-k", self.update], input=text)

    def __enter__(self) -> Self:
        self._prepare()
        try:
            self.start()
        except BaseException:
            self.stop(signal.SIGKILL)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop(signal.SIGKILL)


class Bind(_Server):
    """A named; of the zones that have a `primary` it is a secondary."""

    def _prepare(self) -> None:
        need("a BIND", "named", "dig", "nsupdate")
        keys = "".join(f'include "{path}";\n' for path in (self.transfer, self.update))
        text = (
            f'{keys}options {{ directory "{self.directory}"; pid-file "{self.directory}/pid"; recursion no;'
            f" listen-on port {self.port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; notify no;"
            f' session-keyfile "{self.directory}/session.key"; request-ixfr no; masterfile-format text;'
            f" allow-transfer {{ key {TRANSFER}; }}; }};\ncontrols {{ }};\n"
        )
        for number, (zone, records) in enumerate(self.zones.items()):
            file = self.directory / f"{number}.zone"
            kind = f"type primary; check-names ignore; allow-update {{ key {UPDATE}; }};"
            if self.primary:
                host, _, port = self.primary.partition(":")
                kind = f"type secondary; primaries {{ {host} port {port} key {TRANSFER}; }};"
            else:
                lines = [
                    "$TTL 3600",
                    f"{zone} IN SOA ns.{zone} hostmaster.{zone} {self.serial} 3600 600 86400 60",
                    f"{zone} IN NS ns.{zone}",
                    f"ns.{zone} IN A 127.0.0.1",
                    *(" ".join((name, ttl, "IN", kind, data)) for name, ttl, kind, data in records),
                ]
                file.write_text("\n".join(lines) + "\n", encoding="utf-8")
            text += f'zone "{zone}" {{ {kind} file "{file}"; }};\n'
        (self.directory / "named.conf").write_text(text, encoding="utf-8")

    def _command(self) -> list[str | Path]:
        return ["named", "-g", "-n", "1", "-c", self.directory / "named.conf"]


class PowerDns(_Server):
    """A pdns_server over SQLite."""

    def _prepare(self) -> None:
        need("a PowerDNS", "pdns_server", "dig", "nsupdate")
        file = self.directory / "pdns.sqlite"
        with closing(sqlite3.connect(file)) as db, db:
            db.executescript(SCHEMA.read_text(encoding="utf-8"))
            db.executemany("INSERT INTO tsigkeys (name, algorithm, secret) VALUES (?, 'hmac-sha256', ?)",
                           _SECRETS.items())  # fmt: skip
            for number, (zone, records) in enumerate(self.zones.items(), start=1):
                name = zone.rstrip(".")
                db.execute("INSERT INTO domains (id, name, type) VALUES (?, ?, 'NATIVE')", [number, name])
                for kind, key in (("TSIG-ALLOW-AXFR", TRANSFER), ("TSIG-ALLOW-DNSUPDATE", UPDATE)):
                    db.execute("INSERT INTO domainmetadata (domain_id, kind, content) VALUES (?, ?, ?)",
                               (number, kind, key))  # fmt: skip
                own = [(zone, "3600", "SOA", f"ns.{zone} hostmaster.{zone} {self.serial} 3600 600 86400 60"),
                       (zone, "3600", "NS", f"ns.{zone}"), (f"ns.{zone}", "3600", "A", "127.0.0.1")]  # fmt: skip
                for owner, ttl, kind, data in (*own, *records):
                    prio, content = data.split(None, 1) if kind == "MX" else ("0", data)
                    db.execute(
                        "INSERT INTO records (domain_id, name, type, content, ttl, prio, auth)"
                        " VALUES (?, ?, ?, ?, ?, ?, 1)",
                        (number, owner.rstrip(".").lower(), kind, content.rstrip("."), int(ttl), int(prio)),
                    )  # fmt: skip
        (self.directory / "pdns.conf").write_text(
            f"launch=gsqlite3\ngsqlite3-database={file}\nlocal-address=127.0.0.1\nlocal-port={self.port}\n"
            f"socket-dir={self.directory}\ndnsupdate=yes\nallow-dnsupdate-from=127.0.0.0/8\ndaemon=no\nguardian=no\n"
            "security-poll-suffix=\nallow-axfr-ips=\nquery-cache-ttl=0\ncache-ttl=0\nnegquery-cache-ttl=0\n",
            encoding="utf-8",
        )  # fmt: skip

    def _command(self) -> list[str | Path]:
        return ["pdns_server", f"--config-dir={self.directory}"]
