-- bgw_run_history, bgw_log: how it went, and what was said.  Written by sql/control/settle_exits.sql and report.sql.
-- Each stands on a function that runs as the reader, so that row-level security holds on every version of the server.

CREATE OR REPLACE FUNCTION bgw.read_runs() RETURNS SETOF bgw.run
LANGUAGE sql STABLE
AS $$ SELECT * FROM bgw.run $$;
COMMENT ON FUNCTION bgw.read_runs() IS 'Runs that the reader may see.';

CREATE OR REPLACE VIEW public.bgw_run_history AS
    SELECT run.id AS run_id, run.process_id AS handle, run.name, pg_catalog.pg_get_userbyid(run.owner) AS owner, run.node, run.pid, run.status,
           run.exit_code, run.command_tag, run.rows, run.sqlstate, run.message, run.detail, run.hint, run.context,
           run.queued_at, run.started_at, run.finished_at, run.main_arg, run.gave_up, run.due_at, run.worker_set, run.key
    FROM bgw.read_runs() AS run;
COMMENT ON VIEW public.bgw_run_history IS
'Finished runs of the last seven days, 1,000 per worker and some 100,000 of bgw_launch_sql.  status: done, failed, cancelled (somebody asked for it), expired (its timeout),
lost (its node died).  exit_code NULL: killed or never started.  command_tag, rows: of the last statement, if it is done.  pid: the backend it ran in.  gave_up: why it
was not started again.  worker_set, key: given to bgw_launch.
Example: SELECT * FROM bgw_run_history ORDER BY finished_at DESC LIMIT 10;';
GRANT SELECT ON public.bgw_run_history TO PUBLIC;

CREATE OR REPLACE FUNCTION bgw.read_log() RETURNS SETOF bgw.log
LANGUAGE sql STABLE
AS $$ SELECT * FROM bgw.log $$;
COMMENT ON FUNCTION bgw.read_log() IS 'Log lines that the reader may see.';

CREATE OR REPLACE VIEW public.bgw_log AS
    SELECT log.id, log.logged_at, log.node, log.process_id AS handle, log.name, pg_catalog.pg_get_userbyid(log.owner) AS owner,
           log.severity, log.sqlstate, log.message, log.detail, log.hint, log.context
    FROM bgw.read_log() AS log;
COMMENT ON VIEW public.bgw_log IS
'What workers and controllers said, the newest 10,000 lines: what SQL workers RAISE, what TypeScript workers log, what the controller did with them.
Example: SELECT logged_at, name, severity, message FROM bgw_log ORDER BY id DESC LIMIT 20;';
GRANT SELECT ON public.bgw_log TO PUBLIC;
