--! Previous: sha1:416db0e326be64266555e9d483018d64637ecb5a
--! Hash: sha1:d33c44440d595cb10662230a7607f55b36b17217

-- Schedules: what a user defines (bgw.schedule), what nodes know of it (bgw.schedule_state), and one row per due time
-- (bgw.tick).  Users write only the first and never lock the others, so that a transaction of theirs never holds up a node.

CREATE TABLE bgw.schedule (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    owner oid NOT NULL DEFAULT bgw.current_owner(),
    worker_id bigint NOT NULL,
    schedule text,
    parsed bit varying[],
    at timestamptz,
    timezone text NOT NULL DEFAULT 'UTC',
    on_overlap text NOT NULL DEFAULT 'queue one',
    on_missed text NOT NULL DEFAULT 'run once',
    jitter interval NOT NULL DEFAULT '0',
    priority integer NOT NULL DEFAULT 0,
    main_arg jsonb,
    valid_from timestamptz,
    valid_until timestamptz,
    exceptions date[] NOT NULL DEFAULT '{}',
    active boolean NOT NULL DEFAULT true,
    unscheduled boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT schedule_name_is_unique_per_owner UNIQUE (owner, name),
    CONSTRAINT schedule_name_has_1_to_63_bytes CHECK (octet_length(name) BETWEEN 1 AND 63),
    CONSTRAINT either_a_schedule_or_one_time CHECK ((schedule IS NULL) <> (at IS NULL)),
    CONSTRAINT priority_is_in_range CHECK (priority BETWEEN -1000 AND 1000),
    CONSTRAINT jitter_is_not_negative CHECK (jitter >= interval '0'),
    CONSTRAINT valid_until_is_later CHECK (valid_until > valid_from)
);
COMMENT ON TABLE bgw.schedule IS 'One row per schedule: when to launch which worker.  Written by bgw_schedule, or by plain INSERT and UPDATE of its owner.';
COMMENT ON COLUMN bgw.schedule.worker_id IS 'What it launches: a worker of the same owner; that of a command has the name of the schedule.';
COMMENT ON COLUMN bgw.schedule.schedule IS 'Cron fields, an interval, or @reboot and its like; see bgw_next_run.  NULL: once, at the time in "at".';
COMMENT ON COLUMN bgw.schedule.parsed IS 'The schedule as bgw.parse_schedule reads it.  Set by trigger.';
COMMENT ON COLUMN bgw.schedule.on_overlap IS 'What a due time does while an earlier run is there: skip, queue one, parallel N, cancel previous.';
COMMENT ON COLUMN bgw.schedule.on_missed IS 'What becomes of due times that nobody was there for: skip, run once, run all up to N.';
COMMENT ON COLUMN bgw.schedule.jitter IS 'A run starts up to this much later, at random.';
COMMENT ON COLUMN bgw.schedule.priority IS 'Of what waits for a slot the higher one starts first; a point is worth a minute of waiting.';
COMMENT ON COLUMN bgw.schedule.exceptions IS 'Days of its time zone on which it does not run.';

CREATE TABLE bgw.schedule_change (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    schedule_id bigint NOT NULL
);
COMMENT ON TABLE bgw.schedule_change IS 'Schedules that were written and that no node has looked at yet.  Written by the trigger schedule_is_noticed.';

CREATE TABLE bgw.schedule_state (
    schedule_id bigint PRIMARY KEY,
    due_at timestamptz,
    starts_at timestamptz,
    last_due_at timestamptz,
    last_started_at timestamptz,
    last_finished_at timestamptz,
    last_status text,
    error text,
    ran bigint NOT NULL DEFAULT 0,
    failed bigint NOT NULL DEFAULT 0,
    coalesced bigint NOT NULL DEFAULT 0,
    skipped bigint NOT NULL DEFAULT 0,
    missed bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 60);
CREATE INDEX schedule_starts_at ON bgw.schedule_state (starts_at) WHERE starts_at IS NOT NULL;
COMMENT ON TABLE bgw.schedule_state IS 'What nodes know of a schedule.  Written by note_schedules, tick_schedules and settle_exits.';
COMMENT ON COLUMN bgw.schedule_state.due_at IS 'The next due time.  NULL: none.';
COMMENT ON COLUMN bgw.schedule_state.starts_at IS 'due_at with its jitter.';
COMMENT ON COLUMN bgw.schedule_state.error IS 'Why it has no next due time although it should have one.';

CREATE TABLE bgw.tick (
    schedule_id bigint NOT NULL,
    due_at timestamptz NOT NULL,
    outcome text NOT NULL,
    process_id bigint,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (schedule_id, due_at),
    CONSTRAINT outcome_is_known CHECK (outcome IN ('launched', 'coalesced', 'skipped', 'missed'))
) PARTITION BY RANGE (due_at);
CREATE TABLE bgw.tick_default PARTITION OF bgw.tick DEFAULT;
COMMENT ON TABLE bgw.tick IS 'One row per due time of a schedule, and what became of it.  Partitioned by day; partitions older than seven days are dropped.';
COMMENT ON COLUMN bgw.tick.outcome IS 'launched: process_id says as what.  coalesced: into a run that waits already.  skipped: an earlier run was there.  missed: nobody was there in time.';

ALTER TABLE bgw.process
    ADD COLUMN schedule_id bigint,
    ADD COLUMN due_at timestamptz,
    ADD COLUMN one_at_a_time boolean NOT NULL DEFAULT false,
    ADD COLUMN turn double precision NOT NULL DEFAULT date_part('epoch', clock_timestamp());
CREATE INDEX process_of_schedule ON bgw.process (schedule_id, id) WHERE schedule_id IS NOT NULL;
DROP INDEX bgw.process_is_waiting;
CREATE INDEX process_is_waiting ON bgw.process (turn, id) WHERE run_id IS NULL;
COMMENT ON COLUMN bgw.process.due_at IS 'The due time that it was launched for.  NULL: by a user.';
COMMENT ON COLUMN bgw.process.one_at_a_time IS 'It waits until earlier processes of its schedule have finished.  Set by trigger at launch.';
COMMENT ON COLUMN bgw.process.turn IS 'Who starts first: when it was queued, a minute earlier for each point of priority, so that nobody starves.  Set by trigger at launch.';
ALTER TABLE bgw.run ADD COLUMN schedule_id bigint, ADD COLUMN due_at timestamptz;

CREATE FUNCTION bgw.check_schedule_row() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN NEW := bgw.check_schedule(NEW); RETURN NEW; END $$;
CREATE TRIGGER schedule_is_checked BEFORE INSERT OR UPDATE ON bgw.schedule FOR EACH ROW EXECUTE FUNCTION bgw.check_schedule_row();

CREATE FUNCTION bgw.note_schedule_row() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN INSERT INTO bgw.schedule_change (schedule_id) VALUES (NEW.id); PERFORM bgw.ring(); RETURN NULL; END $$;
CREATE TRIGGER schedule_is_noticed AFTER INSERT OR UPDATE ON bgw.schedule FOR EACH ROW EXECUTE FUNCTION bgw.note_schedule_row();

ALTER TABLE bgw.schedule ENABLE ROW LEVEL SECURITY;
ALTER TABLE bgw.schedule_change ENABLE ROW LEVEL SECURITY;
ALTER TABLE bgw.schedule_state ENABLE ROW LEVEL SECURITY;
ALTER TABLE bgw.tick ENABLE ROW LEVEL SECURITY;
CREATE POLICY members_of_the_owner ON bgw.schedule USING (pg_has_role(owner, 'USAGE'));
CREATE POLICY members_of_the_owner ON bgw.schedule_change FOR INSERT WITH CHECK (EXISTS (SELECT FROM bgw.schedule WHERE schedule.id = schedule_id));
CREATE POLICY members_of_the_owner ON bgw.schedule_state FOR SELECT USING (EXISTS (SELECT FROM bgw.schedule WHERE schedule.id = schedule_id));
CREATE POLICY members_of_the_owner ON bgw.tick FOR SELECT USING (EXISTS (SELECT FROM bgw.schedule WHERE schedule.id = schedule_id));

GRANT SELECT ON bgw.schedule, bgw.schedule_state, bgw.tick TO PUBLIC;
GRANT INSERT (name, worker_id, schedule, at, timezone, on_overlap, on_missed, jitter, priority, main_arg, valid_from, valid_until, exceptions, active),
      UPDATE (name, worker_id, schedule, at, timezone, on_overlap, on_missed, jitter, priority, main_arg, valid_from, valid_until, exceptions, active, unscheduled)
      ON bgw.schedule TO PUBLIC;
GRANT INSERT (schedule_id) ON bgw.schedule_change TO PUBLIC;
GRANT INSERT (schedule_id) ON bgw.process TO PUBLIC;
