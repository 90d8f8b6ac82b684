-- bgw.settle_exits: attempts that ended -> a row of bgw.run each, and the process starts again or is unregistered.
-- Called by report (what a node saw), fence_node and leave_node (what was lost) and claim_startable (stopped before it started).
-- PostgreSQL counterpart: ReportBackgroundWorkerExit and ForgetUnstartedBackgroundWorkers.  Keeps I2, I4, I11.
-- The rule stands in sql/compute/restart.sql.  What most are is settled by sql/control/settle_plain_exits.sql: test/settle.test.ts holds the two equal.

CREATE OR REPLACE FUNCTION bgw.settle_exits(exits jsonb) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    present timestamptz := bgw.now();
    told record;
BEGIN
    IF pg_catalog.jsonb_array_length(exits) = 0 THEN
        RETURN;
    END IF;
    FOR told IN WITH ended AS MATERIALIZED (
        SELECT process.*, ending.exit_code, ending.command_tag, ending.rows, ending.sqlstate, ending.message, ending.detail, ending.hint, ending.context, present - coalesce(ending.age, 0) * interval '1 ms' AS finished_at, ending.session_pid,
               coalesce(present - (ending.age + ending.ran_ms) * interval '1 ms', process.started_at, process.claimed_at) AS began_at, worker.id AS definition, coalesce(worker.mode, process.mode) = 'atomic' AS is_atomic,
               worker.restart_time, worker.restart_time_max, worker.failure_limit, worker.failure_window, worker.healthy_time, worker.autostart,
               coalesce(ending.interrupted, false) OR coalesce(ending.lost, false) AS interrupted, coalesce(ending.crash_reset, false) AS crash_reset,
               coalesce(ending.crash_reset AND ending.sqlstate = '57P02', false) AS taken_along, CASE WHEN ending.lost THEN 'lost' ELSE bgw.final_status(ending.exit_code, ending.sqlstate,
                        NOT coalesce(ending.done, false) AND (process.stop_requested_at IS NOT NULL OR process.restart_requested OR coalesce(ending.interrupted, false)), coalesce(ending.expired, false)) END AS final_status
        FROM pg_catalog.jsonb_to_recordset(exits) AS ending (handle bigint, run_id bigint, exit_code integer, command_tag text, rows bigint, sqlstate text,
             message text, detail text, hint text, context text, age double precision, ran_ms double precision, session_pid integer, done boolean, interrupted boolean, lost boolean, expired boolean, crash_reset boolean)
        -- LATERAL: by the primary key, whatever the planner believes of the table.
        CROSS JOIN LATERAL (SELECT * FROM bgw.process WHERE process.id = ending.handle AND process.run_id IS NOT DISTINCT FROM ending.run_id LIMIT 1 FOR UPDATE) AS process
        LEFT JOIN bgw.worker ON worker.id = process.worker_id AND NOT worker.unregistered
    ), counted AS MATERIALIZED (
        SELECT ended.*, is_failure, failed_at_now,
            CASE WHEN is_failure THEN bgw.failures_in_a_row(ended.failures, ended.finished_at - ended.began_at, ended.healthy_time) ELSE ended.failures END AS failures_now,
            CASE WHEN is_failure AND ended.restart_time IS NOT NULL AND ended.stop_requested_at IS NULL AND NOT ended.restart_requested THEN bgw.gave_up(pg_catalog.cardinality(failed_at_now), ended.failure_limit, ended.failure_window) END AS gave_up
        FROM ended CROSS JOIN LATERAL (SELECT NOT ended.interrupted AND NOT ended.taken_along AND bgw.is_failure(ended.final_status, ended.stop_requested_at IS NOT NULL OR ended.restart_requested) AS is_failure) AS judged
        CROSS JOIN LATERAL (SELECT CASE WHEN is_failure THEN bgw.recent_failures(ended.failed_at, ended.finished_at, ended.failure_limit, ended.failure_window) ELSE ended.failed_at END AS failed_at_now) AS remembered
    ), recorded AS (
        INSERT INTO bgw.run (id, process_id, worker_id, name, owner, node, pid, os_pid, status, exit_code, command_tag, rows, sqlstate, message, detail,
                             hint, context, queued_at, started_at, finished_at, main_arg, stop_requested_at, stop_requested_by, gave_up,
                             schedule_id, due_at, worker_set, key)
        SELECT coalesce(counted.run_id, pg_catalog.nextval('bgw.run_id')), counted.id, counted.definition, counted.name, counted.owner, node.name,
               coalesce(counted.session_pid, counted.pid), counted.os_pid, counted.final_status, counted.exit_code, counted.command_tag, counted.rows, counted.sqlstate, counted.message, counted.detail, counted.hint, counted.context,
               counted.queued_at, counted.began_at, counted.finished_at, counted.main_arg, counted.stop_requested_at, counted.stop_requested_by, counted.gave_up,
               counted.schedule_id, counted.due_at, counted.worker_set, counted.key
        FROM counted LEFT JOIN bgw.node ON node.id = counted.node_id
    ), decided AS (
        SELECT counted.*, CASE
            WHEN counted.stop_requested_at IS NOT NULL THEN NULL
            WHEN counted.restart_requested THEN counted.finished_at
            WHEN counted.interrupted AND (counted.restart_time IS NOT NULL OR counted.autostart) THEN counted.finished_at
            -- As ResetBackgroundWorkerCrashTimes does: at once, whatever the restart time, but never if that is never.
            WHEN counted.crash_reset AND counted.restart_time IS NOT NULL AND counted.gave_up IS NULL THEN counted.finished_at
            WHEN NOT counted.interrupted AND counted.gave_up IS NULL AND counted.restart_time IS NOT NULL THEN bgw.next_start(counted.exit_code,
                bgw.restart_delay(counted.restart_time, counted.restart_time_max, counted.failures_now, pg_catalog.random()), counted.finished_at) END AS starts_again
        FROM counted
    ), restarted AS (
        UPDATE bgw.process SET status = 'not_yet_started', run_id = NULL, node_id = NULL, epoch = NULL, pid = NULL, backend_start = NULL, os_pid = NULL,
            claimed_at = NULL, started_at = NULL, next_start = decided.starts_again, restarts = process.restarts + CASE WHEN decided.interrupted THEN 0 ELSE 1 END,
            failures = decided.failures_now, failed_at = decided.failed_at_now, last_exit_code = decided.exit_code, last_sqlstate = decided.sqlstate,
            last_error = bgw.error_text(decided.exit_code, decided.message, decided.detail, decided.hint, decided.context),
            restart_requested = false
        FROM decided WHERE process.id = ANY (ARRAY(SELECT going_on.id FROM decided AS going_on WHERE going_on.starts_again IS NOT NULL)) AND decided.id = process.id
    ), scheduled AS (
        UPDATE bgw.schedule_state SET ran = schedule_state.ran + ended.ran, failed = schedule_state.failed + ended.failed,
            last_started_at = ended.last_started_at, last_finished_at = ended.last_finished_at, last_status = ended.last_status
        FROM (SELECT decided.schedule_id, count(*) AS ran, count(*) FILTER (WHERE decided.is_failure OR decided.final_status IN ('failed', 'expired', 'lost')) AS failed,
                     max(decided.began_at) AS last_started_at, max(decided.finished_at) AS last_finished_at,
                     (pg_catalog.array_agg(decided.final_status ORDER BY decided.finished_at DESC))[1] AS last_status
              FROM decided WHERE decided.schedule_id IS NOT NULL AND decided.starts_again IS NULL AND decided.run_id IS NOT NULL GROUP BY decided.schedule_id) AS ended
        WHERE schedule_state.schedule_id = ANY (ARRAY(SELECT decided.schedule_id FROM decided)) AND ended.schedule_id = schedule_state.schedule_id
    ), consumed AS (
        DELETE FROM bgw.completed_run WHERE completed_run.run_id = ANY (ARRAY(SELECT decided.run_id FROM decided WHERE decided.is_atomic AND decided.final_status = 'done'))
    ), forgotten AS (
        DELETE FROM bgw.activity WHERE activity.process_id = ANY (ARRAY(SELECT decided.id FROM decided WHERE decided.worker_id IS NOT NULL))
    ), orphaned AS (
        INSERT INTO bgw.signal (process_id, signal)
        SELECT child.id, 'SIGTERM' FROM bgw.process AS child
        WHERE child.parent_id = ANY (ARRAY(SELECT decided.id FROM decided WHERE decided.starts_again IS NULL)) AND child.when_parent_ends = 'terminate'
    ), unregistered AS (
        DELETE FROM bgw.process WHERE process.id = ANY (ARRAY(SELECT decided.id FROM decided WHERE decided.starts_again IS NULL))
    )
    SELECT (SELECT process FROM bgw.process WHERE process.id = decided.id) AS process, decided.starts_again, pg_catalog.jsonb_build_object('pid', coalesce(decided.session_pid, decided.pid), 'status', decided.final_status,
           'exit_code', decided.exit_code, 'sqlstate', pg_catalog.left(decided.sqlstate, 5)) AS details FROM decided WHERE decided.notify IS NOT NULL
    LOOP
        PERFORM bgw.notify_launcher(told.process, CASE WHEN told.starts_again IS NULL THEN 'stopped' ELSE 'restarting' END, told.details);
    END LOOP;
END;
$$;
COMMENT ON FUNCTION bgw.settle_exits(jsonb) IS
'Ends attempts: an array of {handle, run_id, exit_code, sqlstate, message, detail, hint, context, command_tag, rows, session_pid, age, ran_ms, done, interrupted, lost, expired, crash_reset}.
done: its work was finished before anybody could end it.
ran_ms: how long it ran, which is exact where its start was reported a little late, or not at all.
age: how many milliseconds ago, so that no clock but the server''s counts.
interrupted: the controller is stopping.  lost: the node is gone.
crash_reset: shared memory was reset; one whose SQLSTATE is 57P02 was taken along by the crash of another and did not fail itself.  An attempt that is already settled is passed over.';
