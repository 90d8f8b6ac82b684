--! Previous: sha1:9ff8b2da6d8bece1045f07055f95ac1b8c75b67f
--! Hash: sha1:5c750dc467a9bd0d0c2e53ecfa00fbe9334e45b6

-- What the worker auth_counter has counted, and up to where it has read the log.

CREATE TABLE bgw.auth_count (
    username text NOT NULL,
    database text NOT NULL,
    succeeded bigint NOT NULL DEFAULT 0,
    failed bigint NOT NULL DEFAULT 0,
    last_success timestamptz,
    last_failure timestamptz,
    PRIMARY KEY (username, database)
);
COMMENT ON TABLE bgw.auth_count IS 'Logins by user and database.  Written by the worker auth_counter together with its position in the log, so that none counts twice.';

CREATE TABLE bgw.auth_count_position (
    id boolean PRIMARY KEY DEFAULT true CHECK (id),
    file text NOT NULL,
    position bigint NOT NULL
);
COMMENT ON TABLE bgw.auth_count_position IS 'Up to where the worker auth_counter has read the log of the server.  One row.';
