--! Previous: sha1:a193607d15fe46552ab3d13967fe13e062495b08
--! Hash: sha1:f57abae808a8e9fa414244841549b440ff11cc6a

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
