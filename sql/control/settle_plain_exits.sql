-- bgw.settle_plain_exits: what settle_exits comes to for a command that was run once, succeeded, and that nobody else is to hear of:
-- most ends are of that kind, and this costs half as much.  Called by report, which leaves the others to settle_exits.  Keeps I2, I4.

CREATE OR REPLACE FUNCTION bgw.settle_plain_exits(exits jsonb) RETURNS boolean
LANGUAGE plpgsql
AS $$
DECLARE
    present timestamptz := bgw.now();
    settled bigint;
BEGIN
    WITH ended AS (
        DELETE FROM bgw.process
        USING pg_catalog.jsonb_to_recordset(exits) AS ending (handle bigint, run_id bigint, exit_code integer, command_tag text, rows bigint, age double precision,
                                                              ran_ms double precision, session_pid integer, done boolean)
        -- = ANY: as in deliver_signals.
        WHERE process.id = ANY (ARRAY[ending.handle]) AND process.run_id = ending.run_id AND ending.exit_code = 0 AND ending.done
          AND process.worker_id IS NULL AND process.schedule_id IS NULL AND process.notify IS NULL
          AND process.stop_requested_at IS NULL AND NOT process.restart_requested
          AND NOT EXISTS (SELECT FROM bgw.process AS child WHERE child.parent_id = ending.handle)
        RETURNING process.id, process.run_id, process.mode, process.name, process.owner, process.node_id, process.queued_at, process.started_at, process.claimed_at,
                  process.main_arg, process.worker_set, process.key, ending.command_tag, ending.rows, ending.session_pid,
                  present - ending.age * interval '1 ms' AS finished_at, ending.ran_ms
    ), consumed AS (
        DELETE FROM bgw.completed_run WHERE completed_run.run_id = ANY (ARRAY(SELECT ended.run_id FROM ended WHERE ended.mode = 'atomic'))
    )
    INSERT INTO bgw.run (id, process_id, name, owner, node, pid, status, exit_code, command_tag, rows, queued_at, started_at, finished_at, main_arg, worker_set, key)
    SELECT ended.run_id, ended.id, ended.name, ended.owner, (SELECT node.name FROM bgw.node WHERE node.id = ended.node_id), ended.session_pid, 'done', 0,
           ended.command_tag, ended.rows, ended.queued_at, coalesce(ended.finished_at - ended.ran_ms * interval '1 ms', ended.started_at, ended.claimed_at),
           ended.finished_at, ended.main_arg, ended.worker_set, ended.key
    FROM ended;
    GET DIAGNOSTICS settled = ROW_COUNT;
    RETURN settled = pg_catalog.jsonb_array_length(exits);
END;
$$;
COMMENT ON FUNCTION bgw.settle_plain_exits(jsonb) IS
'Ends attempts, given as to settle_exits, of commands without a worker, a schedule, a launcher to notify or children, that are done.  false: there
were others, which are as they were.';
