"""Proof: what has settled, what is too much, what was not the same when read again, and what stops all repairs."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from cloudfsck import config, proof, scenario
from cloudfsck.model import Finding, Scope
from cloudfsck.snapshot import Snapshot
from tests.tiny import CHECKS, ZOMBIE, Cloud

MIGRATION = "INSERT INTO nova_migrations (cell, id, instance_uuid, status) VALUES ('cell1', 9, 's-2', 'done')"
#: s-1 was evacuated from c1 to c2, and runs on both.
TWICE = """
    hosts cell1      c1 c2
    nova_instances   cell   id  uuid  host  deleted  vm_state
                     cell1  1   s-1   c2    0        active
    nova_instance_mappings  instance_uuid  cell_id
                            s-1            cell1
    nova_migrations  cell   instance_uuid  migration_type  status  source_compute  dest_compute  deleted  updated_at
                     cell1  s-1            evacuation      done    c1              c2            0        -2h
    libvirt_domains  host  uuid  state    id  persistent  name  xml_sha256
                     c1    s-1   running  7   true        i-1   d1
                     c2    s-1   running  8   true        i-1   d1
"""


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    return Cloud(tmp_path)


def settling(cloud: Cloud) -> None:
    cloud.config = cloud.config.model_copy(update={"proof": config.Proof()})


def whys(cloud: Cloud) -> set[str]:
    return {finding.why for finding in cloud.judge().findings}


def test_a_fault_must_last_by_the_clock_that_dated_it(cloud: Cloud) -> None:
    settling(cloud)
    assert set(cloud.faults().values()) == {"proven"}
    cloud.truth.db.execute("UPDATE nova_instances SET deleted_at = $at WHERE uuid = 's-1'", {"at": scenario.NOW})
    assert cloud.faults() == {"c1/s-1": "seen", "c2/s-3": "proven"}
    assert "it is 0 s old, and counts after 1 h" in whys(cloud)


def test_a_date_to_come_is_no_age(cloud: Cloud) -> None:
    settling(cloud)
    tomorrow = scenario.NOW + dt.timedelta(days=1)
    cloud.truth.db.execute("UPDATE nova_instances SET deleted_at = $at WHERE uuid = 's-1'", {"at": tomorrow})
    assert cloud.faults()["c1/s-1"] == "seen"


def test_without_a_date_it_lasts_from_when_we_first_saw_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = Cloud(tmp_path, TWICE)
    settling(cloud)
    assert cloud.faults() == {"c1/s-1": "seen"}
    now = dt.datetime.now(dt.UTC).replace(tzinfo=None, microsecond=0) + dt.timedelta(minutes=11)
    for module in ("state", "proof"):
        monkeypatch.setattr(f"cloudfsck.{module}.utcnow", lambda: now)
    assert cloud.faults() == {"c1/s-1": "proven"}


def test_what_is_not_the_same_when_read_again_is_not_proven(cloud: Cloud) -> None:
    def restless(scope: Scope) -> tuple[Snapshot, Snapshot]:
        before = cloud.copy()
        cloud.truth.db.execute("UPDATE libvirt_domains SET id = id + 1 WHERE uuid = 's-1'")
        return before, cloud.copy()

    cloud.prove = restless  # type: ignore[method-assign]
    assert cloud.faults() == {"c1/s-1": "seen", "c2/s-3": "proven"}
    assert "it was not there, or not the same, when it was read again" in whys(cloud)


@pytest.mark.parametrize(("seconds", "state"), [(1, "proven"), (60, "seen")])
def test_a_boot_time_that_jitters_is_no_change_and_another_start_is(cloud: Cloud, seconds: int, state: str) -> None:
    cloud.truth.db.execute("UPDATE qemu_processes SET started = '2026-01-01 11:00:00' WHERE uuid = 's-1'")

    def jittering(scope: Scope) -> tuple[Snapshot, Snapshot]:
        before = cloud.copy()
        before.db.execute("UPDATE qemu_processes SET started = started + to_seconds(?)", [seconds])
        return before, cloud.copy()

    cloud.prove = jittering  # type: ignore[method-assign]
    assert cloud.faults() == {"c1/s-1": state, "c2/s-3": "proven"}


def test_of_two_guests_started_together_either_may_seem_the_later(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path, f"""{TWICE}
    qemu_processes   host  uuid  started
                     c1    s-1   -2h
                     c2    s-1   -2h
    """)  # fmt: skip
    cloud.truth.db.execute("UPDATE qemu_processes SET started = started + INTERVAL 1 SECOND WHERE host = 'c1'")

    def jittering(scope: Scope) -> tuple[Snapshot, Snapshot]:
        before = cloud.copy()
        before.db.execute("UPDATE qemu_processes SET started = started + INTERVAL 2 SECOND WHERE host = 'c2'")
        return before, cloud.copy()

    cloud.prove = jittering  # type: ignore[method-assign]
    assert cloud.faults() == {"c1/s-1": "proven"}


def test_what_is_no_servers_is_asked_for_by_what_it_names() -> None:
    """Not as all that is no server's, as every port that nothing has."""

    def found(server: str | None, *also: str) -> Finding:
        return Finding(
            "dns-name-of-nobodys-address", "key", "ask", "seen", {"server": server, "hosts": [], "also": also}
        )

    def ids(*findings: Finding) -> frozenset[str] | None:
        return proof.scope(findings, CHECKS).ids

    assert ids(found(None, "v-1")) == frozenset({"v-1"})
    assert ids(found("s-1"), found(None, "v-1")) == frozenset({"s-1", "v-1"})
    assert ids(found(None)) == frozenset({""}), "what names nothing rests on what was asked for so"


def test_too_many_findings_and_none_is_repaired(cloud: Cloud) -> None:
    cloud.config = cloud.config.model_copy(
        update={"limits": {"libvirt-domain-of-deleted-server": config.Limit(count=1)}}
    )
    assert set(cloud.faults().values()) == {"seen"}
    assert cloud.plan().entries == ()
    assert "found 2 in 24 hours, and more than 1 means an outage" in next(iter(whys(cloud)))


def test_too_large_a_share_and_none_is_repaired(tmp_path: Path) -> None:
    rows = "\n".join(
        f"                     cell1  {n}   t-{n}   c1    {n}        -2d         x  p" for n in range(10, 20)
    )
    domains = "\n".join(
        f"                     c1    t-{n}   running  {n}   true        i-{n}   d" for n in range(10, 20)
    )
    world = ZOMBIE.replace("    nova_instance_mappings", rows + "\n    nova_instance_mappings").replace(
        "    qemu_processes", domains + "\n    qemu_processes"
    )
    cloud = Cloud(tmp_path, world)
    assert set(cloud.faults().values()) == {"seen"}
    assert "found 12 of 13, and more than 10%" in next(iter(whys(cloud)))


def test_repairs_of_a_day_count_together(cloud: Cloud) -> None:
    cloud.config = cloud.config.model_copy(
        update={"limits": {"libvirt-domain-of-deleted-server": config.Limit(count=2)}}
    )
    cloud.apply(cloud.plan())
    cloud.truth.db.execute("UPDATE nova_instances SET deleted = 2, deleted_at = '2025-12-30' WHERE uuid = 's-2'")
    assert cloud.faults() == {"c1/s-2": "seen"}


def test_a_database_that_was_restored_is_noticed_by_an_id_that_is_another(cloud: Cloud) -> None:
    cloud.judge()
    cloud.truth.db.execute("UPDATE nova_instances SET uuid = 'other' WHERE id = 2")
    made = cloud.plan()
    assert made.entries == ()
    assert "in cell1 instance 2 is other, and was s-2: its database was restored" in made.stops[0]
    assert cloud.plan().entries == ()  # until a person says so
    cloud.state.accept_restore()
    assert len(cloud.plan().entries) == 2


def test_a_database_that_was_restored_is_noticed_by_what_is_gone(cloud: Cloud) -> None:
    cloud.judge()
    cloud.truth.db.execute("DELETE FROM nova_instances WHERE id = 3")
    assert "instance 3 (s-3) is gone, not archived, not purged" in cloud.plan().stops[0]


def test_what_was_archived_or_purged_is_no_sign_of_a_restore(cloud: Cloud) -> None:
    cloud.judge()
    cloud.truth.db.execute("INSERT INTO nova_shadow_instances (cell, id, uuid, deleted) VALUES ('cell1', 3, 's-3', 3)")
    cloud.truth.db.execute("DELETE FROM nova_instances WHERE id = 3")  # archived
    cloud.truth.db.execute("DELETE FROM nova_instances WHERE id = 1")  # purged: no older row is left
    assert cloud.plan().stops == ()


def test_an_authority_that_is_empty_stops_repairs(cloud: Cloud) -> None:
    cloud.truth.db.execute("UPDATE libvirt_domains SET nova = TRUE")
    cloud.truth.db.execute("DELETE FROM nova_instance_mappings")
    assert cloud.plan().stops == ("Nova's API database maps no server at all, and the cells hold 1",)
    cloud.truth.db.execute("DELETE FROM nova_instances")
    stops = cloud.plan().stops
    assert any("hold no server at all, and the hypervisors run some" in stop for stop in stops)


def test_a_clock_that_steps_back_stops_repairs(cloud: Cloud) -> None:
    cloud.judge()
    cloud.truth.db.execute("UPDATE ledger SET clock = clock - INTERVAL 1 HOUR WHERE per = 'cell'")
    stops = cloud.plan().stops
    assert any("the clock of cell:cell1 stepped back" in stop for stop in stops)
    assert "the clock of cell1 and ours differ by more than five minutes" in stops


def test_a_database_that_was_restored_is_noticed_by_what_only_grows(cloud: Cloud) -> None:
    cloud.truth.db.execute("UPDATE nova_services SET id = 1, report_count = 500 WHERE host = 'c1'")
    cloud.truth.db.execute(MIGRATION)
    assert cloud.plan().stops == ()
    cloud.truth.db.execute("DELETE FROM nova_migrations")  # archived and purged, for all that can be seen
    assert cloud.plan().stops == ()
    cloud.truth.db.execute("UPDATE nova_services SET report_count = 499 WHERE host = 'c1'")
    assert "heartbeats of nova-compute on c1 (1) fell from 500 to 499" in cloud.plan().stops[0]


def test_migrations_that_are_gone_though_nothing_was_purged_are_a_sign_too(cloud: Cloud) -> None:
    cloud.truth.db.execute(MIGRATION)
    cloud.truth.db.execute(
        "INSERT INTO nova_shadow_migrations (cell, id, instance_uuid, deleted_at)"
        " VALUES ('cell1', 3, 's-0', '2025-01-01')"
    )
    assert cloud.plan().stops == ()
    cloud.truth.db.execute("DELETE FROM nova_migrations")
    assert "migrations fell from 9 to 3" in cloud.plan().stops[0]


def test_a_clock_far_from_ours_stops_repairs(cloud: Cloud) -> None:
    cloud.truth.db.execute("UPDATE ledger SET clock = clock + INTERVAL 6 MINUTE WHERE per = 'cell'")
    assert "the clock of cell1 and ours differ by more than five minutes" in cloud.plan().stops


#: A deleted server that left two directories.
DIRECTORIES = """
    hosts cell1     c1
    nova_instances  cell   id  uuid  host  deleted  deleted_at  cleaned
                    cell1  1   s-1   c1    1        -9d         1
    nova_instance_mappings  instance_uuid  cell_id
                            s-1            cell1
    instance_dirs   host  name        kind      server  path           inode  device  bytes  files  changed  uid  gid  mode  symlink  open_by
                    c1    s-1         instance  s-1     /i/s-1         11     1       4096   2      -8d      0    0    493   false    []
                    c1    s-1_resize  resize    s-1     /i/s-1_resize  12     1       4096   2      -8d      0    0    493   false    []
"""  # noqa: E501


def test_each_directory_of_a_server_is_held_for_itself(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path, DIRECTORIES)
    assert set(cloud.faults()) == {"c1/s-1", "c1/s-1_resize"}
    assert cloud.apply(cloud.plan()) == [("done", "s-1"), ("done", "s-1")]
    holds = {hold.kind: hold for hold in cloud.state.holds()}
    assert {kind: hold.check for kind, hold in holds.items()} == {
        "directory": "nova-directory-of-deleted-server", "resize": "nova-resize-directory-left",
    }  # fmt: skip
    assert cloud.faults() == {}
    for hold in holds.values():
        cloud.state.release(hold.kind, hold.host, hold.server)
    cloud.judge()
    assert {(hold.kind, hold.check, hold.entry) for hold in cloud.state.holds()} == {
        (kind, hold.check, hold.entry) for kind, hold in holds.items()
    }, "what lies in quarantine is held again, each by its own check"
    cloud.truth.db.execute("UPDATE ledger SET started = '2999-01-01', finished = '2999-01-01', clock = '2999-01-01'")
    cloud.truth.db.execute("DELETE FROM quarantine WHERE entry = ?", [holds["resize"].entry])
    cloud.judge()
    assert [hold.kind for hold in cloud.state.holds()] == ["directory"]
