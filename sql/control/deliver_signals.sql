-- bgw.deliver_signals: what users sent to the processes of this node -> signal orders.  Called by take_orders.
-- A SIGTERM whose order is lost on the way is sent again by resume_node: who asked stays in the row (I11).
-- Next: src/hosts/host.ts.

CREATE OR REPLACE FUNCTION bgw.deliver_signals(node_id bigint) RETURNS jsonb
LANGUAGE sql
AS $$
    WITH signalled AS MATERIALIZED (
        SELECT process.id, process.run_id, process.worker_id, process.owner, process.pending_signals FROM bgw.process
        WHERE process.node_id = deliver_signals.node_id AND process.pending_signals IS NOT NULL
        ORDER BY process.id FOR NO KEY UPDATE
    ), delivered AS (
        UPDATE bgw.process SET pending_signals = NULL FROM signalled WHERE process.id = signalled.id
    )
    SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'kind', 'signal', 'handle', signalled.id, 'run_id', signalled.run_id, 'owner', signalled.owner::bigint, 'signal', signal,
        'naptime', pg_catalog.date_part('epoch', bgw.nap_of(worker)), 'command', worker.command) ORDER BY signalled.id, number), '[]')
    FROM signalled CROSS JOIN LATERAL pg_catalog.unnest(signalled.pending_signals) WITH ORDINALITY AS pending (signal, number)
    LEFT JOIN bgw.worker ON worker.id = signalled.worker_id
$$;
COMMENT ON FUNCTION bgw.deliver_signals(bigint) IS 'Takes the pending signals of the processes of a node and returns them as orders; SIGHUP brings the nap time and command of now.';
