--! Previous: sha1:700858839b2cd479e1f647a66d35ebed55da2a75
--! Hash: sha1:e723a3e70d4b93b7e3a97db4fe74751072694481

-- A worker that a schedule made for its command goes with the schedule; one that a user registered stays.  The name of a
-- schedule that was removed is free at once.

ALTER TABLE bgw.worker ADD COLUMN made_by_schedule boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN bgw.worker.made_by_schedule IS
'bgw_schedule made it for the command of the schedule of its name, so it is unregistered with that.  false again once it is unregistered: one that is registered anew is its user''s.';
GRANT INSERT (made_by_schedule), UPDATE (made_by_schedule) ON bgw.worker TO PUBLIC;

-- What schedules made before: bgw_schedule gave it a healthy time of a day, which is a minute in bgw_register; the rest are jobs of schema cron.
ALTER TABLE bgw.worker DISABLE TRIGGER USER;
UPDATE bgw.worker SET made_by_schedule = true
WHERE command IS NOT NULL AND NOT unregistered AND (healthy_time = interval '1 day' OR name ~ '^cron [0-9]+(: |$)')
  AND EXISTS (SELECT FROM bgw.schedule WHERE schedule.worker_id = worker.id AND schedule.owner = worker.owner AND schedule.name = worker.name);
ALTER TABLE bgw.worker ENABLE TRIGGER USER;

CREATE FUNCTION bgw.disown_worker_row() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN NEW.made_by_schedule := false; RETURN NEW; END $$;
COMMENT ON FUNCTION bgw.disown_worker_row() IS 'An unregistered worker is no schedule''s.';
CREATE TRIGGER worker_is_disowned BEFORE UPDATE OF unregistered ON bgw.worker
    FOR EACH ROW WHEN (NEW.unregistered) EXECUTE FUNCTION bgw.disown_worker_row();

CREATE FUNCTION bgw.leave_worker_row() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM bgw.leave_worker(OLD.worker_id); RETURN NULL; END $$;
COMMENT ON FUNCTION bgw.leave_worker_row() IS 'A schedule no longer launches the worker that it launched.';
CREATE TRIGGER schedule_leaves_its_worker AFTER UPDATE OF worker_id, unscheduled ON bgw.schedule
    FOR EACH ROW WHEN (OLD.worker_id <> NEW.worker_id OR NEW.unscheduled) EXECUTE FUNCTION bgw.leave_worker_row();

ALTER TABLE bgw.schedule DROP CONSTRAINT schedule_name_is_unique_per_owner;
CREATE UNIQUE INDEX schedule_name_is_unique_per_owner ON bgw.schedule (owner, name) WHERE NOT unscheduled;
COMMENT ON COLUMN bgw.schedule.unscheduled IS
'bgw_unschedule was called; keep_house deletes the row.  The same name again is another row: what still runs of this one is not counted for that.';
