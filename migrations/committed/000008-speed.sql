--! Previous: sha1:c838924018ba779d89354cd2a5c678e8e1fc566b
--! Hash: sha1:9d818a19b2596162169272f6561c13548f23fef5

-- A node finds what it may claim in order, and only that: not what waits for another login, nor what takes no slot.
DROP INDEX bgw.process_is_waiting;
CREATE INDEX process_is_waiting ON bgw.process (owner, takes_slot, turn, id) WHERE run_id IS NULL;

-- One-shot commands have no worker: they are not to pay for the index.
DROP INDEX bgw.run_of_worker;
CREATE INDEX run_of_worker ON bgw.run (worker_id, finished_at) WHERE worker_id IS NOT NULL;
