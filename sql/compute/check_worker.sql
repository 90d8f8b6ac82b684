-- bgw.check_worker: the one validator of a definition, however it arrives: bgw_register, a library's init,
-- or plain INSERT and UPDATE (the trigger worker_is_checked calls it).
-- PostgreSQL counterpart: SanityCheckBackgroundWorker.

CREATE OR REPLACE FUNCTION bgw.check_worker(worker bgw.worker) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    missing text := CASE WHEN worker.flags IS NULL THEN 'flags' WHEN worker.start_time IS NULL THEN 'start_time' WHEN worker.mode IS NULL THEN 'mode'
        WHEN worker.autostart IS NULL THEN 'autostart' WHEN worker.enabled IS NULL THEN 'enabled' WHEN worker.scope IS NULL THEN 'scope'
        WHEN worker.failure_window IS NULL THEN 'failure_window' WHEN worker.healthy_time IS NULL THEN 'healthy_time' END;
BEGIN
    PERFORM bgw.check_one_shot(worker);
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = pg_catalog.format('worker "%s": %s must not be null', worker.name, missing);
    END IF;
    PERFORM bgw.check_restart(worker);
    IF worker.start_time NOT IN ('postmaster_start', 'consistent_state', 'recovery_finished') THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('worker "%s": unrecognized start time "%s"', worker.name, worker.start_time),
            HINT = 'Available start times: postmaster_start, consistent_state, recovery_finished.';
    END IF;
    IF NOT worker.flags <@ '{shmem_access,backend_database_connection,interruptible}' THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('worker "%s": unrecognized flag', worker.name),
            HINT = 'Available flags: backend_database_connection, interruptible, shmem_access.';
    END IF;
    IF worker.max_instances <= 0 THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('worker "%s": max_instances must be greater than zero', worker.name);
    END IF;
    IF worker.start_time = 'postmaster_start' AND 'backend_database_connection' = ANY (worker.flags) THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('worker "%s": cannot request database access if starting at postmaster start', worker.name);
    END IF;
    IF 'interruptible' = ANY (worker.flags) AND NOT 'backend_database_connection' = ANY (worker.flags) THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('worker "%s": cannot be interruptible without database access', worker.name),
            HINT = 'Add the flag "backend_database_connection".';
    END IF;
    PERFORM bgw.check_scope(worker);
END;
$$;
COMMENT ON FUNCTION bgw.check_worker(bgw.worker) IS
'Raises an error if a definition cannot be.  Errors: 22023 a value that cannot be, 0A000 a flag that is not supported.
Example: SELECT bgw.check_worker(worker) FROM bgw.worker;';

CREATE OR REPLACE FUNCTION bgw.check_one_shot(worker bgw.worker) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF worker.name IS NULL OR pg_catalog.octet_length(worker.name) NOT BETWEEN 1 AND 63 THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('invalid worker name: "%s"', worker.name),
            DETAIL = 'A name has 1 to 63 bytes.';
    END IF;
    IF worker.name ~ '[[:cntrl:]]' THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('invalid worker name: %s', pg_catalog.to_json(worker.name)),
            DETAIL = 'A name has no control characters.';
    END IF;
    IF (worker.command IS NULL) = (worker.function_name IS NULL) OR (worker.library_name IS NULL) <> (worker.function_name IS NULL) THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('worker "%s" needs either a command or a library function', worker.name),
            HINT = 'Give command => ''...'', or library_name => ''...'' and function_name => ''...''.';
    END IF;
    IF worker.library_name !~ '^[A-Za-z_][A-Za-z0-9_]*$' THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('worker "%s": invalid library name "%s"', worker.name, worker.library_name),
            HINT = 'A library is named, never given as a path: it is a file of a directory that the controller was started with (--library-dir).';
    END IF;
    IF worker.timeout <= interval '0' OR worker.timeout > interval '24 days' THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('worker "%s": invalid timeout', worker.name),
            DETAIL = 'A timeout is greater than zero, and at most 24 days.';
    END IF;
    PERFORM bgw.check_size(worker.name, worker.command, worker.main_arg);
    PERFORM bgw.check_command(worker);
END;
$$;
COMMENT ON FUNCTION bgw.check_one_shot(bgw.worker) IS 'The part of bgw.check_worker that the command of bgw_launch_sql needs too: name, what is run, how, and for how long.';

CREATE OR REPLACE FUNCTION bgw.check_size(name text, command text, main_arg jsonb) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    -- Of much more a node could not be told within the ten seconds that a call may take.  Compressed it is a hundredth at best.
    most integer := 16 * 1024 * 1024;
BEGIN
    IF pg_catalog.octet_length(command) > most OR pg_catalog.pg_column_size(main_arg) > most / 200 AND pg_catalog.octet_length(main_arg::pg_catalog.text) > most THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('worker "%s": command or main_arg is too long', pg_catalog.left(check_size.name, 63)),
            DETAIL = 'Each has at most 16 MB.',
            HINT = 'Put it into a table, and pass its key.';
    END IF;
END;
$$;
COMMENT ON FUNCTION bgw.check_size(text, text, jsonb) IS 'Raises an error if a command or an argument is more than a node can be told at a time.  Errors: 22023.';

CREATE OR REPLACE FUNCTION bgw.check_restart(worker bgw.worker) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF worker.restart_time < interval '0' OR worker.restart_time > interval '1 day' THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('worker "%s": invalid restart interval', worker.name),
            DETAIL = 'A restart time lies between 0 and 1 day.';
    END IF;
    IF worker.restart_time_max > interval '1 day' OR worker.restart_time_max < worker.restart_time OR worker.restart_time_max IS NOT NULL AND worker.restart_time IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('worker "%s": invalid restart_time_max', worker.name),
            DETAIL = 'It lies between restart_time and 1 day.';
    END IF;
    IF worker.failure_limit NOT BETWEEN 1 AND 1000 THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('worker "%s": invalid failure_limit: %s', worker.name, worker.failure_limit),
            DETAIL = 'It lies between 1 and 1000.';
    END IF;
    IF worker.failure_window NOT BETWEEN interval '1 s' AND interval '1000 years' THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('worker "%s": invalid failure_window', worker.name),
            DETAIL = 'It lies between 1 second and 1000 years.';
    END IF;
    IF worker.healthy_time NOT BETWEEN interval '0' AND interval '1000 years' THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('worker "%s": invalid healthy_time', worker.name),
            DETAIL = 'It lies between 0 and 1000 years.';
    END IF;
END;
$$;
COMMENT ON FUNCTION bgw.check_restart(bgw.worker) IS 'The part of bgw.check_worker that is about what happens after a failure.';

CREATE OR REPLACE FUNCTION bgw.check_scope(worker bgw.worker) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF worker.scope NOT IN ('one', 'every_database') THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('worker "%s": unrecognized scope "%s"', worker.name, worker.scope),
            HINT = 'Available scopes: one, every_database.';
    ELSIF worker.scope = 'every_database' AND NOT worker.autostart THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('worker "%s": scope "every_database" needs autostart', worker.name),
            DETAIL = 'No launch says in which database: it starts by itself in each.';
    ELSIF worker.scope = 'every_database' AND (worker.database IS NOT NULL OR worker.mode = 'atomic') THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('worker "%s": scope "every_database" excludes a database of its own and mode "atomic"', worker.name);
    END IF;
END;
$$;
COMMENT ON FUNCTION bgw.check_scope(bgw.worker) IS 'The part of bgw.check_worker that is about the databases it runs in.';

CREATE OR REPLACE FUNCTION bgw.check_command(worker bgw.worker) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF worker.command IS NOT NULL AND NOT 'backend_database_connection' = ANY (worker.flags) THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('worker "%s": a command needs the flag "backend_database_connection"', worker.name);
    END IF;
    IF worker.command IS NOT NULL AND 'shmem_access' = ANY (worker.flags) THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('worker "%s": a command has no access to shared memory', worker.name),
            HINT = 'The flag "shmem_access" is for the functions of libraries.';
    END IF;
    IF worker.mode NOT IN ('session', 'atomic') THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('worker "%s": invalid mode "%s"', worker.name, worker.mode),
            HINT = 'Available modes: session, atomic.';
    END IF;
    IF worker.naptime IS NOT NULL AND worker.command IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('worker "%s": a library function has no nap time', worker.name),
            HINT = 'It sleeps by itself: pass a naptime to bgw.mainLoop.';
    END IF;
    IF worker.naptime !~ '^[A-Za-z_]' THEN
        IF bgw.parse_naptime(worker.naptime) < interval '10 ms' THEN
            RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
                MESSAGE = pg_catalog.format('worker "%s": naptime must be at least 10 ms', worker.name);
        END IF;
    END IF;
    IF worker.mode = 'atomic' AND worker.database <> pg_catalog.current_database() THEN
        RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
            MESSAGE = pg_catalog.format('worker "%s": mode "atomic" works in database "%s" only', worker.name, pg_catalog.current_database()),
            DETAIL = 'Command and completion commit in one transaction, so they need one database.';
    END IF;
END;
$$;
COMMENT ON FUNCTION bgw.check_command(bgw.worker) IS 'The part of bgw.check_worker that is about command, the flags that it needs or cannot have, naptime and mode.';

CREATE OR REPLACE FUNCTION bgw.parse_naptime(naptime text) RETURNS interval
LANGUAGE plpgsql IMMUTABLE
AS $$
BEGIN
    RETURN naptime::interval;
EXCEPTION WHEN data_exception THEN
    RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
        MESSAGE = pg_catalog.format('invalid naptime: "%s"', naptime),
        HINT = 'Give an interval such as ''10 s'', or the name of a setting such as ''my_worker.naptime''.';
END;
$$;
COMMENT ON FUNCTION bgw.parse_naptime(text) IS 'A nap time that is no setting, as an interval.  Error: 22023.';
