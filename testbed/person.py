"""A person at the keyboard, who types what a finding says, word for word."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from testbed import places
from testbed.cloud import Cloud

#: What a host has in its shell's path, and a machine that has several of everything has not.
PROGRAMS = {
    "openstack ": "openstack --os-cloud admin ",
    "nova-manage ": f"{places.OPENSTACK}/bin/nova-manage --config-file /etc/nova/nova.conf ",
}


def types(cloud: Cloud, commands: Iterable[str], word: str, folder: Path | str = "/") -> None:
    """The one command that holds this word, on the host that it names or else on the controller."""
    (command,) = (command for command in commands if word in command)
    where, _, words = command.partition(": ")
    for program, here in PROGRAMS.items():
        words = re.sub(rf"(^|; ){program}", rf"\g<1>{here}", words)
    node = cloud.computes.get(where.partition(",")[0].removeprefix("on "), cloud.controller)
    node.run("bash", "-ec", f"cd {folder}; {words}", timeout=300)


def types_sql(cloud: Cloud, database: str, commands: Iterable[str], word: str = "START TRANSACTION") -> None:
    """The one transaction that holds this word, in one session, and commits it: every count that must be one is."""
    (statements,) = (
        command.partition(": ")[2] for command in commands if "START TRANSACTION" in command and word in command
    )
    said = cloud.sql(database, f"{statements} COMMIT;")
    counts = statements.count("must_be_one")
    assert counts
    assert [row for row in said if len(row) == 1] == [["1"]] * counts, said


def types_line(cloud: Cloud, database: str, commands: Iterable[str], word: str) -> None:
    """The one statement that begins with this word."""
    (statement,) = (words for _, _, words in (one.partition(": ") for one in commands) if words.startswith(word))
    cloud.sql(database, statement)
