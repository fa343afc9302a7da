"""A name of a server leads to an address that nobody has.

Why it matters
    Whoever asks for that server is sent where nobody is, or, when the address is given out again, to somebody else's
    server: with passwords and all.
How it comes about
    What keeps the names of a cloud's own zones was down when the server was deleted, or its port was given another
    address; a name of several addresses keeps one that is gone.
What the repair does
    It takes the record away by a dynamic update (RFC 2136) whose prerequisite is that the name has just the records that
    were read; what else it says stays.  `undo` puts the record back with its TTL.
    A record in the DNS has no date: it counts from when it was first seen to lead to that address.
When not to repair
    Where something else than Neutron has given that address to somebody.  Only names and addresses that [dns.zone] says
    are the cloud's are judged, and where no server had such a name it is for you to say whose it is.
"""

from collections.abc import Iterable

from cloudfsck.acts import name
from cloudfsck.model import Check, Row, Scenario


def _repair(row: Row) -> Iterable[name.Remove]:
    yield name.Remove.of(row)


def _commands(row: Row) -> Iterable[str]:
    for address in row["addresses"]:
        yield f"as an administrator: openstack port list --fixed-ip ip-address={address}"
    for act in _repair(row):
        yield f"with a key that may change the zone, if nobody has the address: {act.command}"


CHECK = Check(
    text=__doc__,
    accused=("dns_records",),
    query="""
        WITH nobodys AS (
            SELECT n.copy, n.name, n.type, n.data, n.hostname, n.address, o.servers, o.live, o.last, o.deleted_at,
                   list_reduce(list_transform(string_split(regexp_extract(n.address, '([0-9]+\\.){3}[0-9]+$'), '.'),
                                              lambda byte: TRY_CAST(byte AS BIGINT)),
                               lambda high, low: high * 256 + low) AS number
              FROM server_records n
              LEFT JOIN hostname_owners o ON o.hostname = n.hostname
             WHERE NOT EXISTS (SELECT 1 FROM taken_addresses t WHERE t.address = n.address)),
        dead AS (
            SELECT d.copy, d.name, d.type, list(d.data ORDER BY d.data) AS dead,
                   list(d.address ORDER BY d.data) AS addresses, list(d.hostname ORDER BY d.data) AS hostnames,
                   flatten(list(d.servers ORDER BY d.servers)) AS servers,
                   min(d.hostname) FILTER (d.servers IS NULL) AS strange,
                   bool_or(d.live) AS live, arg_max(d.last, d.deleted_at) AS last, max(d.deleted_at) AS deleted_at,
                   min(f.cidr) AS network, min(f.port) AS holder
              FROM nobodys d
              LEFT JOIN address_ranges f ON d.number BETWEEN f.first AND f.last AND f.port IS NOT NULL
             GROUP BY d.copy, d.name, d.type)
        SELECT d.name || ' ' || array_to_string(d.dead, ' ') AS key, CASE WHEN NOT d.live THEN d.last END AS server,
               d.name, d.type, d.deleted_at, r.ttl, d.dead,
               list_filter(r.records, lambda one: NOT list_contains(d.dead, one)) AS kept, d.addresses, d.hostnames, d.copy,
               list_concat([d.copy, d.name], r.addresses, list_distinct(d.servers)) AS also,
               [] AS hosts, NULL AS cells, NULL AS since, NULL AS clock,
               CASE WHEN d.strange IS NOT NULL THEN 'no server that Nova knows of had the name ' || d.strange
                    WHEN d.network IS NOT NULL
                    THEN 'port ' || d.holder || ' may use every address of ' || d.network END AS by_hand,
               NULL AS rung, NULL AS rung_since
          FROM dead d
          JOIN rrsets r ON r.copy = d.copy AND r.name = d.name AND r.type = d.type
    """,
    repair=_repair,
    commands=_commands,
    risk="ask",
    scenarios=(
        Scenario(
            "of a deleted server, its PTR; of one that lives, beside a good one; of nobody; of a port that may be anybody",
            """
            hosts cell1            c1
            dns_zones              copy                  zone                server  serial  own   first
                                   cloud.test.@ns        cloud.test.         ns      7       true  true
                                   cloud.test.@ns2       cloud.test.         ns2     7       true  false
                                   10.in-addr.arpa.@ns   10.in-addr.arpa.    ns      7       true  true
            dns_records            copy                  zone                name                   type  ttl  data              address    hostname  ours
                                   cloud.test.@ns        cloud.test.         dead.cloud.test.       A     300  10.0.0.1          10.0.0.1   dead      true
                                   10.in-addr.arpa.@ns   10.in-addr.arpa.    1.0.0.10.in-addr.arpa. PTR   300  dead.cloud.test.  10.0.0.1   dead      true
                                   cloud.test.@ns        cloud.test.         live.cloud.test.       A     300  10.0.0.2          10.0.0.2   live      true
                                   cloud.test.@ns        cloud.test.         live.cloud.test.       A     300  10.0.0.3          10.0.0.3   live      true
                                   cloud.test.@ns2       cloud.test.         dead.cloud.test.       A     300  10.0.0.9          10.0.0.9   dead      true
                                   cloud.test.@ns        cloud.test.         dead.cloud.test.       AAAA  60   fd00::2           fd00::2    dead      true
                                   cloud.test.@ns        cloud.test.         strange.cloud.test.    A     300  10.0.0.4          10.0.0.4   strange   true
                                   cloud.test.@ns        cloud.test.         old.cloud.test.        A     300  10.9.0.5          10.9.0.5   old       true
                                   cloud.test.@ns        cloud.test.         six.cloud.test.        AAAA  300  fd00::6           fd00::6    six       true
            nova_instances         uuid  cell   hostname  vm_state  deleted  deleted_at
                                   s-1   cell1  dead      deleted   1        -9d
                                   s-2   cell1  Live.x    active    0        -
                                   s-5   cell1  old       deleted   5        -9d
            nova_shadow_instances  uuid  cell   hostname  deleted  deleted_at
                                   s-6   cell1  six       6        -99d
            neutron_ip_allocations  port_id  ip_address
                                   p-2       10.0.0.2
                                   p-2       fd00::2
            neutron_allowed_address_pairs  port_id  ip_address
                                   p-2       10.9.0.0/24
            """,
            finds=(
                "dead.cloud.test. 10.0.0.1",
                "1.0.0.10.in-addr.arpa. dead.cloud.test.",
                "live.cloud.test. 10.0.0.3",
                "strange.cloud.test. 10.0.0.4",
                "old.cloud.test. 10.9.0.5",
                "six.cloud.test. fd00::6",
            ),
            plans="""
            delete 1.0.0.10.in-addr.arpa. PTR dead.cloud.test. from the DNS
            delete dead.cloud.test. A 10.0.0.1 from the DNS
            delete live.cloud.test. A 10.0.0.3 from the DNS; 10.0.0.2 stays
            delete six.cloud.test. AAAA fd00::6 from the DNS
            """,
        ),
        Scenario(
            "the address is a port's, a floating IP's, one that a port may use; no name of a server's; not the cloud's",
            """
            hosts cell1            c1
            dns_zones              copy                  zone                server  serial  own    first
                                   cloud.test.@ns        cloud.test.         ns      7       true   true
                                   cloud.test.@ns2       cloud.test.         ns2     7       true   false
                                   other.test.@ns        other.test.         ns      7       false  true
            dns_records            copy                  zone                name                   type  ttl  data        address    hostname  ours
                                   cloud.test.@ns        cloud.test.         one.cloud.test.        A     300  10.0.0.1    10.0.0.1   one       true
                                   cloud.test.@ns        cloud.test.         two.cloud.test.        A     300  10.0.0.2    10.0.0.2   two       true
                                   cloud.test.@ns        cloud.test.         three.cloud.test.      A     300  10.0.0.3    10.0.0.3   three     true
                                   cloud.test.@ns        cloud.test.         four.cloud.test.       A     300  10.0.0.4    10.0.0.4   -         true
                                   cloud.test.@ns        cloud.test.         five.cloud.test.       A     300  10.0.0.5    10.0.0.5   five      false
                                   cloud.test.@ns        cloud.test.         six.cloud.test.        TXT   300  10.0.0.6    10.0.0.6   six       true
                                   cloud.test.@ns2       cloud.test.         seven.cloud.test.      A     300  10.0.0.7    10.0.0.7   seven     true
                                   other.test.@ns        other.test.         eight.other.test.      A     300  10.0.0.8    10.0.0.8   eight     true
            nova_instances         uuid  cell   hostname  vm_state  deleted  deleted_at
                                   s-1   cell1  one       deleted   1        -9d
                                   s-2   cell1  two       deleted   2        -9d
                                   s-3   cell1  three     deleted   3        -9d
                                   s-4   cell1  four      deleted   4        -9d
                                   s-5   cell1  five      deleted   5        -9d
                                   s-6   cell1  six       deleted   6        -9d
                                   s-7   cell1  seven     deleted   7        -9d
                                   s-8   cell1  eight     deleted   8        -9d
            neutron_ip_allocations  port_id  ip_address
                                   p-1       10.0.0.1
            neutron_floating_ips   id   floating_ip_address
                                   f-2  10.0.0.2
            neutron_allowed_address_pairs  port_id  ip_address
                                   p-1       10.0.0.3
            """,
        ),
    ),
)
