"""An operator's first minutes on a cloud that has just come up, as the README tells them."""

from __future__ import annotations

from testbed import initial, places
from testbed.cloud import Cloud
from testbed.operator import INITIAL, Operator


def test_init_doctor_and_check_find_nothing_to_complain_of(cloud: Cloud, operator: Operator) -> None:
    cloud.sql("", "DROP USER IF EXISTS cloudfsck@'%'")
    said = initial.configure(cloud)
    for service in ("nova", "cinder", "neutron", "keystone", "placement", "designate"):
        assert f"/etc/{service}/{service}.conf" in said
    written = cloud.controller.path(INITIAL).read_text() + cloud.controller.path(initial.GRANTS).read_text()
    assert places.PASSWORD not in written

    operator.configure(proof={"settle_factor": 1})
    ran = operator("doctor")
    assert ran.status == 0, ran.out
    rows = {(row["what"], row["where"].partition(" at ")[0]) for row in ran.data}
    assert {("database", name) for name in ("nova_api", "cell0", "cell1", "cell2", "cinder", "neutron", "keystone",
                                            "placement", "designate")} <= rows  # fmt: skip
    assert {("host", host) for host in places.COMPUTES} <= rows

    ran = operator("check")
    assert (ran.status, ran.data["findings"], ran.data["unknown"], ran.held) == (0, [], [], {})
    assert all(cover["heard"] == cover["parts"] for cover in ran.data["coverage"])
    # Hosts without libvirt are known for what they are, and not asked.
    ran = operator("sql", "SELECT host, hypervisor_type FROM roster ORDER BY host")
    assert [(row["host"], row["hypervisor_type"]) for row in ran.data] == [
        ("compute1", "QEMU"), ("compute2", "QEMU"), ("fake1", "fake"), ("fake2", "fake")]  # fmt: skip


def test_a_typo_in_the_configuration_is_said_with_its_line(cloud: Cloud, operator: Operator) -> None:
    operator.path.write_text(operator.path.read_text().replace("[read.ssh]", "[read.shh]"))
    ran = operator("check", form=None)
    assert ran.status == 16
    assert "cloudfsck.toml:" in ran.err
    assert "read.shh: there is no such key; did you mean ssh?" in ran.err
