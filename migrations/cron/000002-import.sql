--! Previous: sha1:8684fd03735e68354fa6e5614a91dbe40d6e8a51
--! Hash: sha1:ca8781e1d407aba8d9bb69a01abe69ecbcbb43f8

-- Where a job was imported from, so that "bgw import pg_cron" knows it again whatever has changed of it.

ALTER TABLE cron.entry
    ADD COLUMN imported_from text,
    ADD COLUMN imported_job jsonb;
COMMENT ON COLUMN cron.entry.imported_from IS 'The pg_cron that the job comes from: system identifier of its server and OID of its database.  NULL: none.  Written by bgw import.';
COMMENT ON COLUMN cron.entry.imported_job IS
'The job there when it was last imported, with its number there; what differs from it has been changed there since.  active: whether it was at any import.  Written by bgw import.';
GRANT UPDATE (imported_from, imported_job) ON cron.entry TO PUBLIC;
