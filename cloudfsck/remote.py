"""Run one of our programs on a host, over SSH or here, and bring back its one JSON answer.

It knows nothing of what the programs do.  An answer stands between marks that carry a nonce, so whatever a login shell
prints around it does no harm.
"""

from __future__ import annotations

import asyncio
import json
import queue
import secrets
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Any

import asyncssh

from cloudfsck.config import Ssh

#: First what is cheapest for the hosts: the post-quantum exchange costs 100 ms of processor time a connection.
_EXCHANGES = [
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
    "ecdh-sha2-nistp256",
    "diffie-hellman-group14-sha256",
]

#: An answer larger than this is no answer of ours.
LARGEST = 512 * 1024 * 1024


@dataclass(frozen=True)
class Target:
    """A host and how it is reached.  `jump` is user@host:port of a jump host."""

    host: str
    address: str
    port: int
    transport: str
    python: str
    jump: str | None = None


@dataclass(frozen=True)
class Failure:
    """Why a host did not answer.  `sent`: the request may have reached it, so what it asked for may have been done."""

    why: str
    sent: bool


Answer = dict[str, Any] | Failure


def ask(
    targets: Iterable[tuple[Target, Mapping[str, Any]]], program: str, ssh: Ssh | None
) -> Iterator[tuple[str, Answer]]:
    """Send each target its request, many at a time, and yield (host, answer) as they come in.

    It works in a thread of its own, so that answers can be worked on while others are under way.  When the caller stops
    listening, what is under way is cancelled.
    """
    answers: queue.Queue[tuple[str, Answer] | BaseException | None] = queue.Queue()
    loop = asyncio.new_event_loop()
    everything = loop.create_task(_ask_all(list(targets), program, ssh, answers))

    def work() -> None:
        try:
            loop.run_until_complete(everything)
        except asyncio.CancelledError:
            pass
        except BaseException as error:  # noqa: BLE001 (handed to the caller, who raises it)
            answers.put(error)
        finally:
            loop.close()
            answers.put(None)

    thread = threading.Thread(target=work, name="hosts", daemon=True)
    thread.start()
    try:
        while (found := answers.get()) is not None:
            if isinstance(found, BaseException):
                raise found
            yield found
    finally:
        if thread.is_alive():
            with suppress(RuntimeError):  # it may end in this very moment
                loop.call_soon_threadsafe(everything.cancel)
        thread.join()


async def _ask_all(
    targets: list[tuple[Target, Mapping[str, Any]]], program: str, ssh: Ssh | None, answers: queue.Queue[Any]
) -> None:
    room = asyncio.Semaphore(ssh.connections if ssh else 8)
    jumps: dict[str, asyncio.Task[asyncssh.SSHClientConnection]] = {}
    async with AsyncExitStack() as stack:

        async def jump(way: str) -> asyncssh.SSHClientConnection:
            assert ssh is not None
            user, _, rest = way.rpartition("@")
            host, _, port = rest.partition(":")
            return await stack.enter_async_context(_connect(host, int(port or 22), user or ssh.user, ssh, None))

        async def one(target: Target, request: Mapping[str, Any]) -> None:
            async with room:
                progress = _Progress()
                limit = ssh.timeout.total_seconds() if ssh else 60.0
                try:
                    async with asyncio.timeout(limit):
                        if target.transport == "local":
                            found = await _here(target, program, request, progress)
                        else:
                            assert ssh is not None
                            through = None
                            if target.jump:
                                if target.jump not in jumps:
                                    jumps[target.jump] = asyncio.create_task(jump(target.jump))
                                through = await asyncio.shield(jumps[target.jump])
                            found = await _there(target, program, request, ssh, through, progress)
                    answers.put((target.host, found))
                except (TimeoutError, OSError, asyncssh.Error, ValueError, RecursionError) as error:
                    answers.put((target.host, Failure(_sentence(error, target, limit), progress.sent)))

        await asyncio.gather(*(one(target, request) for target, request in targets))


class _Progress:
    sent = False


def _connect(host: str, port: int, user: str, ssh: Ssh, tunnel: asyncssh.SSHClientConnection | None) -> Any:
    return asyncssh.connect(
        host, port, username=user, client_keys=[str(ssh.key)], known_hosts=str(ssh.known_hosts), tunnel=tunnel or (),
        config=None, agent_path=None, kex_algs=_EXCHANGES, compression_algs=["none"], gss_host=None,
        preferred_auth="publickey", connect_timeout=min(15.0, ssh.timeout.total_seconds()), login_timeout=30,
        keepalive_interval=10,
    )  # fmt: skip


async def _there(
    target: Target, program: str, request: Mapping[str, Any], ssh: Ssh,
    through: asyncssh.SSHClientConnection | None, progress: _Progress,
) -> dict[str, Any]:  # fmt: skip
    nonce, given = _package(program, request, ssh.command)
    command = "cloudfsck" if ssh.command else f"{target.python} -"
    async with _connect(target.address, target.port, ssh.user, ssh, through) as connection:
        progress.sent = True
        done = await connection.run(command, input=given, encoding=None, check=False)
    return _unpack(nonce, done.stdout or b"", done.stderr or b"", done.exit_status)


async def _here(target: Target, program: str, request: Mapping[str, Any], progress: _Progress) -> dict[str, Any]:
    nonce, given = _package(program, request, False)
    # in a session of its own: Ctrl-C reaches us alone, and we let an act end
    process = await asyncio.create_subprocess_exec(
        target.python, "-", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    progress.sent = True
    try:
        out, err = await process.communicate(given)
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    return _unpack(nonce, out, err, process.returncode)


def _package(program: str, request: Mapping[str, Any], forced: bool) -> tuple[str, bytes]:
    nonce = secrets.token_hex(8)
    asked = json.dumps({**request, "nonce": nonce})
    return nonce, (asked if forced else f"REQUEST = {asked!r}\n{program}").encode()


def _unpack(nonce: str, out: bytes, err: bytes, status: int | None) -> dict[str, Any]:
    """The answer between its marks.  Raises ValueError with what the program said instead."""
    if len(out) > LARGEST:
        raise ValueError(f"its answer is larger than {LARGEST} bytes")
    begin, end = f"@@cloudfsck {nonce} begin@@\n".encode(), f"\n@@cloudfsck {nonce} end@@".encode()
    start = out.find(begin)
    stop = out.find(end, start)
    if start >= 0 and stop < 0:
        raise ValueError(f"its answer is cut off after {len(out) - start - len(begin)} bytes (status {status})")
    if start < 0:
        raise ValueError(f"our program did not answer there (status {status}): {_last(err or out)}")
    try:
        answer = json.loads(out[start + len(begin) : stop])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its answer is no JSON: {error}") from error
    if not isinstance(answer, dict):
        raise ValueError("its answer is no JSON object")
    return answer


def _last(said: bytes) -> str:
    """The last line of what somebody said, with nothing in it that a terminal would obey."""
    lines = said[-4096:].decode("utf-8", "replace").strip().splitlines()
    return "".join(sign if sign.isprintable() else "?" for sign in lines[-1])[-300:] if lines else "nothing said"


def _sentence(error: BaseException, target: Target, limit: float) -> str:
    where = f"{target.address}:{target.port}" if target.transport == "ssh" else "here"
    if target.jump:
        where += f" (through {target.jump.rpartition('@')[2]})"
    if isinstance(error, TimeoutError):
        return f"no answer from {where} within {limit:g} s; read.ssh.timeout may give it longer"
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        return (
            f"the host key of {where} is not the one in known_hosts; if the host was reinstalled, put its new key there"
        )
    if isinstance(error, asyncssh.PermissionDenied):
        return f"{where} refuses our key"
    if isinstance(error, OSError):
        return f"{where} cannot be reached: {error.strerror or error}"
    return f"{where}: {error}" if str(error) else f"{where}: {type(error).__name__}"
