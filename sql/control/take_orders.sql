-- bgw.take_orders: one node's next orders: what to signal, what to start, and when to look again.
-- Called by src/catalog.ts together with bgw.report, in one round trip: the two are the whole protocol.
-- Lock order: node, then process by handle.  Next: sql/control/claim_startable.sql, then src/controller.ts obeys.

CREATE OR REPLACE FUNCTION bgw.take_orders(node_id bigint, epoch integer, room integer, hurried boolean DEFAULT false,
    since double precision DEFAULT '-infinity', is_poll boolean DEFAULT true) RETURNS json
LANGUAGE plpgsql
AS $$
DECLARE
    node bgw.node := bgw.check_node(take_orders.node_id, take_orders.epoch);
    seen record;
    all_settled boolean := true;
    signals jsonb := '[]';
    leaves jsonb := '[]';
    naps json := '[]';
    starts json := '[]';
    first_turn double precision;
    wake_ms double precision := 10;
BEGIN
    -- Not past a signal: it may be for what would be started.
    IF hurried AND room > 0 AND NOT EXISTS (SELECT FROM bgw.signal) THEN
        SELECT * INTO starts, first_turn FROM bgw.claim_startable(node, true, room, since);
    END IF;
    IF first_turn IS NULL THEN
        seen := bgw.look(node.id, node.login, since, is_poll);
        IF seen.chores THEN
            all_settled := bgw.do_chores(node.id, seen);
            IF seen.schedules THEN
                since := '-infinity';  -- what is due may have priority
            END IF;
            seen := bgw.look(node.id, node.login, since, is_poll);
        END IF;
        IF seen.notices THEN
            signals := bgw.deliver_signals(node.id);
            leaves := bgw.interrupt_databases(node.id);
            PERFORM bgw.settle_stopped();
        END IF;
        -- Napping workers take no slot; 500 at a time keep one turn short.
        IF seen.naps AND room >= 0 THEN
            naps := (bgw.claim_startable(node, false, 500, '-infinity')).orders;
        END IF;
        IF seen.starts AND room > 0 THEN
            SELECT * INTO starts, first_turn FROM bgw.claim_startable(node, true, room, since);
        END IF;
        -- 0 would spin on what other nodes hold locked.
        wake_ms := CASE WHEN all_settled THEN greatest(1, pg_catalog.ceil(pg_catalog.date_part('epoch', seen.due_at - bgw.now()) * 1000)) ELSE 100 END;
    END IF;
    RETURN pg_catalog.json_build_object(
        'orders', pg_catalog.json_build_array(signals, leaves, naps, starts),
        -- A node logs in as the owner of all that it runs.
        'settings', CASE WHEN signals <> '[]' OR pg_catalog.json_array_length(naps) > 0 OR first_turn IS NOT NULL
                         THEN bgw.settings_of(node.login) END,
        'first_turn', first_turn,
        'wake_ms', wake_ms);
END;
$$;
COMMENT ON FUNCTION bgw.take_orders(bigint, integer, integer, boolean, double precision, boolean) IS
'Orders for a node: {orders: lists of {kind: start | signal | leave, handle, run_id, overrides, ...}, settings: those of its login, if there is an order that
needs them, first_turn: the earliest of what takes a slot and was claimed, wake_ms}.
room: how many more processes that take a slot it can start now or within moments; negative: none at all, it is stopping.
hurried: the node was rung, most likely for a launch: where there is something to start and no signal, everything else is left to the next call, in 10 ms.
since: what takes a slot and has an earlier turn is left to a call with the default (src/frontier.ts).
is_poll: the node has slept, nobody has rung, and it has nothing to report.
Errors: WK001 the node was fenced.';

CREATE OR REPLACE FUNCTION bgw.do_chores(node_id bigint, seen record) RETURNS boolean
LANGUAGE plpgsql
AS $$
DECLARE
    all_settled boolean := true;
BEGIN
    PERFORM pg_catalog.set_config('bgw.doorbell', 'off', true);  -- what is launched here is found by the caller
    IF seen.others THEN
        all_settled := bgw.fence_dead_nodes(do_chores.node_id);
    END IF;
    IF seen.house THEN
        PERFORM bgw.keep_house();
    END IF;
    IF seen.schedules THEN
        PERFORM bgw.tick_schedules();
        PERFORM bgw.note_schedules();
    END IF;
    IF seen.databases THEN
        PERFORM bgw.cover_databases();
    END IF;
    RETURN all_settled;
END;
$$;
COMMENT ON FUNCTION bgw.do_chores(bigint, record) IS 'What a node does for all, as far as bgw.look has seen something.  Returns false if a session of a dead node is still there.';
