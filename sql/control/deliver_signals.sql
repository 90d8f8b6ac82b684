-- bgw.deliver_signals: what users sent to the processes of this node, and to those that wait -> signal orders.  Called by take_orders.
-- Who asked for an end is kept in the process, so that resume_node can send again what got lost on the way (I11).
-- Next: src/hosts/host.ts.

CREATE OR REPLACE FUNCTION bgw.deliver_signals(node_id bigint, OUT orders jsonb, OUT is_all boolean, OUT holds_starts boolean)
LANGUAGE plpgsql
AS $$
DECLARE
    batch bigint[];
BEGIN
    orders := '[]';
    is_all := true;
    holds_starts := false;
    -- Nearly always there is nothing: say so without looking at any process.
    IF NOT EXISTS (SELECT FROM bgw.signal) THEN
        RETURN;
    END IF;
    batch := bgw.next_signals(deliver_signals.node_id);
    is_all := pg_catalog.cardinality(batch) < 1000;
    -- = ANY: by the primary key.  While the planner knows of one process, = is as good to it by a walk over the whole index, which an
    -- old snapshot makes long, for each signal: a node that is at it for ten seconds gives up, and does so again.
    WITH taken AS MATERIALIZED (
        DELETE FROM bgw.signal WHERE signal.id = ANY (batch)
          -- What another node has claimed since is that node's.
          AND NOT EXISTS (SELECT FROM bgw.process WHERE process.id = ANY (ARRAY[signal.process_id]) AND process.node_id <> deliver_signals.node_id)
        RETURNING signal.process_id, signal.signal, signal.requested_by, signal.requested_at
    ), summed AS (
        SELECT taken.process_id, bool_or(taken.signal = 'SIGTERM') AS stop, bool_or(taken.signal = 'RESTART') AS restart,
               min(taken.requested_at) FILTER (WHERE taken.signal = 'SIGTERM') AS stop_at, min(taken.requested_by) FILTER (WHERE taken.signal = 'SIGTERM') AS stop_by
        FROM taken GROUP BY taken.process_id
    ), recorded AS (
        UPDATE bgw.process SET stop_requested_at = coalesce(process.stop_requested_at, summed.stop_at), stop_requested_by = coalesce(process.stop_requested_by, summed.stop_by),
            restart_requested = process.run_id IS NOT NULL AND (process.restart_requested OR summed.restart) AND NOT summed.stop,
            next_start = CASE WHEN NOT summed.restart THEN process.next_start END
        FROM summed WHERE process.id = ANY (ARRAY[summed.process_id]) AND (summed.stop OR summed.restart)
    )
    -- The same signal twice is one, as with kill.
    SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'kind', 'signal', 'handle', process.id::text, 'run_id', process.run_id::text, 'signal', sent.signal,
        'naptime', pg_catalog.date_part('epoch', bgw.nap_of(worker, bgw.overrides(worker.settings, process.settings))), 'command', worker.command,
        'overrides', bgw.order_overrides(process.owner, bgw.overrides(worker.settings, process.settings))) ORDER BY process.id, sent.signal), '[]'),
        -- The next ones may be for what would be started.
        NOT is_all AND EXISTS (SELECT FROM taken JOIN bgw.process AS waiting ON waiting.id = ANY (ARRAY[taken.process_id])
                               WHERE waiting.run_id IS NULL AND waiting.owner = bgw.current_owner())
    INTO orders, holds_starts
    FROM (SELECT DISTINCT taken.process_id, CASE taken.signal WHEN 'RESTART' THEN 'SIGTERM' ELSE taken.signal END AS signal FROM taken) AS sent
    JOIN bgw.process ON process.id = ANY (ARRAY[sent.process_id]) AND process.run_id IS NOT NULL
    LEFT JOIN bgw.worker ON worker.id = process.worker_id;
END;
$$;
COMMENT ON FUNCTION bgw.deliver_signals(bigint) IS 'Takes signals for the processes of a node, some 1,000 at a time, and returns them as orders; SIGHUP brings the nap time and command of now.
is_all: there are no more.  holds_starts: there are, and of these some were for what waits for this login.';

CREATE OR REPLACE FUNCTION bgw.next_signals(node_id bigint) RETURNS bigint[]
LANGUAGE plpgsql
AS $$
BEGIN
    -- From both ends: what somebody sends after a million others of one transaction does not wait for all of them.
    RETURN ARRAY(SELECT signal.id FROM bgw.signal LEFT JOIN bgw.process ON process.id = ANY (ARRAY[signal.process_id])
                 WHERE process.id IS NULL OR process.node_id = next_signals.node_id OR process.run_id IS NULL
                 ORDER BY signal.id LIMIT 1000 FOR UPDATE OF signal SKIP LOCKED)
        || ARRAY(SELECT signal.id FROM bgw.signal LEFT JOIN bgw.process ON process.id = ANY (ARRAY[signal.process_id])
                 WHERE process.id IS NULL OR process.node_id = next_signals.node_id OR process.run_id IS NULL
                 ORDER BY signal.id DESC LIMIT 100 FOR UPDATE OF signal SKIP LOCKED);
END;
$$;
COMMENT ON FUNCTION bgw.next_signals(bigint) IS
'Signals that a node takes next: for what it runs, for what waits, and for what is gone.  The same one may be named twice.';
