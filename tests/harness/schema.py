"""Brings a database to the current schema."""

import pathlib

import psycopg

MIGRATIONS = pathlib.Path(__file__).resolve().parents[2] / "migrations"


def migrate(database, schema="jobq", **connect):
    with database.connect(autocommit=False, **connect) as conn:
        for file in sorted(MIGRATIONS.glob("*.up.sql")):
            text = file.read_text().replace("@schema@", f'"{schema}"').replace("@channel@", schema)
            # The simple protocol, which takes several statements; psycopg begins the transaction itself.
            conn.execute("SELECT 1")
            result = conn.pgconn.exec_(text.encode())
            if result.status not in (psycopg.pq.ExecStatus.COMMAND_OK, psycopg.pq.ExecStatus.TUPLES_OK):
                raise RuntimeError(f"{file.name}: {result.error_message.decode()}")
