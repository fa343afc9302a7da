"""A tiny cloud in memory, so that apply can be tried in every way: a scenario's world that acts really change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cloudfsck import apply, checks, config, plan, proof, scenario
from cloudfsck.model import Act, Scope
from cloudfsck.plan import Plan
from cloudfsck.snapshot import Snapshot
from cloudfsck.state import Lease, State
from cloudfsck.tables import TABLES

CHECKS = checks.load()
COPIED = ("ledger", *(table.name for table in TABLES))

ZOMBIE = """
    hosts cell1      c1 c2
    nova_instances   cell   id  uuid  host  deleted  deleted_at  display_name  project_id
                     cell1  1   s-1   c1    1        -2d         web-1         p-1
                     cell1  2   s-2   c1    0        -           web-2         p-1
                     cell1  3   s-3   c2    3        -2d         db-3          p-2
    nova_instance_mappings  instance_uuid  cell_id
                            s-1            cell1
                            s-2            cell1
                            s-3            cell1
    nova_tags        cell   resource_id  tag
                     cell1  s-3          precious
    libvirt_domains  host  uuid  state    id  persistent  name  xml_sha256
                     c1    s-1   running  7   true        i-1   d1
                     c1    s-2   running  8   true        i-2   d2
                     c2    s-3   running  9   true        i-3   d3
    qemu_processes   host  uuid  pid
                     c1    s-1   100
                     c1    s-2   101
                     c2    s-3   102
"""


class Cloud:
    """`sent` are the acts that reached it; `before_send` may change the world first, or break off."""

    def __init__(self, folder: Path, world: str = ZOMBIE, ladder: Mapping[str, object] | None = None) -> None:
        self.truth = scenario.build(world)
        self.config = config.Config.model_validate({
            "cloud": {"name": "tiny", "state": folder},
            "nova": {"api_database": "sqlite:////nowhere"},
            "hosts": {"transport": "local"},
            "proof": {"settle_factor": 0},
            "ladder": dict(ladder or {}),
        })  # fmt: skip
        self.state = State(self.config.cloud)
        self.sent: list[Act] = []
        self.before_send: Callable[[Act], None] = lambda act: None
        self.after_send: Callable[[Act], None] = lambda act: None

    # -- what apply is handed

    @property
    def means(self) -> apply.Means:
        return apply.Means(self.prove, self.look, self.send)

    def prove(self, scope: Scope) -> tuple[Snapshot, Snapshot]:
        return self.copy(), self.copy()

    def look(self, scope: Scope, part: str) -> Snapshot:
        """The domains and directories of a scope, read from the truth."""
        taken = self.copy()
        for table in TABLES:
            if table.per == "host" and table.key and scope.servers is not None and scope.hosts is not None:
                kept = " OR ".join(f"{column} IN (SELECT unnest($servers))" for column in table.key)
                taken.db.execute(
                    f"DELETE FROM {table.name} WHERE NOT (host IN (SELECT unnest($hosts)) AND coalesce({kept}, FALSE))",
                    {"servers": sorted(scope.servers), "hosts": sorted(scope.hosts)},
                )
        return taken

    def send(self, act: Act, lease: Lease) -> Mapping[str, Any]:
        self.before_send(act)
        self.state.renew(lease)
        self.sent.append(act)
        self._holds(self.truth)
        act.effect(self.truth.db)
        self.after_send(act)
        return {"saved": "/var/lib/cloudfsck/domains/x"}

    def copy(self) -> Snapshot:
        taken = Snapshot.create()
        counts = " UNION ALL ".join(f"SELECT '{name}', count(*) FROM {name}" for name in COPIED)
        for name in [name for name, count in self.truth.db.execute(counts).fetchall() if count]:
            rows = self.truth.db.sql(f"SELECT * FROM {name}").to_arrow_table()
            taken.db.register("rows", rows)
            taken.db.execute(f"INSERT INTO {name} SELECT * FROM rows")
            taken.db.unregister("rows")
        self._holds(taken)
        return taken

    def _holds(self, snapshot: Snapshot) -> None:
        snapshot.db.execute("DELETE FROM holds")
        for hold in self.state.holds():
            snapshot.db.execute(
                "INSERT INTO holds VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [hold.check, hold.kind, hold.host, hold.server, hold.rung, hold.since, hold.run, hold.entry],
            )

    # -- what a user does

    def judge(self) -> proof.Verdict:
        return proof.judge(
            CHECKS, self.copy(), self.state.new_run(), self.state, self.config, self.prove, lambda what, done, of: None
        )

    def plan(self, purge: bool = False) -> Plan:
        verdict = self.judge()
        return plan.make(
            verdict, CHECKS, "tiny", purge=purge, keeps=self.state.keeps(), tags=plan.tags(self.truth),
            frozen=self.state.frozen(), first_reading=self.state.whole_readings() < 2,
        )  # fmt: skip

    def apply(self, made: Plan) -> list[tuple[str, str]]:
        """The acts of a plan, each as (how it ended, on which server)."""
        done = apply.apply(made, CHECKS, self.config, self.state, self.means)
        return [(one.outcome, one.entry.act.server) for one in done]

    def faults(self) -> dict[str, str]:
        """The keys of what is wrong and not held, with their states."""
        return {finding.key: finding.state for finding in self.judge().findings if finding.state != "held"}

    def states(self) -> dict[str, str]:
        return dict(self.truth.db.execute("SELECT uuid, state FROM libvirt_domains ORDER BY uuid").fetchall())
