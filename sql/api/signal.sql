-- bgw_signal, bgw_cancel, bgw_terminate, bgw_restart, bgw_set_latch: by handle, or by name for every process of that name.
-- PostgreSQL counterparts: kill, pg_cancel_backend, TerminateBackgroundWorker, SetLatch.  As transactional as everything here.
-- Next: sql/doorbell.sql, then sql/control/deliver_signals.sql on the node that runs it.

CREATE OR REPLACE FUNCTION public.bgw_signal(handle bigint, signal text) RETURNS boolean
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM bgw.check_signal(signal);
    RETURN bgw.request(handle, signal);
END;
$$;
COMMENT ON FUNCTION public.bgw_signal(bigint, text) IS
'Sends SIGHUP (reload settings), SIGINT (cancel the statement), SIGTERM (terminate) or SIGUSR1 (set the latch) when the transaction commits.
Returns true if it was registered; false, with a warning, if no such process runs.  Errors: 22023 another signal.
Example: SELECT bgw_signal(4711, ''SIGHUP'');';

CREATE OR REPLACE FUNCTION public.bgw_signal(worker_name text, signal text) RETURNS boolean
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM bgw.check_signal(signal);
    RETURN (SELECT coalesce(pg_catalog.bool_or(bgw.request(process_id, bgw_signal.signal)), false) FROM bgw.find_processes(worker_name) AS process_id);
END;
$$;
COMMENT ON FUNCTION public.bgw_signal(text, text) IS 'bgw_signal for every process of that name.  Errors: 42704 no such worker, 22023 another signal.';

CREATE OR REPLACE FUNCTION bgw.check_signal(signal text) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF signal IS NULL OR signal NOT IN ('SIGHUP', 'SIGINT', 'SIGTERM', 'SIGUSR1') THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('unrecognized signal "%s"', signal),
            HINT = 'Available signals: SIGHUP, SIGINT, SIGTERM, SIGUSR1.';
    END IF;
END;
$$;
COMMENT ON FUNCTION bgw.check_signal(text) IS 'Raises an error unless a process can be sent that signal.  Errors: 22023.';

CREATE OR REPLACE FUNCTION public.bgw_cancel(handle bigint) RETURNS boolean
LANGUAGE sql
AS $$ SELECT public.bgw_signal(handle, 'SIGINT') $$;
COMMENT ON FUNCTION public.bgw_cancel(bigint) IS
'Cancels the statement that the process is running, as pg_cancel_backend does: the statement ends with SQLSTATE 57014 and the restart rule applies.
Returns true if it was registered; false, with a warning, if no such process runs.
Example: SELECT bgw_cancel(4711);';

CREATE OR REPLACE FUNCTION public.bgw_cancel(worker_name text) RETURNS boolean
LANGUAGE sql
AS $$ SELECT public.bgw_signal(worker_name, 'SIGINT') $$;
COMMENT ON FUNCTION public.bgw_cancel(text) IS 'bgw_cancel for every process of that name.  Errors: 42704 no such worker.';

CREATE OR REPLACE FUNCTION public.bgw_terminate(handle bigint) RETURNS boolean
LANGUAGE sql
AS $$ SELECT public.bgw_signal(handle, 'SIGTERM') $$;
COMMENT ON FUNCTION public.bgw_terminate(bigint) IS
'Terminates the process and unregisters it: SIGTERM; after five seconds its session is terminated and its operating system process killed.
CALL bgw_wait_for_shutdown(handle) returns when its backend is gone.  Returns true if it was registered; false, with a warning, if there is no such process.
Example: SELECT bgw_terminate(4711);';

CREATE OR REPLACE FUNCTION public.bgw_terminate(worker_name text) RETURNS boolean
LANGUAGE sql
AS $$ SELECT public.bgw_signal(worker_name, 'SIGTERM') $$;
COMMENT ON FUNCTION public.bgw_terminate(text) IS 'bgw_terminate for every process of that name.  Errors: 42704 no such worker.';

CREATE OR REPLACE FUNCTION public.bgw_set_latch(handle bigint) RETURNS boolean
LANGUAGE sql
AS $$ SELECT public.bgw_signal(handle, 'SIGUSR1') $$;
COMMENT ON FUNCTION public.bgw_set_latch(bigint) IS
'Sets the latch of the process: a worker that sleeps wakes up now.  Returns true if it was registered; false, with a warning, if no such process runs.
Example: SELECT bgw_set_latch(4711);';

CREATE OR REPLACE FUNCTION public.bgw_restart(handle bigint) RETURNS boolean
LANGUAGE sql
AS $$ SELECT bgw.request(handle, 'RESTART') $$;
COMMENT ON FUNCTION public.bgw_restart(bigint) IS
'Ends the process as bgw_terminate does and starts it again at once, under the same handle; one that waits for its restart time starts now.
Returns true if it was registered; false, with a warning, if there is no such process.
Example: SELECT bgw_restart(4711);';

CREATE OR REPLACE FUNCTION public.bgw_restart(worker_name text) RETURNS boolean
LANGUAGE sql
AS $$ SELECT coalesce(pg_catalog.bool_or(public.bgw_restart(process_id)), false) FROM bgw.find_processes(worker_name) AS process_id $$;
COMMENT ON FUNCTION public.bgw_restart(text) IS 'bgw_restart for every process of that name.  Errors: 42704 no such worker.';

CREATE OR REPLACE FUNCTION bgw.request(handle bigint, signal text) RETURNS boolean
LANGUAGE plpgsql
AS $$
BEGIN
    -- There is nothing to cancel of one that waits.
    IF NOT EXISTS (SELECT FROM bgw.process WHERE id = handle AND (process.run_id IS NOT NULL OR request.signal <> 'SIGINT')) THEN
        RAISE WARNING USING ERRCODE = '01000', MESSAGE = pg_catalog.format('handle %s is not a running background worker', coalesce(handle::text, 'NULL'));
        RETURN false;
    END IF;
    INSERT INTO bgw.signal (process_id, signal) VALUES (handle, request.signal);
    PERFORM bgw.ring();
    RETURN true;
END;
$$;
COMMENT ON FUNCTION bgw.request(bigint, text) IS 'Leaves a signal, or RESTART, for the node that runs the process; warns, as pg_cancel_backend does, when there is nothing to signal.';

CREATE OR REPLACE FUNCTION bgw.find_processes(worker_name text) RETURNS SETOF bigint
LANGUAGE plpgsql
AS $$
BEGIN
    -- Also of a definition that is gone.
    RETURN QUERY SELECT process.id FROM bgw.process LEFT JOIN bgw.worker ON worker.id = process.worker_id AND NOT worker.unregistered
    WHERE process.owner = bgw.current_owner() AND (process.name = worker_name OR worker.name = worker_name) ORDER BY process.id;
    IF NOT FOUND THEN
        RETURN QUERY SELECT process.id FROM bgw.process
        WHERE process.worker_id = (bgw.find_worker(worker_name)).id ORDER BY process.id;
        IF NOT FOUND THEN
            RAISE WARNING USING ERRCODE = '01000', MESSAGE = pg_catalog.format('worker "%s" is not running', worker_name);
        END IF;
    END IF;
END;
$$;
COMMENT ON FUNCTION bgw.find_processes(text) IS
'Handles of every process of the caller''s of that name, or of the worker of that name that the caller may operate, in lock order.  Errors: 42704 no such worker, WK101 several.';

CREATE OR REPLACE FUNCTION bgw.is_stopping(process bgw.process) RETURNS boolean
LANGUAGE sql STABLE
AS $$
    SELECT process.stop_requested_at IS NOT NULL
        OR EXISTS (SELECT FROM bgw.signal WHERE signal.process_id = process.id AND signal.signal = 'SIGTERM')
$$;
COMMENT ON FUNCTION bgw.is_stopping(bgw.process) IS 'Whether the end of a process was asked for.';
