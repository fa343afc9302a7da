"""A virsh with a memory, for the tests of the acting program; its words and states are those of virsh 9.0.

Its state is a JSON file: domains by uuid, and hooks that change it just before or after a command, as somebody else
would.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

HELP = "[--managed-save] [--nvram] [--keep-nvram] [--tpm] [--keep-tpm]"


class NotDone(Exception):
    """What virsh says on standard error."""


class Virsh:
    """One run of virsh on a state."""

    def __init__(self, state: dict[str, Any], given: str) -> None:
        self.state = state
        self.given = given

    def run(self, words: list[str]) -> str:
        self.hook("before", words[0])
        self.state["log"].append(" ".join(words))
        said: str = getattr(self, "do_" + words[0])(*words[1:])
        self.hook("after", words[0])
        return said

    def hook(self, when: str, command: str) -> None:
        for hook in self.state["hooks"]:
            if hook["when"] == when and hook["command"] == command and not hook.get("done"):
                hook["done"] = True
                for uuid, change in hook["set"].items():
                    if change is None:
                        del self.state["domains"][uuid]
                    else:
                        self.state["domains"].setdefault(uuid, {}).update(change)

    def find(self, key: str) -> tuple[str, dict[str, Any]]:
        for uuid, domain in self.state["domains"].items():
            if key in (str(domain["id"]), uuid):
                return uuid, domain
        for uuid, domain in self.state["domains"].items():
            if key == domain["name"]:
                return uuid, domain
        raise NotDone(f"failed to get domain '{key}'")

    def active(self, key: str, verb: str = "") -> dict[str, Any]:
        _, domain = self.find(key)
        if domain["id"] is None:
            first = f"Failed to {verb} domain '{key}'\nerror: " if verb else ""
            raise NotDone(first + "Requested operation is not valid: domain is not running")
        if verb and domain["job"]:
            held = "cannot acquire state change lock (held by monitor=remoteDispatchDomainSave)"
            raise NotDone(f"Failed to {verb} domain '{key}'\nerror: Timed out during operation: {held}")
        return domain

    def become(self, domain: dict[str, Any], state: str, reason: str) -> None:
        domain.update(state=state, reason=reason)

    def do_echo(self, text: str) -> str:
        return text

    def do_uri(self) -> str:
        return "qemu:///system\n"

    def do_list(self, *options: str) -> str:
        if "--uuid" in options:
            return "".join(uuid + "\n" for uuid in self.state["domains"]) + "\n"
        return "".join(domain["name"] + "\n" for domain in self.state["domains"].values()) + "\n"

    def do_dominfo(self, key: str) -> str:
        uuid, domain = self.find(key)
        run = "-" if domain["id"] is None else domain["id"]
        rows = {
            "Id": run,
            "Name": domain["name"],
            "UUID": uuid,
            "OS Type": "hvm",
            "State": domain["state"],
            "Persistent": "yes" if domain["persistent"] else "no",
            "Autostart": "enable" if domain["autostart"] else "disable",
            "Managed save": "yes" if domain["managed_save"] else "no",
        }
        return "".join(f"{label + ':':15} {value}\n" for label, value in rows.items())

    def do_domstate(self, _: str, key: str) -> str:
        _, domain = self.find(key)
        return f"{domain['state']} ({domain['reason']})\n"

    def do_domjobinfo(self, key: str) -> str:
        job = self.active(key)["job"]
        if job == "incoming":
            raise NotDone("Operation not supported: migration statistics are available only on the source host")
        return f"Job type:         {'Completed' if job else 'None':12}\n" + (
            f"Operation:        {job:12}\n" if job else ""
        )

    def do_blockjob(self, key: str, disk: str, _: str) -> str:
        rate = "Bandwidth limit: 1048576 bytes/s (1.000 MiB/s)"
        return f"Block Copy: [ 99 %]    {rate}\n" if self.active(key)["blockjob"] == disk else ""

    def do_dumpxml(self, *options: str) -> str:
        _, domain = self.find(options[-1])
        xml: str = domain["xml"]
        if "--security-info" not in options:
            xml = xml.replace(" passwd='secret'", "")
        if "--inactive" not in options and domain["id"] is not None:
            xml = xml.replace("<domain type='qemu'>", f"<domain type='qemu' id='{domain['id']}'>")
        return xml + "\n"

    def do_suspend(self, key: str) -> str:
        self.become(self.active(key, "suspend"), "paused", "user")
        return "\n"

    def do_resume(self, key: str) -> str:
        domain = self.active(key, "resume")
        if domain["state"] == "running":
            text = "Requested operation is not valid: domain is already running"
            raise NotDone(f"Failed to resume domain '{key}'\nerror: {text}")
        self.become(domain, "running", "unpaused")
        return "\n"

    def do_destroy(self, key: str) -> str:
        domain = self.active(key, "destroy")
        uuid, _ = self.find(key)
        domain["id"] = None
        self.become(domain, "shut off", "destroyed")
        if not domain["persistent"]:
            del self.state["domains"][uuid]
        return "\n"

    def do_start(self, key: str, *options: str) -> str:
        _, domain = self.find(key)
        if domain["id"] is not None:
            raise NotDone("Domain is already active")
        self.state["runs"] += 1
        domain.update(id=self.state["runs"], managed_save=False)
        self.become(domain, *(("paused", "user") if options else ("running", "booted")))
        return "\n"

    def do_undefine(self, key: str, *options: str) -> str:
        uuid, domain = self.find(key)
        if domain["managed_save"] and "--managed-save" not in options:
            raise NotDone("Refusing to undefine while domain managed save image exists")
        domain.update(persistent=False, managed_save=False)
        if domain["id"] is None:
            del self.state["domains"][uuid]
        return "\n"

    def do_define(self, path: str) -> str:
        assert path == "/dev/stdin"
        uuid = self.given.split("<uuid>")[1].split("</uuid>")[0]
        name = self.given.split("<name>")[1].split("</name>")[0]
        new = domain(name=name, xml=self.given.strip())
        self.state["domains"].setdefault(uuid, new).update(persistent=True, xml=self.given.strip())
        return "\n"

    def do_autostart(self, key: str) -> str:
        self.find(key)[1]["autostart"] = True
        return "\n"

    def do_help(self, _: str) -> str:
        return HELP


def domain(name: str, xml: str, **changes: Any) -> dict[str, Any]:
    """A domain that is shut off."""
    asleep = {"id": None, "state": "shut off", "reason": "destroyed", "persistent": True, "autostart": False}
    return {"name": name, "xml": xml, **asleep, "managed_save": False, "job": None, "blockjob": None, **changes}


def answer(path: Path, argv: list[str], given: str) -> tuple[int, str, str]:
    """Status, output and error text of `virsh ARGV` on the state in the file."""
    state = json.loads(path.read_text())
    words = [word for word in argv if word != "-q"]
    if words[:1] == ["-c"]:
        words = words[2:]
    if state.get("down"):
        return 1, "", "error: failed to connect to the hypervisor\n"
    time.sleep(state.get("seconds", 0))
    virsh = Virsh(state, given)
    commands = [part.split() for part in words[0].split(";")] if len(words) == 1 else [words]
    status, said, wrong = 0, "", ""
    for command in commands:
        try:
            said += virsh.run(command)
            status = 0
        except NotDone as error:
            wrong += f"error: {error}\n"
            status = 1
    path.write_text(json.dumps(state))
    return status, said, wrong


if __name__ == "__main__":
    code, out, err = answer(Path(sys.argv[1]), sys.argv[2:], "" if "define" not in sys.argv else sys.stdin.read())
    sys.stdout.write(out)
    sys.stderr.write(err)
    sys.exit(code)
