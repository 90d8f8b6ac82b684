--! Previous: sha1:a193607d15fe46552ab3d13967fe13e062495b08
--! Hash: sha1:67b0a3a06e965b2e2c0a16dcb4c96d0a34baeed7

-- What a node does in one turn does not grow with what others have written.

-- A process that no node will ever run is nobody's business: a million of them were everybody's.
ALTER POLICY members_of_the_owner ON bgw.process USING (pg_has_role(owner, 'USAGE'))
    WITH CHECK (pg_has_role(owner, 'USAGE') AND owner IN (SELECT login.owner FROM bgw.login));

-- Only what is stopped, and not each that waits in case its worker was unregistered; and workers of owners that have a login.
DROP INDEX bgw.process_is_stopped, bgw.worker_of_every_database;
CREATE INDEX process_is_stopped ON bgw.process (id) WHERE node_id IS NULL AND stop_requested_at IS NOT NULL;
CREATE INDEX worker_is_unregistered ON bgw.worker (owner, id) WHERE unregistered;
CREATE INDEX worker_of_every_database ON bgw.worker (owner) WHERE scope = 'every_database';
