--! Previous: sha1:4c90aa323333e03a9e58f5dce7915a6e126de30f
--! Hash: sha1:70e3aa056e5565c90200a8464f0339b5fad062e9

-- What a row of bgw.process costs.  The numbers are in bench/NOTES.md.

-- Inlined into the statement that asks; with a look into pg_roles it was planned and run as a query of its own for each row.
CREATE OR REPLACE FUNCTION bgw.current_owner() RETURNS oid
LANGUAGE sql STABLE
AS $$ SELECT pg_catalog.to_regrole(pg_catalog.quote_ident(current_user))::oid $$;

-- The server reads the text of every CHECK and of every WHEN anew in each INSERT and UPDATE, 2 us each.  What is set at launch
-- and never changed is checked by the trigger process_is_filled alone.
ALTER TABLE bgw.process
    DROP CONSTRAINT mode_is_known,
    DROP CONSTRAINT not_both_worker_and_command,
    DROP CONSTRAINT a_worker_set_and_a_key_go_together,
    DROP CONSTRAINT worker_set_has_1_to_63_bytes,
    DROP CONSTRAINT key_has_1_to_63_bytes,
    DROP CONSTRAINT notify_has_1_to_63_bytes,
    DROP CONSTRAINT when_parent_ends_is_known;
DROP TRIGGER settings_are_checked ON bgw.process;
COMMENT ON COLUMN bgw.process.settings IS 'Settings that this process has for itself; they win over those of its worker.  Set and checked by trigger at launch.';

-- Each index holds only rows that it can find something by.
DROP INDEX bgw.process_of_worker, bgw.process_of_node, bgw.process_has_name;
CREATE INDEX process_of_worker ON bgw.process (worker_id) WHERE worker_id IS NOT NULL;
CREATE INDEX process_of_node ON bgw.process (node_id) WHERE node_id IS NOT NULL;
CREATE INDEX process_has_name ON bgw.process (name) WHERE worker_id IS NULL;

-- Where the history of one-shots ends is found by every thousandth: an entry of an index for each would cost each of them 1 us.
CREATE INDEX run_is_thousandth ON bgw.run (finished_at) WHERE worker_id IS NULL AND id % 1000 = 0;
