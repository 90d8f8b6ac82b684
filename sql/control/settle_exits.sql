-- bgw.settle_exits: attempts that ended -> a row of bgw.run each, and the process starts again or is unregistered.
-- Called by report (what a node saw), fence_node and leave_node (what was lost) and claim_startable (stopped before it started).
-- PostgreSQL counterpart: ReportBackgroundWorkerExit and ForgetUnstartedBackgroundWorkers.  Keeps I2, I4, I11.
-- sql/control/judge_exits.sql says how each ended, and what follows.
-- What most are is settled by sql/control/settle_plain_exits.sql: test/settle.test.ts holds the two equal.

CREATE OR REPLACE FUNCTION bgw.settle_exits(exits jsonb) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    told record;
BEGIN
    IF pg_catalog.jsonb_array_length(exits) = 0 THEN
        RETURN;
    END IF;
    FOR told IN WITH decided AS MATERIALIZED (
        SELECT (judged.process).*, judged.definition, judged.exit_code, judged.command_tag, judged.rows, judged.session_pid,
               judged.sqlstate, judged.message, judged.detail, judged.hint, judged.context, judged.began_at, judged.finished_at, judged.final_status,
               judged.is_failure, judged.interrupted, judged.failures_now, judged.failed_at_now, judged.gave_up, judged.starts_again
        FROM bgw.judge_exits(exits) AS judged
    ), recorded AS (
        INSERT INTO bgw.run (id, process_id, worker_id, name, owner, node, pid, os_pid, status, exit_code, command_tag, rows, sqlstate, message, detail,
                             hint, context, queued_at, started_at, finished_at, main_arg, stop_requested_at, stop_requested_by, gave_up,
                             schedule_id, due_at, worker_set, key)
        SELECT coalesce(decided.run_id, pg_catalog.nextval('bgw.run_id')), decided.id, decided.definition, decided.name, decided.owner, node.name,
               coalesce(decided.session_pid, decided.pid), decided.os_pid, decided.final_status, decided.exit_code, decided.command_tag, decided.rows,
               decided.sqlstate, decided.message, decided.detail, decided.hint, decided.context, decided.queued_at, decided.began_at, decided.finished_at,
               decided.main_arg, decided.stop_requested_at, decided.stop_requested_by, decided.gave_up,
               decided.schedule_id, decided.due_at, decided.worker_set, decided.key
        FROM decided LEFT JOIN bgw.node ON node.id = decided.node_id
    ), restarted AS (
        UPDATE bgw.process SET status = 'not_yet_started', run_id = NULL, node_id = NULL, epoch = NULL, pid = NULL, backend_start = NULL, os_pid = NULL,
            claimed_at = NULL, started_at = NULL, next_start = decided.starts_again, restarts = process.restarts + CASE WHEN decided.interrupted THEN 0 ELSE 1 END,
            failures = decided.failures_now, failed_at = decided.failed_at_now, last_exit_code = decided.exit_code, last_sqlstate = decided.sqlstate,
            last_error = bgw.error_text(decided.exit_code, decided.message, decided.detail, decided.hint, decided.context),
            restart_requested = false
        FROM decided WHERE decided.starts_again IS NOT NULL AND process.id = ANY (ARRAY[decided.id])
    ), scheduled AS (
        UPDATE bgw.schedule_state SET ran = schedule_state.ran + ended.ran, failed = schedule_state.failed + ended.failed,
            last_started_at = ended.last_started_at, last_finished_at = ended.last_finished_at, last_status = ended.last_status
        FROM (SELECT decided.schedule_id, count(*) AS ran, count(*) FILTER (WHERE decided.is_failure OR decided.final_status IN ('failed', 'expired', 'lost')) AS failed,
                     max(decided.began_at) AS last_started_at, max(decided.finished_at) AS last_finished_at,
                     (pg_catalog.array_agg(decided.final_status ORDER BY decided.finished_at DESC))[1] AS last_status
              FROM decided WHERE decided.schedule_id IS NOT NULL AND decided.starts_again IS NULL AND decided.run_id IS NOT NULL GROUP BY decided.schedule_id) AS ended
        WHERE schedule_state.schedule_id = ANY (ARRAY(SELECT decided.schedule_id FROM decided)) AND ended.schedule_id = schedule_state.schedule_id
    ), consumed AS (
        DELETE FROM bgw.completed_run WHERE completed_run.run_id = ANY (ARRAY(SELECT decided.run_id FROM decided WHERE decided.final_status = 'done'))
    ), forgotten AS (
        DELETE FROM bgw.activity WHERE activity.process_id = ANY (ARRAY(SELECT decided.id FROM decided WHERE decided.worker_id IS NOT NULL))
    ), orphaned AS (
        INSERT INTO bgw.signal (process_id, signal)
        SELECT child.id, 'SIGTERM' FROM bgw.process AS child
        WHERE child.parent_id = ANY (ARRAY(SELECT decided.id FROM decided WHERE decided.starts_again IS NULL)) AND child.when_parent_ends = 'terminate'
    ), unregistered AS (
        DELETE FROM bgw.process WHERE process.id = ANY (ARRAY(SELECT decided.id FROM decided WHERE decided.starts_again IS NULL))
    )
    SELECT (SELECT process FROM bgw.process WHERE process.id = decided.id) AS process, decided.starts_again, pg_catalog.jsonb_build_object(
               'pid', coalesce(decided.session_pid, decided.pid), 'status', decided.final_status,
               'exit_code', decided.exit_code, 'sqlstate', pg_catalog.left(decided.sqlstate, 5)) AS details
    FROM decided WHERE decided.notify IS NOT NULL
    LOOP
        PERFORM bgw.notify_launcher(told.process, CASE WHEN told.starts_again IS NULL THEN 'stopped' ELSE 'restarting' END, told.details);
    END LOOP;
END;
$$;
COMMENT ON FUNCTION bgw.settle_exits(jsonb) IS
'Ends attempts: an array of {handle, run_id, exit_code, sqlstate, message, detail, hint, context, command_tag, rows, session_pid, age, ran_ms, done,
interrupted, lost, expired, crash_reset}.
done: its work was finished before anybody could end it.
ran_ms: how long it ran, which is exact where its start was reported a little late, or not at all.
age: how many milliseconds ago, so that no clock but the server''s counts.
interrupted: the controller is stopping.  lost: the node is gone.
crash_reset: shared memory was reset; one whose SQLSTATE is 57P02 was taken along by the crash of another and did not fail itself.  An attempt that is already settled is passed over.';
