--! Previous: sha1:e723a3e70d4b93b7e3a97db4fe74751072694481
--! Hash: sha1:a193607d15fe46552ab3d13967fe13e062495b08

-- Failures are counted in the process: history is trimmed, and does not say which cancelled attempt was a failure.
ALTER TABLE bgw.process ADD COLUMN failed_at timestamptz[];
COMMENT ON COLUMN bgw.process.failed_at IS 'When it failed, oldest first: the last failure_limit times within failure_window.  NULL: never, or its worker has no failure_limit.  Written by settle_exits.';

-- retries of what was scheduled before: as bgw_schedule writes them now.
ALTER TABLE bgw.worker DISABLE TRIGGER USER;
UPDATE bgw.worker SET failure_window = '1000 years', healthy_time = '1000 years' WHERE made_by_schedule AND failure_limit IS NOT NULL;
ALTER TABLE bgw.worker ENABLE TRIGGER USER;

-- When a schedule was written and what of it, so that a node that looks later finds the due times of before and since.
ALTER TABLE bgw.schedule_change
    ADD COLUMN changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ADD COLUMN change text NOT NULL DEFAULT 'times',
    ADD CONSTRAINT change_is_known CHECK (change IN ('new', 'times', 'active', 'other'));
GRANT INSERT (change) ON bgw.schedule_change TO PUBLIC;
COMMENT ON COLUMN bgw.schedule_change.change IS
'new: it was not there before, or was unscheduled.  times: what decides when it is due.  active: it was paused or resumed.  other: nothing that changes a due time.';

ALTER TABLE bgw.schedule_state
    ADD COLUMN quiet_from timestamptz,
    ADD COLUMN quiet_until timestamptz,
    ADD COLUMN catch_up integer;
COMMENT ON COLUMN bgw.schedule_state.quiet_from IS 'After this, up to quiet_until, nothing is due but what due_at says: it was paused, or was not yet what it is now.';
COMMENT ON COLUMN bgw.schedule_state.quiet_until IS 'See quiet_from.  Infinity: it is paused.';
COMMENT ON COLUMN bgw.schedule_state.catch_up IS 'While missed due times are worked off in several turns: how many of them may still be run.';
COMMENT ON COLUMN bgw.schedule_state.starts_at IS 'due_at with its jitter.  NULL: there is none, or it waits for bgw_resume.';
COMMENT ON COLUMN bgw.schedule.jitter IS 'A run starts up to this much later, at random, and before the next due time.';

CREATE OR REPLACE FUNCTION bgw.note_schedule_row() RETURNS trigger LANGUAGE plpgsql AS
$$
BEGIN
    INSERT INTO bgw.schedule_change (schedule_id, change) VALUES (NEW.id, CASE
        WHEN TG_OP = 'INSERT' OR OLD.unscheduled OR NEW.unscheduled THEN 'new'
        WHEN (NEW.schedule, NEW.at, NEW.timezone, NEW.valid_from, NEW.valid_until, NEW.exceptions)
             IS DISTINCT FROM (OLD.schedule, OLD.at, OLD.timezone, OLD.valid_from, OLD.valid_until, OLD.exceptions) THEN 'times'
        WHEN NEW.active <> OLD.active THEN 'active'
        ELSE 'other' END);
    PERFORM bgw.ring();
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION bgw.note_schedule_row() IS 'Tells the nodes that a schedule was written, and what of it.';
