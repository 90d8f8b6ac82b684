-- bgw.standby_workers, standby_restart: what a controller runs while its server is a standby, from the replicated catalog.
-- Called by src/standby.ts through src/catalog.ts, every two seconds.  Nothing is written, so there is no node, epoch or claim to check.
-- A start order has the fields of those of claim_startable: keep the two in step.

CREATE OR REPLACE FUNCTION bgw.standby_workers(libraries text[]) RETURNS jsonb
LANGUAGE plpgsql
AS $$
BEGIN
    IF NOT pg_catalog.pg_is_in_recovery() THEN
        RETURN NULL;
    END IF;
    RETURN pg_catalog.jsonb_build_object(
        'settings', bgw.settings_of(bgw.current_owner()),
        'workers', (
            SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                'id', worker.id::text, 'name', worker.name, 'database', placed.database, 'main_arg', worker.main_arg::text,
                'command', worker.command, 'mode', worker.mode, 'library_name', worker.library_name, 'function_name', worker.function_name,
                'flags', worker.flags, 'overrides', bgw.order_overrides(worker.owner, worker.settings),
                'naptime', pg_catalog.date_part('epoch', placed.nap), 'timeout', pg_catalog.date_part('epoch', worker.timeout),
                'startable', (worker.library_name IS NULL OR worker.library_name = ANY (libraries))
                    AND (worker.naptime IS NULL) = (placed.nap IS NULL) AND NOT bgw.lacks_database(placed.database)) ORDER BY worker.id), '[]')
            FROM bgw.worker CROSS JOIN LATERAL (SELECT bgw.database_of(worker.database, worker.owner, worker.settings) AS database, bgw.nap_of(worker, worker.settings) AS nap) AS placed
            WHERE worker.owner = bgw.current_owner() AND bgw.runs_on_standby(worker)));
END;
$$;
COMMENT ON FUNCTION bgw.standby_workers(text[]) IS
'The workers of this login that run on a standby and its settings: {workers: [{id, name, command, ..., startable, overrides}], settings: [...]}.
libraries: those that the controller has loaded.  NULL: the server is no standby.';

CREATE OR REPLACE FUNCTION bgw.standby_restart(worker_id bigint, exit_code integer, ran_ms double precision, INOUT failures integer, OUT wait_ms double precision)
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    worker bgw.worker;
BEGIN
    SELECT * INTO worker FROM bgw.worker WHERE bgw.worker.id = standby_restart.worker_id;
    failures := CASE WHEN exit_code = 0 THEN 0 ELSE bgw.failures_in_a_row(failures, ran_ms * interval '1 ms', worker.healthy_time) END;
    IF failures < worker.failure_limit OR worker.failure_limit IS NULL THEN
        wait_ms := pg_catalog.date_part('epoch', bgw.next_start(exit_code, bgw.restart_delay(worker.restart_time, worker.restart_time_max, failures, pg_catalog.random()), 'epoch')) * 1000;
    END IF;
END;
$$;
COMMENT ON FUNCTION bgw.standby_restart(bigint, integer, double precision, integer) IS
'In how many milliseconds a worker that ended on a standby starts again, by the rule of settle_exits.  NULL: never.
failures: how many in a row before, and with this one: there is no history to count those of failure_window in.';
