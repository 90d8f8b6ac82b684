-- bgw.take_orders: one node's next orders: what to signal, what to start, and when to look again.
-- Called by src/catalog.ts together with bgw.report, in one round trip: the two are the whole protocol.
-- Lock order: node, then process by handle.  Next: sql/control/claim_startable.sql, then src/controller.ts obeys.

CREATE OR REPLACE FUNCTION bgw.take_orders(node_id bigint, epoch integer, room integer, hurried boolean DEFAULT false,
    since double precision DEFAULT '-infinity', is_poll boolean DEFAULT true) RETURNS json
LANGUAGE plpgsql
AS $$
DECLARE
    node bgw.node;
    seen record;
    all_settled boolean := true;
    all_told boolean := true;
    signals jsonb := '[]';
    leaves jsonb := '[]';
    naps json := '[]';
    starts json := '[]';
    first_turn double precision;
    wake_ms double precision;
BEGIN
    IF is_poll THEN
        wake_ms := bgw.rest(take_orders.node_id, take_orders.epoch);
        IF wake_ms IS NOT NULL THEN
            RETURN pg_catalog.json_build_object('orders', pg_catalog.json_build_array(), 'settings', NULL, 'first_turn', NULL, 'wake_ms', wake_ms);
        END IF;
    END IF;
    node := bgw.check_node(take_orders.node_id, take_orders.epoch);
    -- Not past a signal: it may be for what would be started.
    IF hurried AND room > 0 AND NOT EXISTS (SELECT FROM bgw.signal) THEN
        SELECT * INTO starts, first_turn FROM bgw.claim_startable(node, true, room, since);
    END IF;
    IF first_turn IS NOT NULL THEN
        wake_ms := 10;
    ELSE
        seen := bgw.look(node.id, node.login, since, is_poll);
        IF seen.chores THEN
            all_settled := bgw.do_chores(node.id, seen);
            IF seen.schedules THEN
                since := '-infinity';  -- what is due may have priority
            END IF;
            seen := bgw.look(node.id, node.login, since, is_poll);
        END IF;
        IF seen.notices THEN
            SELECT told.orders, told.is_all, CASE WHEN told.holds_starts THEN -1 ELSE room END INTO signals, all_told, room
            FROM bgw.deliver_signals(node.id) AS told;
            leaves := bgw.interrupt_databases(node.id);
            all_told := bgw.settle_stopped() AND all_told;
        END IF;
        -- Napping workers take no slot; 500 at a time keep one turn short.
        IF seen.naps AND room >= 0 THEN
            naps := (bgw.claim_startable(node, false, 500, '-infinity')).orders;
        END IF;
        IF seen.starts AND room > 0 THEN
            SELECT * INTO starts, first_turn FROM bgw.claim_startable(node, true, room, since);
        END IF;
        IF seen.idle THEN
            UPDATE bgw.node SET lease_until = bgw.now() + bgw.lease_at_rest() WHERE bgw.node.id = take_orders.node_id;
        END IF;
        -- Large orders: there may be more, which were not claimed for their size.
        wake_ms := CASE WHEN NOT all_told THEN 1
                        WHEN seen.schedules OR pg_catalog.octet_length(starts::text) > 100000 THEN 10
                        WHEN all_settled THEN bgw.wake_ms(seen.due_at) ELSE 100 END;
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

CREATE OR REPLACE FUNCTION bgw.rest(node_id bigint, epoch integer) RETURNS double precision
LANGUAGE plpgsql
AS $$
DECLARE
    login oid;
    seen record;
BEGIN
    -- Without a lock: a node that is fenced meanwhile is told so at its next look, and has done nothing.
    SELECT node.login INTO login FROM bgw.node
    WHERE node.id = rest.node_id AND node.epoch = rest.epoch AND NOT node.fenced AND node.control_gone_since IS NULL AND bgw.is_resting(node.lease_until);
    IF FOUND THEN
        seen := bgw.look(rest.node_id, login);
        RETURN CASE WHEN seen.idle AND NOT (seen.chores OR seen.notices) THEN bgw.wake_ms(seen.due_at) END;
    END IF;
    RETURN NULL;
END;
$$;
COMMENT ON FUNCTION bgw.rest(bigint, integer) IS
'The poll of a node at rest (decision 14): it locks and writes nothing.  Returns in how many milliseconds to look again; NULL: the node does not rest, or there is something to do.';

CREATE OR REPLACE FUNCTION bgw.wake_ms(due_at timestamptz) RETURNS double precision
LANGUAGE sql
-- 0 would spin on what other nodes hold locked.
AS $$ SELECT greatest(1, pg_catalog.ceil(pg_catalog.date_part('epoch', due_at - bgw.now()) * 1000)) $$;
COMMENT ON FUNCTION bgw.wake_ms(timestamptz) IS 'Milliseconds until then, at least one.';

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
        PERFORM bgw.note_schedules();
        PERFORM bgw.tick_schedules();
    END IF;
    IF seen.databases THEN
        PERFORM bgw.cover_databases();
    END IF;
    RETURN all_settled;
END;
$$;
COMMENT ON FUNCTION bgw.do_chores(bigint, record) IS 'What a node does for all, as far as bgw.look has seen something.  Returns false if a session of a dead node is still there.';
