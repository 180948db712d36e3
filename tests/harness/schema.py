"""Brings a database to the current schema, as `jobqd migrate up` does, but without needing jobqd."""

import pathlib

import psycopg

ROOT = pathlib.Path(__file__).resolve().parents[2]
MIGRATIONS = ROOT / "migrations"
VERSIONS = ROOT / "jobqd" / "sql" / "migrate_table.sql"


def migrate(database, schema="jobq", **connect):
    with database.connect(autocommit=False, **connect) as conn:
        conn.execute(f'CREATE SCHEMA "{schema}"')
        conn.execute(VERSIONS.read_text().replace("@schema@", f'"{schema}"'))
        for file in sorted(MIGRATIONS.glob("*.up.sql")):
            text = file.read_text().replace("@schema@", f'"{schema}"').replace("@channel@", schema)
            # The simple protocol, which takes several statements.
            result = conn.pgconn.exec_(text.encode())
            if result.status not in (psycopg.pq.ExecStatus.COMMAND_OK, psycopg.pq.ExecStatus.TUPLES_OK):
                raise RuntimeError(f"{file.name}: {result.error_message.decode()}")
            number, name = file.name.removesuffix(".up.sql").split("_", 1)
            conn.execute(f'INSERT INTO "{schema}".schema_version (version, name) VALUES (%s, %s)', (int(number), name))
