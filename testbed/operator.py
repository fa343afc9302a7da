"""One who runs cloudfsck on the controller, with a configuration and a state of his own."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from testbed import places
from testbed.api import until
from testbed.cloud import Cloud
from testbed.node import ENVIRONMENT
from tests.real_cloud import Ran

ROOT = places.HERE.parent
#: What `cloudfsck init` wrote, and the account that its GRANTs made.
INITIAL = "/etc/cloudfsck/cloudfsck.toml"


def listed(cloud: Cloud) -> dict[str, Mapping[str, Any]]:
    """Settings of one who may list Ceph's pools, and no more; the account is made if there is none."""
    pools = {"rbd": "volumes", "rbd2": "volumes2"}
    may = ", ".join(f"profile rbd-read-only pool={pool}" for pool in pools.values())
    keyring = "/etc/ceph/ceph.client.cloudfsck.keyring"
    made = f"ceph auth get-or-create client.cloudfsck mon 'profile rbd-read-only' osd '{may}' >{keyring}"
    cloud.controller.run("bash", "-ec", made, timeout=60)
    return {
        f"backend.{backend}": {"kind": "rbd", "host": "here", "pools": [pool], "cinder_backend": backend}
        for backend, pool in pools.items()
    }


#: Many a fault that is none of names leaves one, or a server without one.
OF_NAMES = (
    "designate-record-of-deleted-server",
    "designate-record-of-lost-address",
    "designate-record-of-unknown-server",
    "designate-server-without-record",
)


class Operator:
    """`settings` go over what `cloudfsck init` wrote: settings by section, as in proof={"settle_factor": 0}."""

    def __init__(self, cloud: Cloud, folder: Path, **settings: Mapping[str, Any]) -> None:
        self.cloud = cloud
        self.folder = folder
        self.path = folder / "cloudfsck.toml"
        self.name = f"testbed-{uuid.uuid4().hex[:8]}"
        self.said: list[str] = []
        self.configure(**settings)

    def configure(self, **settings: Mapping[str, Any]) -> None:
        ssh = {"user": "root", "known_hosts": "/etc/cloudfsck/known_hosts"}
        sections: dict[str, Mapping[str, Any]] = {
            "proof": {"settle_factor": 0},
            "ladder": {"paused": 0, "stopped": 0, "quarantined": 0},
            "skip": dict.fromkeys(
                OF_NAMES, "designate-sink does not hear of all that is done to Nova: see test_names.py"
            ),
            "write.ssh": {"key": "/etc/cloudfsck/write-key", **ssh},
            **settings,
        }
        text = self.cloud.controller.path(INITIAL).read_text()
        # A name of its own: the hosts remember the highest writer of each cloud, and this one's state begins anew.
        text = text.replace('name = "testbed"', f'name = "{self.name}"')
        text = text.replace('state = "/var/lib/cloudfsck"', f'state = "{self.folder}/state"')
        for name, values in sections.items():
            text += f"\n[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
        self.path.write_text(text)

    def later(self) -> Operator:
        """The same one when a call counts as lost: Nova's long_rpc_timeout, half an hour by default, is a second."""
        text = self.path.read_text()
        self.path.write_text(text.replace("[nova]\n", "[nova]\nlong_rpc_timeout = 1\n"))
        return self

    def alone(self) -> Operator:
        """The same one, who says that no other Neutron uses this OVN: what `init` asks in a comment."""
        text = self.path.read_text()
        assert "\n# alone = true" in text
        self.path.write_text(text.replace("\n# alone = true", "\nalone = true"))
        return self

    def proven(self) -> dict[str, set[str]]:
        """What is proven now, in a cloud that is read whole: the keys by the check that finds them."""
        ran = self("check")
        assert ran.data["unknown"] == [], ran.out
        found: dict[str, set[str]] = {}
        for one in ran.data["findings"]:
            if one["state"] == "proven":
                found.setdefault(one["check"], set()).add(one["key"])
        return found

    def purges(self, key: str) -> None:
        """Purge what was just stopped, and nothing else.

        Nova waits some seconds before it believes that a guest stopped, and writes the server's row then
        (nova/virt/libvirt/host.py: STOPPED is delayed): readings before and after that prove nothing.
        """

        def purged() -> bool:
            ran = self("purge", "--yes")
            if ran.outcomes:  # what hung on it may be found still, and then the status says so
                assert (ran.outcomes, ran.status & 1) == ({key: "done"}, 1), (ran.out, ran.err)
            return bool(ran.outcomes)

        until(f"{key} is purged", purged, 120)

    def undone(self) -> None:
        """Take back the last run, and find that each of its acts was taken back."""
        ran = self("undo", self("undo").data[-1]["run"], "--yes")
        assert set(ran.outcomes.values()) == {"done"}, ran.out

    def __call__(self, *words: str, form: str | None = "json", timeout: float = 300) -> Ran:
        """Run a command of cloudfsck, and keep what it printed."""
        command = [sys.executable, "-m", "cloudfsck", "-c", str(self.path), *words]
        command += ["--format", form] if form else []
        done = subprocess.run(
            self.cloud.controller.command(["env", f"--chdir={ROOT}", *command]),
            capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL, env=ENVIRONMENT,
        )  # fmt: skip
        self.said += [done.stdout, done.stderr]
        assert "Traceback" not in done.stderr, done.stderr
        return Ran(done.returncode, done.stdout, done.stderr)
