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
