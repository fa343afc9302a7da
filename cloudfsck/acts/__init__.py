"""Acts change one system each, and nothing else of ours writes the outside; here they go to JSON and come back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from cloudfsck.acts import (
    allocation,
    attachment,
    block_device,
    device,
    directory,
    domain,
    name,
    nsx_object,
    ovn_note,
    ovn_object,
    ovn_port,
    port,
    quota,
    recordset,
    zone,
)
from cloudfsck.model import Act, Trouble

KINDS: dict[str, type[Any]] = {
    kind.kind: kind
    for kind in (
        domain.Pause, domain.Resume, domain.Hold, domain.Release, domain.Stop, domain.Start, domain.Undefine,
        domain.Define, directory.Quarantine, directory.Restore, directory.Remove, attachment.Delete,
        attachment.Complete, attachment.ResetStatus, device.Remove, device.Logout, block_device.Delete,
        block_device.Restore, port.Delete, port.DeleteDhcp, port.Unbind, port.Rebind, port.DeleteBinding,
        port.Disassociate, port.Associate, ovn_port.Delete, ovn_port.Insert, ovn_object.Delete, ovn_object.Insert,
        ovn_note.Reset, ovn_note.Restore,
        nsx_object.Delete, nsx_object.Create, recordset.Remove, recordset.Restore, recordset.Make,
        name.Remove, name.Restore, zone.Refresh, quota.Count, allocation.Take, allocation.Give,
    )
}  # fmt: skip


def to_json(act: Act) -> dict[str, Any]:
    return {"act": act.kind, **dataclasses.asdict(act)}  # type: ignore[call-overload]


def from_json(given: Mapping[str, Any]) -> Act:
    """The act that `to_json` wrote.  Raises Trouble if a plan or journal was edited into something that is none."""
    values = dict(given)
    kind = KINDS.get(values.pop("act", None))
    if kind is None:
        raise Trouble(f"there is no act {given.get('act')!r}; the acts are {', '.join(KINDS)}")
    try:
        if isinstance(values.get("directory"), Mapping):
            values["directory"] = directory.Directory(**values["directory"])
        act: Act = kind(**values)
    except TypeError as error:
        raise Trouble(f"act {given.get('act')!r} is not as cloudfsck writes it: {error}") from error
    return act
