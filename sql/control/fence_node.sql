-- bgw.fence_dead_nodes: take over from nodes that died: bump the epoch, terminate exactly their registered sessions,
-- see them gone, then settle their processes by the restart rule.  Called by join_node and take_orders.
-- Keeps I1, I6, I8.  Fails closed: a backend that cannot be told from a registered session counts as still there.
-- Lock order: node, then process.

CREATE OR REPLACE FUNCTION bgw.fence_dead_nodes(self bigint) RETURNS boolean
LANGUAGE plpgsql
AS $$
DECLARE
    other bgw.node;
    all_settled boolean := true;
BEGIN
    FOR other IN SELECT * FROM bgw.node WHERE bgw.node.id IS DISTINCT FROM self ORDER BY bgw.node.id FOR NO KEY UPDATE SKIP LOCKED LOOP
        IF bgw.is_dead(other) THEN
            all_settled := bgw.fence_node(other.id) AND all_settled;
        END IF;
    END LOOP;
    RETURN all_settled;
END;
$$;
COMMENT ON FUNCTION bgw.fence_dead_nodes(bigint) IS 'Fences every node that is dead but self (NULL: none).  false: some session of one is still there; call again.';

CREATE OR REPLACE FUNCTION bgw.is_past(node bgw.node) RETURNS boolean
LANGUAGE sql
AS $$ SELECT node.fenced OR node.lease_until < bgw.now() OR node.timeline IS DISTINCT FROM bgw.timeline() $$;
COMMENT ON FUNCTION bgw.is_past(bgw.node) IS
'Whether a node may be taken over at once: it is fenced already, its lease is over, or it is one of another server or database: its row came here by replication (I17), or in a copy.';

CREATE OR REPLACE FUNCTION bgw.is_dead(node bgw.node) RETURNS boolean
LANGUAGE plpgsql
AS $$
BEGIN
    IF bgw.is_past(node) THEN
        RETURN true;
    ELSIF bgw.is_there(node.control_pid, node.control_backend_start) THEN
        RETURN false;
    ELSIF node.control_gone_since IS NULL THEN
        UPDATE bgw.node SET control_gone_since = bgw.now() WHERE bgw.node.id = is_dead.node.id;
        RETURN false;
    END IF;
    -- Two seconds, so that a DBA who terminates a control session does not cost a healthy node its workers: it is back by then.
    RETURN node.control_gone_since < bgw.now() - interval '2 s';
END;
$$;
COMMENT ON FUNCTION bgw.is_dead(bgw.node) IS 'Whether a node is dead: bgw.is_past, or its control session gone for two seconds.';

CREATE OR REPLACE FUNCTION bgw.fence_node(dead bigint) RETURNS boolean
LANGUAGE plpgsql
AS $$
DECLARE
    left_pid integer;
    all_gone boolean := true;
BEGIN
    UPDATE bgw.node SET epoch = epoch + 1, fenced = true WHERE bgw.node.id = dead AND NOT fenced;
    -- In a loop: as part of a query, the planner may call pg_terminate_backend before it has applied the join.
    FOR left_pid IN
        SELECT CASE WHEN live.backend_start IS NOT NULL THEN live.pid END
        FROM bgw.session JOIN pg_catalog.pg_stat_activity AS live
          ON live.pid = session.pid AND coalesce(live.backend_start = session.backend_start, true)
        JOIN bgw.node ON node.id = session.node_id
        -- The sessions of a node of another timeline or database are none of ours: their pids are somebody else's, or of the original that goes on.
        WHERE session.node_id = dead AND node.timeline = bgw.timeline()
    LOOP
        all_gone := false;
        BEGIN
            PERFORM pg_catalog.pg_terminate_backend(left_pid) WHERE left_pid IS NOT NULL;
        EXCEPTION WHEN insufficient_privilege THEN
            NULL;  -- of a login that this one may see and not end: still there
        END;
    END LOOP;
    IF all_gone THEN
        PERFORM bgw.settle_processes_of(dead);
        DELETE FROM bgw.session WHERE session.node_id = dead;
        DELETE FROM bgw.node WHERE bgw.node.id = dead;
    END IF;
    RETURN all_gone;
END;
$$;
COMMENT ON FUNCTION bgw.fence_node(bigint) IS 'Fences one node.  true: its sessions are gone, its processes settled and its row deleted.  false: not yet; call again.';

CREATE OR REPLACE FUNCTION bgw.settle_processes_of(gone bigint) RETURNS void
LANGUAGE sql
AS $$
    SELECT bgw.settle_exits(bgw.decide_runs(coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'handle', process.id, 'run_id', process.run_id, 'lost', true, 'sqlstate', '57P01', 'undecided', coalesce(worker.mode, process.mode) = 'atomic',
        'message', pg_catalog.format('lost background worker "%s": node "%s" is gone', process.name, bgw.node.name)) ORDER BY process.id), '[]')))
    FROM bgw.process JOIN bgw.node ON bgw.node.id = process.node_id LEFT JOIN bgw.worker ON worker.id = process.worker_id
    WHERE process.node_id = gone
$$;
COMMENT ON FUNCTION bgw.settle_processes_of(bigint) IS 'Ends every attempt of a node that is gone: lost in the history; started again where it restarts.';
