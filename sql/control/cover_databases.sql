-- bgw.cover_databases: workers of scope every_database: a process for each database that came, an end for those of one that went.
-- Called by take_orders.  PostgreSQL counterpart: the autovacuum launcher.

CREATE OR REPLACE FUNCTION bgw.cover_databases() RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    -- Nearly always there is nothing to do: say so after one look at an index.
    IF NOT EXISTS (SELECT FROM bgw.login JOIN bgw.worker ON worker.owner = login.owner AND worker.scope = 'every_database') THEN
        RETURN;
    END IF;
    WITH uncovered AS (
        DELETE FROM bgw.worker_database USING bgw.worker
        WHERE worker.id = worker_database.worker_id AND (NOT bgw.is_covering(worker) OR bgw.lacks_database(worker_database.database))
        RETURNING worker_database.worker_id, worker_database.database, worker.unregistered
    )
    INSERT INTO bgw.signal (process_id, signal)
    SELECT process.id, 'SIGTERM' FROM uncovered JOIN bgw.process ON process.worker_id = uncovered.worker_id AND process.database = uncovered.database
    WHERE bgw.lacks_database(uncovered.database);

    -- What was terminated stays so until the first node joins again: only what is new here gets a process.
    WITH covered AS (
        INSERT INTO bgw.worker_database (worker_id, database)
        SELECT worker.id, pg_database.datname FROM bgw.login JOIN bgw.worker ON worker.owner = login.owner CROSS JOIN pg_catalog.pg_database
        WHERE worker.scope = 'every_database' AND bgw.is_covering(worker) AND pg_database.datallowconn
          AND pg_catalog.has_database_privilege(worker.owner, pg_database.oid, 'CONNECT')
          AND NOT EXISTS (SELECT FROM bgw.worker_database AS known WHERE known.worker_id = worker.id AND known.database = pg_database.datname)
        ORDER BY worker.id, pg_database.datname
        ON CONFLICT DO NOTHING
        RETURNING worker_database.worker_id, worker_database.database
    )
    INSERT INTO bgw.process (worker_id, database, main_arg)
    SELECT covered.worker_id, covered.database, worker.main_arg FROM covered JOIN bgw.worker ON worker.id = covered.worker_id
    WHERE NOT EXISTS (SELECT FROM bgw.process WHERE process.worker_id = covered.worker_id AND process.database = covered.database);
END;
$$;
COMMENT ON FUNCTION bgw.cover_databases() IS 'Registers a process of each worker of scope every_database in each database that its owner may connect to, and ends those of dropped ones.';

CREATE OR REPLACE FUNCTION bgw.is_covering(worker bgw.worker) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE
AS $$
BEGIN
    RETURN worker.scope = 'every_database' AND worker.autostart AND worker.enabled AND NOT worker.unregistered;
END;
$$;
COMMENT ON FUNCTION bgw.is_covering(bgw.worker) IS 'Whether the worker is to run in every database.';
