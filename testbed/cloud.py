"""The cloud: its machines, its services, and the order in which they come up."""

from __future__ import annotations

import hashlib
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from testbed import places
from testbed.machine import run
from testbed.node import Failed, Node, await_true
from testbed.places import ADDRESS, OPENSTACK

BIN = f"{OPENSTACK}/bin"
CONTROLLER_STATE = ("mysql", "rabbitmq", "ceph", "keystone", "glance", "nova", "cinder", "neutron", "designate", "bind",
                    "ovn")  # fmt: skip
COMPUTE_STATE = {
    "/var/lib/libvirt": "lib-libvirt", "/var/cache/libvirt": "cache-libvirt", "/var/lib/nova": "lib-nova",
    "/var/lib/cloudfsck": "lib-cloudfsck", "/var/lib/openvswitch": "lib-openvswitch",
}  # fmt: skip

RABBITMQ = {
    "HOME": "/var/lib/rabbitmq", "RABBITMQ_NODENAME": "testbed@localhost", "RABBITMQ_MNESIA_BASE": "/var/lib/rabbitmq",
    "RABBITMQ_LOG_BASE": "/var/log/rabbitmq", "RABBITMQ_CONFIG_FILE": "/etc/rabbitmq/rabbitmq.conf",
    "RABBITMQ_ENABLED_PLUGINS_FILE": "/etc/rabbitmq/enabled_plugins", "RABBITMQ_PID_FILE": "/run/rabbitmq.pid",
    "RABBITMQ_CONF_ENV_FILE": "/dev/null",
    "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +sbwtdcpu none +sbwtdio none",
}  # fmt: skip

#: The APIs by the names of their files in /etc/uwsgi, and their ports.
APIS = {"placement": 8778, "glance": 9292, "cinder": 8776, "neutron": 9696, "nova": 8774, "designate": 9001}

#: What runs beside the APIs on the controller: each a command line.
SERVICES = {
    "nova-super-conductor": "nova-conductor --config-file /etc/nova/nova.conf",
    "nova-conductor-cell1": "nova-conductor --config-file /etc/nova/nova.conf --config-file /etc/nova/cell1.conf",
    "nova-conductor-cell2": "nova-conductor --config-file /etc/nova/nova.conf --config-file /etc/nova/cell2.conf",
    "nova-scheduler": "nova-scheduler --config-file /etc/nova/nova.conf",
    "cinder-scheduler": "cinder-scheduler --config-file /etc/cinder/cinder.conf",
    "cinder-volume": "cinder-volume --config-file /etc/cinder/cinder.conf",
    "neutron-rpc-server": "neutron-rpc-server --config-file /etc/neutron/neutron.conf",
    "neutron-periodic-workers": "neutron-periodic-workers --config-file /etc/neutron/neutron.conf",
    "neutron-ovn-maintenance-worker": "neutron-ovn-maintenance-worker --config-file /etc/neutron/neutron.conf",
    "designate-central": "designate-central --config-file /etc/designate/designate.conf",
    "designate-worker": "designate-worker --config-file /etc/designate/designate.conf",
    "designate-producer": "designate-producer --config-file /etc/designate/designate.conf",
    "designate-mdns": "designate-mdns --config-file /etc/designate/designate.conf",
}
SINK = "designate-sink --config-file /etc/designate/designate.conf --config-file /etc/designate/sink.conf"
#: designate-central is given up on after this many seconds, and not a minute.
SINK_PATIENCE = 20
SINK_CONF = f"""\
[DEFAULT]
rpc_response_timeout = {SINK_PATIENCE}

[handler:nova_fixed]
zone_id = {{zone}}
notification_topics = notifications_designate
control_exchange = nova
formatv4 = %(hostname)s.%(zone)s
"""
#: OVN's databases by name, and their ports: three of them are one cluster, the northbound database.
OVN_PORTS = {"nb1": 6641, "nb2": 16641, "nb3": 26641, "sb": 6642}
NORTHBOUND = ("nb1", "nb2", "nb3")

SECRET = f"""\
<secret ephemeral='no' private='no'>
  <uuid>{places.RBD_SECRET}</uuid>
  <usage type='ceph'><name>client.cinder</name></usage>
</secret>
"""
NOVA_COMPUTE = "nova-compute --config-file /etc/nova/nova.conf --config-dir /etc/nova/nova.conf.d"

#: How each database's schema is made; of the cells', the first.
MIGRATIONS = {
    "keystone": "keystone-manage --config-file /etc/keystone/keystone.conf db_sync",
    "glance": "glance-manage --config-file /etc/glance/glance-api.conf db_sync",
    "placement": "placement-manage --config-file /etc/placement/placement.conf db sync",
    "cinder": "cinder-manage --config-file /etc/cinder/cinder.conf db sync",
    "neutron": "neutron-db-manage --config-file /etc/neutron/neutron.conf upgrade heads",
    "designate": "designate-manage --config-file /etc/designate/designate.conf database sync",
    "nova_api": "nova-manage --config-file /etc/nova/nova.conf api_db sync",
    "nova_cell0": "nova-manage --config-file /etc/nova/nova.conf db sync --local_cell",
}
#: One cell's database is made as every other's is.
SAME = {"nova_cell1": "nova_cell0", "nova_cell2": "nova_cell0"}

#: cell1 is mapped by a template, as deployments with one password for all cells do, and cell2 in full.
MAPPINGS = {
    "cell1": ("{scheme}://{username}:{password}@{hostname}:{port}/nova_cell1?{query}",
              "{scheme}://{username}:{password}@{hostname}:{port}/nova_cell1"),
    "cell2": (f"mysql+pymysql://openstack:secret@{ADDRESS}:3306/nova_cell2?charset=utf8",
              f"rabbit://openstack:secret@{ADDRESS}:5672/nova_cell2"),
}  # fmt: skip


class Cloud:
    """The machines of the cloud, whether they are up or not."""

    def __init__(self) -> None:
        state = {f"/var/lib/{name}": f"lib-{name}" for name in CONTROLLER_STATE}
        self.controller = Node(places.CONTROLLER, places.CONTROLLER, state)
        self.computes = {
            name: Node(name, hostname, COMPUTE_STATE, self.controller)
            for name, (_, hostname) in places.COMPUTES.items()
        }

    def up(self, say: Callable[[str], None]) -> None:
        """Bring up what is not up yet.  Raises Failed that names what did not come up, after ending what it started."""
        fresh = self.controller.pid is None
        try:
            with lap(say, "machines"):
                self.launch()
            with lap(say, "MariaDB, RabbitMQ, OVN, Ceph"):
                self._together(self._mariadb, self._rabbitmq, self._ovn, self._ceph)
            with lap(say, "schemas"):
                self._schemas()
            with lap(say, "identity"):
                self._identity()
            with lap(say, "services"):
                self._together(self._services, self._hypervisors)
            with lap(say, "images, networks, computes"):
                self._seed()
        except Failed:
            if fresh:
                self.down()
            raise

    def down(self) -> None:
        """End all, and remove all but what makes the next one faster."""
        self.controller.end()
        for node in self.computes.values():
            node.end()
        shutil.rmtree(places.NODES, ignore_errors=True)

    # -- a piece of it, for faults

    def nova_compute(self, host: str) -> None:
        """Start nova-compute of a host; Api.compute_becomes waits until Nova thinks so too."""
        node = self.computes[host]
        node.serve("nova-compute", f"{BIN}/python", f"{BIN}/{NOVA_COMPUTE.split()[0]}", *NOVA_COMPUTE.split()[1:],
                   "--log-file", "/var/log/nova/nova-compute.log")  # fmt: skip

    def libvirtd(self, host: str) -> None:
        node = self.computes[host]
        node.serve("libvirtd", "libvirtd", "--listen")
        self._answers(node, "libvirtd", "virsh", "-q", "-c", "qemu:///system", "version")

    def start(self, name: str) -> None:
        """Start a service of the controller that died, as `up` did; the broker and APIs answer when this returns."""
        if name == "rabbitmq":
            self._rabbitmq()
        elif name.endswith("-api"):
            self._api(name.removesuffix("-api"), APIS[name.removesuffix("-api")])
        elif name.removeprefix("nova-") in places.FAKES:
            self._fake(name.removeprefix("nova-"))
        elif name.removeprefix("ovn-") in NORTHBOUND:
            self._ovsdb(name.removeprefix("ovn-"))
        elif name.startswith("named-"):
            self._named(name)
        else:
            self._service(name, SINK if name == "designate-sink" else SERVICES[name])

    def sql(self, database: str, statement: str) -> list[list[str]]:
        """Run SQL as MariaDB's root: the rows as text."""
        said = self.controller.run("mariadb", "-N", "-B", "-S", "/run/mysqld/mysqld.sock", database, input=statement)
        return [line.split("\t") for line in said.splitlines()]

    def openstack(self, command: str) -> str:
        """Run one of the services' own programs on the controller."""
        program, *arguments = command.split()
        words = [f"{BIN}/python", "-W", "ignore"] if program == "python" else [f"{BIN}/python", f"{BIN}/{program}"]
        return self.controller.run(*words, *arguments, timeout=300)

    # -- how it comes up

    def launch(self) -> None:
        """Make the machines and their network, with nothing on them yet."""
        keys = places.STATE / "keys"
        keys.mkdir(parents=True, exist_ok=True)
        for name in ("read-key", "write-key", "nova-key", "host-key"):
            if not (keys / name).exists():
                run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(keys / name))
        public = {key.stem: key.read_text() for key in keys.glob("*.pub")}
        hosts = f"127.0.0.1 localhost\n{ADDRESS} controller\n" + "".join(
            f"{address} {name} {hostname}\n" for name, (address, hostname) in places.COMPUTES.items()
        )
        known = "".join(f"{name},{address} {public['host-key']}" for name, (address, _) in places.COMPUTES.items())
        controller = self.controller
        if controller.pid is None:
            shutil.rmtree(places.NODES, ignore_errors=True)
            for name in ("read-key", "write-key"):
                controller.furnish(f"cloudfsck/{name}", (keys / name).read_text())
            controller.furnish("cloudfsck/known_hosts", known)
            controller.furnish("cloudfsck/database-password", f"{places.PASSWORD}\n")
            controller.furnish("hosts", hosts)
            controller.launch(places.HERE / "etc/controller", {})
            controller.run("chmod", "-R", "go=", "/etc/cloudfsck")
            _made(controller, "/run/mysqld", "/run/named", "/run/ovn", "/var/log/testbed", "/var/log/placement",
                  *(f"/var/log/{name}" for name in CONTROLLER_STATE))  # fmt: skip
            controller.run("ip", "link", "add", "hv", "type", "bridge")
            controller.run("ip", "address", "add", f"{ADDRESS}/24", "dev", "hv")
            controller.run("ip", "link", "set", "hv", "up")
        for name, (address, _) in places.COMPUTES.items():
            node = self.computes[name]
            if node.pid is not None:
                continue
            host_id = str(uuid.uuid5(uuid.NAMESPACE_DNS, name))
            node.furnish("hosts", hosts)
            node.furnish("machine-id", host_id.replace("-", "") + "\n")
            node.furnish("nova/nova.conf", (places.HERE / "etc/controller/nova/nova.conf").read_text())
            node.furnish("ceph/ceph.conf", (places.HERE / "etc/controller/ceph/ceph.conf").read_text())
            node.furnish("ssh/ssh_host_ed25519_key", (keys / "host-key").read_text())
            node.furnish("testbed/authorized_keys", public["read-key"] + public["write-key"] + public["nova-key"])
            node.furnish("testbed/nova-key", (keys / "nova-key").read_text())
            node.furnish("testbed/known_hosts", known)
            node.launch(places.HERE / "etc/compute", {"HOST": name, "ADDRESS": address, "UUID": host_id})
            node.run("bash", "-ec", """
                cd /etc/testbed
                chmod 600 nova-key /etc/ssh/ssh_host_ed25519_key
                cp authorized_keys known_hosts /root/.ssh/
                cp -p nova-key /root/.ssh/id_ed25519
                mkdir -p /run/{sshd,libvirt,openvswitch,ovn,ceph} /var/log/{libvirt,nova,testbed}
                mkdir -p /var/lib/nova/instances
            """)  # fmt: skip
            link = f"v-{name}"
            run("nsenter", "--target", str(controller.pid), "--net", "ip", "link", "add", link, "type", "veth", "peer",
                "name", "eth0", "netns", str(node.pid))  # fmt: skip
            controller.run("ip", "link", "set", link, "master", "hv", "up")
            node.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
            node.run("ip", "link", "set", "eth0", "up")

    def _mariadb(self) -> None:
        node = self.controller
        if not node.path("/var/lib/mysql/mysql").exists():
            node.run("mariadb-install-db", "--defaults-file=/etc/testbed/my.cnf", "--user=root",
                     "--auth-root-authentication-method=socket", "--skip-test-db")  # fmt: skip
        node.serve("mariadb", "mariadbd", "--defaults-file=/etc/testbed/my.cnf")
        self._answers(node, "mariadb", "mariadb-admin", "-S", "/run/mysqld/mysqld.sock", "ping")
        self.sql("", f"CREATE USER IF NOT EXISTS openstack@'%' IDENTIFIED BY '{places.PASSWORD}';"
                     " GRANT ALL ON *.* TO openstack@'%';")  # fmt: skip

    def _rabbitmq(self) -> None:
        self.controller.serve("rabbitmq", "/usr/lib/rabbitmq/bin/rabbitmq-server", environment=RABBITMQ)
        self._answers(self.controller, "rabbitmq", "curl", "-sf", "-u", f"openstack:{places.PASSWORD}",
                      f"http://{ADDRESS}:15672/api/vhosts")  # fmt: skip

    def _ovn(self) -> None:
        """OVN's databases; the northbound one in a cluster of three, so that who leads it can change."""
        node = self.controller
        first, *others = NORTHBOUND
        self._ovsdb(first, "create-cluster", "/usr/share/ovn/ovn-nb.ovsschema", _raft(first))
        for name in others:
            self._ovsdb(name, "join-cluster", "OVN_Northbound", _raft(name), _raft(first))
        self._ovsdb("sb", "create", "/usr/share/ovn/ovn-sb.ovsschema")
        northbound = ",".join(f"unix:/run/ovn/{name}.sock" for name in NORTHBOUND)
        node.run("ovn-nbctl", f"--db={northbound}", "--no-wait", "init")
        node.run("ovn-sbctl", "--db=unix:/run/ovn/sb.sock", "init")
        node.serve("ovn-northd", "ovn-northd", f"--ovnnb-db={northbound}", "--ovnsb-db=unix:/run/ovn/sb.sock",
                   "--unixctl=/run/ovn/northd.ctl", "-vconsole:warn",
                   environment={"OVN_RUNDIR": "/run/ovn"})  # fmt: skip
        # The fake computes need a chassis too, else Neutron refuses the binding.
        for number, name in enumerate(places.FAKES, 21):
            self._chassis(node, name, f"10.77.0.{number}", f"/run/ovs-{name}", f"/var/lib/ovn/{name}.db", "dummy",
                          "--enable-dummy=override", "--disable-system")  # fmt: skip

    def _ovsdb(self, name: str, *made: str) -> None:
        """Serve a database of OVN's, which `ovsdb-tool` makes first if there is none: how, and of what."""
        node, file = self.controller, f"/var/lib/ovn/{name}.db"
        if not node.path(file).exists():
            node.run("ovsdb-tool", made[0], file, *made[1:])
        node.serve(f"ovn-{name}", "ovsdb-server", file, f"--remote=punix:/run/ovn/{name}.sock",
                   f"--remote=ptcp:{OVN_PORTS[name]}:{ADDRESS}", f"--unixctl=/run/ovn/{name}.ctl", "-vconsole:warn",
                   environment={"OVN_RUNDIR": "/run/ovn", "OVS_RUNDIR": "/run/ovn"})  # fmt: skip
        self._answers(node, f"ovn-{name}", "test", "-S", f"/run/ovn/{name}.sock")

    def _chassis(
        self, node: Node, name: str, address: str, run: str, database: str, datapath: str, *switch: str
    ) -> None:
        """An Open vSwitch with OVN's controller, as the chassis `name`; `run` is the directory of its sockets."""
        suffix = f"-{name}" if node is self.controller else ""
        _made(node, run)
        if not node.path(database).exists():
            node.run("ovsdb-tool", "create", database, "/usr/share/openvswitch/vswitch.ovsschema")
        environment = {"OVS_RUNDIR": run, "OVN_RUNDIR": run}
        socket = f"unix:{run}/db.sock"
        node.serve(f"ovsdb-server{suffix}", "ovsdb-server", database, f"--remote=punix:{run}/db.sock",
                   f"--unixctl={run}/ovsdb.ctl", "-vconsole:warn", environment=environment)  # fmt: skip
        self._answers(node, f"ovsdb-server{suffix}", "test", "-S", f"{run}/db.sock")
        node.run(
            "ovs-vsctl", f"--db={socket}", "--no-wait", "--", "init", "--", "set", "Open_vSwitch", ".",
            f"external_ids:system-id={name}", f"external_ids:hostname={name}",
            f"external_ids:ovn-remote=tcp:{ADDRESS}:6642", "external_ids:ovn-encap-type=geneve",
            f"external_ids:ovn-encap-ip={address}", "external_ids:ovn-cms-options=enable-chassis-as-gw",
            f"external_ids:ovn-bridge-datapath-type={datapath}", "--", "--may-exist", "add-br", "br-int", "--",
            "set", "bridge", "br-int", f"datapath_type={datapath}", "fail-mode=secure",
        )  # fmt: skip
        node.serve(f"ovs-vswitchd{suffix}", "ovs-vswitchd", socket, f"--unixctl={run}/vswitchd.ctl", "-vconsole:warn",
                   *switch, environment=environment)  # fmt: skip
        node.serve(f"ovn-controller{suffix}", "ovn-controller", socket, "-vconsole:warn", environment=environment)

    def _ceph(self) -> None:
        node, make = self.controller, str(places.HERE / "make-ceph")
        node.run(make, "monitor")
        node.serve("ceph-mon", "ceph-mon", "-f", "-i", "a")
        self._answers(node, "ceph-mon", "bash", "-c", f"</dev/tcp/{ADDRESS}/3300")
        node.run(make, "osd")
        node.serve("ceph-osd", "ceph-osd", "-f", "-i", "0")
        node.serve("ceph-mgr", "ceph-mgr", "-f", "-i", "x")
        node.run(make, "pool")

    def _schemas(self) -> None:
        """Make every database: by its service's own migrations the first time, from a dump of that afterwards."""
        known = {name for (name,) in self.sql("", "SELECT DISTINCT table_schema FROM information_schema.tables")}
        lock = hashlib.sha256((places.HERE / "requirements.txt").read_bytes()).hexdigest()[:16]
        dumps = places.CACHE / f"schemas-{lock}"
        dumps.mkdir(parents=True, exist_ok=True)
        missing = [name for name in places.DATABASES if name not in known]

        def make(name: str) -> None:
            dump = dumps / f"{SAME.get(name, name)}.sql"
            self.sql("", f"CREATE DATABASE {name} CHARACTER SET utf8mb3")
            if dump.exists():
                self.sql(name, dump.read_text())
                return
            self.openstack(MIGRATIONS[name])
            text = self.controller.run("mariadb-dump", "-S", "/run/mysqld/mysqld.sock", "--single-transaction", name)
            dump.with_suffix(".new").write_text(text)
            dump.with_suffix(".new").rename(dump)

        first = [name for name in missing if name not in SAME]
        heavy = [name for name in first if name.startswith("nova")]
        others = [name for name in first if name not in heavy and name != "neutron"]
        neutron = [name for name in first if name == "neutron"]

        def make_all(names: list[str]) -> None:
            for name in names:
                make(name)

        self._together(*(partial(make_all, names) for names in (heavy, others, neutron)))
        for name in missing:
            if name in SAME:
                make(name)
        mapped = {name for (name,) in self.sql("nova_api", "SELECT name FROM cell_mappings")}
        manage = "nova-manage --config-file /etc/nova/nova.conf cell_v2"
        if "cell0" not in mapped:
            url = f"mysql+pymysql://openstack:{places.PASSWORD}@{ADDRESS}:3306/nova_cell0?charset=utf8"
            self.openstack(f"{manage} map_cell0 --database_connection {url}")
        for name, (database, transport) in MAPPINGS.items():
            if name not in mapped:
                self.openstack(f"{manage} create_cell --name {name} --database_connection {database}"
                                f" --transport-url {transport}")  # fmt: skip

    def _identity(self) -> None:
        node = self.controller
        for repository in ("fernet", "credential"):
            if not node.path(f"/var/lib/keystone/{repository}/0").exists():
                node.run(f"{BIN}/python", "-c", f"""
import os
from cryptography.fernet import Fernet
place = "/var/lib/keystone/{repository}"
os.makedirs(place, 0o700)
for number in "01":
    with open(os.open(f"{{place}}/{{number}}", os.O_CREAT | os.O_WRONLY, 0o600), "wb") as file:
        file.write(Fernet.generate_key())
""")  # fmt: skip
        if self.sql("keystone", "SELECT count(*) FROM user") == [["0"]]:
            url = f"http://{ADDRESS}:5000/v3"
            self.openstack(f"keystone-manage --config-file /etc/keystone/keystone.conf bootstrap --bootstrap-password"
                            f" {places.PASSWORD} --bootstrap-admin-url {url} --bootstrap-public-url {url}"
                            f" --bootstrap-internal-url {url} --bootstrap-region-id RegionOne")  # fmt: skip
        self._api("keystone", 5000)
        self.openstack(f"python {places.HERE / 'seed.py'} identity")

    def _services(self) -> None:
        node = self.controller
        _made(node, *(f"/var/lib/{place}" for place in (
            "glance/images", "glance/staging", "glance/tasks", "nova/fake1", "nova/fake2", "bind/ns1", "bind/ns2",
            "designate/tooz", "designate/lock")))  # fmt: skip
        # These two look for it beside their own configuration file, wherever that says it is.
        for name in ("designate", "nova"):
            node.run("cp", f"{OPENSTACK}/etc/{name}/api-paste.ini", f"/etc/{name}/")
        self._bind()
        for name in ("rados", "rbd"):  # Debian's own, made for the Python that the services run on
            library = next(Path("/usr/lib/python3/dist-packages").glob(f"{name}.cpython-*.so"))
            link = next((places.VENV / "lib").glob("python3*")) / "site-packages" / library.name
            if not link.exists():
                link.symlink_to(library)
        for name, command in SERVICES.items():
            self._service(name, command)
        for name in places.FAKES:
            self._fake(name)
        self._together(*(partial(self._api, name, port) for name, port in APIS.items()))
        if not node.serves("designate-sink"):
            self.openstack("designate-manage --config-file /etc/designate/designate.conf pool update --file"
                            " /etc/designate/pools.yaml")  # fmt: skip
            zone = self.openstack(f"python {places.HERE / 'seed.py'} zone {places.ZONE}").strip()
            node.path("/etc/designate/sink.conf").write_text(SINK_CONF.format(zone=zone))
            self._service("designate-sink", SINK)

    def _bind(self) -> None:
        node = self.controller
        if not node.path("/var/lib/bind/rndc.key").exists():
            node.run("rndc-confgen", "-a", "-A", "hmac-sha256", "-k", "rndc-key", "-c", "/var/lib/bind/rndc.key")
            for name in ("transfer", "update"):
                node.path(f"/var/lib/bind/{name}.key").write_text(node.run("tsig-keygen", "-a", "hmac-sha256", name))
        for name in ("ns1", "ns2"):
            zone = node.path(f"/var/lib/bind/{name}/legacy.test.db")
            if not zone.exists():
                zone.write_text(f"$TTL 300\n@ IN SOA {name} root 1 300 60 3600 60\n@ NS {name}\n{name} A {ADDRESS}\n")
            self._named(f"named-{name}")

    def _named(self, name: str) -> None:
        """Start a name server of Designate's; on return it answers."""
        node, of = self.controller, name.removeprefix("named-")
        node.serve(name, "named", "-f", "-c", f"/etc/bind/{of}.conf")
        port = {"ns1": "5351", "ns2": "5352"}[of]
        asked = ("dig", "+short", "+tries=1", "+time=1", "-p", port, f"@{ADDRESS}", "legacy.test", "SOA")
        await_true(f"{name} answers", lambda: bool(node.run(*asked, check=False).strip()), 30)

    def _hypervisors(self) -> None:
        keyring = self.controller.path("/etc/ceph/ceph.client.cinder.keyring").read_text()
        key = next(line.split()[-1] for line in keyring.splitlines() if "key = " in line)
        for name, node in self.computes.items():
            node.path("/etc/ceph/ceph.client.cinder.keyring").write_text(keyring)
            self._chassis(
                node, name, places.COMPUTES[name][0], "/run/openvswitch", "/var/lib/openvswitch/conf.db", "netdev"
            )
            node.serve("sshd", "/usr/sbin/sshd", "-D", "-e")
            self.libvirtd(name)
            virsh = ("virsh", "-q", "-c", "qemu:///system")
            node.run(*virsh, "secret-define", "/dev/stdin", input=SECRET)
            node.run(*virsh, "secret-set-value", places.RBD_SECRET, "--base64", key)
            self.nova_compute(name)

    def _seed(self) -> None:
        guest = places.CACHE / "guest"
        guest.mkdir(parents=True, exist_ok=True)
        run("bash", str(places.HERE / "make-guest"), str(guest), timeout=300)
        self.openstack(f"python {places.HERE / 'seed.py'} cloud {guest}")
        hosts = [*places.COMPUTES, *places.FAKES]

        def known() -> bool:
            found = self.sql("nova_api", "SELECT count(*) FROM host_mappings")
            return int(found[0][0]) >= len(hosts)

        try:
            await_true("every nova-compute is known to its cell", known, 90)
        except Failed as failed:
            logs = "\n".join(node.log("nova-compute") for node in self.computes.values())
            raise Failed(f"{failed}\n{logs}") from failed
        zones = [f"kvm={host}" for host in places.COMPUTES] + [f"fake={host}" for host in places.FAKES]
        self.openstack(f"python {places.HERE / 'seed.py'} zones {' '.join(zones)}")

    # -- by which it comes up

    def _service(self, name: str, command: str) -> None:
        program, *arguments = command.split()
        log = f"/var/log/{name.partition('-')[0]}/{name}.log"
        self.controller.serve(name, f"{BIN}/python", f"{BIN}/{program}", *arguments, "--log-file", log)

    def _fake(self, name: str) -> None:
        """Start nova-compute of a host that is none."""
        files = " ".join(f"--config-file /etc/nova/{file}.conf" for file in ("nova", places.FAKES[name], name))
        self._service(f"nova-{name}", f"nova-compute {files}")

    def _api(self, name: str, port: int) -> None:
        """Start an API under uWSGI, and wait until it answers: it binds its port long before it can."""
        node = self.controller
        node.serve(f"{name}-api", f"{BIN}/uwsgi", "--ini", f"/etc/uwsgi/{name}.ini")
        code = 'case "$(curl -s -o /dev/null -m 5 -w "%{http_code}" "$0")" in 2*|3*|401) ;; *) exit 1 ;; esac'
        self._answers(node, f"{name}-api", "bash", "-c", code, f"http://{ADDRESS}:{port}/", seconds=180)

    def _answers(self, node: Node, name: str, *question: str, seconds: float = 60) -> None:
        """Wait until a service answers.  Raises Failed with the last of its log when it ends, or never does."""
        deadline = time.monotonic() + seconds
        while True:
            with suppress(Failed):
                node.run(*question, timeout=30)
                return
            if not node.serves(name):
                raise Failed(f"{name} of {node.name} ended while it came up:\n{node.log(name)}")
            if time.monotonic() > deadline:
                raise Failed(f"{name} of {node.name} did not answer in {seconds:.0f} s:\n{node.log(name)}")
            time.sleep(0.1)

    def _together(self, *tasks: Callable[[], object]) -> None:
        """Run tasks side by side.  Raises the first failure when all have ended."""
        with ThreadPoolExecutor(len(tasks) or 1) as pool:
            for done in [pool.submit(task) for task in tasks]:
                done.result()


def _raft(name: str) -> str:
    """Where one of a cluster listens for the others."""
    return f"tcp:{ADDRESS}:{OVN_PORTS[name] + 2}"


@contextmanager
def lap(say: Callable[[str], None], what: str) -> Iterator[None]:
    """Say how long it took."""
    began = time.monotonic()
    yield
    say(f"{what:<34} {time.monotonic() - began:6.1f} s")


def _made(node: Node, *directories: str) -> None:
    node.run("mkdir", "-p", *directories)
