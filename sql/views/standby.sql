-- bgw_stat_standby: what runs on this standby, from what can be seen without writing: the advisory locks of the controllers
-- and the server's own sessions.  Read by users and by bgw status.  The locks are taken by src/standby.ts.

CREATE OR REPLACE FUNCTION bgw.stat_standby(
    OUT name text, OUT status text, OUT controller_pid integer, OUT pid integer, OUT state text, OUT query_start timestamptz,
    OUT waiting_for text, OUT settings jsonb) RETURNS SETOF record
LANGUAGE sql STABLE
AS $$
    SELECT worker.name, CASE WHEN held.pid IS NULL THEN 'not_yet_started' ELSE 'started' END, held.pid, live.pid, live.state, live.query_start,
           CASE WHEN held.pid IS NOT NULL THEN NULL
                WHEN worker.mode = 'atomic' THEN 'the end of recovery: mode "atomic" writes'
                ELSE pg_catalog.format('a controller on this standby that logs in as "%s", or the restart time', pg_catalog.pg_get_userbyid(worker.owner)) END,
           own.settings
    FROM bgw.worker
    CROSS JOIN LATERAL bgw.own_settings(worker.owner, worker.name, worker.library_name, worker.settings) AS own (settings)
    LEFT JOIN pg_catalog.pg_locks AS held ON held.locktype = 'advisory' AND held.granted AND held.objsubid = 1
        AND held.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
        AND (held.classid::bigint << 32) + held.objid::bigint = bgw.standby_key(worker.id)
    LEFT JOIN LATERAL (SELECT * FROM pg_catalog.pg_stat_activity AS activity
                       WHERE activity.application_name = 'bgworker: ' || worker.name AND activity.usesysid = worker.owner
                       ORDER BY activity.backend_start LIMIT 1) AS live ON held.pid IS NOT NULL
    WHERE pg_catalog.pg_is_in_recovery() AND bgw.runs_on_standby(worker)
$$;
COMMENT ON FUNCTION bgw.stat_standby() IS 'bgw_stat_standby as the reader may see it.';

CREATE OR REPLACE VIEW public.bgw_stat_standby AS SELECT * FROM bgw.stat_standby();
COMMENT ON VIEW public.bgw_stat_standby IS
'On a standby: the workers that belong there (autostart, start time consistent_state or postmaster_start), and which of them run on this very server.
No rows elsewhere.  bgw_stat_activity shows on a standby what the primary had recorded.
  status          started, not_yet_started
  controller_pid  the control session of the controller that runs it here
  pid, state, query_start   its session, while it has one of its own name
  waiting_for     why it is not running
  settings        the settings that carry its name or its library''s, as SHOW prints them
Errors, restarts and log lines stand in the log of the controller: nothing can be recorded on a standby.
Example: SELECT name, status, pid, waiting_for FROM bgw_stat_standby;';
GRANT SELECT ON public.bgw_stat_standby TO PUBLIC;
