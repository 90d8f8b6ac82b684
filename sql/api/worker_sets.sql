-- bgw_get_handle, bgw_signal_set, bgw_terminate_set: processes by set and key, and who launched whom.
-- PostgreSQL counterpart: logicalrep_worker_find, logicalrep_worker_stop of the logical replication launcher.
-- Next: sql/api/signal.sql.  Children of a process that is finished: sql/control/settle_exits.sql.

CREATE OR REPLACE FUNCTION public.bgw_get_handle(set text, key text) RETURNS bigint
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    handles bigint[] := ARRAY(SELECT handle FROM bgw.find_members(bgw_get_handle.set, bgw_get_handle.key) AS handle);
BEGIN
    IF pg_catalog.cardinality(handles) > 1 THEN
        RAISE EXCEPTION USING ERRCODE = 'WK101',
            MESSAGE = pg_catalog.format('key "%s" of worker set "%s" is ambiguous', bgw_get_handle.key, bgw_get_handle.set),
            DETAIL = pg_catalog.format('Handles: %s.', pg_catalog.array_to_string(handles, ', ')),
            HINT = 'Become the owner with SET ROLE first, or use the handle.';
    END IF;
    RETURN handles[1];
END;
$$;
COMMENT ON FUNCTION public.bgw_get_handle(text, text) IS
'Handle of the process of that set and key: your own, else the only one among those you may operate; NULL if there is none.
Errors: WK101 several.
Example: CALL bgw_wait_for_shutdown(bgw_get_handle(''apply'', ''sub1''), ''10 s'');  -- stopped, also if there is none';

CREATE OR REPLACE FUNCTION public.bgw_signal_set(set text, signal text, key text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql
AS $$
DECLARE
    handles bigint[] := ARRAY(SELECT handle FROM bgw.find_members(bgw_signal_set.set, bgw_signal_set.key) AS handle);
BEGIN
    PERFORM bgw.check_signal(signal);
    IF pg_catalog.cardinality(handles) = 0 THEN
        RAISE WARNING USING ERRCODE = '01000', MESSAGE = CASE WHEN bgw_signal_set.key IS NULL
            THEN pg_catalog.format('worker set "%s" has no process', bgw_signal_set.set)
            ELSE pg_catalog.format('worker set "%s" has no key "%s"', bgw_signal_set.set, bgw_signal_set.key) END;
    END IF;
    RETURN (SELECT coalesce(pg_catalog.bool_or(public.bgw_signal(handle, bgw_signal_set.signal)), false) FROM pg_catalog.unnest(handles) AS handle);
END;
$$;
COMMENT ON FUNCTION public.bgw_signal_set(text, text, text) IS
'bgw_signal for every process of a set of yours, or for the one of that key; without any of your own, for those that you may operate.
Returns true if it was registered; false, with a warning, if there is no such process.  Errors: 22023 another signal.
Example: SELECT bgw_signal_set(''apply'', ''SIGHUP'', key => ''sub1'');';

CREATE OR REPLACE FUNCTION public.bgw_terminate_set(set text, key text DEFAULT NULL) RETURNS boolean
LANGUAGE sql
AS $$ SELECT public.bgw_signal_set(set, 'SIGTERM', key) $$;
COMMENT ON FUNCTION public.bgw_terminate_set(text, text) IS
'bgw_terminate for every process of a set, or for the one of that key.  Returns true if it was registered; false, with a warning, if there is no such process.
Example: SELECT bgw_terminate_set(''apply''), bgw_terminate_set(''copy'', key => ''orders'');';

CREATE OR REPLACE FUNCTION bgw.find_members(set text, key text) RETURNS SETOF bigint
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN QUERY SELECT process.id FROM bgw.process
    WHERE process.worker_set = find_members.set AND process.key = coalesce(find_members.key, process.key) AND process.owner = bgw.current_owner() ORDER BY process.id;
    IF NOT FOUND THEN
        RETURN QUERY SELECT process.id FROM bgw.process
        WHERE process.worker_set = find_members.set AND process.key = coalesce(find_members.key, process.key) ORDER BY process.id;
    END IF;
END;
$$;
COMMENT ON FUNCTION bgw.find_members(text, text) IS
'Handles of the caller''s processes of that set, and of that key unless it is NULL; if there are none, of those that the caller may operate.  In lock order.';

CREATE OR REPLACE FUNCTION bgw.refuse_duplicate(owner oid, set text, key text) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    other bgw.process;
BEGIN
    SELECT * INTO other FROM bgw.process
    WHERE process.worker_set = refuse_duplicate.set AND process.key = refuse_duplicate.key AND process.owner = refuse_duplicate.owner;
    RAISE EXCEPTION USING ERRCODE = 'duplicate_object',
        MESSAGE = pg_catalog.format('worker set "%s" already has a process with key "%s"', refuse_duplicate.set, refuse_duplicate.key),
        DETAIL = coalesce(pg_catalog.format('It is handle %s, worker "%s".', other.id::text, other.name), 'It has ended by now.'),
        HINT = pg_catalog.format('bgw_get_handle(%L, %L) finds it, bgw_terminate_set(%1$L, %2$L) ends it.', refuse_duplicate.set, refuse_duplicate.key);
END;
$$;
COMMENT ON FUNCTION bgw.refuse_duplicate(oid, text, text) IS 'Raises the error of a launch whose set has that key.  Errors: 42710 always.';

CREATE OR REPLACE FUNCTION bgw.find_parent(owner oid) RETURNS bigint
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    handle text := pg_catalog.current_setting('bgw.handle', true);
BEGIN
    -- Anybody can SET it: it counts where it names a process of the same owner, whom it harms alone.
    IF handle ~ '^[0-9]{1,18}$' THEN
        RETURN (SELECT process.id FROM bgw.process WHERE process.id = handle::bigint AND process.owner = find_parent.owner);
    END IF;
    RETURN NULL;
END;
$$;
COMMENT ON FUNCTION bgw.find_parent(oid) IS 'The process whose session this is, if it is one of that owner.';

CREATE OR REPLACE FUNCTION bgw.check_membership(process bgw.process) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF (process.worker_set IS NULL) <> (process.key IS NULL) THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('worker "%s" needs both a worker set and a key', process.name),
            HINT = 'Give set => ''...'' and key => ''...'', or neither.';
    END IF;
    PERFORM bgw.check_identifier('worker set', process.worker_set);
    PERFORM bgw.check_identifier('key', process.key);
    PERFORM bgw.check_identifier('channel', process.notify);
    IF (process.when_parent_ends IN ('keep', 'terminate')) IS NOT TRUE THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('worker "%s": unrecognized when_parent_ends "%s"', process.name, process.when_parent_ends),
            HINT = 'Available values: keep, terminate.';
    END IF;
END;
$$;
COMMENT ON FUNCTION bgw.check_membership(bgw.process) IS 'Raises an error if set, key, notify or when_parent_ends of a launch cannot be.  Errors: 22023.';

CREATE OR REPLACE FUNCTION bgw.check_identifier(kind text, name text) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF pg_catalog.octet_length(name) NOT BETWEEN 1 AND 63 OR name ~ '[[:cntrl:]]' THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('invalid %s: %s', kind, pg_catalog.to_json(name)),
            DETAIL = 'It has 1 to 63 bytes and no control characters.';
    END IF;
END;
$$;
COMMENT ON FUNCTION bgw.check_identifier(text, text) IS 'Raises an error if a name that is not NULL cannot be.  kind: what it is the name of.  Errors: 22023.';
