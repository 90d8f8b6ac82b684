-- bgw.claim_startable: who starts now, on this node.  FOR UPDATE SKIP LOCKED hands each waiting process to one node only (I1, I2).
-- Called by take_orders.  bgw.obstacle in sql/views/stat_activity.sql says what keeps a process waiting: keep the two in step.
-- The claim counts as the begin of the run, so a node claims only what it starts at once.
-- Next: the order goes to src/hosts/sql-host.ts or src/hosts/process-host.ts, which report to sql/control/report.sql.

CREATE OR REPLACE FUNCTION bgw.claim_startable(node bgw.node, slots boolean, room integer) RETURNS jsonb
LANGUAGE plpgsql
AS $$
DECLARE
    orders jsonb;
BEGIN
    WITH startable AS MATERIALIZED (
        SELECT process.id FROM bgw.process LEFT JOIN bgw.worker ON worker.id = process.worker_id
        WHERE process.run_id IS NULL AND process.stop_requested_at IS NULL AND process.takes_slot = slots
          AND (process.next_start IS NULL OR process.next_start <= bgw.now())
          AND process.owner = node.login
          AND (worker.enabled AND NOT worker.unregistered OR process.command IS NOT NULL)
          AND (worker.library_name IS NULL OR worker.library_name = ANY (node.libraries))
          AND (worker.naptime IS NULL OR bgw.nap_of(worker, bgw.overrides(worker.settings, process.settings)) IS NOT NULL)
          AND (coalesce(worker.database, process.database) IS NULL OR NOT bgw.lacks_database(
               bgw.database_of(coalesce(worker.database, process.database), process.owner, bgw.overrides(worker.settings, process.settings))))
          AND (worker.flags @> '{interruptible}' AND bgw.is_interrupted(process, worker)) IS NOT TRUE
          AND NOT (process.one_at_a_time AND EXISTS (SELECT FROM bgw.process AS earlier WHERE earlier.schedule_id = process.schedule_id AND earlier.id < process.id))
        ORDER BY process.turn, process.id LIMIT greatest(room, 0)
        FOR NO KEY UPDATE OF process SKIP LOCKED
    ), claimed AS (
        UPDATE bgw.process SET node_id = node.id, epoch = node.epoch, run_id = pg_catalog.nextval('bgw.run_id'),
            claimed_at = bgw.now(), next_start = NULL
        FROM startable WHERE process.id = startable.id
        RETURNING process.*
    )
    SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'kind', 'start', 'handle', claimed.id::text, 'run_id', claimed.run_id::text, 'name', claimed.name, 'owner', claimed.owner::bigint,
        'database', bgw.database_of(coalesce(worker.database, claimed.database), claimed.owner, bgw.overrides(worker.settings, claimed.settings)), 'main_arg', claimed.main_arg::text,
        'command', coalesce(worker.command, claimed.command), 'mode', coalesce(worker.mode, claimed.mode),
        'library_name', worker.library_name, 'function_name', worker.function_name, 'flags', worker.flags,
        'naptime', pg_catalog.date_part('epoch', bgw.nap_of(worker, bgw.overrides(worker.settings, claimed.settings))),
        'timeout', pg_catalog.date_part('epoch', coalesce(worker.timeout, claimed.timeout)))
        || bgw.order_overrides(claimed.owner, bgw.overrides(worker.settings, claimed.settings)) ORDER BY claimed.id), '[]') INTO orders
    FROM claimed LEFT JOIN bgw.worker ON worker.id = claimed.worker_id;
    RETURN orders;
END;
$$;
COMMENT ON FUNCTION bgw.claim_startable(bgw.node, boolean, integer) IS
'Claims what this node can start now and returns its start orders.  slots: whether to claim what takes a slot, or what naps between its runs.
room: how many at most.';

CREATE OR REPLACE FUNCTION bgw.settle_stopped() RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM bgw.settle_exits(coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'handle', stopped.id, 'interrupted', true, 'sqlstate', '57P01', 'message', 'terminated before it started') ORDER BY stopped.id), '[]'))
    FROM (SELECT process.id FROM bgw.process
          WHERE process.run_id IS NULL AND (process.stop_requested_at IS NOT NULL OR process.command IS NULL)
            AND (process.stop_requested_at IS NOT NULL OR NOT EXISTS (SELECT FROM bgw.worker WHERE worker.id = process.worker_id AND NOT worker.unregistered))
          ORDER BY process.id FOR NO KEY UPDATE OF process SKIP LOCKED) AS stopped;
END;
$$;
COMMENT ON FUNCTION bgw.settle_stopped() IS 'Unregisters what was terminated, or whose worker was unregistered, before a node claimed it.';
