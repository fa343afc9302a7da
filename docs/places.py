"""A volume in its five places: each combination of there and not there, of a server that lives and of a deleted one.

    Nova's API database   the request to build the server, with the volume among its block devices
    Nova's cell           the block device mapping
    Cinder                the attachment, and the volume's status as Cinder derives it from that
    the guest             the disk in the domain's XML
    the host              the iSCSI device

Each combination is a small world, and what the checks say of it is the answer: nothing here knows it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from cloudfsck import checking, scenario
from cloudfsck.model import Check, Finding

PLACES = ("API database", "cell", "Cinder", "guest", "host")


@dataclass(frozen=True)
class Combination:
    """`there` are those of PLACES in which the volume is its server's; all that it is about bears its number."""

    number: int
    lives: bool
    there: tuple[str, ...]

    @property
    def world(self) -> scenario.World:
        """Its rows; cell1 is the cell of all combinations."""
        text = re.sub(r"\b([csvaw]-?)1\b", rf"\g<1>{self.number}", "\n".join(self._lines()))
        return scenario.read(re.sub(r"\bcell1  1 ", f"cell1  {self.number} ", text))

    def has(self, finding: Finding) -> bool:
        return finding.server == f"s-{self.number}" or f"v-{self.number}" in finding.also

    def _lines(self) -> Iterator[str]:
        attached = "Cinder" in self.there
        yield "hosts cell1  c1"
        yield "nova_instance_mappings  instance_uuid  cell_id  queued_for_delete"
        yield f"                        s-1            cell1    {str(not self.lives).lower()}"
        yield "nova_instances  cell   id  uuid  host  vm_state  launched_at  updated_at  deleted  deleted_at"
        if self.lives:
            yield "                cell1  1   s-1   c1    active    -200d        -9d         0        -"
        else:
            yield "                cell1  1   s-1   c1    deleted   -200d        -9d         1        -9d"
        if "API database" in self.there:
            yield "nova_build_requests  id  instance_uuid  volumes  created_at"
            yield "                     1   s-1            [v-1]    -9d"
        if "cell" in self.there:
            yield (
                "nova_block_device_mapping  cell   id  instance_uuid  source_type  destination_type  volume_id"
                "  attachment_id  device_name  device_path  connected  driver  places       updated_at  deleted"
            )
            yield (
                "                           cell1  1   s-1            volume       volume            v-1      "
                "  a-1            /dev/vdb     /dev/sdb     true       iscsi   [iqn.v-1/1]  -9d         0"
            )
        if self.lives or "guest" in self.there:
            yield "libvirt_domains  host  uuid  id  state    persistent  nova"
            yield "                 c1    s-1   1   running  true        true"
            yield "qemu_processes  host  uuid  pid   started"
            yield "                c1    s-1   4001  -9d"
        if "guest" in self.there:
            yield "libvirt_disks  host  uuid  config  target  type   device  source    serial  alias"
            yield "               c1    s-1   both    vdb     block  disk    /dev/sdb  v-1     v-1"
        yield "cinder_volumes  id   project_id  status     attach_status  multiattach  updated_at  deleted"
        if attached:
            yield "                v-1  p-1         in-use     attached       false        -9d         false"
            yield (
                "cinder_volume_attachment  id   volume_id  instance_uuid  attached_host  connector_host  attach_status"
                "  connected  driver  places       updated_at  deleted"
            )
            yield (
                "                          a-1  v-1        s-1            c1             c1              attached     "
                "  true       iscsi   [iqn.v-1/1]  -9d         false"
            )
        else:
            yield "                v-1  p-1         available  detached       false        -9d         false"
        if "host" in self.there:
            used = "[s-1]" if "guest" in self.there else "[]"
            yield "iscsi_sessions  host  session   target   portal          state      connection  devices"
            yield "                c1    session1  iqn.v-1  192.0.2.1:3260  LOGGED_IN  up          [sdb]"
            yield (
                "block_devices  host  name  kind  number  wwid  state    session   places       volume  slaves  holders"
                "  links       mounts  held_by  guests"
            )
            yield (
                "               c1    sdb   scsi  8:16    w-1   running  session1  [iqn.v-1/1]  v-1     []      []     "
                f"  [/dev/sdb]  []      []       {used}"
            )


def combinations() -> list[Combination]:
    """All 64: those of a server that lives first, and in each half the fullest first."""
    chosen = [
        (lives, tuple(place for place, there in zip(PLACES, marks, strict=True) if there))
        for lives in (True, False)
        for marks in product((True, False), repeat=len(PLACES))
    ]
    return [Combination(number, lives, there) for number, (lives, there) in enumerate(chosen, start=100)]


def judged(checks: Mapping[str, Check]) -> dict[Combination, list[Finding]]:
    """What the checks find of each, in one cloud that has all of them, each on a host of its own."""
    every = combinations()
    worlds = [one.world for one in every]
    rows: dict[str, list[dict[str, str | None]]] = {}
    for world in worlds:
        for table, many in world.rows.items():
            if table != "nova_cell_mappings":
                rows.setdefault(table, []).extend(many)
    rows["nova_cell_mappings"] = worlds[0].rows["nova_cell_mappings"]
    snapshot = scenario.fill(scenario.World(rows))
    try:
        found = [finding for answer in checking.run_all(checks, snapshot).values() for finding in answer.findings]
    finally:
        snapshot.close()
    return {one: [finding for finding in found if one.has(finding)] for one in every}
