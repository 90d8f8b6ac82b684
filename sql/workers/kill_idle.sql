-- kill_idle: disconnects sessions that have been idle for longer than kill_idle.max_idle_time.
-- Leaves alone: sessions of any controller and its workers, superusers, listeners (as far as their last statement tells), replication,
-- and the users and applications that its settings name.
-- Try: SELECT bgw_set_config('kill_idle.dry_run', 'on'), bgw_launch('kill_idle');

SELECT public.bgw_define_setting('kill_idle.max_idle_time', boot_val => '5s', vartype => 'integer', unit => 's', min_val => 1, max_val => 3600,
    short_desc => 'Maximum time allowed for sessions to be idle.');
SELECT public.bgw_define_setting('kill_idle.exclude_users', boot_val => '', short_desc => 'Users to leave alone, joined by commas.');
SELECT public.bgw_define_setting('kill_idle.exclude_applications', boot_val => '', short_desc => 'Application names to leave alone, joined by commas.');
SELECT public.bgw_define_setting('kill_idle.dry_run', boot_val => 'off', vartype => 'bool', short_desc => 'Only log what would be disconnected.');

CREATE OR REPLACE FUNCTION bgw.is_listed(item text, setting_name text) RETURNS boolean
LANGUAGE sql STABLE
AS $$ SELECT coalesce(item <> '' AND item = ANY (pg_catalog.regexp_split_to_array(pg_catalog.btrim(pg_catalog.current_setting(setting_name)), E'\\s*,\\s*')), false) $$;
COMMENT ON FUNCTION bgw.is_listed(text, text) IS 'Whether a setting that is a list joined by commas has this item.';

CREATE OR REPLACE PROCEDURE bgw.kill_idle()
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp  -- whoever owns the database may have put operators of his before ours
AS $$
DECLARE
    victim record;
    dry_run boolean := pg_catalog.current_setting('kill_idle.dry_run');
BEGIN
    FOR victim IN
        SELECT pid, pg_catalog.format('PID %s %s/%s/%s', pid, coalesce(datname, 'none'), coalesce(usename, 'none'), coalesce(pg_catalog.host(client_addr), 'none')) AS who
        FROM pg_catalog.pg_stat_activity
        WHERE state = 'idle' AND backend_type = 'client backend'
          AND state_change < pg_catalog.clock_timestamp() - pg_catalog.current_setting('kill_idle.max_idle_time')::interval
          AND NOT EXISTS (SELECT FROM bgw.session WHERE session.pid = pg_stat_activity.pid AND session.backend_start = pg_stat_activity.backend_start)
          -- On a standby no session can be registered: there the login of a node tells, and the name that its sessions have.
          AND NOT (pg_catalog.pg_is_in_recovery() AND application_name ~ '^(bgw |bgworker: )' AND EXISTS (SELECT FROM bgw.login WHERE login.owner = usesysid))
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = usename AND rolsuper)
          AND query !~* E'^\\s*(listen|notify|select\\s+pg_notify)\\y'
          AND NOT bgw.is_listed(usename, 'kill_idle.exclude_users')
          AND NOT bgw.is_listed(application_name, 'kill_idle.exclude_applications')
    LOOP
        IF dry_run THEN
            RAISE LOG 'Would disconnect idle connection: %', victim.who;
        ELSIF pg_catalog.pg_terminate_backend(victim.pid) THEN
            RAISE LOG 'Disconnected idle connection: %', victim.who;
        END IF;
    END LOOP;
END;
$$;
COMMENT ON PROCEDURE bgw.kill_idle() IS 'One look of the worker kill_idle.';

SELECT public.bgw_register(
    name => 'kill_idle',
    command => 'CALL bgw.kill_idle()',
    naptime => '1 s',
    restart_time => '10 s',
    start_time => 'consistent_state');
