--! Previous: sha1:c838924018ba779d89354cd2a5c678e8e1fc566b
--! Hash: sha1:4c90aa323333e03a9e58f5dce7915a6e126de30f

-- A node finds what it may claim in order, and only that: not what waits for another login, nor what takes no slot.
DROP INDEX bgw.process_is_waiting;
CREATE INDEX process_is_waiting ON bgw.process (owner, takes_slot, turn, id) WHERE run_id IS NULL;

-- Every order carries the settings of its owner: what SHOW prints is computed once, by check_setting.
ALTER TABLE bgw.setting ADD COLUMN shown text;
COMMENT ON COLUMN bgw.setting.shown IS 'The value as SHOW prints it.  Set by trigger.';

-- One-shot commands have no worker: they are not to pay for the index.
DROP INDEX bgw.run_of_worker;
CREATE INDEX run_of_worker ON bgw.run (worker_id, finished_at) WHERE worker_id IS NOT NULL;
