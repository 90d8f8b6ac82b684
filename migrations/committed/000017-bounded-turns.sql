--! Previous: sha1:a193607d15fe46552ab3d13967fe13e062495b08
--! Hash: sha1:c57fafcdfe1e2ab6140f4c27f394582fcc15fd2e

-- What a node does in one turn does not grow with what others have written.

-- A process that no node will ever run is nobody's business: a million of them were everybody's.
ALTER POLICY members_of_the_owner ON bgw.process USING (pg_has_role(owner, 'USAGE'))
    WITH CHECK (pg_has_role(owner, 'USAGE') AND owner IN (SELECT login.owner FROM bgw.login));

-- Only what is stopped, and not each that waits in case its worker was unregistered; and workers of owners that have a login.
DROP INDEX bgw.process_is_stopped, bgw.worker_of_every_database;
CREATE INDEX process_is_stopped ON bgw.process (id) WHERE node_id IS NULL AND stop_requested_at IS NOT NULL;
CREATE INDEX worker_is_unregistered ON bgw.worker (owner, id) WHERE unregistered;
CREATE INDEX worker_of_every_database ON bgw.worker (owner) WHERE scope = 'every_database';

-- The policies of a history are not those of its partitions, on which somebody may have default privileges.
DO $$
DECLARE
    partition regclass;
BEGIN
    FOR partition IN SELECT inhrelid FROM pg_inherits WHERE inhparent IN ('bgw.run'::regclass, 'bgw.tick'::regclass) LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', partition);
    END LOOP;
END
$$;

-- In a policy of schema cron, under the search_path of whoever asks: a type named oid, with casts of his, made him anybody.
CREATE OR REPLACE FUNCTION bgw.current_owner() RETURNS oid
LANGUAGE sql STABLE
AS $$ SELECT pg_catalog.to_regrole(pg_catalog.quote_ident(current_user))::pg_catalog.oid $$;

-- Of what a worker's schedules are asked whenever one of them goes.
CREATE INDEX schedule_of_worker ON bgw.schedule (worker_id);

-- Atomic runs that were done after their worker had been unregistered, or given another mode, left theirs.
DELETE FROM bgw.completed_run WHERE voided_at IS NULL AND NOT EXISTS (SELECT FROM bgw.process WHERE process.run_id = completed_run.run_id);

-- Text of a SQL_ASCII database is any bytes, and of those that are not UTF-8 no node can be told: one of them stopped all.
CREATE FUNCTION bgw.check_encoding_row() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_catalog.convert_from(pg_catalog.textsend(NEW::pg_catalog.text), 'UTF8'); RETURN NEW; END $$;
COMMENT ON FUNCTION bgw.check_encoding_row() IS 'Refuses a row whose text is not UTF-8, in a database of encoding SQL_ASCII.  Errors: 22021.';
DO $$
BEGIN
    IF getdatabaseencoding() = 'SQL_ASCII' THEN
        CREATE TRIGGER encoding_is_checked BEFORE INSERT OR UPDATE ON bgw.worker FOR EACH ROW EXECUTE FUNCTION bgw.check_encoding_row();
        CREATE TRIGGER encoding_is_checked BEFORE INSERT OR UPDATE ON bgw.setting FOR EACH ROW EXECUTE FUNCTION bgw.check_encoding_row();
        CREATE TRIGGER encoding_is_checked BEFORE INSERT OR UPDATE ON bgw.schedule FOR EACH ROW EXECUTE FUNCTION bgw.check_encoding_row();
        CREATE TRIGGER encoding_is_checked BEFORE INSERT ON bgw.process FOR EACH ROW EXECUTE FUNCTION bgw.check_encoding_row();
    END IF;
END
$$;
