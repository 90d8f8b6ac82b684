-- How an attempt ended, and when its process starts again.  No table: values in, value out.
-- Called by control/settle_exits.sql and control/fence_node.sql.
-- PostgreSQL counterpart: CleanupBackgroundWorker and bgw_restart_time.

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

CREATE OR REPLACE FUNCTION bgw.error_text(exit_code integer, message text, detail text, hint text, context text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE WHEN message IS NOT NULL AND exit_code IS DISTINCT FROM 0
        THEN 'ERROR:  ' || message || coalesce(E'\nDETAIL:  ' || detail, '') || coalesce(E'\nHINT:  ' || hint, '') || coalesce(E'\nCONTEXT:  ' || context, '') END
$$;
COMMENT ON FUNCTION bgw.error_text(integer, text, text, text, text) IS 'An error as psql prints it; NULL for exit code 0.';
