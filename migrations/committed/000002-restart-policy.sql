--! Previous: sha1:979f3c8d4e6d444f3a9d5b15307d69d415d58c1e
--! Hash: sha1:963637d4bd41a352a3297a0b11a2ae03084d69dc

-- What supervisors add to bgw_restart_time: back-off, a limit, a healthy period.  One worker per database.  Databases that
-- are to be left alone for a moment.

ALTER TABLE bgw.worker
    ADD COLUMN restart_time_max interval,
    ADD COLUMN failure_limit integer,
    ADD COLUMN failure_window interval NOT NULL DEFAULT '10 min',
    ADD COLUMN healthy_time interval NOT NULL DEFAULT '1 min',
    ADD COLUMN scope text NOT NULL DEFAULT 'one',
    ADD CONSTRAINT failure_limit_is_positive CHECK (failure_limit > 0),
    ADD CONSTRAINT failure_window_is_positive CHECK (failure_window > interval '0'),
    ADD CONSTRAINT healthy_time_is_not_negative CHECK (healthy_time >= interval '0'),
    ADD CONSTRAINT scope_is_known CHECK (scope IN ('one', 'every_database'));
CREATE INDEX worker_of_every_database ON bgw.worker (id) WHERE scope = 'every_database';
COMMENT ON COLUMN bgw.worker.restart_time_max IS 'restart_time doubles with each failure in a row, up to this.  NULL: it stays as it is.';
COMMENT ON COLUMN bgw.worker.failure_limit IS 'After so many failures within failure_window it is not started again.  NULL: any number.';
COMMENT ON COLUMN bgw.worker.healthy_time IS 'A failure after having run for this long is the first of a new row.';
COMMENT ON COLUMN bgw.worker.scope IS 'one: a launch starts one process.  every_database: one runs in each database that its owner may connect to.';
GRANT INSERT (restart_time_max, failure_limit, failure_window, healthy_time, scope),
      UPDATE (restart_time_max, failure_limit, failure_window, healthy_time, scope) ON bgw.worker TO PUBLIC;

ALTER TABLE bgw.process ADD COLUMN failures integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN bgw.process.failures IS 'Failures in a row, none of which came after a healthy period.  Written by settle_exits.';

ALTER TABLE bgw.run ADD COLUMN gave_up text;
COMMENT ON COLUMN bgw.run.gave_up IS 'Why it was not started again although it restarts.  Written by settle_exits.';

CREATE TABLE bgw.worker_database (
    worker_id bigint NOT NULL,
    database text NOT NULL,
    PRIMARY KEY (worker_id, database)
);
COMMENT ON TABLE bgw.worker_database IS
'Databases for which a worker of scope every_database was registered, so that a new one is noticed and one that was terminated stays so.  Written by cover_databases.';

CREATE TABLE bgw.interruption (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    database text NOT NULL,
    requested_by text NOT NULL DEFAULT current_user,
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE bgw.interruption IS 'Databases that sessions of nodes have to leave for a while.  Users only insert, by bgw_interrupt_database; keep_house deletes.';
ALTER TABLE bgw.interruption ENABLE ROW LEVEL SECURITY;
CREATE POLICY everybody_sees ON bgw.interruption FOR SELECT USING (true);
CREATE POLICY owners_of_the_database ON bgw.interruption FOR INSERT
    WITH CHECK (EXISTS (SELECT FROM pg_database WHERE datname = database AND pg_has_role(datdba, 'USAGE')));
GRANT SELECT, INSERT (database) ON bgw.interruption TO PUBLIC;
