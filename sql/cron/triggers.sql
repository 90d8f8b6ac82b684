-- What scripts write to pg_cron's tables: UPDATE cron.job SET active = false, DELETE FROM cron.job_run_details.
-- As there, a user has DELETE on the details and nothing on cron.job, unless it is granted.

CREATE OR REPLACE FUNCTION cron.write_job() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        PERFORM cron.unschedule(OLD.jobid);
        RETURN OLD;
    ELSIF TG_OP = 'INSERT' THEN
        RETURN cron.insert_job(NEW);
    ELSIF (NEW.jobid, NEW.jobname) IS DISTINCT FROM (OLD.jobid, OLD.jobname) THEN
        RAISE EXCEPTION USING ERRCODE = 'feature_not_supported', MESSAGE = 'cannot change jobid or jobname of a job',
            HINT = 'Unschedule it, and schedule another.';
    ELSIF pg_catalog.num_nulls(NEW.schedule, NEW.command, NEW.database, NEW.username, NEW.active) > 0 THEN
        RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'only the jobname of a job can be NULL';
    ELSIF NEW.username <> OLD.username AND NOT cron.is_superuser() THEN
        RAISE EXCEPTION USING ERRCODE = 'internal_error', MESSAGE = 'must be superuser to alter username';
    END IF;
    IF (NEW.nodename, NEW.nodeport) IS DISTINCT FROM (OLD.nodename, OLD.nodeport) THEN
        PERFORM cron.warn_of_node();
    END IF;
    PERFORM cron.change_job(OLD.jobid, nullif(NEW.schedule, OLD.schedule), nullif(NEW.command, OLD.command), nullif(NEW.database, OLD.database),
        CASE WHEN NEW.username <> OLD.username THEN cron.find_user(NEW.username) END, NEW.active);
    RETURN NEW;
END;
$$;
COMMENT ON FUNCTION cron.write_job() IS 'INSERT, UPDATE and DELETE on cron.job, as the caller: the functions of sql/cron/schedule.sql in other words.';
DROP TRIGGER IF EXISTS job_is_written ON cron.job;
CREATE TRIGGER job_is_written INSTEAD OF INSERT OR UPDATE OR DELETE ON cron.job FOR EACH ROW EXECUTE FUNCTION cron.write_job();

CREATE OR REPLACE FUNCTION cron.insert_job(job cron.job) RETURNS cron.job
LANGUAGE plpgsql
AS $$
DECLARE
    given cron.job := job;
BEGIN
    IF given.username <> current_user AND NOT cron.is_superuser() THEN
        RAISE EXCEPTION USING ERRCODE = 'internal_error', MESSAGE = 'must be superuser to create a job for another role';
    END IF;
    job.jobid := cron.add_job(cron.find_user(coalesce(given.username, current_user)), given.jobname, given.schedule, given.command,
        coalesce(given.database, pg_catalog.current_database()), coalesce(given.active, true));
    SELECT inserted.* INTO job FROM cron.job AS inserted WHERE inserted.jobid = job.jobid;
    IF given.jobid <> job.jobid THEN
        RAISE WARNING USING ERRCODE = '01000', MESSAGE = 'the given jobid has no effect', DETAIL = pg_catalog.format('It is job %s.', job.jobid);
    END IF;
    IF given.nodename <> job.nodename OR given.nodeport <> job.nodeport THEN
        PERFORM cron.warn_of_node();
    END IF;
    RETURN job;
END;
$$;
COMMENT ON FUNCTION cron.insert_job(cron.job) IS
'What INSERT INTO cron.job does; a NULL means the default.  Returns the row as it is then; of what has no effect, a warning.
Errors: XX000 another role''s, or there is none; those of cron.add_job.';

CREATE OR REPLACE FUNCTION cron.warn_of_node() RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    RAISE WARNING USING ERRCODE = '01000', MESSAGE = 'nodename and nodeport have no effect', HINT = 'The controller is told how to connect when it is started.';
END;
$$;
COMMENT ON FUNCTION cron.warn_of_node() IS 'The warning where pg_cron would connect to another server.';

CREATE OR REPLACE FUNCTION cron.delete_run() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF OLD.end_time IS NULL THEN
        RETURN NULL;  -- it runs
    END IF;
    -- bgw.run has no older ones.  Not those that another deletion has locked, whose transaction may be open for long.
    DELETE FROM cron.deleted_run WHERE (end_time, runid) IN (
        SELECT past.end_time, past.runid FROM cron.deleted_run AS past WHERE past.end_time < pg_catalog.now() - interval '9 days' FOR UPDATE SKIP LOCKED);
    INSERT INTO cron.deleted_run (end_time, runid) VALUES (OLD.end_time, OLD.runid) ON CONFLICT DO NOTHING;
    RETURN OLD;
END;
$$;
COMMENT ON FUNCTION cron.delete_run() IS
'DELETE on cron.job_run_details.  It may write for everybody, because what it is called for is what the view has shown him; PUBLIC cannot make a trigger of it elsewhere.';
REVOKE ALL ON FUNCTION cron.delete_run() FROM PUBLIC;
DROP TRIGGER IF EXISTS run_is_deleted ON cron.job_run_details;
CREATE TRIGGER run_is_deleted INSTEAD OF DELETE ON cron.job_run_details FOR EACH ROW EXECUTE FUNCTION cron.delete_run();
