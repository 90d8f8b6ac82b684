-- bgw.autostart: a worker with autostart gets its process: when it is registered or enabled, and when the first node joins.
-- PostgreSQL counterpart: RegisterBackgroundWorker, which the postmaster starts by itself.  Next: sql/doorbell.sql.

CREATE OR REPLACE FUNCTION bgw.autostart(worker_id bigint) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO bgw.process (worker_id, main_arg)
    SELECT worker.id, worker.main_arg FROM bgw.worker
    WHERE worker.id = autostart.worker_id AND worker.scope = 'one' AND EXISTS (SELECT FROM bgw.login WHERE login.owner = worker.owner)
      AND NOT EXISTS (SELECT FROM bgw.process WHERE process.worker_id = worker.id AND NOT bgw.is_stopping(process));
    -- Of scope every_database: where one is being terminated.  The rest is left to the nodes.
    INSERT INTO bgw.process (worker_id, database, main_arg)
    SELECT worker.id, process.database, worker.main_arg FROM bgw.worker JOIN bgw.process ON process.worker_id = worker.id
    WHERE worker.id = autostart.worker_id AND worker.scope = 'every_database'
    GROUP BY worker.id, process.database
    HAVING pg_catalog.bool_and(bgw.is_stopping(process));
    PERFORM bgw.ring();
END;
$$;
COMMENT ON FUNCTION bgw.autostart(bigint) IS
'Registers an instance of an autostart worker if it has none but such as are being terminated; of one of scope every_database, in each database where
that is so.  That of an owner without a login is left to the first node of his.  Called by the trigger worker_is_autostarted and by join_node.';
