"""Send an act to OVN's northbound database: one transaction, under the whole row as it was read a moment before."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cloudfsck.acts.ovsdb import Operation, expect, transact
from cloudfsck.config import Ovn
from cloudfsck.model import Act, Moved, Refused, Trouble
from cloudfsck.sources import ovn, ovsdb
from cloudfsck.sources.database import Unreadable

#: What OVSDB itself writes into a row.
_OVSDBS_OWN = frozenset({"_uuid", "_version"})

#: What OVN itself writes, and no insert may say.
_OVNS_OWN = _OVSDBS_OWN | {"up"}

Columns = Mapping[str, Any]


@dataclass(frozen=True)
class _Kind:
    """What an act on a row of a table has to know of it: Neutron's mark; the table of what must have it, if anything
    must, and by which of its columns; the rows that are its own by their column, which come and go with it; and whether
    it may refer to others, for those outlast it.

    A row that has no name goes by its UUID, which it keeps when it is put back.  Nothing may be left that refers to it
    by one of `users`, columns of switches' ports; and of what a `sole` row is of there may be no other.
    """

    mark: str
    parent: str | None = None
    among: str = "ports"
    own: Mapping[str, str] = field(default_factory=dict)
    refers: bool = False
    named: bool = True
    users: tuple[str, ...] = ()
    sole: bool = False


_KINDS = {
    "Logical_Switch_Port": _Kind("neutron:port_name", parent="Logical_Switch", refers=True),
    "Logical_Router_Port": _Kind("neutron:router_name", parent="Logical_Router"),
    "Logical_Switch": _Kind("neutron:network_name"),
    "Logical_Router": _Kind("neutron:router_name"),
    "Port_Group": _Kind("neutron:security_group_id", own={"acls": "ACL"}),
    "NAT": _Kind("neutron:fip_id", parent="Logical_Router", among="nat", refers=True, named=False, sole=True),
    "DHCP_Options": _Kind("subnet_id", named=False, users=("dhcpv4_options", "dhcpv6_options")),
}

_WORDS = {"NAT": "NAT rule", "DHCP_Options": "DHCP options"}


@dataclass(frozen=True)
class Northbound:
    """OVN's northbound database, as [write.ovn] says who writes to it."""

    settings: Ovn

    def send(self, act: Act) -> Mapping[str, Any]:
        """Have the act done, and return what was seen: the row as it was.

        Raises Moved or Refused when nothing was changed, Trouble when it could not be sent and nothing was changed, and
        Outcomeless when what became of it is not known.
        """
        order = act.order
        if order["do"] in ("ovn_port.delete", "ovn_object.delete"):
            return self._delete(order)
        if order["do"] in ("ovn_port.insert", "ovn_object.insert"):
            return self._insert(order)
        raise Refused(f"{order['do']} is nothing that OVN does")

    def _delete(self, order: Mapping[str, Any]) -> Mapping[str, Any]:
        table, name, was = order["table"], order["name"], order["was"]
        kind = _KINDS[table]
        row = self._row(table, was["row"])
        marks = ovsdb.plain("map", row["external_ids"])
        revision = None if was["revision"] is None else str(was["revision"])
        now: dict[str, Any] = {"revision": marks.get("neutron:revision_number")}
        expected: dict[str, Any] = {"revision": revision}
        if kind.named:
            now |= {"name": row["name"], "marked": kind.mark in marks}
            expected |= {"name": name, "marked": True}
        else:
            now["of"], expected["of"] = marks.get(kind.mark), was["of"]
        if table == "Logical_Switch_Port":
            now["up"], expected["up"] = ovsdb.plain("set", row["up"]) == [True], False
        if now != expected:
            raise Moved(f"OVN's {_word(table)} {name} is not as it was: {now}")
        if not kind.refers and (
            has := sorted(column for column in row if column not in kind.own and _refer(row, column))
        ):
            raise Refused(f"OVN's {_word(table)} {name} still has {', '.join(has)}")
        own = {
            column: [self._row(of, one) for one in ovsdb.plain("set", row[column])] for column, of in kind.own.items()
        }
        expectations = [expect(table, was["row"], _without(row, _OVSDBS_OWN))]
        for column, of in kind.own.items():
            expectations += [expect(of, one["_uuid"][1], _without(one, _OVSDBS_OWN)) for one in own[column]]
        expectations += [
            _none("Logical_Switch_Port", [[column, "includes", ovsdb.several([ovsdb.uuid(was["row"])])]])
            for column in kind.users
        ]
        away: Operation = {"op": "delete", "table": table, "where": [["_uuid", "==", ovsdb.uuid(was["row"])]]}
        if kind.parent is not None:
            this = ovsdb.several([ovsdb.uuid(was["row"])])
            has_it = [["name", "==", was["parent"]], [kind.among, "includes", this]]
            away = {"op": "mutate", "table": kind.parent, "where": has_it, "mutations": [[kind.among, "delete", this]]}
        done = transact(ovn.server(self.settings), ovn.NORTHBOUND, [*expectations, away])
        if done[-1].get("count") != 1:
            of = "" if kind.parent is None else f" of {_word(kind.parent)} {was['parent']}"
            raise Moved(f"OVN has no {_word(table)} {name}{of} any more")
        return {
            "was": _without(row, _OVNS_OWN),
            "owned": {column: [_without(one, _OVNS_OWN) for one in rows] for column, rows in own.items()},
        }

    def _insert(self, order: Mapping[str, Any]) -> Mapping[str, Any]:
        table, name, parent = order["table"], order["name"], order["parent"]
        kind = _KINDS[table]
        columns, owned = json.loads(order["columns"]), json.loads(order["owned"])
        told = isinstance(columns, dict) and (columns.get("name") == name if kind.named else "external_ids" in columns)
        if not told or set(owned) != set(kind.own):
            raise Refused(f"the journal does not say what OVN's {_word(table)} {name} was")
        itself: Operation = {"op": "insert", "table": table, "row": columns, "uuid-name": "made"}
        if kind.named:
            operations = [_named(table, name, there=False)]
        else:
            operations = [_none(table, [["_uuid", "==", ovsdb.uuid(name)]])]
            # Open vSwitch takes a UUID since 2.13 (ovsdb-server(7), 5.2.1 Insert).
            itself = {**itself, "uuid": name}
        if kind.sole:
            operations.append(_none(table, [["external_ids", "includes", ovsdb.mapping({kind.mark: order["of"]})]]))
        if kind.parent is not None:
            operations.append(_named(kind.parent, parent, there=True))
        for column, of in kind.own.items():
            names = [f"own{number}" for number in range(len(owned[column]))]
            columns[column] = ovsdb.several([["named-uuid", one] for one in names])
            operations += [
                {"op": "insert", "table": of, "row": row, "uuid-name": one}
                for one, row in zip(names, owned[column], strict=True)
            ]
        operations.append(itself)
        if kind.parent is not None:
            put = [[kind.among, "insert", ovsdb.several([["named-uuid", "made"]])]]
            operations.append(
                {"op": "mutate", "table": kind.parent, "where": [["name", "==", parent]], "mutations": put}
            )
        transact(ovn.server(self.settings), ovn.NORTHBOUND, operations)
        return {}

    def _row(self, table: str, uuid: str) -> Columns:
        """A row in OVSDB's own notation.  Raises Moved if there is none, and Trouble where nobody says."""
        select = {"op": "select", "table": table, "where": [["_uuid", "==", ovsdb.uuid(uuid)]]}
        try:
            with ovsdb.leader(ovn.server(self.settings), ovn.NORTHBOUND) as connection:
                (result,) = connection.call("transact", [ovn.NORTHBOUND, select])
        except Unreadable as error:
            raise Trouble(f"nothing was sent: {error}") from error
        rows = result.get("rows") if isinstance(result, Mapping) else None
        if not isinstance(rows, list) or len(rows) != 1:
            raise Moved(f"OVN has no row {uuid} of a {_word(table)} any more")
        found: Columns = rows[0]
        return found


def _word(table: str) -> str:
    return _WORDS.get(table, table.lower().removeprefix("logical_").replace("_", " "))


def _without(row: Columns, columns: frozenset[str]) -> Columns:
    return {name: value for name, value in row.items() if name not in columns}


def _refer(row: Columns, column: str) -> bool:
    """Whether a column names other rows: a UUID, or some of them, or a map of them."""
    value = row[column]
    if column in _OVSDBS_OWN or not isinstance(value, list):
        return False
    if value[0] in ("set", "map"):
        flat = [one for each in value[1] for one in (each if value[0] == "map" else [each])]
        return any(isinstance(one, list) and one[:1] == ["uuid"] for one in flat)
    return bool(value[0] == "uuid")


def _named(table: str, name: str, *, there: bool) -> Operation:
    """Nothing is written unless there is a row of this name, and only one, or unless there is none."""
    return {
        "op": "wait", "timeout": 0, "table": table, "where": [["name", "==", name]], "columns": ["name"],
        "until": "==", "rows": [{"name": name}] if there else [],
    }  # fmt: skip


def _none(table: str, where: list[Any]) -> Operation:
    """Nothing is written unless there is no such row."""
    return {
        "op": "wait", "timeout": 0, "table": table, "where": where, "columns": ["external_ids"], "until": "==",
        "rows": [],
    }  # fmt: skip
