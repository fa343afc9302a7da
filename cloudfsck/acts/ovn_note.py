"""How a person has Neutron's maintenance make a thing in OVN again: by Neutron's own note of it."""

from __future__ import annotations

from collections.abc import Iterator


def again(resource: str, kind: str, revision: int) -> Iterator[str]:
    """The commands after which Neutron takes it that the thing never got to OVN, if its note is still as it was seen;
    its maintenance makes it within five minutes, it alone (neutron/plugins/ml2/drivers/ovn/mech_driver/ovsdb/
    maintenance.py: _fix_create_update)."""
    yield (
        "in Neutron's database, if it is so: START TRANSACTION; UPDATE ovn_revision_numbers SET revision_number = -1"
        f" WHERE resource_uuid = '{resource}' AND resource_type = '{kind}' AND revision_number = {revision};"
        " SELECT ROW_COUNT() AS must_be_one;"
    )
    yield "in the same session: COMMIT if must_be_one is 1, and ROLLBACK if it is anything else"
