-- Checks of settings: names and reserved prefixes, definitions, values with their check hooks, values for one worker.
-- Called by sql/api/settings.sql, and by the triggers setting_is_checked, settings_are_checked and process_is_filled, so that plain INSERT and UPDATE obey as well.
-- PostgreSQL counterpart: guc.c, assignable_custom_variable_name and call_string_check_hook.
-- A check hook is user text: it runs for whoever sets a value, never on the session of a node (HARDENING A2).

CREATE OR REPLACE FUNCTION bgw.check_setting_name(name text) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    prefix text := pg_catalog.lower(pg_catalog.split_part(name, '.', 1) COLLATE "C");
BEGIN
    IF name IS NULL OR name !~ '^[A-Za-z_][A-Za-z0-9_$]*([.][A-Za-z_][A-Za-z0-9_$]*)+$' THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_name',
            MESSAGE = pg_catalog.format('invalid configuration parameter name "%s"', name),
            DETAIL = 'Custom parameter names must be two or more simple identifiers separated by dots.';
    ELSIF pg_catalog.octet_length(name) > 127 THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_name',
            MESSAGE = pg_catalog.format('invalid configuration parameter name "%s"', name),
            DETAIL = 'A name has at most 127 bytes.';
    ELSIF bgw.is_reserved(prefix) THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_name',
            MESSAGE = pg_catalog.format('invalid configuration parameter name "%s"', name),
            DETAIL = pg_catalog.format('"%s" is a reserved prefix.', pg_catalog.split_part(name, '.', 1));
    END IF;
END;
$$;
COMMENT ON FUNCTION bgw.check_setting_name(text) IS
'Raises an error if the caller cannot define a setting of that name.  Errors: 42602 not a name, or below a reserved prefix.';

CREATE OR REPLACE FUNCTION bgw.is_reserved(prefix text) RETURNS boolean
LANGUAGE sql STABLE
AS $$
    SELECT prefix = 'bgw' OR (SELECT count(*) > 0 AND NOT bool_or(reserved.owner = bgw.current_owner())
                              FROM bgw.reserved_prefix AS reserved WHERE reserved.prefix = is_reserved.prefix)
$$;
COMMENT ON FUNCTION bgw.is_reserved(text) IS 'Whether a prefix, in lower case, is reserved, and not for the caller.';

CREATE OR REPLACE FUNCTION bgw.reject_unknown_setting(name text) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF bgw.is_reserved(pg_catalog.lower(pg_catalog.split_part(name, '.', 1) COLLATE "C")) THEN
        PERFORM bgw.check_setting_name(name);
    END IF;
    RAISE EXCEPTION USING ERRCODE = 'undefined_object',
        MESSAGE = pg_catalog.format('unrecognized configuration parameter "%s"', name),
        HINT = 'Define it with bgw_define_setting.  SELECT name FROM bgw_settings lists the settings you can see.';
END;
$$;
COMMENT ON FUNCTION bgw.reject_unknown_setting(text) IS 'Raises the error for a setting that is not defined.  Errors: 42704, 42602 its prefix is reserved.';

CREATE OR REPLACE FUNCTION bgw.check_definition(definition bgw.setting) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    message text := 'invalid definition of parameter "%s"';
BEGIN
    IF definition.vartype NOT IN ('integer', 'real') AND coalesce(definition.unit, definition.min_val::text, definition.max_val::text) IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = pg_catalog.format(message, definition.name),
            DETAIL = pg_catalog.format('Type %s has no unit and no range.', definition.vartype);
    ELSIF 'NaN' IN (definition.min_val, definition.max_val) THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = pg_catalog.format(message, definition.name),
            DETAIL = 'A limit must not be NaN.';
    ELSIF (definition.vartype = 'enum') <> (coalesce(pg_catalog.cardinality(definition.enumvals), 0) > 0) THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = pg_catalog.format(message, definition.name),
            DETAIL = 'Type enum, and no other, has a list of enumvals.';
    ELSIF definition.unit NOT IN ('us', 'ms', 's', 'min', 'h', 'd', 'B', 'kB', 'MB', 'GB', 'TB') THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = pg_catalog.format(message, definition.name),
            DETAIL = pg_catalog.format('Unrecognized unit "%s".', definition.unit),
            HINT = 'Available units: us, ms, s, min, h, d, B, kB, MB, GB, TB.';
    ELSIF definition.context IS NULL OR definition.context NOT IN ('internal', 'postmaster', 'sighup') THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = pg_catalog.format(message, definition.name),
            DETAIL = pg_catalog.format('Unrecognized context "%s".', definition.context),
            HINT = 'Available contexts: internal, postmaster, sighup.';
    ELSIF definition.vartype = 'integer' AND NOT (coalesce(definition.min_val, 0) BETWEEN -2147483648 AND 2147483647 AND coalesce(definition.min_val % 1, 0) = 0
          AND coalesce(definition.max_val, 0) BETWEEN -2147483648 AND 2147483647 AND coalesce(definition.max_val % 1, 0) = 0) THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = pg_catalog.format(message, definition.name),
            DETAIL = pg_catalog.format('The limits %s and %s are not integers of 4 bytes.', definition.min_val, definition.max_val);
    END IF;
END;
$$;
COMMENT ON FUNCTION bgw.check_definition(bgw.setting) IS 'Raises an error if a definition cannot be.  The boot value is the business of bgw.check_value.  Errors: 22023.';

CREATE OR REPLACE FUNCTION bgw.check_setting(definition bgw.setting) RETURNS bgw.setting
LANGUAGE plpgsql
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM bgw.setting WHERE setting.owner = definition.owner AND setting.name = definition.name) THEN
        PERFORM bgw.check_setting_name(definition.name);
    END IF;
    PERFORM bgw.check_definition(definition);
    -- Without the check hook: nodes write here, too.
    definition.boot_val := bgw.parse_value(definition, definition.boot_val);
    IF definition.setting IS NOT NULL THEN
        definition.setting := bgw.parse_value(definition, definition.setting);
    END IF;
    IF definition.pending IS NOT NULL THEN
        definition.pending := bgw.parse_value(definition, definition.pending);
    END IF;
    definition.shown := bgw.show_setting(definition.vartype, definition.unit, coalesce(definition.setting, definition.boot_val));
    RETURN definition;
END;
$$;
COMMENT ON FUNCTION bgw.check_setting(bgw.setting) IS
'A row of bgw.setting that is fit to be read by nodes: one that is not would stop them.  Called by the trigger setting_is_checked.
Errors: 22023 a definition or value that cannot be, 22004 no boot value, 42602 a name that cannot be or a reserved prefix.';

CREATE OR REPLACE FUNCTION bgw.check_changeable(definition bgw.setting) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF definition.context = 'internal' THEN
        RAISE EXCEPTION USING ERRCODE = 'cant_change_runtime_param', MESSAGE = pg_catalog.format('parameter "%s" cannot be changed', definition.name);
    END IF;
END;
$$;
COMMENT ON FUNCTION bgw.check_changeable(bgw.setting) IS 'Raises an error if a setting has context internal.  Errors: 55P02.';

CREATE OR REPLACE FUNCTION bgw.check_value(definition bgw.setting, value text) RETURNS text
LANGUAGE plpgsql
AS $$
DECLARE
    checked text := bgw.parse_value(definition, value);
BEGIN
    IF definition.check_hook IS NULL THEN
        RETURN checked;
    END IF;
    RETURN bgw.parse_value(definition, bgw.run_check_hook(definition, checked));
END;
$$;
COMMENT ON FUNCTION bgw.check_value(bgw.setting, text) IS
'The value of a setting in the base unit, as its check hook wants it.  Errors: 22023 it is not valid, and those of bgw.run_check_hook.';

-- The function is its owner's.  Whoever else set a value would lend it his rights: a superuser, his own; and one that
-- became the owner by SET ROLE could be turned back by a RESET ROLE within the function.
CREATE OR REPLACE FUNCTION bgw.run_check_hook(definition bgw.setting, checked text) RETURNS text
LANGUAGE plpgsql
AS $$
DECLARE
    answer text;
BEGIN
    IF definition.owner <> bgw.current_owner()
       OR EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = session_user AND rolsuper)
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE oid = definition.owner AND rolsuper) THEN
        RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
            MESSAGE = pg_catalog.format('permission denied to set parameter "%s"', definition.name),
            DETAIL = pg_catalog.format('Its check hook %s would run with the rights of this session, and belongs to role "%s".',
                                       definition.check_hook, pg_catalog.pg_get_userbyid(definition.owner)),
            HINT = 'Set it in a session that the owner has opened.  bgw_reset_config needs no check hook.';
    END IF;
    EXECUTE pg_catalog.format('SELECT %s($1)', bgw.find_check_hook(definition.check_hook)) INTO answer USING checked;
    IF answer IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format(CASE WHEN definition.vartype IN ('string', 'enum') THEN 'invalid value for parameter "%s": "%s"'
                                             ELSE 'invalid value for parameter "%s": %s' END,
                                        definition.name, CASE WHEN definition.vartype = 'bool' THEN checked::boolean::integer::text ELSE checked END);
    END IF;
    RETURN answer;
END;
$$;
COMMENT ON FUNCTION bgw.run_check_hook(bgw.setting, text) IS
'What the check hook of a setting makes of a value.  It runs as the caller, who has to be the owner, in a session that no superuser opened unless
the owner is one.  Errors: 42501 somebody else, 42883 the hook is gone, 22023 it refuses the value, and what it raises.';

CREATE OR REPLACE FUNCTION bgw.find_check_hook(check_hook text) RETURNS text
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    found_name text;
    returns_text boolean;
BEGIN
    IF check_hook IS NULL THEN
        RETURN NULL;
    END IF;
    SELECT pg_catalog.format('%I.%I', pg_namespace.nspname, pg_proc.proname),
           pg_proc.prorettype = 'pg_catalog.text'::pg_catalog.regtype AND NOT pg_proc.proretset AND pg_proc.prokind = 'f'
    INTO found_name, returns_text
    FROM pg_catalog.pg_proc JOIN pg_catalog.pg_namespace ON pg_namespace.oid = pg_proc.pronamespace
    -- With arguments it would be a syntax error, in what the caller has not written.
    WHERE pg_proc.oid = pg_catalog.to_regprocedure(CASE WHEN check_hook !~ '[()]' THEN check_hook || '(pg_catalog.text)' END);
    IF found_name IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_function',
            MESSAGE = pg_catalog.format('function %s(text) does not exist', check_hook),
            HINT = 'A check hook is given by its name, without parentheses: a function (text) RETURNS text.';
    ELSIF NOT returns_text THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_object_definition', MESSAGE = pg_catalog.format('function %s must return type %s', found_name, 'text');
    END IF;
    RETURN found_name;
END;
$$;
COMMENT ON FUNCTION bgw.find_check_hook(text) IS
'The qualified and quoted name of a check hook.  Errors: 42883 no such function with one argument of type text, 42P17 it does not return one text.';

CREATE OR REPLACE FUNCTION bgw.check_overrides(owner oid, settings jsonb) RETURNS jsonb
LANGUAGE plpgsql
AS $$
DECLARE
    given record;
    definition bgw.setting;
    checked jsonb := '{}';
BEGIN
    IF pg_catalog.jsonb_typeof(settings) <> 'object' THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'settings must be a JSON object',
            HINT = 'For example {"kill_idle.max_idle_time": "10s"}.';
    END IF;
    FOR given IN SELECT item.key AS name, settings ->> item.key AS value, pg_catalog.jsonb_typeof(item.value) AS kind
                 FROM pg_catalog.jsonb_each(settings) AS item LOOP
        SELECT * INTO definition FROM bgw.setting
        WHERE setting.owner = check_overrides.owner AND pg_catalog.lower(setting.name) = pg_catalog.lower(given.name);
        IF definition.name IS NULL THEN
            PERFORM bgw.reject_unknown_setting(given.name);
        END IF;
        PERFORM bgw.check_changeable(definition);
        IF given.kind IN ('object', 'array') THEN
            PERFORM bgw.reject_number(definition.name, given.value, 'A value is a string, a number or a Boolean.');
        END IF;
        -- As SHOW prints it, so that it means the same when the definition gets another unit.
        checked := checked || pg_catalog.jsonb_build_object(definition.name,
            bgw.show_setting(definition.vartype, definition.unit, bgw.check_value(definition, given.value)));
    END LOOP;
    RETURN checked;
END;
$$;
COMMENT ON FUNCTION bgw.check_overrides(oid, jsonb) IS
'Settings that one worker or process of this owner has for itself, each checked as bgw_set_config checks it, by their names as they were defined.
Errors: 22023 not an object or not a valid value, 22004 a null, and those of bgw_set_config.';
