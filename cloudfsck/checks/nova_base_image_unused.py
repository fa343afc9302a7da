"""A file in Nova's cache of images has not been used for a week.

Why it matters
    The cache lies on the disk of the guests.  On hosts where nova-compute never tidies it up, it grows with every image
    that was ever started there.
How it comes about
    nova-compute keeps a copy of each image in _base, touches every one that a server on the host uses, and removes the
    others (nova/virt/libvirt/imagecache.py: _age_and_verify_cached_images).  It removes none where [image_cache]
    remove_unused_base_images is false, and never one whose name it does not know, such as a download that broke off.
What the repair does
    There is none: nova-compute tidies up itself, or its operator said that it must not.  A person removes what is
    left; Nova fetches an image again when it needs it.
When not to repair
    While somebody rescues a disk that stands on it: nothing here knows of disks outside the instances path.
"""

from collections.abc import Iterable
from datetime import timedelta

from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    yield f"on {row['host']}: grep -A5 '^.image_cache' /etc/nova/nova.conf"
    yield f"on {row['host']}: mv -n {row['path']} {row['path']}.aside"


CHECK = Check(
    text=__doc__,
    accused=("base_images",),
    query="""
        WITH seen AS (
            SELECT b.*, s.alone, s.storage,
                   list(b.host) OVER (PARTITION BY coalesce(o.speaker, b.host), b.name, b.inode, b.changed) AS everywhere
              FROM base_images b
              JOIN instances_storage s ON s.host = b.host
              LEFT JOIN storage_speakers o ON o.host = b.host
              JOIN clocks c ON c.table_name = 'base_images' AND c.part = b.host
             WHERE b.changed < c.now - INTERVAL 1 DAY)  -- until then it may be nova-compute's to remove
        SELECT b.host || '/' || b.name AS key, NULL AS server, b.host, list_sort(b.everywhere) AS seen_on, b.path, b.inode,
               b.bytes,
               'nova-compute removes an image after a day, unless [image_cache] remove_unused_base_images is false'
                   AS nova_will,
               CASE WHEN b.alone THEN [b.host] END AS hosts, NULL AS cells, b.changed AS since,
               'host:' || b.host AS clock, 'nova-compute looks after its cache of images itself' AS by_hand,
               NULL AS rung, NULL AS rung_since
          FROM seen b
         WHERE b.host = list_min(b.everywhere)
           AND NOT EXISTS (SELECT 1 FROM base_images u JOIN instances_storage o ON o.host = u.host
                            WHERE o.storage = b.storage AND u.name = b.name AND len(u.users) + len(u.open_by) > 0)
    """,
    commands=_commands,
    settle=timedelta(days=7),
    scenarios=(
        Scenario(
            "one that nothing stands on, beside one that a disk stands on; in use on another host, which has its own", """
            hosts cell1      c1 c2
            base_images  host  name  path        inode  bytes  changed  users          open_by
                         c1    5f1d  /i/_base/5f1d  31     4096   -8d      []             []
                         c1    77ab  /i/_base/77ab  32     4096   -8d      [/i/s-1/disk]  []
                         c1    9c0c  /i/_base/9c0c  33     4096   -8d      []             [4711]
                         c2    5f1d  /i/_base/5f1d  34     4096   -8d      [/i/s-2/disk]  []
            """,
            finds=("c1/5f1d",)),
        Scenario(
            "on a file system that others share: once, however many hosts see it", """
            instances_paths  host  path  real  inode  fsid  mount      fstype  local
                             c1    /i    /i    24     7c    nas:/nimg  nfs4    false
                             c2    /i    /i    24     7c    nas:/nimg  nfs4    false
                             c3    /i    /i    3      80    nas:/else  nfs4    false
            base_images  host  name  path           inode  bytes  changed  users          open_by
                         c1    5f1d  /i/_base/5f1d  31     4096   -8d      []             []
                         c2    5f1d  /i/_base/5f1d  31     4096   -8d      []             []
                         c1    77ab  /i/_base/77ab  32     4096   -8d      []             []
                         c2    77ab  /i/_base/77ab  32     4096   -8d      []             []
                         c3    77ab  /i/_base/77ab  32     4096   -8d      [/i/s-1/disk]  []
            """,
            finds=("c1/5f1d",)),
        Scenario(
            "all are in use, or were a few hours ago", """
            hosts cell1      c1
            base_images  host  name  path           inode  bytes  changed  users                    open_by
                         c1    77ab  /i/_base/77ab  32     4096   -8d      [/i/s-1_resize/disk]  []
                         c1    5f1d  /i/_base/5f1d  31     4096   -5h      []                       []
            """),
    ),
)  # fmt: skip
