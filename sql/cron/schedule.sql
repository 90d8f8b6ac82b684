-- cron.schedule, schedule_in_database, alter_job, unschedule: pg_cron's functions.
-- Next: sql/cron/jobs.sql.

CREATE OR REPLACE FUNCTION cron.schedule(schedule text, command text) RETURNS bigint
LANGUAGE sql STRICT
AS $$ SELECT cron.put_job(bgw.current_owner(), NULL, schedule.schedule, schedule.command, pg_catalog.current_database(), true) $$;
COMMENT ON FUNCTION cron.schedule(text, text) IS
'Makes a job without a name and returns its number.  Times are GMT.  NULL if an argument is.
Errors: 22023 not a schedule of pg_cron, XX000 you may not log in to this database, WK201 no node can log in as you.
Example: SELECT cron.schedule(''30 3 * * 6'', ''DELETE FROM events WHERE at < now() - interval ''''1 week'''''');';

CREATE OR REPLACE FUNCTION cron.schedule(job_name text, schedule text, command text) RETURNS bigint
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM cron.check_arguments(job_name, schedule, command);
    RETURN cron.put_job(bgw.current_owner(), job_name, schedule, command, pg_catalog.current_database(), true);
END;
$$;
COMMENT ON FUNCTION cron.schedule(text, text, text) IS
'Makes a job, or gives your job of that name another schedule and command, and this database.  Returns its number.  Times are GMT.
Errors: XX000 NULL, or you may not log in to this database; 22023 not a schedule of pg_cron; WK201 no node can log in as you.
Example: SELECT cron.schedule(''nightly'', ''0 3 * * *'', ''VACUUM'');';

CREATE OR REPLACE FUNCTION cron.schedule_in_database(
    job_name text, schedule text, command text, database text, username text DEFAULT NULL, active boolean DEFAULT true
) RETURNS bigint
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM cron.check_arguments(job_name, schedule, command);
    IF username IS NOT NULL AND NOT cron.is_superuser() THEN
        RAISE EXCEPTION USING ERRCODE = 'internal_error', MESSAGE = 'must be superuser to create a job for another role';
    END IF;
    RETURN cron.put_job(CASE WHEN username IS NULL THEN bgw.current_owner() ELSE cron.find_user(username) END,
        job_name, schedule, command, coalesce(database, pg_catalog.current_database()), coalesce(active, true));
END;
$$;
COMMENT ON FUNCTION cron.schedule_in_database(text, text, text, text, text, boolean) IS
'Makes a job in another database; username: as a superuser, in the name of another role.  A job of that name gets another schedule, command and database, and stays active or not.
PUBLIC may not call it: grant it to roles (each "bgw migrate" that brings a new version takes it from PUBLIC again).
Errors: those of cron.schedule, 3D000 no such database, 55000 it accepts no connections.
Example: SELECT cron.schedule_in_database(''weekly'', ''0 4 * * 0'', ''VACUUM'', ''orders'');';
REVOKE ALL ON FUNCTION cron.schedule_in_database(text, text, text, text, text, boolean) FROM PUBLIC;

CREATE OR REPLACE FUNCTION cron.check_arguments(job_name text, schedule text, command text) RETURNS void
LANGUAGE plpgsql IMMUTABLE
AS $$
DECLARE
    missing text := CASE WHEN job_name IS NULL THEN 'job_name' WHEN schedule IS NULL THEN 'schedule' WHEN command IS NULL THEN 'command' END;
BEGIN
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'internal_error', MESSAGE = missing || ' can not be NULL';
    END IF;
END;
$$;
COMMENT ON FUNCTION cron.check_arguments(text, text, text) IS 'Raises pg_cron''s error for an argument that is NULL.  Errors: XX000.';

CREATE OR REPLACE FUNCTION cron.alter_job(
    job_id bigint, schedule text DEFAULT NULL, command text DEFAULT NULL, database text DEFAULT NULL, username text DEFAULT NULL, active boolean DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF job_id IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'internal_error', MESSAGE = 'job_id can not be NULL';
    ELSIF pg_catalog.num_nonnulls(schedule, command, database, username, active) = 0 THEN
        RAISE EXCEPTION USING ERRCODE = 'internal_error', MESSAGE = 'no updates specified',
            HINT = 'You must specify at least one job attribute to change when calling alter_job';
    ELSIF username IS NOT NULL AND NOT cron.is_superuser() THEN
        RAISE EXCEPTION USING ERRCODE = 'internal_error', MESSAGE = 'must be superuser to alter username';
    END IF;
    PERFORM cron.change_job(job_id, schedule, command, database, CASE WHEN username IS NOT NULL THEN cron.find_user(username) END, active);
END;
$$;
COMMENT ON FUNCTION cron.alter_job(bigint, text, text, text, text, boolean) IS
'Changes what is given of one of your jobs; username: as a superuser.  PUBLIC may not call it: grant it to roles.
Errors: XX000 nothing given, no such job, or you may not; 22023 not a schedule of pg_cron; 3D000, 55000 the database; WK201 no node can log in as that role.
Example: SELECT cron.alter_job(7, active => false);';
REVOKE ALL ON FUNCTION cron.alter_job(bigint, text, text, text, text, boolean) FROM PUBLIC;

CREATE OR REPLACE FUNCTION cron.unschedule(job_id bigint) RETURNS boolean
LANGUAGE plpgsql STRICT
AS $$
DECLARE
    entry cron.entry := cron.find_job(job_id);
BEGIN
    IF entry.jobid IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'internal_error', MESSAGE = pg_catalog.format('could not find valid entry for job %s', job_id);
    END IF;
    RETURN public.bgw_unschedule((SELECT bgw.schedule.name FROM bgw.schedule WHERE bgw.schedule.id = entry.schedule_id));
END;
$$;
COMMENT ON FUNCTION cron.unschedule(bigint) IS
'Removes a job.  What runs goes on; bgw_unschedule(''cron 7: nightly'', stop => true) also ends that.  NULL if the number is.
Errors: XX000 no such job, or not yours.
Example: SELECT cron.unschedule(7);';

CREATE OR REPLACE FUNCTION cron.unschedule(job_name text) RETURNS boolean
LANGUAGE plpgsql STRICT
AS $$
DECLARE
    entry cron.entry;
BEGIN
    SELECT named.* INTO entry FROM cron.entry AS named WHERE named.jobname = job_name AND named.owner = bgw.current_owner();
    IF (cron.find_job(entry.jobid)).jobid IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'internal_error', MESSAGE = pg_catalog.format('could not find valid entry for job ''%s''', job_name);
    END IF;
    RETURN cron.unschedule(entry.jobid);
END;
$$;
COMMENT ON FUNCTION cron.unschedule(text) IS
'Removes your job of that name, as cron.unschedule by number does.  NULL if the name is.
Errors: XX000 you have no such job.
Example: SELECT cron.unschedule(''nightly'');';
