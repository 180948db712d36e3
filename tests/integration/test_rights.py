"""Who may what, and whose the schema is: the table of grants, `jobqd migrate grant`, the daemon's role, and doctor's word on it."""

import json
import re
import subprocess
import uuid
from pathlib import Path

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege

from harness.daemon import clean_environment
from harness.schema import ROOT
from harness.sqlfiles import statements
from harness.waiting import wait_for

ROLES = ["enqueuer", "worker", "viewer", "operator", "daemon"]
GRANTS = ROOT / "jobqd" / "sql" / "parts" / "grants.sql"


def grants():
    """The rows of grants.sql: (sort, [name], [right], [column] or None, [role])."""
    text = re.sub(r"'\s*\n\s*'", "", re.sub("--.*", "", GRANTS.read_text()))
    rows = re.findall(r"\('(\w+)', '([^']*)', '([^']*)', (NULL|'[^']*'), '([^']*)'\)", re.sub(r",\n\s+'", ", '", text))
    assert len(rows) == text.count("('"), "each row is read"
    return [(sort, names.split() or [""], rights.split(), None if columns == "NULL" else columns.strip("'").split(), roles.split())
            for sort, names, rights, columns, roles in rows]


# What the roles and PUBLIC have, a row each: grantee, right, sort, name, column. The owner's rights are left out.
HAVE = r"""
SELECT CASE e.grantee WHEN 0 THEN 'PUBLIC' ELSE e.grantee::regrole::text END, e.privilege_type, o.sort, o.name, o.column
  FROM (SELECT 'schema', '', '', nspowner, coalesce(nspacl, acldefault('n', nspowner)) FROM pg_namespace WHERE nspname = 'jobq'
        UNION ALL
        SELECT CASE relkind WHEN 'S' THEN 'sequence' ELSE 'table' END, relname, '', relowner,
               coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner))
          FROM pg_class WHERE relnamespace = 'jobq'::regnamespace AND relkind IN ('r', 'p', 'v', 'S')
        UNION ALL
        SELECT 'table', c.relname, a.attname, c.relowner, a.attacl
          FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid WHERE c.relnamespace = 'jobq'::regnamespace AND NOT a.attisdropped
        UNION ALL
        SELECT 'function', proname, '', proowner, coalesce(proacl, acldefault('f', proowner))
          FROM pg_proc WHERE pronamespace = 'jobq'::regnamespace) o (sort, name, "column", owner, acl),
       aclexplode(o.acl) e
 WHERE e.grantee <> o.owner
"""


def have(db):
    return {row for row in map(tuple, db.query(HAVE)) if row[0] == "PUBLIC" or row[0].startswith("jobq_")}


def wanted():
    return {(f"jobq_{role}", right, sort, name, column)
            for sort, names, rights, columns, roles in grants()
            for name in names for right in rights for column in (columns or [""]) for role in roles}


def bare(conn_or_db, sql):
    """Runs it as the role that it is connected as; refused by Postgres."""
    with pytest.raises(InsufficientPrivilege):
        conn_or_db.execute(sql)


@pytest.fixture
def role(postgres):
    """Makes roles that may log in, for the time of a test; what they own goes with them."""
    made = []

    def make(*member_of, options="", name=None):
        name = name or f"r_{uuid.uuid4().hex[:8]}"
        with postgres.connect("postgres") as conn:
            conn.execute(f"CREATE ROLE {name} LOGIN {options}")
            for other in member_of:
                conn.execute(f"GRANT {other} TO {name}")
        made.append(name)
        return name

    yield make
    with postgres.connect("postgres") as conn:
        databases = [name for name, in conn.execute("SELECT datname FROM pg_database WHERE datallowconn AND datname <> 'template0'")]
        for database in databases:
            with postgres.connect(database) as inside:
                for name in made:
                    inside.execute(f"DROP OWNED BY {name} CASCADE")
        for name in made:
            conn.execute(f"DROP ROLE {name}")


def uri(db, name):
    return db.uri.replace("//admin@", f"//{name}@")


@pytest.fixture
def doctor(cli):
    """doctor(database's URI) -> {check: [(level, found, remedy)]}"""
    def run(database):
        said = json.loads(cli("doctor", "--json", "--database", database, code=None).stdout)
        found = {}
        for f in said["findings"]:
            found.setdefault(f["check"], []).append((f["level"], f["found"], f["remedy"]))
        return found
    return run


def the(said, name, level, pattern):
    """The remedy of the finding of this check and level that matches."""
    for found_level, found, remedy in said[name]:
        if found_level == level and re.search(pattern, found):
            return remedy
    raise AssertionError(f"{name}: no {level} {pattern!r} in {said[name]}")


@pytest.fixture
def paste(cli):
    """Does what a remedy says: a command, or SQL as the superuser."""
    def run(db, remedy, database=None):
        if remedy.startswith("jobqd "):
            cli(*remedy.split()[1:], "--database", database or db.uri)
        else:
            with db.connect() as conn:
                conn.execute(remedy)
    return run


# ---- the table ----

def test_the_table_of_grants_names_all_that_jobq_makes(db):
    things = set(db.query("SELECT CASE relkind WHEN 'S' THEN 'sequence' ELSE 'table' END, relname::text FROM pg_class "
                          "WHERE relnamespace = 'jobq'::regnamespace AND relkind IN ('r', 'p', 'v', 'S') "
                          "AND relname !~ '^_' UNION ALL "
                          "SELECT 'function', proname::text FROM pg_proc WHERE pronamespace = 'jobq'::regnamespace AND proname !~ '^_'"))
    named = {(sort, name) for sort, names, *_ in grants() for name in names if sort != "schema"}
    assert {(sort, name) for sort, name in named if not name.startswith("_")} == things
    internal = {name for name, in db.query("SELECT proname::text FROM pg_proc WHERE pronamespace = 'jobq'::regnamespace"
                                           " UNION ALL SELECT relname::text FROM pg_class WHERE relnamespace = 'jobq'::regnamespace")}
    assert {name for _, name in named if name.startswith("_")} - internal == set()


def test_the_roles_have_what_the_table_says_after_each_step(empty_db, cli, jobqd_next):
    """PUBLIC has nothing, at no step: each ends with the grants, in its own transaction."""
    for way, step in [("up", 1), ("up", 2), ("down", 1), ("up", 2)]:
        cli("migrate", way, step, db=empty_db, program=jobqd_next)
        assert have(empty_db) == wanted(), f"{way} {step}"


def test_no_migration_grants_by_itself():
    """But for the partition of a day, which comes between two migrations."""
    found = [word for file in (ROOT / "migrations").rglob("*.sql")
             for word in re.findall(r"\b(?:GRANT|REVOKE)\b.*", re.sub("--.*", "", file.read_text()))]
    assert found == ["REVOKE ALL ON @schema@.%I FROM %s', partition, member);"]


def test_a_function_is_at_no_moment_everybodys(template, empty_db, cli):
    """Not even where the server gives what is new to all: default privileges. Days' partitions that come later neither."""
    for what in ("TABLES", "SEQUENCES", "FUNCTIONS", "TYPES"):
        empty_db.query(f"ALTER DEFAULT PRIVILEGES GRANT ALL ON {what} TO PUBLIC")
        empty_db.query(f"ALTER DEFAULT PRIVILEGES GRANT ALL ON {what} TO jobq_viewer")
    cli("migrate", "up", db=empty_db)
    assert have(empty_db) == wanted()
    assert empty_db.value("SELECT jobq._create_partitions('2031-01-01', 2)") == 4
    assert have(empty_db) == wanted()


def test_the_script_of_migrate_print_grants_as_well(empty_db, cli):
    with empty_db.connect() as conn:
        conn.execute(re.sub(r"^\\set .*$", "", cli("migrate", "print").stdout, flags=re.M))
    assert have(empty_db) == wanted()


# ---- jobqd migrate grant ----

def disturb(db, bystander):
    """Takes rights, gives others, with and without grant option; and gives some to a role that is none of jobq's business."""
    db.query("GRANT EXECUTE ON ALL ROUTINES IN SCHEMA jobq TO PUBLIC")
    db.query("GRANT ALL ON ALL TABLES IN SCHEMA jobq TO jobq_enqueuer WITH GRANT OPTION")
    db.query("GRANT CREATE ON SCHEMA jobq TO jobq_worker, PUBLIC")
    db.query("GRANT TRUNCATE, TRIGGER ON jobq.jobs TO PUBLIC")
    db.query("GRANT UPDATE (kind), SELECT ON jobq.jobs TO jobq_viewer")
    db.query("GRANT ALL ON ALL SEQUENCES IN SCHEMA jobq TO jobq_viewer")
    db.query("REVOKE ALL ON ALL TABLES IN SCHEMA jobq FROM jobq_operator")
    db.query("REVOKE ALL ON ALL ROUTINES IN SCHEMA jobq FROM jobq_daemon")
    db.query("CREATE VIEW jobq.mine AS SELECT 1; GRANT SELECT ON jobq.mine TO PUBLIC, jobq_viewer")
    db.query(f"GRANT USAGE ON SCHEMA jobq TO {bystander}; GRANT SELECT, DELETE ON jobq.jobs TO {bystander}; "
             f"GRANT EXECUTE ON FUNCTION jobq.cancel TO {bystander}; GRANT UPDATE (args) ON jobq.jobs TO {bystander}")


def test_grant_makes_the_rights_anew_and_touches_no_others(db, cli, role):
    bystander = role()
    disturb(db, bystander)
    of_others = {row for row in map(tuple, db.query(HAVE)) if row[0] == bystander}
    assert len(of_others) == 5
    done = cli("migrate", "grant", "--json", db=db)
    changed = {row["role"]: row for row in json.loads(done.stdout)["roles"]}
    assert changed["PUBLIC"]["given"] == 0 and changed["PUBLIC"]["taken"] > 90
    assert changed["jobq_operator"]["given"] > 10 and changed["jobq_operator"]["taken"] == 0
    mine = {("PUBLIC", "SELECT", "table", "mine", ""), ("jobq_viewer", "SELECT", "table", "mine", "")}
    assert have(db) == wanted() | mine, "what is the user's own in our schema stays as it was"
    assert {row for row in map(tuple, db.query(HAVE)) if row[0] == bystander} == of_others
    acls = db.query("SELECT array_agg(xmin::text ORDER BY oid) FROM pg_proc WHERE pronamespace = 'jobq'::regnamespace")
    assert cli("migrate", "grant", db=db).stdout == "every role has its rights, and PUBLIC none: nothing to do\n"
    assert json.loads(cli("migrate", "grant", "--json", db=db).stdout) == {"roles": [], "missing": []}
    assert db.query("SELECT array_agg(xmin::text ORDER BY oid) FROM pg_proc WHERE pronamespace = 'jobq'::regnamespace") == acls, \
        "and nothing was written for it"


def test_up_makes_the_rights_anew_as_well(db, cli, role):
    disturb(db, role())
    db.query("DROP VIEW jobq.mine; REVOKE CREATE ON SCHEMA jobq FROM jobq_worker, PUBLIC")
    assert "nothing to do" in cli("migrate", "up", db=db).stdout
    assert have(db) == wanted()


def test_grant_goes_with_the_schemas_version(db, cli, jobqd_next):
    db.query("GRANT EXECUTE ON ALL ROUTINES IN SCHEMA jobq TO PUBLIC")
    cli("migrate", "grant", db=db, program=jobqd_next)
    assert have(db) == wanted(), "of a version that is older than the program's"
    db.set_version(999)
    assert "install a newer jobqd" in cli("migrate", "grant", db=db, code=78).stderr


def test_grant_without_a_schema(empty_db, cli):
    assert cli("migrate", "grant", db=empty_db, code=78).stderr == (
        "jobqd migrate: schema jobq is missing in this database: run `jobqd migrate up`\n")
    assert "unexpected argument 3" in cli("migrate", "grant", "3", db=empty_db, code=64).stderr


def test_a_restore_without_rights_is_mended(db, empty_db, cli, doctor, paste, role):
    """pg_dump -x, or a restore as another role: every function is everybody's. Whoever may use the schema may purge."""
    program = max(Path("/usr/lib/postgresql").glob("*/bin/pg_dump"), key=lambda path: int(path.parts[-3]))
    if db.value("SELECT current_setting('server_version_num')::int / 10000") > int(program.parts[-3]):
        copy = db  # a server that Debian's pg_dump does not know: what such a dump leaves
        for sort in ("TABLES", "SEQUENCES", "ROUTINES"):
            copy.query(f"REVOKE ALL ON ALL {sort} IN SCHEMA jobq FROM {', '.join('jobq_' + name for name in ROLES)}")
        copy.query("GRANT EXECUTE ON ALL ROUTINES IN SCHEMA jobq TO PUBLIC")
    else:
        dump = subprocess.run([program, "-n", "jobq", "-x", "-O", "-d", db.conninfo], check=True, capture_output=True).stdout
        subprocess.run([program.with_name("psql"), "-qX", "-v", "ON_ERROR_STOP=1", "-d", empty_db.conninfo], input=dump, check=True,
                       capture_output=True)
        copy = empty_db
    copy.query("GRANT USAGE ON SCHEMA jobq TO jobq_enqueuer")
    with copy.connect(user=role("jobq_enqueuer")) as app:
        app.execute("SELECT jobq.purge('{\"user\": 1}')")
        said = doctor(copy.uri)
        remedy = the(said, "roles", "fail", r"^PUBLIC has rights that it should not have: EXECUTE on jobq.cancel\(bigint\), .* and \d+ more rights$")
        the(said, "roles", "warn", r"^jobq_viewer lacks .* and \d+ more rights$")
        assert remedy == "jobqd migrate grant"
        paste(copy, remedy)
        assert have(copy) == wanted()
        bare(app, "SELECT jobq.purge('{\"user\": 1}')")
        app.execute("SELECT jobq.enqueue('mail')")
    assert [level for level, _, _ in doctor(copy.uri)["roles"]] == ["ok"]


@pytest.mark.parametrize("change, level, words", [
    ("GRANT EXECUTE ON FUNCTION jobq.purge TO PUBLIC", "fail",
     r"^PUBLIC has rights that it should not have: EXECUTE on jobq.purge\(jsonb,text,text\)$"),
    ("GRANT EXECUTE ON FUNCTION jobq.delete TO jobq_enqueuer", "fail", r"^jobq_enqueuer has rights that it should not have: EXECUTE on jobq.delete"),
    ("GRANT UPDATE (args) ON jobq.jobs TO jobq_viewer", "fail", r"^jobq_viewer has rights that it should not have: UPDATE \(args\) on jobq.jobs$"),
    ("GRANT UPDATE ON SEQUENCE jobq.jobs_position_seq TO jobq_enqueuer", "fail",
     "^jobq_enqueuer has rights that it should not have: UPDATE on jobq.jobs_position_seq$"),
    ("GRANT SELECT ON jobq.jobs TO jobq_viewer WITH GRANT OPTION", "fail", "^jobq_viewer has rights that it should not have: SELECT on jobq.jobs$"),
    ("GRANT USAGE ON SCHEMA jobq TO PUBLIC", "fail", "^PUBLIC has rights that it should not have: USAGE on jobq$"),
    ("REVOKE SELECT ON jobq.crons FROM jobq_operator", "warn", "^jobq_operator lacks SELECT on jobq.crons$"),
    ("REVOKE INSERT (kind) ON jobq.jobs FROM jobq_enqueuer", "warn", r"^jobq_enqueuer lacks INSERT \(kind\) on jobq.jobs$"),
    ("REVOKE EXECUTE ON FUNCTION jobq.complete FROM jobq_worker", "warn", "^jobq_worker lacks EXECUTE on jobq.complete"),
    ("REVOKE USAGE ON SCHEMA jobq FROM jobq_daemon", "warn", "^jobq_daemon lacks USAGE on jobq$"),
], ids=lambda value: None if value in ("fail", "warn") or value.startswith("^") else value)
def test_doctor_compares_what_each_role_has(db, doctor, paste, change, level, words):
    db.query(change)
    remedy = the(doctor(db.uri), "roles", level, words)
    assert remedy == "jobqd migrate grant"
    paste(db, remedy)
    assert [level for level, _, _ in doctor(db.uri)["roles"]] == ["ok"]


def test_a_role_of_jobqs_that_has_the_rights_of_another(db, doctor, paste, role):
    other = role()
    db.query(f"GRANT {other} TO jobq_viewer")
    try:
        remedy = the(doctor(db.uri), "roles", "warn", f"^jobq_viewer is a member of {other}, and so has its rights$")
        paste(db, remedy)
        assert [level for level, _, _ in doctor(db.uri)["roles"]] == ["ok"]
    finally:
        db.query(f"REVOKE {other} FROM jobq_viewer")


def test_roles_that_one_may_not_create(cluster, cli, doctor, paste):
    """They are printed as SQL, for who may; the code says so. A script of psql's can read it."""
    db = cluster.db
    for name in ROLES:
        db.query(f"DROP OWNED BY jobq_{name}")
        db.query(f"DROP ROLE jobq_{name}")
    db.query("CREATE ROLE owner LOGIN; CREATE ROLE fresh LOGIN")
    db.query("CREATE DATABASE other OWNER owner")
    other = cluster.uri("other").replace("//admin@", "//owner@")
    said = cli("migrate", "up", "--database", other)
    roles = ", ".join(f"jobq_{name}" for name in sorted(ROLES))
    assert said.stderr.count("\n") == 1, "once, and not with each step"
    assert f"owner may not create the missing roles; continuing without them: {roles}\n" in said.stderr
    missing = the(doctor(other), "roles", "warn", "^jobq_daemon, jobq_enqueuer, jobq_operator, jobq_viewer, jobq_worker missing")
    assert missing == "; ".join(f"CREATE ROLE jobq_{name} NOLOGIN" for name in sorted(ROLES))
    done = cli("migrate", "grant", "--database", other, code=77)
    assert done.stdout == "".join(f"CREATE ROLE jobq_{name} NOLOGIN;\n" for name in sorted(ROLES))
    assert "jobqd migrate: 5 roles are missing, and the current role may not create roles: have one that may run the CREATE ROLE above" in done.stderr
    with cluster.connect("other") as conn:
        conn.execute("GRANT USAGE ON SCHEMA jobq TO PUBLIC")
    counted = cli("migrate", "grant", "--database", other, code=77).stdout
    assert counted == "-- PUBLIC: 0 rights given, 1 taken\n" + done.stdout, "psql can read that, too"
    rows = json.loads(cli("migrate", "grant", "--json", "--database", other, code=77).stdout)["missing"]
    assert [row["sql"] + ";\n" for row in rows] == done.stdout.splitlines(keepends=True)
    paste(db, missing)
    said = doctor(other)
    for name in ROLES:
        assert the(said, "roles", "warn", f"^jobq_{name} lacks ") == "jobqd migrate grant"
    cli("migrate", "grant", "--database", other)
    assert [level for level, _, _ in doctor(other)["roles"]] == ["ok"]
    with cluster.connect("other", user="fresh") as conn:
        bare(conn, "SELECT jobq.enqueue('a')")
        db.query("GRANT jobq_enqueuer TO fresh")
        assert conn.execute("SELECT jobq.enqueue('a')").fetchone() == (1,)


def test_a_right_that_another_role_has_granted(db, cli, role):
    """Only that one can take it back; the rest is done."""
    other = role()
    db.query(f"GRANT USAGE ON SCHEMA jobq TO {other}; GRANT SELECT ON jobq.jobs TO {other} WITH GRANT OPTION")
    with db.connect(user=other) as conn:
        conn.execute("GRANT SELECT ON jobq.jobs TO jobq_enqueuer")
    db.query("GRANT EXECUTE ON FUNCTION jobq.purge TO PUBLIC")
    said = cli("migrate", "grant", db=db, code=77).stderr
    assert "jobq_enqueuer still has SELECT on TABLE jobq.jobs, granted by a role other than the schema's owner" in said
    assert have(db) - wanted() == {("jobq_enqueuer", "SELECT", "table", "jobs", "")}


def test_who_only_looks_is_no_jobqd_that_lacks_rights(db, doctor, role):
    viewer, nobody = role("jobq_viewer"), role()
    assert doctor(uri(db, viewer))["rights"] == [("ok", f"{viewer} has another of jobq's roles; jobqd itself needs jobq_daemon", None)]
    db.query(f"GRANT USAGE ON SCHEMA jobq TO {nobody}")
    assert the(doctor(uri(db, nobody)), "rights", "fail", "jobqd cannot run as this role$") == f"GRANT jobq_daemon TO {nobody}"


@pytest.mark.untrapped
def test_a_schema_on_the_path_that_another_owns(db, doctor, paste, role):
    """Its owner may create in it, whatever is granted; a role that is trusted may own it."""
    mallory, team, app = role(), role(), role("jobq_enqueuer")
    lib = f"lib-{app[2:]}"
    db.query(f'CREATE SCHEMA "{lib}" AUTHORIZATION {mallory}; GRANT USAGE ON SCHEMA "{lib}" TO {app}; '
             f'ALTER ROLE {app} SET search_path = "$user", "{lib}", public')
    try:
        remedy = the(doctor(db.uri), "search path", "warn",
                     f"^role {mallory} may create functions and operators in schema {lib}, which is on the search_path of {app}$")
        assert remedy == f'ALTER ROLE {app} IN DATABASE {db.name} SET search_path = "$user", public'
        paste(db, remedy)
        assert [level for level, *_ in doctor(db.uri)["search path"]] == ["ok"]
        with db.connect(user=app) as conn:
            assert conn.execute("SHOW search_path").fetchone() == ('"$user", public',)
        db.query(f'ALTER ROLE {app} IN DATABASE {db.name} RESET search_path; ALTER SCHEMA "{lib}" OWNER TO {team}; GRANT {team} TO {app}')
        assert [level for level, *_ in doctor(db.uri)["search path"]] == ["ok"], "it is a member"
        db.query(f'ALTER ROLE {app} RESET search_path; ALTER SCHEMA "{lib}" OWNER TO {mallory}; ALTER SCHEMA "{lib}" RENAME TO {app}')
        remedy = the(doctor(db.uri), "search path", "warn", f"^role {mallory} may create functions and operators in schema {app}, ")
        assert remedy == f"ALTER ROLE {app} IN DATABASE {db.name} SET search_path = public"
        paste(db, remedy)
        assert [level for level, *_ in doctor(db.uri)["search path"]] == ["ok"]
    finally:
        db.query(f"DROP OWNED BY {mallory}, {team} CASCADE")


# ---- what other roles have ----

def test_who_may_make_triggers_has_the_owners_rights(db, doctor, paste, role):
    """By a common GRANT ALL. Doctor says so, of the right and of the trigger, and its remedies mend it."""
    app = role("jobq_enqueuer")
    db.query(f"GRANT ALL ON ALL TABLES IN SCHEMA jobq TO {app}; GRANT CREATE ON SCHEMA public TO {app}")
    with db.connect(user=app) as conn:
        conn.execute("CREATE FUNCTION public.take() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN "
                     "PERFORM set_config('test.was', current_user, false); RETURN NULL; END$$")
        conn.execute("CREATE TRIGGER mine AFTER INSERT ON jobq.jobs FOR EACH ROW EXECUTE FUNCTION public.take()")
        conn.execute("SELECT jobq.enqueue('mail')")
        assert conn.execute("SELECT current_setting('test.was')").fetchone() == ("admin",), "what it is that doctor tells of"
    said = doctor(db.uri)
    remedies = [the(said, "other roles", "fail", rf"^trigger mine on jobq.jobs calls function take\(\) of role {app}, as role admin$|"
                                                 rf"^trigger mine on jobq.jobs calls function public.take\(\) of role {app}, as role admin$"),
                the(said, "other roles", "fail", rf"^role {app} may create triggers on jobq.all_jobs and \d+ more: these run as role admin"),
                the(said, "other roles", "warn", rf"^role {app} has rights that jobq grants to no role: .*REFERENCES on .*TRUNCATE on ")]
    for remedy in remedies:
        paste(db, remedy)
    assert [level for level, _, _ in doctor(db.uri)["other roles"]] == ["ok"]
    with db.connect(user=app) as conn:
        conn.execute("SELECT jobq.enqueue('mail')")
        bare(conn, "CREATE TRIGGER mine AFTER INSERT ON jobq.jobs FOR EACH ROW EXECUTE FUNCTION public.take()")
    assert db.value("SELECT count(*) FROM jobq.jobs") == 2


def test_rights_that_are_an_applications_own_are_no_finding(db, doctor, paste, role):
    app = role()
    db.query(f"GRANT USAGE ON SCHEMA jobq TO {app}; GRANT EXECUTE ON FUNCTION jobq.enqueue, jobq.cancel TO {app}; "
             f"GRANT SELECT, INSERT (kind, args) ON jobq.jobs TO {app}; GRANT SELECT ON jobq.finished_jobs TO {app}; "
             f"CREATE FUNCTION public.count_it() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; "
             f"CREATE TRIGGER mine AFTER INSERT ON jobq.jobs FOR EACH ROW EXECUTE FUNCTION public.count_it(); "
             f"CREATE TABLE jobq.notes (); GRANT ALL ON jobq.notes TO {app}")
    assert [level for level, _, _ in doctor(db.uri)["other roles"]] == ["ok"]
    db.query(f"GRANT UPDATE (state) ON jobq.jobs TO {app}; GRANT EXECUTE ON FUNCTION jobq._add_job TO {app}; "
             f"GRANT SELECT ON SEQUENCE jobq.nodes_id_seq TO {app}")
    remedy = the(doctor(db.uri), "other roles", "warn",
                 rf"^role {app} has rights that jobq grants to no role: EXECUTE on jobq._add_job\(.*, SELECT on jobq.nodes_id_seq")
    paste(db, remedy)
    assert [level for level, _, _ in doctor(db.uri)["other roles"]] == ["ok"]
    db.query(f"ALTER FUNCTION public.count_it() OWNER TO {app}; ALTER FUNCTION public.count_it() SECURITY DEFINER")
    assert [level for level, _, _ in doctor(db.uri)["other roles"]] == ["ok"], "its rights are its own"


# ---- the daemon's role ----

@pytest.mark.limit(600)
def test_a_mere_member_of_jobq_daemon_runs_jobqd(db, jobqd, programs, role, cli, doctor):
    """Every end of a job, what the leader does, and a day's partitions: with no right but its role's. Postgres denied nothing."""
    start = db.cluster.log_size()
    name = role("jobq_daemon")
    fault = {"command": programs("fault_worker"), "concurrency": 2}
    queues = {"default": fault, "dropped": {**fault, "keep": "none"}, "short": {**fault, "keep_completed": "1s"}}
    day = db.value("SELECT to_char(now() AT TIME ZONE 'UTC' + interval '3 days', 'YYYYMMDD')")
    db.query(f"DROP TABLE jobq._finished_completed_p{day}, jobq._finished_failed_p{day}")
    db.query("SELECT jobq._create_partitions('2020-01-01', 1)")
    old = db.value("INSERT INTO jobq.finished_jobs (id, inserted_at, scheduled_at, finished_at, state, attempt, max_attempts, priority, queue,"
                   " kind, args, meta, tags, errors) VALUES (nextval('jobq.jobs_id_seq'), '2020-01-01', '2020-01-01', '2020-01-01 12:00Z',"
                   " 'completed', 1, 1, 0, 'q', 'k', '{}', '{}', '{}', '[]') RETURNING id")
    db.query("SELECT jobq.cron_set('often', '@every 1s', 'ok')")
    db.query("SELECT jobq.cron_set('boot', '@reboot', 'ok', queue => 'dropped')")
    dead = db.value("INSERT INTO jobq.nodes (name, host, pid, pid_start, version, renewed_at, expires_at) VALUES ('dead', 'elsewhere', 1, 1, '0',"
                    " now() - interval '1 hour', now() - interval '3599 seconds') RETURNING id")
    orphan = db.enqueue("ok")
    db.query("UPDATE jobq.jobs SET state = 'executing', attempt = 1, attempted_by = %s WHERE id = %s", (dead, orphan))
    expired = db.enqueue("ok", scheduled_at="2100-01-01", expires_at="2100-01-02")
    db.query("UPDATE jobq.jobs SET scheduled_at = now() - interval '1 hour', expires_at = now() - interval '1 minute' WHERE id = %s", (expired,))
    node = jobqd(uri(db, name), queues, lease="2s", keep_cancelled="1s", keep_discarded="1s")
    ids = {kind: db.enqueue(kind, max_attempts=1) for kind in ("ok", "fail", "segv")}
    ids["retried"] = db.enqueue("fail", '{"times": 1}', max_attempts=2)
    db.enqueue("ok", queue="dropped")
    db.enqueue("ok", queue="short")
    hanging = db.enqueue("hang")
    wait_for(lambda: db.value("SELECT state::text FROM jobq.jobs WHERE id = %s", (hanging,)) == "executing")
    db.query("SELECT jobq.cancel(%s)", (hanging,))
    db.query("SELECT jobq.pause('short'), jobq.scale('dropped', 1), jobq.resume('short')")
    wait_for(lambda: db.value("SELECT state::text FROM jobq.jobs WHERE id = %s", (ids["retried"],)) == "retryable")
    db.query("SELECT jobq.retry(%s)", (ids["retried"],))
    for job, state in ((ids["ok"], "completed"), (ids["retried"], "completed"), (orphan, "completed")):
        wait_for(lambda: db.value("SELECT state::text FROM jobq.all_jobs WHERE id = %s", (job,)) == state)
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.finished_jobs WHERE queue = 'short' OR state <> 'completed'") == 0
             and db.value("SELECT count(*) FROM jobq.jobs WHERE state <> 'scheduled'") == 0, what=lambda: (db.states(), node.log()))
    wait_for(lambda: db.value("SELECT to_regclass(%s) IS NOT NULL", (f"jobq._finished_completed_p{day}",)))
    wait_for(lambda: db.value("SELECT to_regclass('jobq._finished_completed_p20200101') IS NULL"))
    assert db.value("SELECT count(*) FROM jobq.all_jobs WHERE id = %s", (old,)) == 0
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.finished_jobs WHERE meta -> 'cron' IS NOT NULL") > 0 or
             db.value("SELECT last_job_id FROM jobq.crons WHERE name = 'often'"))
    said = doctor(uri(db, name))
    assert [level for level, _, _ in said["rights"]] == ["ok"]
    assert not [found for rows in said.values() for _, found, _ in rows if "could not check" in found]
    node.stop()
    assert "permission denied" not in node.log() and "must be owner" not in node.log()
    assert "permission denied" not in db.cluster.log(start) and "must be owner" not in db.cluster.log(start)


def test_the_daemon_owns_nothing(db, role):
    """It makes the history's days by functions that mind their arguments, and may not make or drop anything else."""
    with db.connect(user=role("jobq_daemon")) as conn:
        for sql in ("CREATE TABLE jobq.mine ()", "DROP TABLE jobq._finished_completed_default", "ALTER TABLE jobq.jobs ADD COLUMN x int",
                    "SELECT jobq.enqueue('a')", "INSERT INTO jobq.jobs (kind) VALUES ('a')", "DELETE FROM jobq.finished_jobs",
                    "SELECT jobq.purge('{\"a\": 1}')", "SELECT jobq.pause('a')", "UPDATE jobq.crons SET kind = 'b'"):
            bare(conn, sql)
        for sql in ("SELECT jobq._create_partitions('infinity', 1)", "SELECT jobq._create_partitions(now()::date, 100000)",
                    "SELECT jobq._drop_partitions('-1 s', '1 s')", "SELECT jobq._drop_partitions(NULL, '1 s')"):
            with pytest.raises(psycopg.errors.InvalidParameterValue):
                conn.execute(sql)
        assert conn.execute("SELECT jobq._create_partitions((now() AT TIME ZONE 'UTC')::date, 6)").fetchone() == (4,)


def test_every_function_that_jobqd_calls_is_the_daemons():
    """And no other. Those that a command or a benchmark calls are its caller's affair; what the owner alone calls is migrate's."""
    others = ("job_", "jobs_", "queue_", "bench_", "doctor_", "migrate_", "cron_set", "cron_delete", "cron_pause", "cron_resume", "cron_run",
              "cron_list", "nodes_list")
    called = {function for name, text in statements().items() if not name.startswith(others)
              for function in re.findall(r"@schema@\.(\w+)\(", re.sub("--.*", "", text))}
    functions = {name for sort, names, _, _, roles in grants() if sort == "function" and "daemon" in roles for name in names}
    tables = {name for sort, names, *_ in grants() if sort == "table" for name in names}
    assert called - tables == functions


# ---- whose the schema is ----

def refused_by_up(cli, database, words):
    said = cli("migrate", "up", "--database", database, code=78).stderr
    assert re.search(words, said), said
    return said


def mend(db, doctor, paste, database=None):
    """Pastes what doctor says of the owner until it says no more."""
    database = database or db.uri
    for _ in range(10):
        remedies = [remedy for level, _, remedy in doctor(database)["owner"] if level != "ok"]
        if not remedies:
            return
        for remedy in remedies:
            paste(db, remedy)
    raise AssertionError(remedies)


TRAP = """CREATE FUNCTION jobq.version() RETURNS int LANGUAGE plpgsql AS $$BEGIN RAISE 'called'; END$$;
          CREATE FUNCTION jobq.enqueue(text) RETURNS bigint LANGUAGE sql AS 'SELECT 0';"""


@pytest.mark.parametrize("tables", ["", "CREATE TABLE jobq.jobs (id int); CREATE TABLE jobq.schema_version (version int);"],
                         ids=["empty", "with tables"])
def test_a_schema_that_another_role_made_is_refused(empty_db, cli, doctor, paste, role, tables):
    mallory = role()
    empty_db.query(f"CREATE SCHEMA jobq AUTHORIZATION {mallory}")
    with empty_db.connect(user=mallory) as conn:
        conn.execute(TRAP + tables)
    for command in (["up"], ["grant"], ["down"]):
        said = cli("migrate", *command, db=empty_db, code=78).stderr
        assert f"schema jobq belongs to role {mallory}, and role admin is not a member of that role: " in said
    with empty_db.connect() as conn, pytest.raises(InsufficientPrivilege, match=f"schema jobq belongs to role {mallory}"):
        conn.execute(re.sub(r"^\\set .*$", "", cli("migrate", "print").stdout, flags=re.M))
    said = doctor(empty_db.uri)
    remedy = the(said, "owner", "warn" if tables else "fail", f"schema jobq belongs to role {mallory}, and role admin is not a member of that role")
    assert "called" not in json.dumps(said), "nothing of it was called"
    if tables:
        assert remedy == f"connect as role {mallory}, if it is the rightful owner of the schema"
        return
    assert remedy == f"ALTER SCHEMA jobq OWNER TO admin"
    mend(empty_db, doctor, paste)
    cli("migrate", "up", db=empty_db)
    assert empty_db.enqueue("a") == 1 and empty_db.value("SELECT count(*) FROM pg_proc WHERE pronamespace = 'jobq'::regnamespace"
                                                         " AND proowner <> 'admin'::regrole") == 0


def test_a_schema_that_was_taken_over(db, cli, doctor, paste, role):
    """As it was left where migrate went into another's schema: his, with our tables."""
    mallory = role()
    db.query(f"ALTER SCHEMA jobq OWNER TO {mallory}")
    refused_by_up(cli, db.uri, f"schema jobq belongs to role {mallory}, but jobq's tables in it belong to role admin")
    assert the(doctor(db.uri), "owner", "fail", f"^schema jobq belongs to role {mallory}") == "ALTER SCHEMA jobq OWNER TO admin"
    mend(db, doctor, paste)
    cli("migrate", "up", db=db)


@pytest.mark.parametrize("who", ["PUBLIC", "mallory"])
def test_a_schema_in_which_another_may_create(db, cli, doctor, paste, role, who):
    name = who if who == "PUBLIC" else role()
    db.query(f"GRANT USAGE, CREATE ON SCHEMA jobq TO {name}")
    words = ("every role" if who == "PUBLIC" else f"role {name}") + " may create objects in schema jobq"
    refused_by_up(cli, db.uri, f"{words}: REVOKE CREATE ON SCHEMA jobq FROM {name}")
    assert the(doctor(db.uri), "owner", "fail", words) == f"REVOKE CREATE ON SCHEMA jobq FROM {name}"
    mend(db, doctor, paste)
    cli("migrate", "up", db=db)


PLANTED = {
    "function": "CREATE FUNCTION jobq._wake(VARIADIC int[]) RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "procedure": "CREATE PROCEDURE jobq.wait(text) LANGUAGE sql AS 'SELECT 1'",
    "aggregate": "CREATE AGGREGATE jobq.most(int) (sfunc = int4larger, stype = int)",
    "table": "CREATE TABLE jobq.audit (id int)",
    "view": "CREATE VIEW jobq.limits AS SELECT 1",
    "sequence": "CREATE SEQUENCE jobq.tickets",
    "type": "CREATE TYPE jobq.mood AS ENUM ('good')",
    "composite": "CREATE TYPE jobq.pair AS (a int, b int)",
    "domain": "CREATE DOMAIN jobq.small AS int",
    "operator": "CREATE OPERATOR jobq.<> (leftarg = jobq.job_state, rightarg = int, function = jobq.cheat)",
    "collation": "CREATE COLLATION jobq.mine FROM \"C\"",
    "text search": "CREATE TEXT SEARCH DICTIONARY jobq.dict (template = simple)",
}


@pytest.mark.parametrize("sort", PLANTED)
def test_a_thing_that_another_has_planted(db, cli, doctor, paste, role, sort):
    """While he might; he may no more."""
    mallory = role()
    db.query(f"GRANT CREATE, USAGE ON SCHEMA jobq TO {mallory}")
    with db.connect(user=mallory) as conn:
        if sort == "operator":
            conn.execute("CREATE FUNCTION jobq.cheat(jobq.job_state, int) RETURNS boolean LANGUAGE sql AS 'SELECT true'")
        conn.execute(PLANTED[sort])
    db.query(f"REVOKE CREATE ON SCHEMA jobq FROM {mallory}")
    refused_by_up(cli, db.uri, f"belongs to role {mallory}, not to the owner of jobq's tables, role admin: ")
    the(doctor(db.uri), "owner", "fail", f" jobq[.].* belongs to role {mallory}, ")
    mend(db, doctor, paste)
    cli("migrate", "up", db=db)
    assert db.value("SELECT count(*) FROM pg_shdepend WHERE refobjid = %s::regrole AND deptype = 'o'", [mallory]) == 0


def test_what_an_extension_brought_is_left_alone(db, cli, doctor):
    available = db.value("SELECT name FROM pg_available_extensions WHERE name IN ('pg_trgm', 'citext', 'hstore') LIMIT 1")
    if available is None:
        return  # the server's binaries come without any
    db.query("CREATE ROLE maker SUPERUSER")
    try:
        db.query(f"SET ROLE maker; CREATE EXTENSION {available} SCHEMA jobq; RESET ROLE")
        cli("migrate", "up", db=db)
        assert [level for level, _, _ in doctor(db.uri)["owner"]] == ["ok"]
    finally:
        db.query("DROP OWNED BY maker CASCADE; DROP ROLE maker")


def test_members_of_the_owner_share_one_schema(empty_db, cli, jobqd_next, role):
    """Whatever one of them makes belongs to the owner, so that the next can go on."""
    team = role()
    one, other = role(team), role(team)
    empty_db.query(f"CREATE SCHEMA jobq AUTHORIZATION {team}")
    cli("migrate", "up", "--database", uri(empty_db, one))
    cli("migrate", "up", "--database", uri(empty_db, other), program=jobqd_next)
    owners = {owner for owner, in empty_db.query("SELECT proowner::regrole::text FROM pg_proc WHERE pronamespace = 'jobq'::regnamespace"
                                                 " UNION SELECT relowner::regrole::text FROM pg_class WHERE relnamespace = 'jobq'::regnamespace")}
    assert owners == {team}
    assert have(empty_db) == wanted()
    with empty_db.connect(user=one) as conn:
        assert conn.execute("SELECT jobq.enqueue('a')").fetchone() == (1,)
        conn.execute("SELECT jobq.cancel(1)")
    cli("migrate", "down", 0, "--database", uri(empty_db, one), program=jobqd_next)
    assert empty_db.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'jobq'") == 1


# ---- a schema that is another's ----

FOREIGN = """
CREATE FUNCTION jobq.sprung() RETURNS int LANGUAGE plpgsql AS $$BEGIN INSERT INTO public.sprung VALUES (current_user); RETURN 11; END$$;
CREATE FUNCTION jobq.version() RETURNS int LANGUAGE sql AS 'SELECT %(version)s';
"""
VIEWS = """
CREATE VIEW jobq.schema_version AS SELECT v AS version, 'core'::text AS name, now() AS applied_at FROM jobq.sprung() v;
CREATE VIEW jobq.jobs AS SELECT v::bigint AS id, 'available'::text AS state, 'a'::text AS queue, 'k'::text AS kind FROM jobq.sprung() v;
CREATE VIEW jobq.all_jobs AS SELECT * FROM jobq.jobs;
CREATE VIEW jobq.queues AS SELECT 'a'::text AS name FROM jobq.sprung() v;
CREATE VIEW jobq.nodes AS SELECT 'a'::text AS name, v AS id FROM jobq.sprung() v;
"""
# Tables that call the function where they are read.
TABLES = """
CREATE TABLE jobq.schema_version (version int, name text, applied_at timestamptz);
CREATE TABLE jobq.jobs (id bigint, state text, queue text, kind text);
ALTER TABLE jobq.jobs ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON jobq.jobs USING (jobq.sprung() > 0);
ALTER TABLE jobq.schema_version ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON jobq.schema_version USING (jobq.sprung() > 0);
GRANT ALL ON ALL TABLES IN SCHEMA jobq TO PUBLIC;
"""
COMMANDS = [["migrate", "status"], ["migrate", "up"], ["migrate", "down"], ["migrate", "grant"], ["jobs"], ["job", "1"], ["queues"],
            ["enqueue", "a"], ["cancel", "1"], ["retry", "1"], ["delete", "1"], ["purge", "--args", '{"a": 1}', "--yes"], ["pause", "a"], ["scale", "a", "1"],
            ["cron"], ["upgrade", "--node", "a"]]


def foreign_schema(db, role, body, grants=""):
    """A schema of our name, made by a role that may make schemas and is nobody's; what is called from it is written down."""
    mallory = role()
    db.query(f"CREATE TABLE public.sprung (by name); GRANT INSERT, SELECT ON public.sprung TO PUBLIC; "
             f"GRANT CREATE ON DATABASE {db.name} TO {mallory}")
    latest = len(list((ROOT / "migrations").glob("*.up.sql")))
    with db.connect(user=mallory) as conn:
        conn.execute("CREATE SCHEMA jobq; GRANT USAGE ON SCHEMA jobq TO PUBLIC;" + FOREIGN % {"version": latest} + body + grants)
    return mallory


@pytest.mark.parametrize("body", [VIEWS, TABLES], ids=["views", "tables"])
def test_nothing_in_a_foreign_schema_is_called(empty_db, cli, doctor, role, body):
    """Not by a superuser, nor by the database's owner, by none of the commands."""
    owner = role()
    mallory = foreign_schema(empty_db, role, body)
    empty_db.query(f"ALTER DATABASE {empty_db.name} OWNER TO {owner}")
    try:
        for name in ("admin", owner):
            address = uri(empty_db, name)
            words = f"schema jobq belongs to role {mallory}, and role {name} is not a member of that role"
            for command in COMMANDS:
                assert words in cli(*command, "--database", address, code=78).stderr, command
            said = doctor(address)
            the(said, "schema", "fail", words)
            assert "rights" not in said and "queues" not in said
            assert empty_db.query("SELECT * FROM public.sprung") == [], name
    finally:
        empty_db.query(f"ALTER DATABASE {empty_db.name} OWNER TO admin")


@pytest.mark.parametrize("body", [VIEWS, TABLES], ids=["views", "tables"])
def test_jobqd_does_not_serve_a_foreign_schema(empty_db, jobqd, programs, role, body):
    mallory = foreign_schema(empty_db, role, body)
    node = jobqd(empty_db, {"default": {"command": programs("noop_worker")}}, ready=False)
    node.expected_exit = 78
    assert node.wait() == 78
    assert f"ERROR jobqd: schema jobq belongs to role {mallory}, and role admin is not a member of that role: " in node.log()
    assert empty_db.query("SELECT * FROM public.sprung") == []


def let_in(db, grants, name):
    db.query(grants.format(name=name, jobs="INSERT (kind, args), SELECT ON jobq.jobs"))


@pytest.mark.parametrize("grants, let", [
    ("GRANT jobq_enqueuer TO {name}", True), ("GRANT jobq_viewer TO {name}", True),
    ("GRANT USAGE ON SCHEMA jobq TO {name}; GRANT EXECUTE ON ALL ROUTINES IN SCHEMA jobq TO {name}", True),
    ("GRANT USAGE ON SCHEMA jobq TO PUBLIC; GRANT EXECUTE ON ALL ROUTINES IN SCHEMA jobq TO PUBLIC", False),
    ("ALTER ROLE {name} CREATEROLE", False), ("ALTER ROLE {name} SUPERUSER; GRANT jobq_viewer TO {name}", False),
])
def test_who_trusts_a_schema_that_is_neither_its_own_nor_the_databases(empty_db, cli, role, grants, let):
    """As its owner does, one whom it has let in; not who could have been lured."""
    deploy, name = role(), role()
    empty_db.query(f"CREATE SCHEMA jobq AUTHORIZATION {deploy}")
    cli("migrate", "up", "--database", uri(empty_db, deploy))
    let_in(empty_db, grants, name)
    done = cli("migrate", "status", "--database", uri(empty_db, name), code=None)
    words = f"schema jobq belongs to role {deploy}, and role {name} is not a member of that role"
    assert (words in done.stderr) != let, done.stderr
    assert let or done.returncode == 78
    if "SUPERUSER" in grants:  # the page's way
        cli("queues", "--database", uri(empty_db, name).replace("?", f"?options=-crole%3D{deploy}&"))


def test_roles_that_may_not_be_their_member(empty_db, cli, role):
    """From 16 on who made a role may grant it, and is a member for no other end."""
    if empty_db.value("SELECT current_setting('server_version_num')::int < 160000"):
        return
    deploy, maker = role(), role(options="CREATEROLE")
    empty_db.query(f"CREATE SCHEMA jobq AUTHORIZATION {deploy}; "
                   f"GRANT {deploy} TO {maker} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE")
    words = f"schema jobq belongs to role {deploy}, and role {maker} is not a member of that role"
    for command in ("status", "up"):
        assert words in cli("migrate", command, "--database", uri(empty_db, maker), code=78).stderr
    empty_db.query(f"GRANT {deploy} TO {maker} WITH SET TRUE, INHERIT TRUE")
    cli("migrate", "up", "--database", uri(empty_db, maker))
    cli("queues", "--database", uri(empty_db, maker))


@pytest.mark.parametrize("how, words", [
    ("ALTER SCHEMA jobq OWNER TO {mallory}", "schema jobq belongs to role {mallory}, but jobq's tables in it belong to role admin"),
    ("GRANT USAGE, CREATE ON SCHEMA jobq TO {mallory}", "role {mallory} may create objects in schema jobq: REVOKE CREATE"),
    ("GRANT CREATE ON SCHEMA jobq TO PUBLIC", "every role may create objects in schema jobq: REVOKE CREATE"),
    ("CREATE VIEW jobq.mine AS SELECT 1; ALTER VIEW jobq.mine OWNER TO {mallory}", "view jobq.mine belongs to role {mallory}, not to"),
    ("CREATE FUNCTION jobq.f() RETURNS int LANGUAGE sql AS 'SELECT 1'; ALTER FUNCTION jobq.f OWNER TO {mallory}",
     r"function jobq.f() belongs to role {mallory}, not to the owner of jobq's tables, role admin: DROP FUNCTION jobq.f()"),
])
def test_who_works_with_a_schema_that_others_may_change(db, cli, jobqd, programs, role, how, words):
    mallory, name = role(), role("jobq_daemon", "jobq_viewer")
    before = cli("queues", "--database", uri(db, name))
    db.query(f"GRANT CREATE ON SCHEMA jobq TO {mallory}; " + how.format(mallory=mallory)
             + ("" if "GRANT" in how else f"; REVOKE CREATE ON SCHEMA jobq FROM {mallory}"))
    for address in (uri(db, name), db.uri):
        assert words.format(mallory=mallory) in cli("queues", "--database", address, code=78).stderr
    node = jobqd(uri(db, name), {"default": {"command": programs("noop_worker")}}, ready=False)
    node.expected_exit = 78
    assert node.wait() == 78 and words.format(mallory=mallory) in node.log()
    db.query(f"ALTER SCHEMA jobq OWNER TO admin; REVOKE ALL ON SCHEMA jobq FROM {mallory}, PUBLIC; DROP OWNED BY {mallory}")
    assert cli("queues", "--database", uri(db, name)).stdout == before.stdout


def test_what_a_superuser_or_the_owners_members_put_there_does_no_harm(empty_db, cli, role):
    team, dba = role(), role(options="SUPERUSER")
    one, app = role(team), role("jobq_viewer")
    empty_db.query(f"CREATE SCHEMA jobq AUTHORIZATION {team}")
    cli("migrate", "up", "--database", uri(empty_db, one))
    empty_db.query(f"CREATE VIEW jobq.v1 AS SELECT 1; ALTER VIEW jobq.v1 OWNER TO {dba}; GRANT CREATE ON SCHEMA jobq TO {one}, {dba}; "
                   f"CREATE VIEW jobq.v2 AS SELECT 1; ALTER VIEW jobq.v2 OWNER TO {one}")
    for name in (one, app, team):
        cli("queues", "--database", uri(empty_db, name))


def test_the_script_of_a_member_makes_the_owners_things_as_well(empty_db, cli, role):
    team = role()
    member = role(team, options="CREATEROLE")
    empty_db.query(f"CREATE SCHEMA jobq AUTHORIZATION {team}")
    with empty_db.connect(user=member) as conn:
        conn.execute(re.sub(r"^\\set .*$", "", cli("migrate", "print").stdout, flags=re.M))
        assert conn.execute("SELECT current_user").fetchone() == (member,), "for the script alone"
    owners = {owner for owner, in empty_db.query("SELECT proowner::regrole::text FROM pg_proc WHERE pronamespace = 'jobq'::regnamespace"
                                                 " UNION SELECT relowner::regrole::text FROM pg_class WHERE relnamespace = 'jobq'::regnamespace")}
    assert owners == {team} and have(empty_db) == wanted()
    cli("migrate", "down", "--database", uri(empty_db, team))


# ---- what a step of long ago was bound to ----

PLANT = """
CREATE TABLE public.sprung (by name);
CREATE FUNCTION public.spring() RETURNS boolean LANGUAGE plpgsql AS $$BEGIN INSERT INTO public.sprung VALUES (current_user); RETURN true; END$$;
CREATE FUNCTION public.less(jobq.job_state, jobq.job_state) RETURNS boolean LANGUAGE sql AS 'SELECT public.spring()';
CREATE OPERATOR public.< (leftarg = jobq.job_state, rightarg = jobq.job_state, function = public.less);
CREATE FUNCTION public.isfinite(timestamptz) RETURNS boolean LANGUAGE sql AS 'SELECT public.spring()';
CREATE FUNCTION public.octet_length(text) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
CREATE FUNCTION public.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT pg_catalog.now() FROM public.spring()';
"""
# What the first release's step would have made, had these stood first on the path.
BOUND = {
    "constraint jobs_is_live of jobq.jobs": """ALTER TABLE jobq.jobs DROP CONSTRAINT jobs_is_live;
        ALTER TABLE jobq.jobs ADD CONSTRAINT jobs_is_live CHECK (state < 'completed')""",
    "constraint jobs_kind_is_1_to_128_bytes of jobq.jobs": """ALTER TABLE jobq.jobs DROP CONSTRAINT jobs_kind_is_1_to_128_bytes;
        ALTER TABLE jobq.jobs ADD CONSTRAINT jobs_kind_is_1_to_128_bytes CHECK (octet_length(kind) BETWEEN 1 AND 128)""",
    "trigger jobs_before_insert of jobq.jobs": """DROP TRIGGER jobs_before_insert ON jobq.jobs;
        CREATE TRIGGER jobs_before_insert BEFORE INSERT ON jobq.jobs FOR EACH ROW WHEN (NEW.scheduled_at > pg_catalog.now()
            OR NOT isfinite(NEW.scheduled_at) OR NEW.position IS NULL OR NEW.max_attempts IS NULL) EXECUTE FUNCTION jobq._jobs_before_insert()""",
    "default scheduled_at of jobq.jobs": "ALTER TABLE jobq.jobs ALTER scheduled_at SET DEFAULT now()",
    "index jobs_due of jobq.jobs": """DROP INDEX jobq.jobs_due;
        CREATE INDEX jobs_due ON jobq.jobs (scheduled_at) WHERE position IS NULL AND octet_length(queue) > 0""",
}


def test_what_is_bound_to_anothers_operators(db, cli, doctor, paste):
    db.query(PLANT)
    for sql in BOUND.values():
        with db.connect() as conn:
            conn.execute("SET search_path = public, pg_catalog; " + sql)
    db.query("ALTER TABLE jobq.jobs ADD mine text CHECK (public.octet_length(mine) < 9), ADD CONSTRAINT own CHECK (public.spring())")
    db.query("CREATE INDEX mine ON jobq.jobs (public.octet_length(mine))")
    db.query("INSERT INTO jobq.jobs (kind) VALUES ('a')")
    db.query("ALTER TABLE jobq.jobs DROP CONSTRAINT own")
    assert db.value("SELECT count(*) FROM public.sprung") > 0, "what it is that doctor tells of"
    assert "is bound to " in cli("migrate", "up", db=db, code=78).stderr
    said = doctor(db.uri)["bindings"]
    assert sorted(found.partition(" is bound to ")[0] for _, found, _ in said) == sorted(BOUND) and {level for level, *_ in said} == {"fail"}
    assert any(found.endswith("is bound to operator public.<(jobq.job_state,jobq.job_state) of role admin") for _, found, _ in said)
    for _, _, remedy in said:
        with db.connect() as conn:
            conn.execute("SET search_path = public, pg_catalog; " + remedy)
    assert [level for level, _, _ in doctor(db.uri)["bindings"]] == ["ok"]
    db.query("TRUNCATE public.sprung")
    db.query("INSERT INTO jobq.jobs (kind, scheduled_at) VALUES ('a', pg_catalog.now() + '1 h')")
    assert db.value("SELECT count(*) FROM public.sprung") == 0
    cli("migrate", "up", db=db)


def test_the_list_of_what_may_be_bound_is_what_the_steps_make(db):
    text = re.sub(r"'\s*\n\s*'", "", re.sub("--.*", "", (ROOT / "jobqd" / "sql" / "parts" / "bound.sql").read_text()))
    listed = {(sort, place, name) for sort, place, names in re.findall(r"\('(\w+)', '(\w+)', '([^']*)'\)", text) for name in names.split()}
    made = set(db.query("""
        SELECT 'constraint', c.relname::text, x.conname::text FROM pg_constraint x JOIN pg_class c ON c.oid = x.conrelid
         WHERE x.contype = 'c' AND x.coninhcount = 0 AND c.relnamespace = 'jobq'::regnamespace
        UNION ALL
        SELECT 'trigger', c.relname, x.tgname FROM pg_trigger x JOIN pg_class c ON c.oid = x.tgrelid
         WHERE NOT x.tgisinternal AND x.tgparentid = 0 AND c.relnamespace = 'jobq'::regnamespace
        UNION ALL
        SELECT 'default', c.relname, a.attname FROM pg_attrdef x JOIN pg_class c ON c.oid = x.adrelid
          JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = x.adnum
         WHERE c.relnamespace = 'jobq'::regnamespace AND NOT c.relispartition
        UNION ALL
        SELECT 'index', c.relname, i.relname FROM pg_index x JOIN pg_class c ON c.oid = x.indrelid JOIN pg_class i ON i.oid = x.indexrelid
         WHERE c.relnamespace = 'jobq'::regnamespace AND NOT c.relispartition
           AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = x.indexrelid)
        UNION ALL
        SELECT 'view', c.relname, c.relname FROM pg_class c WHERE c.relnamespace = 'jobq'::regnamespace AND c.relkind = 'v'"""))
    assert listed == {tuple(row) for row in made}


# ---- the page ----

PAGE = (ROOT / "jobqd" / "docs" / "roles.md").read_text(encoding="utf-8")


def test_the_page_has_the_table_of_grants():
    said = set()
    for who, may, on in re.findall(r"^\| ([a-z, ]+) \| ([A-Z][^|]*) \| ([^|]*) \|$", PAGE, re.M):
        rights, _, columns = may.partition(" of ")
        sorts = {name: sort for sort, names, *_ in grants() for name in names}
        said |= {(f"jobq_{role}", right, sorts[name], name, column)
                 for role in (ROLES if who == "all five" else who.split(", ")) for right in rights.split(", ")
                 for name in re.findall(r"`(\w+)`", on) or [""] for column in re.findall(r"`(\w+)`", columns) or [""]}
    assert said == wanted()


def sections():
    """{heading: [(role or None, statement)]} of the page's SQL; None is the superuser."""
    found = {}
    for heading, text in re.findall(r"^## (.*?)$(.*?)(?=^## |\Z)", PAGE, re.M | re.S):
        for block in re.findall(r"^```sql$(.*?)^```$", text, re.M | re.S):
            who = None
            for part in re.split(r"^(-- as \w+)$", block, flags=re.M):
                if part.startswith("-- as "):
                    who = part[len("-- as "):]
                else:
                    found.setdefault(heading, []).extend((who, sql) for sql in part.split(";") if sql.strip())
    return found


def test_each_part_gets_what_the_page_says(cluster, cli, jobqd, programs):
    """By the page's own statements, in its order; what a part has no right on is denied to it."""
    db = cluster.db
    done = {}

    def run(heading):
        for who, sql in sections()[heading]:
            if who is None:
                db.query(sql)
            else:
                with db.connect(user=who) as conn:
                    done[heading] = conn.execute(sql).fetchall()
    run("An application")
    job = done["An application"][0][0]
    assert job == 1
    db.query("UPDATE jobq.jobs SET state = 'executing', attempt = 1, attempted_by = 1")
    with db.connect(user="shop") as shop:
        for sql in ("SELECT jobq.complete(1, 1)", "SELECT args FROM jobq.jobs", "SELECT * FROM jobq.all_jobs", "SELECT jobq.cancel(1)"):
            bare(shop, sql)
    run("A worker")
    assert db.query("SELECT state::text, result FROM jobq.all_jobs") == [("completed", {"sent": True})]
    run("The results of an application's own jobs")
    assert done["The results of an application's own jobs"] == [("completed", {"sent": True})]
    cli("migrate", "up", "--schema", "shop_q", db=db)
    run("Applications that do not trust each other")
    assert done["Applications that do not trust each other"] == [(1,)]
    cli("migrate", "grant", "--schema", "shop_q", db=db)
    with db.connect(user="shop_app") as app:
        assert app.execute("SELECT shop_q.enqueue('mail')").fetchone() == (2,)
        app.execute("SELECT * FROM shop_q.try_enqueue('mail', key => 'a')")
        for sql in ("SELECT jobq.enqueue('mail')", "INSERT INTO jobq.jobs (kind) VALUES ('mail')", "SELECT shop_q.cancel(1)",
                    "SELECT args FROM shop_q.jobs"):
            bare(app, sql)
    with db.connect(user="shop") as shop:  # a member of jobq_enqueuer: in every schema
        shop.execute("SELECT shop_q.enqueue('mail')")
    for name, code in (("shop_app", 0), ("mailer", 77)):
        cli("enqueue", "mail", "--schema", "shop_q", "--database", uri(db, name), code=code)
    run("An operator")
    assert done["An operator"] == [(True,)]
    run("A viewer")
    assert done["A viewer"] == [("shop", "available", 1)]
    with db.connect(user="grafana") as viewer:
        bare(viewer, "SELECT jobq.cancel(1)")
    db.query("GRANT pg_monitor TO grafana")
    assert "could not check" not in cli("doctor", "--database", uri(db, "grafana"), code=None).stdout
    run("The daemon")
    node = jobqd(uri(db, "jobqd"), {"shop": {"command": programs("fault_worker")}})
    db.query("INSERT INTO jobq.jobs (kind, queue) VALUES ('ok', 'shop')")
    wait_for(lambda: db.value("SELECT count(*) FROM jobq.jobs WHERE kind = 'ok'") == 0)
    node.stop()
    db.query("DROP SCHEMA jobq CASCADE")
    run("Who migrates")
    cli("migrate", "up", "--database", uri(db, "deploy"))
    assert {row for row in have(db)} == wanted()
    with db.connect(user="shop") as shop:
        assert shop.execute("SELECT jobq.enqueue('mail')").fetchone() == (1,)
    assert set(done) | {"Who migrates"} == set(sections())
