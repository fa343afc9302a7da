"""Send an act to an OVSDB server, such as that of OVN's northbound database: its operations in one transaction, on the
server that leads, under what they expect.

What is expected are OVSDB's own `wait` operations: all of them hold, or nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cloudfsck.model import Moved, Outcomeless, Refused, Trouble
from cloudfsck.sources import ovsdb
from cloudfsck.sources.database import Unreadable

Operation = Mapping[str, Any]

#: The answer comes when what is written would outlast a crash of the server.
_DURABLE: Operation = {"op": "commit", "durable": True}

#: What servers say when they broke a transaction off, or when the cluster did not tell them whether it was done.
_OPEN = ("canceled", "cluster error")


def expect(table: str, row: str, columns: Mapping[str, Any]) -> Operation:
    """Nothing is written unless the row with this UUID has these values, which are in OVSDB's notation."""
    return {
        "op": "wait", "timeout": 0, "table": table, "where": [["_uuid", "==", ovsdb.uuid(row)]],
        "columns": list(columns), "until": "==", "rows": [dict(columns)],
    }  # fmt: skip


def transact(server: ovsdb.Server, database: str, operations: Sequence[Operation]) -> tuple[Mapping[str, Any], ...]:
    """Have the operations done, all or none, and return what the server says of each.

    Raises Moved if a row is not as a `wait` expects, Refused if the server says no, and nothing was written then;
    Trouble when it could not be sent; Outcomeless when what became of it is not known.  Raises ValueError for
    operations that expect nothing.
    """
    expected = [one for one in operations if one["op"] == "wait"]
    if not expected or any(one.get("timeout") != 0 for one in expected):
        raise ValueError("a write to OVSDB expects something (wait), and does not wait for it (timeout 0)")
    try:
        connection = ovsdb.leader(server, database)
    except Unreadable as error:
        raise Trouble(f"nothing was sent: {error}") from error
    with connection:
        place = connection.place
        try:
            reply = connection.ask("transact", [database, *operations, _DURABLE])
        except Unreadable as error:
            raise Outcomeless(f"it is not known whether {database} was changed: {error}") from error
        results = reply["result"]
        at, failed = _failure(reply)
        if failed is None:
            match results:
                case [*each, {}] if len(each) == len(operations) and all(isinstance(one, dict) for one in each):
                    return tuple(each)
            raise Outcomeless(f"it is not known whether {database} was changed: {place} does not answer to each act")
        told = ovsdb.said(failed)
        _led_all_along(connection, database, told)
    if told.startswith(_OPEN):
        raise Outcomeless(f"it is not known whether {database} was changed: {place}: {told}")
    if at is not None and at < len(operations) and operations[at]["op"] == "wait" and told.startswith("timed out"):
        raise Moved(f"{place}: the row of {operations[at]['table']} in {database} is no longer as it was seen")
    raise Refused(f"{place}: {database} is not changed: {told}")


def _failure(reply: Mapping[str, Any]) -> tuple[int | None, Any]:
    """Which result is an error (None: the request as a whole), and what the server says of it (None: none is)."""
    if reply.get("error") is not None:
        return None, reply["error"]
    for at, result in enumerate(reply["result"] if isinstance(reply["result"], list) else []):
        if isinstance(result, dict) and result.get("error") is not None:
            return at, result
    return None, None


def _led_all_along(connection: ovsdb.Connection, database: str, told: str) -> None:
    """Raises Outcomeless if the server may have lost the lead meanwhile.

    Then it has sent the transaction once more, to the new leader; and if it was done at first, it found no row as it
    expects, since it had changed it itself.
    """
    try:
        flaw = connection.flaw(database)
    except Unreadable as error:
        flaw = str(error)
    if flaw is not None:
        raise Outcomeless(f"it is not known whether {database} was changed: {told}; and by now {flaw}")
