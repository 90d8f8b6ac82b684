-- bgw.judge_exits: attempts that ended -> how each ended, whether that was a failure, and when its process starts again.
-- Called by settle_exits, which writes it down.  Locks the processes.  The rule stands in sql/compute/restart.sql.
-- PostgreSQL counterpart: CleanupBackgroundWorker.  Keeps I2.

CREATE OR REPLACE FUNCTION bgw.judge_exits(exits jsonb) RETURNS TABLE (
    process bgw.process, definition bigint,
    exit_code integer, command_tag text, rows bigint, sqlstate text, message text, detail text, hint text, context text, session_pid integer,
    began_at timestamptz, finished_at timestamptz, final_status text, is_failure boolean, interrupted boolean,
    failures_now integer, failed_at_now timestamptz[], gave_up text, starts_again timestamptz)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    present timestamptz := bgw.now();
BEGIN
    RETURN QUERY WITH ended AS MATERIALIZED (
        SELECT locked.process, worker, ending.exit_code, ending.command_tag, ending.rows, ending.session_pid,
               ending.sqlstate, ending.message, ending.detail, ending.hint, ending.context,
               present - coalesce(ending.age, 0) * interval '1 ms' AS finished_at,
               coalesce(present - (ending.age + ending.ran_ms) * interval '1 ms', (locked.process).started_at, (locked.process).claimed_at) AS began_at,
               (locked.process).stop_requested_at IS NOT NULL AS is_to_stop,
               (locked.process).stop_requested_at IS NOT NULL OR (locked.process).restart_requested AS is_to_end,
               coalesce(ending.interrupted, false) OR coalesce(ending.lost, false) AS interrupted,
               coalesce(ending.done, false) AS done, coalesce(ending.lost, false) AS lost, coalesce(ending.expired, false) AS expired,
               coalesce(ending.crash_reset, false) AS crash_reset,
               coalesce(ending.crash_reset AND ending.sqlstate = '57P02', false) AS taken_along
        FROM pg_catalog.jsonb_to_recordset(exits) AS ending (
            handle bigint, run_id bigint, exit_code integer, command_tag text, rows bigint, sqlstate text, message text, detail text, hint text, context text,
            age double precision, ran_ms double precision, session_pid integer, done boolean, interrupted boolean, lost boolean, expired boolean, crash_reset boolean)
        -- LATERAL: by the primary key, whatever the planner believes of the table.
        CROSS JOIN LATERAL (SELECT process FROM bgw.process WHERE process.id = ending.handle AND process.run_id IS NOT DISTINCT FROM ending.run_id
                            LIMIT 1 FOR UPDATE) AS locked
        LEFT JOIN bgw.worker ON worker.id = (locked.process).worker_id AND NOT worker.unregistered
            AND NOT (worker.made_by_schedule AND bgw.is_unscheduled((locked.process).schedule_id))
    ), judged AS MATERIALIZED (
        SELECT ended.*, ending.final_status,
               NOT ended.interrupted AND NOT ended.taken_along AND bgw.is_failure(ending.final_status, ended.is_to_end) AS is_failure
        FROM ended CROSS JOIN LATERAL (
            SELECT CASE WHEN ended.lost THEN 'lost'
                        ELSE bgw.final_status(ended.exit_code, ended.sqlstate, NOT ended.done AND (ended.is_to_end OR ended.interrupted), ended.expired)
                   END AS final_status) AS ending
    ), counted AS MATERIALIZED (
        SELECT judged.*,
               CASE WHEN judged.is_failure
                    THEN bgw.failures_in_a_row((judged.process).failures, judged.finished_at - judged.began_at, (judged.worker).healthy_time)
                    ELSE (judged.process).failures END AS failures_now,
               CASE WHEN judged.is_failure
                    THEN bgw.recent_failures((judged.process).failed_at, judged.finished_at, (judged.worker).failure_limit, (judged.worker).failure_window)
                    ELSE (judged.process).failed_at END AS failed_at_now
        FROM judged
    ), limited AS MATERIALIZED (
        SELECT counted.*,
               CASE WHEN counted.is_failure AND NOT counted.is_to_end AND (counted.worker).restart_time IS NOT NULL
                    THEN bgw.gave_up(pg_catalog.cardinality(counted.failed_at_now), (counted.worker).failure_limit, (counted.worker).failure_window)
               END AS gave_up
        FROM counted
    )
    SELECT limited.process, (limited.worker).id,
           limited.exit_code, limited.command_tag, limited.rows, limited.sqlstate, limited.message, limited.detail, limited.hint, limited.context,
           limited.session_pid, limited.began_at, limited.finished_at, limited.final_status, limited.is_failure, limited.interrupted,
           limited.failures_now, limited.failed_at_now, limited.gave_up, CASE
               WHEN limited.is_to_stop THEN NULL
               WHEN limited.is_to_end THEN limited.finished_at
               WHEN limited.interrupted THEN
                   CASE WHEN (limited.worker).restart_time IS NOT NULL OR (limited.worker).autostart THEN limited.finished_at END
               WHEN limited.gave_up IS NOT NULL OR (limited.worker).restart_time IS NULL THEN NULL
               -- As ResetBackgroundWorkerCrashTimes does: at once, whatever the restart time, but never if that is never.
               WHEN limited.crash_reset THEN limited.finished_at
               ELSE bgw.next_start(limited.exit_code, bgw.restart_delay((limited.worker).restart_time, (limited.worker).restart_time_max,
                                                                        limited.failures_now, pg_catalog.random()), limited.finished_at) END
    FROM limited;
END;
$$;
COMMENT ON FUNCTION bgw.judge_exits(jsonb) IS
'How attempts ended, given as to settle_exits: final_status, is_failure, why it gave up, and when the process starts again; NULL: it does not.
definition: its worker, unless that is not registered any more.  An attempt that is already settled is passed over.';

CREATE OR REPLACE FUNCTION bgw.is_unscheduled(schedule_id bigint) RETURNS boolean
LANGUAGE sql STABLE
AS $$ SELECT schedule_id IS NOT NULL AND NOT EXISTS (SELECT FROM bgw.schedule WHERE schedule.id = schedule_id AND NOT schedule.unscheduled) $$;
COMMENT ON FUNCTION bgw.is_unscheduled(bigint) IS
'Whether the schedule that launched a process was removed: its name may be scheduled anew, and the worker of its command be another one.';
