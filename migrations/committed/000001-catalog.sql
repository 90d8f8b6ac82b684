--! Previous: -
--! Hash: sha1:979f3c8d4e6d444f3a9d5b15307d69d415d58c1e

-- The catalog: what a worker is (bgw.worker), what is registered now (bgw.process), what has finished
-- (bgw.run), what they are told (bgw.setting), what they said (bgw.log), and who runs them (bgw.node,
-- bgw.session, bgw.login).  Functions and views stand in sql/; only what they need to exist first is here.
--
-- Rights: a row belongs to the role in "owner".  Row-level security shows a row to the members of that
-- role; column grants leave out what only nodes may write.  The functions users call run as the user.

CREATE SCHEMA bgw;
GRANT USAGE ON SCHEMA bgw TO PUBLIC;

CREATE TABLE bgw.migration (
    id integer PRIMARY KEY,
    name text NOT NULL,
    hash text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE bgw.migration IS 'The migrations that were applied here.  Written by bgw migrate.';

CREATE TABLE bgw.sql_layer (
    hash text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE bgw.sql_layer IS 'The hash of sql/ as it was last applied, so that an unchanged layer is skipped.  One row.';

-- Needed by defaults and policies below, and never changed again.

CREATE FUNCTION bgw.current_owner() RETURNS oid
LANGUAGE sql STABLE
AS $$ SELECT oid FROM pg_catalog.pg_roles WHERE rolname = current_user $$;
COMMENT ON FUNCTION bgw.current_owner() IS 'The OID of the current role: who owns what is created now.';

CREATE FUNCTION bgw.now() RETURNS timestamptz
LANGUAGE sql VOLATILE
AS $$ SELECT coalesce(nullif(pg_catalog.current_setting('bgw.fake_now', true), '')::timestamptz, pg_catalog.clock_timestamp()) $$;
COMMENT ON FUNCTION bgw.now() IS 'The clock of the control functions.  A session may move its own by setting bgw.fake_now, as tests do.';

-- Definitions ---------------------------------------------------------------------------------------

CREATE TABLE bgw.worker (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    type text,
    owner oid NOT NULL DEFAULT bgw.current_owner(),
    flags text[] NOT NULL DEFAULT '{backend_database_connection}',
    start_time text NOT NULL DEFAULT 'recovery_finished',
    restart_time interval,
    command text,
    library_name text,
    function_name text,
    main_arg jsonb,
    database text,
    naptime text,
    mode text NOT NULL DEFAULT 'session',
    timeout interval,
    max_instances integer,
    autostart boolean NOT NULL DEFAULT false,
    enabled boolean NOT NULL DEFAULT true,
    unregistered boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT name_is_unique_per_owner UNIQUE (owner, name),
    CONSTRAINT name_has_1_to_63_bytes CHECK (octet_length(name) BETWEEN 1 AND 63),
    CONSTRAINT exactly_one_of_command_and_function CHECK ((command IS NULL) <> (function_name IS NULL)),
    CONSTRAINT function_belongs_to_a_library CHECK ((library_name IS NULL) = (function_name IS NULL)),
    CONSTRAINT flags_are_known CHECK (flags <@ '{shmem_access,backend_database_connection,interruptible}'),
    CONSTRAINT start_time_is_known CHECK (start_time IN ('postmaster_start', 'consistent_state', 'recovery_finished')),
    CONSTRAINT mode_is_known CHECK (mode IN ('session', 'atomic')),
    CONSTRAINT restart_time_is_not_negative CHECK (restart_time >= interval '0'),
    CONSTRAINT timeout_is_positive CHECK (timeout > interval '0'),
    CONSTRAINT max_instances_is_positive CHECK (max_instances > 0)
);
COMMENT ON TABLE bgw.worker IS 'One row per worker definition: the BackgroundWorker struct.  Written by bgw_register, or by plain INSERT and UPDATE of its owner.';
COMMENT ON COLUMN bgw.worker.name IS 'Unique per owner, 1 to 63 bytes, no control characters.';
COMMENT ON COLUMN bgw.worker.type IS 'bgw_type: what several workers have in common.  NULL: the name.';
COMMENT ON COLUMN bgw.worker.owner IS 'The role, by OID, in whose name the worker runs.  Always the role that inserted the row.';
COMMENT ON COLUMN bgw.worker.flags IS 'backend_database_connection: the worker may use sessions.';
COMMENT ON COLUMN bgw.worker.start_time IS 'The state of the server from which the worker may run.';
COMMENT ON COLUMN bgw.worker.restart_time IS 'How long after a failure it is started again.  NULL: never.';
COMMENT ON COLUMN bgw.worker.command IS 'SQL worker: the statement it runs.';
COMMENT ON COLUMN bgw.worker.library_name IS 'TypeScript worker: a library that the operator has listed; never a path.';
COMMENT ON COLUMN bgw.worker.function_name IS 'TypeScript worker: the exported function of the library.';
COMMENT ON COLUMN bgw.worker.main_arg IS 'The argument of the worker; bgw_launch may replace it.';
COMMENT ON COLUMN bgw.worker.database IS 'The database it connects to, or the name of a setting that says so.  NULL: the one this catalog is in.';
COMMENT ON COLUMN bgw.worker.naptime IS 'SQL worker: how long it sleeps between two runs of its command: an interval, or the name of a setting.  NULL: it runs once.';
COMMENT ON COLUMN bgw.worker.mode IS 'session: the command is sent as psql would send it.  atomic: command and completion commit together.';
COMMENT ON COLUMN bgw.worker.timeout IS 'How long one run of the command may take.  NULL: for ever.';
COMMENT ON COLUMN bgw.worker.max_instances IS 'How many processes of this worker may be registered at a time.  NULL: any number.';
COMMENT ON COLUMN bgw.worker.autostart IS 'Registered whenever the first node joins, as a worker of shared_preload_libraries is.';
COMMENT ON COLUMN bgw.worker.enabled IS 'A worker that is not enabled is not started.';
COMMENT ON COLUMN bgw.worker.unregistered IS 'bgw_unregister was called; keep_house deletes the row.  Users have no DELETE: it would let them LOCK the table, and so stop every node.';

-- Instances -----------------------------------------------------------------------------------------

CREATE SEQUENCE bgw.run_id AS bigint;

CREATE TABLE bgw.process (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    worker_id bigint,
    name text NOT NULL,
    owner oid NOT NULL DEFAULT bgw.current_owner(),
    command text,
    database text,
    mode text,
    timeout interval,
    main_arg jsonb,
    takes_slot boolean NOT NULL DEFAULT true,
    queued_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    status text NOT NULL DEFAULT 'not_yet_started',
    node_id bigint,
    epoch integer,
    run_id bigint,
    pid integer,
    backend_start timestamptz,
    os_pid integer,
    claimed_at timestamptz,
    started_at timestamptz,
    restarts integer NOT NULL DEFAULT 0,
    next_start timestamptz,
    last_exit_code integer,
    last_sqlstate text,
    last_error text,
    restart_requested boolean NOT NULL DEFAULT false,
    stop_requested_at timestamptz,
    stop_requested_by text,
    CONSTRAINT status_is_known CHECK (status IN ('not_yet_started', 'started')),
    CONSTRAINT only_a_claimed_process_has_started CHECK (status = 'not_yet_started' OR run_id IS NOT NULL),
    CONSTRAINT a_claim_names_its_node CHECK ((run_id IS NULL) = (node_id IS NULL) AND (run_id IS NULL) = (epoch IS NULL)),
    CONSTRAINT mode_is_known CHECK (mode IN ('session', 'atomic')),
    CONSTRAINT not_both_worker_and_command CHECK (worker_id IS NULL OR command IS NULL)
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200, autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 500);
CREATE INDEX process_is_waiting ON bgw.process (id) WHERE run_id IS NULL;
CREATE INDEX process_waits_until ON bgw.process (next_start) WHERE run_id IS NULL AND next_start IS NOT NULL;
CREATE INDEX process_is_stopped ON bgw.process (id) WHERE run_id IS NULL AND (stop_requested_at IS NOT NULL OR command IS NULL);
CREATE INDEX process_of_worker ON bgw.process (worker_id);
CREATE INDEX process_of_node ON bgw.process (node_id);
CREATE INDEX process_has_name ON bgw.process (name);
COMMENT ON TABLE bgw.process IS
'One row per registered instance (the BackgroundWorkerSlot): only what is not finished.  Inserted by its owner at launch, then written by nodes only.
 waiting  run_id IS NULL                                any node may claim it
 claimed  run_id IS NOT NULL, status not_yet_started    only node_id at its epoch may write
 started  run_id IS NOT NULL, status started            only node_id at its epoch may write';
COMMENT ON COLUMN bgw.process.id IS 'The handle; never reused.';
COMMENT ON COLUMN bgw.process.worker_id IS 'Its definition; NULL for bgw_launch_sql.  No foreign key: its locks would let an open transaction of a user stop a node.';
COMMENT ON COLUMN bgw.process.name IS 'Name of the worker, or the name given to bgw_launch_sql.  Set at launch.';
COMMENT ON COLUMN bgw.process.owner IS 'Owner of the worker.  Set by trigger at launch.';
COMMENT ON COLUMN bgw.process.takes_slot IS 'false for a SQL worker with a nap time: between two runs it costs nothing.  Set by trigger at launch.';
COMMENT ON COLUMN bgw.process.node_id IS 'The node that claimed it.  Written by claim_startable; cleared when it waits again.';
COMMENT ON COLUMN bgw.process.epoch IS 'The epoch of that node at the claim.';
COMMENT ON COLUMN bgw.process.run_id IS 'The current attempt, and the token that every report about it must carry.';
COMMENT ON COLUMN bgw.process.pid IS 'The backend that it holds now.  Written by report; NULL between two runs.';
COMMENT ON COLUMN bgw.process.os_pid IS 'TypeScript worker: its operating system process on the node.  Written by report.';
COMMENT ON COLUMN bgw.process.restarts IS 'How often it was started again.  Written by report.';
COMMENT ON COLUMN bgw.process.next_start IS 'Waiting: not to be started before this time.  NULL: at once.';
COMMENT ON COLUMN bgw.process.restart_requested IS 'bgw_restart was called: start again when it has ended.  Written by deliver_signals.';
COMMENT ON COLUMN bgw.process.stop_requested_at IS 'bgw_terminate was called, by stop_requested_by: it is unregistered when it has ended.  Written by deliver_signals.';

CREATE TABLE bgw.signal (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    process_id bigint NOT NULL,
    signal text NOT NULL,
    requested_by text NOT NULL DEFAULT current_user,
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT signal_is_known CHECK (signal IN ('SIGHUP', 'SIGINT', 'SIGTERM', 'SIGUSR1', 'RESTART'))
);
CREATE INDEX signal_of_process ON bgw.signal (process_id);
COMMENT ON TABLE bgw.signal IS 'Signals that users sent and no node has taken yet.  Users only insert: no transaction of theirs ever holds a lock that a node waits for.';

CREATE UNLOGGED TABLE bgw.activity (
    process_id bigint PRIMARY KEY,
    state text,
    query text,
    reported_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);
COMMENT ON TABLE bgw.activity IS 'What a TypeScript worker says it is doing (pgstat_report_activity).  Written by report.';

-- History -------------------------------------------------------------------------------------------

CREATE TABLE bgw.run (
    id bigint NOT NULL,
    process_id bigint NOT NULL,
    worker_id bigint,
    name text NOT NULL,
    owner oid NOT NULL,
    node text,
    pid integer,
    os_pid integer,
    status text NOT NULL,
    exit_code integer,
    command_tag text,
    rows bigint,
    sqlstate text,
    message text,
    detail text,
    hint text,
    context text,
    queued_at timestamptz NOT NULL,
    started_at timestamptz,
    finished_at timestamptz NOT NULL,
    main_arg jsonb,
    stop_requested_at timestamptz,
    stop_requested_by text,
    PRIMARY KEY (finished_at, id),
    CONSTRAINT status_is_known CHECK (status IN ('done', 'failed', 'lost', 'cancelled', 'expired'))
) PARTITION BY RANGE (finished_at);
CREATE INDEX run_of_worker ON bgw.run (worker_id, finished_at);
CREATE INDEX run_of_process ON bgw.run (process_id);
CREATE TABLE bgw.run_default PARTITION OF bgw.run DEFAULT;
COMMENT ON TABLE bgw.run IS 'One row per finished run, partitioned by day; partitions older than seven days are dropped.  Written by report.';
COMMENT ON COLUMN bgw.run.status IS 'done: exit code 0.  failed: an error or a crash.  cancelled: somebody asked for it.  expired: its timeout.  lost: its node died.';

CREATE TABLE bgw.log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    logged_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    node text,
    process_id bigint,
    name text,
    owner oid NOT NULL DEFAULT bgw.current_owner(),
    severity text NOT NULL,
    sqlstate text,
    message text NOT NULL,
    detail text,
    hint text,
    context text
);
COMMENT ON TABLE bgw.log IS 'What workers and nodes said: the newest 10,000 lines.  Written by report, trimmed by keep_house.';

-- Settings ------------------------------------------------------------------------------------------

CREATE TABLE bgw.setting (
    owner oid NOT NULL DEFAULT bgw.current_owner(),
    name text NOT NULL,
    vartype text NOT NULL DEFAULT 'string',
    unit text,
    min_val numeric,
    max_val numeric,
    enumvals text[],
    boot_val text NOT NULL,
    context text NOT NULL DEFAULT 'sighup',
    short_desc text NOT NULL DEFAULT '',
    setting text,
    pending text,
    changed_at timestamptz,
    PRIMARY KEY (owner, name),
    CONSTRAINT name_has_a_prefix CHECK (name ~ '^[A-Za-z_][A-Za-z0-9_$]*([.][A-Za-z_][A-Za-z0-9_$]*)+$' AND octet_length(name) <= 127),
    CONSTRAINT vartype_is_known CHECK (vartype IN ('bool', 'integer', 'real', 'string', 'enum')),
    CONSTRAINT context_is_known CHECK (context IN ('internal', 'postmaster', 'sighup')),
    CONSTRAINT unit_is_known CHECK (unit IN ('us', 'ms', 's', 'min', 'h', 'd', 'B', 'kB', 'MB', 'GB', 'TB')),
    CONSTRAINT an_enum_lists_its_values CHECK ((vartype = 'enum') = (enumvals IS NOT NULL))
);
COMMENT ON TABLE bgw.setting IS 'Definitions and values of settings (GUCs).  Values are in the base unit, as in pg_settings.setting.  Written by bgw_define_setting and bgw_set_config.';
COMMENT ON COLUMN bgw.setting.setting IS 'The value set; NULL: boot_val.';
COMMENT ON COLUMN bgw.setting.pending IS 'Context postmaster: the value to be taken over when the first node joins.';

-- Nodes ---------------------------------------------------------------------------------------------

CREATE TABLE bgw.node (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    epoch integer NOT NULL DEFAULT 1,
    login oid NOT NULL,
    control_pid integer NOT NULL,
    control_backend_start timestamptz NOT NULL,
    control_gone_since timestamptz,
    lease_until timestamptz NOT NULL,
    fenced boolean NOT NULL DEFAULT false,
    libraries text[] NOT NULL DEFAULT '{}',
    max_worker_processes integer NOT NULL,
    timeline text,
    joined_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);
COMMENT ON TABLE bgw.node IS 'One row per running controller.';
COMMENT ON COLUMN bgw.node.epoch IS 'Every call of the node carries it; a node that is fenced gets a higher one and is refused.  Written by fence_node.';
COMMENT ON COLUMN bgw.node.lease_until IS 'On the server''s clock; renewed by every call of the node.';
COMMENT ON COLUMN bgw.node.control_gone_since IS 'Since when another node misses its control session.';
COMMENT ON COLUMN bgw.node.timeline IS 'Of the server when the node joined: another one ends its epoch (I17).';

CREATE TABLE bgw.session (
    pid integer NOT NULL,
    backend_start timestamptz NOT NULL,
    node_id bigint NOT NULL,
    epoch integer NOT NULL,
    owner oid NOT NULL,
    database text NOT NULL,
    PRIMARY KEY (pid, backend_start)
);
CREATE INDEX session_of_node ON bgw.session (node_id);
COMMENT ON TABLE bgw.session IS 'Every session of every node, registered before it runs any user text: exactly these are terminated when the node is fenced.';

CREATE TABLE bgw.login (
    owner oid PRIMARY KEY
);
COMMENT ON TABLE bgw.login IS 'The roles whose workers can run: those that a node logs in as.  Written by the first migration and by join_node.';
INSERT INTO bgw.login (owner) VALUES (bgw.current_owner());

CREATE TABLE bgw.duty (
    name text PRIMARY KEY,
    due_at timestamptz NOT NULL DEFAULT '-infinity'
);
COMMENT ON TABLE bgw.duty IS 'Chores that one node does for all when they are due.';
INSERT INTO bgw.duty (name) VALUES ('keep_house');

-- Triggers: thin, so that the text of what they call stands in sql/ ----------------------------------

CREATE FUNCTION bgw.check_worker_row() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM bgw.check_worker(NEW); RETURN NEW; END $$;
CREATE TRIGGER worker_is_checked BEFORE INSERT OR UPDATE ON bgw.worker FOR EACH ROW EXECUTE FUNCTION bgw.check_worker_row();

CREATE FUNCTION bgw.autostart_worker_row() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM bgw.autostart(NEW.id); RETURN NULL; END $$;
CREATE TRIGGER worker_is_autostarted AFTER INSERT OR UPDATE OF autostart, enabled, unregistered ON bgw.worker
    FOR EACH ROW WHEN (NEW.autostart AND NEW.enabled AND NOT NEW.unregistered) EXECUTE FUNCTION bgw.autostart_worker_row();

CREATE FUNCTION bgw.fill_process_row() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN NEW := bgw.fill_process(NEW); RETURN NEW; END $$;
CREATE TRIGGER process_is_filled BEFORE INSERT ON bgw.process FOR EACH ROW EXECUTE FUNCTION bgw.fill_process_row();

-- Who sees and writes what --------------------------------------------------------------------------

ALTER TABLE bgw.worker ENABLE ROW LEVEL SECURITY;
ALTER TABLE bgw.process ENABLE ROW LEVEL SECURITY;
ALTER TABLE bgw.signal ENABLE ROW LEVEL SECURITY;
ALTER TABLE bgw.activity ENABLE ROW LEVEL SECURITY;
ALTER TABLE bgw.run ENABLE ROW LEVEL SECURITY;
ALTER TABLE bgw.log ENABLE ROW LEVEL SECURITY;
ALTER TABLE bgw.setting ENABLE ROW LEVEL SECURITY;

CREATE POLICY members_of_the_owner ON bgw.worker USING (pg_has_role(owner, 'USAGE'));
CREATE POLICY members_of_the_owner ON bgw.process USING (pg_has_role(owner, 'USAGE'));
CREATE POLICY members_of_the_owner ON bgw.run FOR SELECT USING (pg_has_role(owner, 'USAGE'));
CREATE POLICY members_of_the_owner ON bgw.log FOR SELECT USING (pg_has_role(owner, 'USAGE'));
CREATE POLICY members_of_the_owner ON bgw.setting USING (pg_has_role(owner, 'USAGE'));
CREATE POLICY members_of_the_owner ON bgw.signal USING (EXISTS (SELECT FROM bgw.process WHERE process.id = process_id));
CREATE POLICY members_of_the_owner ON bgw.activity FOR SELECT USING (EXISTS (SELECT FROM bgw.process WHERE process.id = process_id));

GRANT SELECT ON bgw.worker, bgw.process, bgw.signal, bgw.activity, bgw.run, bgw.log, bgw.setting, bgw.login TO PUBLIC;
GRANT SELECT (id, name, lease_until, fenced, login, libraries, max_worker_processes, joined_at) ON bgw.node TO PUBLIC;
GRANT SELECT (pid, backend_start) ON bgw.session TO PUBLIC;

GRANT INSERT (name, type, flags, start_time, restart_time, command, library_name, function_name, main_arg, database, naptime, mode, timeout, max_instances, autostart, enabled),
      UPDATE (name, type, flags, start_time, restart_time, command, library_name, function_name, main_arg, database, naptime, mode, timeout, max_instances, autostart, enabled, unregistered)
      ON bgw.worker TO PUBLIC;
GRANT INSERT (worker_id, name, command, database, mode, timeout, main_arg) ON bgw.process TO PUBLIC;
GRANT INSERT (process_id, signal) ON bgw.signal TO PUBLIC;
GRANT INSERT (name, vartype, unit, min_val, max_val, enumvals, boot_val, context, short_desc),
      UPDATE (vartype, unit, min_val, max_val, enumvals, boot_val, context, short_desc, setting, pending, changed_at)
      ON bgw.setting TO PUBLIC;
