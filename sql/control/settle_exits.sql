-- bgw.settle_exits: attempts that ended -> a row of bgw.run each, and the process starts again or is unregistered.
-- Called by report (what a node saw), fence_node and leave_node (what was lost) and claim_startable (stopped before it started).
-- PostgreSQL counterpart: ReportBackgroundWorkerExit and ForgetUnstartedBackgroundWorkers.  Keeps I2, I4, I11.
-- The rule stands in sql/compute/restart.sql.

CREATE OR REPLACE FUNCTION bgw.settle_exits(exits jsonb) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF pg_catalog.jsonb_array_length(exits) = 0 THEN
        RETURN;
    END IF;
    WITH ended AS MATERIALIZED (
        SELECT process.*, ending.exit_code, ending.command_tag, ending.rows, ending.sqlstate, ending.message, ending.detail, ending.hint, ending.context,
               bgw.now() - coalesce(ending.age, 0) * interval '1 ms' AS finished_at, ending.session_pid, worker.restart_time, worker.autostart, worker.id AS definition,
               coalesce(ending.interrupted, false) OR coalesce(ending.lost, false) AS interrupted,
               CASE WHEN ending.lost THEN 'lost'
                    ELSE bgw.final_status(ending.exit_code, ending.sqlstate,
                        NOT coalesce(ending.done, false) AND (process.stop_requested_at IS NOT NULL OR process.restart_requested OR coalesce(ending.interrupted, false)),
                        coalesce(ending.expired, false)) END AS final_status
        FROM pg_catalog.jsonb_to_recordset(exits) AS ending (handle bigint, run_id bigint, exit_code integer, command_tag text, rows bigint, sqlstate text,
             message text, detail text, hint text, context text, age double precision, session_pid integer, done boolean, interrupted boolean, lost boolean, expired boolean)
        JOIN bgw.process ON process.id = ending.handle AND process.run_id IS NOT DISTINCT FROM ending.run_id
        LEFT JOIN bgw.worker ON worker.id = process.worker_id AND NOT worker.unregistered
        ORDER BY process.id FOR UPDATE OF process
    ), recorded AS (
        INSERT INTO bgw.run (id, process_id, worker_id, name, owner, node, pid, os_pid, status, exit_code, command_tag, rows, sqlstate, message, detail,
                             hint, context, queued_at, started_at, finished_at, main_arg, stop_requested_at, stop_requested_by)
        SELECT coalesce(ended.run_id, pg_catalog.nextval('bgw.run_id')), ended.id, ended.definition, ended.name, ended.owner, node.name, coalesce(ended.session_pid, ended.pid), ended.os_pid,
               ended.final_status, ended.exit_code, ended.command_tag, ended.rows, ended.sqlstate, ended.message, ended.detail, ended.hint, ended.context,
               ended.queued_at, coalesce(ended.started_at, ended.claimed_at), ended.finished_at, ended.main_arg, ended.stop_requested_at, ended.stop_requested_by
        FROM ended LEFT JOIN bgw.node ON node.id = ended.node_id
    ), decided AS (
        SELECT ended.*, CASE
            WHEN ended.stop_requested_at IS NOT NULL THEN NULL
            WHEN ended.restart_requested THEN ended.finished_at
            WHEN ended.interrupted AND (ended.restart_time IS NOT NULL OR ended.autostart) THEN ended.finished_at
            WHEN NOT ended.interrupted THEN bgw.next_start(ended.exit_code, ended.restart_time, ended.finished_at) END AS starts_again
        FROM ended
    ), restarted AS (
        UPDATE bgw.process SET status = 'not_yet_started', run_id = NULL, node_id = NULL, epoch = NULL, pid = NULL, backend_start = NULL, os_pid = NULL,
            claimed_at = NULL, started_at = NULL, next_start = decided.starts_again, restarts = process.restarts + CASE WHEN decided.interrupted THEN 0 ELSE 1 END,
            last_exit_code = decided.exit_code, last_sqlstate = decided.sqlstate,
            last_error = bgw.error_text(decided.exit_code, decided.message, decided.detail, decided.hint, decided.context),
            restart_requested = false
        FROM decided WHERE process.id = decided.id AND decided.starts_again IS NOT NULL
    ), forgotten AS (
        DELETE FROM bgw.activity USING decided WHERE activity.process_id = decided.id
    )
    DELETE FROM bgw.process USING decided WHERE process.id = decided.id AND decided.starts_again IS NULL;
END;
$$;
COMMENT ON FUNCTION bgw.settle_exits(jsonb) IS
'Ends attempts: an array of {handle, run_id, exit_code, sqlstate, message, detail, hint, context, command_tag, rows, session_pid, age, done, interrupted, lost, expired}.
done: its work was finished before anybody could end it.
age: how many milliseconds ago, so that no clock but the server''s counts.
interrupted: the controller is stopping.  lost: the node is gone.  An attempt that is already settled is passed over.';
