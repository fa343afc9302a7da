"""What an act's effect does to the holds of a snapshot, and how it finds the one row that it changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cloudfsck.model import Act, Moved


@dataclass(frozen=True)
class Standing:
    """A rung, and since when; None: since the snapshot was taken."""

    rung: str
    since: str | None = None


def one_row(db: Any, act: Act, was: Standing | None, change: str, guard: str, **values: Any) -> None:
    """Run `change` on the one row of the act's domain for which `guard` holds.  Raises Moved if there is not just one,
    or the domain does not stand where the act expects it; then nothing is changed."""
    stands(db, act, "domain", was)
    where = f"WHERE host = $host AND uuid = $uuid AND {guard}"
    given = {"host": act.host, "uuid": act.server, **values}
    found = db.execute(f"SELECT count(*) FROM libvirt_domains {where}", given).fetchone()[0]
    if found != 1:
        raise Moved(f"{act}: {found} rows are as it expects, not one")
    db.execute(f"{change} {where}", given)


def just_these(act: object, found: Sequence[str], expected: Sequence[str]) -> None:
    """Raises Moved unless a set of records has those that the act expects, and no others."""
    if sorted(found) != sorted(expected):
        raise Moved(f"{act}: it has {sorted(found) or 'no record'}, not {sorted(expected)}")


def stands(db: Any, act: Act, kind: str, was: Standing | None) -> None:
    """Raises Moved if the act's object does not stand where the act expects it."""
    here = "kind = $kind AND host = $host AND server = $server"
    found = db.execute(
        f"SELECT rung FROM holds WHERE {here}", {"kind": kind, "host": act.host, "server": act.server}
    ).fetchall()
    if found != ([(was.rung,)] if was else []):
        raise Moved(f"{act}: it stands on {found or 'no rung'}, not on {was.rung if was else 'none'}")


def moved_on(db: Any, act: Act, kind: str, was: Standing | None, now: Standing | None, entry: str = "") -> None:
    """Move the act's object from one rung to another.  Raises Moved if it does not stand where the act expects it."""
    at = {"kind": kind, "host": act.host, "server": act.server}
    here = "kind = $kind AND host = $host AND server = $server"
    stands(db, act, kind, was)
    db.execute(f"DELETE FROM holds WHERE {here}", at)
    if now is not None:
        db.execute(
            "INSERT INTO holds SELECT NULL, $kind, $host, $server, $rung,"
            " coalesce($since::TIMESTAMP, (SELECT max(finished) FROM ledger)), NULL, $entry",
            {**at, "rung": now.rung, "since": now.since, "entry": entry},
        )
