-- bgw_schedule, bgw_schedule_at, bgw_unschedule, bgw_pause, bgw_resume, bgw_run_now, bgw_purge_backlog: launch by the clock.
-- A schedule launches a worker: one that is there, or one of its own for a command, with the name of the schedule.
-- Next: sql/control/tick_schedules.sql on some node.

CREATE OR REPLACE FUNCTION public.bgw_schedule(
    name text,
    schedule text,
    command text DEFAULT NULL,
    worker text DEFAULT NULL,
    timezone text DEFAULT 'UTC',
    database text DEFAULT NULL,
    overlap text DEFAULT 'queue one',
    missed text DEFAULT 'run once',
    jitter interval DEFAULT '0',
    timeout interval DEFAULT NULL,
    retries integer DEFAULT 0,
    retry_time interval DEFAULT '10 s',
    valid_from timestamptz DEFAULT NULL,
    valid_until timestamptz DEFAULT NULL,
    exceptions date[] DEFAULT '{}',
    mode text DEFAULT 'session',
    main_arg jsonb DEFAULT NULL,
    priority integer DEFAULT 0,
    active boolean DEFAULT true
) RETURNS timestamptz
LANGUAGE plpgsql
AS $$
DECLARE
    definition bgw.schedule;
BEGIN
    PERFORM public.bgw_schedule_validate(bgw_schedule.schedule, bgw_schedule.timezone);
    definition.parsed := bgw.parse_schedule(bgw_schedule.schedule);
    definition.name := bgw_schedule.name;
    definition.schedule := bgw_schedule.schedule;
    definition.timezone := bgw_schedule.timezone;
    definition.on_overlap := bgw_schedule.overlap;
    definition.on_missed := bgw_schedule.missed;
    definition.jitter := bgw_schedule.jitter;
    definition.priority := bgw_schedule.priority;
    definition.main_arg := bgw_schedule.main_arg;
    definition.valid_from := bgw_schedule.valid_from;
    definition.valid_until := bgw_schedule.valid_until;
    definition.exceptions := coalesce(bgw_schedule.exceptions, '{}');
    definition.active := bgw_schedule.active;
    definition.worker_id := bgw.worker_for_schedule(bgw_schedule.name, bgw_schedule.command, bgw_schedule.worker, bgw_schedule.database,
        bgw_schedule.mode, bgw_schedule.timeout, bgw_schedule.retries, bgw_schedule.retry_time);
    RETURN bgw.put_schedule(definition);
END;
$$;
COMMENT ON FUNCTION public.bgw_schedule(text, text, text, text, text, text, text, text, interval, interval, integer, interval, timestamptz, timestamptz, date[], text, jsonb, integer, boolean) IS
'Launches a command or a worker by the clock; the same name again changes the schedule.  Returns the next due time.
  name          unique among your schedules, 1 to 63 bytes
  schedule      ''0 3 * * *'', ''@daily'', ''every 90 seconds'', ''@reboot'': see bgw_next_run
  command       SQL to run, as a worker of the same name, which goes with the schedule;  or worker: the name of a worker that is there, which stays
  timezone      of the schedule; default: UTC.   database  of the command; default: this one
  overlap       while an earlier run is there: queue one (default), skip, parallel N, cancel previous
  missed        due times that no controller was there for: run once (default), skip, run all up to N
  jitter        a run starts up to this much later, at random, and before the next due time
  timeout       for one run, enforced from outside.   mode  session or atomic, as in bgw_register
  retries       so often a failed command is run again, first after retry_time, then after twice as long each time, at most 10 minutes, less up to half of that at random
  valid_from, valid_until, exceptions   no due times before, after, and on those days of its time zone, at most 3660
  priority      of what waits for a slot the higher one starts first; a point is worth a minute of waiting
  active        false: as after bgw_pause
Errors: 22023 a value that cannot be, 22004 a null schedule or time zone, 42704 no such worker, 42710 a worker of that name is there,
55000 the worker is of scope every_database, WK201 no node can log in as you.
Example: SELECT bgw_schedule(''nightly'', ''0 3 * * *'', ''VACUUM'');';

CREATE OR REPLACE FUNCTION public.bgw_schedule_at(
    name text,
    at timestamptz,
    command text DEFAULT NULL,
    worker text DEFAULT NULL,
    database text DEFAULT NULL,
    missed text DEFAULT 'run once',
    timeout interval DEFAULT NULL,
    retries integer DEFAULT 0,
    retry_time interval DEFAULT '10 s',
    mode text DEFAULT 'session',
    main_arg jsonb DEFAULT NULL,
    priority integer DEFAULT 0
) RETURNS timestamptz
LANGUAGE plpgsql
AS $$
DECLARE
    definition bgw.schedule;
BEGIN
    IF bgw_schedule_at.at IS NULL OR NOT pg_catalog.isfinite(bgw_schedule_at.at) THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('schedule "%s": invalid time', bgw_schedule_at.name),
            HINT = 'Give one point in time, such as now() + interval ''1 hour''.';
    END IF;
    definition.name := bgw_schedule_at.name;
    definition.at := bgw_schedule_at.at;
    definition.timezone := 'UTC';
    definition.on_overlap := 'queue one';
    definition.on_missed := bgw_schedule_at.missed;
    definition.jitter := interval '0';
    definition.priority := bgw_schedule_at.priority;
    definition.main_arg := bgw_schedule_at.main_arg;
    definition.exceptions := '{}';
    definition.active := true;
    definition.worker_id := bgw.worker_for_schedule(bgw_schedule_at.name, bgw_schedule_at.command, bgw_schedule_at.worker, bgw_schedule_at.database,
        bgw_schedule_at.mode, bgw_schedule_at.timeout, bgw_schedule_at.retries, bgw_schedule_at.retry_time);
    RETURN bgw.put_schedule(definition);
END;
$$;
COMMENT ON FUNCTION public.bgw_schedule_at(text, timestamptz, text, text, text, text, interval, integer, interval, text, jsonb, integer) IS
'Launches a command or a worker once, at that time; one that is over is run at once (missed => ''skip'': only if it is less than a minute over).
The other arguments are those of bgw_schedule.  Returns the time.  Run again with the same time it changes nothing, also after the run.
Errors: those of bgw_schedule.
Example: SELECT bgw_schedule_at(''cleanup'', now() + interval ''1 hour'', ''CALL cleanup()'');';

CREATE OR REPLACE FUNCTION public.bgw_unschedule(name text, stop boolean DEFAULT false) RETURNS boolean
LANGUAGE plpgsql
AS $$
DECLARE
    definition bgw.schedule := bgw.find_schedule(name);
BEGIN
    PERFORM bgw.lock_made_worker(definition.owner, definition.name);
    PERFORM bgw.request(process.id, 'SIGTERM') FROM bgw.process
    WHERE process.schedule_id = definition.id AND (bgw_unschedule.stop OR process.run_id IS NULL);
    UPDATE bgw.schedule SET unscheduled = true WHERE schedule.id = definition.id;
    RETURN true;
END;
$$;
COMMENT ON FUNCTION public.bgw_unschedule(text, boolean) IS
'Removes a schedule, and the worker that was made for its command, unless another schedule launches that.  What waits is dropped; what runs goes on, unless stop.
bgw_run_history keeps its runs; bgw_schedules and bgw_schedule_history show nothing of it any more.  The same name again is a new schedule.
Errors: 42704 no such schedule, WK101 several of that name.
Example: SELECT bgw_unschedule(''nightly'');';

CREATE OR REPLACE FUNCTION public.bgw_pause(name text) RETURNS boolean
LANGUAGE sql
AS $$ SELECT bgw.set_active(name, false) $$;
COMMENT ON FUNCTION public.bgw_pause(text) IS
'Stops a schedule until bgw_resume; what runs or waits goes on.  Due times in between are none: they are not missed.  Returns false if it was paused.
But the time of a bgw_schedule_at that passes meanwhile is not lost: bgw_resume makes it due.
Errors: 42704 no such schedule.
Example: SELECT bgw_pause(''nightly'');';

CREATE OR REPLACE FUNCTION public.bgw_resume(name text) RETURNS boolean
LANGUAGE sql
AS $$ SELECT bgw.set_active(name, true) $$;
COMMENT ON FUNCTION public.bgw_resume(text) IS
'Goes on with a paused schedule, at its next due time.  Returns false if it was not paused.
One of bgw_schedule_at whose time passed meanwhile runs at once (missed => ''skip'': only if it is less than a minute over).
Errors: 42704 no such schedule, 55000 its worker has become one of scope every_database.
Example: SELECT bgw_resume(''nightly'');';

CREATE OR REPLACE FUNCTION public.bgw_run_now(name text) RETURNS bigint
LANGUAGE plpgsql
AS $$
DECLARE
    definition bgw.schedule := bgw.find_schedule(name);
    worker bgw.worker;
    handle bigint;
BEGIN
    SELECT * INTO worker FROM bgw.worker WHERE bgw.worker.id = definition.worker_id AND NOT bgw.worker.unregistered;
    IF worker.id IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_object', MESSAGE = pg_catalog.format('the worker of schedule "%s" does not exist', definition.name);
    END IF;
    PERFORM bgw.check_launch(worker);
    INSERT INTO bgw.process (worker_id, schedule_id, main_arg) VALUES (worker.id, definition.id, coalesce(definition.main_arg, worker.main_arg))
    RETURNING process.id INTO handle;
    PERFORM bgw.ring();
    RETURN handle;
END;
$$;
COMMENT ON FUNCTION public.bgw_run_now(text) IS
'Runs a schedule once more, as soon as its overlap rule allows it; its due times stay as they are, paused or not.  Returns the handle.
Errors: 42704 no such schedule, and those of bgw_launch.
Example: SELECT bgw_run_now(''nightly'');';

CREATE OR REPLACE FUNCTION public.bgw_purge_backlog(name text) RETURNS bigint
LANGUAGE plpgsql
AS $$
DECLARE
    definition bgw.schedule := bgw.find_schedule(name);
    purged bigint;
BEGIN
    SELECT count(bgw.request(process.id, 'SIGTERM')) INTO purged FROM bgw.process WHERE process.schedule_id = definition.id AND process.run_id IS NULL;
    RETURN purged;
END;
$$;
COMMENT ON FUNCTION public.bgw_purge_backlog(text) IS
'Drops what waits of a schedule: queued runs, and retries that wait.  What runs goes on.  Returns how many.  Errors: 42704 no such schedule.
Example: SELECT bgw_purge_backlog(''nightly'');';
