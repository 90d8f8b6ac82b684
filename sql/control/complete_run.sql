-- Mode atomic: a run commits together with the word that it has, so its effects are there exactly once.  Keeps I4, I6.
-- Whoever writes the row of the run into bgw.completed_run first decides: the run in its own transaction (src/sessions/run.ts), or void_run
-- when its process is settled by somebody who cannot know.  Decision: docs/decisions/0013-completion-of-atomic-runs.md.
-- Next: sql/control/settle_exits.sql writes the history, and takes the row away.

CREATE OR REPLACE FUNCTION bgw.complete_run(handle bigint, run_id bigint) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp  -- in the session of the worker, where it is anybody's
AS $$
BEGIN
    PERFORM FROM bgw.process WHERE process.id = complete_run.handle AND process.run_id = complete_run.run_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'WK002',
            MESSAGE = pg_catalog.format('run %s is no longer this node''s', complete_run.run_id),
            DETAIL = 'It was taken over; its effects are rolled back.';
    END IF;
    IF pg_catalog.current_setting('bgw.transaction', true) IS DISTINCT FROM complete_run.run_id::text THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_transaction_termination',
            MESSAGE = 'the command of an atomic run ended its transaction',
            HINT = 'Use mode "session" for commands that commit or roll back by themselves.';
    END IF;
END;
$$;
COMMENT ON FUNCTION bgw.complete_run(bigint, bigint) IS
'The end of one run of an atomic worker that naps, in the transaction of its effects: the worker stays registered, and nobody may take it over before that
has committed.  Errors: 2D000 the command ended the transaction, WK002 the run was taken over.';

CREATE OR REPLACE FUNCTION bgw.complete_run(handle bigint, run_id bigint, transaction_id bigint, final boolean, command_tag text, rows bigint) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF pg_catalog.txid_current_if_assigned() IS NOT DISTINCT FROM transaction_id THEN
        PERFORM pg_catalog.set_config('bgw.transaction', complete_run.run_id::text, true);
    END IF;
    PERFORM bgw.complete_run(complete_run.handle, complete_run.run_id);
    IF final THEN
        INSERT INTO bgw.completed_run (run_id) VALUES (complete_run.run_id);
    END IF;
END;
$$;
COMMENT ON FUNCTION bgw.complete_run(bigint, bigint, bigint, boolean, text, bigint) IS
'The same for a controller of before bgw.completed_run, until it is replaced: of every atomic run, in the transaction that it began.';

CREATE OR REPLACE FUNCTION bgw.decide_runs(exits jsonb) RETURNS jsonb
LANGUAGE plpgsql
AS $$
BEGIN
    IF NOT exits @? '$[*] ? (@.undecided == true)' THEN
        RETURN exits;
    END IF;
    RETURN (SELECT pg_catalog.jsonb_agg(CASE WHEN told.ending @> '{"undecided": true}' AND NOT bgw.void_run((told.ending ->> 'run_id')::bigint)
                THEN told.ending - '{lost,interrupted,expired,sqlstate,message,detail,hint,context}'::text[] || '{"exit_code": 0, "done": true}' ELSE told.ending END)
            FROM pg_catalog.jsonb_array_elements(exits) AS told (ending));
END;
$$;
COMMENT ON FUNCTION bgw.decide_runs(jsonb) IS
'Ends of attempts, as settle_exits takes them: one of an atomic run that is "undecided", because its session was lost, becomes "done" if its
transaction has committed; otherwise it never will.';

CREATE OR REPLACE FUNCTION bgw.void_run(run_id bigint) RETURNS boolean
LANGUAGE plpgsql
AS $$
BEGIN
    -- Waits for a run that is just committing.
    INSERT INTO bgw.completed_run (run_id, voided_at) VALUES (void_run.run_id, bgw.now()) ON CONFLICT DO NOTHING;
    RETURN FOUND;
END;
$$;
COMMENT ON FUNCTION bgw.void_run(bigint) IS 'Keeps an atomic run from committing.  false: it has committed.';
