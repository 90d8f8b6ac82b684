--! Previous: -
--! Hash: sha1:8684fd03735e68354fa6e5614a91dbe40d6e8a51

-- Schema cron, installed by "bgw migrate --with-cron": pg_cron's interface.  A job is a row of bgw.schedule and its worker;
-- here stands only what pg_cron has beyond them: the job's number, its name as the user wrote it, and what it was, for the
-- history of a job that is gone.  Nodes never read or lock any of it.

CREATE SCHEMA cron;
COMMENT ON SCHEMA cron IS 'The interface of pg_cron, on schedules of pg-bgworker.';

CREATE TABLE cron.migration (
    id integer PRIMARY KEY,
    name text NOT NULL,
    hash text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE cron.migration IS 'The migrations of this schema that were applied here.  Written by bgw migrate.';

CREATE TABLE cron.sql_layer (
    hash text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE cron.sql_layer IS 'The hash of sql/cron/ as it was last applied.  One row.  That it exists says that the schema is ours.';

CREATE TABLE cron.entry (
    jobid bigint GENERATED ALWAYS AS IDENTITY (SEQUENCE NAME cron.jobid_seq) PRIMARY KEY,
    owner oid NOT NULL DEFAULT bgw.current_owner(),
    jobname text,
    schedule_id bigint,
    database text NOT NULL,
    command text NOT NULL,
    CONSTRAINT jobname_username_uniq UNIQUE (jobname, owner)
);
CREATE INDEX entry_of_schedule ON cron.entry (schedule_id);
COMMENT ON TABLE cron.entry IS 'One row per job that ever was, until its history is gone.  Written by cron.put_job, cron.change_job and cron.forget_jobs.';
COMMENT ON COLUMN cron.entry.jobname IS 'NULL also when the job was unscheduled and its name was given to another.';
COMMENT ON COLUMN cron.entry.schedule_id IS 'The row of bgw.schedule.  A job is there as long as that row is there and not unscheduled.';
COMMENT ON COLUMN cron.entry.command IS 'As last defined.  What runs is that of the worker; this one is for cron.job_run_details.';

CREATE TABLE cron.deleted_run (
    end_time timestamptz NOT NULL,
    runid bigint NOT NULL,
    PRIMARY KEY (end_time, runid)
);
COMMENT ON TABLE cron.deleted_run IS
'Runs that a user deleted from cron.job_run_details.  The row of bgw.run stays until it is too old: a lock of a user on it would hold up a node.';

ALTER TABLE cron.entry ENABLE ROW LEVEL SECURITY;
CREATE POLICY owner_alone ON cron.entry USING (owner = bgw.current_owner());
GRANT SELECT, INSERT (owner, jobname, database, command), UPDATE (jobname, schedule_id, database, command) ON cron.entry TO PUBLIC;
GRANT SELECT ON cron.deleted_run TO PUBLIC;
