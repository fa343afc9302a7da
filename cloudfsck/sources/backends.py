"""The storage backends: one round trip each by images.py, its answer as pieces of the snapshot; it changes nothing.

A whole reading lists them by names alone.  Who uses an image Ceph tells image by image, so that is asked for a scope,
and after a whole reading for what may be left over.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

import pyarrow as pa

from cloudfsck import remote, tables
from cloudfsck.config import Backend, Ssh
from cloudfsck.model import Piece, Scope
from cloudfsck.remote import Failure, Target
from cloudfsck.snapshot import Snapshot
from cloudfsck.sources import service
from cloudfsck.sources.hypervisors import ARROW

#: Which part of images.py's answer each table is made from.
PARTS = {"backends": "images", "backend_images": "images", "backend_image_uses": "uses"}

#: The images of so many servers and volumes are asked about after a whole reading: more than any check's limit, and no
#: more than a proof asks for.
MOST = 200

_SUSPECTS = """
    SELECT id FROM (SELECT server AS id FROM images_of_gone_servers
                     UNION
                    SELECT unnest(also) FROM images_of_deleted_volumes)
     ORDER BY id LIMIT $most
"""

_SCHEMAS = {
    name: pa.schema([
        (column.name, ARROW[column.type]) for column in tables.BY_NAME[name].columns if column.name != "backend"
    ])
    for name in PARTS
}  # fmt: skip


def read(asked: Sequence[tuple[Target, Backend]], ssh: Ssh | None, scope: Scope) -> Iterator[Piece]:
    """Ask each backend, by a target that bears its name; one that does not answer gives gaps."""
    program = files("cloudfsck.sources").joinpath("images.py").read_text(encoding="utf-8")
    ids = None if scope.ids is None else sorted(scope.ids)
    known = {target.host: backend for target, backend in asked}
    requests = [
        (target, {
            "version": 1, "kind": backend.kind, "pools": backend.pools, "group": backend.group, "user": backend.user,
            "conf": backend.conf, "ids": ids,
        })
        for target, backend in asked
    ]  # fmt: skip
    started = service.now()
    for name, answer in remote.ask(requests, program, ssh):
        yield from _pieces(name, known[name], answer, started, scope.ids)


def suspects(snapshot: Snapshot) -> frozenset[str]:
    """The UUIDs of servers and volumes that are deleted, by what was read, and have an image."""
    return frozenset(str(row["id"]) for row in snapshot.rows(_SUSPECTS, {"most": MOST}))


def uses(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Of these pieces those that say who uses the images."""
    return (piece for piece in pieces if piece.table == "backend_image_uses")


def gaps(name: str, why: str, started: dt.datetime | None = None) -> list[Piece]:
    """Every table of a backend that could not be asked."""
    now = service.now()
    return [Piece(table, name, None, why, None, started or now, now) for table in PARTS]


def _pieces(
    name: str, backend: Backend, answer: remote.Answer, started: dt.datetime, keys: frozenset[str] | None
) -> list[Piece]:
    if isinstance(answer, Failure):
        return gaps(name, answer.why, started)
    try:
        if "images" not in answer:
            return gaps(name, "another program of ours answers there: its key must force images.py", started)
        clock, failed = _date(answer["clock"]), dict(answer["failed"])
        if "images" in failed:
            return gaps(name, str(failed["images"]), started)
        place = {
            "kind": backend.kind, "pools": backend.pools or [str(backend.group)], "cinder": backend.cinder_backend,
            "listed": answer["listed"], "volumes": answer["volumes"],
        }  # fmt: skip
        rows = {"backends": [place], "backend_images": answer["images"]}
        if answer.get("uses") is not None:
            rows["backend_image_uses"] = [{**use, "created_at": _date(use["created_at"])} for use in answer["uses"]]
        finished = service.now()
        pieces = [
            Piece(table, name, _table(table, those), None, clock, started, finished, keys)
            for table, those in rows.items()
        ]
        if "uses" in failed:
            pieces.append(Piece("backend_image_uses", name, None, str(failed["uses"]), None, started, finished, keys))
        return pieces
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, OSError, pa.ArrowException) as error:
        return gaps(name, f"its answer is not understood: {type(error).__name__}: {error}", started)


def _table(name: str, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Raises KeyError on a column that the answer lacks: no default hides an absence."""
    schema = _SCHEMAS[name]
    return pa.Table.from_pylist([{column: row[column] for column in schema.names} for row in rows], schema)


def _date(seconds: float | None) -> dt.datetime | None:
    return None if seconds is None else dt.datetime.fromtimestamp(seconds, dt.UTC).replace(tzinfo=None)
