-- bgw.claim_startable: who starts now, on this node.  FOR UPDATE SKIP LOCKED hands each waiting process to one node only (I1, I2).
-- Called by take_orders.  bgw.obstacle in sql/views/stat_activity.sql says what keeps a process waiting: keep the two in step.
-- The claim counts as the begin of the run: a node claims what it starts now or within moments (src/hosts/backlog.ts), and returns the rest.
-- Next: the order goes to src/hosts/sql-host.ts or src/hosts/process-host.ts, which report to sql/control/report.sql.

CREATE OR REPLACE FUNCTION bgw.claim_startable(node bgw.node, slots boolean, room integer, since double precision, OUT orders json, OUT first_turn double precision)
LANGUAGE plpgsql
AS $$
DECLARE
    present timestamptz := bgw.now();
    startable bigint[];
BEGIN
    startable := bgw.find_startable(node, slots, room, since);
    IF startable IS NULL THEN
        orders := '[]';
        RETURN;
    END IF;
    WITH claimed AS (
        UPDATE bgw.process SET node_id = node.id, epoch = node.epoch, run_id = pg_catalog.nextval('bgw.run_id'), claimed_at = present, next_start = NULL
        -- An array: by the primary key, whatever the planner believes of the table.
        WHERE process.id = ANY (startable)
        -- What the order is made of: a row is wide.
        RETURNING process.id, process.run_id, process.worker_id, process.owner, process.name, process.main_arg, process.command, process.mode,
                  process.timeout, process.database, process.settings, process.turn
    )
    SELECT pg_catalog.json_agg(started), (SELECT min(claimed.turn) FROM claimed) INTO orders, first_turn
    FROM (SELECT 'start' AS kind, claimed.id::text AS handle, claimed.run_id::text AS run_id, claimed.name, claimed.main_arg::text AS main_arg,
                 coalesce(worker.command, claimed.command) AS command, coalesce(worker.mode, claimed.mode) AS mode,
                 worker.library_name, worker.function_name, worker.flags, pg_catalog.date_part('epoch', coalesce(worker.timeout, claimed.timeout)) AS timeout,
                 CASE WHEN coalesce(worker.database, claimed.database) IS NULL THEN pg_catalog.current_database()
                      ELSE bgw.database_of(coalesce(worker.database, claimed.database), claimed.owner, bgw.overrides(worker.settings, claimed.settings)) END AS database,
                 CASE WHEN worker.naptime IS NOT NULL THEN pg_catalog.date_part('epoch', bgw.nap_of(worker, bgw.overrides(worker.settings, claimed.settings))) END AS naptime,
                 CASE WHEN coalesce(worker.settings, claimed.settings) IS NOT NULL
                      THEN bgw.order_overrides(claimed.owner, bgw.overrides(worker.settings, claimed.settings)) END AS overrides
          FROM claimed LEFT JOIN bgw.worker ON worker.id = claimed.worker_id
          ORDER BY claimed.turn, claimed.id) AS started;
END;
$$;
COMMENT ON FUNCTION bgw.claim_startable(bgw.node, boolean, integer, double precision) IS
'Claims what this node can start now and returns its start orders, in order of turn, and the turn of the first; NULL: there is none.  slots: whether to
claim what takes a slot, or what naps between its runs.  room: how many at most.  since: nothing that has an earlier turn.';

CREATE OR REPLACE FUNCTION bgw.find_startable(node bgw.node, slots boolean, room integer, since double precision) RETURNS bigint[]
LANGUAGE plpgsql
AS $$
DECLARE
    present timestamptz := bgw.now();
    startable bigint[];
    bytes bigint[];
    total bigint;
BEGIN
    SELECT pg_catalog.array_agg(found.id), pg_catalog.array_agg(found.bytes), pg_catalog.sum(found.bytes) INTO startable, bytes, total FROM (
        SELECT process.id, coalesce(pg_catalog.octet_length(coalesce(worker.command, process.command)), 0)
                           + coalesce(pg_catalog.pg_column_size(process.main_arg), 0)::bigint * 5 AS bytes  -- an argument is compressed
        FROM bgw.process LEFT JOIN bgw.worker ON worker.id = process.worker_id
        WHERE process.run_id IS NULL AND process.owner = node.login AND process.takes_slot = slots AND process.turn >= since
          AND process.stop_requested_at IS NULL
          AND (process.next_start IS NULL OR process.next_start <= present)
          -- A command of this database is what most are: nothing more is to be asked of it.
          AND CASE WHEN process.worker_id IS NULL AND process.database IS NULL THEN process.command IS NOT NULL
                   WHEN pg_catalog.num_nonnulls(worker.library_name, worker.naptime, worker.database, process.database) = 0
                        AND NOT 'interruptible' = ANY (worker.flags) THEN worker.enabled AND NOT worker.unregistered
                   ELSE bgw.may_start(process, worker, node) END
          AND NOT (process.one_at_a_time AND EXISTS (SELECT FROM bgw.process AS earlier WHERE earlier.schedule_id = process.schedule_id AND earlier.id < process.id))
        ORDER BY process.turn, process.id LIMIT room
        FOR NO KEY UPDATE OF process SKIP LOCKED) AS found;
    -- A megabyte at a time, and the one that goes beyond it: the answer is one text, and a call takes ten seconds at most.
    WHILE total > 1000000 AND total - bytes[pg_catalog.cardinality(startable)] >= 1000000 LOOP
        total := total - bytes[pg_catalog.cardinality(startable)];
        startable := startable[: pg_catalog.cardinality(startable) - 1];
    END LOOP;
    RETURN startable;
END;
$$;
COMMENT ON FUNCTION bgw.find_startable(bgw.node, boolean, integer, double precision) IS
'Locks what claim_startable claims with these arguments: about a megabyte of commands and arguments, in order of turn.  NULL: nothing.';

CREATE OR REPLACE FUNCTION bgw.may_start(process bgw.process, worker bgw.worker, node bgw.node) RETURNS boolean
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN (worker.enabled AND NOT worker.unregistered OR process.command IS NOT NULL)
        AND (worker.library_name IS NULL OR worker.library_name = ANY (node.libraries))
        AND (worker.naptime IS NULL OR bgw.nap_of(worker, bgw.overrides(worker.settings, process.settings)) IS NOT NULL)
        AND (coalesce(worker.database, process.database) IS NULL OR NOT bgw.lacks_database(bgw.database_of_process(process, worker)))
        AND NOT bgw.is_interrupted(process, worker);
END;
$$;
COMMENT ON FUNCTION bgw.may_start(bgw.process, bgw.worker, bgw.node) IS 'Whether a process may start on this node as far as its worker, database and library are concerned.';

CREATE OR REPLACE FUNCTION bgw.settle_stopped() RETURNS boolean
LANGUAGE plpgsql
AS $$
DECLARE
    stopped bigint[] := ARRAY(SELECT process.id FROM bgw.process WHERE process.node_id IS NULL AND process.stop_requested_at IS NOT NULL
                              ORDER BY process.id LIMIT 1000 FOR NO KEY UPDATE SKIP LOCKED)
                     || ARRAY(SELECT process.id FROM bgw.login AS known JOIN bgw.worker ON worker.owner = known.owner AND worker.unregistered
                              JOIN bgw.process ON process.worker_id = worker.id AND process.node_id IS NULL AND process.stop_requested_at IS NULL
                              LIMIT 1000 FOR NO KEY UPDATE OF process SKIP LOCKED);
BEGIN
    IF stopped <> '{}' THEN
        PERFORM bgw.settle_exits(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
            'handle', handle, 'interrupted', true, 'sqlstate', '57P01', 'message', 'terminated before it started')))
        FROM pg_catalog.unnest(stopped) AS handle;
    END IF;
    RETURN pg_catalog.cardinality(stopped) < 1000;
END;
$$;
COMMENT ON FUNCTION bgw.settle_stopped() IS
'Unregisters what was terminated, or whose worker was unregistered, before a node claimed it, some 1,000 at a time.  Returns false if there may be more.';
