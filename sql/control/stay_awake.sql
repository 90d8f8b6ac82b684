-- bgw.stay_awake: a node promises to look by itself, so that launches need not ring (sql/doorbell.sql).
-- Called by src/catalog.ts.  Next: src/vigil.ts, which keeps the promise.

CREATE OR REPLACE FUNCTION bgw.stay_awake(node_id bigint, epoch integer) RETURNS integer
LANGUAGE plpgsql
AS $$
DECLARE
    node bgw.node := bgw.check_node(stay_awake.node_id, stay_awake.epoch);
    last_handle bigint := (SELECT process_id_seq.last_value FROM bgw.process_id_seq);
BEGIN
    -- A promise is prolonged when half of it is over: 25 then are 100 in a second, no fewer than there would be looks.
    IF node.awake_until > bgw.now() AND last_handle < node.awake_since_handle + 25 THEN
        RETURN 0;
    END IF;
    UPDATE bgw.node SET awake_until = bgw.now() + bgw.awake(), awake_since_handle = last_handle WHERE bgw.node.id = stay_awake.node_id;
    RETURN pg_catalog.date_part('epoch', bgw.awake()) * 1000;
END;
$$;
COMMENT ON FUNCTION bgw.stay_awake(bigint, integer) IS
'Launches that commit from now on do not ring this node for as many milliseconds as this returns: it looks every few milliseconds, and goes
on after that for as long as a commit may take.  0: it has promised already, and too little is launched to prolong that.
Errors: WK001 the node was fenced.';
