"""The first minutes of an operator on this cloud: `cloudfsck init`, and its GRANTs run as it wrote them."""

from __future__ import annotations

import sys

from testbed import places
from testbed.cloud import Cloud
from testbed.operator import INITIAL, ROOT

GRANTS = INITIAL.replace(".toml", "-grants.sql")


def configure(cloud: Cloud) -> str:
    """Write the configuration anew from what the services' own files say, and make the account; what init printed."""
    controller = cloud.controller
    controller.run("rm", "-f", INITIAL, GRANTS)
    said = controller.run(
        "env", f"--chdir={ROOT}", sys.executable, "-m", "cloudfsck", "init", "--name", "testbed", "-o", INITIAL
    )
    grants = controller.path(GRANTS).read_text().replace("'PASSWORD'", f"'{places.PASSWORD}'")
    cloud.sql("", grants)
    return said
