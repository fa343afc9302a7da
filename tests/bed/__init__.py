"""The bed: real servers for the tests, each in a directory of its own; it never touches a server it did not start."""

from .databases import MariaDB, PostgreSQL
from .hypervisors import Hypervisor, Hypervisors
from .programs import Missing

__all__ = ["Hypervisor", "Hypervisors", "MariaDB", "Missing", "PostgreSQL"]
