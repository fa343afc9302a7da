"""`python -m testbed up | down | status | on NODE COMMAND…`: the cloud comes, goes, and is entered."""

from __future__ import annotations

import os
import signal
import sys

from testbed import machine, places
from testbed.cloud import Cloud, lap
from testbed.node import Failed

USAGE = f"python -m testbed up | down | status | on {'|'.join([places.CONTROLLER, *places.COMPUTES])} COMMAND ..."


def say(text: str) -> None:
    print(text, flush=True)


def main(arguments: list[str]) -> int:
    cloud = Cloud()
    nodes = {places.CONTROLLER: cloud.controller, **cloud.computes}
    match arguments:
        case ["up"]:
            with lap(say, "in all"):
                machine.check(fresh=cloud.controller.pid is None)
                with lap(say, "packages"):
                    machine.furnish(say)
                cloud.up(say)
            say("The cloud is up.  `python -m testbed on controller bash` enters it; clouds.yaml names admin and demo.")
        case ["down"]:
            cloud.down()
        case ["status"]:
            for name, node in nodes.items():
                say(f"{name}: {'down' if node.pid is None else f'up, process {node.pid}'}")
                for pid in sorted(node.path("/run/testbed").glob("*.pid")) if node.pid else ():
                    say(f"  {pid.stem}: {'runs' if node.serves(pid.stem) else 'ended'}")
        case ["on", name, *command] if name in nodes and command:
            entered = nodes[name].command(["env", f"PATH={places.OPENSTACK}/bin:{os.environ['PATH']}", *command])
            os.execvp(entered[0], entered)
        case _:
            print(USAGE, file=sys.stderr)
            return 16
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `status | head` ends quietly
    try:
        sys.exit(main(sys.argv[1:]))
    except Failed as failed:
        print(failed, file=sys.stderr)
        sys.exit(8)
