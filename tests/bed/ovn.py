"""Real ovsdb-servers with OVN's northbound database: one alone (unix socket, TCP and TLS), and a cluster of three."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .databases import free_port
from .programs import Failed, Missing, await_true, end, need, run, serve

DATABASE = "OVN_Northbound"
SCHEMA = Path("/usr/share/ovn/ovn-nb.ovsschema")


class Certificates:
    """An authority with a certificate for the server and one for the client; a stranger's with one for an intruder."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ca = directory / "ca.pem"
        self.stranger = directory / "stranger.pem"

    def key(self, who: str) -> Path:
        return self.directory / f"{who}.key"

    def certificate(self, who: str) -> Path:
        return self.directory / f"{who}.pem"

    def make(self) -> None:
        new = "openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
        commands = [f"{new} -x509 -days 30 -subj /CN={ca} -keyout {ca}.key -out {ca}.pem" for ca in ("ca", "stranger")]
        for who, ca in (("server", "ca"), ("client", "ca"), ("intruder", "stranger")):
            # As ovs-pki makes them: no name of any host.
            commands.append(f"{new} -subj /CN={who} -keyout {who}.key -out {who}.csr")
            commands.append(
                f"openssl x509 -req -days 30 -CA {ca}.pem -CAkey {ca}.key -CAcreateserial -in {who}.csr -out {who}.pem"
            )
        for command in commands:
            words = command.split()
            run([self.directory / word if word.endswith((".pem", ".key", ".csr")) else word for word in words])


class Member:
    """One ovsdb-server with one database file; its clients come by socket and by TCP."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()
        self.file = self.directory / "nb.db"
        self.log = self.directory / "log"
        self.port = free_port()
        self.unix = f"unix:{self.directory / 'sock'}"
        self.tcp = f"tcp:127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        if len(self.unix) > 100:
            raise ValueError(f"{self.unix} is too long for a socket")

    def start(self, *options: str | Path) -> None:
        """On return it answers."""
        remotes = [f"--remote=p{self.unix}", f"--remote=ptcp:{self.port}:127.0.0.1"]
        control = f"--unixctl={self.directory / 'control'}"
        self._process = serve(["ovsdb-server", self.file, *remotes, control, "-vconsole:info", *options], self.log)
        await_true("ovsdb-server answers on its socket", self._answers)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            end(self._process, how)
            self._process = None

    def pause(self) -> None:
        """Leave it its connections, and let it do nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def control(self, *command: str) -> str:
        return run(["ovs-appctl", "-t", self.directory / "control", *command])

    def transact(self, *operations: dict[str, Any], database: str = DATABASE) -> list[dict[str, Any]]:
        """Have these operations done by hand, of whatever size, not by the product's own client."""
        with socket.socket(socket.AF_UNIX) as way:
            way.settimeout(60)
            way.connect(self.unix.removeprefix("unix:"))
            way.sendall(json.dumps({"method": "transact", "params": [database, *operations], "id": 1}).encode())
            heard = b""
            while True:
                chunk = way.recv(1 << 20)
                heard += chunk
                if not chunk:
                    raise Failed(f"ovsdb-server hung up: {heard[:300]!r}")
                # What ends with a brace may be whole.
                if chunk.endswith(b"}"):
                    try:
                        reply = json.loads(heard)
                        break
                    except ValueError:
                        continue
        results: list[dict[str, Any]] = reply["result"]
        if reply["error"] is not None or any(result is None or "error" in result for result in results):
            raise Failed(f"ovsdb-server: {reply}")
        return results

    def fill(self, switch: str, ports: int) -> None:
        """One logical switch with so many ports, as ML2/OVN writes them."""
        operations: list[dict[str, Any]] = []
        for number in range(ports):
            name = f"11111111-0000-4000-8000-{number:012d}"
            fixed = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
            marks = {
                "neutron:cidrs": f"{fixed}/8", "neutron:device_id": f"22222222-0000-4000-8000-{number:012d}",
                "neutron:device_owner": "compute:nova", "neutron:host_id": f"host-{number % 50}",
                "neutron:network_name": switch, "neutron:port_name": "", "neutron:project_id": "0" * 32,
                "neutron:revision_number": "4", "neutron:security_group_ids": "33333333-0000-4000-8000-000000000000",
                "neutron:vnic_type": "normal",
            }  # fmt: skip
            operations.append({
                "op": "insert", "table": "Logical_Switch_Port", "uuid-name": f"p{number}",
                "row": {
                    "name": name, "addresses": f"fa:16:3e:00:00:00 {fixed}", "up": True, "enabled": True,
                    "external_ids": ["map", [list(pair) for pair in marks.items()]],
                    "options": ["map", [["requested-chassis", f"host-{number % 50}"]]],
                },
            })  # fmt: skip
        row = {
            "name": switch, "ports": ["set", [["named-uuid", f"p{number}"] for number in range(ports)]],
            "external_ids": ["map", [["neutron:network_name", switch]]],
        }  # fmt: skip
        self.transact(*operations, {"op": "insert", "table": "Logical_Switch", "row": row})

    def fill_router(self, router: str, ports: list[str], network: str) -> None:
        """A router with ports in a network, as ML2/OVN writes them (ovn_client.py: _gen_router_port_ext_ids)."""
        made = [
            {
                "op": "insert", "table": "Logical_Router_Port", "uuid-name": f"p{number}",
                "row": {
                    "name": f"lrp-{port}", "mac": "fa:16:3e:00:00:01", "networks": "10.0.0.1/8",
                    "external_ids": ["map", [
                        ["neutron:is_ext_gw", "False"], ["neutron:network_name", f"neutron-{network}"],
                        ["neutron:revision_number", "3"], ["neutron:router_name", f"neutron-{router}"],
                        ["neutron:subnet_ids", "44444444-0000-4000-8000-000000000000"],
                    ]],
                },
            }
            for number, port in enumerate(ports)
        ]  # fmt: skip
        of_it = [["named-uuid", f"p{number}"] for number in range(len(ports))]
        row = {
            "name": f"neutron-{router}", "ports": ["set", of_it],
            "enabled": True, "options": ["map", [["always_learn_from_arp_request", "false"]]],
            "external_ids": ["map", [["neutron:revision_number", "3"], ["neutron:router_name", "r"]]],
        }  # fmt: skip
        self.transact(*made, {"op": "insert", "table": "Logical_Router", "row": row})

    def fill_group(self, group: str) -> None:
        """A security group's port group with one rule, and no ports."""
        rule = {
            "priority": 1002, "direction": "to-lport", "action": "allow-related", "match": f"inport == @{group}",
            "external_ids": ["map", [["neutron:security_group_rule_id", "55555555-0000-4000-8000-000000000000"]]],
        }  # fmt: skip
        row = {
            "name": f"pg_{group.replace('-', '_')}", "acls": ["set", [["named-uuid", "rule"]]],
            "external_ids": ["map", [["neutron:security_group_id", group]]],
        }  # fmt: skip
        self.transact(
            {"op": "insert", "table": "ACL", "uuid-name": "rule", "row": rule},
            {"op": "insert", "table": "Port_Group", "row": row},
        )

    def fill_floating_ip(self, floating_ip: str, router: str, port: str) -> None:
        """A router's NAT rules for a floating IP and for its gateway, as ML2/OVN writes them (ovn_client.py:
        _create_or_update_floatingip, update_nat_rules); the first has the floating IP's own UUID."""
        marks = {
            "neutron:fip_id": floating_ip, "neutron:fip_port_id": port, "neutron:revision_number": "2",
            "neutron:router_name": f"neutron-{router}", "neutron:fip_external_mac": "fa:16:3e:00:00:02",
            "neutron:fip_network_id": "66666666-0000-4000-8000-000000000000",
        }  # fmt: skip
        rule = {
            "type": "dnat_and_snat", "external_ip": "192.0.2.10", "logical_ip": "10.0.0.1", "logical_port": port,
            "external_mac": "fa:16:3e:00:00:02", "options": ["map", [["stateless", "false"]]],
            "external_ids": ["map", [list(pair) for pair in marks.items()]],
        }  # fmt: skip
        gateway = {"type": "snat", "external_ip": "192.0.2.1", "logical_ip": "10.0.0.0/8"}
        both = ["set", [["named-uuid", "rule"], ["named-uuid", "gateway"]]]
        self.transact(
            {"op": "insert", "table": "NAT", "uuid-name": "rule", "uuid": floating_ip, "row": rule},
            {"op": "insert", "table": "NAT", "uuid-name": "gateway", "row": gateway},
            {
                "op": "mutate", "table": "Logical_Router", "where": [["name", "==", f"neutron-{router}"]],
                "mutations": [["nat", "insert", both]],
            },
        )  # fmt: skip

    def fill_dhcp(self, row: str, subnet: str, network: str, port: str | None = None) -> None:
        """DHCP options of a subnet, or of one of its ports (ovn_client.py: _get_ovn_dhcp_options)."""
        marks = {"neutron:network_id": network, "neutron:revision_number": "0", "subnet_id": subnet}
        if port is not None:
            marks["port_id"] = port
        options = {"lease_time": "43200", "mtu": "1442", "router": "10.0.0.1", "server_id": "10.0.0.1"}
        made = {
            "cidr": "10.0.0.0/8", "options": ["map", [list(pair) for pair in options.items()]],
            "external_ids": ["map", [list(pair) for pair in marks.items()]],
        }  # fmt: skip
        self.transact({"op": "insert", "table": "DHCP_Options", "uuid": row, "row": made})

    def fill_few(self, switch: str, names: list[str]) -> None:
        """One logical switch with ports of these names."""
        made = [
            {"op": "insert", "table": "Logical_Switch_Port", "uuid-name": f"p{number}", "row": {"name": name}}
            for number, name in enumerate(names)
        ]
        ports = ["set", [["named-uuid", f"p{number}"] for number in range(len(names))]]
        self.transact(*made, {"op": "insert", "table": "Logical_Switch", "row": {"name": switch, "ports": ports}})

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise Failed(f"ovsdb-server ended at its start: {self.log.read_text(errors='replace')[-2000:]}")
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(self.unix.removeprefix("unix:")) == 0


class Northbound(Member):
    """A standalone server; a context manager that starts and stops it.  `ssl` demands the client's certificate too."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.certificates = Certificates(self.directory)
        self._secure = free_port()
        self.ssl = f"ssl:127.0.0.1:{self._secure}"

    def __enter__(self) -> Self:
        _need()
        try:
            shutil.rmtree(self.directory, ignore_errors=True)
            self.directory.mkdir(parents=True)
            self.certificates.make()
            run(["ovsdb-tool", "create", self.file, SCHEMA])
            made = self.certificates
            self.start(
                f"--remote=pssl:{self._secure}:127.0.0.1", f"--private-key={made.key('server')}",
                f"--certificate={made.certificate('server')}", f"--ca-cert={made.ca}",
            )  # fmt: skip
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.stop()


class Cluster:
    """Three servers that share one database; a context manager that starts and stops them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()
        self.members = [Member(self.directory / str(number)) for number in range(3)]

    def __enter__(self) -> Self:
        _need()
        try:
            shutil.rmtree(self.directory, ignore_errors=True)
            ways = [f"tcp:127.0.0.1:{free_port()}" for _ in self.members]
            for number, member in enumerate(self.members):
                member.directory.mkdir(parents=True)
                if number == 0:
                    run(["ovsdb-tool", "create-cluster", member.file, SCHEMA, ways[0]])
                else:
                    run(["ovsdb-tool", "join-cluster", member.file, DATABASE, ways[number], ways[0]])
                member.start()
            await_true("all three are in the cluster", lambda: all(self.role(one) for one in self.members))
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._stop()

    @property
    def remotes(self) -> tuple[str, ...]:
        return tuple(member.tcp for member in self.members)

    def role(self, member: Member) -> str:
        """leader, follower or candidate; empty for one that is still joining."""
        said = member.control("cluster/status", DATABASE)
        joined = re.search(r"^Status: cluster member$", said, re.MULTILINE)
        role = re.search(r"^Role: (\w+)$", said, re.MULTILINE)
        return role[1] if joined and role else ""

    def leader(self) -> Member:
        """Whoever leads, when somebody does, of those that run."""
        alive = [member for member in self.members if member._process is not None]
        await_true("somebody leads", lambda: any(self.role(member) == "leader" for member in alive))
        return next(member for member in alive if self.role(member) == "leader")

    def _stop(self) -> None:
        for member in self.members:
            member.resume()
            member.stop()


def _need() -> None:
    need("OVN", "ovsdb-server", "ovsdb-tool", "ovs-appctl", "openssl", "setpriv")
    if not SCHEMA.exists():
        raise Missing(f"OVN: {SCHEMA} is not there (Debian has it in ovn-central)")
