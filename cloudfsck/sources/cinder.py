"""Cinder's database as pieces of a snapshot."""

from __future__ import annotations

from collections.abc import Iterator

from cloudfsck import tables
from cloudfsck.model import Piece, Scope
from cloudfsck.sources import service
from cloudfsck.sources.database import Database


def read(database: Database, scope: Scope) -> Iterator[Piece]:
    """A piece for every table.  It never raises."""
    return service.read(database, tables.CINDER, service.tables_of("cinder"), scope)
