-- What is in effect now: the settings of an owner and of a worker, its nap time and database, whether a node is alive.
-- Reads tables, changes nothing.  Called by api/ and views/ for users and by control/ for nodes, so that both get the same answer.
-- The value of a setting: given to bgw_launch, else to bgw_register, else to bgw_set_config, else the boot value.

CREATE OR REPLACE FUNCTION bgw.settings_of(owner oid) RETURNS json
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN (SELECT coalesce(pg_catalog.json_agg(given), '[]')
            FROM (SELECT definition.name, definition.vartype, definition.unit, coalesce(definition.setting, definition.boot_val) AS setting,
                         -- NULL in a row of before this column.
                         coalesce(definition.shown, bgw.show_setting(definition.vartype, definition.unit, coalesce(definition.setting, definition.boot_val))) AS shown
                  FROM bgw.setting AS definition WHERE definition.owner = settings_of.owner ORDER BY definition.name) AS given);
END;
$$;
COMMENT ON FUNCTION bgw.settings_of(oid) IS 'The settings of one owner as nodes get them: name, type, value in the base unit, value as SHOW prints it.';

CREATE OR REPLACE FUNCTION bgw.overrides(of_worker jsonb, of_process jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE
AS $$ SELECT coalesce(of_worker || of_process, of_worker, of_process) $$;
COMMENT ON FUNCTION bgw.overrides(jsonb, jsonb) IS 'The settings that a process has for itself: those given at its launch win over those of its worker.  NULL: none.';

CREATE OR REPLACE FUNCTION bgw.order_overrides(owner oid, overrides jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    -- Nearly always.  The settings of the owner are sent once for all orders, so an order carries only what differs.
    IF overrides IS NULL THEN
        RETURN NULL;
    END IF;
    RETURN (SELECT pg_catalog.jsonb_agg(bgw.setting_value(definition, order_overrides.overrides))
            FROM pg_catalog.jsonb_object_keys(order_overrides.overrides) AS given (name)
            JOIN bgw.setting AS definition ON definition.owner = order_overrides.owner AND definition.name = given.name);
END;
$$;
COMMENT ON FUNCTION bgw.order_overrides(oid, jsonb) IS 'The settings that a process has for itself, in the form of bgw.settings_of; NULL: none.';

CREATE OR REPLACE FUNCTION bgw.setting_value(definition bgw.setting, overrides jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    setting text := bgw.value_of(definition, overrides);
BEGIN
    RETURN pg_catalog.jsonb_build_object('name', definition.name, 'vartype', definition.vartype, 'unit', definition.unit, 'setting', setting,
                                         'shown', bgw.show_setting(definition.vartype, definition.unit, setting));
END;
$$;
COMMENT ON FUNCTION bgw.setting_value(bgw.setting, jsonb) IS 'One setting as nodes get it.';

CREATE OR REPLACE FUNCTION bgw.value_of(definition bgw.setting, overrides jsonb) RETURNS text
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    IF overrides ? definition.name THEN
        BEGIN
            RETURN bgw.parse_value(definition, overrides ->> definition.name);
        EXCEPTION WHEN data_exception THEN
            NULL;  -- The definition has changed since it was given: one bad row never stops the others.
        END;
    END IF;
    RETURN coalesce(definition.setting, definition.boot_val);
END;
$$;
COMMENT ON FUNCTION bgw.value_of(bgw.setting, jsonb) IS 'The value of a setting in the base unit, for a process that has these settings for itself.';

CREATE OR REPLACE FUNCTION bgw.nap_of(worker bgw.worker, overrides jsonb) RETURNS interval
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    IF worker.naptime ~ '^[A-Za-z_]' THEN
        RETURN (SELECT CASE WHEN shown.nap < interval '10 ms' THEN interval '10 ms' ELSE shown.nap END
                FROM bgw.setting AS definition
                CROSS JOIN LATERAL (SELECT bgw.show_setting(definition.vartype, definition.unit, bgw.value_of(definition, overrides))::interval AS nap) AS shown
                WHERE definition.owner = worker.owner AND pg_catalog.lower(definition.name) = pg_catalog.lower(worker.naptime));
    END IF;
    RETURN worker.naptime::interval;
EXCEPTION WHEN data_exception THEN
    RETURN NULL;  -- One bad row never stops the others: bgw.obstacle says why it waits.
END;
$$;
COMMENT ON FUNCTION bgw.nap_of(bgw.worker, jsonb) IS 'The nap time of a worker now: its own, or the value of the setting that it names, at least 10 ms; NULL if that is no interval.  overrides: settings of the process.';

CREATE OR REPLACE FUNCTION bgw.database_of(database text, owner oid, overrides jsonb) RETURNS text
LANGUAGE sql STABLE
AS $$
    SELECT coalesce(nullif(coalesce(
        (SELECT bgw.value_of(definition, overrides) FROM bgw.setting AS definition
         WHERE definition.owner = database_of.owner AND pg_catalog.lower(definition.name) = pg_catalog.lower(database_of.database)),
        database), ''), pg_catalog.current_database())
$$;
COMMENT ON FUNCTION bgw.database_of(text, oid, jsonb) IS
'Where a worker runs: the database it names, or the value of the setting it names; NULL or empty: this database.  overrides: settings of the process.';

CREATE OR REPLACE FUNCTION bgw.database_of_process(process bgw.process, worker bgw.worker) RETURNS text
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN bgw.database_of(coalesce(worker.database, process.database), process.owner, bgw.overrides(worker.settings, process.settings));
END;
$$;
COMMENT ON FUNCTION bgw.database_of_process(bgw.process, bgw.worker) IS 'Where a process runs.';

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
        WHERE interruption.database = bgw.database_of_process(process, worker)
          AND interruption.requested_at > bgw.now() - bgw.interruption_time());
END;
$$;
COMMENT ON FUNCTION bgw.is_interrupted(bgw.process, bgw.worker) IS 'Whether a worker has to stay away from its database for now.';

CREATE OR REPLACE FUNCTION bgw.is_uncommitted(written_by xid) RETURNS boolean
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    present bigint := pg_catalog.txid_current_if_assigned();
    -- An xid has no epoch: how far it is ahead of the one of this transaction.
    ahead bigint := (written_by::text::bigint - present % 4294967296 + 4294967296) % 4294967296;
BEGIN
    -- A row that is seen although its transaction is in progress is of this transaction, or of a savepoint in it.
    RETURN coalesce(ahead < 2147483648, false) AND pg_catalog.txid_status(present + ahead) = 'in progress';
END;
$$;
COMMENT ON FUNCTION bgw.is_uncommitted(xid) IS 'Whether a row that is seen was written by this very transaction, so that nobody else sees it.  written_by: its xmin.';
