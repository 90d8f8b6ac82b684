-- What is in effect now: the settings of an owner, the nap time and database of a worker, whether a node is alive.
-- Reads tables, changes nothing.  Called by api/ and views/ for users and by control/ for nodes, so that both get the same answer.

CREATE OR REPLACE FUNCTION bgw.settings_of(owner oid) RETURNS jsonb
LANGUAGE sql STABLE
AS $$
    SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'name', setting.name, 'vartype', setting.vartype, 'unit', setting.unit, 'setting', coalesce(setting.setting, setting.boot_val),
        'shown', bgw.show_setting(setting.vartype, setting.unit, coalesce(setting.setting, setting.boot_val))) ORDER BY setting.name), '[]')
    FROM bgw.setting WHERE setting.owner = settings_of.owner
$$;
COMMENT ON FUNCTION bgw.settings_of(oid) IS 'The settings of one owner as nodes get them: name, type, value in the base unit, value as SHOW prints it.';

CREATE OR REPLACE FUNCTION bgw.nap_of(worker bgw.worker) RETURNS interval
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    IF worker.naptime ~ '^[A-Za-z_]' THEN
        RETURN (SELECT bgw.show_setting(setting.vartype, setting.unit, coalesce(setting.setting, setting.boot_val))::interval
                FROM bgw.setting WHERE setting.owner = worker.owner AND pg_catalog.lower(setting.name) = pg_catalog.lower(worker.naptime));
    END IF;
    RETURN worker.naptime::interval;
EXCEPTION WHEN data_exception THEN
    RETURN NULL;  -- One bad row never stops the others: bgw.obstacle says why it waits.
END;
$$;
COMMENT ON FUNCTION bgw.nap_of(bgw.worker) IS 'The nap time of a worker now: its own, or the value of the setting that it names; NULL if that is no interval.';

CREATE OR REPLACE FUNCTION bgw.database_of(database text, owner oid) RETURNS text
LANGUAGE sql STABLE
AS $$
    SELECT coalesce(nullif(coalesce(
        (SELECT coalesce(setting.setting, setting.boot_val) FROM bgw.setting WHERE setting.owner = database_of.owner AND pg_catalog.lower(setting.name) = pg_catalog.lower(database_of.database)),
        database), ''), pg_catalog.current_database())
$$;
COMMENT ON FUNCTION bgw.database_of(text, oid) IS 'Where a worker runs: the database it names, or the value of the setting it names; NULL or empty: this database.';

CREATE OR REPLACE FUNCTION bgw.lacks_database(database text) RETURNS boolean
LANGUAGE sql STABLE
AS $$ SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = database AND datallowconn) $$;
COMMENT ON FUNCTION bgw.lacks_database(text) IS 'Whether that database does not exist or accepts no connections.';

CREATE OR REPLACE FUNCTION bgw.interruption_time() RETURNS interval
LANGUAGE sql IMMUTABLE
AS $$ SELECT interval '10 s' $$;
COMMENT ON FUNCTION bgw.interruption_time() IS 'How long interruptible workers stay away from an interrupted database: CREATE and DROP DATABASE wait five seconds for others to leave.';

CREATE OR REPLACE FUNCTION bgw.is_interrupted(process bgw.process, worker bgw.worker) RETURNS boolean
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN coalesce('interruptible' = ANY (worker.flags), false) AND EXISTS (
        SELECT FROM bgw.interruption
        WHERE interruption.database = bgw.database_of(coalesce(worker.database, process.database), process.owner)
          AND interruption.requested_at > bgw.now() - bgw.interruption_time());
END;
$$;
COMMENT ON FUNCTION bgw.is_interrupted(bgw.process, bgw.worker) IS 'Whether a worker has to stay away from its database for now.';

CREATE OR REPLACE FUNCTION bgw.has_live_node() RETURNS boolean
LANGUAGE sql
AS $$ SELECT EXISTS (SELECT FROM bgw.node WHERE NOT node.fenced AND node.lease_until > pg_catalog.clock_timestamp()) $$;
COMMENT ON FUNCTION bgw.has_live_node() IS 'Whether any controller is alive, by its lease.';
