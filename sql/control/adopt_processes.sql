-- bgw.adopt_processes: workers of start time postmaster_start that a controller started before it could reach the database.
-- Called by src/catalog.ts right after join_node and define_library.  Keeps I1, I6.
-- As with the static workers of a postmaster, there is one of each: the first node that joins adopts its own, and whoever
-- comes later ends what it has started.

CREATE OR REPLACE FUNCTION bgw.adopt_processes(node_id bigint, epoch integer, names text[]) RETURNS jsonb
LANGUAGE plpgsql
AS $$
DECLARE
    node bgw.node := bgw.check_node(adopt_processes.node_id, adopt_processes.epoch);
    adopted jsonb;
BEGIN
    WITH waiting AS MATERIALIZED (
        SELECT process.id FROM bgw.process JOIN bgw.worker ON worker.id = process.worker_id
        WHERE process.run_id IS NULL AND process.stop_requested_at IS NULL
          AND worker.owner = node.login AND worker.name = ANY (adopt_processes.names)
          AND worker.start_time = 'postmaster_start' AND worker.enabled AND NOT worker.unregistered
          AND NOT EXISTS (SELECT FROM bgw.process AS earlier WHERE earlier.worker_id = worker.id AND earlier.run_id IS NULL AND earlier.id < process.id)
        ORDER BY process.id FOR NO KEY UPDATE OF process SKIP LOCKED
    ), claimed AS (
        UPDATE bgw.process SET node_id = node.id, epoch = node.epoch, run_id = pg_catalog.nextval('bgw.run_id'),
            claimed_at = bgw.now(), next_start = NULL
        FROM waiting WHERE process.id = waiting.id
        RETURNING process.id, process.name, process.run_id
    ), reloaded AS (
        -- It started with the boot values of its settings, and without a handle.
        INSERT INTO bgw.signal (process_id, signal) SELECT claimed.id, 'SIGHUP' FROM claimed
    )
    SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'name', claimed.name, 'handle', claimed.id::text, 'run_id', claimed.run_id::text)), '[]') INTO adopted
    FROM claimed;
    RETURN adopted;
END;
$$;
COMMENT ON FUNCTION bgw.adopt_processes(bigint, integer, text[]) IS
'Claims a waiting process for each of these workers, which run on the node already: [{name, handle, run_id}].  A worker that has none is
another node''s, or has finished, or may not run.  Errors: WK001 the node was fenced.';
