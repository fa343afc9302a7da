"""Cinder counts more or less of what a project has than there is.

Why it matters
    What is counted too high keeps the project from making what it pays for: "VolumeLimitExceeded", with nothing there.
    What is counted too low lets it have more than its quota, for all others to lack.
How it comes about
    Cinder keeps its count in rows of its own and changes them before and after the thing itself.  A service was killed in
    between, a row was repaired by hand, or a database was restored (cinder/db/api.py: quota_reserve, reservation_commit).
What the repair does
    In one transaction it writes what there is, and that nothing is being made, where the row says what it said and no
    reservation stands: as `cinder-manage quota sync` does, for this one row.  `undo` writes the old numbers back.
When not to repair
    While volumes, snapshots, backups or groups of the project are being made or deleted; it is not found then.  Where
    the project has snapshots, only cinder.conf says whether they count as gigabytes (no_snapshot_gb_quota): that is
    yours.  Not judged is a resource of a type that is gone, and a project with a volume or snapshot of which Cinder has
    not noted whether it counts (use_quota, since Xena).
"""

from collections.abc import Iterable

from cloudfsck.acts import quota
from cloudfsck.model import Check, Row, Scenario


def _repair(row: Row) -> Iterable[quota.Count]:
    yield quota.Count.of(row)


def _commands(row: Row) -> Iterable[str]:
    yield f"where Cinder runs: {quota.Count.of(row).command}"


CHECK = Check(
    text=__doc__,
    accused=("cinder_quota_usages",),
    query="""
        WITH judged AS (
            SELECT u.id, u.project_id AS project, u.resource, u.in_use, u.reserved, u.updated_at, u.created_at,
                   coalesce(sum(c.amount), 0)::BIGINT AS counted,
                   coalesce(sum(c.amount) FILTER (NOT c.snapshot), 0)::BIGINT AS without_snapshots
              FROM cinder_quota_usages u
              JOIN cinder_resources r ON r.resource = u.resource
              LEFT JOIN cinder_counted c ON c.project = u.project_id AND c.base = r.base
                                        AND (r.type IS NULL OR c.type = r.type)
             GROUP BY ALL)
        SELECT j.project || ' ' || j.resource || ' ' || j.id AS key, NULL AS server, j.*,
               [j.project] AS also, [] AS hosts, [] AS cells,
               coalesce(j.updated_at, j.created_at) AS since, 'cinder:cinder' AS clock,
               CASE WHEN j.counted <> j.without_snapshots
                    THEN 'whether snapshots count as gigabytes only cinder.conf says: no_snapshot_gb_quota' END AS by_hand,
               NULL AS rung, NULL AS rung_since
          FROM judged j
         WHERE (j.in_use NOT IN (j.counted, j.without_snapshots) OR j.reserved <> 0)
           AND NOT EXISTS (SELECT 1 FROM cinder_uncounted_projects b WHERE b.project = j.project)
    """,
    repair=_repair,
    commands=_commands,
    risk="ask",
    scenarios=(
        Scenario(
            "too many, too few, none at all, below nothing; reserved by nobody; of one type; snapshots in gigabytes",
            """
            hosts cell1                   c1
            cinder_volume_types           id   name
                                          t-1  fast
                                          t-2  slow
            cinder_volumes                id   project_id  volume_type_id  size  status     use_quota  migration_status  deleted
                                          v-1  e-1         t-1             10    available  true       -                 false
                                          v-2  e-1         t-2             20    in-use     true       success           false
                                          v-3  e-1         t-1             40    available  false      -                 false
                                          v-4  e-1         t-1             40    available  true       -                 true
                                          v-7  e-1         t-1             40    deleting   -          -                 true
                                          v-5  e-2         -               5     attaching  true       -                 false
                                          v-6  e-2         -               5     detaching  false      target:v-5        false
            cinder_snapshots              id   volume_id  project_id  volume_size  status     use_quota
                                          x-1  v-1        e-1         10           available  true
                                          x-2  v-2        e-1         20           available  false
            cinder_backups                id   volume_id  project_id  size  status
                                          y-1  v-1        e-1         10    available
            cinder_groups                 id   project_id  status
                                          g-1  e-1         available
            cinder_quota_usages           id  project_id  resource          in_use  reserved  created_at  updated_at
                                          1   e-1         volumes           3       0         -90d        -3d
                                          2   e-1         volumes_fast      0       0         -90d        -
                                          3   e-1         volumes_slow      1       2         -90d        -3d
                                          4   e-1         gigabytes         99      0         -90d        -3d
                                          5   e-1         gigabytes_fast    9       0         -90d        -3d
                                          6   e-1         snapshots         2       0         -90d        -3d
                                          7   e-1         snapshots_slow    1       0         -90d        -3d
                                          8   e-1         backups           -1      0         -90d        -3d
                                          9   e-1         backup_gigabytes  20      0         -90d        -3d
                                          10  e-1         groups            2       0         -90d        -3d
                                          11  e-2         volumes           2       0         -90d        -3d
                                          12  e-2         gigabytes         10      0         -90d        -3d
            """,
            finds=(
                "e-1 volumes 1",
                "e-1 volumes_fast 2",
                "e-1 volumes_slow 3",
                "e-1 gigabytes 4",
                "e-1 gigabytes_fast 5",
                "e-1 snapshots 6",
                "e-1 snapshots_slow 7",
                "e-1 backups 8",
                "e-1 backup_gigabytes 9",
                "e-1 groups 10",
                "e-2 volumes 11",
                "e-2 gigabytes 12",
            ),
            plans="""
            count backup_gigabytes of project e-1 in Cinder: 10 in use and 0 reserved, not 20 and 0
            count backups of project e-1 in Cinder: 1 in use and 0 reserved, not -1 and 0
            count groups of project e-1 in Cinder: 1 in use and 0 reserved, not 2 and 0
            count snapshots of project e-1 in Cinder: 1 in use and 0 reserved, not 2 and 0
            count snapshots_slow of project e-1 in Cinder: 0 in use and 0 reserved, not 1 and 0
            count volumes of project e-1 in Cinder: 2 in use and 0 reserved, not 3 and 0
            count volumes_fast of project e-1 in Cinder: 1 in use and 0 reserved, not 0 and 0
            count volumes_slow of project e-1 in Cinder: 1 in use and 0 reserved, not 1 and 2
            count gigabytes of project e-2 in Cinder: 5 in use and 0 reserved, not 10 and 0
            count volumes of project e-2 in Cinder: 1 in use and 0 reserved, not 2 and 0
            """,
        ),
        Scenario(
            "it is right, with snapshots in gigabytes or without; in flight; reserved; a type that is gone; not noted yet",
            """
            hosts cell1          c1
            cinder_volumes       id    project_id  size  status      use_quota  deleted
                                 v-11  e-11        10    available   true       false
                                 v-12  e-12        10    creating    true       false
                                 v-13  e-13        10    available   true       false
                                 v-17  e-17        10    available   true       false
                                 v-18  e-18        10    available   true       false
                                 v-19  e-19        10    available   -          false
            cinder_snapshots     id    volume_id  project_id  volume_size  status     use_quota
                                 x-11  v-11       e-11        10           available  true
                                 x-14  v-11       e-14        10           deleting   true
                                 x-20  v-11       e-20        10           available  -
            cinder_backups       id    volume_id  project_id  size  status
                                 y-15  v-11       e-15        10    restoring
            cinder_groups        id    project_id  status
                                 g-16  e-16        creating
            cinder_quota_usages  id   project_id  resource         in_use  reserved  created_at  updated_at
                                 101  e-11        volumes          1       0         -90d        -3d
                                 102  e-11        gigabytes        20      0         -90d        -3d
                                 103  e-12        volumes          3       0         -90d        -3d
                                 104  e-13        volumes          0       1         -90d        -3d
                                 105  e-14        volumes          3       0         -90d        -3d
                                 106  e-15        volumes          3       0         -90d        -3d
                                 107  e-16        volumes          3       0         -90d        -3d
                                 108  e-17        volumes_gone     3       0         -90d        -3d
                                 109  e-18        volumes          1       0         -90d        -3d
                                 110  e-19        volumes          3       0         -90d        -3d
                                 111  e-20        volumes          3       0         -90d        -3d
            cinder_reservations  id  usage_id  project_id  delta
                                 1   104       e-13        1
            """,
        ),
        Scenario(
            "gigabytes of volumes alone are right where snapshots do not count",
            """
            hosts cell1          c1
            cinder_volumes       id    project_id  size  status     use_quota  deleted
                                 v-21  e-21        10    available  true       false
            cinder_snapshots     id    volume_id  project_id  volume_size  status     use_quota
                                 x-21  v-21       e-21        10           available  true
            cinder_quota_usages  id   project_id  resource   in_use  reserved  created_at  updated_at
                                 201  e-21        gigabytes  10      0         -90d        -3d
                                 202  e-21        volumes    1       0         -90d        -3d
            """,
        ),
    ),
)
