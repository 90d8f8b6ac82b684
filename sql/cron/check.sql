-- What pg_cron refuses, in its words and with its SQLSTATEs (most are XX000: it raises them with elog).
-- Where this refuses more than pg_cron does, docs/pg_cron.md says so.

CREATE OR REPLACE FUNCTION cron.check_schedule(schedule text) RETURNS void
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    reason text;
BEGIN
    BEGIN
        PERFORM public.bgw_schedule_validate(schedule);
        IF pg_catalog.cardinality(bgw.parse_schedule(schedule)) <> 1 OR schedule ~* E'^\\s*0*([1-9]|[1-5][0-9])\\s*second(s\\s*)?$' THEN
            RETURN;
        END IF;
        reason := 'pg_cron has no other intervals; bgw_schedule has.';
    EXCEPTION WHEN invalid_parameter_value THEN
        reason := SQLERRM || '.';
    END;
    RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
        MESSAGE = pg_catalog.format('invalid schedule: %s', schedule),
        DETAIL = reason,
        HINT = 'Use cron format (e.g. 5 4 * * *), or interval format ''[1-59] seconds''';
END;
$$;
COMMENT ON FUNCTION cron.check_schedule(text) IS
'Raises pg_cron''s error unless the schedule is one for pg_cron: five fields, @daily and its like, or 1 to 59 seconds.  DETAIL: the reason, as bgw_schedule would give it.
Errors: 22023.';

CREATE OR REPLACE FUNCTION cron.is_superuser() RETURNS boolean
LANGUAGE sql STABLE
AS $$ SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user $$;
COMMENT ON FUNCTION cron.is_superuser() IS 'Whether the current role, not that of the login, is a superuser.';

CREATE OR REPLACE FUNCTION cron.find_user(username text) RETURNS oid
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    role oid := (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = username);
BEGIN
    IF role IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'internal_error', MESSAGE = pg_catalog.format('role "%s" does not exist', username);
    END IF;
    RETURN role;
END;
$$;
COMMENT ON FUNCTION cron.find_user(text) IS 'The role of that name, in which upper and lower case differ.  Errors: XX000 there is none.';

CREATE OR REPLACE FUNCTION cron.check_access(role oid, database text) RETURNS void
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    username text := pg_catalog.pg_get_userbyid(role);
    can_connect boolean := (SELECT datallowconn FROM pg_catalog.pg_database WHERE datname = database);
BEGIN
    IF NOT (SELECT rolcanlogin FROM pg_catalog.pg_roles WHERE oid = role) THEN
        RAISE EXCEPTION USING ERRCODE = 'internal_error',
            MESSAGE = pg_catalog.format('role "%s" can not log in', username),
            DETAIL = 'Jobs may only be run by roles that have the LOGIN attribute.';
    ELSIF can_connect IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_catalog_name', MESSAGE = pg_catalog.format('database "%s" does not exist', database);
    ELSIF NOT can_connect THEN
        RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = pg_catalog.format('database "%s" is not currently accepting connections', database);
    ELSIF NOT pg_catalog.has_database_privilege(role, database, 'CONNECT') THEN
        RAISE EXCEPTION USING ERRCODE = 'internal_error',
            MESSAGE = pg_catalog.format('User %s does not have CONNECT privilege on %s', username, database);
    END IF;
END;
$$;
COMMENT ON FUNCTION cron.check_access(oid, text) IS
'Raises an error unless the role may log in to the database.  Errors: XX000 no LOGIN or CONNECT, 3D000 no such database, 55000 it accepts no connections.';
