"""DNS zones as pieces of a snapshot, from the servers themselves: the whole by zone transfer, some names by query.

`dig` takes the transfer: it reads 100,000 records in under a second, for which dnspython takes sixteen.
"""

from __future__ import annotations

import re
import socket
import subprocess
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype
import dns.reversename
import dns.tsig
import pyarrow as pa

from cloudfsck import tables
from cloudfsck.config import Dns, Zone, server_address
from cloudfsck.model import Piece, Scope, Unheard, one_line
from cloudfsck.snapshot import Snapshot
from cloudfsck.sources import service
from cloudfsck.sources.database import Unreadable, arrow_schema

#: What a query for a name asks for, and so what there is to be said of some names alone.
TYPES = ("A", "AAAA", "CNAME", "PTR")

#: The types whose data is a name, which is written in lower case here.
_NAMES = frozenset({"CNAME", "DNAME", "NS", "PTR"})

_TABLES = ("dns_zones", "dns_records")

_KEY = re.compile(
    r'\s*key\s+"?(?P<name>[^"\s]+)"?\s*\{\s*algorithm\s+"?(?P<algorithm>[\w.-]+)"?\s*;\s*secret\s+"(?P<secret>[^"]+)"\s*;'
    r"\s*\}\s*;\s*"
)

#: What dig says at the end of a transfer that is whole: how many records came, the SOA twice among them.
_SIZE = re.compile(r";; XFR size: (\d+) records")

#: How many records are words before they are columns, which take a tenth of the room.
_AT_ONCE = 50_000

_REVERSE = ("in-addr.arpa.", "ip6.arpa.")


@dataclass(frozen=True)
class Copy:
    """A zone on one of its servers.  `own` is what the configuration says of it; None: Designate has the zone."""

    zone: str
    server: str
    key_file: Path | None
    seconds: float
    own: Zone | None = None

    @property
    def part(self) -> str:
        return f"{self.zone}@{self.server}"

    @property
    def first(self) -> bool:
        """Whether changes are sent there; to those of Designate's zones nobody but Designate sends any."""
        return self.own is not None and self.own.servers[0] == self.server

    @cached_property
    def key(self) -> dns.tsig.Key | None:
        """The key that the server asks for.  Raises Unreadable if its file is of no use."""
        return None if self.key_file is None else key(self.key_file)

    @cached_property
    def names(self) -> list[re.Pattern[str]]:
        """What the names of servers look like."""
        templates = self.own.names if self.own is not None else []
        wholes = [_absolute(template.replace("{zone}", self.zone)) for template in templates]
        return [re.compile(re.escape(one).replace(r"\{hostname\}", "([a-z0-9_-]+)")) for one in wholes]

    def row(self, name: str, ttl: int, kind: str, data: str) -> dict[str, Any]:
        """A record as a row of dns_records."""
        name = name.lower()
        if kind in _NAMES:
            data = data.lower()
        address = data if kind in ("A", "AAAA") else _reversed(name) if kind == "PTR" else None
        parsed = None if address is None else _parsed(address)
        of = data if kind == "PTR" else name
        called = next((found[1] for one in self.names if (found := one.fullmatch(of))), None)
        return {
            "name": name, "type": kind, "ttl": ttl, "data": data, "address": address, "hostname": called,
            "ours": None if self.own is None else any(parsed in one for one in self.own.subnets if parsed is not None),
            "pointer": None if parsed is None else f"{parsed.reverse_pointer}.", "zone": self.zone,
        }  # fmt: skip


def copies(settings: Dns, zones: Iterable[str]) -> list[Copy]:
    """What the configuration says is to be read; `zones` are Designate's."""
    seconds = settings.timeout.total_seconds()
    mine = [
        Copy(zone, server, settings.key_file, seconds, own)
        for zone, own in settings.zone.items() for server in own.servers
    ]  # fmt: skip
    designates = [
        Copy(zone.lower(), server, settings.key_file, seconds)
        for zone in sorted(set(zones)) if zone.lower() not in settings.zone for server in settings.servers
    ]  # fmt: skip
    return mine + designates


def names(settings: Dns, server: str, snapshot: Snapshot) -> frozenset[str]:
    """What a server is or would be called in the zones that are read, with those zones on their servers: by what
    Designate made for it, and by its hostname and its addresses in zones of the cloud's own."""
    given = {"server": server}
    hostnames = snapshot.rows(
        "SELECT DISTINCT hostname FROM hostnames WHERE server = $server AND hostname <> ''", given
    )
    addresses = snapshot.rows(
        "SELECT t.address FROM taken_addresses t JOIN neutron_ports p ON p.id = t.holder WHERE p.device_id = $server"
        " UNION SELECT f.floating_ip_address FROM neutron_floating_ips f JOIN neutron_ports p ON p.id = f.fixed_port_id"
        " WHERE p.device_id = $server",
        given,
    )
    made = snapshot.rows(
        "SELECT DISTINCT lower(s.name) AS name, lower(z.name) AS zone FROM records_of_servers r"
        " JOIN designate_recordsets s ON s.id = r.recordset JOIN designate_zones z ON z.id = s.zone_id"
        " WHERE r.server = $server",
        given,
    )
    found = {row["name"] for row in made}
    asked = copies(settings, [row["zone"] for row in made])
    for copy in asked:
        called = [_reverse(row["address"]) for row in addresses]
        for template in copy.own.names if copy.own is not None else ():
            called += [_absolute(template.format(hostname=row["hostname"], zone=copy.zone)) for row in hostnames]
        found |= {name for name in called if _in_zone(name, copy.zone)}
    return frozenset(found | {copy.part for copy in asked})


def _absolute(name: str) -> str:
    return name.rstrip(".") + "."


def read(wanted: Iterable[Copy], scope: Scope) -> Iterator[Piece]:
    """A piece for each table of each copy that a scope asks for.  It never raises."""
    for copy in wanted:
        if scope.copies is None or copy.part in scope.copies:
            yield from _read(copy, scope)


def nothing(why: str | None) -> Iterator[Piece]:
    """What there is of these tables where no copy is: nothing, or, for this reason, nobody knows."""
    for name in _TABLES:
        rows = _table(name, []) if why is None else None
        yield Piece(name, "", rows, why, None, service.now(), service.now())


def _read(copy: Copy, scope: Scope) -> Iterator[Piece]:
    started = service.now()
    asked = scope.ids
    rows: dict[str, Any] = {}
    why = None
    try:
        if asked is None or copy.zone in asked:
            serial, records = _transferred(copy)
        else:
            names = sorted({one.lower() for one in asked if _in_zone(one.lower(), copy.zone)})
            serial, found = _queried(copy, names)
            records = _table("dns_records", found)
        zone = {"zone": copy.zone, "server": copy.server, "serial": serial, "own": copy.own is not None,
                "first": copy.first}  # fmt: skip
        rows = {"dns_zones": _table("dns_zones", [zone]), "dns_records": records}
    except Unreadable as error:
        why = f"{copy.server} does not tell {copy.zone}: {error}"
    for name in _TABLES:
        yield Piece(
            name, copy.part, rows.get(name), why, None, started, service.now(),
            asked if tables.BY_NAME[name].narrow else None,
        )  # fmt: skip


def _table(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    columns = [column for column in tables.BY_NAME[name].columns if column.name != "copy"]
    return pa.Table.from_pylist(rows, arrow_schema(columns))


def _in_zone(name: str, zone: str) -> bool:
    return name == zone or name.endswith("." + zone)


# ------------------------------------------------------------------------------------------------- the whole


def _transferred(copy: Copy) -> tuple[int, pa.Table]:
    """The serial of the zone, and its records.  Raises Unreadable unless the whole came."""
    host, port = server_address(copy.server)
    command = ["dig", "-r", "+onesoa", "+nocmd", "+noidnout", "+tries=1", f"+time={int(copy.seconds) + 2}",
               "-p", str(port), f"@{host}"]  # fmt: skip
    if copy.key is not None:  # of a key that is of no use dig would say less
        command += ["-k", str(copy.key_file)]
    try:
        dig = subprocess.Popen(
            [*command, "-q", copy.zone, "-t", "AXFR"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, encoding="utf-8", errors="backslashreplace",
        )  # fmt: skip
    except OSError as error:
        raise Unreadable(f"dig, which makes zone transfers, cannot be run here: {error.strerror}") from error
    too_long = threading.Timer(copy.seconds, dig.kill)
    too_long.start()
    serial, count, came, said = None, 0, None, []
    rows: list[dict[str, Any]] = []
    made: list[pa.Table] = []
    try:
        assert dig.stdout is not None
        with dig.stdout:
            for line in dig.stdout:
                if line.startswith(";") or not line.strip():
                    if found := _SIZE.match(line):
                        came = int(found[1])
                    elif line.strip():
                        said.append(line.strip("; \n"))
                    continue
                words = line.split(None, 4)
                if len(words) < 5:
                    raise Unreadable(f"dig printed what is no record: {line.strip()[:100]}")
                name, ttl, _, kind, data = words
                if kind == "TSIG":  # of a message, and no record of the zone
                    continue
                count += 1
                if kind == "SOA":
                    serial = int(data.split()[2])
                else:
                    rows.append(copy.row(name, int(ttl), kind, data.strip()))
                if len(rows) == _AT_ONCE:
                    made.append(_table("dns_records", rows))
                    rows = []
    except ValueError as error:
        raise Unreadable(f"dig printed what is no record: {one_line(error)}") from error
    finally:
        timed_out = not too_long.is_alive()
        too_long.cancel()
        dig.kill()
        dig.wait()
    doubts = [one for one in said if "verify" in one or "WARNING" in one]
    if came is None or doubts or serial is None:
        late = f"the transfer was not done in {copy.seconds:.0f} s" if timed_out and came is None else ""
        raise Unreadable(late or _refusal(copy) or "; ".join(doubts or said) or "no answer came")
    if count != came - 1:
        raise Unreadable(f"the transfer was cut off: {count} records of {came - 1} came")
    return serial, pa.concat_tables([*made, _table("dns_records", rows)])


def _refusal(copy: Copy) -> str:
    """Why a server does not begin a transfer, which dig does not say; empty where it would begin one."""
    try:
        answer = _ask(copy, dns.message.make_query(dns.name.from_text(copy.zone), dns.rdatatype.AXFR))
    except Unreadable as error:
        return str(error)
    refused = answer.rcode() != dns.rcode.NOERROR
    return f"it refuses the transfer ({dns.rcode.to_text(answer.rcode())})" if refused else ""


# --------------------------------------------------------------------------------------------- some names


def _queried(copy: Copy, names: list[str]) -> tuple[int, list[dict[str, Any]]]:
    """The same of some names.  Raises Unreadable unless the server is authoritative for each of them."""
    soa = _found(copy, copy.zone, "SOA")
    if not soa:
        raise Unreadable("it has no SOA there")
    rows = []
    made: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for name in names:
        for kind in TYPES:
            found = _found(copy, name, kind)
            wildcard = ("*." + name.partition(".")[2], kind)
            if found and name != copy.zone and not name.startswith("*."):
                if wildcard not in made:
                    made[wildcard] = _wild(copy, *wildcard)
                # Nothing but DNSSEC tells what is the name's own from what a wildcard made: we take it for the latter.
                if {one["data"] for one in found} == {one["data"] for one in made[wildcard]}:
                    continue
            rows += found
    return int(soa[0]["data"].split()[2]), rows


def _wild(copy: Copy, wildcard: str, kind: str) -> list[dict[str, Any]]:
    """What the nearest wildcard above a name says."""
    while _in_zone(wildcard[2:], copy.zone):
        if found := _found(copy, wildcard, kind):
            return found
        wildcard = "*." + wildcard[2:].partition(".")[2]
    return []


def _found(copy: Copy, name: str, kind: str) -> list[dict[str, Any]]:
    query = dns.message.make_query(dns.name.from_text(name), kind)
    query.flags &= ~dns.flags.RD
    answer = _ask(copy, query)
    if answer.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        raise Unreadable(f"it answers {dns.rcode.to_text(answer.rcode())} for {name}")
    if not answer.flags & dns.flags.AA:
        raise Unreadable(f"it is not authoritative for {name}")
    return [
        copy.row(str(rrset.name), rrset.ttl, kind, str(one))
        for rrset in answer.answer
        if str(rrset.name).lower() == name and dns.rdatatype.to_text(rrset.rdtype) == kind
        for one in rrset
    ]


def _ask(copy: Copy, query: dns.message.QueryMessage) -> dns.message.Message:
    """Send one message over TCP, with the key.  Raises Unreadable with a sentence."""
    if copy.key is not None:
        query.use_tsig(copy.key)
    try:
        return exchange(copy.server, query, copy.seconds)
    except Unheard as error:
        raise Unreadable(str(error)) from error


def exchange(server: str, message: dns.message.Message, seconds: float) -> dns.message.Message:
    """The answer of a server over TCP.  Raises Unheard with a sentence."""
    host, port = server_address(server)
    try:
        address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0]
        return dns.query.tcp(message, str(address), seconds, port)
    except dns.tsig.PeerError as error:
        raise Unheard(_OF_KEYS.get(type(error), one_line(error)), sent=False) from error
    except dns.exception.Timeout as error:
        raise Unheard(f"no answer came in {seconds:.0f} s", sent=True) from error
    except EOFError as error:
        raise Unheard("it closed the connection without an answer", sent=True) from error
    except OSError as error:
        sent = not isinstance(error, (ConnectionRefusedError, socket.gaierror))
        raise Unheard(f"it cannot be reached: {error.strerror or one_line(error)}", sent=sent) from error
    except (dns.exception.DNSException, ValueError) as error:
        # As where it is not signed: who does not know our key need not say so with one.
        raise Unheard(f"its answer is of no use: {one_line(error)}", sent=True) from error


_OF_KEYS = {
    dns.tsig.PeerBadKey: "it does not know our key (BADKEY)",
    dns.tsig.PeerBadSignature: "our key has another secret there (BADSIG)",
    dns.tsig.PeerBadTime: "its clock and ours differ by too much for a key to be believed (BADTIME)",
}


def key(path: Path) -> dns.tsig.Key:
    """A TSIG key from a file as tsig-keygen writes it.  Raises Unreadable."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Unreadable(f"the key file {path} cannot be read: {one_line(error)}") from error
    found = _KEY.fullmatch(text)
    try:
        if found is not None:
            return dns.tsig.Key(found["name"], found["secret"], found["algorithm"])
    except (ValueError, dns.exception.DNSException):
        pass
    written = 'key "name" { algorithm hmac-sha256; secret "…"; };'
    raise Unreadable(f"{path} holds no key as tsig-keygen writes it: {written}")


# ---------------------------------------------------------------------------------------------- addresses


def _reversed(name: str) -> str | None:
    """The address that a name is for reverse lookups of; None: it is for none."""
    if not name.endswith(_REVERSE):
        return None
    try:
        return dns.reversename.to_address(dns.name.from_text(name))
    except (dns.exception.DNSException, ValueError):
        return None


def _reverse(address: str) -> str:
    """The name under which an address is looked up."""
    return str(dns.reversename.from_address(address))


def _parsed(address: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(address)
    except ValueError:
        return None
