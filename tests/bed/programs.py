"""The programs of the bed: where they are, how they are run and stopped; it never ends a process it did not start."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
INSTALLER = "tests/install-bed"
# Servers live in sbin, which is not on every developer's PATH; PostgreSQL's are on nobody's.
SEARCH = os.pathsep.join(
    [
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        *(str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)),
    ]
)
ENVIRONMENT = {"PATH": SEARCH, "HOME": os.environ.get("HOME", "/"), "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}


class Missing(Exception):
    """This machine lacks what a part of the bed needs; the text says what, in one line."""


class Failed(Exception):
    """A program of the bed failed; the text holds its command and what it printed."""


def need(part: str, *names: str, root: bool = False) -> None:
    """Raise Missing unless all these programs are here (and, if asked, root is running us)."""
    if root and os.geteuid() != 0:
        raise Missing(f"{part}: only root can make it")
    absent = [name for name in names if shutil.which(name, path=SEARCH) is None]
    if absent:
        raise Missing(f"{part}: {', '.join(absent)} not installed ({INSTALLER} installs it)")


def program(name: str) -> str:
    found = shutil.which(name, path=SEARCH)
    if found is None:
        raise Missing(f"{name} is not installed ({INSTALLER} installs it)")
    return found


def run(
    argv: Sequence[str | Path],
    input: str | None = None,
    check: bool = True,
    environment: Mapping[str, str] = ENVIRONMENT,
    timeout: float = 300,
) -> str:
    """Run a program to its end and return what it printed; a failure carries both of its streams."""
    command = [str(word) for word in argv]
    done = subprocess.run(
        [program(command[0]), *command[1:]],
        input=input,
        stdin=subprocess.DEVNULL if input is None else None,
        capture_output=True,
        text=True,
        errors="replace",
        cwd="/",
        env=dict(environment),
        timeout=timeout,
    )
    if check and done.returncode != 0:
        said = (done.stderr.strip() + "\n" + done.stdout.strip()[-2000:]).strip()
        raise Failed(f"{' '.join(command)[:300]} ended with {done.returncode}: {said}")
    return done.stdout


def serve(argv: Sequence[str | Path], log: Path, user: str | None = None) -> subprocess.Popen[bytes]:
    """Start a server that the kernel kills when this process dies, however it dies.

    The kernel watches the thread that called, so a bed is entered in a thread that lasts: the main one.
    """
    # setpriv changes the user first: a change of user takes the parent-death signal away.
    change = ["--reuid", user, "--regid", user, "--init-groups"] if user else []
    with log.open("ab") as out:
        return subprocess.Popen(
            [program("setpriv"), *change, "--pdeathsig", "KILL", "--", program(str(argv[0])), *map(str, argv[1:])],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd="/",
            env=ENVIRONMENT,
            # A Ctrl-C at the terminal goes to the tests alone; they stop their servers in order.
            start_new_session=True,
        )


def end(server: subprocess.Popen[bytes] | subprocess.Popen[str], how: signal.Signals = signal.SIGTERM) -> None:
    """Stop a server of ours: asked first, then killed."""
    if server.poll() is None:
        server.send_signal(how)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def await_true(what: str, true: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until something holds; if it never does, say what was waited for."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise Failed(f"waited {seconds:.0f} s in vain: {what}")
        time.sleep(0.02)
