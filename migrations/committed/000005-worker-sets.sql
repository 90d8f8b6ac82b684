--! Previous: sha1:d33c44440d595cb10662230a7607f55b36b17217
--! Hash: sha1:9ff8b2da6d8bece1045f07055f95ac1b8c75b67f

-- Worker sets: processes that are known by set and key, that end with who launched them, and whose launcher is told.

ALTER TABLE bgw.process
    ADD COLUMN worker_set text,
    ADD COLUMN key text,
    ADD COLUMN notify text,
    ADD COLUMN parent_id bigint,
    ADD COLUMN when_parent_ends text NOT NULL DEFAULT 'keep',
    ADD CONSTRAINT a_worker_set_and_a_key_go_together CHECK ((worker_set IS NULL) = (key IS NULL)),
    ADD CONSTRAINT worker_set_has_1_to_63_bytes CHECK (octet_length(worker_set) BETWEEN 1 AND 63),
    ADD CONSTRAINT key_has_1_to_63_bytes CHECK (octet_length(key) BETWEEN 1 AND 63),
    ADD CONSTRAINT notify_has_1_to_63_bytes CHECK (octet_length(notify) BETWEEN 1 AND 63),
    ADD CONSTRAINT when_parent_ends_is_known CHECK (when_parent_ends IN ('keep', 'terminate'));
-- A launch that waits here waits for another launch, or for a node that is about to commit; nodes give no process a key.
CREATE UNIQUE INDEX key_is_unique_per_set_and_owner ON bgw.process (worker_set, key, owner) WHERE worker_set IS NOT NULL;
CREATE INDEX process_notifies ON bgw.process (id) WHERE notify IS NOT NULL;
CREATE INDEX process_of_parent ON bgw.process (parent_id) WHERE parent_id IS NOT NULL;
COMMENT ON COLUMN bgw.process.worker_set IS 'The set it belongs to, in which no other process of its owner has its key.  Set at launch.';
COMMENT ON COLUMN bgw.process.notify IS 'The channel on which its starts and exits are told.  Set at launch.';
COMMENT ON COLUMN bgw.process.parent_id IS 'The process that launched it, if that is one of the same owner.  Set by trigger at launch.';
COMMENT ON COLUMN bgw.process.when_parent_ends IS 'terminate: it gets SIGTERM when parent_id is finished.  Set at launch.';
GRANT INSERT (worker_set, key, notify, when_parent_ends) ON bgw.process TO PUBLIC;

ALTER TABLE bgw.run ADD COLUMN worker_set text, ADD COLUMN key text;
COMMENT ON COLUMN bgw.run.worker_set IS 'With key: those of its process.';
