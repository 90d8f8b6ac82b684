-- bgw_stat_activity: every registered worker, running or not: the server's own pg_stat_activity, then what core lacks.
-- Read by users and by bgw status.  Written by sql/control/report.sql.  A row is seen by members of its owner.
-- A plain view would show the rows of its owner, so it stands on a function that runs as the reader.

CREATE OR REPLACE FUNCTION bgw.stat_workers(
    OUT pid integer, OUT backend_start timestamptz, OUT reported jsonb, OUT handle bigint, OUT name text, OUT status text, OUT node text, OUT os_pid integer,
    OUT restarts integer, OUT last_exit_code integer, OUT last_sqlstate text, OUT last_error text, OUT next_start timestamptz, OUT waiting_for text, OUT settings jsonb,
    OUT failures integer, OUT gave_up text, OUT worker_set text, OUT key text
) RETURNS SETOF record
LANGUAGE sql STABLE
AS $$
    SELECT process.pid, process.backend_start,
           CASE WHEN process.run_id IS NOT NULL AND activity.process_id IS NOT NULL
                THEN pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object('state', activity.state, 'query', activity.query)) END,
           process.id, process.name, process.status, node.name, process.os_pid, process.restarts,
           process.last_exit_code, process.last_sqlstate, process.last_error, process.next_start,
           CASE WHEN process.run_id IS NULL AND pg_catalog.txid_current_if_assigned() IS NOT NULL AND bgw.is_uncommitted(process.xmin)
                THEN 'the commit of this transaction' ELSE obstacle END,
           own.settings, process.failures, NULL, process.worker_set, process.key
    FROM bgw.process LEFT JOIN bgw.worker ON worker.id = process.worker_id
    LEFT JOIN bgw.node ON node.id = process.node_id
    LEFT JOIN bgw.read_activity() AS activity ON activity.process_id = process.id
    CROSS JOIN LATERAL bgw.obstacle(process, worker)
    CROSS JOIN LATERAL bgw.own_settings(process.owner, process.name, worker.library_name, bgw.overrides(worker.settings, process.settings)) AS own (settings)
  UNION ALL
    SELECT NULL, NULL, NULL, NULL, worker.name, 'stopped', last_run.node, NULL, 0,
           last_run.exit_code, last_run.sqlstate, bgw.error_text(last_run.exit_code, last_run.message, last_run.detail, last_run.hint, last_run.context),
           NULL, CASE WHEN NOT worker.enabled THEN 'worker is not enabled'
                      WHEN worker.autostart AND worker.owner NOT IN (SELECT oid FROM pg_catalog.pg_roles)
                          THEN pg_catalog.format('role with OID %s does not exist', worker.owner)
                      WHEN worker.autostart AND worker.owner NOT IN (SELECT login.owner FROM bgw.login)
                          THEN pg_catalog.format('there is no login for role "%s"', pg_catalog.pg_get_userbyid(worker.owner))
                      ELSE 'a launch' || coalesce(': it gave up after ' || last_run.gave_up, '') END,
           own.settings, 0, last_run.gave_up, NULL, NULL
    FROM bgw.worker
    LEFT JOIN LATERAL (SELECT * FROM bgw.run WHERE run.worker_id = worker.id ORDER BY run.finished_at DESC LIMIT 1) AS last_run ON true
    CROSS JOIN LATERAL bgw.own_settings(worker.owner, worker.name, worker.library_name, worker.settings) AS own (settings)
    WHERE NOT worker.unregistered AND NOT EXISTS (SELECT FROM bgw.process WHERE process.worker_id = worker.id)
$$;
COMMENT ON FUNCTION bgw.stat_workers() IS 'The part of bgw_stat_activity that core lacks, as the reader may see it.';

CREATE OR REPLACE FUNCTION bgw.read_activity() RETURNS SETOF bgw.activity
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    -- An unlogged table cannot even be planned for on a standby.
    IF NOT pg_catalog.pg_is_in_recovery() THEN
        RETURN QUERY SELECT * FROM bgw.activity;
    END IF;
END;
$$;
COMMENT ON FUNCTION bgw.read_activity() IS 'What TypeScript workers say they are doing, as the reader may see it; nothing on a standby.';

-- These two return rows so that their text becomes part of the query that reads them: what is the same for all workers is looked
-- up once, not for each of them.

CREATE OR REPLACE FUNCTION bgw.obstacle(process bgw.process, worker bgw.worker) RETURNS SETOF text
LANGUAGE sql STABLE
AS $$
    -- In the order of the conditions in claim_startable.
    SELECT CASE
        WHEN process.run_id IS NOT NULL THEN CASE
            WHEN process.node_id NOT IN (SELECT bgw.live_nodes())
                THEN pg_catalog.format('another controller: node "%s" is gone', (SELECT node.name FROM bgw.node WHERE node.id = process.node_id))
            WHEN process.status = 'not_yet_started' THEN 'the start on its node' END
        WHEN process.stop_requested_at IS NOT NULL THEN 'termination'
        WHEN process.owner NOT IN (SELECT oid FROM pg_catalog.pg_roles) THEN pg_catalog.format('role with OID %s does not exist', process.owner)
        WHEN process.owner NOT IN (SELECT login.owner FROM bgw.login) THEN pg_catalog.format('there is no login for role "%s"', pg_catalog.pg_get_userbyid(process.owner))
        WHEN NOT coalesce(worker.enabled, true) THEN 'worker is not enabled'
        WHEN coalesce(worker.database, process.database) IS NOT NULL AND bgw.lacks_database(bgw.database_of_process(process, worker))
            THEN pg_catalog.format('database "%s" does not exist or accepts no connections', bgw.database_of_process(process, worker))
        WHEN worker.naptime ~ '^[A-Za-z_]' AND bgw.nap_of(worker, bgw.overrides(worker.settings, process.settings)) IS NULL THEN pg_catalog.format(
            CASE WHEN (worker.owner, pg_catalog.lower(worker.naptime)) IN (SELECT setting.owner, pg_catalog.lower(setting.name) FROM bgw.setting)
                 THEN 'configuration parameter "%s" is not an interval' ELSE 'configuration parameter "%s" does not exist' END, worker.naptime)
        WHEN 'interruptible' = ANY (worker.flags) AND bgw.is_interrupted(process, worker)
            THEN pg_catalog.format('the end of the interruption of database "%s"', bgw.database_of_process(process, worker))
        WHEN process.one_at_a_time AND process.id NOT IN (SELECT min(here.id) FROM bgw.process AS here WHERE here.schedule_id IS NOT NULL GROUP BY here.schedule_id)
            THEN 'an earlier run of its schedule'
        WHEN process.next_start IS NOT NULL AND bgw.is_ahead(process.next_start) THEN 'restart time'
        WHEN NOT (SELECT bgw.has_live_node()) THEN 'a controller: none is running'
        WHEN process.owner NOT IN (SELECT node.login FROM bgw.node WHERE NOT node.fenced) THEN pg_catalog.format('a controller that logs in as "%s"', pg_catalog.pg_get_userbyid(process.owner))
        WHEN worker.library_name IS NOT NULL AND worker.library_name NOT IN (SELECT pg_catalog.unnest(node.libraries) FROM bgw.node WHERE NOT node.fenced)
            THEN pg_catalog.format('a controller with the library "%s"', worker.library_name)
        WHEN process.takes_slot THEN pg_catalog.format('a free slot: max_worker_processes is %s', (SELECT sum(node.max_worker_processes) FROM bgw.node WHERE NOT node.fenced))
        ELSE 'its turn'
    END
$$;
COMMENT ON FUNCTION bgw.obstacle(bgw.process, bgw.worker) IS 'Why a process is not started; one row, NULL if it is.  A node that cannot open a session for it says so in bgw_log.';

CREATE OR REPLACE FUNCTION bgw.is_ahead(moment timestamptz) RETURNS boolean
LANGUAGE plpgsql STABLE
AS $$ BEGIN RETURN moment > bgw.now(); END $$;
COMMENT ON FUNCTION bgw.is_ahead(timestamptz) IS 'Whether a moment is still to come.  Stable, where bgw.now is volatile: the text of bgw.obstacle would not become part of its reader otherwise.';

CREATE OR REPLACE FUNCTION bgw.own_settings(owner oid, name text, library_name text, overrides jsonb) RETURNS SETOF jsonb
LANGUAGE sql STABLE
AS $$
    SELECT CASE
        WHEN overrides IS NOT NULL
          OR (owner, name) IN (SELECT setting.owner, pg_catalog.split_part(setting.name, '.', 1) FROM bgw.setting)
          OR (owner, library_name) IN (SELECT setting.owner, pg_catalog.split_part(setting.name, '.', 1) FROM bgw.setting)
        THEN bgw.show_own_settings(owner, name, library_name, overrides)
    END
$$;
COMMENT ON FUNCTION bgw.own_settings(oid, text, text, jsonb) IS 'Settings whose prefix is the name of the worker or of its library, and those that it has for itself, as SHOW prints them, if any are; one row.';

CREATE OR REPLACE FUNCTION bgw.show_own_settings(owner oid, name text, library_name text, overrides jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN (SELECT pg_catalog.jsonb_object_agg(definition.name, bgw.show_setting(definition.vartype, definition.unit, bgw.value_of(definition, overrides)))
            FROM bgw.setting AS definition WHERE definition.owner = show_own_settings.owner
              AND (pg_catalog.split_part(definition.name, '.', 1) IN (show_own_settings.name, show_own_settings.library_name) OR overrides ? definition.name));
END;
$$;
COMMENT ON FUNCTION bgw.show_own_settings(oid, text, text, jsonb) IS 'What bgw.own_settings returns where there are any.';

CREATE OR REPLACE VIEW public.bgw_stat_activity AS
    SELECT live.*, worker.handle, worker.name, worker.status, worker.node, worker.os_pid, worker.restarts, worker.last_exit_code,
           worker.last_sqlstate, worker.last_error, worker.next_start, worker.waiting_for, worker.settings,
           worker.worker_set, worker.key, worker.failures, worker.gave_up
    FROM bgw.stat_workers() AS worker
    LEFT JOIN pg_catalog.pg_stat_activity AS activity ON activity.pid = worker.pid AND activity.backend_start = worker.backend_start
    CROSS JOIN LATERAL (
        SELECT (merged.row).* FROM (SELECT CASE WHEN activity.pid IS NULL AND worker.reported IS NOT NULL
                                                THEN pg_catalog.jsonb_populate_record(activity, worker.reported) ELSE activity END AS row OFFSET 0) AS merged) AS live;
COMMENT ON VIEW public.bgw_stat_activity IS
'Every registered worker, running or not.  First all columns of the server''s pg_stat_activity, live while the worker holds a session; then
  handle          of the process; NULL: not launched
  name            of the worker
  status          not_yet_started, started, stopped
  node            the controller that runs it
  os_pid          its operating system process there (TypeScript workers)
  restarts        how often this process was started again
  last_exit_code  of the last attempt that ended; NULL: killed
  last_sqlstate, last_error   its error, as psql prints it
  next_start      when it starts again
  waiting_for     why it is not running
  settings        the settings that carry its name or its library''s, and those given to bgw_register or bgw_launch, with the values
                  that this process uses, as SHOW prints them
  worker_set, key   given to bgw_launch
  failures        in a row, none after a healthy period
  gave_up         why it is not started again although it restarts
Example: SELECT name, status, pid, state, waiting_for, last_error FROM bgw_stat_activity;';
GRANT SELECT ON public.bgw_stat_activity TO PUBLIC;
