-- bgw_define_setting, bgw_set_config, bgw_reset_config, bgw_reload_conf: settings (GUCs) of workers.
-- PostgreSQL counterparts: DefineCustomXXXVariable, ALTER SYSTEM SET and RESET, pg_reload_conf.  Values, units and messages: sql/compute/units.sql.
-- A worker sees every setting of its owner.  Next: sql/control/deliver_signals.sql hands the new values to what runs.

CREATE OR REPLACE FUNCTION public.bgw_define_setting(
    name text,
    boot_val text,
    vartype text DEFAULT 'string',
    unit text DEFAULT NULL,
    min_val numeric DEFAULT NULL,
    max_val numeric DEFAULT NULL,
    enumvals text[] DEFAULT NULL,
    context text DEFAULT 'sighup',
    short_desc text DEFAULT ''
) RETURNS void
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    checked text;
    -- GUC names are compared without case: the first spelling stays.
    known_name text := coalesce((SELECT setting.name FROM bgw.setting WHERE setting.owner = bgw.current_owner()
                                 AND pg_catalog.lower(setting.name) = pg_catalog.lower(bgw_define_setting.name)), bgw_define_setting.name);
BEGIN
    IF bgw_define_setting.name !~ '^[A-Za-z_][A-Za-z0-9_$]*([.][A-Za-z_][A-Za-z0-9_$]*)+$' OR pg_catalog.octet_length(bgw_define_setting.name) > 127 THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('invalid configuration parameter name "%s"', bgw_define_setting.name),
            DETAIL = 'Custom parameter names must be two or more simple identifiers separated by dots.';
    ELSIF bgw_define_setting.name ~* '^bgw[.]' THEN
        RAISE EXCEPTION USING ERRCODE = 'reserved_name',
            MESSAGE = pg_catalog.format('invalid configuration parameter name "%s"', bgw_define_setting.name),
            DETAIL = '"bgw" is a reserved prefix.';
    END IF;
    checked := bgw.parse_setting(name := bgw_define_setting.name, vartype := bgw_define_setting.vartype, unit := bgw_define_setting.unit,
                                 min_val := bgw_define_setting.min_val::text, max_val := bgw_define_setting.max_val::text,
                                 enumvals := bgw_define_setting.enumvals, value := bgw_define_setting.boot_val);
    -- An unchanged definition locks nothing: a transaction that sets this setting may be open for long.
    IF EXISTS (SELECT FROM bgw.setting WHERE setting.owner = bgw.current_owner() AND setting.name = known_name
               AND (setting.vartype, setting.unit, setting.min_val, setting.max_val, setting.enumvals, setting.boot_val, setting.context, setting.short_desc)
                   IS NOT DISTINCT FROM
                   (bgw_define_setting.vartype, bgw_define_setting.unit, bgw_define_setting.min_val, bgw_define_setting.max_val,
                    bgw_define_setting.enumvals, checked, bgw_define_setting.context, bgw_define_setting.short_desc)) THEN
        RETURN;
    END IF;
    INSERT INTO bgw.setting AS setting (name, vartype, unit, min_val, max_val, enumvals, boot_val, context, short_desc)
    VALUES (known_name, bgw_define_setting.vartype, bgw_define_setting.unit, bgw_define_setting.min_val, bgw_define_setting.max_val,
            bgw_define_setting.enumvals, checked, bgw_define_setting.context, bgw_define_setting.short_desc)
    ON CONFLICT ON CONSTRAINT setting_pkey DO UPDATE SET
        vartype = EXCLUDED.vartype, unit = EXCLUDED.unit, min_val = EXCLUDED.min_val, max_val = EXCLUDED.max_val, enumvals = EXCLUDED.enumvals,
        boot_val = EXCLUDED.boot_val, context = EXCLUDED.context, short_desc = EXCLUDED.short_desc;
    PERFORM bgw.drop_invalid_value(known_name);
    PERFORM bgw.reload_owner(bgw.current_owner());
END;
$$;
COMMENT ON FUNCTION public.bgw_define_setting(text, text, text, text, numeric, numeric, text[], text, text) IS
'Defines a setting of your workers, or changes the definition of that name; a value that was set is kept while it is valid.
  name       two or more identifiers joined by dots, the worker''s name first by convention: kill_idle.max_idle_time
  boot_val   default value, as bgw_set_config takes it
  vartype    bool, integer, real, string (default), enum.   enumvals  the values of an enum
  unit       us, ms, s, min, h, d;  B, kB, MB, GB, TB.      min_val, max_val  range, in that unit
  context    sighup (default): workers take a change over at once;  postmaster: when the first node joins;  internal: cannot be set
Errors: 22023 a value that cannot be, 42939 the reserved prefix "bgw".
Example: SELECT bgw_define_setting(''rollup.keep'', boot_val => ''30d'', vartype => ''integer'', unit => ''d'', min_val => 1, max_val => 3650);';

CREATE OR REPLACE FUNCTION public.bgw_set_config(name text, value text) RETURNS text
LANGUAGE plpgsql
AS $$
DECLARE
    definition bgw.setting := bgw.find_setting(name);
    checked text;
BEGIN
    IF definition.context = 'internal' THEN
        RAISE EXCEPTION USING ERRCODE = 'cant_change_runtime_param', MESSAGE = pg_catalog.format('parameter "%s" cannot be changed', definition.name);
    END IF;
    checked := bgw.parse_setting(name := definition.name, vartype := definition.vartype, unit := definition.unit,
                                 min_val := definition.min_val::text, max_val := definition.max_val::text,
                                 enumvals := definition.enumvals, value := bgw_set_config.value);
    PERFORM bgw.store_setting(definition, checked);
    RETURN bgw.show_setting(definition.vartype, definition.unit, checked);
END;
$$;
COMMENT ON FUNCTION public.bgw_set_config(text, text) IS
'Sets a setting when the transaction commits; running workers take it over without a restart (context postmaster: when the first node joins).
Returns the value as SHOW would print it.  Errors: 42704 no such setting, 22023 the value is not valid, 55P02 it cannot be changed.
Example: SELECT bgw_set_config(''kill_idle.max_idle_time'', ''10s'');';

CREATE OR REPLACE FUNCTION public.bgw_reset_config(name text) RETURNS text
LANGUAGE plpgsql
AS $$
DECLARE
    definition bgw.setting := bgw.find_setting(name);
BEGIN
    PERFORM bgw.store_setting(definition, NULL);
    RETURN bgw.show_setting(definition.vartype, definition.unit, definition.boot_val);
END;
$$;
COMMENT ON FUNCTION public.bgw_reset_config(text) IS
'Sets a setting back to its boot value.  Returns it as SHOW would print it.  Errors: 42704 no such setting.
Example: SELECT bgw_reset_config(''kill_idle.max_idle_time'');';

CREATE OR REPLACE FUNCTION public.bgw_reload_conf() RETURNS boolean
LANGUAGE sql
AS $$ SELECT bgw.reload_owner(bgw.current_owner()); SELECT true $$;
COMMENT ON FUNCTION public.bgw_reload_conf() IS 'Sends SIGHUP to every process of yours: each takes its settings over again.  Returns true.  Example: SELECT bgw_reload_conf();';

CREATE OR REPLACE FUNCTION bgw.find_setting(name text) RETURNS bgw.setting
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    found_setting bgw.setting;
    number_found bigint;
BEGIN
    -- GUC names are compared without case; the caller's own come first.
    SELECT * INTO found_setting FROM bgw.setting
    WHERE pg_catalog.lower(setting.name) = pg_catalog.lower(find_setting.name)
    ORDER BY setting.owner = bgw.current_owner() DESC, setting.owner LIMIT 1;
    IF found_setting.name IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_object',
            MESSAGE = pg_catalog.format('unrecognized configuration parameter "%s"', find_setting.name),
            HINT = 'Define it with bgw_define_setting.  SELECT name FROM bgw_settings lists the settings you can see.';
    END IF;
    SELECT count(*) INTO number_found FROM bgw.setting WHERE pg_catalog.lower(setting.name) = pg_catalog.lower(find_setting.name);
    IF number_found > 1 AND found_setting.owner <> bgw.current_owner() THEN
        RAISE EXCEPTION USING ERRCODE = 'WK101',
            MESSAGE = pg_catalog.format('configuration parameter name "%s" is ambiguous', find_setting.name),
            HINT = 'Become the owner with SET ROLE first.';
    END IF;
    RETURN found_setting;
END;
$$;
COMMENT ON FUNCTION bgw.find_setting(text) IS 'The setting of that name: the caller''s own, else the only one among those it may operate.  Errors: 42704 none, WK101 several.';

CREATE OR REPLACE FUNCTION bgw.store_setting(definition bgw.setting, checked text) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF definition.context = 'postmaster' THEN
        UPDATE bgw.setting SET pending = nullif(coalesce(checked, definition.boot_val), coalesce(definition.setting, definition.boot_val)), changed_at = bgw.now()
        WHERE setting.owner = definition.owner AND setting.name = definition.name;
    ELSE
        UPDATE bgw.setting SET setting = checked, changed_at = bgw.now()
        WHERE setting.owner = definition.owner AND setting.name = definition.name;
        PERFORM bgw.reload_owner(definition.owner);
    END IF;
END;
$$;
COMMENT ON FUNCTION bgw.store_setting(bgw.setting, text) IS 'Writes a checked value, NULL for the boot value, and has the running workers of its owner reload.';

CREATE OR REPLACE FUNCTION bgw.drop_invalid_value(setting_name text) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    definition bgw.setting;
BEGIN
    SELECT * INTO definition FROM bgw.setting WHERE setting.owner = bgw.current_owner() AND setting.name = setting_name;
    PERFORM bgw.parse_setting(name := definition.name, vartype := definition.vartype, unit := definition.unit,
                              min_val := definition.min_val::text, max_val := definition.max_val::text,
                              enumvals := definition.enumvals, value := given.value)
    FROM (VALUES (definition.setting), (definition.pending)) AS given (value) WHERE given.value IS NOT NULL;
EXCEPTION WHEN invalid_parameter_value THEN
    RAISE WARNING '%; it was reset to its boot value', sqlerrm;
    UPDATE bgw.setting SET setting = NULL, pending = NULL WHERE setting.owner = definition.owner AND setting.name = definition.name;
END;
$$;
COMMENT ON FUNCTION bgw.drop_invalid_value(text) IS 'After a definition has changed: resets a value that is no longer valid, with a warning.';

CREATE OR REPLACE FUNCTION bgw.reload_owner(owner oid) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO bgw.signal (process_id, signal)
    SELECT process.id, 'SIGHUP' FROM bgw.process WHERE process.owner = reload_owner.owner AND process.run_id IS NOT NULL;
    PERFORM bgw.ring();
END;
$$;
COMMENT ON FUNCTION bgw.reload_owner(oid) IS 'Sends SIGHUP to every running process of one owner.';
