"""The bed: real servers for the tests, each in a directory of its own; it never touches a server it did not start."""

from .databases import MariaDB, PostgreSQL
from .hypervisors import Hypervisor, Hypervisors
from .initiator import Initiator
from .programs import Missing
from .targets import Array

__all__ = ["Array", "Hypervisor", "Hypervisors", "Initiator", "MariaDB", "Missing", "PostgreSQL"]
