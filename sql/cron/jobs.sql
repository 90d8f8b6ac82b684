-- A job of pg_cron -> a row of bgw.schedule and its worker; the view cron.job.
-- bgw_pause, bgw_run_now, bgw_unschedule and the views of schedules take a job by its name there: "cron 7: nightly".
-- Everything runs as the caller: what he may do follows from the row-level security of bgw.schedule and cron.entry.
-- Next: sql/control/tick_schedules.sql on some node.

CREATE OR REPLACE FUNCTION cron.schedule_name(jobid bigint, jobname text) RETURNS text
LANGUAGE sql IMMUTABLE
AS $$ SELECT ('cron ' || jobid || coalesce(': ' || nullif(pg_catalog.regexp_replace(jobname, '[[:cntrl:]]', ' ', 'g'), ''), ''))::name::text $$;
COMMENT ON FUNCTION cron.schedule_name(bigint, text) IS 'The name of a job as a schedule and as a worker, cut to 63 bytes; unique because of its number.';

CREATE OR REPLACE FUNCTION cron.put_job(owner oid, job_name text, schedule text, command text, database text, active boolean) RETURNS bigint
LANGUAGE plpgsql
AS $$
DECLARE
    job cron.entry;
BEGIN
    PERFORM cron.make_way(owner, job_name, schedule, database);
    -- Of two sessions that come with the same name at once, the second waits here and then changes the job of the first.
    INSERT INTO cron.entry (owner, jobname, database, command) VALUES (put_job.owner, job_name, put_job.database, put_job.command)
    ON CONFLICT ON CONSTRAINT jobname_username_uniq DO UPDATE SET command = EXCLUDED.command
    RETURNING * INTO job;
    IF job.schedule_id IS NOT NULL THEN
        PERFORM cron.change_job(job.jobid, schedule => put_job.schedule, command => put_job.command, database => put_job.database);
    ELSE
        UPDATE cron.entry SET schedule_id = cron.create_schedule(job, put_job.schedule, put_job.active) WHERE entry.jobid = job.jobid;
    END IF;
    RETURN job.jobid;
END;
$$;
COMMENT ON FUNCTION cron.put_job(oid, text, text, text, text, boolean) IS
'Makes a job; if its owner has one of that name, changes the schedule, the command and the database of that, as pg_cron does since 1.6.3; it stays active or not.  Returns its number.
Errors: those of cron.check_schedule and cron.check_access, WK201 no node can log in as the owner.';

CREATE OR REPLACE FUNCTION cron.add_job(owner oid, job_name text, schedule text, command text, database text, active boolean) RETURNS bigint
LANGUAGE plpgsql
AS $$
DECLARE
    job cron.entry;
BEGIN
    PERFORM cron.make_way(owner, job_name, schedule, database);
    INSERT INTO cron.entry (owner, jobname, database, command) VALUES (add_job.owner, job_name, add_job.database, add_job.command)
    ON CONFLICT ON CONSTRAINT jobname_username_uniq DO NOTHING
    RETURNING * INTO job;
    IF job.jobid IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'unique_violation', SCHEMA = 'cron', TABLE = 'job', CONSTRAINT = 'jobname_username_uniq',
            MESSAGE = 'duplicate key value violates unique constraint "jobname_username_uniq"',
            DETAIL = pg_catalog.format('Key (jobname, username)=(%s, %s) already exists.', job_name, pg_catalog.pg_get_userbyid(owner));
    END IF;
    UPDATE cron.entry SET schedule_id = cron.create_schedule(job, add_job.schedule, add_job.active) WHERE entry.jobid = job.jobid;
    RETURN job.jobid;
END;
$$;
COMMENT ON FUNCTION cron.add_job(oid, text, text, text, text, boolean) IS
'Makes a job, as cron.put_job does, but never of one that is there.  Returns its number.
Errors: 23505 its owner has one of that name, and those of cron.put_job.';

CREATE OR REPLACE FUNCTION cron.make_way(owner oid, job_name text, schedule text, database text) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM cron.check_schedule(schedule);
    PERFORM cron.check_access(owner, database);
    PERFORM cron.free_name(owner, job_name);
END;
$$;
COMMENT ON FUNCTION cron.make_way(oid, text, text, text) IS
'Raises an error if a job cannot be made, and frees its name of one that is gone.  Errors: those of cron.check_schedule and cron.check_access.';

CREATE OR REPLACE FUNCTION cron.free_name(owner oid, job_name text) RETURNS void
LANGUAGE sql
AS $$
    UPDATE cron.entry SET jobname = NULL WHERE entry.jobname = job_name AND entry.owner = free_name.owner
        AND NOT EXISTS (SELECT FROM bgw.schedule WHERE bgw.schedule.id = entry.schedule_id AND NOT bgw.schedule.unscheduled)
$$;
COMMENT ON FUNCTION cron.free_name(oid, text) IS 'Takes a name from a job that is gone, so that another can have it.';

CREATE OR REPLACE FUNCTION cron.create_schedule(job cron.entry, schedule text, active boolean) RETURNS bigint
LANGUAGE plpgsql
AS $$
DECLARE
    label text := cron.schedule_name(job.jobid, job.jobname);
    new_worker bigint := cron.create_worker(job, label);
    new_schedule bigint;
BEGIN
    -- Overlap: pg_cron runs one at a time and the next right after it; but where it piles up all that came due meanwhile, here one waits.
    -- Missed: like pg_cron, it does not catch up on the time when nobody was there.
    IF job.owner = bgw.current_owner() THEN
        INSERT INTO bgw.schedule (name, worker_id, schedule, on_overlap, on_missed, active)
        VALUES (label, new_worker, create_schedule.schedule, 'queue one', 'skip', create_schedule.active) RETURNING bgw.schedule.id INTO new_schedule;
    ELSE
        INSERT INTO bgw.schedule (owner, name, worker_id, schedule, on_overlap, on_missed, active)
        VALUES (job.owner, label, new_worker, create_schedule.schedule, 'queue one', 'skip', create_schedule.active) RETURNING bgw.schedule.id INTO new_schedule;
    END IF;
    RETURN new_schedule;
END;
$$;
COMMENT ON FUNCTION cron.create_schedule(cron.entry, text, boolean) IS 'Makes the schedule of a job and its worker; GMT, as pg_cron has it.  Errors: WK201 no node can log in as the owner.';

CREATE OR REPLACE FUNCTION cron.create_worker(job cron.entry, label text) RETURNS bigint
LANGUAGE plpgsql
AS $$
DECLARE
    new_worker bigint;
BEGIN
    INSERT INTO bgw.worker (name, command, database, made_by_schedule) VALUES (label, job.command, nullif(job.database, pg_catalog.current_database()), true)
    RETURNING worker.id INTO new_worker;
    IF job.owner <> bgw.current_owner() THEN
        -- Only a superuser comes here, and only a superuser may write the column.
        UPDATE bgw.worker SET owner = job.owner WHERE worker.id = new_worker;
    END IF;
    RETURN new_worker;
END;
$$;
COMMENT ON FUNCTION cron.create_worker(cron.entry, text) IS 'Makes the worker of a job.';

CREATE OR REPLACE FUNCTION cron.restore_worker(job cron.entry) RETURNS bigint
LANGUAGE plpgsql
AS $$
DECLARE
    definition bgw.schedule;
    its_worker bigint;
BEGIN
    SELECT * INTO definition FROM bgw.schedule WHERE bgw.schedule.id = job.schedule_id;
    IF EXISTS (SELECT FROM bgw.worker WHERE worker.id = definition.worker_id AND NOT worker.unregistered) THEN
        RETURN definition.worker_id;
    END IF;
    -- keep_house deletes what is unregistered: who waits for it here finds no row.
    SELECT worker.id INTO its_worker FROM bgw.worker
    WHERE worker.id = definition.worker_id OR worker.owner = job.owner AND worker.name = definition.name FOR NO KEY UPDATE;
    its_worker := coalesce(its_worker, cron.create_worker(job, definition.name));
    UPDATE bgw.worker SET unregistered = false, made_by_schedule = true WHERE worker.id = its_worker AND worker.unregistered;
    UPDATE bgw.schedule SET worker_id = its_worker WHERE bgw.schedule.id = definition.id AND bgw.schedule.worker_id <> its_worker;
    RETURN its_worker;
END;
$$;
COMMENT ON FUNCTION cron.restore_worker(cron.entry) IS 'The worker of a job; after bgw_unregister it is there again.';

CREATE OR REPLACE FUNCTION cron.find_job(job_id bigint) RETURNS cron.entry
LANGUAGE sql STABLE
AS $$
    SELECT entry FROM cron.entry JOIN bgw.schedule ON bgw.schedule.id = entry.schedule_id AND bgw.schedule.owner = entry.owner AND NOT bgw.schedule.unscheduled
    WHERE entry.jobid = job_id
$$;
COMMENT ON FUNCTION cron.find_job(bigint) IS 'The job of that number, if it is there and the caller''s; a superuser''s are all.';

CREATE OR REPLACE FUNCTION cron.change_job(
    job_id bigint, schedule text DEFAULT NULL, command text DEFAULT NULL, database text DEFAULT NULL, owner oid DEFAULT NULL, active boolean DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    job cron.entry := cron.find_job(job_id);
    its_worker bigint;
BEGIN
    IF job.jobid IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'internal_error', MESSAGE = pg_catalog.format('Job %s does not exist or you don''t own it', job_id);
    ELSIF change_job.schedule IS NOT NULL THEN
        PERFORM cron.check_schedule(change_job.schedule);
    END IF;
    IF change_job.database IS NOT NULL OR change_job.owner IS NOT NULL THEN
        PERFORM cron.check_access(coalesce(change_job.owner, job.owner), coalesce(change_job.database, job.database));
    END IF;
    UPDATE cron.entry SET command = coalesce(change_job.command, entry.command), database = coalesce(change_job.database, entry.database) WHERE entry.jobid = job_id;
    its_worker := cron.restore_worker(job);
    UPDATE bgw.worker SET command = coalesce(change_job.command, worker.command),
        database = CASE WHEN change_job.database IS NULL THEN worker.database ELSE nullif(change_job.database, pg_catalog.current_database()) END
    WHERE worker.id = its_worker AND (change_job.command IS NOT NULL OR change_job.database IS NOT NULL);
    IF change_job.owner <> job.owner THEN
        UPDATE cron.entry SET owner = change_job.owner WHERE entry.jobid = job_id;
        UPDATE bgw.worker SET owner = change_job.owner WHERE worker.id = its_worker;
        UPDATE bgw.schedule SET owner = change_job.owner WHERE bgw.schedule.id = job.schedule_id;
    END IF;
    UPDATE bgw.schedule SET schedule = coalesce(change_job.schedule, bgw.schedule.schedule), active = coalesce(change_job.active, bgw.schedule.active)
    WHERE bgw.schedule.id = job.schedule_id AND (bgw.schedule.schedule <> change_job.schedule OR bgw.schedule.active <> change_job.active);
END;
$$;
COMMENT ON FUNCTION cron.change_job(bigint, text, text, text, oid, boolean) IS
'Changes what is given of a job.  The owner: as a superuser only.  What runs goes on.  A worker that was unregistered is there again.
Errors: XX000 no such job, those of cron.check_schedule and cron.check_access, 23505 the new owner has a job of that name, WK201 no node can log in as the owner.';

CREATE OR REPLACE FUNCTION cron.rename_job(job_id bigint, new_name text) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    job cron.entry := cron.find_job(job_id);
    label text := cron.schedule_name(job_id, new_name);
BEGIN
    PERFORM cron.free_name(job.owner, new_name);
    UPDATE cron.entry SET jobname = new_name WHERE entry.jobid = job.jobid;
    -- The worker of a command has the name of its schedule: bgw_unschedule knows it by that.
    UPDATE bgw.worker SET name = label
    FROM bgw.schedule WHERE bgw.schedule.id = job.schedule_id AND worker.id = bgw.schedule.worker_id AND worker.name = bgw.schedule.name;
    UPDATE bgw.schedule SET name = label WHERE bgw.schedule.id = job.schedule_id;
END;
$$;
COMMENT ON FUNCTION cron.rename_job(bigint, text) IS
'Gives a job another name, or none; what "bgw import pg_cron" calls.  Errors: 23505 its owner has a job of that name.';

CREATE OR REPLACE FUNCTION cron.read_jobs() RETURNS TABLE (
    jobid bigint, schedule text, command text, nodename text, nodeport integer, database text, username text, active boolean, jobname text)
LANGUAGE sql STABLE
AS $$
    SELECT entry.jobid, definition.schedule, coalesce(worker.command, entry.command), 'localhost'::text, pg_catalog.current_setting('port')::integer,
           CASE WHEN worker.id IS NULL THEN entry.database ELSE bgw.database_of(worker.database, definition.owner, worker.settings) END,
           pg_catalog.pg_get_userbyid(definition.owner)::text, definition.active, entry.jobname
    FROM cron.entry
    JOIN bgw.schedule AS definition ON definition.id = entry.schedule_id AND definition.owner = entry.owner AND NOT definition.unscheduled
    LEFT JOIN bgw.worker ON worker.id = definition.worker_id
$$;
COMMENT ON FUNCTION cron.read_jobs() IS 'Jobs that the reader may see: his own; a superuser, and the owner of the schema, all.';

CREATE OR REPLACE VIEW cron.job AS
    SELECT job.jobid, job.schedule, job.command, job.nodename, job.nodeport, job.database, job.username, job.active, job.jobname FROM cron.read_jobs() AS job;
COMMENT ON VIEW cron.job IS
'Every job, as in pg_cron''s table.  nodename, nodeport: as pg_cron shows them; the controller connects in its own way.
What else there is to know of a job: SELECT * FROM bgw_schedules WHERE name LIKE ''cron 7:%'';';
GRANT SELECT ON cron.job TO PUBLIC;
