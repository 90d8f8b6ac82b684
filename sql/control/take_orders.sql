-- bgw.take_orders: one node's next orders: what to signal, what to start, and when to look again.
-- Called by src/catalog.ts together with bgw.report, in one round trip: the two are the whole protocol.
-- Lock order: node, then process by handle.  Next: sql/control/claim_startable.sql, then src/controller.ts obeys.

CREATE OR REPLACE FUNCTION bgw.take_orders(node_id bigint, epoch integer, room integer) RETURNS json
LANGUAGE plpgsql
AS $$
DECLARE
    node bgw.node := bgw.check_node(take_orders.node_id, take_orders.epoch);
    all_settled boolean := bgw.fence_dead_nodes(take_orders.node_id);
    signals jsonb;
    leaves jsonb;
    naps json := '[]';
    starts json := '[]';
BEGIN
    PERFORM pg_catalog.set_config('bgw.doorbell', 'off', true);  -- what is launched here is found below
    PERFORM bgw.keep_house();
    PERFORM bgw.tick_schedules();
    PERFORM bgw.note_schedules();
    PERFORM bgw.cover_databases();
    signals := bgw.deliver_signals(node.id);
    leaves := bgw.interrupt_databases(node.id);
    PERFORM bgw.settle_stopped();
    IF room >= 0 THEN
        -- Napping workers take no slot; 500 at a time keep one turn short.
        naps := bgw.claim_startable(node, false, 500);
        starts := bgw.claim_startable(node, true, room);
    END IF;
    RETURN pg_catalog.json_build_object(
        'orders', pg_catalog.json_build_array(signals, leaves, naps, starts),
        -- A node logs in as the owner of all that it runs.
        'settings', CASE WHEN signals <> '[]' OR pg_catalog.json_array_length(naps) > 0 OR pg_catalog.json_array_length(starts) > 0
                         THEN bgw.settings_of(node.login) END,
        'wake_ms', CASE WHEN all_settled THEN bgw.next_wakeup_ms() ELSE 100 END);
END;
$$;
COMMENT ON FUNCTION bgw.take_orders(bigint, integer, integer) IS
'Orders for a node: {orders: lists of {kind: start | signal | leave, handle, run_id, overrides, ...}, settings: those of its login, if there is an order that
needs them, wake_ms}.
room: how many more processes that take a slot it can start now or within moments; negative: none at all, it is stopping.  Errors: WK001 the node was fenced.';

CREATE OR REPLACE FUNCTION bgw.next_wakeup_ms() RETURNS integer
LANGUAGE plpgsql
AS $$
DECLARE
    present timestamptz := bgw.now();
    due timestamptz := least(
        (SELECT process.next_start FROM bgw.process WHERE process.next_start IS NOT NULL AND process.next_start > present ORDER BY process.next_start LIMIT 1),
        (SELECT schedule_state.starts_at FROM bgw.schedule_state WHERE schedule_state.starts_at IS NOT NULL ORDER BY schedule_state.starts_at LIMIT 1),
        present + CASE WHEN (SELECT process.id FROM bgw.process ORDER BY process.id LIMIT 1) IS NULL THEN interval '4 s' ELSE interval '2 s' END);
BEGIN
    -- The poll interval: the longest that a lost notification may delay anything (I10).  0 would spin on what other nodes hold locked.
    RETURN greatest(1, pg_catalog.ceil(pg_catalog.date_part('epoch', due - present) * 1000));
END;
$$;
COMMENT ON FUNCTION bgw.next_wakeup_ms() IS 'In how many milliseconds a node has to look again: at the next restart or due time, at the latest in two seconds; in four if no process is
registered.';
