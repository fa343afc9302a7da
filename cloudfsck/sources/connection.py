"""What `connection_info`, `connector` and `block_device_mappings` say of volumes, and `network_info` of ports; whatever
else is in them is dropped, secrets too.

Cinder's volume_attachment holds what its driver said flat (cinder/volume/manager.py: attachment_update), Nova's
block_device_mapping the same below `data` (nova/virt/block_device.py).  Both are text of which nothing is sure: what is
not there, or is no JSON, or has another shape, is unknown, and never an error.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

Said = Mapping[str, Any]

_LIST = pa.list_(pa.string())


def apart(rows: pa.Table | pa.RecordBatchReader, columns: Sequence[str]) -> pa.Table | pa.RecordBatchReader:
    """The same rows, each of these columns of JSON replaced by what tables.CONNECTION names of it."""
    schema = _without(rows.schema, columns)
    for column in columns:
        for name, kind, _ in _TAKEN[column]:
            schema = schema.append(pa.field(name, kind))
    return batch_by_batch(rows, schema, lambda batch: _batch(batch, columns, schema))


def batch_by_batch(
    rows: pa.Table | pa.RecordBatchReader, schema: pa.Schema, change: Callable[[pa.RecordBatch], pa.RecordBatch]
) -> pa.Table | pa.RecordBatchReader:
    """The rows that `change` makes of these, as a table or a stream, as they came; they are of that schema."""
    if isinstance(rows, pa.Table):
        return pa.Table.from_batches(map(change, rows.to_batches()), schema)
    return pa.RecordBatchReader.from_batches(schema, _closing(map(change, rows), rows))


def _closing(batches: Iterator[pa.RecordBatch], reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    try:
        yield from batches
    finally:
        reader.close()


def _batch(batch: pa.RecordBatch, columns: Sequence[str], schema: pa.Schema) -> pa.RecordBatch:
    arrays = {name: batch.column(name) for name in batch.schema.names if name not in columns}
    for column in columns:
        texts = batch.column(column)
        # Most rows have none: what is made of nothing is made once, and stands after all that is made of something.
        read = _listed if column == "network_info" else _said
        said = [*map(read, texts.drop_null().to_pylist()), read(None)]
        there = texts.is_valid()
        at = pc.if_else(there, pc.subtract(pc.cumulative_sum(there.cast(pa.int64())), 1), len(said) - 1)
        for name, kind, take in _TAKEN[column]:
            made = pa.array([None if one is None else take(one) for one in said], kind)
            arrays[name] = made.take(at)
    return pa.RecordBatch.from_arrays([arrays[name] for name in schema.names], schema=schema)


def _without(schema: pa.Schema, columns: Iterable[str]) -> pa.Schema:
    return pa.schema([field for field in schema if field.name not in set(columns)])


def _said(text: str | None) -> Said | None:
    """The object that the text is; an empty one where there is no text, and None where it is no object."""
    if text is None or not text.strip():
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if found is None:
        return {}
    return found if isinstance(found, Mapping) else None


def _listed(text: str | None) -> Said | None:
    """The same of a text that is a list, as an object that has it."""
    return _said(None if text is None else f'{{"list": {text}}}')


def _data(said: Said) -> Said:
    nested = said.get("data")
    return nested if isinstance(nested, Mapping) else said


def _word(value: object) -> str | None:
    """A text or a number as a text; JSON can say a letter that is none, half of a pair."""
    if not isinstance(value, (str, int)) or isinstance(value, bool) or value == "":
        return None
    try:
        word = str(value)
        word.encode()
    except ValueError:
        return None
    return word


def _each(many: object, one: object = None) -> list[str | None]:
    """What a list says, place by place; of what is no list, that alone."""
    found = many if isinstance(many, list) and many else [many if isinstance(many, (str, int)) else one]
    return [_word(each) for each in found]


def _words(many: object, one: object = None) -> list[str]:
    return [word for word in _each(many, one) if word is not None]


def _pairs(names: list[str | None], numbers: list[str | None]) -> list[str]:
    """Each name with its number: as many of both, or one number for all.  Otherwise nobody knows which is whose."""
    if len(numbers) == 1:
        numbers = numbers * len(names)
    if len(names) != len(numbers):
        return []
    pairs = zip(names, numbers, strict=True)
    return [f"{name}/{number}" for name, number in pairs if name is not None and number is not None]


def _address(host: str, port: str) -> str:
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def _replicas(data: Said) -> list[Said]:
    """Each of the subsystems of which a replicated NVMe volume is made; of any other, itself."""
    many = data.get("volume_replicas")
    return [one for one in many if isinstance(one, Mapping)] if isinstance(many, list) and many else [data]


def places(said: Said) -> list[str]:
    """Where the volume is on its backend, in the words of its kind; sorted, each once."""
    data = _data(said)
    found: list[str] = []
    match said.get("driver_volume_type"):
        case "iscsi" | "iser":
            found = _pairs(
                _each(data.get("target_iqns"), data.get("target_iqn")),
                _each(data.get("target_luns"), data.get("target_lun")),
            )
        case "fibre_channel":
            many = _pairs(
                _each(data.get("target_wwns") or data.get("target_wwn")),
                _each(data.get("target_luns"), data.get("target_lun")),
            )
            found = [one.lower().removeprefix("0x") for one in many]  # as the kernel has them, and each driver has not
        case "nvmeof" | "nvme":
            for one in _replicas(data):
                wanted = ("vol_uuid", "volume_nguid", "ns_id")
                number = next((word for key in wanted if (word := _word(one.get(key)))), None)
                found += _pairs([_word(one.get("target_nqn")) or _word(one.get("nqn"))], [number])
        case "rbd":
            found = _words(data.get("name"))
        case _:
            export, name = _word(data.get("export")), _word(data.get("name"))
            found = [f"{export}/{name}"] if export and name else []
    return sorted(set(found))


def portals(said: Said) -> list[str]:
    """The addresses at which the backend is reached; sorted, each once."""
    data = _data(said)
    found = _words(data.get("target_portals"), data.get("target_portal"))
    for replica in _replicas(data):
        many = replica.get("portals")
        for one in many if isinstance(many, list) else []:
            if isinstance(one, list) and len(one) >= 2 and (address := _word(one[0])) and (port := _word(one[1])):
                found.append(_address(address, port))
    hosts, ports = _each(data.get("hosts")), _each(data.get("ports"))
    if len(hosts) == len(ports):
        found += [_address(host, port) for host, port in zip(hosts, ports, strict=True) if host and port]
    return sorted(set(found))


def volumes(said: Said) -> list[str]:
    """The volumes in a BlockDeviceMappingList as Nova's objects are written (nova/objects/build_request.py); sorted."""
    found = []
    many = _inside(said).get("objects")
    for one in many if isinstance(many, list) else []:
        if isinstance(one, Mapping) and (volume := _word(_inside(one).get("volume_id"))):
            found.append(volume)
    return sorted(set(found))


def _inside(said: Said) -> Said:
    data = said.get("nova_object.data")
    return data if isinstance(data, Mapping) else {}


def ports(said: Said) -> list[str] | None:
    """The ports in what Nova caches of a server's network (nova/network/model.py: NetworkInfo); sorted."""
    return _vifs(said, lambda vif: True)


def preserved(said: Said) -> list[str] | None:
    """Those that somebody gave the server: Nova unbinds them, and deletes none."""
    return _vifs(said, lambda vif: vif.get("preserve_on_delete") is not False)


def _vifs(said: Said, wanted: Callable[[Said], bool]) -> list[str] | None:
    many = said.get("list")
    if not isinstance(many, list) or not all(isinstance(vif, Mapping) and _word(vif.get("id")) for vif in many):
        return None
    return sorted({str(_word(vif["id"])) for vif in many if wanted(vif)})


#: The columns that are made of a column of JSON: name, type, and how it is found.
_TAKEN: Mapping[str, Sequence[tuple[str, pa.DataType, Callable[[Said], Any]]]] = {
    "connection_info": (
        ("connected", pa.bool_(), bool),
        ("driver", pa.string(), lambda said: _word(said.get("driver_volume_type"))),
        ("places", _LIST, places),
        ("portals", _LIST, portals),
        ("multipath_id", pa.string(), lambda said: _word(_data(said).get("multipath_id"))),
        ("device_path", pa.string(), lambda said: _word(_data(said).get("device_path"))),
    ),
    "connector": (
        ("connector_host", pa.string(), lambda said: _word(said.get("host"))),
        ("initiator", pa.string(), lambda said: _word(said.get("initiator"))),
    ),
    "block_device_mappings": (("volumes", _LIST, volumes),),
    "network_info": (("ports", _LIST, ports), ("preserved", _LIST, preserved)),
}
