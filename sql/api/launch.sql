-- bgw_launch, bgw_launch_sql: register one instance.  The trigger launch_rings rings the doorbell at commit.
-- PostgreSQL counterpart: RegisterDynamicBackgroundWorker.  Keeps I3: a rolled-back launch leaves nothing.
-- Next: sql/doorbell.sql, then sql/control/claim_startable.sql on some node.

CREATE OR REPLACE FUNCTION public.bgw_launch(
    worker_name text,
    main_arg jsonb DEFAULT NULL,
    set text DEFAULT NULL,
    key text DEFAULT NULL,
    database text DEFAULT NULL,
    notify text DEFAULT NULL,
    when_parent_ends text DEFAULT 'keep',
    settings jsonb DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql
AS $$
DECLARE
    handle bigint;
BEGIN
    -- Nearly always it is the caller's own, nothing stands against it, and it joins no set: one statement.
    INSERT INTO bgw.process (worker_id, main_arg, key, database, notify, when_parent_ends, settings)
    SELECT worker.id, coalesce(bgw_launch.main_arg, worker.main_arg), bgw_launch.key, bgw_launch.database, bgw_launch.notify,
           bgw_launch.when_parent_ends, bgw_launch.settings
    FROM bgw.worker
    WHERE bgw_launch.set IS NULL AND worker.owner = bgw.current_owner() AND worker.name = worker_name AND NOT worker.unregistered
      AND worker.enabled AND worker.scope = 'one' AND worker.max_instances IS NULL AND coalesce(pg_catalog.pg_column_size(bgw_launch.main_arg), 0) < 80000
      AND EXISTS (SELECT FROM bgw.login WHERE login.owner = worker.owner)
    RETURNING process.id INTO handle;
    RETURN coalesce(handle, bgw.launch_checked(worker_name, bgw_launch.main_arg, bgw_launch.set, bgw_launch.key, bgw_launch.database,
                                               bgw_launch.notify, bgw_launch.when_parent_ends, bgw_launch.settings));
END;
$$;
COMMENT ON FUNCTION public.bgw_launch(text, jsonb, text, text, text, text, text, jsonb) IS
'Starts one instance of a worker when the transaction commits.  Returns its handle.
  main_arg          replaces the worker''s own
  set, key          among the processes of its owner no other of this set has this key; bgw_get_handle finds it by them
  database          where it runs, if the worker names none; default: this database
  notify            a channel: {"handle", "name", "set", "key", "event", ...} is sent there when it has started (event started, with pid and os_pid)
                    and when it has exited (stopped; restarting, if it starts again; with pid, status, exit_code, sqlstate).  A run that is over at
                    once is told of by its exit alone.  A notification may be lost, as when the server''s queue is half full.
  when_parent_ends  launched by a worker: keep, or terminate: SIGTERM when that worker is finished; while it restarts its children stay
  settings          name -> value, for this process alone: before those of bgw_register, before bgw_set_config, before the boot value
Errors: 42704 no such worker or setting, 55000 not enabled or of scope every_database, 53400 too many instances, WK201 no node can log in as the owner,
42710 the set has this key, 22023 a value that cannot be, 55P02 a setting cannot be changed.
Example: SELECT bgw_launch(''kill_idle'', settings => ''{"kill_idle.max_idle_time": "10s"}'');';

CREATE OR REPLACE FUNCTION public.bgw_launch_sql(
    command text,
    mode text DEFAULT 'session',
    name text DEFAULT 'sql',
    database text DEFAULT NULL,
    timeout interval DEFAULT NULL,
    main_arg jsonb DEFAULT NULL,
    set text DEFAULT NULL,
    key text DEFAULT NULL,
    notify text DEFAULT NULL,
    when_parent_ends text DEFAULT 'keep'
) RETURNS bigint
LANGUAGE plpgsql
AS $$
DECLARE
    handle bigint;
BEGIN
    INSERT INTO bgw.process (name, command, mode, database, timeout, main_arg, worker_set, key, notify, when_parent_ends)
    VALUES (CASE WHEN EXISTS (SELECT FROM bgw.login WHERE login.owner = bgw.current_owner()) THEN bgw_launch_sql.name
                 ELSE bgw.refuse_login(bgw.current_owner(), bgw_launch_sql.name) END,
            bgw_launch_sql.command, bgw_launch_sql.mode, bgw_launch_sql.database, bgw_launch_sql.timeout, bgw_launch_sql.main_arg,
            bgw_launch_sql.set, bgw_launch_sql.key, bgw_launch_sql.notify, bgw_launch_sql.when_parent_ends)
    ON CONFLICT DO NOTHING  -- what can conflict is the key in the set
    RETURNING process.id INTO handle;
    IF handle IS NULL THEN
        PERFORM bgw.refuse_duplicate(bgw.current_owner(), bgw_launch_sql.set, bgw_launch_sql.key);
    END IF;
    RETURN handle;
END;
$$;
COMMENT ON FUNCTION public.bgw_launch_sql(text, text, text, text, interval, jsonb, text, text, text, text) IS
'Runs one command once, in the background, when the transaction commits.  Returns its handle; bgw_run_history shows how it went.
  mode      session: as psql would send it (VACUUM, CREATE INDEX CONCURRENTLY, CALL with COMMIT);  atomic: command and completion commit together.
            Of many that wait, short ones, one plain statement is sent in one with the names of its run: current_query() shows them
  database  default: this one.   timeout  default: none.   name  shown in bgw_stat_activity
  set, key, notify, when_parent_ends   as in bgw_launch
Errors: 22023 a value that cannot be, WK201 no node can log in as you, 42710 the set has this key.
Example: SELECT bgw_launch_sql(''CREATE INDEX CONCURRENTLY ON orders (customer)'', mode => ''session'');';

CREATE OR REPLACE FUNCTION bgw.launch_checked(
    worker_name text,
    main_arg jsonb,
    set text,
    key text,
    database text,
    notify text,
    when_parent_ends text,
    settings jsonb
) RETURNS bigint
LANGUAGE plpgsql
AS $$
DECLARE
    worker bgw.worker := bgw.find_worker(worker_name);
    handle bigint;
BEGIN
    PERFORM bgw.check_launch(worker);
    PERFORM bgw.check_size(worker.name, NULL, launch_checked.main_arg);
    INSERT INTO bgw.process (worker_id, main_arg, worker_set, key, database, notify, when_parent_ends, settings)
    VALUES (worker.id, coalesce(launch_checked.main_arg, worker.main_arg), launch_checked.set, launch_checked.key, launch_checked.database,
            launch_checked.notify, launch_checked.when_parent_ends, launch_checked.settings)
    ON CONFLICT DO NOTHING  -- what can conflict is the key in the set
    RETURNING process.id INTO handle;
    IF handle IS NULL THEN
        PERFORM bgw.refuse_duplicate(worker.owner, launch_checked.set, launch_checked.key);
    END IF;
    RETURN handle;
END;
$$;
COMMENT ON FUNCTION bgw.launch_checked(text, jsonb, text, text, text, text, text, jsonb) IS 'bgw_launch of any worker: of another owner, with max_instances, into a set; and the error if it cannot be.';

CREATE OR REPLACE FUNCTION bgw.check_launch(worker bgw.worker) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF NOT worker.enabled THEN
        RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = pg_catalog.format('worker "%s" is not enabled', worker.name),
            HINT = 'Call bgw_register with enabled => true.';
    END IF;
    IF worker.scope = 'every_database' THEN
        RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = pg_catalog.format('worker "%s" runs in every database', worker.name),
            HINT = 'It starts by itself; one that was terminated comes back when the first controller joins, or with bgw_register(enabled => false) and true.';
    END IF;
    PERFORM bgw.check_login(worker.owner, worker.name);
    IF worker.max_instances IS NOT NULL THEN
        PERFORM bgw.check_instances(worker);
    END IF;
END;
$$;
COMMENT ON FUNCTION bgw.check_launch(bgw.worker) IS
'Raises an error if no instance of this worker may be registered now.  Errors: 55000 not enabled, WK201 no login, 53400 too many instances.';

CREATE OR REPLACE FUNCTION bgw.check_instances(worker bgw.worker) RETURNS void
LANGUAGE plpgsql
SET enable_seqscan = off  -- A plan that was made while the table was small would be kept while one statement launches 10,000.
AS $$
DECLARE
    instances bigint;
BEGIN
    PERFORM FROM bgw.worker AS definition WHERE definition.id = worker.id FOR NO KEY UPDATE;
    SELECT count(*) INTO instances FROM bgw.process WHERE process.worker_id = worker.id;
    IF instances >= worker.max_instances THEN
        RAISE EXCEPTION USING ERRCODE = 'configuration_limit_exceeded',
            MESSAGE = pg_catalog.format('worker "%s" has too many instances', worker.name),
            DETAIL = pg_catalog.format('%s of %s are registered.', instances, worker.max_instances),
            HINT = 'Terminate one with bgw_terminate, or register the worker with a higher max_instances.';
    END IF;
END;
$$;
COMMENT ON FUNCTION bgw.check_instances(bgw.worker) IS 'The part of bgw.check_launch that is about max_instances.';

CREATE OR REPLACE FUNCTION bgw.check_login(owner oid, name text) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM bgw.login WHERE login.owner = check_login.owner) THEN
        PERFORM bgw.refuse_login(check_login.owner, check_login.name);
    END IF;
END;
$$;
COMMENT ON FUNCTION bgw.check_login(oid, text) IS 'Raises an error if no node can log in as the owner of this worker.  Errors: WK201.';

CREATE OR REPLACE FUNCTION bgw.refuse_login(owner oid, name text) RETURNS text
LANGUAGE plpgsql
AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'WK201',
        MESSAGE = pg_catalog.format('worker "%s" cannot be launched: there is no login for role "%s"', refuse_login.name, pg_catalog.pg_get_userbyid(refuse_login.owner)),
        DETAIL = pg_catalog.format('The nodes of this database run the workers of the roles that they log in as: %s.',
            (SELECT pg_catalog.string_agg(pg_catalog.format('"%s"', pg_catalog.pg_get_userbyid(login.owner)), ', ') FROM bgw.login)),
        HINT = 'Have the worker registered by that role, or ask the administrator to run a controller that logs in as yours.';
END;
$$;
COMMENT ON FUNCTION bgw.refuse_login(oid, text) IS 'Raises the error of a launch for whose owner there is no login.  Errors: WK201 always.';

CREATE OR REPLACE FUNCTION bgw.fill_process(process bgw.process) RETURNS bgw.process
LANGUAGE plpgsql
AS $$
BEGIN
    IF process.worker_id IS NOT NULL THEN
        SELECT worker.owner, worker.name, worker.naptime IS NULL INTO process.owner, process.name, process.takes_slot
        FROM bgw.worker WHERE worker.id = process.worker_id;
        IF pg_catalog.num_nonnulls(process.command, process.mode, process.database) > 0 THEN
            PERFORM bgw.check_instance(process);
        END IF;
    -- As nearly every command is: each expression that a call evaluates costs it a microsecond.
    ELSIF (pg_catalog.octet_length(process.name) BETWEEN 1 AND 63 AND process.name !~ '[[:cntrl:]]' AND pg_catalog.octet_length(process.command) < 80000
           AND coalesce(pg_catalog.pg_column_size(process.main_arg), 0) < 80000
           AND process.mode IN ('session', 'atomic') AND pg_catalog.num_nonnulls(process.timeout, process.database) = 0) IS NOT TRUE THEN
        PERFORM bgw.check_command_process(process);
    END IF;
    IF pg_catalog.num_nonnulls(process.worker_set, process.key, process.notify, process.settings, process.schedule_id) > 0
       OR process.when_parent_ends IS DISTINCT FROM 'keep' OR pg_catalog.current_setting('bgw.handle', true) <> '' THEN
        process := bgw.fill_rest(process);
    END IF;
    RETURN process;
END;
$$;
COMMENT ON FUNCTION bgw.fill_process(bgw.process) IS 'What a new instance takes from its worker, its schedule and who launches it, and the only check of what is set at launch.  Called by the trigger process_is_filled.';

CREATE OR REPLACE FUNCTION bgw.check_command_process(process bgw.process) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    worker bgw.worker;
BEGIN
    worker.name := process.name;
    worker.command := process.command;
    worker.mode := process.mode;
    worker.database := process.database;
    worker.timeout := process.timeout;
    worker.main_arg := process.main_arg;
    worker.flags := '{backend_database_connection}';
    PERFORM bgw.check_one_shot(worker);
END;
$$;
COMMENT ON FUNCTION bgw.check_command_process(bgw.process) IS 'Raises an error if the command of bgw_launch_sql cannot be, or not so.  Errors: 22023, 0A000 mode atomic in another database.';

CREATE OR REPLACE FUNCTION bgw.check_instance(process bgw.process) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF pg_catalog.num_nonnulls(process.command, process.mode) > 0 THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('command and mode are those of worker "%s"', process.name);
    END IF;
    PERFORM bgw.check_launch_database(worker, process.database) FROM bgw.worker WHERE worker.id = process.worker_id;
END;
$$;
COMMENT ON FUNCTION bgw.check_instance(bgw.process) IS 'Raises an error if an instance of a worker has what is the worker''s alone, or a database that it cannot run in.  Errors: 22023, 0A000 mode atomic.';

CREATE OR REPLACE FUNCTION bgw.fill_rest(process bgw.process) RETURNS bgw.process
LANGUAGE plpgsql
AS $$
DECLARE
    schedule bgw.schedule;
BEGIN
    process.parent_id := bgw.find_parent(process.owner);
    PERFORM bgw.check_membership(process);
    IF process.settings IS NOT NULL THEN
        process.settings := bgw.check_overrides(process.owner, process.settings);
    END IF;
    IF process.schedule_id IS NOT NULL THEN
        SELECT * INTO schedule FROM bgw.schedule WHERE bgw.schedule.id = process.schedule_id AND bgw.schedule.worker_id = process.worker_id;
        IF schedule.id IS NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'undefined_object', MESSAGE = pg_catalog.format('worker "%s" has no schedule %s', process.name, process.schedule_id);
        END IF;
        process.one_at_a_time := bgw.overlap_limit(schedule.on_overlap) IS NULL;
        process.turn := process.turn - 60 * schedule.priority;
    END IF;
    RETURN process;
END;
$$;
COMMENT ON FUNCTION bgw.fill_rest(bgw.process) IS
'The part of bgw.fill_process that most launches do not need: parent, set, channel, settings and schedule.  Errors: 22023 a value that cannot be,
42704 no such setting, or the worker has no such schedule, 55P02 a setting cannot be changed.';

CREATE OR REPLACE FUNCTION bgw.check_launch_database(worker bgw.worker, database text) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF worker.database IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('worker "%s" cannot be launched in database "%s"', worker.name, check_launch_database.database),
            DETAIL = pg_catalog.format('It was registered for database "%s".', worker.database),
            HINT = 'Register it without a database.';
    ELSIF worker.mode = 'atomic' AND database <> pg_catalog.current_database() THEN
        RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
            MESSAGE = pg_catalog.format('worker "%s": mode "atomic" works in database "%s" only', worker.name, pg_catalog.current_database()),
            DETAIL = 'Command and completion commit in one transaction, so they need one database.';
    END IF;
END;
$$;
COMMENT ON FUNCTION bgw.check_launch_database(bgw.worker, text) IS 'Raises an error if this worker cannot run in that database.  Errors: 22023 it names one itself, 0A000 mode atomic.';
