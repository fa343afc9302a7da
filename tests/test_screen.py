"""The screen of one server: a block for each place, the row that disagrees marked, nothing made of what was unheard."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from cloudfsck import checks, config, demo, proof, report, scenario, screen, tables
from cloudfsck.config import Dns
from cloudfsck.demo import cloud as story
from cloudfsck.model import Check
from cloudfsck.screen import View
from cloudfsck.snapshot import Snapshot
from cloudfsck.sources import dns
from tests.tiny import Cloud
from tests.worlds import ALL, built, without

CHECKS = checks.load()
CONFIG = config.Config.model_validate({
    "cloud": {"name": "tiny", "state": Path("/nowhere")}, "nova": {"api_database": "sqlite:////nowhere"},
    "hosts": {"transport": "local", "gone": {"c8": "scrapped"}},
})  # fmt: skip

#: Deleted three days ago, and it still runs on c1; c2 and c3 have nothing of it.
ZOMBIE = """
    hosts cell1             c1 c2 c3
    nova_instances          cell   id  uuid  host  node  deleted  deleted_at  updated_at  vm_state  power_state  display_name  project_id
                            cell1  1   s-1   c1    hv1   1        -3d         -3d         deleted   0            web-1         p-1
                            cell1  2   s-2   c2    hv2   0        -           -9d         active    1            web-2         p-1
    nova_instance_mappings  instance_uuid  cell_id  queued_for_delete  created_at  updated_at
                            s-1            cell1    true               -9d         -3d
                            s-2            cell1    false              -9d         -
    libvirt_domains         host  uuid  state    reason  id  persistent  name  nova  xml_sha256
                            c1    s-1   running  booted  7   true        i-1   true  d1
                            c2    s-2   running  booted  8   true        i-2   true  d2
    qemu_processes          host  uuid  pid   started
                            c1    s-1   4001  -9d
                            c2    s-2   4002  -9d
"""  # noqa: E501
OF_DELETED = "libvirt-domain-of-deleted-server"
TITLE = CHECKS[OF_DELETED].title


def look(world: str | Snapshot, server: str = "s-1", known: dict[str, Check] | None = None, **given: Any) -> View:
    snapshot = scenario.build(world) if isinstance(world, str) else world
    before = given.get("before", snapshot)
    first_seen = given.get("first_seen", lambda check, key: None)
    subject = screen.around(given.get("kind", "server"), server, snapshot, given.get("names", frozenset()))
    return screen.look(
        before, snapshot, subject, CHECKS if known is None else known, CONFIG, first_seen, scenario.NOW
    )  # fmt: skip


def shown(view: View, width: int | None = 80, known: dict[str, Check] | None = None) -> str:
    return screen.text(view, known or CHECKS, CONFIG, width).plain


def of(*names: str) -> dict[str, Check]:
    return {name: CHECKS[name] for name in names}


def line(text: str, word: str) -> str:
    """The one line that has this word."""
    (found,) = [line for line in text.splitlines() if word in line]
    return found


# ------------------------------------------------------------------------------------------ what it looks like


def test_a_narrow_screen() -> None:
    assert shown(look(ZOMBIE, known=of(OF_DELETED))).split("\n\n✗ seen")[0] == dedent("""\
        s-1  web-1
        of project p-1, read 2026-01-01 12:00:00 UTC

        Nova's API database
          mapping  in cell1  updated 2025-12-29 12:00:00  3 d ago
                   queued_for_delete, created 2025-12-23 12:00:00 (9 d ago)
                   no build request, no request spec

        cell cell1
          row      deleted   updated 2025-12-29 12:00:00  3 d ago
                   row deleted, no task_state, power_state none, host c1, node hv1,
                   deleted 2025-12-29 12:00:00 (3 d ago)

        host c1  nova-compute up, it was here last
        ✗ domain   running
                   reason booted, id 7, persistent, name i-1
                   ✗ Nova deleted the server, and its domain is still on the host.
          process  pid 4001  started 2025-12-23 12:00:00  9 d ago
                   no directory

        nothing on 2 other hosts: c2, c3

        Verdict: something is wrong with it""")


def test_a_wide_screen_has_a_row_a_line() -> None:
    text = shown(look(ZOMBIE, known=of(OF_DELETED)), 160)
    assert line(text, "mapping").endswith("3 d ago  queued_for_delete, created 2025-12-23 12:00:00 (9 d ago)")
    assert " ".join(line(text, "✗ domain").split()) == "✗ domain running reason booted, id 7, persistent, name i-1"
    at = {line(text, word).index(word) for word in ("queued_for_delete", "row deleted", "reason booted")}
    assert len(at) == 1


def test_a_pipe_folds_nothing_and_has_no_colour() -> None:
    text = shown(look(ZOMBIE, known=of(OF_DELETED)), None)
    assert "node hv1, deleted 2025-12-29 12:00:00 (3 d ago)" in line(text, "  row ")
    assert "\x1b" not in text


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140])
def test_nothing_is_wider_than_the_terminal_but_what_is_copied(width: int) -> None:
    text = shown(look(ZOMBIE, known=of(OF_DELETED)), width)
    for one in text.splitlines():
        copied = "would" in one or one.startswith(f"    {OF_DELETED} ") or " " not in one.strip()
        assert len(one) <= width or copied, one


def test_what_a_person_may_do_and_what_nova_will() -> None:
    crashed = ZOMBIE.replace("c1    s-1   running", "c1    s-1   crashed")
    check = dataclasses.replace(
        CHECKS[OF_DELETED],
        query=CHECKS[OF_DELETED].query,
        commands=lambda row: [f"on {row['host']}: virsh dominfo {row['server']}"],
    )
    text = shown(look(crashed, known={OF_DELETED: check}), 80, {OF_DELETED: check})
    assert "    by hand: libvirt says that it is crashed" in text
    assert text.endswith("    whoever is sure may type\n      on c1: virsh dominfo s-1")
    assert "repair would" not in text
    text = shown(look(ZOMBIE, known=of(OF_DELETED)))
    assert "    repair would pause domain s-1 on c1; its memory is kept  (ask; undo exact)" in text
    (finding,) = look(ZOMBIE, known=of(OF_DELETED)).findings
    if finding.row.get("nova_will"):
        assert "    if left alone: " in text


# ------------------------------------------------------------------------------------------ which row disagrees


def test_only_what_a_finding_accuses_on_its_own_host_is_marked() -> None:
    world = ZOMBIE + """
    libvirt_domains         host  uuid  state    reason  id  persistent  name  nova  xml_sha256
                            c2    s-1   shutoff  -       -   true        i-1   true  d1
    """  # fmt: skip
    only = {OF_DELETED: dataclasses.replace(CHECKS[OF_DELETED], query=f"""
        SELECT * FROM ({CHECKS[OF_DELETED].query}) WHERE host = 'c1'""")}  # fmt: skip
    view = look(world, known=only)
    assert [(mark.table, mark.part) for mark in view.marks] == [("libvirt_domains", "c1")]
    (mark,) = view.marks
    assert view.places["libvirt_domains"][mark.row]["host"] == "c1"
    text = shown(view, known=only)
    assert sum(one.startswith("✗ ") for one in text.splitlines()) == 2  # the row, and the finding
    assert text.count(TITLE) == 2


def test_of_two_directories_the_one_is_marked_that_is_meant() -> None:
    name = "nova-directory-of-deleted-server"
    world = """
    hosts cell1     c1
    nova_instances  cell   id  uuid  host  deleted  deleted_at  cleaned
                    cell1  1   s-1   c1    1        -9d         1
    nova_instance_mappings  instance_uuid  cell_id
                            s-1            cell1
    instance_dirs   host  name        kind      server  path           inode  device  bytes  files  changed  uid  gid  mode  symlink  open_by
                    c1    s-1         instance  s-1     /i/s-1         11     1       4096   2      -8d      0    0    493   false    []
                    c1    s-1_resize  resize    s-1     /i/s-1_resize  12     1       8192   2      -8d      0    0    493   false    [7]
    """  # noqa: E501
    view = look(world, known=of(name))
    assert [view.places["instance_dirs"][mark.row]["inode"] for mark in view.marks] == [11]
    text = shown(view, known=of(name))
    assert line(text, "✗ directory").split()[:4] == ["✗", "directory", "4.0", "KiB"]
    assert line(text, "_resize  ").split()[:3] == ["_resize", "8.0", "KiB"]
    assert "open by nobody, /i/s-1" in text
    assert "open by 7, /i/s-1_resize" in text


def test_a_row_that_is_accused_is_shown_though_no_line_names_its_table() -> None:
    world = ZOMBIE + """
    disk_images  host  path         server  format  backing
                 c1    /i/s-1/disk  s-1     qcow2   /i/_base/x
                 c1    /i/s-1/more  s-1     raw     -
    """  # fmt: skip
    assert "disk_images" not in {line.table for line in screen.LINES}
    given = ", ".join(f"NULL AS {name}" for name in ("since", "clock", "by_hand", "rung", "rung_since"))
    check = dataclasses.replace(
        CHECKS[OF_DELETED], text="A disk is odd.", accused=("disk_images",), repair=None, commands=None, risk="by-hand",
        query=f"SELECT path AS key, server, host, [host] AS hosts, [] AS cells, {given} FROM disk_images"
        " WHERE format = 'raw'",
    )  # fmt: skip
    known = {"odd-disk": check}
    text = shown(look(world, known=known), 160, known)
    assert "also" in line(text, "disk_images 2")
    assert text.count("✗ disk_images") == 2
    assert "/i/_base/x" in text
    assert "    by hand: no program repairs this" in text


def test_what_is_held_and_what_is_unproven_bear_marks_of_their_own() -> None:
    held = ZOMBIE.replace("c1    s-1   running", "c1    s-1   paused ") + """
    holds  check_name                        kind    host  server  rung    since  entry  run
           libvirt-domain-of-deleted-server  domain  c1    s-1     paused  -2h    7      r-1
    """  # fmt: skip
    view = look(held, known=of(OF_DELETED))
    text = shown(view)
    assert view.outcome == "held"
    assert line(text, "h domain").split()[:3] == ["h", "domain", "paused"]
    assert "cloudfsck holds it paused" in text
    assert line(text, "  hold ").split()[1:3] == ["domain", "paused"]
    assert "on its rung, paused, since 2026-01-01 10:00:00 (2 h ago)" in text
    assert "    in 22 h repair would stop domain s-1 on c1" in text

    view = look(ZOMBIE + "    lost  nova_migrations cell1\n", known=of(OF_DELETED))
    text = shown(view)
    assert view.outcome == "unsure"
    assert line(text, "? domain").split()[:3] == ["?", "domain", "running"]
    assert f"? unproven: {TITLE}" in " ".join(text.split())
    assert "who could acquit it was not heard: nova_migrations of cell1: blanked out" in " ".join(text.split())
    assert "✗" not in text
    assert "would" not in text


def test_what_keeps_a_finding_from_counting() -> None:
    young = ZOMBIE.replace("1        -3d         -3d", "1        -2m         -2m")
    (finding,) = look(young, known=of(OF_DELETED)).findings
    assert finding.why == "it is 2 min old, and counts after 1 h"
    (finding,) = look(ZOMBIE, known=of(OF_DELETED)).findings
    assert (finding.state, finding.why) == ("seen", "")
    other = scenario.build(ZOMBIE.replace("i-1   true  d1", "i-1   true  d9"))
    (finding,) = look(ZOMBIE, known=of(OF_DELETED), before=other).findings
    assert finding.why == "it was not there, or not the same, a moment before"


# ------------------------------------------------------------------------------------------ what was not heard


HOST_TABLES = [table.name for table in tables.TABLES if table.per == "host"]


def test_a_host_that_was_not_heard_is_never_nothing() -> None:
    lost = "".join(f"    lost  {name} c3\n" for name in HOST_TABLES)
    view = look(ZOMBIE + lost, known=of(OF_DELETED))
    text = shown(view)
    assert "host c3  nova-compute up\n  not heard: blanked out\n" in text
    assert "nothing on 1 other host: c2" in text
    assert "Could not be read, and nothing is said of what rests on it:\n  c3  blanked out" in text
    assert view.unsure


def test_a_part_of_a_host_that_was_not_heard_is_never_nothing() -> None:
    text = shown(look(ZOMBIE + "    lost  libvirt_domains c2\n", "s-3", known={}))
    assert "No place that was read knows s-3." in text
    block = text.split("host c2")[1].split("\n\n")[0]
    assert " ".join(line(block, "domain").split()) == "domain not heard: blanked out"
    assert "no process, no directory" in block
    assert "no domain" not in block
    assert "nothing on 2 other hosts: c1, c3" in text


@pytest.mark.parametrize("name", ["nova_instances", "nova_instance_mappings", "nova_shadow_instances", "roster",
                                  "nova_cell_mappings", "instance_dirs", "nova_tags", "swtpm_states"])  # fmt: skip
def test_whatever_was_not_heard_is_told_and_nobody_is_clean(name: str) -> None:
    snapshot = built(ZOMBIE)
    part = {"cloud": "", "api": tables.API, "cell": "cell1", "host": "c2"}[tables.BY_NAME[name].per]
    with without(snapshot, [(name, part)]):
        view = look(snapshot, "s-2", known={})
        text = shown(view)
    assert "not heard: blanked out" in text
    assert view.outcome == "unsure"
    assert screen.as_json(view, {})["unknown"] == [{"table": name, "part": part, "why": "blanked out"}]


def test_a_host_that_nova_names_and_nobody_asked() -> None:
    def text(host: str, more: str = "") -> str:
        return shown(look(ZOMBIE.replace("s-2   c2 ", f"s-2   {host} ") + more, "s-2", known={}))

    assert "host c8  Nova has it here\n  not asked: gone: scrapped" in text("c8")
    assert "host c9  Nova has it here\n  not asked: no list of hosts has it" in text("c9")
    ironic = "    roster  host  hypervisor_type  libvirt\n            c7    ironic           false\n"
    assert "not asked: its hypervisor is ironic, not libvirt" in text("c7", ironic)


def test_where_nova_has_it_and_nothing_is() -> None:
    text = shown(look(ZOMBIE.replace("c2    s-2", "c2    s-9"), "s-2", known={}))
    block = text.split("host c2  ")[1].split("\n\n")[0]
    assert block == "nova-compute up, Nova has it here\n           no domain, no process, no directory"


# ------------------------------------------------------------------------------------------ what there is to say


def test_of_many_migrations_the_open_and_the_newest() -> None:
    statuses = ["pre-migrating", "confirmed", "reverted", "confirmed", "confirmed"]
    columns = "cell id instance_uuid migration_type status source_compute dest_compute updated_at"
    rows = [f"cell1 {n} s-2 resize {status} c1 c2 -{20 - n}d" for n, status in enumerate(statuses)]
    world = dedent(ZOMBIE) + "\n".join([f"nova_migrations {columns}", *(f" {row}" for row in rows)])
    view = look(world, "s-2", known={})
    text = shown(view)
    said = [" ".join(one.split()[1:3]) for one in text.splitlines() if one.startswith("  migration")]
    assert said == ["resize confirmed", "resize confirmed", "resize reverted", "resize pre-migrating", "1 older"]
    assert text.count("c1 -> c2") == 4
    assert view.outcome == "busy"
    assert "  busy: migration 0 is pre-migrating" in text


def test_actions_faults_disks_and_quarantine() -> None:
    world = (
        ZOMBIE
        + """
    nova_instance_actions         cell   id  instance_uuid  action  request_id  start_time
                                  cell1  5   s-2            reboot  req-1       -3h
    nova_instance_actions_events  cell   id  action_id  event                    host  start_time  finish_time
                                  cell1  1   5          compute_reboot_instance  c2    -3h         -
    nova_instance_faults          cell   id  instance_uuid  code  message  host  created_at
                                  cell1  1   s-2            500   early    c2    -9d
                                  cell1  2   s-2            404   late     c2    -3h
    nova_block_device_mapping     cell   id  instance_uuid  destination_type  volume_id  device_name deleted  updated_at
                                  cell1  1   s-2            volume            v-1        /dev/vda     0        -9d
                                  cell1  2   s-2            volume            v-2        /dev/vdb     2        -9d
    quarantine                    host  entry  server  was_path  path                 inode  bytes    at   manifest_ok
                                  c2    e-1    s-2     /i/s-2    /i/.cloudfsck/e-1/…  9      6328320  -1d  false
    """
    )
    text = shown(look(world, "s-2", known={}), 160)
    assert "compute_reboot_instance on c2, request_id req-1" in line(text, "reboot ")
    assert "late, host c2" in line(text, "404")
    assert "1 older" in text
    assert "early" not in text
    assert "volume v-1" in line(text, "/dev/vda")
    assert line(text, "1 deleted").split() == ["disk", "1", "deleted"]
    assert "6.0 MiB" in line(text, "quarantine ")
    assert "its manifest cannot be read, was_path /i/s-2" in line(text, "quarantine ")


def test_the_verdicts() -> None:
    assert look(ZOMBIE).outcome == "fault"
    assert look(ZOMBIE, "s-2", known=of(OF_DELETED)).outcome == "clean"
    view = look(ZOMBIE, "s-3")
    assert view.outcome == "nowhere"
    assert "No place that was read knows s-3." in shown(view)
    assert "nothing on 3 hosts: c1, c2, c3" in shown(view)
    assert "API" not in shown(view)
    busy = ZOMBIE.replace("display_name  project_id", "display_name  project_id  task_state").replace(
        "web-1         p-1", "web-1 p-1 -").replace(
        "-9d         active    1            web-2         p-1", "-10m active 1 web-2 p-1 migrating")  # fmt: skip
    view = look(busy, "s-2")
    assert (view.outcome, view.busy) == ("busy", ("its task_state is migrating",))
    assert "task_state migrating" in shown(view)


def test_the_json_is_what_the_page_says() -> None:
    view = look(ZOMBIE, known=of(OF_DELETED))
    given = json.loads(json.dumps(screen.as_json(view, CHECKS)))
    assert given["verdict"] == {"outcome": "fault", "says": "something is wrong with it"}
    (mark,) = given["marks"]
    assert given["places"][mark["table"]][mark["row"]]["uuid"] == "s-1"
    assert (mark["check"], mark["key"], mark["why"]) == (OF_DELETED, "c1/s-1", TITLE)
    assert given["findings"] == report.findings_json(view.findings, CHECKS)
    page = (Path(__file__).parents[1] / "docs/operating.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in page for name in given)
    assert all(f"`{outcome}`" in page for outcome in screen._VERDICTS)


def test_every_line_names_a_table_and_its_columns() -> None:
    for one in screen.LINES:
        table = tables.BY_NAME[one.table]
        assert table in screen.SHOWN, one.label
        known = {column.name for column in table.columns} | set(one.plus)
        assert {word.rstrip("?") for word in one.more.split()} <= known, one.label
        assert not one.date or one.date in known, one.label
        one.says.format(**dict.fromkeys(known, ""))
        assert one.last is None or one.date


@pytest.mark.parametrize("name", sorted(ALL)[::10])
def test_worlds_of_all_kinds_can_be_shown(name: str) -> None:
    """Every tenth of them.  Whatever stands in a place, its block says so, and whoever is summed up has nothing."""
    snapshot = built(ALL[name])
    keyed = [table for table in screen.SHOWN if table.part]
    (server, *_) = snapshot.db.execute(
        "SELECT uuid FROM (SELECT uuid FROM libvirt_domains UNION ALL SELECT uuid FROM nova_instances"
        " UNION ALL SELECT server FROM instance_dirs WHERE server NOTNULL UNION ALL SELECT 'nobody')"
        " GROUP BY uuid ORDER BY uuid = 'nobody', count(*) DESC, uuid"
    ).fetchone() or ("nobody",)
    view = look(snapshot, str(server), known={})
    for width in (60, None):
        shown(view, width)
    json.dumps(screen.as_json(view, {}), default=str)
    titles = {block.title for block in view.blocks}
    quiet = {"host": [one for one in view.quiet if " on " in one], "cell": [one for one in view.quiet if " in " in one]}
    for table in keyed:
        for row in view.places.get(table.name, ()):
            assert f"{'storage ' if table.per == 'backend' else ''}{table.per} {row[str(table.part)]}" in titles
            assert f" {row[str(table.part)]}," not in "".join(f"{one}," for one in quiet.get(table.per, ()))


# ------------------------------------------------------------------------------------------ as it is run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo.make(tmp_path_factory.mktemp("demo") / "cloud", by_hand=True)


def run(made: Path, *arguments: str, columns: str | None = None) -> tuple[int, str]:
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    if columns:
        environment["COLUMNS"] = columns
    done = subprocess.run(
        [sys.executable, "-m", "cloudfsck", "-c", str(made), "show", *arguments],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_a_uuid_as_it_is_pasted(made: Path) -> None:
    server = next(one.uuid for one in story.servers(by_hand=True) if one.name == "billing-7")
    status, text = run(made, "server", f" {server.upper()}\n", columns="80")
    assert status == 4
    assert text.startswith(f"{server}  billing-7\n")
    assert "\n✗ domain " in text
    assert "\x1b" not in text
    status, text = run(made, "server", server, "--format", "json")
    assert (status, json.loads(text)["server"]) == (4, server)


@pytest.mark.parametrize("wrong", ["", "billing-7", "11111111-2222-3333-4444-55555555555", "1" * 32, "a b"])
def test_what_is_no_uuid_is_said(made: Path, wrong: str) -> None:
    status, text = run(made, "server", wrong)
    assert status == 16
    assert f"{wrong!r} is no UUID, such as 6c48ad26-7dab-5807-85cd-beb4c5e76c69" in text


def test_a_server_that_no_place_knows(made: Path) -> None:
    status, text = run(made, "server", "11111111-2222-3333-4444-555555555555")
    assert status == 0
    assert "No place that was read knows 11111111-2222-3333-4444-555555555555." in text
    assert "nothing on 5 hosts: compute1, compute2, compute3, compute4, compute5" in text


# ------------------------------------------------------------------------------------------ domains of nobody's


def foreign(tmp_path: Path, more: str = "", count: int = 1) -> proof.Verdict:
    rows = "".join(f"    c2    f-{n}   running  false  router-{n}  -\n" for n in range(count))
    world = dedent(ZOMBIE) + f"libvirt_domains  host  uuid  state  nova  name  project\n{rows}{more}"
    return Cloud(tmp_path, world).judge()


def test_domains_that_are_not_ours_are_listed_and_not_judged(tmp_path: Path) -> None:
    verdict = foreign(tmp_path, "    c3  x-1  shutoff  true  i-9  p-9\n    c3  s-2  shutoff  false  i-2  -\n")
    assert [(one.host, one.uuid, one.name, one.state) for one in verdict.foreign] == [
        ("c2", "f-0", "router-0", "running"), ("c3", "x-1", "i-9", "shutoff"),
    ]  # fmt: skip
    said = report.check_text(verdict, CHECKS, CONFIG).plain.splitlines()
    assert said[-2] == "2 domains are not known to this Nova, and not judged: c2/router-0, c3/i-9"
    assert not {"f-0", "x-1"} & {finding.server for finding in verdict.findings}


def test_at_most_ten_of_them_are_named(tmp_path: Path) -> None:
    verdict = foreign(tmp_path, count=12)
    said = report.check_text(verdict, CHECKS, CONFIG).plain.splitlines()[-2]
    assert said.startswith("12 domains are not known to this Nova")
    assert (said.count("router-"), said[-3:]) == (10, ", …")
    assert len(report.check_json(verdict, CHECKS, CONFIG, "")["foreign"]) == 12


@pytest.mark.parametrize("lost", ["nova_instances cell1", "nova_instance_mappings nova_api"])
def test_none_is_called_foreign_where_who_may_know_it_was_not_heard(tmp_path: Path, lost: str) -> None:
    assert foreign(tmp_path, f"lost  {lost}\n").foreign == ()


def test_a_host_that_was_not_heard_keeps_nobody_else_from_being_listed(tmp_path: Path) -> None:
    verdict = foreign(tmp_path, "lost  libvirt_domains c3\n")
    assert [one.uuid for one in verdict.foreign] == ["f-0"]


# ------------------------------------------------------------------------------------------ what a host has of a volume

#: v-2 has moved from c1 to c2, and was left on c1; v-3 is a LUN of an array's; v-4 a namespace; v-5 a file.
DEVICES = """
    hosts cell1      c1 c2
    nova_instances   cell   uuid  host  deleted  vm_state
                     cell1  s-2   c2    0        active
                     cell1  s-3   c1    0        active
    nova_instance_mappings  instance_uuid  cell_id
                            s-2            cell1
                            s-3            cell1
    nova_block_device_mapping  cell   id  instance_uuid  destination_type  volume_id  attachment_id  connected  device_name  places       deleted
                               cell1  2   s-2            volume            v-2        a-2            true       /dev/vdb     [iqn.n-2/1]  0
                               cell1  3   s-3            volume            v-3        a-3            true       /dev/vdb     [iqn.a/7]    0
    libvirt_domains  host  uuid  id  state    persistent  nova
                     c1    s-3   1   running  true        true
                     c2    s-2   1   running  true        true
    libvirt_disks    host  uuid  config  target  type   device  source     serial
                     c1    s-3   both    vdb     block  disk    /dev/sde   v-3
                     c2    s-2   both    vdb     block  disk    /dev/dm-0  v-2
    qemu_processes   host  uuid  pid   started
                     c1    s-3   4001  -9d
                     c2    s-2   4002  -9d
    cinder_volumes   id   _name_id  status  attach_status  deleted  updated_at
                     v-2  n-2       in-use  attached       false    -9d
                     v-3  -         in-use  attached       false    -9d
                     v-4  -         in-use  attached       false    -9d
                     v-5  -         in-use  attached       false    -9d
    cinder_volume_attachment  id   volume_id  instance_uuid  attached_host  connector_host  attach_status  connected  driver  places        deleted
                              a-2  v-2        s-2            c2             c2              attached       true       iscsi   [iqn.n-2/1]   false
                              a-3  v-3        s-3            c1             c1              attached       true       iscsi   [iqn.a/7]     false
                              a-4  v-4        -              c1             c1              attached       true       nvmeof  [nqn.a/4]     false
                              a-5  v-5        -              c1             c1              attached       true       nfs     [nas:/e/v-5]  false
    iscsi_sessions   host  session   target   portal     state      connection  devices
                     c1    session3  iqn.n-2  192.0.2.1  LOGGED_IN  up          [sdd]
                     c1    session4  iqn.a    192.0.2.1  LOGGED_IN  up          [sde,sdf]
                     c2    session3  iqn.n-2  192.0.2.2  FREE       failed      [sdd]
    nvme_controllers  host  name   target  transport  address    state  namespaces
                      c1    nvme1  nqn.a   tcp        192.0.2.3  live   [nvme1n1]
    network_mounts   host  point    source   fstype  held_by      guests
                     c1    /mnt/1   nas:/e   nfs4    [77:qemu]    [s-9]
                     c1    /mnt/2   nas:/e2  nfs4    []           []
    block_devices    host  name     kind       number  state              session   places       volume  slaves  holders  links           mounts  held_by   guests
                     c1    sdd      scsi       8:48    running            session3  [iqn.n-2/1]  n-2     []      []       [/dev/sdd]      []      []        []
                     c1    sde      scsi       8:64    running            session4  [iqn.a/7]    -       []      []       [/dev/sde]      []      [1:qemu]  [s-3]
                     c1    sdf      scsi       8:80    running            session4  [iqn.a/8]    -       []      []       [/dev/sdf]      []      []        -
                     c1    nvme1n1  nvme       259:0   -                  nvme1     [nqn.a/4]    -       []      []       [/dev/nvme1n1]  []      []        []
                     c2    sdd      scsi       8:48    transport-offline  session3  [iqn.n-2/1]  n-2     []      [dm-0]   [/dev/sdd]      []      []        []
                     c2    dm-0     multipath  252:0   active             -         [iqn.n-2/1]  n-2     [sdd]   []       [/dev/dm-0]     []      [1:qemu]  [s-2]
"""  # noqa: E501


def of_host(view: View, host: str, *labels: str) -> list[str]:
    """The lines with these labels in a host's block, as they are read."""
    (block,) = [block for block in view.blocks if block.title == f"host {host}"]
    return [", ".join((line.says, *line.more)) for line in block.lines if line.label in labels]


def test_the_devices_and_sessions_of_a_volume_stand_beside_its_other_places() -> None:
    view = look(DEVICES, "v-2", kind="volume")
    assert of_host(view, "c1", "device", "session") == [
        "sdd scsi, state running, places iqn.n-2/1, no guest and no process has it, links /dev/sdd",
        "session3 LOGGED_IN, connection up, target iqn.n-2, portal 192.0.2.1, devices sdd",
    ]
    assert of_host(view, "c2", "device", "session") == [
        "dm-0 multipath, state active, places iqn.n-2/1, slaves sdd, used by guest s-2, open by 1:qemu,"
        " links /dev/dm-0",
        "sdd scsi, state transport-offline, places iqn.n-2/1, holders dm-0, no guest and no process has it,"
        " links /dev/sdd",
        "session3 FREE, connection failed, target iqn.n-2, portal 192.0.2.2, devices sdd",
    ]
    assert [(mark.table, mark.part, view.places[mark.table][mark.row]["name"]) for mark in view.marks
            if mark.finding.check == "cinder-device-left"] == [("block_devices", "c1", "sdd")]  # fmt: skip
    assert [row["target"] for row in screen.as_json(view, CHECKS)["places"]["iscsi_sessions"]] == ["iqn.n-2"] * 2


def test_a_lun_of_an_arrays_target_is_found_by_where_it_lies_or_by_its_guest() -> None:
    expected = [
        "sde scsi, state running, places iqn.a/7, used by guest s-3, open by 1:qemu, links /dev/sde",
        "session4 LOGGED_IN, connection up, target iqn.a, portal 192.0.2.1, devices sde, sdf",
    ]
    assert of_host(look(DEVICES, "v-3", kind="volume"), "c1", "device", "session") == expected
    nowhere = "\n".join(line for line in DEVICES.splitlines() if " a-3 " not in line)
    assert of_host(look(nowhere, "s-3"), "c1", "device") == expected[:1]


def test_a_namespace_and_a_share_are_found_by_where_the_volume_lies() -> None:
    assert of_host(look(DEVICES, "v-4", kind="volume"), "c1", "device", "controller") == [
        "nvme1n1 nvme, places nqn.a/4, no guest and no process has it, links /dev/nvme1n1",
        "nvme1 live, transport tcp, target nqn.a, address 192.0.2.3, namespaces nvme1n1",
    ]
    assert of_host(look(DEVICES, "v-5", kind="volume"), "c1", "mount") == [
        "nfs4, source nas:/e, point /mnt/1, held_by 77:qemu, guests s-9"
    ]


def test_that_a_host_has_no_device_of_a_volume_is_said_and_what_is_not_known_too() -> None:
    gone = "\n".join(line for line in DEVICES.splitlines() if "c2    sdd" not in line and "dm-0  " not in line)
    assert ", no device" in shown(look(gone, "v-2", kind="volume")).replace("  no device", ", no device")
    unknown = DEVICES.replace("[iqn.a/8]", "[iqn.a/7]")
    assert "who uses it is not known" in "".join(of_host(look(unknown, "v-3", kind="volume"), "c1", "device"))


def test_the_ports_of_a_server_stand_beside_its_other_places() -> None:
    world = f"""{ZOMBIE}
    libvirt_interfaces      host  uuid  config  target  mac    port
                            c1    s-1   both    tap1    fa:01  p-1
    neutron_ports           id   device_owner  device_id  status  name  mac_address  revision_number  created_at  updated_at
                            p-1  compute:nova  s-1        DOWN    -     fa:01        4                -9d         -9d
                            p-2  compute:nova  s-2        ACTIVE  -     fa:02        4                -9d         -9d
                            p-3  network:floatingip  f-1  N/A  -        fa:03        4                -9d         -9d
    neutron_port_bindings   port_id  host  status  vif_type
                            p-1      c1    ACTIVE  ovs
    neutron_ip_allocations  port_id  ip_address  subnet_id
                            p-1      10.0.0.1    n-1
    neutron_floating_ips    id   floating_ip_address  fixed_port_id  fixed_ip_address  status  revision_number  created_at  updated_at
                            f-1  192.0.2.1            p-1            10.0.0.1          DOWN    2                -9d         -9d
    ovn_nats                uuid  router       type           external_ip  logical_ip  floating_ip  port  revision
                            f-1   neutron-r-1  dnat_and_snat  192.0.2.1    10.0.0.1    f-1          p-1   2
                            u-2   neutron-r-1  dnat_and_snat  192.0.2.2    10.0.0.2    f-2          p-2   2
"""  # noqa: E501
    view = look(world, known=of("neutron-port-of-deleted-server"))
    (block,) = [block for block in view.blocks if block.title == "OVN's northbound database"]
    assert [(line.says, ", ".join(line.more)) for line in block.lines] == [
        ("192.0.2.1", "port p-1, logical_ip 10.0.0.1, router neutron-r-1, revision 2")
    ]
    (block,) = [block for block in view.blocks if block.title == "Neutron's database"]
    assert [(line.label, line.says, ", ".join(line.more)) for line in block.lines] == [
        ("port", "DOWN", "port p-1, mac_address fa:01, device_owner compute:nova"),
        ("port", "N/A", "device f-1, port p-3, mac_address fa:03, device_owner network:floatingip"),
        ("binding", "ACTIVE", "on c1, port p-1, vif_type ovs"),
        ("address", "10.0.0.1", "port p-1, subnet_id n-1"),
        ("floating IP", "192.0.2.1", "f-1, fixed_ip_address 10.0.0.1, fixed_port_id p-1, status DOWN"),
    ]
    assert of_host(view, "c1", "interface") == ["tap1, mac fa:01, port p-1, config both"]
    assert view.subject.beside == {"p-1", "f-1"}
    assert [(mark.table, mark.row, mark.finding.key) for mark in view.marks] == [("neutron_ports", 0, "p-1")]
    view = look(world, "p-1", kind="port", known=of("neutron-port-of-deleted-server"))
    assert [(block.title, [(line.label, line.says) for line in block.lines]) for block in view.blocks] == [
        ("cell cell1", [("row", "deleted")]),
        ("Neutron's database",
         [("port", "DOWN"), ("port", "N/A"), ("binding", "ACTIVE"), ("address", "10.0.0.1"),
          ("floating IP", "192.0.2.1")]),
        ("OVN's northbound database", [("NAT rule", "192.0.2.1"), ("", "no port")]),
        ("host c1", [("domain", "running"), ("interface", "tap1")]),
    ]  # fmt: skip
    assert (view.outcome, screen.as_json(view, CHECKS)["port"]) == ("fault", "p-1")


NAMED = """
    hosts cell1           c1
    nova_instances        cell   id  uuid  host  deleted  deleted_at  vm_state  hostname
                          cell1  1   s-1   c1    1        -3d         deleted   web
    dns_zones             copy            zone         server  serial  own   first
                          cloud.test.@ns  cloud.test.  ns      7       true  true
    dns_records           copy            zone         name              type  ttl  data      address   hostname  ours
                          cloud.test.@ns  cloud.test.  web.cloud.test.   A     300  10.0.0.1  10.0.0.1  web       true
                          cloud.test.@ns  cloud.test.  mail.cloud.test.  A     300  10.0.0.1  10.0.0.1  mail      true
    designate_zones       id   name          type     status  action
                          z-1  other.test.   PRIMARY  ACTIVE  NONE
    designate_recordsets  id    zone_id  name             type
                          rs-1  z-1      web.other.test.  A
    designate_records     id    recordset_id  zone_id  data      managed  managed_resource_type  managed_resource_id  status  action  created_at  updated_at
                          rr-1  rs-1          z-1      10.0.0.1  true     instance               s-1                  ACTIVE  NONE    -9d         -9d
"""  # noqa: E501


def test_the_names_of_a_server_are_shown_with_who_tells_them() -> None:
    settings = Dns.model_validate({
        "zone": {"cloud.test": {"servers": ["ns"], "names": ["{hostname}.{zone}"], "subnets": ["10.0.0.0/8"]}}
    })  # fmt: skip
    names = dns.names(settings, "s-1", scenario.build(NAMED))
    assert names == {"web.cloud.test.", "web.other.test.", "cloud.test.@ns"}
    text = shown(look(NAMED, names=names), width=160)
    assert "zone cloud.test.@ns" in text
    assert "web.cloud.test." in line(text, "ttl 300")
    assert "mail.cloud.test." not in text
    assert "web.other.test. A" in line(text, "record ")
    assert CHECKS["dns-name-of-nobodys-address"].title in text
    assert CHECKS["designate-record-of-deleted-server"].title in text
