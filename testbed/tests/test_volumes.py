"""Attachments that nobody has, and states that nobody set: found, put right through Cinder, and usable again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from cloudfsck.acts.attachment import Delete
from cloudfsck.acts.cinder import Cinder
from cloudfsck.config import CloudApi
from cloudfsck.model import Refused
from testbed import contradictions, interrupted, leftovers
from testbed.api import CLOUDS, Api
from testbed.cloud import Cloud
from testbed.leftovers import VIRSH
from testbed.operator import Operator, listed
from testbed.person import types, types_sql
from testbed.story import Story

OF_DELETED = "cinder-attachment-of-deleted-server"
UNKNOWN_TO_NOVA = "cinder-attachment-unknown-to-nova"
DANGLING = "cinder-block-device-without-attachment"
STATUS = "cinder-volume-status-differs"
HALF_DONE = "cinder-attachment-half-done"
WRONG_HOST = "cinder-attachment-on-wrong-host"
LEFT_IMAGE = "cinder-image-of-deleted-volume"
WITHOUT_IMAGE = "cinder-volume-without-image"
OF_DELETED_VOLUME = "cinder-attachment-of-deleted-volume"
COUNTED = "cinder-quota-differs"
ALLOCATION = "placement-allocation-missing"

#: What an account has that may delete the rows of block devices.
RIGHTS = """
CREATE OR REPLACE USER cloudfsck_write IDENTIFIED BY 'secret';
GRANT SELECT (id, instance_uuid, volume_id, attachment_id, device_name, boot_index, updated_at, deleted, deleted_at),
    UPDATE (deleted, deleted_at) ON nova_cell1.block_device_mapping TO cloudfsck_write;
GRANT SELECT (uuid, host, vm_state, task_state, deleted) ON nova_cell1.instances TO cloudfsck_write;
"""


@pytest.fixture
def administrator(cloud: Cloud, tmp_path: Path) -> Operator:
    """One whose configuration names an administrator of Cinder, in a file that others cannot read."""
    clouds = tmp_path / "clouds.yaml"
    shutil.copyfile(CLOUDS, clouds)
    clouds.chmod(0o600)
    return Operator(cloud, tmp_path, **{"write.cinder": {"cloud": "admin", "clouds_file": str(clouds)}})


def found(operator: Operator) -> set[tuple[str, str]]:
    """What is proven, as (check, key).  The cloud has been read whole then, once more."""
    return {(one["check"], one["key"]) for one in operator("check").data["findings"] if one["state"] == "proven"}


def put_right(operator: Operator, story: Story, check: str, key: str) -> None:
    story.made()
    assert found(operator) == {(check, key)}
    story.fired(check)
    assert found(operator) == {(check, key)}  # what cannot be undone waits for a second whole reading
    operator("repair", "--yes").came_to(1, {key: "done"})
    ran = operator("check")
    assert (ran.status, ran.data["findings"]) == (0, [])


def serves(cloud: Cloud, api: Api, host: str, server: str, volume: str) -> None:
    """Attached to a server, the volume takes what is written, gives it back, and can be detached and deleted."""
    interrupted.attach(cloud, api, server, volume)
    node = cloud.computes[host]
    blocks: dict[str, Any] = json.loads(
        node.run(*VIRSH, "qemu-monitor-command", server, json.dumps({"execute": "query-block"}))
    )
    (device,) = (one["qdev"] for one in blocks["return"] if volume in json.dumps(one))
    for command in ("write -P 0x5a 4k 64k", "read -P 0x5a 4k 64k"):
        node.run(*VIRSH, "qemu-monitor-command", server, "--hmp", f'qemu-io -d {device} "{command}"')
    # QEMU says what came of it where its own output goes.
    name = node.run(*VIRSH, "domname", server).strip()
    said = node.run("grep", "-e", "65536/65536", "-e", "ailed", f"/var/log/libvirt/qemu/{name}.log").splitlines()
    assert [line.split()[0] for line in said] == ["wrote", "read"], said
    interrupted.detach(cloud, api, server, volume)
    api.call("block_storage", "DELETE", f"/volumes/{volume}")
    api.volume_becomes(volume, None)


def test_an_attachment_of_a_deleted_server(cloud: Cloud, api: Api, administrator: Operator, story: Story) -> None:
    hit = interrupted.deleted_without(cloud, api, "compute1", "volume-1", "cinder-api")
    cloud.start("cinder-api")
    (attachment,) = attachments(cloud, hit.volume)
    put_right(administrator, story, OF_DELETED, attachment)
    story.repaired("deleted through Cinder's API")
    other = interrupted.booted(api, "volume-2", "compute2")
    api.ready(other)
    serves(cloud, api, "compute2", other, hit.volume)
    api.delete(other)
    story.agreed("the volume serves another server")


@pytest.mark.long
def test_an_attachment_that_nova_does_not_know(cloud: Cloud, api: Api, administrator: Operator, story: Story) -> None:
    server, volume = interrupted.booted(api, "volume-3", "compute1"), api.volume("volume-3")
    api.ready(server)
    with_attachments = {"OpenStack-API-Version": "volume 3.27"}
    made = api.sdk.block_storage.post(
        "/attachments", json={"attachment": {"volume_uuid": volume, "instance_uuid": server}}, headers=with_attachments
    )
    assert made.status_code < 300, made.text
    put_right(administrator, story, UNKNOWN_TO_NOVA, made.json()["attachment"]["id"])
    story.repaired("deleted through Cinder's API")
    serves(cloud, api, "compute1", server, volume)
    api.delete(server)
    story.agreed("the volume serves the server")


@pytest.mark.long
def test_an_attachment_that_a_live_server_has_is_refused(cloud: Cloud, api: Api, tmp_path: Path) -> None:
    """Whatever we believed: Cinder asks Nova, and has the last word (CVE-2023-2088)."""
    server, volume = interrupted.booted(api, "volume-4", "compute1"), api.volume("volume-4")
    api.ready(server)
    interrupted.attach(cloud, api, server, volume)
    ((attachment, status, at, changed),) = cloud.sql(
        "cinder",
        "SELECT id, attach_status, attach_time, updated_at FROM volume_attachment"
        f" WHERE volume_id = '{volume}' AND NOT deleted",
    )
    ((volume_changed,),) = cloud.sql("cinder", f"SELECT updated_at FROM volumes WHERE id = '{volume}'")
    clouds = tmp_path / "clouds.yaml"
    shutil.copyfile(CLOUDS, clouds)
    clouds.chmod(0o600)
    act = Delete(server, volume, attachment, status, at[:19], changed[:19], volume_changed[:19])
    with pytest.raises(Refused, match="HTTP 409"):
        Cinder(CloudApi(cloud="admin", clouds_file=clouds)).send(act)
    assert attachments(cloud, volume) == [attachment]
    serves_on = cloud.computes["compute1"].run(*VIRSH, "domblklist", server)
    assert volume in serves_on
    interrupted.detach(cloud, api, server, volume)
    api.call("block_storage", "DELETE", f"/volumes/{volume}")
    api.delete(server)


@pytest.mark.long
def test_a_status_that_was_reset(cloud: Cloud, api: Api, administrator: Operator, story: Story) -> None:
    volume = api.volume("volume-5")
    api.call("block_storage", "POST", f"/volumes/{volume}/action", {"os-reset_status": {"status": "detaching"}})
    put_right(administrator, story, STATUS, volume)
    assert api.volume_state(volume) == "available"
    story.repaired("reset through Cinder's API")
    server = interrupted.booted(api, "volume-5", "compute2")
    api.ready(server)
    serves(cloud, api, "compute2", server, volume)
    api.delete(server)
    story.agreed("the volume serves a server")


def test_a_block_device_without_an_attachment(cloud: Cloud, api: Api, administrator: Operator, story: Story) -> None:
    """Somebody took the attachment out of Cinder's database.  Nova itself mends that when the server is rebooted."""
    server, volume = interrupted.booted(api, "volume-6", "compute1"), api.volume("volume-6")
    api.ready(server)
    interrupted.attach(cloud, api, server, volume)
    cloud.sql("cinder", "UPDATE volume_attachment SET deleted = 1, deleted_at = UTC_TIMESTAMP(),"
                        f" attach_status = 'detached' WHERE volume_id = '{volume}' AND NOT deleted")  # fmt: skip
    cloud.sql("cinder", f"UPDATE volumes SET status = 'available', attach_status = 'detached' WHERE id = '{volume}'")
    story.made()
    ran = administrator("check")
    (finding,) = ran.data["findings"]
    assert (finding["check"], finding["server"], finding["risk"]) == (DANGLING, server, "by-hand")
    story.fired(DANGLING)
    (command,) = (one.partition(": openstack ")[2] for one in finding["commands"] if "reboot --hard" in one)
    cloud.controller.run("bash", "-ec", f"openstack --os-cloud admin {command} --wait", timeout=300)
    ran = administrator("check")
    assert (ran.status, ran.data["findings"]) == (0, [])
    story.repaired("by the reboot that the finding names")
    api.ready(server)
    serves(cloud, api, "compute1", server, volume)
    api.delete(server)
    story.agreed("the volume serves the server")


@pytest.mark.long
def test_an_attachment_on_another_host(
    cloud: Cloud, api: Api, administrator: Operator, story: Story, tmp_path: Path
) -> None:
    """Somebody carried the server to another host past Nova, and nobody told Cinder."""
    server, volume = interrupted.booted(api, "volume-7", "compute1"), api.volume("volume-7")
    api.ready(server)
    interrupted.attach(cloud, api, server, volume)
    (attachment,) = attachments(cloud, volume)
    contradictions.carried_by_hand(cloud, api, "compute1", "compute2", server)
    story.made()
    commands = told(administrator, {WRONG_HOST: attachment, ALLOCATION: server})
    for check in commands:
        story.fired(check)
    for word in ("get_connector", "refresh"):
        types(cloud, commands[WRONG_HOST], word, tmp_path)
    for word in ("allocation unset", "allocations --instance"):
        types(cloud, commands[ALLOCATION], word)
    ran = administrator("check")
    assert (ran.status, ran.data["findings"]) == (0, [])
    story.repaired("by the nova-manage that the finding names")
    api.act(server, "os-start")
    api.becomes(server, "ACTIVE")
    assert interrupted.uses(cloud.computes["compute2"], server, volume)
    interrupted.detach(cloud, api, server, volume)
    serves(cloud, api, "compute2", server, volume)
    api.delete(server)
    story.agreed("the server starts there with its volume; the volume serves on")


def test_a_volume_deleted_by_hand(cloud: Cloud, api: Api, administrator: Operator, story: Story) -> None:
    """Somebody deleted the row of a volume that did not want to go, while a guest had it, and its data is all there."""
    server, volume = interrupted.booted(api, "volume-8", "compute1"), api.volume("volume-8")
    api.ready(server)
    interrupted.attach(cloud, api, server, volume)
    (attachment,) = attachments(cloud, volume)
    cloud.sql(
        "cinder",
        f"UPDATE volumes SET deleted = 1, deleted_at = UTC_TIMESTAMP(), status = 'deleted' WHERE id = '{volume}'",
    )
    story.made()
    ((device,),) = cloud.sql(
        "nova_cell1", f"SELECT id FROM block_device_mapping WHERE volume_id = '{volume}' AND NOT deleted"
    )
    commands = told(
        administrator, {OF_DELETED_VOLUME: attachment, DANGLING: f"{server}/{device}"}, frozenset({COUNTED})
    )
    story.fired(OF_DELETED_VOLUME)
    types_sql(cloud, "cinder", commands[OF_DELETED_VOLUME], "UPDATE volumes")
    ran = administrator("check")
    assert (ran.status, ran.data["findings"]) == (0, [])
    story.repaired("its row is brought back by the SQL that the finding names")
    interrupted.detach(cloud, api, server, volume)
    other = interrupted.booted(api, "volume-9", "compute2")
    api.ready(other)
    serves(cloud, api, "compute2", other, volume)
    api.delete(server)
    api.delete(other)
    story.agreed("the volume serves another server")


@pytest.mark.long
def test_an_attachment_that_outlived_its_volume(cloud: Cloud, api: Api, administrator: Operator, story: Story) -> None:
    """An attachment is written again while its volume is deleted: what bug 1937084 leaves."""
    server, volume = interrupted.booted(api, "volume-10", "compute1"), api.volume("volume-10")
    api.ready(server)
    interrupted.attach(cloud, api, server, volume)
    (attachment,) = attachments(cloud, volume)
    interrupted.detach(cloud, api, server, volume)
    api.call("block_storage", "DELETE", f"/volumes/{volume}")
    api.volume_becomes(volume, None)
    cloud.sql("cinder", "UPDATE volume_attachment SET deleted = 0, deleted_at = NULL, attach_status = 'attached'"
                        f" WHERE id = '{attachment}'")  # fmt: skip
    story.made()
    commands = told(administrator, {OF_DELETED_VOLUME: attachment})
    story.fired(OF_DELETED_VOLUME)
    types_sql(cloud, "cinder", commands[OF_DELETED_VOLUME], "UPDATE volume_attachment")
    ran = administrator("check")
    assert (ran.status, ran.data["findings"]) == (0, [])
    story.repaired("by the SQL that the finding names")
    api.delete(server)


@pytest.mark.long
def test_an_attachment_never_completed(cloud: Cloud, api: Api, administrator: Operator, story: Story) -> None:
    hit = interrupted.attach_uncompleted(cloud, api, "compute1", "volume-15")
    cloud.start("cinder-api")
    leftovers.nova_compute_returns(cloud, api, "compute1")
    assert api.volume_state(hit.volume) == "attaching"
    (attachment,) = attachments(cloud, hit.volume)
    put_right(administrator.later(), story, HALF_DONE, attachment)
    assert api.volume_state(hit.volume) == "in-use"
    story.repaired("completed through Cinder's API")
    assert interrupted.uses(cloud.computes["compute1"], hit.server, hit.volume)
    interrupted.detach(cloud, api, hit.server, hit.volume)
    serves(cloud, api, "compute1", hit.server, hit.volume)
    api.delete(hit.server)
    story.agreed("the volume can be detached, and serves again")


@pytest.mark.long
def test_a_detach_that_nova_forgot(cloud: Cloud, api: Api, story: Story, tmp_path: Path) -> None:
    """Guest and Cinder have let go of a volume, and its owner deletes it.  Nova still has its row."""
    hit = interrupted.detach_unrecorded(cloud, api, "compute1", "volume-16")
    cloud.start("nova-conductor-cell1")
    leftovers.nova_compute_returns(cloud, api, "compute1")
    api.call("block_storage", "DELETE", f"/volumes/{hit.volume}")
    api.volume_becomes(hit.volume, None)
    secret = tmp_path / "password"
    secret.write_text("secret")
    secret.chmod(0o600)
    account = {"user": "cloudfsck_write", "password_file": str(secret)}
    operator = Operator(cloud, tmp_path, **{"write.database": account}).later()
    cloud.sql("", RIGHTS)
    story.made()
    rows = f"SELECT id FROM block_device_mapping WHERE volume_id = '{hit.volume}' AND NOT deleted"
    ((number,),) = cloud.sql("nova_cell1", rows)
    key = f"{hit.server}/{number}"
    assert found(operator) == {(DANGLING, key)}
    story.fired(DANGLING)
    operator("repair", "--yes").came_to(1, {key: "done"})
    assert cloud.sql("nova_cell1", rows) == []
    ran = operator("check")
    assert (ran.status, ran.data["findings"]) == (0, [])
    story.repaired("its row is marked as deleted, as Nova would have")
    operator.undone()
    assert cloud.sql("nova_cell1", rows) == [[number]]
    assert found(operator) == {(DANGLING, key)}
    story.undone("its row lives again")
    operator("repair", "--yes").came_to(1, {key: "done"})
    api.act(hit.server, "reboot", {"type": "HARD"})
    api.ready(hit.server)
    api.delete(hit.server)
    story.agreed("the server is rebooted, and deleted")


@pytest.fixture
def with_listing(cloud: Cloud, tmp_path: Path) -> Operator:
    return Operator(cloud, tmp_path, **listed(cloud))


def test_an_image_that_outlived_its_volume(cloud: Cloud, api: Api, with_listing: Operator, story: Story) -> None:
    """Somebody set a volume to deleted by hand, since Cinder would not; another is deleted as it should be."""
    volume, other, used = (api.volume(f"volume-{number}") for number in (11, 12, 13))
    server = interrupted.booted(api, "volume-13", "compute1")
    api.ready(server)
    interrupted.attach(cloud, api, server, used)
    ran = with_listing("check")
    assert (ran.status, ran.data["findings"], ran.data["unknown"]) == (0, [], [])
    cloud.sql(
        "cinder",
        f"UPDATE volumes SET deleted = 1, deleted_at = UTC_TIMESTAMP(), status = 'deleted' WHERE id = '{volume}'",
    )
    api.call("block_storage", "DELETE", f"/volumes/{other}")
    api.volume_becomes(other, None)
    story.made()
    commands = told(with_listing, {LEFT_IMAGE: f"rbd/volumes/volume-{volume}"}, frozenset({COUNTED}))
    story.fired(LEFT_IMAGE)
    types(cloud, commands[LEFT_IMAGE], "trash mv")
    cloud.openstack("cinder-manage --config-file /etc/cinder/cinder.conf quota sync")  # the row went by hand
    ran = with_listing("check")
    assert (ran.status, ran.data["findings"]) == (0, [])
    story.repaired("moved into Ceph's trash by the command that the finding names")
    left = cloud.controller.run("rbd", "ls", "volumes", timeout=60).split()
    assert f"volume-{used}" in left
    assert f"volume-{volume}" not in left
    interrupted.detach(cloud, api, server, used)
    api.call("block_storage", "DELETE", f"/volumes/{used}")
    api.delete(server)
    story.agreed("Ceph: every other image is as it was")


@pytest.mark.long
def test_a_volume_without_its_image(cloud: Cloud, api: Api, with_listing: Operator, story: Story) -> None:
    """Somebody cleared up a pool.  What he took for a leftover was a volume, and lies in the trash."""
    volume, beside = (api.volume(f"volume-{number}", volume_type="rbd2") for number in (14, 17))
    cloud.controller.run("rbd", "trash", "mv", f"volumes2/volume-{volume}", timeout=60)
    story.made()
    commands = told(with_listing, {WITHOUT_IMAGE: volume})
    story.fired(WITHOUT_IMAGE)
    types(cloud, commands[WITHOUT_IMAGE], "trash restore")
    ran = with_listing("check")
    assert (ran.status, ran.data["findings"]) == (0, [])
    story.repaired("brought back out of the trash by the command that the finding names")
    server = interrupted.booted(api, "volume-14", "compute2")
    api.ready(server)
    serves(cloud, api, "compute2", server, volume)
    api.call("block_storage", "DELETE", f"/volumes/{beside}")
    api.delete(server)
    story.agreed("the volume serves a server")


def told(operator: Operator, expected: dict[str, str], beside: frozenset[str] = frozenset()) -> dict[str, list[str]]:
    """The commands of what is proven, which is this and nothing else but for the checks `beside` it: the key by the
    check that finds it."""
    findings = operator("check").data["findings"]
    assert {one["check"] for one in findings} >= beside, findings
    findings = [one for one in findings if one["check"] not in beside]
    assert {one["check"]: one["key"] for one in findings if one["state"] == "proven"} == expected, findings
    assert len(findings) == len(expected), findings
    return {one["check"]: one["commands"] for one in findings}


def attachments(cloud: Cloud, volume: str) -> list[str]:
    return [row[0] for row in cloud.sql("cinder", "SELECT id FROM volume_attachment WHERE NOT deleted AND volume_id ="
                                                  f" '{volume}'")]  # fmt: skip
