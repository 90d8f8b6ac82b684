-- How an attempt ended, and when its process starts again.  No table: values in, value out.
-- Called by control/judge_exits.sql.
-- PostgreSQL counterpart: CleanupBackgroundWorker and bgw_restart_time; back-off and limit are as in other supervisors.

CREATE OR REPLACE FUNCTION bgw.final_status(exit_code integer, sqlstate text, stopped boolean, expired boolean) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE
        WHEN expired THEN 'expired'
        WHEN exit_code = 0 AND NOT stopped THEN 'done'
        WHEN stopped OR sqlstate = '57014' THEN 'cancelled'
        ELSE 'failed'
    END
$$;
COMMENT ON FUNCTION bgw.final_status(integer, text, boolean, boolean) IS
'Final status of an attempt: done, failed, cancelled or expired.  exit_code NULL: killed by a signal.  stopped: somebody asked for the end.
expired: its timeout ended it.  SQLSTATE 57014 (query_canceled) counts as cancelled whoever cancelled.';

CREATE OR REPLACE FUNCTION bgw.next_start(exit_code integer, restart_time interval, ended_at timestamptz) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE WHEN exit_code IS DISTINCT FROM 0 THEN ended_at + restart_time END
$$;
COMMENT ON FUNCTION bgw.next_start(integer, interval, timestamptz) IS
'When a process that ended by itself starts again; NULL: never.  Exit code 0 is done; anything else, and a crash (NULL), waits restart_time.
Example: SELECT bgw.next_start(1, interval ''5 s'', now());';

CREATE OR REPLACE FUNCTION bgw.restart_delay(restart_time interval, restart_time_max interval, failures integer, jitter double precision) RETURNS interval
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE WHEN restart_time_max > restart_time AND failures > 1
        THEN least(pg_catalog.date_part('epoch', restart_time) * 2.0 ^ least(failures - 1, 60), pg_catalog.date_part('epoch', restart_time_max))
             * (1 - jitter / 2) * interval '1 s'
        ELSE restart_time END
$$;
COMMENT ON FUNCTION bgw.restart_delay(interval, interval, integer, double precision) IS
'How long after a failure to wait: restart_time, doubled with each failure in a row up to restart_time_max.  NULL: it does not start again.
jitter: 0 to 1, at random: takes off up to half of a doubled delay, so that what failed together does not come back together.
Example: SELECT bgw.restart_delay(''1 s'', ''1 min'', 4, random());';

CREATE OR REPLACE FUNCTION bgw.failures_in_a_row(failures integer, ran_for interval, healthy_time interval) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT CASE WHEN ran_for >= healthy_time THEN 1 ELSE failures + 1 END $$;
COMMENT ON FUNCTION bgw.failures_in_a_row(integer, interval, interval) IS 'How many there are with the one of now: after a healthy period a new row begins.';

CREATE OR REPLACE FUNCTION bgw.is_failure(final_status text, stopped boolean) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT final_status IN ('failed', 'expired') OR final_status = 'cancelled' AND NOT stopped $$;
COMMENT ON FUNCTION bgw.is_failure(text, boolean) IS
'Whether an attempt that ended by itself counts as a failure.  stopped: bgw_terminate or bgw_restart asked for its end.
A cancelled one that nobody stopped ended with SQLSTATE 57014: by bgw_cancel, or a timeout of its own.  It starts again by the restart rule, so it counts.';

CREATE OR REPLACE FUNCTION bgw.recent_failures(failed_at timestamptz[], now timestamptz, failure_limit integer, failure_window interval) RETURNS timestamptz[]
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT CASE WHEN failure_limit IS NOT NULL THEN ARRAY(SELECT failure.at FROM (
            SELECT each.at FROM pg_catalog.unnest(failed_at || now) AS each (at) WHERE each.at > now - failure_window ORDER BY each.at DESC LIMIT failure_limit) AS failure
        ORDER BY failure.at) END
$$;
COMMENT ON FUNCTION bgw.recent_failures(timestamptz[], timestamptz, integer, interval) IS
'When a process failed, with the failure of now: the last failure_limit times within failure_window.  NULL: there is no limit.';

CREATE OR REPLACE FUNCTION bgw.gave_up(failures integer, failure_limit integer, failure_window interval) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT CASE WHEN failures >= failure_limit
        THEN pg_catalog.format('%s failures', failure_limit) || CASE WHEN failure_window < interval '1000 years' THEN pg_catalog.format(' within %s', failure_window) ELSE '' END END
$$;
COMMENT ON FUNCTION bgw.gave_up(integer, integer, interval) IS
'Why a process that failed so often within failure_window is not started again.  NULL: it is.  A window of 1000 years is the whole life of the process.';

CREATE OR REPLACE FUNCTION bgw.error_text(exit_code integer, message text, detail text, hint text, context text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE WHEN message IS NOT NULL AND exit_code IS DISTINCT FROM 0
        THEN 'ERROR:  ' || message || coalesce(E'\nDETAIL:  ' || detail, '') || coalesce(E'\nHINT:  ' || hint, '') || coalesce(E'\nCONTEXT:  ' || context, '') END
$$;
COMMENT ON FUNCTION bgw.error_text(integer, text, text, text, text) IS 'An error as psql prints it; NULL for exit code 0.';
