"""What is kept of connection_info and connector: where a volume is, whatever it says; and never a secret."""

from __future__ import annotations

import json
import random
from typing import Any

import pyarrow as pa
import pytest

from cloudfsck import tables
from cloudfsck.sources import connection
from cloudfsck.sources.connection import apart

NOTHING: dict[str, Any] = {"driver": None, "places": [], "portals": [], "multipath_id": None, "device_path": None}
UNKNOWN: dict[str, Any] = {
    "connected": None,
    "driver": None,
    "places": None,
    "portals": None,
    "multipath_id": None,
    "device_path": None,
}
MISSING = {"connected": False, **NOTHING}

ISCSI = {"target_iqn": "iqn.2010-10.org.openstack:volume-1", "target_portal": "10.0.0.9:3260", "target_lun": 1}


def taken(said: object, column: str = "connection_info") -> dict[str, Any]:
    """What is made of one value: a text as it is, anything else as JSON."""
    text = said if isinstance(said, str) or said is None else json.dumps(said)
    (row,) = apart(pa.table({column: pa.array([text], pa.string())}), [column]).to_pylist()
    assert column not in row
    return row  # type: ignore[no-any-return]


def flat(driver: str, **data: object) -> dict[str, object]:
    """As Cinder's volume_attachment has it."""
    return {"driver_volume_type": driver, "attachment_id": "a-1", "enforce_multipath": False, **data}


def nested(driver: str, **data: object) -> dict[str, object]:
    """As Nova's block_device_mapping has it."""
    return {"driver_volume_type": driver, "data": data, "serial": "v-1", "status": "reserved", "instance": "s-1"}


BOTH = pytest.mark.parametrize("shape", [flat, nested])


# ------------------------------------------------------------------------------------------------ what is no object


@pytest.mark.parametrize("text", [None, "", "  ", "\n", "null", "{}", " {} "])
def test_what_says_nothing_is_not_connected(text: str | None) -> None:
    assert taken(text) == MISSING
    assert taken(text, "connector") == {"connector_host": None, "initiator": None}


@pytest.mark.parametrize(
    "text",
    [
        "[]", '[{"driver_volume_type": "iscsi"}]', '"iscsi"', "5", "true", "NaN", "not JSON",
        '{"driver_volume_type": "iscsi", "data": {"target_iq', "{'driver_volume_type': 'iscsi'}", "\x00{}",
        "[" * 100_000, '{"data":' * 100_000, '{"target_lun": ' + "9" * 5000 + "}",
    ],
)  # fmt: skip
def test_what_is_no_object_is_unknown(text: str) -> None:
    assert taken(text) == UNKNOWN
    assert taken(text, "connector") == {"connector_host": None, "initiator": None}


@pytest.mark.parametrize(
    "said",
    [
        {"driver_volume_type": ["iscsi"]}, {"driver_volume_type": {"iscsi": 1}}, {"driver_volume_type": True},
        {"data": None}, {"data": []}, {"data": "iscsi"}, {"attachment_id": "a-1"},
    ],
)  # fmt: skip
def test_what_says_something_is_connected_though_it_is_not_understood(said: object) -> None:
    assert taken(said) == {"connected": True, **NOTHING}


# ------------------------------------------------------------------------------------------------- where a volume is


@BOTH
def test_iscsi(shape: Any) -> None:
    assert taken(shape("iscsi", **ISCSI, device_path="/dev/dm-3", multipath_id="3600a")) == {
        "connected": True,
        "driver": "iscsi",
        "places": ["iqn.2010-10.org.openstack:volume-1/1"],
        "portals": ["10.0.0.9:3260"],
        "multipath_id": "3600a",
        "device_path": "/dev/dm-3",
    }


@BOTH
@pytest.mark.parametrize("lun", [0, 1, 255, 256, 16384, "0", "256"])
def test_any_lun_is_a_number(shape: Any, lun: object) -> None:
    assert taken(shape("iser", target_iqn="iqn", target_lun=lun))["places"] == [f"iqn/{lun}"]


@BOTH
def test_several_ways_to_it_are_all_told_once_and_in_order(shape: Any) -> None:
    said = shape(
        "iscsi",
        **ISCSI,
        target_iqns=["iqn.b", "iqn.a", "iqn.b"],
        target_luns=[2, 0, 2],
        target_portals=["[fe80::9]:3260", "10.0.0.9:3260", "10.0.0.9:3260"],
    )
    assert taken(said)["places"] == ["iqn.a/0", "iqn.b/2"]
    assert taken(said)["portals"] == ["10.0.0.9:3260", "[fe80::9]:3260"]


@BOTH
def test_one_lun_holds_for_all_targets(shape: Any) -> None:
    assert taken(shape("iscsi", target_iqns=["b", "a"], target_lun=0))["places"] == ["a/0", "b/0"]
    assert taken(shape("iscsi", target_iqns=["b", "a"], target_luns=[0]))["places"] == ["a/0", "b/0"]


@BOTH
@pytest.mark.parametrize(
    ("iqns", "luns"),
    [
        (["a", "b"], [1, 2, 3]), (["a", "b", "c"], [1, 2]), (["a"], [1, 2]), (["a", None, "b"], [1, 2]),
        (["a", "b"], []), ([], [1]), ([], []),
    ],
)  # fmt: skip
def test_what_cannot_be_paired_is_not_guessed(shape: Any, iqns: object, luns: object) -> None:
    assert taken(shape("iscsi", target_iqns=iqns, target_luns=luns))["places"] == []


@BOTH
def test_what_is_missing_in_a_list_shifts_nothing(shape: Any) -> None:
    said = shape("iscsi", target_iqns=["a", None, "c", "d"], target_luns=[1, 2, 3, None])
    assert taken(said)["places"] == ["a/1", "c/3"]


@BOTH
@pytest.mark.parametrize("wrong", [None, True, False, 1.5, {"x": 1}, [["a"]], "", {}, [None]])
def test_a_name_or_number_of_another_kind_is_no_place(shape: Any, wrong: object) -> None:
    assert taken(shape("iscsi", target_iqn=wrong, target_lun=1))["places"] == []
    assert taken(shape("iscsi", target_iqn="a", target_lun=wrong))["places"] == []
    assert taken(shape("iscsi", target_portal=wrong))["portals"] == []
    assert taken(shape("fibre_channel", target_wwn=wrong, target_lun=1))["places"] == []
    assert taken(shape("nvmeof", target_nqn=wrong, nqn=wrong, vol_uuid="u"))["places"] == []
    assert taken(shape("nvmeof", target_nqn="n", vol_uuid=wrong, portals=wrong, volume_replicas=wrong))["places"] == []
    assert taken(shape("rbd", name=wrong, hosts=wrong, ports=wrong))["places"] == []
    assert taken(shape("nfs", export=wrong, name="volume-1"))["places"] == []


@BOTH
@pytest.mark.parametrize(
    ("data", "places"),
    [
        ({"target_wwn": "0x5006", "target_lun": 0}, ["5006/0"]),
        ({"target_wwn": ["50AB", "5001"], "target_lun": 256}, ["5001/256", "50ab/256"]),
        ({"target_wwn": ["5006", "5001"], "target_luns": [1, 2]}, ["5001/2", "5006/1"]),
        ({"target_wwn": "5006", "target_wwns": ["5001", "5002"], "target_luns": [1, 2]}, ["5001/1", "5002/2"]),
        ({"target_wwn": ["5006", "5001"], "target_luns": [1, 2, 3]}, []),
    ],
)
def test_fibre_channel(shape: Any, data: dict[str, object], places: list[str]) -> None:
    assert taken(shape("fibre_channel", **data))["places"] == places


@BOTH
def test_nvme(shape: Any) -> None:
    one = {"target_nqn": "nqn.a", "vol_uuid": "u-1", "volume_nguid": "g-1", "ns_id": 7}
    assert taken(shape("nvmeof", **one))["places"] == ["nqn.a/u-1"]
    assert taken(shape("nvmeof", **{**one, "vol_uuid": None}))["places"] == ["nqn.a/g-1"]
    assert taken(shape("nvme", nqn="nqn.b", ns_id=0))["places"] == ["nqn.b/0"]
    portals = [["10.0.0.9", 4420, "tcp"], ["fe80::9", "4420", "tcp"], ["10.0.0.9"], "10.0.0.9", None, []]
    assert taken(shape("nvmeof", **one, portals=portals))["portals"] == ["10.0.0.9:4420", "[fe80::9]:4420"]


@BOTH
def test_a_replicated_nvme_volume_is_in_several_places(shape: Any) -> None:
    replicas = [
        {"target_nqn": "nqn.b", "vol_uuid": "u-2", "portals": [["10.0.0.8", 4420, "tcp"]]},
        {"target_nqn": "nqn.a", "vol_uuid": "u-1", "portals": [["10.0.0.9", 4420, "tcp"]]},
        {"target_nqn": "nqn.c"},
        "nqn.d",
        None,
    ]
    said = taken(shape("nvmeof", volume_replicas=replicas, vol_uuid="u-0", nqn="nqn.x"))
    assert said["places"] == ["nqn.a/u-1", "nqn.b/u-2"]
    assert said["portals"] == ["10.0.0.8:4420", "10.0.0.9:4420"]


@BOTH
def test_rbd(shape: Any) -> None:
    said = shape(
        "rbd", name="volumes/volume-1", hosts=["10.0.0.1", "fe80::2", "[fe80::3]"], ports=["6789", 6789, "3300"]
    )
    assert taken(said)["places"] == ["volumes/volume-1"]
    assert taken(said)["portals"] == ["10.0.0.1:6789", "[fe80::2]:6789", "[fe80::3]:3300"]
    assert taken(shape("rbd", name="volumes/volume-1", hosts=["10.0.0.1", "10.0.0.2"], ports=["6789"]))["portals"] == []


@BOTH
def test_a_file_on_an_export(shape: Any) -> None:
    said = shape("nfs", export="10.0.0.7:/export", name="volume-1", options="-o vers=4", format="raw")
    assert taken(said)["places"] == ["10.0.0.7:/export/volume-1"]
    assert taken(shape("nfs", export="10.0.0.7:/export"))["places"] == []
    assert taken(shape("nfs", name="volume-1"))["places"] == []


@BOTH
def test_of_an_unknown_driver_the_name_is_kept(shape: Any) -> None:
    assert taken(shape("scaleio", scaleIO_volname="x", target_iqn="a", target_lun=1)) == {
        "connected": True, **NOTHING, "driver": "scaleio",
    }  # fmt: skip


def test_the_same_is_made_of_what_nova_and_cinder_say() -> None:
    """So that the two can be compared."""
    assert taken(flat("iscsi", **ISCSI)) == taken(nested("iscsi", **ISCSI))


def test_the_connector() -> None:
    said = {"host": "compute1", "initiator": "iqn.1994-05.com.redhat:1", "ip": "10.0.0.1", "wwpns": ["5006"]}
    assert taken(said, "connector") == {"connector_host": "compute1", "initiator": "iqn.1994-05.com.redhat:1"}
    wrong = {"host": ["compute1"], "initiator": {"x": 1}}
    assert taken(wrong, "connector") == {"connector_host": None, "initiator": None}


def test_what_is_no_unicode_is_not_kept() -> None:
    lone = '{"driver_volume_type": "nfs", "export": "h:/e", "name": "\\ud800", "device_path": "\\udfff"}'
    assert taken(lone) == {"connected": True, **NOTHING, "driver": "nfs"}
    assert taken('{"host": "\\ud800"}', "connector") == {"connector_host": None, "initiator": None}
    whole = '{"driver_volume_type": "nfs", "export": "h:/e", "name": "\\ud83d\\ude00"}'
    assert taken(whole)["places"] == ["h:/e/\N{GRINNING FACE}"], "a pair of surrogates is one letter"


# ---------------------------------------------------------------------------------------------------------- secrets

#: What drivers put beside it (cinder/volume/targets, cinder/volume/drivers/rbd.py, …), and what encryption does.
SECRETS = {
    name: f"hush-{name}"
    for name in (
        "auth_password", "discovery_auth_password", "auth_username", "auth_method", "secret_uuid", "keyring",
        "password", "serverPassword", "serverToken", "access_key", "dhchap_key", "encryption_key_id", "token",
        "options", "mount_options",
    )
}  # fmt: skip


@BOTH
@pytest.mark.parametrize(
    "driver", ["iscsi", "iser", "fibre_channel", "nvmeof", "nvme", "rbd", "nfs", "scaleio", "hush"]
)
def test_no_secret_is_kept(shape: Any, driver: str) -> None:
    data: dict[str, Any] = {
        **ISCSI,
        "name": "p/i",
        "export": "h:/e",
        "target_nqn": "n",
        "vol_uuid": "u",
        "target_wwn": "5",
    }
    said = shape(driver, **data, **SECRETS, volume_replicas=[{**data, **SECRETS}], connector={**SECRETS})
    kept = json.dumps(taken(said))
    assert "hush-" not in kept
    assert "hush-" not in json.dumps(taken({"host": "h", "initiator": "i", **SECRETS}, "connector"))


# ------------------------------------------------------------------------------------------------ tables and readers


def rows(count: int) -> pa.Table:
    texts = [json.dumps(nested("iscsi", target_iqn=f"iqn.{number}", target_lun=number)) for number in range(count)]
    return pa.table({
        "id": pa.array(range(count), pa.int64()),
        "connection_info": pa.array(texts, pa.string()),
        "connector": pa.array(['{"host": "h"}'] * count, pa.string()),
        "last": pa.array(["x"] * count, pa.string()),
    })  # fmt: skip


def columns(*taken_apart: str) -> list[str]:
    return ["id", "last", *(column.name for each in taken_apart for column in tables.taken(each))]


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_table_and_a_reader_give_the_same(count: int) -> None:
    table = rows(count)
    made = apart(table, ["connection_info", "connector"])
    assert made.schema.names == columns("connection_info", "connector")
    assert [row["places"] for row in made.to_pylist()] == [[f"iqn.{number}/{number}"] for number in range(count)]
    reader = pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=2))
    streamed = apart(reader, ["connection_info", "connector"])
    assert streamed.schema == made.schema
    assert streamed.read_all().to_pylist() == made.to_pylist()


def test_the_other_columns_stay_as_they_are() -> None:
    made = apart(rows(3), ["connection_info"])
    assert made.schema.names == ["id", "connector", "last", *columns("connection_info")[2:]]
    assert made.drop_columns(columns("connection_info")[2:]) == rows(3).drop_columns(["connection_info"])


def test_a_reader_is_read_as_it_is_asked_and_closed_when_it_ends() -> None:
    asked: list[int] = []
    table = rows(4)

    def batches() -> Any:
        try:
            for number, batch in enumerate(table.to_batches(max_chunksize=1)):
                asked.append(number)
                yield batch
        finally:
            asked.append(-1)

    reader = apart(pa.RecordBatchReader.from_batches(table.schema, batches()), ["connection_info"])
    assert asked == []
    assert reader.read_next_batch().num_rows == 1
    assert asked == [0]
    reader.read_all()
    assert asked == [0, 1, 2, 3, -1]


def test_a_stream_that_breaks_is_told() -> None:
    table = rows(2)

    def batches() -> Any:
        yield table.to_batches(max_chunksize=1)[0]
        raise OSError("the server went away")

    reader = apart(pa.RecordBatchReader.from_batches(table.schema, batches()), ["connection_info"])
    with pytest.raises(OSError, match="went away"):
        reader.read_all()


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary()])
def test_any_kind_of_text_is_read(kind: pa.DataType) -> None:
    texts = ["{}", None, '{"driver_volume_type": "rbd", "name": "p/i"}']
    made = apart(pa.table({"connection_info": pa.array(texts, pa.string()).cast(kind)}), ["connection_info"])
    assert [row["places"] for row in made.to_pylist()] == [[], [], ["p/i"]]


def test_bytes_that_are_no_text_are_unknown() -> None:
    made = apart(pa.table({"connection_info": pa.array([b"\xff{}"], pa.binary())}), ["connection_info"])
    assert made.to_pylist() == [UNKNOWN]


@pytest.mark.parametrize("column", tables.CONNECTION)
def test_what_is_made_is_what_is_declared(column: str) -> None:
    kinds = {"BOOLEAN": pa.bool_(), "VARCHAR": pa.string(), "VARCHAR[]": pa.list_(pa.string())}
    made = [(name, kind) for name, kind, _ in connection._TAKEN[column]]
    assert made == [(each.name, kinds[each.type]) for each in tables.taken(column)]


# ------------------------------------------------------------------------------------------------------------ chance

WORDS = (
    "driver_volume_type", "data", "target_iqn", "target_iqns", "target_lun", "target_luns", "target_portal",
    "target_portals", "target_wwn", "target_wwns", "volume_replicas", "target_nqn", "nqn", "vol_uuid", "portals",
    "hosts", "ports", "name", "export", "multipath_id", "device_path", "host", "initiator",
)  # fmt: skip
DRIVERS = ("iscsi", "iser", "fibre_channel", "nvmeof", "nvme", "rbd", "nfs")


def anything(dice: random.Random, depth: int = 0) -> object:
    if depth < 3 and dice.random() < 0.3:
        return [anything(dice, depth + 1) for _ in range(dice.randrange(4))]
    if depth < 3 and dice.random() < 0.3:
        return {dice.choice(WORDS): anything(dice, depth + 1) for _ in range(dice.randrange(5))}
    return dice.choice([None, True, 0, 1, 256, -1, 1.5, 10**30, "", "a", "\ud800", "\x00", "fe80::1", *DRIVERS])


@pytest.mark.parametrize("seed", range(20))
def test_whatever_it_says_it_is_no_error(seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(100):
        said = {word: anything(dice) for word in dice.sample(WORDS, dice.randrange(len(WORDS)))}
        said["driver_volume_type"] = dice.choice(DRIVERS)
        text = json.dumps(said)
        for column in tables.CONNECTION:
            taken(text, column)
            taken(text[: dice.randrange(len(text))], column)


# ------------------------------------------------------------------------------------------------ of a build request


def devices(*volumes: object) -> dict[str, object]:
    """As nova/objects/build_request.py writes them."""
    return {
        "nova_object.name": "BlockDeviceMappingList",
        "nova_object.namespace": "nova",
        "nova_object.version": "1.18",
        "nova_object.data": {
            "objects": [
                {
                    "nova_object.name": "BlockDeviceMapping",
                    "nova_object.namespace": "nova",
                    "nova_object.version": "1.21",
                    "nova_object.data": {"source_type": "volume", "volume_id": volume, "attachment_id": "a-1"},
                    "nova_object.changes": ["volume_id"],
                }
                for volume in volumes
            ]
        },
        "nova_object.changes": ["objects"],
    }


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (devices("v-2", None, "v-1"), ["v-1", "v-2"]),
        (devices(), []),
        (None, []),
        ({"nova_object.data": {"objects": {"volume_id": "v-1"}}}, []),
        ({"nova_object.data": [1]}, []),
        ({"nova_object.data": {"objects": ["v-1", {"nova_object.data": "v-2"}, {}]}}, []),
        ("no JSON", None),
        ("[]", None),
    ],
)
def test_the_volumes_of_a_build_request(said: object, expected: list[str] | None) -> None:
    assert taken(said, "block_device_mappings") == {"volumes": expected}


# ------------------------------------------------------------------------------------------------ network_info


def vif(port: str, **more: object) -> dict[str, object]:
    """As Nova's instance_info_caches has it (nova/network/model.py: VIF)."""
    return {"id": port, "address": "fa:16:3e:00:00:01", "network": {"id": "n-1"}, "profile": {"secret": "x"}, **more}


def test_of_a_cached_network_the_ports_are_kept_and_whose_they_are() -> None:
    said = [vif("p-2", preserve_on_delete=False), vif("p-1", preserve_on_delete=True), vif("p-3")]
    assert taken(said, "network_info") == {"ports": ["p-1", "p-2", "p-3"], "preserved": ["p-1", "p-3"]}
    assert taken([], "network_info") == {"ports": [], "preserved": []}


@pytest.mark.parametrize("said", [None, "", "null", "{}", "7", "[7]", "[{}]", "[{", '[{"id": null}]', '[{"id": {}}]'])
def test_a_cached_network_that_is_none_is_not_known(said: str | None) -> None:
    assert taken(said, "network_info") == {"ports": None, "preserved": None}
