"""What goes on in a control plane while somebody checks and repairs: Neutron is restarted, OVN's leader moves."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from testbed import northbound
from testbed.cloud import Cloud
from testbed.interrupted import die

#: Seconds between two of them: an act, with its readings before and after, takes about as long.
PAUSE = 4.0


@contextmanager
def disturbed(cloud: Cloud) -> Iterator[list[str]]:
    """Kill neutron-api and whoever leads OVN's northbound database, in turn, and start them again, until the end of the
    block.  Yields what was done so far; Neutron answers, and OVN is led, when the block has ended."""
    done: list[str] = []
    over = threading.Event()

    def disturb() -> None:
        for what in itertools.cycle(("neutron-api", "OVN's leader")):
            if over.wait(PAUSE):
                return
            if what == "neutron-api":
                die(cloud.controller, what)
                cloud.start(what)
            else:
                northbound.leader_moves(cloud)
            done.append(what)

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(disturb)
        try:
            yield done
        finally:
            over.set()
    future.result()
