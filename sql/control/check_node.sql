-- bgw.check_node: the first thing every call of a node does: refuse a stale one, renew the lease of a live one.
-- Keeps I6: a stale epoch changes nothing.  The row lock orders every call of a node against its fencing.

CREATE OR REPLACE FUNCTION bgw.check_node(node_id bigint, epoch integer) RETURNS bgw.node
LANGUAGE plpgsql
AS $$
DECLARE
    node bgw.node;
BEGIN
    SELECT * INTO node FROM bgw.node
    WHERE bgw.node.id = check_node.node_id AND bgw.node.epoch = check_node.epoch AND NOT bgw.node.fenced
    FOR NO KEY UPDATE;
    IF node.id IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'WK001',
            MESSAGE = pg_catalog.format('node %s is no longer a node at epoch %s', check_node.node_id, check_node.epoch),
            DETAIL = 'Another node has taken over its workers.',
            HINT = 'It has to stop its workers and join again.';
    END IF;
    -- A lease that ran out but was not taken over is good again: only fencing, under this row lock, ends an epoch.
    -- Written at most every other second, so that a busy node does not rewrite its row at each call; and when a node that rested rests no longer.
    IF node.lease_until NOT BETWEEN bgw.now() + bgw.lease() - interval '2 s' AND bgw.now() + bgw.lease() OR node.control_gone_since IS NOT NULL THEN
        UPDATE bgw.node SET lease_until = bgw.now() + bgw.lease(), control_gone_since = NULL WHERE bgw.node.id = check_node.node_id;
    END IF;
    RETURN node;
END;
$$;
COMMENT ON FUNCTION bgw.check_node(bigint, integer) IS 'Locks the row of a node and renews its lease.  Errors: WK001 the node was fenced.';
