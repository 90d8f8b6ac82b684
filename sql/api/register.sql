-- bgw_register, bgw_unregister: define a worker by name, idempotently; what a SQL migration calls.
-- PostgreSQL counterpart: RegisterBackgroundWorker.
-- Next: sql/compute/check_worker.sql (by trigger), then sql/api/launch.sql.

CREATE OR REPLACE FUNCTION public.bgw_register(
    name text,
    command text DEFAULT NULL,
    naptime text DEFAULT NULL,
    restart_time interval DEFAULT NULL,
    autostart boolean DEFAULT false,
    library_name text DEFAULT NULL,
    function_name text DEFAULT NULL,
    main_arg jsonb DEFAULT NULL,
    database text DEFAULT NULL,
    mode text DEFAULT 'session',
    timeout interval DEFAULT NULL,
    max_instances integer DEFAULT NULL,
    start_time text DEFAULT 'recovery_finished',
    flags text[] DEFAULT '{backend_database_connection}',
    type text DEFAULT NULL,
    enabled boolean DEFAULT true,
    restart_time_max interval DEFAULT NULL,
    failure_limit integer DEFAULT NULL,
    failure_window interval DEFAULT '10 min',
    healthy_time interval DEFAULT '1 min',
    scope text DEFAULT 'one',
    settings jsonb DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    restart_after interval := CASE
        WHEN bgw_register.restart_time < interval '0' THEN NULL
        WHEN bgw_register.restart_time IS NULL AND bgw_register.autostart THEN interval '60 s'
        ELSE bgw_register.restart_time
    END;
    instances integer := coalesce(bgw_register.max_instances, CASE WHEN (bgw_register.naptime IS NOT NULL OR bgw_register.autostart) AND bgw_register.scope = 'one' THEN 1 END);
BEGIN
    INSERT INTO bgw.worker AS worker (name, type, flags, start_time, restart_time, command, library_name, function_name, main_arg,
                                      database, naptime, mode, timeout, max_instances, autostart, enabled,
                                      restart_time_max, failure_limit, failure_window, healthy_time, scope, settings)
    VALUES (bgw_register.name, bgw_register.type, bgw_register.flags, bgw_register.start_time, restart_after, bgw_register.command,
            bgw_register.library_name, bgw_register.function_name, bgw_register.main_arg, bgw_register.database, bgw_register.naptime,
            bgw_register.mode, bgw_register.timeout, instances, bgw_register.autostart, bgw_register.enabled,
            bgw_register.restart_time_max, bgw_register.failure_limit, bgw_register.failure_window, bgw_register.healthy_time, bgw_register.scope,
            bgw_register.settings)
    ON CONFLICT ON CONSTRAINT name_is_unique_per_owner DO UPDATE SET
        type = EXCLUDED.type, flags = EXCLUDED.flags, start_time = EXCLUDED.start_time, restart_time = EXCLUDED.restart_time,
        command = EXCLUDED.command, library_name = EXCLUDED.library_name, function_name = EXCLUDED.function_name,
        main_arg = EXCLUDED.main_arg, database = EXCLUDED.database, naptime = EXCLUDED.naptime, mode = EXCLUDED.mode,
        timeout = EXCLUDED.timeout, max_instances = EXCLUDED.max_instances, autostart = EXCLUDED.autostart, enabled = EXCLUDED.enabled,
        restart_time_max = EXCLUDED.restart_time_max, failure_limit = EXCLUDED.failure_limit, failure_window = EXCLUDED.failure_window,
        healthy_time = EXCLUDED.healthy_time, scope = EXCLUDED.scope,
        settings = EXCLUDED.settings, unregistered = false
    WHERE worker.unregistered OR (worker.type, worker.flags, worker.start_time, worker.restart_time, worker.command, worker.library_name, worker.function_name,
           worker.main_arg, worker.database, worker.naptime, worker.mode, worker.timeout, worker.max_instances, worker.autostart, worker.enabled,
           worker.restart_time_max, worker.failure_limit, worker.failure_window, worker.healthy_time, worker.scope, worker.settings)
          IS DISTINCT FROM
          (EXCLUDED.type, EXCLUDED.flags, EXCLUDED.start_time, EXCLUDED.restart_time, EXCLUDED.command, EXCLUDED.library_name, EXCLUDED.function_name,
           EXCLUDED.main_arg, EXCLUDED.database, EXCLUDED.naptime, EXCLUDED.mode, EXCLUDED.timeout, EXCLUDED.max_instances, EXCLUDED.autostart, EXCLUDED.enabled,
           EXCLUDED.restart_time_max, EXCLUDED.failure_limit, EXCLUDED.failure_window, EXCLUDED.healthy_time, EXCLUDED.scope, EXCLUDED.settings);

    -- What runs already takes a changed nap time, command or setting over, as at a reload.
    IF FOUND THEN
        PERFORM bgw.request(process.id, 'SIGHUP') FROM bgw.process JOIN bgw.worker ON worker.id = process.worker_id
        WHERE worker.name = bgw_register.name AND worker.owner = bgw.current_owner() AND process.run_id IS NOT NULL;
        PERFORM bgw.ring();
    END IF;
END;
$$;
COMMENT ON FUNCTION public.bgw_register(text, text, text, interval, boolean, text, text, jsonb, text, text, interval, integer, text, text[], text, boolean,
    interval, integer, interval, interval, text, jsonb) IS
'Defines a worker, or changes the definition of that name; the same call twice changes nothing.
  name            unique among your workers, 1 to 63 bytes
  command         SQL worker: what it runs;  or library_name and function_name: a function of a TypeScript library
  naptime         SQL worker: an interval (''10 s''), or the name of a setting, to sleep between two runs; NULL: it runs once
  restart_time    how long after a failure it starts again; negative: never.  Default: 60 s with autostart, else never
  autostart       registered at once, and whenever the first node joins, like a worker of shared_preload_libraries
  main_arg        argument; SQL reads it as current_setting(''bgw.main_arg'')
  database        where it runs, or the name of a setting that says so; default: this database
  mode            session: as psql would send it;  atomic: command and completion commit in one transaction
  timeout         for one run of the command, enforced from outside; default: none
  max_instances   default: 1 with naptime or autostart, else any number.  A launch in REPEATABLE READ or SERIALIZABLE counts those that its snapshot shows
  start_time, flags, type   as in the BackgroundWorker struct
  restart_time_max          restart_time doubles with each failure in a row, up to this; default: it stays as it is
  failure_limit             so many failures within failure_window (10 min), and it is not started again; default: any number
  healthy_time              a failure after running for so long (1 min) is the first of a new row
  scope                     one;  every_database: with autostart, one runs in each database that you may connect to
  settings        name -> value, for this worker alone: before bgw_set_config; bgw_launch may give others.  The settings have to be defined before
Errors: 22023 a value that cannot be, 0A000 a flag that is not supported, 42704 no such setting, 55P02 a setting cannot be changed.
Example: SELECT bgw_register(name => ''rollup'', command => ''CALL rollup()'', naptime => ''10 s'', restart_time => ''5 s'', autostart => true);';

CREATE OR REPLACE FUNCTION public.bgw_unregister(worker_name text) RETURNS boolean
LANGUAGE plpgsql
AS $$
DECLARE
    definition bgw.worker := bgw.find_worker(worker_name);
BEGIN
    PERFORM bgw.request(process.id, 'SIGTERM') FROM bgw.process WHERE process.worker_id = definition.id;
    UPDATE bgw.worker SET unregistered = true WHERE worker.id = definition.id;
    RETURN true;
END;
$$;
COMMENT ON FUNCTION public.bgw_unregister(text) IS
'Removes a definition and terminates what runs of it.  Its history stays.  Errors: 42704 no such worker, WK101 several of that name.
Example: SELECT bgw_unregister(''rollup'');';

CREATE OR REPLACE FUNCTION bgw.find_worker(worker_name text) RETURNS bgw.worker
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    found_worker bgw.worker;
    owners text[];
BEGIN
    SELECT * INTO found_worker FROM bgw.worker
    WHERE worker.name = worker_name AND worker.owner = bgw.current_owner() AND NOT worker.unregistered;
    IF found_worker.id IS NOT NULL THEN
        RETURN found_worker;
    END IF;

    SELECT pg_catalog.array_agg(pg_catalog.pg_get_userbyid(worker.owner) ORDER BY worker.id) INTO owners
    FROM bgw.worker WHERE worker.name = worker_name AND NOT worker.unregistered;
    IF owners IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_object',
            MESSAGE = pg_catalog.format('worker "%s" does not exist', worker_name),
            HINT = bgw.suggest_worker(worker_name);
    ELSIF pg_catalog.cardinality(owners) > 1 THEN
        RAISE EXCEPTION USING ERRCODE = 'WK101',
            MESSAGE = pg_catalog.format('worker name "%s" is ambiguous', worker_name),
            DETAIL = pg_catalog.format('Owners: %s.', pg_catalog.array_to_string(owners, ', ')),
            HINT = 'Become the owner with SET ROLE first, or use the handle.';
    END IF;
    SELECT * INTO found_worker FROM bgw.worker WHERE worker.name = worker_name AND NOT worker.unregistered;
    RETURN found_worker;
END;
$$;
COMMENT ON FUNCTION bgw.find_worker(text) IS
'The worker of that name: the caller''s own, else the only one among those it may operate.  Errors: 42704 none, WK101 several.';

CREATE OR REPLACE FUNCTION bgw.suggest_worker(worker_name text) RETURNS text
LANGUAGE sql STABLE
AS $$
    SELECT coalesce(
        (SELECT pg_catalog.format('Perhaps you meant worker "%s".', worker.name)
         FROM bgw.worker
         WHERE NOT worker.unregistered AND (
            pg_catalog.translate(pg_catalog.lower(worker.name), '_- ', '') = pg_catalog.translate(pg_catalog.lower(worker_name), '_- ', '')
            OR pg_catalog.strpos(worker.name, worker_name) > 0 OR pg_catalog.strpos(worker_name, worker.name) > 0)
         ORDER BY pg_catalog.abs(pg_catalog.length(worker.name) - pg_catalog.length(worker_name)), worker.name LIMIT 1),
        'Define it with bgw_register.  SELECT name FROM bgw_stat_activity lists the workers you can see.')
$$;
COMMENT ON FUNCTION bgw.suggest_worker(text) IS 'The hint of an error that did not find a worker.';
