"""The commands; the only module that prints or exits.

The exit status is fsck's, a sum of bits: 0 clean, 1 faults corrected, 4 faults left, 8 something could not be read or
done, 16 usage, 32 cancelled.
"""

from __future__ import annotations

import datetime as dt
import enum
import errno
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderHook, RenderResult
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.segment import Segment
from rich.syntax import Syntax
from typer.exceptions import TyperException

from cloudfsck import (
    __version__,
    apply,
    checks,
    config,
    demo,
    discover,
    files,
    journal,
    plan,
    proof,
    report,
    scenario,
    screen,
)
from cloudfsck.acts import cinder, designate, dns, hypervisor, neutron, nsx, ovn, placement
from cloudfsck.acts import database as in_database
from cloudfsck.config import NO_SERVICE, Config
from cloudfsck.model import UUID, Act, Refused, Trouble
from cloudfsck.proof import Verdict
from cloudfsck.snapshot import Snapshot, tables_read
from cloudfsck.sources import Sources, nova, schema
from cloudfsck.sources import dns as dns_servers
from cloudfsck.sources.database import Database, Login, Unreadable
from cloudfsck.state import KEEP_KINDS, Lease, State, utcnow
from cloudfsck.tables import API

CLEAN, CORRECTED, LEFT, TROUBLE, USAGE, CANCELLED = 0, 1, 4, 8, 16, 32

#: Snapshots that are kept; older ones are removed.
SNAPSHOTS = 10

out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, soft_wrap=True, highlight=False)

#: What a terminal would obey, or show in another order: it may stand in the name of a server, which anybody gives.
_OBEYED = {
    sign: f"\\x{sign:02x}" if sign < 256 else f"\\u{sign:04x}"
    for sign in (*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
    if chr(sign) not in "\n\t"
}


class _Plain(RenderHook):
    """Everything that is printed says such signs instead of sending them; colours are rich's own."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Spelled(one) for one in renderables]


@dataclass(frozen=True)
class _Spelled:
    what: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self.what, options):
            yield segment if segment.is_control else Segment(segment.text.translate(_OBEYED), segment.style)


out.push_render_hook(_Plain())
err.push_render_hook(_Plain())

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False,
    help="fsck for an OpenStack cloud: find what leaked or contradicts itself, prove it, repair it.",
    epilog="Exit status, a sum of bits: 0 clean, 1 faults corrected, 4 faults left, 8 something could not be read or"
    " done, 16 usage, 32 cancelled.",
)  # fmt: skip
keep_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="What must never be touched.")
app.add_typer(keep_app, name="keep")


class Format(enum.StrEnum):
    text = "text"
    json = "json"


FormatOption = Annotated[Format, typer.Option("--format", help="text for a person, json for a program.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def main() -> None:
    """Run the command line, and leave with its exit status."""
    try:
        status = app(standalone_mode=False)
        sys.stdout.flush()
    except TyperException as error:  # all that Typer raises here is about how it was called
        error.show() if hasattr(error, "show") else err.print(f"Error: {error}", markup=False)
        status = USAGE
    except (typer.Abort, KeyboardInterrupt):
        err.print("cancelled")
        status = CANCELLED
    except (Trouble, Unreadable) as error:
        err.print(f"cloudfsck: {error}", style="red", markup=False)
        status = TROUBLE
    except BrokenPipeError:  # whoever read our output has seen enough
        sys.stderr.close()
        status = TROUBLE
    except Exception as error:  # noqa: BLE001 (a fault of ours; Python's own status for it, 1, would say that faults were corrected)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python itself would fail to write the rest
            where = error.filename or "where the output goes"
            err.print(f"cloudfsck: {where} cannot be written: {error.strerror}", style="red", markup=False)
        else:
            err.print_exception()
            err.print("cloudfsck: this is a fault of cloudfsck itself; nothing was repaired after it", style="red")
        status = TROUBLE
    if status == 130:  # what Typer makes of Ctrl-C
        err.print("cancelled")
        status = CANCELLED
    sys.exit(status if isinstance(status, int) else CLEAN)


def _version(asked: bool) -> None:
    if asked:
        out.print(f"cloudfsck {__version__}")
        raise typer.Exit(CLEAN)


@app.callback()
def _options(
    context: typer.Context,
    configuration: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", help="The configuration; by default ./cloudfsck.toml, then /etc/cloudfsck/cloudfsck.toml."
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    context.obj = configuration


# ------------------------------------------------------------------------------------------ what commands share


class _Stop:
    """What Ctrl-C does while acts are done: it stops at once between two of them, and else when the one that is under
    way has ended and was verified.  A second one breaks off in the midst of it."""

    under_way = False
    wanted = False

    def __call__(self, *_: object) -> None:
        if self.wanted or not self.under_way:
            raise KeyboardInterrupt
        self.wanted = True
        os.write(2, b"stopping when this act has ended; Ctrl-C again breaks off in the midst of it\n")


class Session:
    """What a command works with: the configuration, the checks, the state store, the sources."""

    def __init__(self, context: typer.Context) -> None:
        self.checks = checks.load()
        try:
            self.path = config.find(context.obj)
            self.config: Config = config.load(self.path, frozenset(self.checks))
        except Trouble as error:
            err.print(f"cloudfsck: {error}", style="red", markup=False)
            raise typer.Exit(USAGE) from error
        left_out = self.config.left_out(self.checks)
        self.active = {name: check for name, check in self.checks.items() if name not in left_out}
        self.state = State(self.config.cloud)
        context.with_resource(demo.standing_in(self.path.parent))
        self.sources = Sources(self.config, self.state.holds)
        self.stop = _Stop()

    @property
    def snapshots(self) -> Path:
        return self.config.cloud.state / "snapshots"

    def means(self) -> apply.Means:
        """What apply is handed; the writing key, the account and the APIs are opened here and nowhere else."""
        write = self.config.write
        by_ssh = self.config.hosts.transport == "ssh"
        if by_ssh and not write.model_fields_set:
            raise Trouble(f"{self.path} has no [write.ssh]: without the second key nothing can be repaired")
        roster = self.sources.roster()
        apis: dict[str, _Sends] = {}
        if write.cinder is not None:
            apis["cinder"] = cinder.Cinder(write.cinder)
        if write.neutron is not None:
            apis["neutron"] = neutron.Neutron(write.neutron)
        if write.designate is not None:
            apis["designate"] = designate.Designate(write.designate)
        if write.placement is not None:
            apis["placement"] = placement.Placement(write.placement)
        if write.dns is not None:
            apis["dns"] = dns.Updates(write.dns)
        if write.ovn is not None:
            apis["ovn"] = ovn.Northbound(write.ovn)
        if write.nsx is not None:
            apis["nsx"] = nsx.Controller(write.nsx)

        def send(act: Act, lease: Lease) -> Any:
            if isinstance(act, in_database.Guarded):
                if write.database is None:
                    raise Refused(f"{self.path} has no [write.database]: without an account that may write nothing is"
                                  " done in a database")  # fmt: skip
                self.stop.under_way = True
                return in_database.send(act, self.sources.database(act.part), Login.of(write.database))
            if not act.host:
                section = "dns" if "@" in act.part else act.part
                if section not in apis:
                    raise Refused(f"{self.path} has no [write.{section}]: {_WRITES[section]}")
                self.stop.under_way = True
                return apis[section].send(act)
            if by_ssh and write.ssh is None:
                raise Refused(f"{self.path} has no [write.ssh]: without the second key nothing is done on a host")
            if act.host not in roster.hosts:
                raise Trouble(f"{act.host} is no host of the roster")
            target, place = self.sources.target(roster.hosts[act.host])
            self.stop.under_way = True
            return hypervisor.send(act, target, place, write.ssh, self.config.cloud.name, lease.fence)

        return apply.Means(self.sources.prove, self.sources.look, send)


_Sends = (
    cinder.Cinder | designate.Designate | dns.Updates | neutron.Neutron | ovn.Northbound | nsx.Controller
    | placement.Placement
)  # fmt: skip

#: What a section has to say so that we may write where acts are sent by it.
_WRITES = {
    "cinder": "its cloud is to be the name of an administrator's entry in clouds.yaml",
    "neutron": "its cloud is to be the name of an administrator's entry in clouds.yaml",
    "designate": "its cloud is to be the name of an administrator's entry in clouds.yaml",
    "placement": "its cloud is to be the name of an administrator's entry in clouds.yaml",
    "dns": "its key_file is to hold a TSIG key that may change the zone",
    "ovn": "its keys are to be as those of [ovn]",
    "nsx": "its keys are to be as those of [nsx], with an account that may write",
}


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Progress of long work on standard error, where that is a terminal."""
    if not err.is_terminal:
        yield lambda what, done, total: None
        return
    columns = (TextColumn("{task.description:12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as shown:
        tasks: dict[str, Any] = {}

        def note(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = shown.add_task(what, total=total)
            shown.update(tasks[what], completed=done, total=total)

        yield note


def _show(format: Format, text: RenderableType | Callable[[], RenderableType], data: Any) -> None:
    if format is Format.json:
        print(json.dumps(data() if callable(data) else data, indent=2, default=str))
    else:
        out.print(text() if callable(text) else text)


def _read(session: Session, run: str) -> Snapshot:
    """The whole cloud, in a snapshot of that name that is still open for writing."""
    with _progress() as progress:
        return session.sources.read(session.snapshots / f"{run}.duckdb", progress)


def _judge(session: Session) -> tuple[Verdict, Snapshot]:
    run = session.state.new_run()
    snapshot = _read(session, run)
    snapshot.note(cloud=session.config.cloud.name, run=run, version=__version__)
    with _progress() as progress:
        verdict = proof.judge(
            session.active, snapshot, run, session.state, session.config, session.sources.prove, progress
        )
    return verdict, snapshot


def _finish(session: Session, snapshot: Snapshot) -> None:
    snapshot.finish()
    for old in sorted(session.snapshots.glob("*.duckdb"))[:-SNAPSHOTS]:
        old.unlink(missing_ok=True)
    for rest in session.snapshots.glob("*.partial*"):  # of one that was killed
        with suppress(OSError):
            if time.time() - rest.stat().st_mtime > 86400:
                rest.unlink()


def _plan(session: Session, verdict: Verdict, snapshot: Snapshot, purge: bool) -> plan.Plan:
    made = plan.make(
        verdict, session.checks, session.config.cloud.name, purge=purge, keeps=session.state.keeps(),
        tags=plan.tags(snapshot), frozen=session.state.frozen(), first_reading=session.state.whole_readings() < 2,
    )  # fmt: skip
    return plan.played(made, session.active, snapshot)


def _status(verdict: Verdict) -> int:
    faults = any(finding.state in ("seen", "proven") for finding in verdict.findings)
    faults = faults or any(one.certain for one in verdict.acquitted)
    unproven = any(finding.state == "unproven" for finding in verdict.findings)
    unknown = bool(verdict.stops or verdict.gaps) or unproven or any(one.unknown for one in verdict.answers.values())
    return (LEFT if faults else CLEAN) + (TROUBLE if unknown else CLEAN)


# ------------------------------------------------------------------------------------------ finding


@app.command()
def check(context: typer.Context, format: FormatOption = Format.text) -> int:
    """Read the cloud, find what is wrong, and prove it.

    Changes nothing.
    """
    session = Session(context)
    verdict, snapshot = _judge(session)
    _finish(session, snapshot)
    _show(
        format,
        partial(report.check_text, verdict, session.checks, session.config),
        partial(report.check_json, verdict, session.checks, session.config, str(snapshot.path)),
    )
    return _status(verdict)


@app.command(name="plan")
def plan_(
    context: typer.Context,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the plan to this file.")] = None,
    format: FormatOption = Format.text,
) -> int:
    """Check, and say what `repair` would do.  Changes nothing."""
    session = Session(context)
    verdict, snapshot = _judge(session)
    made = _plan(session, verdict, snapshot, purge=False)
    _finish(session, snapshot)
    if output is not None:
        plan.save(made, output)
    _show(format, partial(report.plan_text, made), partial(plan.to_json, made))
    return _status(verdict)


@app.command()
def snapshot(context: typer.Context, format: FormatOption = Format.text) -> int:
    """Read the whole cloud into a snapshot, without checking it."""
    session = Session(context)
    run = session.state.new_run()
    taken = _read(session, run)
    taken.note(cloud=session.config.cloud.name, run=run, version=__version__)
    gaps = taken.heard().gaps.values()
    _finish(session, taken)
    lines = "\n".join(f"could not be read: {gap}" for gap in gaps)
    _show(
        format, f"{taken.path}" + (f"\n{lines}" if lines else ""),
        {"snapshot": str(taken.path), "gaps": [{"table": gap.table, "part": gap.part, "why": gap.why} for gap in gaps]},
    )  # fmt: skip
    return TROUBLE if gaps else CLEAN


# ------------------------------------------------------------------------------------------ repairing


@app.command()
def repair(
    context: typer.Context,
    plan_file: Annotated[Path | None, typer.Argument(help="A plan that `plan -o` wrote, perhaps cut down.")] = None,
    yes: Yes = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    format: FormatOption = Format.text,
) -> int:
    """Take one reversible step for each proven finding.

    Each act is gated by fresh readings, verified, and journalled for `undo`; it asks first.
    """
    session = Session(context)
    return _repair(session, plan_file, False, yes, dry_run, format)


@app.command()
def purge(
    context: typer.Context,
    yes: Yes = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    format: FormatOption = Format.text,
) -> int:
    """Destroy what stood on its last rung past its time.

    It is proven again first, and it asks.  No other command destroys anything.
    """
    return _repair(Session(context), None, True, yes, dry_run, format)


def _repair(session: Session, plan_file: Path | None, purging: bool, yes: bool, dry_run: bool, format: Format) -> int:
    given = None if plan_file is None else plan.load(plan_file, session.config.cloud.name, session.active)
    if given is not None and given.purge != purging:
        raise Trouble(f"{plan_file} is a plan to purge, and `repair` never destroys")
    # a plan may be hours old: what stops all repairs shows only in a reading of the whole cloud
    verdict, snapshot = _judge(session)
    if given is None:
        made = _plan(session, verdict, snapshot, purging)
    else:
        made = replace(given, entries=() if verdict.stops else given.entries, stops=verdict.stops)
    _finish(session, snapshot)
    status = _status(verdict) & TROUBLE
    left = {(one.check, one.key) for one in verdict.findings if one.state in ("seen", "proven")}
    if whys := sorted({gap.why for gap in verdict.gaps}):
        more = f"; and {len(whys) - 1} more reasons" if len(whys) > 1 else ""
        err.print(f"Not everything could be read, and what rests on it is left alone: {whys[0]}{more}", markup=False)
    if dry_run or not made.entries:
        _show(format, partial(report.plan_text, made), partial(plan.to_json, made))
        return status + (LEFT if left else CLEAN)
    means = session.means()
    if not yes:
        err.print(report.plan_text(made))
        _ask(session, f"Do these {len(made.entries)} acts on {session.config.cloud.name}?")
    done = _watch(apply.apply(made, session.active, session.config, session.state, means), format, session.stop)
    corrected = {(one.entry.check, one.entry.key) for one in done if one.outcome == "done"}
    left |= {(one.entry.check, one.entry.key) for one in done}
    if any(one.outcome in ("failed", "unknown") for one in done):
        status = TROUBLE
    if format is Format.text:
        said = f"{len(corrected)} of {len(made.entries)} acts done; `cloudfsck undo` lists what can be taken back"
        out.print(said, style="bold")
    return (CORRECTED if corrected else CLEAN) + (LEFT if left - corrected else CLEAN) + status


def _watch(acts: Iterator[apply.Done], format: Format, stop: _Stop) -> list[apply.Done]:
    """Let the acts be done, and show how each ended: as text at once, as JSON even when the run stops midway."""
    done: list[apply.Done] = []
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:  # as in the background of a shell
        signal.signal(signal.SIGINT, stop)
    try:
        for one in acts:
            stop.under_way = False
            done.append(one)
            if format is Format.text:
                out.print(report.done_text(one.entry, one.outcome, one.why))
            if stop.wanted:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        ended = sum(one.outcome == "done" for one in done)
        err.print(f"{ended} acts were done; `cloudfsck undo` lists what can be taken back")
        if stop.under_way:
            err.print("What became of the one that was under way is not known: it is left alone for a while.")
        raise
    finally:
        signal.signal(signal.SIGINT, before)
        if isinstance(acts, Generator):
            acts.close()  # now, and so the lease is given back
        if format is Format.json:
            shown = [report.done_json(one.entry, one.outcome, one.why) for one in done]
            print(json.dumps({"schema_version": report.VERSION, "acts": shown}, indent=2, default=str))
    return done


def _ask(session: Session, question: str) -> None:
    """Have a person agree; a cloud made for testing, where nothing needs to settle, has to be named."""
    if not sys.stdin.isatty():
        raise Trouble("standard input is no terminal, so nobody can be asked; give --yes to agree beforehand")
    if session.config.proof.settle_factor == 0:
        name = session.config.cloud.name
        if (
            typer.prompt(f"{question} Faults need not have lasted here; type the cloud's name ({name}) to go on")
            != name
        ):
            raise typer.Abort()
    else:
        typer.confirm(question, abort=True, err=True)


@app.command()
def undo(
    context: typer.Context,
    which: Annotated[
        str | None, typer.Argument(help="A run, or RUN/ACT; without it, what could be taken back.")
    ] = None,
    yes: Yes = False,
    format: FormatOption = Format.text,
) -> int:
    """Take acts back, the last first.

    Each is guarded by what stands there now.  Without a run, lists what was done.
    """
    session = Session(context)
    if which is None:
        runs = {run: journal.read(session.state.folder, run) for run in journal.runs(session.state.folder)}
        _show(format, partial(report.runs_text, runs), partial(report.runs_json, runs))
        return CLEAN
    run, _, number = which.partition("/")
    entries = journal.read(session.state.folder, run)
    if number:
        entries = [entry for entry in entries if str(entry.number) == number]
        if not entries:
            raise Trouble(f"run {run} has no act {number}")
    wanted = [entry for entry in entries if entry.outcome in ("done", "unknown") and entry.undone_by is None]
    if not wanted:
        _show(format, "Nothing to take back.", {"schema_version": report.VERSION, "acts": []})
        return CLEAN
    means = session.means()
    if not yes:
        for entry in reversed(wanted):
            err.print(f"{entry.name}  take back: {entry.act}  (undo {entry.act.undoing})", markup=False)
        _ask(session, f"Take back these {len(wanted)} acts on {session.config.cloud.name}?")
    done = _watch(apply.undo(wanted, session.state, means, named=bool(number)), format, session.stop)
    corrected = sum(one.outcome == "done" for one in done)
    return (CORRECTED if corrected else CLEAN) + (TROUBLE if corrected < len(wanted) else CLEAN)


@app.command("accept-restore")
def accept_restore(context: typer.Context) -> int:
    """Take Nova's databases as they are now.

    For when they were restored from a backup, or a clock was set, and that is known.
    """
    accepted = Session(context).state.accept_restore()
    for line in accepted:
        out.print(f"accepted: {line}", markup=False)
    out.print("Until the cloud has been read whole twice more, only acts that can be undone exactly are done.")
    return CLEAN


# ------------------------------------------------------------------------------------------ looking


#: What can be shown.
KINDS: tuple[screen.Kind, ...] = ("server", "volume", "port")


def _complete_kind(incomplete: str) -> list[str]:
    return [kind for kind in KINDS if kind.startswith(incomplete)]


@app.command()
def show(
    context: typer.Context,
    kind: Annotated[str, typer.Argument(help="What it is: server, volume or port.", autocompletion=_complete_kind)],
    id: Annotated[str, typer.Argument(help="Its UUID.")],
    format: FormatOption = Format.text,
) -> int:
    """What every place says of one server, volume or port, side by side.

    Which of them disagrees, why, and what can be done about it.  Changes nothing.
    """
    if kind not in KINDS:
        raise typer.BadParameter(f"there is no kind {kind!r}; the kinds are: {', '.join(KINDS)}")
    uuid = id.strip().lower()  # as Nova, Cinder, Neutron and libvirt write them
    if not UUID.fullmatch(uuid):
        raise typer.BadParameter(f"{id!r} is no UUID, such as 6c48ad26-7dab-5807-85cd-beb4c5e76c69")
    session = Session(context)
    service = {"volume": "cinder", "port": "neutron"}.get(kind)
    if service is not None and getattr(session.config, service) is None:
        raise Trouble(f"{session.path}: {NO_SERVICE[service]}")
    subject = screen.Subject(kind, uuid)
    before, after = session.sources.prove(subject.scope)
    # What hangs together with it belongs to the picture; what leads to a port of it is known only once the port is.
    for _ in range(2):
        names = dns_servers.names(session.config.dns, uuid, after) if kind == "server" else frozenset()
        wider = screen.around(kind, uuid, after, names)
        if wider.beside <= subject.beside:
            break
        before.close()
        after.close()
        subject = wider
        before, after = session.sources.prove(subject.scope)
    view = screen.look(before, after, subject, session.active, session.config, session.state.first_seen, utcnow())
    before.close()
    after.close()
    width = out.width if out.is_terminal or "COLUMNS" in os.environ else None
    _show(
        format,
        partial(screen.text, view, session.active, session.config, width),
        partial(screen.as_json, view, session.active),
    )
    return (LEFT if view.outcome == "fault" else CLEAN) + (TROUBLE if view.unsure else CLEAN)


@app.command("checks")
def checks_(format: FormatOption = Format.text) -> int:
    """The checks, a line each."""
    known = checks.load()
    rows = [{"check": name, "risk": one.risk, "finds": one.title} for name, one in known.items()]
    _show(format, partial(report.rows_text, rows), partial(report.checks_json, known))
    return CLEAN


def _complete_check(incomplete: str) -> list[str]:
    return [name for name in checks.load() if name.startswith(incomplete)]


@app.command()
def explain(
    check: Annotated[
        str, typer.Argument(help="A check; `cloudfsck checks` lists them.", autocompletion=_complete_check)
    ],
    format: FormatOption = Format.text,
) -> int:
    """What a check finds, why, and what its repair does.

    With its query and a scenario.
    """
    known = checks.load()
    if check not in known:
        raise typer.BadParameter(f"there is no check {check!r}; the checks are: {', '.join(known)}")
    one = known[check]
    example = next(case for case in one.scenarios if case.finds)
    if format is Format.json:
        print(json.dumps({**report.checks_json({check: one})[0], "query": scenario.plain(one.query),
                          "scenario": {"title": example.title, "world": scenario.plain(example.world),
                                       "finds": example.finds, "plans": example.plans}}, indent=2))  # fmt: skip
        return CLEAN
    out.print(one.text.strip(), markup=False)
    settle = proof.words(one.settle)
    out.print(
        f"\nRisk: {one.risk}. It counts once it has lasted {settle}. None is repaired above {one.limit} in 24 hours,"
        f" or above {one.share:.0%} of what was looked at.\n"
    )
    query = scenario.plain(one.query)
    out.print(Syntax(query, "sql", background_color="default") if out.is_terminal else query, markup=False)
    out.print(f"\nA scenario: {example.title}\n\n{scenario.plain(example.world)}\n", markup=False)
    out.print(
        f"It finds {', '.join(example.finds)}" + (f", and would {example.plans.strip()}" if example.plans else "")
    )
    return CLEAN


@app.command()
def sql(
    context: typer.Context,
    query: Annotated[str, typer.Argument(help="A SELECT; `SHOW TABLES` and `DESCRIBE <table>` tell what there is.")],
    file: Annotated[Path | None, typer.Option("--snapshot", help="Another snapshot than the newest.")] = None,
    format: FormatOption = Format.text,
) -> int:
    """Ask the newest snapshot yourself."""
    if file is None:
        session = Session(context)
        taken = sorted(session.snapshots.glob("*.duckdb"))
        if not taken:
            raise Trouble("there is no snapshot yet; `cloudfsck snapshot` takes one")
        file = taken[-1]
    opened = Snapshot.open(file)
    try:
        rows = opened.query(query)
    finally:
        opened.close()
    _show(format, partial(report.rows_text, rows), partial(report.rows_json, rows))
    return CLEAN


@app.command()
def doctor(context: typer.Context, format: FormatOption = Format.text) -> int:
    """Try every source: what could not be judged?

    Changes nothing.
    """
    session = Session(context)
    rows: list[dict[str, Any]] = []

    def note(what: str, where: str, fault: str | None, said: str = "") -> None:
        rows.append({"what": what, "where": where, "state": "fault" if fault else "good", "says": fault or said})

    databases = [session.sources.api]
    try:
        databases += session.sources.cells()
    except Unreadable as error:
        note("cells", str(session.sources.api), str(error))
    opened = [*((database, False) for database in databases), *((other, True) for other in session.sources.services())]
    for database, with_schema in opened:
        try:
            with database.open() as reading:
                said = f"its clock says {reading.clock():%Y-%m-%d %H:%M:%S} UTC"
                if with_schema:
                    said += f"; its schema is at {' and '.join(schema.revisions(reading))}"
            note("database", str(database), None, said)
        except Unreadable as error:
            note("database", str(database), str(error))
    with _progress() as progress:
        taken = session.sources.read(None, progress)
    gaps = taken.heard().gaps
    told: set[tuple[str, str]] = set()
    for gap in gaps.values():
        if (gap.part, gap.why) not in told:
            told.add((gap.part, gap.why))
            note("part", gap.part or gap.table, gap.why)
    for row in taken.rows("SELECT host, seconds FROM hypervisors ORDER BY host"):
        note("host", row["host"], None, f"answers; our questions cost it {row['seconds']:.2f} s")
    for row in taken.rows("SELECT backend, listed FROM backends ORDER BY backend"):
        note("backend", row["backend"], None, f"answers; it has {row['listed']} images")
    for row in taken.rows(
        "SELECT (SELECT count(*) FROM ovn_switches) AS switches, (SELECT count(*) FROM ovn_switch_ports) AS ports"
        " FROM ledger WHERE table_name = 'ovn_switches' AND whole"
    ):
        note("OVN", "northbound", None, f"answers; it has {row['switches']} switches and {row['ports']} ports")
    for row in taken.rows(
        "SELECT z.copy, z.serial, (SELECT count(*) FROM dns_records r WHERE r.copy = z.copy) AS records"
        " FROM dns_zones z ORDER BY z.copy"
    ):
        note("DNS zone", row["copy"], None, f"answers; its serial is {row['serial']}, it has {row['records']} records")
    for row in taken.rows(
        "SELECT count(*) FILTER (kind = 'segment') AS segments, count(*) FILTER (kind = 'port') AS ports"
        " FROM nsx_objects HAVING EXISTS (SELECT 1 FROM ledger WHERE table_name = 'nsx_objects' AND whole)"
    ):
        note("NSX", "managers", None, f"answers; it has {row['segments']} segments and {row['ports']} ports")
    for name, one in session.active.items():
        lost = sorted({gap.part or gap.table for gap in gaps.values() if gap.table in tables_read(one.query)})
        note("check", name, f"cannot judge {', '.join(lost)}" if lost else None, "can judge everything")
    taken.close()
    _show(format, partial(report.rows_text, rows), partial(report.rows_json, rows))
    return TROUBLE if any(row["state"] == "fault" for row in rows) else CLEAN


# ------------------------------------------------------------------------------------------ keeping


@keep_app.command("add")
def keep_add(
    context: typer.Context,
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(KEEP_KINDS)}.")],
    pattern: Annotated[str, typer.Argument(help="A UUID, a project, a host, a pattern such as 'db-*', or a tag.")],
    reason: Annotated[str, typer.Option(help="Why; it is shown wherever the keep is honoured.")],
    until: Annotated[
        dt.datetime | None,
        typer.Option(formats=["%Y-%m-%d"], metavar="YYYY-MM-DD", help="The day on which it expires."),
    ] = None,
) -> int:
    """Never touch what this matches."""
    if kind not in KEEP_KINDS:
        raise typer.BadParameter(f"there is no kind {kind!r}; the kinds are: {', '.join(KEEP_KINDS)}")
    if until is not None and until <= utcnow():
        raise typer.BadParameter(f"{until:%Y-%m-%d} is past: the keep would never hold")
    if kind == "id":
        pattern = pattern.lower()  # as Nova and libvirt write UUIDs
    number = Session(context).state.keep(kind, pattern, reason, until)
    if kind == "tag":
        err.print("Nova forgets a server's tags when it deletes the server: this keeps only servers that live.")
    out.print(f"keep {number} added: {kind} {pattern}", markup=False)
    return CLEAN


@keep_app.command("list")
def keep_list(context: typer.Context, format: FormatOption = Format.text) -> int:
    """What is kept, why, and until when."""
    rows = [vars(keep) for keep in Session(context).state.keeps()]
    _show(format, partial(report.rows_text, rows), partial(report.rows_json, rows))
    return CLEAN


@keep_app.command("remove")
def keep_remove(
    context: typer.Context, number: Annotated[int, typer.Argument(help="Its number in `keep list`.")]
) -> int:
    """Keep it no longer."""
    if not Session(context).state.unkeep(number):
        raise Trouble(f"there is no keep {number}; `cloudfsck keep list` lists them")
    out.print(f"keep {number} removed")
    return CLEAN


# ------------------------------------------------------------------------------------------ beginning


@app.command()
def init(
    conf: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="A file of a service, which its name begins with: nova.conf, cinder-volume.conf.  It may be given"
            " several times; of one service's files the later win, and its standard places are not looked at.",
        ),
    ] = None,
    root: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            exists=True,
            file_okay=False,
            help="Where the standard places are: the file system of a container, or a copy with its etc/ in it.",
        ),
    ] = Path("/"),
    name: Annotated[str, typer.Option(help="What to call the cloud.")] = "cloud",
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write.")] = Path("cloudfsck.toml"),
) -> int:
    """Write cloudfsck.toml from the services' own configuration files.

    They are looked for where packages, Kolla-Ansible and OpenStack-Ansible put them.  Beside it are written the GRANTs
    to run, for an account that can only read.
    """
    try:
        named = discover.given(conf or [])
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if output.exists():
        raise Trouble(f"{output} exists; move it away, or name another with -o")
    found = discover.look(root, named)
    text = discover.toml(name, found)
    settings = config.parse(output, text)
    login = Login(settings.read.database.user, None)
    cells = [Database(url.rpartition("/")[2], url, login) for url in discover.cells(found)]
    others = [(database, schema.columns(database)) for database in schema.databases(settings, login)]
    grants = output.with_name(f"{output.stem}-grants.sql")
    # The configuration comes last, and whole: that it exists says that all is done.
    _write(grants, nova.grants(Database(API, settings.nova.api_database, login), cells, others))
    _write(output, text)
    out.print(f"{output} is written: look through it, and answer its questions.  It was made from", markup=False)
    for file in found.files:
        out.print(f"  {file}", markup=False)
    out.print(
        f"{grants} makes the account that can only read: look through it, and run it as an administrator;", markup=False
    )
    if cells:
        out.print(
            "  cells that are not in it, on other servers for example, need the same there as the last one in it."
        )
    else:
        out.print("  no nova.conf names a cell's database: give another with --conf, for they need GRANTs as well.")
    out.print("Then `cloudfsck doctor` says what can be read.")
    return CLEAN


def _write(path: Path, text: str) -> None:
    try:
        files.write(path, text)
    except OSError as error:
        raise Trouble(f"{path} cannot be written: {error.strerror}") from error


@app.command("demo")
def demo_(
    directory: Annotated[Path | None, typer.Argument(help="Where to make it; else in ./demo.")] = None,
    make_only: Annotated[bool, typer.Option("--make-only", help="Only make it, and run nothing on it.")] = False,
    with_by_hand: Annotated[
        bool, typer.Option("--with-by-hand", help="Also make damage that only a person, or Cinder's API, may repair.")
    ] = False,
) -> int:
    """Make a small damaged cloud and go through it all.

    Makes it, checks it, plans, repairs, and checks again.  Needs no server, no root, no network.
    """
    where = directory or Path("demo")
    path = demo.make(where, by_hand=with_by_hand)
    own = f"cloudfsck -c {path}"
    if not make_only:
        status = CLEAN
        for said, arguments in (
            ("A damaged cloud is made.  What is wrong with it?", ["check"]),
            ("What would be done about it?", ["plan", "-o", str(where / "plan.json")]),
            ("Do it: one reversible step for each.", ["repair", str(where / "plan.json"), "--yes"]),
            ("And again: is it clean?", ["check"]),
        ):
            out.rule(said, align="left")
            out.print(f"$ {own} {' '.join(arguments)}\n", style="bold", markup=False)
            status = app(["-c", str(path), *arguments], standalone_mode=False)
            out.print()
        if status != CLEAN and not with_by_hand:
            return int(status)
    out.print("Worth trying next:", style="bold")
    for line in (f"{own} {'check' if make_only else 'undo'}", f"{own} explain libvirt-server-runs-twice",
                 f"{own} show server {demo.SHOWN}",
                 f"{own} sql 'SELECT host, state, count(*) FROM libvirt_domains GROUP BY ALL'"):  # fmt: skip
        out.print(f"  {line}", markup=False)
    return CLEAN
