--! Previous: sha1:0b1a3091d5749f24f5d0584e43206aafd90bc1d0
--! Hash: sha1:700858839b2cd479e1f647a66d35ebed55da2a75

-- Whoever waits for a process asks whether a controller is alive: of a node at rest that is whether its control session is there.
GRANT SELECT (control_pid, control_backend_start) ON bgw.node TO PUBLIC;

-- The mark of where a node has joined names the database as well (bgw.timeline).
UPDATE bgw.node SET timeline = timeline || '/' || (SELECT oid FROM pg_database WHERE datname = current_database());
