-- bgw.complete_run: mode atomic: the completion commits in the transaction of the command, so the effects are there exactly once.
-- Called by src/sessions/run.ts on the session of the worker, inside that transaction.  Keeps I4, I6.

CREATE OR REPLACE FUNCTION bgw.complete_run(handle bigint, run_id bigint, transaction_id bigint, final boolean, command_tag text, rows bigint) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF pg_catalog.txid_current_if_assigned() IS DISTINCT FROM transaction_id THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_transaction_termination',
            MESSAGE = 'the command of an atomic run ended its transaction',
            HINT = 'Use mode "session" for commands that commit or roll back by themselves.';
    END IF;
    IF final THEN
        -- A command that nobody else knows of: what settle_exits comes to, by a plan that a session can afford that makes it anew each time.
        WITH ended AS (
            DELETE FROM bgw.process WHERE process.id = complete_run.handle AND process.run_id = complete_run.run_id AND process.worker_id IS NULL
                AND process.notify IS NULL AND process.stop_requested_at IS NULL AND NOT process.restart_requested
                AND NOT EXISTS (SELECT FROM bgw.process AS child WHERE child.parent_id = complete_run.handle)
            RETURNING process.id, process.name, process.owner, process.node_id, process.queued_at, process.started_at, process.main_arg, process.worker_set, process.key
        )
        INSERT INTO bgw.run (id, process_id, name, owner, node, pid, status, exit_code, command_tag, rows, queued_at, started_at, finished_at, main_arg, worker_set, key)
        SELECT complete_run.run_id, ended.id, ended.name, ended.owner, (SELECT node.name FROM bgw.node WHERE node.id = ended.node_id), pg_catalog.pg_backend_pid(), 'done', 0,
               complete_run.command_tag, complete_run.rows, ended.queued_at, coalesce(ended.started_at, pg_catalog.now()), pg_catalog.clock_timestamp(), ended.main_arg, ended.worker_set, ended.key
        FROM ended;
        IF FOUND THEN
            RETURN;
        END IF;
    END IF;
    PERFORM FROM bgw.process WHERE process.id = complete_run.handle AND process.run_id = complete_run.run_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'WK002',
            MESSAGE = pg_catalog.format('run %s is no longer this node''s', complete_run.run_id),
            DETAIL = 'It was taken over; its effects are rolled back.';
    END IF;
    IF final THEN
        PERFORM bgw.settle_exits(pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_object(
            'handle', complete_run.handle, 'run_id', complete_run.run_id, 'exit_code', 0, 'command_tag', complete_run.command_tag, 'rows', complete_run.rows,
            'session_pid', pg_catalog.pg_backend_pid())));
    END IF;
END;
$$;
COMMENT ON FUNCTION bgw.complete_run(bigint, bigint, bigint, boolean, text, bigint) IS
'Records the end of an atomic run in the transaction of its effects.  transaction_id: the one it began in.  final: false for a run of a worker
that naps, which stays registered.  Errors: 2D000 the command ended the transaction, WK002 the run was taken over.';
