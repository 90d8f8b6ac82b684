-- What bgw_schedule and bgw_schedule_at have in common: the row, its worker, and the one validator of a schedule, however it
-- arrives: by them, or by plain INSERT and UPDATE (the trigger schedule_is_checked calls it).

CREATE OR REPLACE FUNCTION bgw.put_schedule(definition bgw.schedule) RETURNS timestamptz
LANGUAGE plpgsql
AS $$
DECLARE
    next_run timestamptz := CASE WHEN definition.active THEN coalesce(definition.at, bgw.next_due(definition, pg_catalog.clock_timestamp())) END;
BEGIN
    INSERT INTO bgw.schedule AS schedule (name, worker_id, schedule, at, timezone, on_overlap, on_missed, jitter, priority, main_arg, valid_from, valid_until, exceptions, active)
    VALUES (definition.name, definition.worker_id, definition.schedule, definition.at, definition.timezone, definition.on_overlap, definition.on_missed, definition.jitter,
            definition.priority, definition.main_arg, definition.valid_from, definition.valid_until, definition.exceptions, definition.active)
    ON CONFLICT (owner, name) WHERE NOT unscheduled DO UPDATE SET
        worker_id = EXCLUDED.worker_id, schedule = EXCLUDED.schedule, at = EXCLUDED.at, timezone = EXCLUDED.timezone, on_overlap = EXCLUDED.on_overlap,
        on_missed = EXCLUDED.on_missed, jitter = EXCLUDED.jitter, priority = EXCLUDED.priority, main_arg = EXCLUDED.main_arg, valid_from = EXCLUDED.valid_from,
        valid_until = EXCLUDED.valid_until, exceptions = EXCLUDED.exceptions, active = EXCLUDED.active
    WHERE (schedule.worker_id, schedule.schedule, schedule.at, schedule.timezone, schedule.on_overlap, schedule.on_missed, schedule.jitter, schedule.priority,
           schedule.main_arg, schedule.valid_from, schedule.valid_until, schedule.exceptions, schedule.active)
          IS DISTINCT FROM
          (EXCLUDED.worker_id, EXCLUDED.schedule, EXCLUDED.at, EXCLUDED.timezone, EXCLUDED.on_overlap, EXCLUDED.on_missed, EXCLUDED.jitter, EXCLUDED.priority,
           EXCLUDED.main_arg, EXCLUDED.valid_from, EXCLUDED.valid_until, EXCLUDED.exceptions, EXCLUDED.active);
    RETURN next_run;
END;
$$;
COMMENT ON FUNCTION bgw.put_schedule(bgw.schedule) IS 'Inserts or changes a schedule of the caller; unchanged it stays as it is.  Returns the next due time.';

CREATE OR REPLACE FUNCTION bgw.worker_for_schedule(name text, command text, worker_name text, database text, mode text, timeout interval, retries integer, retry_time interval) RETURNS bigint
LANGUAGE plpgsql
AS $$
DECLARE
    worker bgw.worker;
BEGIN
    PERFORM bgw.refuse_null(name, pg_catalog.jsonb_build_object('mode', mode, 'retries', retries, 'retry_time', retry_time));
    IF (command IS NULL) = (worker_name IS NULL) THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('schedule "%s" needs either a command or a worker', worker_for_schedule.name),
            HINT = 'Give command => ''...'', or worker => ''...''.';
    ELSIF worker_name IS NOT NULL THEN
        worker := bgw.find_worker(worker_name);
        IF database IS NOT NULL OR timeout IS NOT NULL OR retries <> 0 OR mode <> 'session' THEN
            RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
                MESSAGE = pg_catalog.format('schedule "%s": database, mode, timeout and retries are those of worker "%s"', worker_for_schedule.name, worker_name),
                HINT = 'Say them in bgw_register.';
        END IF;
        PERFORM bgw.lock_made_worker(bgw.current_owner(), worker_for_schedule.name);
        RETURN worker.id;
    ELSIF retries NOT BETWEEN 0 AND 999 OR retry_time <= interval '0' OR retry_time > interval '10 min' THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('schedule "%s": invalid retries', worker_for_schedule.name),
            DETAIL = 'retries lies between 0 and 999, retry_time between 0 and 10 minutes.';
    END IF;
    SELECT * INTO worker FROM bgw.worker WHERE bgw.worker.owner = bgw.current_owner() AND bgw.worker.name = worker_for_schedule.name AND NOT bgw.worker.unregistered;
    IF worker.id IS NOT NULL AND NOT (worker.made_by_schedule
            AND EXISTS (SELECT FROM bgw.schedule WHERE schedule.worker_id = worker.id AND schedule.name = worker.name AND NOT schedule.unscheduled)) THEN
        RAISE EXCEPTION USING ERRCODE = 'duplicate_object',
            MESSAGE = pg_catalog.format('worker "%s" already exists', worker.name),
            HINT = 'Schedule it with worker => instead of command =>, or choose another name.';
    END IF;
    PERFORM public.bgw_register(name => worker_for_schedule.name, command => worker_for_schedule.command, database => worker_for_schedule.database, mode => worker_for_schedule.mode,
        timeout => worker_for_schedule.timeout, restart_time => CASE WHEN retries > 0 THEN retry_time END, restart_time_max => CASE WHEN retries > 0 THEN interval '10 min' END,
        failure_limit => CASE WHEN retries > 0 THEN retries + 1 END, failure_window => interval '1000 years', healthy_time => interval '1000 years');
    UPDATE bgw.worker SET made_by_schedule = true
    WHERE bgw.worker.owner = bgw.current_owner() AND bgw.worker.name = worker_for_schedule.name AND NOT bgw.worker.made_by_schedule;
    RETURN (SELECT bgw.worker.id FROM bgw.worker WHERE bgw.worker.owner = bgw.current_owner() AND bgw.worker.name = worker_for_schedule.name);
END;
$$;
COMMENT ON FUNCTION bgw.worker_for_schedule(text, text, text, text, text, interval, integer, interval) IS
'The worker that a schedule launches: the one it names, or that of its command, which is registered here.  retries become its restart rule.
Errors: 22023 neither or both, 42704 no such worker, 42710 a worker of that name is there.';

CREATE OR REPLACE FUNCTION bgw.lock_made_worker(owner oid, schedule_name text) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM FROM bgw.worker WHERE worker.owner = lock_made_worker.owner AND worker.name = schedule_name AND worker.made_by_schedule FOR NO KEY UPDATE;
END;
$$;
COMMENT ON FUNCTION bgw.lock_made_worker(oid, text) IS
'Locks the worker that was made for the command of a schedule, before the schedule: bgw_schedule, which registers it first, takes them in that order.';

CREATE OR REPLACE FUNCTION bgw.refuse_null(schedule_name text, arguments jsonb) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    argument text := (SELECT min(given.key) FROM pg_catalog.jsonb_each(arguments) AS given WHERE given.value = 'null');
BEGIN
    IF argument IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('schedule "%s": %s must not be null', pg_catalog.left(schedule_name, 63), argument);
    END IF;
END;
$$;
COMMENT ON FUNCTION bgw.refuse_null(text, jsonb) IS 'Raises an error if one of these arguments of bgw_schedule, by name, is NULL.  Errors: 22023.';

CREATE OR REPLACE FUNCTION bgw.leave_worker(worker_id bigint) RETURNS void
LANGUAGE sql
AS $$
    UPDATE bgw.worker SET unregistered = true
    WHERE worker.id = leave_worker.worker_id AND worker.made_by_schedule
      AND NOT EXISTS (SELECT FROM bgw.schedule WHERE schedule.worker_id = worker.id AND NOT schedule.unscheduled)
$$;
COMMENT ON FUNCTION bgw.leave_worker(bigint) IS
'Unregisters the worker of a command that no schedule launches any more.  Called by the trigger schedule_leaves_its_worker.';

CREATE OR REPLACE FUNCTION bgw.find_schedule(schedule_name text) RETURNS bgw.schedule
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    owners text[];
    found_schedule bgw.schedule;
BEGIN
    SELECT * INTO found_schedule FROM bgw.schedule
    WHERE schedule.name = schedule_name AND schedule.owner = bgw.current_owner() AND NOT schedule.unscheduled;
    IF found_schedule.id IS NOT NULL THEN
        RETURN found_schedule;
    END IF;
    SELECT pg_catalog.array_agg(pg_catalog.pg_get_userbyid(schedule.owner) ORDER BY schedule.id) INTO owners
    FROM bgw.schedule WHERE schedule.name = schedule_name AND NOT schedule.unscheduled;
    IF owners IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_object',
            MESSAGE = pg_catalog.format('schedule "%s" does not exist', schedule_name),
            HINT = 'SELECT name FROM bgw_schedules lists the schedules you can see.';
    ELSIF pg_catalog.cardinality(owners) > 1 THEN
        RAISE EXCEPTION USING ERRCODE = 'WK101',
            MESSAGE = pg_catalog.format('schedule name "%s" is ambiguous', schedule_name),
            DETAIL = pg_catalog.format('Owners: %s.', pg_catalog.array_to_string(owners, ', ')),
            HINT = 'Become the owner with SET ROLE first.';
    END IF;
    SELECT * INTO found_schedule FROM bgw.schedule WHERE schedule.name = schedule_name AND NOT schedule.unscheduled;
    RETURN found_schedule;
END;
$$;
COMMENT ON FUNCTION bgw.find_schedule(text) IS
'The schedule of that name: the caller''s own, else the only one among those it may operate.  Errors: 42704 none, WK101 several.';

CREATE OR REPLACE FUNCTION bgw.set_active(name text, active boolean) RETURNS boolean
LANGUAGE plpgsql
AS $$
DECLARE
    definition bgw.schedule := bgw.find_schedule(name);
BEGIN
    UPDATE bgw.schedule SET active = set_active.active WHERE schedule.id = definition.id AND schedule.active <> set_active.active;
    RETURN FOUND;
END;
$$;
COMMENT ON FUNCTION bgw.set_active(text, boolean) IS 'What bgw_pause and bgw_resume do.';

CREATE OR REPLACE FUNCTION bgw.check_schedule(schedule bgw.schedule) RETURNS bgw.schedule
LANGUAGE plpgsql
AS $$
DECLARE
    worker bgw.worker;
    problem text := CASE
        WHEN schedule.name IS NULL OR pg_catalog.octet_length(schedule.name) NOT BETWEEN 1 AND 63 THEN 'A name has 1 to 63 bytes.'
        WHEN schedule.jitter < interval '0' OR schedule.jitter > interval '1 day' THEN 'jitter lies between 0 and 1 day.'
        WHEN schedule.priority NOT BETWEEN -1000 AND 1000 THEN 'priority lies between -1000 and 1000.'
        -- Nodes look at each of them in one turn: these take 0.3 s.
        WHEN pg_catalog.cardinality(schedule.exceptions) > 3660 THEN 'exceptions has at most 3660 days.'
        WHEN schedule.valid_until <= schedule.valid_from THEN 'valid_until is not later than valid_from.'
        WHEN schedule.on_overlap NOT IN ('skip', 'queue one', 'cancel previous') AND bgw.overlap_limit(schedule.on_overlap) IS NULL
            THEN pg_catalog.format('overlap is "%s"; it is one of: skip, queue one, parallel N, cancel previous.', pg_catalog.left(schedule.on_overlap, 60))
        WHEN schedule.on_missed NOT IN ('skip', 'run once') AND bgw.missed_limit(schedule.on_missed) IS NULL
            THEN pg_catalog.format('missed is "%s"; it is one of: skip, run once, run all up to N.', pg_catalog.left(schedule.on_missed, 60)) END;
BEGIN
    PERFORM bgw.refuse_null(schedule.name, pg_catalog.jsonb_build_object('overlap', schedule.on_overlap, 'missed', schedule.on_missed, 'jitter', schedule.jitter,
        'priority', schedule.priority, 'active', schedule.active));
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = pg_catalog.format('invalid schedule "%s"', pg_catalog.left(schedule.name, 63)), DETAIL = problem;
    END IF;
    PERFORM bgw.check_size(schedule.name, NULL, schedule.main_arg);
    IF schedule.schedule IS NOT NULL THEN
        PERFORM public.bgw_schedule_validate(schedule.schedule, schedule.timezone);
        schedule.parsed := bgw.parse_schedule(schedule.schedule);
    END IF;
    SELECT * INTO worker FROM bgw.worker WHERE bgw.worker.id = schedule.worker_id;
    IF worker.id IS NULL OR worker.owner <> schedule.owner THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_object', MESSAGE = pg_catalog.format('the worker of schedule "%s" does not exist', schedule.name),
            DETAIL = 'A schedule launches a worker of its owner.';
    END IF;
    -- One whose worker has become so since can still be paused and removed.
    IF worker.scope = 'every_database' AND NOT schedule.unscheduled
       AND (schedule.active OR NOT EXISTS (SELECT FROM bgw.schedule AS present WHERE present.id = schedule.id AND present.worker_id = schedule.worker_id)) THEN
        RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = pg_catalog.format('worker "%s" runs in every database', worker.name),
            DETAIL = 'It starts by itself, so no schedule launches it.',
            HINT = 'Register a worker with scope => ''one'', and schedule that.';
    END IF;
    IF NOT schedule.unscheduled THEN
        PERFORM bgw.check_login(schedule.owner, schedule.name);
    END IF;
    RETURN schedule;
END;
$$;
COMMENT ON FUNCTION bgw.check_schedule(bgw.schedule) IS
'The schedule, parsed; raises an error if it cannot be, however it arrives.  The trigger schedule_is_checked calls it.
Errors: 22023, 42704, 55000 the worker runs in every database, WK201.';
