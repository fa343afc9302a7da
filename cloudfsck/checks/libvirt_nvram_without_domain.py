"""A file with a guest's UEFI variables is left, and no domain of the host has it.

Why it matters
    Boot entries and enrolled keys of a guest that is gone stay on the disk.  A new server that gets the same domain
    name, as after a database was restored, starts with them.
How it comes about
    libvirt makes the file, named after the domain, and removes it when the domain is undefined with --nvram, as Nova
    does.  A hypervisor that died in the midst of that, or a domain that was undefined by hand, leaves it.
What the repair does
    There is none.  A person moves it aside, and removes it when nobody misses it.
When not to repair
    While domains of that host are undefined for a while, as when libvirt is moved or repaired.
"""

from collections.abc import Iterable

from cloudfsck.model import Check, Row, Scenario


def _commands(row: Row) -> Iterable[str]:
    yield f"on {row['host']}: virsh dominfo {row['name'].partition('_')[0]}"
    yield f"on {row['host']}: mv -n {row['path']} {row['path']}.aside"


CHECK = Check(
    text=__doc__,
    accused=("nvram_files",),
    query=r"""
        SELECT n.host || '/' || n.name AS key, NULL AS server, n.host, n.name, n.path, n.bytes,
               'nothing: nova-compute removes it only with its domain' AS nova_will,
               [n.host] AS hosts, NULL AS cells, n.changed AS since, 'host:' || n.host AS clock,
               'no program tells whose it was' AS by_hand, NULL AS rung, NULL AS rung_since
          FROM nvram_files n
         WHERE len(n.used_by) = 0
           AND regexp_full_match(n.name, 'instance-[0-9a-f]{8}_VARS\.(fd|qcow2)')
    """,
    commands=_commands,
    scenarios=(
        Scenario(
            "two of Nova's names without a domain", """
            hosts cell1  c1
            nvram_files  host  name                          path                                                  bytes  changed  used_by
                         c1    instance-0000002a_VARS.fd     /var/lib/libvirt/qemu/nvram/instance-0000002a_VARS.fd     4096   -3h      []
                         c1    instance-0000002b_VARS.qcow2  /var/lib/libvirt/qemu/nvram/instance-0000002b_VARS.qcow2  4096   -3h      []
            """,
            finds=("c1/instance-0000002a_VARS.fd", "c1/instance-0000002b_VARS.qcow2")),
        Scenario(
            "one that a domain has, and names that are none of Nova's", """
            hosts cell1  c1
            nvram_files  host  name                       path                                                   bytes  changed  used_by
                         c1    instance-0000002a_VARS.fd  /var/lib/libvirt/qemu/nvram/instance-0000002a_VARS.fd  4096   -3h      [instance-0000002a]
                         c1    router-vm_VARS.fd          /var/lib/libvirt/qemu/nvram/router-vm_VARS.fd          4096   -3h      []
            """),
    ),
)  # fmt: skip
