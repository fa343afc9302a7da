"""Nova's API database and its cells as pieces of a snapshot: what it cannot read is a gap with its reason, never less.

It takes the places of the cells from Nova's own connection strings, and nothing else of them: they hold passwords.
"""

from __future__ import annotations

import contextlib
import urllib.parse
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from cloudfsck import tables
from cloudfsck.model import Piece, Scope
from cloudfsck.sources import service
from cloudfsck.sources.database import Database, Login, Unreadable, place, quoted

#: nova_cell_mappings as `cells` needs it; never part of a snapshot.
_CONNECTIONS = tables.Table(
    "cell_mappings",
    "api",
    "",
    tuple(tables.Column(name, "VARCHAR", "", False) for name in ("uuid", "name", "database_connection")),
    origin="cell_mappings",
)

#: Computed here, not read.
_CELL = "cell"


def cells(api: Database, login: Login, template: str | None = None) -> list[Database]:
    """The cells' databases.  `template` is [database] connection of Nova's nova.conf, for mappings that are templates.

    A mapping that leads nowhere is a database whose reading says so.  Raises Unreadable if the mappings cannot be read.
    """
    with api.open() as reading:
        rows = reading.rows(_CONNECTIONS).to_pylist()
    if not rows:
        raise Unreadable(f"{api}: table cell_mappings is empty, and every Nova has a cell")
    names = _names(rows)
    found = []
    for row in rows:
        name = names[row["uuid"]]
        try:
            found.append(Database(name, _filled_in(str(row["database_connection"] or ""), api, template), login))
        except Unreadable as error:
            found.append(Database(name, "", login, flaw=str(error)))
    return sorted(found, key=lambda database: database.name)


def _names(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """What we call each cell: its name, or its UUID where the name is missing or not unique."""
    rows = list(rows)
    count = Counter(row["name"] for row in rows)
    # A cell may even bear another's UUID as its name.
    uuids = {row["uuid"] for row in rows}
    return {
        row["uuid"]: row["name"]
        if row["name"] and count[row["name"]] == 1 and row["name"] not in uuids
        else row["uuid"]
        for row in rows
    }


def _filled_in(url: str, api: Database, template: str | None) -> str:
    """A mapping's URL as Nova fills it in (nova/objects/cell_mapping.py, _format_url), reduced to its place."""
    given = template or api.url
    try:
        values = _values(given)
    except ValueError:
        values = {}
    if template is None:
        if "{path}" in url:
            # The API database's own name would pass for the cell's.
            raise Unreadable(
                "its mapping is a template with {path}: give [database] connection of Nova's nova.conf as template"
            )
        values.setdefault("query", "")
    # If that fails, Nova goes on with the URL as it stands, and so do we: a brace in a password makes no template.
    with contextlib.suppress(KeyError, IndexError, ValueError, AttributeError):
        url = url.format(**values)
    return place(url)


def _values(url: str) -> dict[str, Any]:
    parsed = urllib.parse.urlparse(url)
    values: dict[str, Any] = {
        "username": parsed.username,
        "password": parsed.password,
        "hostname": parsed.hostname,
        "port": parsed.port,
        "scheme": parsed.scheme,
        "query": parsed.query,
        "fragment": parsed.fragment,
        "path": parsed.path.lstrip("/"),
    }
    if "," in parsed.netloc:
        # Several servers in one URL, as oslo.messaging has it: username1, hostname1, …
        for nth, each in enumerate(parsed.netloc.split(","), start=1):
            account, _, where = each.rpartition("@")
            user, _, password = account.partition(":")
            host, port = _host_and_port(where)
            values |= {f"username{nth}": user, f"password{nth}": password, f"hostname{nth}": host, f"port{nth}": port}
    return values


def _host_and_port(text: str) -> tuple[str, int | None]:
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return host, int(rest[1:]) if rest.startswith(":") else None
    host, colon, port = text.partition(":")
    return (host, int(port)) if colon and ":" not in port else (text, None)


# -- reading


def read_api(
    api: Database, cells: Sequence[Database], scope: Scope, only: frozenset[str] | None = None
) -> Iterator[Piece]:
    """A piece for every table of Nova's API database, or for `only` these.  It never raises."""
    # A server leaves build_requests when it appears in a cell: this first, the cells later.
    wanted = sorted(service.tables_of("api", only), key=lambda table: table.name != "nova_build_requests")
    for piece in service.read(api, tables.API, list(map(_read_part, wanted)), scope):
        yield _named(piece, cells) if piece.table == "nova_cell_mappings" else piece


def read_cell(cell: Database, scope: Scope, only: frozenset[str] | None = None) -> Iterator[Piece]:
    """A piece for every table of a cell, or for `only` these.  It never raises."""
    return service.read(cell, cell.name, service.tables_of("cell", only), scope)


def _read_part(table: tables.Table) -> tables.Table:
    """The table without what is computed here."""
    if table.name != "nova_cell_mappings":
        return table
    columns = tuple(column for column in table.columns if column.name != _CELL)
    return replace(table, columns=columns)


def _named(piece: Piece, cells: Sequence[Database]) -> Piece:
    """The cell mappings with the names under which the cells are read."""
    if piece.rows is None:
        return piece
    try:
        rows = piece.rows if isinstance(piece.rows, pa.Table) else piece.rows.read_all()
        mappings = rows.select(["uuid", "name"]).to_pylist()
        ours, names = {cell.name for cell in cells}, _names(mappings)
        # The configuration may call a cell by its UUID as well.
        named = [row["uuid"] if row["uuid"] in ours else names[row["uuid"]] for row in mappings]
        if strangers := sorted(set(named) - ours):
            raise Unreadable(f"Nova has cells that are not read: {', '.join(strangers)}")
        rows = rows.append_column(_CELL, pa.array(named, pa.string()))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a gap
        why = str(error) if isinstance(error, Unreadable) else f"{type(error).__name__}: {error}"
        return Piece(piece.table, piece.part, None, why, piece.clock, piece.started, service.now(), piece.keys)
    return Piece(piece.table, piece.part, rows, None, piece.clock, piece.started, service.now(), piece.keys)


# -- rights


def grants(
    api: Database,
    cells: Sequence[Database],
    others: Sequence[tuple[Database, Mapping[str, Sequence[str]]]] = (),
) -> str:
    """The SQL that makes the read-only account: what an administrator runs, and again after an upgrade of Nova.

    It gives SELECT on the columns that are read, column by column: secrets (a server's keys, injected files, CHAP
    passwords of volumes) stay out of reach, but for those in connection_info, which are dropped where it is read.
    Which of the columns a release has, the SQL finds out where it runs; and with MySQL also which cells are mapped to
    databases on the API database's server.  `others` are other services' databases, each with the columns that are read
    of its tables.  The cells come last: those that are not known yet need the same.
    """
    text: list[str] = []
    begun: set[str] = set()
    wanted_of = [(api, _columns("api")), *others, *((cell, _columns("cell")) for cell in cells)]
    for database, wanted in wanted_of:
        if database.flaw:
            text += [f"-- {database.name}: {database.flaw}", ""]
            continue
        url = sa.make_url(database.url)
        server = f"{url.host}:{url.port}"
        kind = url.get_backend_name()
        if kind == "sqlite":
            text += [f"-- {database}: a file; let the user that runs cloudfsck read it", ""]
            continue
        write = _grants_mysql if kind == "mysql" else _grants_postgresql
        text += write(database, str(url.database), server, wanted, first=server not in begun)
        begun.add(server)
        if kind == "mysql" and database is api:
            text += _grants_mapped_cells(database, str(url.database), server)
    return "\n".join(text)


def _columns(per: tables.Per) -> dict[str, list[str]]:
    """The columns that are read, by the table's name in the database."""
    found = service.columns(map(_read_part, service.tables_of(per)))
    if per == "api":
        found["cell_mappings"] = [*found["cell_mappings"], "database_connection"]
    return found


_ABOUT_CONNECTIONS = (
    "-- cell_mappings.database_connection holds passwords; cloudfsck takes only host, port and database from it.\n"
    "-- To keep it out of reach as well, leave it out below and list the cells in the configuration ([nova] cells)."
)


def _grants_mysql(
    database: Database, name: str, server: str, wanted: Mapping[str, Sequence[str]], first: bool
) -> list[str]:
    account = f"{_literal(database.login.user or '')}@'%'"
    text = []
    if first:
        text += [
            f"-- on {server}, as an administrator; put the password of [read.database] in place of PASSWORD",
            f"CREATE USER IF NOT EXISTS {account} IDENTIFIED BY 'PASSWORD';",
            "SET SESSION group_concat_max_len = 65536;",
            "",
        ]
    # In a grant on a database, _ and % stand for any signs.
    pattern = quoted(database, name.replace("\\", "\\\\").replace("_", "\\_").replace("%", "\\%"))
    text += [
        f"-- {database}",
        "-- SHOW VIEW shows how tables are made, and no row of them: so what a release does not have can be told from",
        "-- what is not granted.",
        f"GRANT SHOW VIEW ON {pattern}.* TO {account};",
    ]
    if "cell_mappings" in wanted:
        text.append(_ABOUT_CONNECTIONS)
    for table, columns in wanted.items():
        on = f"{quoted(database, name)}.{quoted(database, table)}"
        grant = (
            f"CONCAT('GRANT SELECT (', GROUP_CONCAT(CONCAT('`', column_name, '`')), ') ON {on} TO {_inner(account)}')"
        )
        text += [
            f"SET @grant = (SELECT {grant} FROM information_schema.columns",
            f"    WHERE table_schema = {_literal(name)} AND table_name = {_literal(table)}",
            f"    AND column_name IN ({', '.join(map(_literal, columns))}));",
            "SET @grant = COALESCE(@grant, 'DO 0'); PREPARE cloudfsck FROM @grant; EXECUTE cloudfsck;",
        ]
    return [*text, ""]


def _grants_mapped_cells(api: Database, name: str, server: str) -> list[str]:
    """The same for every cell on this server, whose database's name is the last of a mapping's URL, template or not."""
    account = _inner(f"{_literal(api.login.user or '')}@'%'")
    procedure = f"{quoted(api, name)}.`cloudfsck_cells`"
    columns = "\n            OR ".join(
        f"c.table_name = {_literal(table)} AND c.column_name IN ({', '.join(map(_literal, columns))})"
        for table, columns in _columns("cell").items()
    )
    return f"""\
-- every cell that is mapped to a database on {server}; run it again when a cell was added
DROP PROCEDURE IF EXISTS {procedure};
DELIMITER //
CREATE PROCEDURE {procedure}()
BEGIN
    DECLARE done BOOLEAN DEFAULT FALSE;
    DECLARE statement TEXT;
    DECLARE statements CURSOR FOR
        SELECT CONCAT('GRANT SHOW VIEW ON `', REPLACE(s.schema_name, '_', '\\\\_'), '`.* TO {account}')
          FROM information_schema.schemata s
         WHERE s.schema_name IN (SELECT SUBSTRING_INDEX(SUBSTRING_INDEX(database_connection, '?', 1), '/', -1)
                                   FROM {quoted(api, name)}.`cell_mappings`)
        UNION ALL
        SELECT CONCAT('GRANT SELECT (', GROUP_CONCAT(CONCAT('`', c.column_name, '`')), ') ON `', c.table_schema, '`.`',
                      c.table_name, '` TO {account}')
          FROM information_schema.columns c
         WHERE c.table_schema IN (SELECT SUBSTRING_INDEX(SUBSTRING_INDEX(database_connection, '?', 1), '/', -1)
                                    FROM {quoted(api, name)}.`cell_mappings`)
           AND ({columns})
         GROUP BY c.table_schema, c.table_name;
    DECLARE CONTINUE HANDLER FOR NOT FOUND SET done = TRUE;
    OPEN statements;
    FETCH statements INTO statement;
    WHILE NOT done DO
        SET @grant = statement;
        PREPARE cloudfsck FROM @grant;
        EXECUTE cloudfsck;
        FETCH statements INTO statement;
    END WHILE;
END//
DELIMITER ;
CALL {procedure}();
DROP PROCEDURE {procedure};
""".split("\n")


def _grants_postgresql(
    database: Database, name: str, server: str, wanted: Mapping[str, Sequence[str]], first: bool
) -> list[str]:
    user = quoted(database, database.login.user or "")
    text = []
    if first:
        text += [
            f"-- on {server}, as an administrator (psql); put the password of [read.database] in place of PASSWORD",
            "DO $$ BEGIN",
            f"    CREATE ROLE {user} LOGIN PASSWORD 'PASSWORD';",
            "EXCEPTION WHEN duplicate_object THEN NULL; END $$;",
            f"ALTER ROLE {user} SET default_transaction_read_only = on;",
            "",
        ]
    text += [f"-- {database}", f"\\connect {quoted(database, name)}", f"GRANT USAGE ON SCHEMA public TO {user};"]
    if "cell_mappings" in wanted:
        text.append(_ABOUT_CONNECTIONS)
    pairs = [
        f"        ({_literal(table)}, ARRAY[{', '.join(map(_literal, columns))}])" for table, columns in wanted.items()
    ]
    text += [
        "DO $$ DECLARE wanted record; BEGIN",
        "    FOR wanted IN SELECT relname, string_agg(quote_ident(attname), ', ') AS names FROM (VALUES",
        ",\n".join(pairs),
        "    ) AS t(relname, columns) JOIN pg_class USING (relname) JOIN pg_attribute ON attrelid = pg_class.oid",
        "    WHERE relnamespace = 'public'::regnamespace AND attname = ANY (columns) AND NOT attisdropped",
        "    GROUP BY relname",
        "    LOOP",
        f"        EXECUTE format('GRANT SELECT (%s) ON public.%I TO {_inner(user)}', wanted.names, wanted.relname);",
        "    END LOOP;",
        "END $$;",
    ]
    return [*text, ""]


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def _inner(text: str) -> str:
    """The text as part of a literal."""
    return text.replace("'", "''")
