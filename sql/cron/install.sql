-- pg_cron's interface: everything re-creatable, in order.  Applied by "bgw migrate --with-cron", and by each later "bgw migrate".
--
-- cron.schedule makes a row of bgw.schedule and its worker, and cron.entry gives it a number; from there on it is a schedule like
-- any other.  What differs from pg_cron, and why: docs/pg_cron.md.
\ir check.sql     -- what pg_cron refuses, in its words
\ir jobs.sql      -- a job -> schedule and worker; the view cron.job
\ir schedule.sql  -- cron.schedule, schedule_in_database, alter_job, unschedule
\ir runs.sql      -- the view cron.job_run_details
\ir triggers.sql  -- INSERT, UPDATE and DELETE on the views
