-- bgw.stay_awake: a node promises to look by itself, so that launches need not ring (sql/doorbell.sql).
-- Called by src/catalog.ts.  Next: src/vigil.ts, which keeps the promise.

CREATE OR REPLACE FUNCTION bgw.stay_awake(node_id bigint, epoch integer) RETURNS integer
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM bgw.check_node(stay_awake.node_id, stay_awake.epoch);
    UPDATE bgw.node SET awake_until = bgw.now() + bgw.awake() WHERE bgw.node.id = stay_awake.node_id;
    RETURN pg_catalog.date_part('epoch', bgw.awake()) * 1000;
END;
$$;
COMMENT ON FUNCTION bgw.stay_awake(bigint, integer) IS
'Launches that commit from now on do not ring this node for as many milliseconds as this returns.  Until then it looks every few
milliseconds, and goes on for as long as a commit may take.  Errors: WK001 the node was fenced.';
