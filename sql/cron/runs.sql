-- cron.job_run_details: how jobs went, in pg_cron's words.  Written by sql/control/settle_exits.sql, as bgw_run_history is.

CREATE OR REPLACE FUNCTION cron.return_message(run bgw.run) RETURNS text
LANGUAGE sql IMMUTABLE
AS $$
    SELECT CASE
        WHEN run.status <> 'done' THEN 'ERROR:  ' || coalesce(run.message, 'exit code ' || run.exit_code, run.status) || coalesce(E'\nDETAIL:  ' || run.detail, '')
            || coalesce(E'\nHINT:  ' || run.hint, '') || coalesce(E'\nCONTEXT:  ' || run.context, '') || E'\n'
        WHEN run.command_tag IS NULL THEN '0 rows'
        WHEN run.command_tag ~ '^SELECT [0-9]+$' THEN run.rows || CASE WHEN run.rows = 1 THEN ' row' ELSE ' rows' END
        ELSE run.command_tag END
$$;
COMMENT ON FUNCTION cron.return_message(bgw.run) IS
'What pg_cron says of a run (with cron.use_background_workers off, its default): "1 row" of a query, else the command tag, of the last statement; an error as libpq prints it.';

CREATE OR REPLACE FUNCTION cron.read_runs() RETURNS TABLE (
    jobid bigint, runid bigint, job_pid integer, database text, username text, command text, status text, return_message text,
    start_time timestamptz, end_time timestamptz)
LANGUAGE sql STABLE
AS $$
    SELECT entry.jobid, run.id, run.pid, entry.database, pg_catalog.pg_get_userbyid(run.owner)::text, entry.command,
           CASE run.status WHEN 'done' THEN 'succeeded' ELSE 'failed' END, cron.return_message(run), run.started_at, run.finished_at
    FROM cron.entry JOIN bgw.run ON run.schedule_id = entry.schedule_id AND run.owner = entry.owner
    WHERE NOT EXISTS (SELECT FROM cron.deleted_run WHERE deleted_run.end_time = run.finished_at AND deleted_run.runid = run.id)
    UNION ALL
    SELECT entry.jobid, process.run_id, process.pid, entry.database, pg_catalog.pg_get_userbyid(process.owner)::text, entry.command,
           CASE process.status WHEN 'started' THEN 'running' ELSE 'starting' END, NULL, process.started_at, NULL
    FROM cron.entry JOIN bgw.process ON process.schedule_id = entry.schedule_id AND process.owner = entry.owner
    WHERE process.run_id IS NOT NULL
$$;
COMMENT ON FUNCTION cron.read_runs() IS 'Runs of jobs that the reader may see: of his own; a superuser, and the owner of the schema, of all.';

CREATE OR REPLACE VIEW cron.job_run_details AS
    SELECT run.jobid, run.runid, run.job_pid, run.database, run.username, run.command, run.status, run.return_message, run.start_time, run.end_time
    FROM cron.read_runs() AS run;
COMMENT ON VIEW cron.job_run_details IS
'Runs of jobs, as in pg_cron''s table, but bounded: seven days, 1,000 runs per job; also of jobs that are gone.  status: starting, running, succeeded, failed.
command, database: of the job as last defined.  You may delete from it what is yours and has ended.
Example: SELECT * FROM cron.job_run_details ORDER BY start_time DESC LIMIT 5;';
GRANT SELECT, DELETE ON cron.job_run_details TO PUBLIC;
