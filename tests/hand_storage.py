"""The programs of a hypervisor's storage, for the tests of the acting program: each notes what it is told, and changes
the sysfs of a folder as the kernel would.

It is run under the name of the program that it stands for; `storage.json` beside it says where all is and what goes
wrong.
"""

import fcntl
import json
import os
import shutil
import sys
import time
from pathlib import Path


def main() -> int:
    name, words = os.path.basename(sys.argv[0]), sys.argv[1:]
    state = json.loads((Path(sys.argv[0]).parent / "storage.json").read_text())
    with open(state["log"], "a") as log:
        log.write(" ".join([name, *words]) + "\n")
    if name == "nsenter":
        name, words = words[2], words[3:]
    line = " ".join([name, *words])
    if not locked(state["lock"]):
        print("os-brick could work meanwhile")
        return 99
    for begin, wrong in state["wrong"].items():
        if line.startswith(begin):
            time.sleep(wrong.get("seconds", 0))
            opened = wrong.get("opens")
            if opened:
                os.symlink(opened[1], opened[0])
            if "status" in wrong:
                print(wrong.get("says", "it went wrong"))
                return int(wrong["status"])
    top = Path(state["sys"])
    if name == "multipath":
        remove_map(top, words[1])
    elif name == "tee":
        assert sys.stdin.read() == "1"
        remove_disk(top, Path(words[0]).parent)
    elif words[:2] == ["-m", "session"]:
        remove_session(top, "session" + words[3])
    return 0


def locked(path: str) -> bool:
    """Whether os-brick would have to wait."""
    with open(path, "a") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def remove_map(top: Path, name: str) -> None:
    for link in sorted((top / "block").glob("dm-*")):
        here = link.resolve()
        if not (here / "dm").exists() or (here / "dm" / "name").read_text().strip() != name:
            continue
        for part in (here / "holders").iterdir():
            remove_map(top, (part.resolve() / "dm" / "name").read_text().strip())
        for path in (here / "slaves").iterdir():
            if path.exists():
                (path.resolve() / "holders" / link.name).unlink()
        shutil.rmtree(here)
        link.unlink()
        return
    raise SystemExit(name + ": no such map")


def remove_disk(top: Path, device: Path) -> None:
    for disk in (device / "block").iterdir():
        (top / "block" / disk.name).unlink()
    shutil.rmtree(device)


def remove_session(top: Path, name: str) -> None:
    shutil.rmtree((top / "class" / "iscsi_session" / name / "device").resolve())
    shutil.rmtree(top / "class" / "iscsi_session" / name)
    for line in (top / "class" / "iscsi_connection").glob("connection" + name[len("session") :] + ":*"):
        shutil.rmtree(line)


if __name__ == "__main__":
    sys.exit(main())
