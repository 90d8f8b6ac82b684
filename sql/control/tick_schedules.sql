-- bgw.tick_schedules: launches what is due, and says of every due time what became of it.  Called by take_orders.
-- No node leads: a due schedule is the node's that locks its state first, and it advances in the transaction that launches it.
-- Keeps I5: each due time has exactly one row of bgw.tick, and its key is what makes a second launch impossible.
-- Next: sql/control/claim_startable.sql, then sql/control/settle_exits.sql counts how it ended.

CREATE OR REPLACE FUNCTION bgw.tick_schedules() RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    now timestamptz := bgw.now();  -- volatile: called in the condition it would keep the index from ending the search
    due bigint[] := ARRAY(SELECT schedule_state.schedule_id FROM bgw.schedule_state WHERE schedule_state.starts_at <= now
                          ORDER BY schedule_state.starts_at LIMIT 500 FOR UPDATE SKIP LOCKED);
    each_due bigint;
BEGIN
    IF due = '{}' THEN
        RETURN;
    END IF;
    BEGIN
        -- The rest is left to the next call, which is made at once: what a node has else to do does not wait for the end of a long outage.
        PERFORM bgw.tick_schedule(schedule_id) FROM pg_catalog.unnest(due) AS schedule_id WHERE bgw.now() < now + interval '500 ms';
    EXCEPTION WHEN OTHERS THEN
        -- One of them is bad: once more, each for itself.
        now := bgw.now();
        FOREACH each_due IN ARRAY due LOOP
            EXIT WHEN bgw.now() > now + interval '500 ms';
            BEGIN
                PERFORM bgw.tick_schedule(each_due);
            EXCEPTION WHEN OTHERS THEN
                PERFORM bgw.stop_schedule(each_due, SQLERRM);
            END;
        END LOOP;
    END;
END;
$$;
COMMENT ON FUNCTION bgw.tick_schedules() IS 'Launches what is due, at most 500 schedules at a time, and no longer than half a second.  One that cannot be evaluated is stopped, with the reason, and delays no other.';

CREATE OR REPLACE FUNCTION bgw.tick_schedule(schedule_id bigint) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    schedule bgw.schedule;
    state bgw.schedule_state;
    due timestamptz;
    next_due timestamptz;
    turns integer := 0;
    left_to_run integer;
BEGIN
    SELECT * INTO schedule FROM bgw.schedule WHERE bgw.schedule.id = tick_schedule.schedule_id AND bgw.schedule.active AND NOT bgw.schedule.unscheduled;
    SELECT * INTO state FROM bgw.schedule_state WHERE schedule_state.schedule_id = tick_schedule.schedule_id;
    IF schedule.id IS NULL THEN
        UPDATE bgw.schedule_state SET starts_at = NULL WHERE schedule_state.schedule_id = tick_schedule.schedule_id;
        RETURN;  -- Paused: what was due before is kept for note_schedule.
    END IF;
    due := state.due_at;
    left_to_run := CASE WHEN bgw.missed_limit(schedule.on_missed) IS NOT NULL THEN least(bgw.missed_limit(schedule.on_missed), state.catch_up) END;
    WHILE due IS NOT NULL LOOP
        next_due := bgw.next_due(schedule, due);
        IF next_due > state.quiet_from AND next_due <= state.quiet_until THEN
            next_due := bgw.next_due(schedule, state.quiet_until);
        END IF;
        -- The newest due time runs by the overlap rule; one that another followed, or that is a minute late, was missed.
        IF coalesce(next_due > bgw.now(), true) THEN
            IF greatest(state.starts_at, due) > bgw.now() - interval '1 min' OR schedule.on_missed = 'run once' THEN
                PERFORM bgw.launch_due(schedule, due);
            ELSE
                left_to_run := bgw.launch_missed(schedule, due, left_to_run);
            END IF;
            due := next_due;
            EXIT;
        ELSIF schedule.on_missed = 'run once' THEN
            PERFORM bgw.record_tick(schedule, due, 'coalesced');
        ELSE
            left_to_run := bgw.launch_missed(schedule, due, left_to_run);
        END IF;
        due := next_due;
        turns := turns + 1;
        EXIT WHEN turns = 1000;  -- A long outage is worked off in several turns.
    END LOOP;
    UPDATE bgw.schedule_state SET due_at = due, starts_at = bgw.starts_at(schedule, due), last_due_at = state.due_at,
        catch_up = CASE WHEN turns = 1000 THEN left_to_run END
    WHERE schedule_state.schedule_id = tick_schedule.schedule_id;
END;
$$;
COMMENT ON FUNCTION bgw.tick_schedule(bigint) IS 'Works off the due times of one schedule up to now, and computes the next.';

CREATE OR REPLACE FUNCTION bgw.launch_due(schedule bgw.schedule, due timestamptz) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    here bigint;
    waiting bigint;
BEGIN
    SELECT count(*), count(*) FILTER (WHERE process.run_id IS NULL AND process.restarts = 0) INTO here, waiting
    FROM bgw.process WHERE process.schedule_id = schedule.id;
    IF NOT bgw.can_launch(schedule) THEN
        PERFORM bgw.record_tick(schedule, due, 'skipped');
    ELSIF schedule.on_overlap = 'cancel previous' THEN
        INSERT INTO bgw.signal (process_id, signal) SELECT process.id, 'SIGTERM' FROM bgw.process WHERE process.schedule_id = schedule.id;
        PERFORM bgw.record_tick(schedule, due, 'launched');
    ELSIF schedule.on_overlap = 'queue one' AND waiting > 0 THEN
        PERFORM bgw.record_tick(schedule, due, 'coalesced');
    ELSIF schedule.on_overlap = 'skip' AND here > 0 OR here >= bgw.overlap_limit(schedule.on_overlap) THEN
        PERFORM bgw.record_tick(schedule, due, 'skipped');
    ELSE
        PERFORM bgw.record_tick(schedule, due, 'launched');
    END IF;
END;
$$;
COMMENT ON FUNCTION bgw.launch_due(bgw.schedule, timestamptz) IS 'Launches for a due time as far as the overlap rule allows it.';

CREATE OR REPLACE FUNCTION bgw.can_launch(schedule bgw.schedule) RETURNS boolean
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN EXISTS (SELECT FROM bgw.worker WHERE worker.id = schedule.worker_id AND NOT worker.unregistered AND worker.enabled AND worker.scope = 'one'
        AND (worker.max_instances IS NULL
             OR (SELECT count(*) FROM bgw.process WHERE process.worker_id = worker.id AND process.schedule_id IS DISTINCT FROM schedule.id) < worker.max_instances));
END;
$$;
COMMENT ON FUNCTION bgw.can_launch(bgw.schedule) IS
'Whether the worker of a schedule can be launched.  max_instances: the overlap rule is what bounds the processes of the schedule itself.';

CREATE OR REPLACE FUNCTION bgw.launch_missed(schedule bgw.schedule, due timestamptz, catch_up integer) RETURNS integer
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM bgw.record_tick(schedule, due, CASE WHEN catch_up > 0 AND bgw.can_launch(schedule) THEN 'launched' ELSE 'missed' END);
    RETURN catch_up - 1;
END;
$$;
COMMENT ON FUNCTION bgw.launch_missed(bgw.schedule, timestamptz, integer) IS
'Launches for a due time that was missed, if so many may still be caught up (NULL: none) and its worker can be launched.  Returns how many after it.';

CREATE OR REPLACE FUNCTION bgw.record_tick(schedule bgw.schedule, due timestamptz, outcome text) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    handle bigint := CASE WHEN record_tick.outcome = 'launched' THEN pg_catalog.nextval('bgw.process_id_seq') END;
BEGIN
    INSERT INTO bgw.tick (schedule_id, due_at, outcome, process_id) VALUES (schedule.id, due, record_tick.outcome, handle) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN;  -- The clock went back: this due time has had its turn.
    ELSIF record_tick.outcome = 'launched' THEN
        INSERT INTO bgw.process (id, worker_id, schedule_id, due_at, main_arg) OVERRIDING SYSTEM VALUE
        SELECT handle, worker.id, schedule.id, due, coalesce(schedule.main_arg, worker.main_arg) FROM bgw.worker WHERE worker.id = schedule.worker_id;
    ELSE
        UPDATE bgw.schedule_state SET coalesced = coalesced + (record_tick.outcome = 'coalesced')::integer, skipped = skipped + (record_tick.outcome = 'skipped')::integer,
            missed = missed + (record_tick.outcome = 'missed')::integer
        WHERE schedule_state.schedule_id = schedule.id;
    END IF;
END;
$$;
COMMENT ON FUNCTION bgw.record_tick(bgw.schedule, timestamptz, text) IS 'What became of a due time: launched, coalesced, skipped or missed; launched: also the process.';

CREATE OR REPLACE FUNCTION bgw.starts_at(schedule bgw.schedule, due timestamptz) RETURNS timestamptz
LANGUAGE sql
-- Before the next due time: a run that starts later would be one of a schedule that is behind.
AS $$ SELECT CASE WHEN schedule.jitter > interval '0' THEN due + pg_catalog.random() * least(schedule.jitter, bgw.next_due(schedule, due) - due) ELSE due END $$;
COMMENT ON FUNCTION bgw.starts_at(bgw.schedule, timestamptz) IS 'A due time with its jitter.';

CREATE OR REPLACE FUNCTION bgw.note_schedules() RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    started_at timestamptz := bgw.now();
BEGIN
    -- As tick_schedules: the rest is left to the next call.
    WHILE bgw.now() < started_at + interval '500 ms' LOOP
        EXIT WHEN NOT bgw.note_next_schedules();
    END LOOP;
END;
$$;
COMMENT ON FUNCTION bgw.note_schedules() IS 'Computes the next due time of each schedule that was written since: from when it was written.  No longer than half a second.';

CREATE OR REPLACE FUNCTION bgw.note_next_schedules() RETURNS boolean
LANGUAGE plpgsql
AS $$
DECLARE
    changes record;
BEGIN
    FOR changes IN
        WITH taken AS (
            DELETE FROM bgw.schedule_change WHERE schedule_change.id IN (SELECT change.id FROM bgw.schedule_change AS change ORDER BY change.id LIMIT 10 FOR UPDATE SKIP LOCKED)
            RETURNING schedule_change.schedule_id, schedule_change.changed_at, schedule_change.change
        )
        SELECT taken.schedule_id, max(taken.changed_at) AS last_at, min(taken.changed_at) FILTER (WHERE taken.change <> 'other') AS reset_from,
               max(taken.changed_at) FILTER (WHERE taken.change <> 'other') AS reset_until,
               bool_or(taken.change = 'new') AS is_new, bool_or(taken.change = 'times') AS has_new_times
        FROM taken GROUP BY taken.schedule_id ORDER BY taken.schedule_id
    LOOP
        BEGIN
            PERFORM bgw.note_schedule(definition, changes) FROM bgw.schedule AS definition WHERE definition.id = changes.schedule_id;
        EXCEPTION WHEN OTHERS THEN
            PERFORM bgw.stop_schedule(changes.schedule_id, SQLERRM);
        END;
    END LOOP;
    RETURN FOUND;
END;
$$;
COMMENT ON FUNCTION bgw.note_next_schedules() IS 'The same for the next 10 changes.  Returns false if there are none.';

CREATE OR REPLACE FUNCTION bgw.note_schedule(schedule bgw.schedule, changes record) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    state bgw.schedule_state;
    reset_until timestamptz := coalesce(changes.reset_until, changes.last_at);
    pending timestamptz;
    due timestamptz;
BEGIN
    SELECT * INTO state FROM bgw.schedule_state WHERE schedule_state.schedule_id = schedule.id FOR UPDATE;
    IF changes.reset_until IS NULL AND state.schedule_id IS NOT NULL AND state.error IS NULL THEN
        UPDATE bgw.schedule_state SET starts_at = CASE WHEN state.due_at > bgw.now() THEN bgw.starts_at(schedule, state.due_at)
                                                  ELSE least(state.starts_at, state.due_at + schedule.jitter) END
        WHERE schedule_state.schedule_id = schedule.id AND state.starts_at IS NOT NULL;
        RETURN;
    END IF;
    -- What had its time before the change is still due: it waits for its jitter, for a node, or for bgw_resume.
    IF NOT changes.is_new AND schedule.at IS NULL AND state.due_at <= changes.reset_from THEN
        pending := state.due_at;
    END IF;
    due := CASE WHEN schedule.unscheduled THEN NULL
        WHEN pending IS NOT NULL THEN pending
        WHEN NOT schedule.active THEN NULL
        WHEN schedule.at IS NULL THEN bgw.next_due(schedule, reset_until)
        -- A single time that is over already is still due once; whether it runs is a matter of on_missed.
        WHEN state.last_due_at = schedule.at THEN NULL
        ELSE bgw.next_due(schedule, '-infinity') END;
    INSERT INTO bgw.schedule_state AS noted (schedule_id, due_at, starts_at, quiet_from, quiet_until)
    VALUES (schedule.id, due,
            CASE WHEN NOT schedule.active THEN NULL WHEN pending IS NOT NULL THEN coalesce(state.starts_at, due) ELSE bgw.starts_at(schedule, due) END,
            CASE WHEN changes.has_new_times THEN '-infinity'
                 WHEN pending <= state.quiet_until THEN least(state.quiet_from, changes.reset_from)
                 ELSE changes.reset_from END,
            CASE WHEN schedule.active THEN reset_until ELSE 'infinity' END)
    ON CONFLICT ON CONSTRAINT schedule_state_pkey DO UPDATE SET due_at = EXCLUDED.due_at, starts_at = EXCLUDED.starts_at,
        quiet_from = EXCLUDED.quiet_from, quiet_until = EXCLUDED.quiet_until, error = NULL,
        catch_up = CASE WHEN noted.due_at = EXCLUDED.due_at THEN noted.catch_up END;
END;
$$;
COMMENT ON FUNCTION bgw.note_schedule(bgw.schedule, record) IS
'Computes the next due time of one schedule.  changes: when it was written (last_at), and when its due times changed with it (reset_from, reset_until; NULL: they stay).';

CREATE OR REPLACE FUNCTION bgw.stop_schedule(schedule_id bigint, error text) RETURNS void
LANGUAGE sql
AS $$
    INSERT INTO bgw.schedule_state (schedule_id, error) VALUES (stop_schedule.schedule_id, stop_schedule.error)
    ON CONFLICT ON CONSTRAINT schedule_state_pkey DO UPDATE SET due_at = NULL, starts_at = NULL, error = EXCLUDED.error
$$;
COMMENT ON FUNCTION bgw.stop_schedule(bigint, text) IS 'A schedule that cannot be evaluated is not due any more, and says why.';

CREATE OR REPLACE FUNCTION bgw.tick_at_restart() RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    now timestamptz := bgw.now();
    definition bgw.schedule;
BEGIN
    FOR definition IN SELECT * FROM bgw.schedule WHERE schedule.active AND NOT schedule.unscheduled AND schedule.parsed = '{}' ORDER BY schedule.id LOOP
        BEGIN
            IF bgw.may_be_due(definition, now) THEN
                DELETE FROM bgw.schedule_change WHERE schedule_change.schedule_id = definition.id;
                INSERT INTO bgw.schedule_state (schedule_id, due_at, starts_at) VALUES (definition.id, now, bgw.starts_at(definition, now))
                ON CONFLICT ON CONSTRAINT schedule_state_pkey DO UPDATE SET due_at = EXCLUDED.due_at, starts_at = EXCLUDED.starts_at,
                    quiet_from = NULL, quiet_until = NULL, error = NULL;
            END IF;
        EXCEPTION WHEN OTHERS THEN
            PERFORM bgw.stop_schedule(definition.id, SQLERRM);
        END;
    END LOOP;
END;
$$;
COMMENT ON FUNCTION bgw.tick_at_restart() IS 'Makes schedules @reboot due, as far as they are valid now, also those that no node has looked at yet.  Called when the first node joins.';
