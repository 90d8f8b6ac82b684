-- bgw.interrupt_databases: what a node has to leave alone for a while: it closes its idle sessions of a database, and ends its
-- interruptible workers there.  Called by take_orders.  PostgreSQL counterpart: TerminateBackgroundWorkersForDatabase.
-- bgw_interrupt_database in sql/api/interrupt.sql asks for it; claim_startable starts none of them before it is over.

CREATE OR REPLACE FUNCTION bgw.interrupt_databases(node_id bigint) RETURNS jsonb
LANGUAGE plpgsql
AS $$
DECLARE
    orders jsonb;
BEGIN
    IF NOT EXISTS (SELECT FROM bgw.interruption) THEN
        RETURN '[]';
    END IF;
    WITH interrupted AS MATERIALIZED (
        SELECT interruption.database, max(interruption.requested_at) AS requested_at, min(interruption.requested_by) AS requested_by
        FROM bgw.interruption WHERE interruption.requested_at > bgw.now() - bgw.interruption_time() GROUP BY interruption.database
    ), ended AS (
        -- What restarts comes back when the interruption is over; what never restarts is unregistered, as a native one is.
        UPDATE bgw.process SET restart_requested = worker.restart_time IS NOT NULL OR worker.autostart,
            stop_requested_at = CASE WHEN worker.restart_time IS NULL AND NOT worker.autostart THEN interrupted.requested_at END,
            stop_requested_by = CASE WHEN worker.restart_time IS NULL AND NOT worker.autostart THEN interrupted.requested_by END
        FROM bgw.worker, interrupted
        WHERE process.node_id = interrupt_databases.node_id AND worker.id = process.worker_id AND 'interruptible' = ANY (worker.flags)
          AND NOT process.restart_requested AND process.stop_requested_at IS NULL AND process.claimed_at < interrupted.requested_at
          AND bgw.database_of_process(process, worker) = interrupted.database
        RETURNING process.id, process.run_id
    )
    SELECT coalesce((SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
               'kind', 'signal', 'handle', ended.id::text, 'run_id', ended.run_id::text, 'signal', 'SIGTERM') ORDER BY ended.id) FROM ended), '[]')
        || coalesce((SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('kind', 'leave', 'database', interrupted.database)) FROM interrupted), '[]') INTO orders;
    RETURN orders;
END;
$$;
COMMENT ON FUNCTION bgw.interrupt_databases(bigint) IS 'Orders of a node for databases that are interrupted now: SIGTERM to interruptible workers, and to leave the database.';
