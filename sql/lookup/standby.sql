-- What a controller may run while its server is a standby, and the advisory lock that says it does: nothing can be written there.
-- Called by control/standby_workers.sql and views/standby.sql.

CREATE OR REPLACE FUNCTION bgw.runs_on_standby(worker bgw.worker) RETURNS boolean
LANGUAGE sql IMMUTABLE
AS $$ SELECT worker.scope = 'one' AND worker.autostart AND worker.enabled AND NOT worker.unregistered AND worker.start_time <> 'recovery_finished' $$;
COMMENT ON FUNCTION bgw.runs_on_standby(bgw.worker) IS
'Whether a worker belongs on a standby.  Nobody can launch anything there, so only autostart workers do, and of those what may start before recovery has finished.';

CREATE OR REPLACE FUNCTION bgw.standby_key(worker_id bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE
AS $$ SELECT (1650947872::bigint << 32) + standby_key.worker_id $$;
COMMENT ON FUNCTION bgw.standby_key(bigint) IS
'The advisory lock that a controller holds while it runs this worker on a standby.  In pg_locks: classid 1650947872 ("bgw "), objid the id of the worker.';
