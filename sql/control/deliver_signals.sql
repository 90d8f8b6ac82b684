-- bgw.deliver_signals: what users sent to the processes of this node, and to those that wait -> signal orders.  Called by take_orders.
-- Who asked for an end is kept in the process, so that resume_node can send again what got lost on the way (I11).
-- Next: src/hosts/host.ts.

CREATE OR REPLACE FUNCTION bgw.deliver_signals(node_id bigint) RETURNS jsonb
LANGUAGE plpgsql
AS $$
DECLARE
    orders jsonb;
BEGIN
    -- Nearly always there is nothing: say so without looking at any process.
    IF NOT EXISTS (SELECT FROM bgw.signal) THEN
        RETURN '[]';
    END IF;
    WITH taken AS MATERIALIZED (
        DELETE FROM bgw.signal USING bgw.process
        WHERE process.id = signal.process_id AND (process.node_id = deliver_signals.node_id OR process.run_id IS NULL)
        RETURNING signal.process_id, signal.signal, signal.requested_by, signal.requested_at
    ), summed AS (
        SELECT taken.process_id, bool_or(taken.signal = 'SIGTERM') AS stop, bool_or(taken.signal = 'RESTART') AS restart,
               min(taken.requested_at) FILTER (WHERE taken.signal = 'SIGTERM') AS stop_at, min(taken.requested_by) FILTER (WHERE taken.signal = 'SIGTERM') AS stop_by
        FROM taken GROUP BY taken.process_id
    ), recorded AS (
        UPDATE bgw.process SET stop_requested_at = coalesce(process.stop_requested_at, summed.stop_at), stop_requested_by = coalesce(process.stop_requested_by, summed.stop_by),
            restart_requested = process.run_id IS NOT NULL AND (process.restart_requested OR summed.restart) AND NOT summed.stop,
            next_start = CASE WHEN NOT summed.restart THEN process.next_start END
        FROM summed WHERE process.id = summed.process_id AND (summed.stop OR summed.restart)
    )
    -- The same signal twice is one, as with kill.
    SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'kind', 'signal', 'handle', process.id::text, 'run_id', process.run_id::text, 'signal', sent.signal,
        'naptime', pg_catalog.date_part('epoch', bgw.nap_of(worker, bgw.overrides(worker.settings, process.settings))), 'command', worker.command,
        'overrides', bgw.order_overrides(process.owner, bgw.overrides(worker.settings, process.settings))) ORDER BY process.id, sent.signal), '[]') INTO orders
    FROM (SELECT DISTINCT taken.process_id, CASE taken.signal WHEN 'RESTART' THEN 'SIGTERM' ELSE taken.signal END AS signal FROM taken) AS sent
    JOIN bgw.process ON process.id = sent.process_id AND process.run_id IS NOT NULL
    LEFT JOIN bgw.worker ON worker.id = process.worker_id;
    RETURN orders;
END;
$$;
COMMENT ON FUNCTION bgw.deliver_signals(bigint) IS 'Takes the signals for the processes of a node and returns them as orders; SIGHUP brings the nap time and command of now.';
