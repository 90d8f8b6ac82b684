--! Previous: sha1:c838924018ba779d89354cd2a5c678e8e1fc566b
--! Hash: sha1:08a70f869e5ad0782c70583a051ebbcde2e6f370

-- A node finds what it may claim in order, and only that: not what waits for another login, nor what takes no slot.
DROP INDEX bgw.process_is_waiting;
CREATE INDEX process_is_waiting ON bgw.process (owner, takes_slot, turn, id) WHERE run_id IS NULL;

-- Each by a condition of its own, so that no other index can be taken for it by a plan that was made while the table was
-- empty: a claim sets node_id together with run_id, and clears next_start.
DROP INDEX bgw.process_waits_until, bgw.process_is_stopped;
CREATE INDEX process_waits_until ON bgw.process (next_start) WHERE next_start IS NOT NULL;
CREATE INDEX process_is_stopped ON bgw.process (id) WHERE node_id IS NULL AND (stop_requested_at IS NOT NULL OR command IS NULL);

-- Every order carries the settings of its owner: what SHOW prints is computed once, by check_setting.
ALTER TABLE bgw.setting ADD COLUMN shown text;
COMMENT ON COLUMN bgw.setting.shown IS 'The value as SHOW prints it.  Set by trigger.';

-- One-shot commands have no worker: they are not to pay for the index.
DROP INDEX bgw.run_of_worker;
CREATE INDEX run_of_worker ON bgw.run (worker_id, finished_at) WHERE worker_id IS NOT NULL;
