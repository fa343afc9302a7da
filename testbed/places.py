"""Where everything of the testbed is, and what it is called."""

import os
from pathlib import Path

HERE = Path(__file__).resolve().parent
#: All that the testbed ever writes.
STATE = Path(os.environ.get("CLOUDFSCK_TESTBED", HERE.parent / ".cloud")).resolve()
#: Kept when the cloud goes down, so that the next one comes up faster.
VENV, CACHE = STATE / "venv", STATE / "cache"
#: Removed with the cloud.
NODES = STATE / "nodes"

CONTROLLER = "controller"
#: Hypervisors with libvirt and QEMU, by Nova's name of the host: its address, and the host name of the machine, which
#: Nova calls the node and which is another on purpose.
COMPUTES = {"compute1": ("10.77.0.11", "hv1"), "compute2": ("10.77.0.12", "hv2")}
#: Computes of Nova's fake driver, on the controller: the cell of each.
FAKES = {"fake1": "cell1", "fake2": "cell2"}
ADDRESS = "10.77.0.1"
CELLS = ("cell1", "cell2")
DATABASES = ("keystone", "glance", "placement", "cinder", "neutron", "designate", "nova_api", "nova_cell0",
             *(f"nova_{cell}" for cell in CELLS))  # fmt: skip

#: Where the services are within a node.
OPENSTACK = "/opt/openstack"
PASSWORD = "secret"
RBD_SECRET = "457eb676-33da-42ec-9a8c-9293d545c337"
ZONE = "cloud.test."
