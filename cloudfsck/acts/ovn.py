"""Send an act to OVN's northbound database: one transaction, under the whole row as it was read a moment before."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloudfsck.acts.ovsdb import expect, transact
from cloudfsck.config import Ovn
from cloudfsck.model import Act, Moved, Refused, Trouble
from cloudfsck.sources import ovn, ovsdb
from cloudfsck.sources.database import Unreadable

#: What OVN itself writes into a port, or what no insert may say.
_OVNS_OWN = frozenset({"_uuid", "_version", "up"})


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
        if order["do"] == "ovn_port.delete":
            return self._delete(order)
        if order["do"] == "ovn_port.insert":
            return self._insert(order)
        raise Refused(f"{order['do']} is nothing that OVN does")

    def _delete(self, order: Mapping[str, Any]) -> Mapping[str, Any]:
        port, was = order["port"], order["was"]
        row = self._row(was["row"])
        marks = ovsdb.plain("map", row["external_ids"])
        now = {
            "name": row["name"], "marked": "neutron:port_name" in marks, "up": ovsdb.plain("set", row["up"]) == [True],
            "revision": marks.get("neutron:revision_number"),
        }  # fmt: skip
        revision = None if was["revision"] is None else str(was["revision"])
        if now != {"name": port, "marked": True, "up": False, "revision": revision}:
            raise Moved(f"OVN's port {port} is not as it was: {now}")
        kept = {name: value for name, value in row.items() if name not in ("_uuid", "_version")}
        switch = [["name", "==", was["switch"]], ["ports", "includes", ovsdb.several([ovsdb.uuid(was["row"])])]]
        away = [["ports", "delete", ovsdb.several([ovsdb.uuid(was["row"])])]]
        done = transact(
            ovn.server(self.settings), ovn.NORTHBOUND,
            [
                expect("Logical_Switch_Port", was["row"], kept),
                {"op": "mutate", "table": "Logical_Switch", "where": switch, "mutations": away},
            ],
        )  # fmt: skip
        if done[1].get("count") != 1:
            raise Moved(f"OVN's switch {was['switch']} has no port {port} any more")
        return {"was": {name: value for name, value in row.items() if name not in _OVNS_OWN}}

    def _insert(self, order: Mapping[str, Any]) -> Mapping[str, Any]:
        columns = json.loads(order["columns"])
        if not isinstance(columns, dict) or columns.get("name") != order["port"]:
            raise Refused(f"the journal does not say what OVN's port {order['port']} was")
        nobody = {"op": "wait", "timeout": 0, "table": "Logical_Switch_Port", "where": [["name", "==", order["port"]]],
                  "columns": ["name"], "until": "==", "rows": []}  # fmt: skip
        switch = {"op": "wait", "timeout": 0, "table": "Logical_Switch", "where": [["name", "==", order["switch"]]],
                  "columns": ["name"], "until": "==", "rows": [{"name": order["switch"]}]}  # fmt: skip
        there = [["name", "==", order["switch"]]]
        put = [["ports", "insert", ovsdb.several([["named-uuid", "made"]])]]
        transact(
            ovn.server(self.settings), ovn.NORTHBOUND,
            [
                nobody, switch,
                {"op": "insert", "table": "Logical_Switch_Port", "row": columns, "uuid-name": "made"},
                {"op": "mutate", "table": "Logical_Switch", "where": there, "mutations": put},
            ],
        )  # fmt: skip
        return {}

    def _row(self, uuid: str) -> Mapping[str, Any]:
        """A port's row in OVSDB's own notation.  Raises Moved if there is none, and Trouble where nobody says."""
        select = {"op": "select", "table": "Logical_Switch_Port", "where": [["_uuid", "==", ovsdb.uuid(uuid)]]}
        try:
            with ovsdb.leader(ovn.server(self.settings), ovn.NORTHBOUND) as connection:
                (result,) = connection.call("transact", [ovn.NORTHBOUND, select])
        except Unreadable as error:
            raise Trouble(f"nothing was sent: {error}") from error
        rows = result.get("rows") if isinstance(result, Mapping) else None
        if not isinstance(rows, list) or len(rows) != 1:
            raise Moved(f"OVN has no row {uuid} of a port any more")
        found: Mapping[str, Any] = rows[0]
        return found
