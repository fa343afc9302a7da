"""The revision of a service's schema, as the service's own migrations note it in its database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cloudfsck import tables
from cloudfsck.config import Config
from cloudfsck.sources import service
from cloudfsck.sources.database import Database, Login, Reading, Unreadable

#: Alembic's own table, of which no snapshot has a part.
_VERSION = tables.Table(
    "alembic_version", "cloud", "", (tables.Column("version_num", "VARCHAR", "", False),), origin="alembic_version"
)


def columns(database: Database) -> Mapping[str, Sequence[str]]:
    """The columns that are read of a service's database, by the table's name in it."""
    wanted = [_VERSION, *service.tables_read_from(database)]
    if database.name == tables.NEUTRON:  # where its plugin for NSX has made them
        wanted += service.tables_of("neutron_nsx")
    return service.columns(wanted)


def databases(config: Config, login: Login) -> list[Database]:
    """The databases of the services beside Nova that the configuration names."""
    named = {
        "cinder": config.cinder,
        "designate": config.designate,  # what has a name is read after it
        "neutron": config.neutron,
        "keystone": config.keystone,  # whose projects acquit what the others have
        "octavia": config.octavia,
        "placement": config.placement,
    }
    if config.nsx is not None:  # its plugin's tables stand in Neutron's database, and only then
        named[tables.NEUTRON_NSX] = config.neutron
    return [Database(name, service.database, login) for name, service in named.items() if service is not None]


def revisions(reading: Reading) -> list[str]:
    """The revision of each head of the service's migrations: Neutron has two (expand and contract), the others one.

    Raises Unreadable if the table cannot be read, is missing (a release that is not migrated by Alembic yet), or empty.
    """
    found = [str(row["version_num"]) for row in reading.rows(_VERSION).to_pylist()]
    if not found:
        raise Unreadable(f"{reading.database}: table {_VERSION.origin} is empty: no migration has made this schema")
    return sorted(found)
