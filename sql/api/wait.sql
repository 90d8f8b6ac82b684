-- bgw_get_pid, bgw_wait_for_startup, bgw_wait_for_shutdown.
-- The two procedures commit while they wait: they stand by themselves, not in a transaction block or function.
-- PostgreSQL counterparts: GetBackgroundWorkerPid, WaitForBackgroundWorkerStartup, WaitForBackgroundWorkerShutdown.

CREATE OR REPLACE FUNCTION public.bgw_get_pid(handle bigint, OUT status text, OUT pid integer)
LANGUAGE plpgsql
AS $$
DECLARE
    process bgw.process;
BEGIN
    SELECT * INTO process FROM bgw.process WHERE id = handle;
    pid := process.pid;
    status := CASE
        WHEN process.id IS NULL THEN 'stopped'
        WHEN process.status = 'started' AND NOT EXISTS (
            SELECT FROM bgw.node WHERE node.id = process.node_id AND NOT node.fenced AND node.lease_until > pg_catalog.clock_timestamp()
        ) THEN 'postmaster_died'
        ELSE process.status
    END;
END;
$$;
COMMENT ON FUNCTION public.bgw_get_pid(bigint) IS
'Status of a process, and the pid of the backend that it holds now (NULL while it sleeps or needs none).
  not_yet_started   registered; no node has started it yet, or it waits for its restart time
  started           running
  stopped           finished, or never registered
  postmaster_died   it was running on a node that is gone
Example: SELECT * FROM bgw_get_pid(4711);';

CREATE OR REPLACE PROCEDURE public.bgw_wait_for_startup(
    handle bigint, timeout interval DEFAULT '60 s', INOUT status text DEFAULT NULL, INOUT pid integer DEFAULT NULL)
LANGUAGE plpgsql
AS $$
BEGIN
    CALL bgw.wait_for(handle, '{started,stopped,postmaster_died}', timeout, status, pid);
END;
$$;
COMMENT ON PROCEDURE public.bgw_wait_for_startup(bigint, interval, text, integer) IS
'Waits until the process has started, or has already stopped.  Returns its status and pid as bgw_get_pid does; after the timeout (default 60 s)
not_yet_started, or postmaster_died if no node is alive.  It commits while it waits: call it by itself, not in a transaction block or function.
Errors: 55000 it was launched in this very transaction, 2D000 it is called in a transaction block or function and has to wait.
Example: CALL bgw_wait_for_startup(4711, ''10 s'');';

CREATE OR REPLACE PROCEDURE public.bgw_wait_for_shutdown(
    handle bigint, timeout interval DEFAULT '60 s', INOUT status text DEFAULT NULL)
LANGUAGE plpgsql
AS $$
DECLARE
    pid integer;
BEGIN
    CALL bgw.wait_for(handle, '{stopped}', timeout, status, pid);
END;
$$;
COMMENT ON PROCEDURE public.bgw_wait_for_shutdown(bigint, interval, text) IS
'Waits until the process is finished and its backend gone.  Returns stopped; after the timeout (default 60 s) its status then, or postmaster_died
if no node is alive.  It commits while it waits: call it by itself, not in a transaction block or function.
Errors: 55000 it was launched in this very transaction, 2D000 it is called in a transaction block or function and has to wait.
Example: CALL bgw_wait_for_shutdown(4711, ''10 s'');';

CREATE OR REPLACE PROCEDURE bgw.wait_for(handle bigint, wanted text[], timeout interval, INOUT status text, INOUT pid integer)
LANGUAGE plpgsql
AS $$
DECLARE
    started_at timestamptz := pg_catalog.clock_timestamp();
    in_block boolean := pg_catalog.statement_timestamp() - pg_catalog.transaction_timestamp() > interval '2 ms';
    nap double precision := 0.002;
BEGIN
    PERFORM bgw.check_committed(handle);
    LOOP
        SELECT * INTO status, pid FROM public.bgw_get_pid(handle);
        IF status = ANY (wanted) THEN
            RETURN;
        ELSIF pg_catalog.clock_timestamp() > started_at + timeout THEN
            status := CASE WHEN bgw.has_live_node() THEN status ELSE 'postmaster_died' END;
            RETURN;
        END IF;
        PERFORM pg_catalog.pg_sleep(nap);
        nap := least(nap * 1.5, 0.1);
        -- What waits long must not hold a snapshot: CREATE INDEX CONCURRENTLY would wait for it, and this for the index.
        IF nap > 0.02 AND NOT in_block THEN
            COMMIT;
        END IF;
    END LOOP;
END;
$$;
COMMENT ON PROCEDURE bgw.wait_for(bigint, text[], interval, text, integer) IS
'Waits until the process has one of these statuses, and returns it with the pid; what both bgw_wait_for_... do.  Errors: 55000.';

CREATE OR REPLACE FUNCTION bgw.check_committed(handle bigint) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF EXISTS (SELECT FROM bgw.process WHERE id = handle AND run_id IS NULL AND bgw.is_uncommitted(process.xmin)) THEN
        RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = pg_catalog.format('cannot wait for handle %s in the transaction that launched it', handle),
            DETAIL = 'A launch takes effect when its transaction commits.',
            HINT = 'COMMIT first.';
    END IF;
END;
$$;
COMMENT ON FUNCTION bgw.check_committed(bigint) IS 'Refuses to wait for what cannot happen before the end of this transaction.  Errors: 55000.';
