--! Previous: sha1:6c364e961a14c8b1a3a69690878d9dc031e1271a
--! Hash: sha1:ac40dd82fdaaccd33c6f5887a21bce8e8720f5dc

-- An atomic run that has committed says so by one row of its own transaction; its history is written with that of others.
-- docs/decisions/0013-completion-of-atomic-runs.md

CREATE TABLE bgw.completed_run (
    run_id bigint PRIMARY KEY,
    voided_at timestamptz
);
COMMENT ON TABLE bgw.completed_run IS
'Atomic runs whose transaction has committed and whose end is not in the history yet.  Written by src/sessions/run.ts in that transaction.';
COMMENT ON COLUMN bgw.completed_run.run_id IS 'Whoever writes it first decides: the run, or who takes over its process and finds that it has not committed.';
COMMENT ON COLUMN bgw.completed_run.voided_at IS 'It has not committed, and never will: its process was settled without it.  NULL: it has.';
CREATE INDEX completed_run_voided_at ON bgw.completed_run (voided_at) WHERE voided_at IS NOT NULL;
