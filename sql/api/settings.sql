-- bgw_define_setting, bgw_set_config, bgw_reset_config, bgw_reload_conf: settings (GUCs) of workers.
-- PostgreSQL counterparts: DefineCustomXXXVariable, MarkGUCPrefixReserved, ALTER SYSTEM SET, RESET and RESET ALL, pg_reload_conf.
-- Checks: sql/api/check_setting.sql.  Values, units and messages: sql/compute/units.sql.
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
    short_desc text DEFAULT '',
    extra_desc text DEFAULT NULL,
    check_hook text DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    wanted bgw.setting;
BEGIN
    wanted.owner := bgw.current_owner();
    -- GUC names are compared without case: the first spelling stays.
    SELECT setting.name INTO wanted.name FROM bgw.setting
    WHERE setting.owner = wanted.owner AND pg_catalog.lower(setting.name) = pg_catalog.lower(bgw_define_setting.name);
    IF wanted.name IS NULL THEN
        PERFORM bgw.check_setting_name(bgw_define_setting.name);
        wanted.name := bgw_define_setting.name;
    END IF;
    wanted.vartype := bgw_define_setting.vartype;
    wanted.unit := bgw_define_setting.unit;
    wanted.min_val := pg_catalog.trim_scale(bgw_define_setting.min_val);
    wanted.max_val := pg_catalog.trim_scale(bgw_define_setting.max_val);
    wanted.enumvals := bgw_define_setting.enumvals;
    wanted.context := bgw_define_setting.context;
    wanted.short_desc := bgw_define_setting.short_desc;
    wanted.extra_desc := bgw_define_setting.extra_desc;
    wanted.check_hook := bgw.find_check_hook(bgw_define_setting.check_hook);
    PERFORM bgw.check_definition(wanted);
    wanted.boot_val := bgw.check_value(wanted, bgw_define_setting.boot_val);
    -- An unchanged definition locks nothing: a transaction that sets this setting may be open for long.
    IF EXISTS (SELECT FROM bgw.setting WHERE setting.owner = wanted.owner AND setting.name = wanted.name
               AND (setting.vartype, setting.unit, setting.min_val, setting.max_val, setting.enumvals, setting.boot_val, setting.context,
                    setting.short_desc, setting.extra_desc, setting.check_hook)
                   IS NOT DISTINCT FROM
                   (wanted.vartype, wanted.unit, wanted.min_val, wanted.max_val, wanted.enumvals, wanted.boot_val, wanted.context,
                    wanted.short_desc, wanted.extra_desc, wanted.check_hook)) THEN
        RETURN;
    END IF;
    INSERT INTO bgw.setting AS setting (name, vartype, unit, min_val, max_val, enumvals, boot_val, context, short_desc, extra_desc, check_hook)
    VALUES (wanted.name, wanted.vartype, wanted.unit, wanted.min_val, wanted.max_val, wanted.enumvals, wanted.boot_val, wanted.context,
            wanted.short_desc, wanted.extra_desc, wanted.check_hook)
    ON CONFLICT ON CONSTRAINT setting_pkey DO UPDATE SET
        vartype = EXCLUDED.vartype, unit = EXCLUDED.unit, min_val = EXCLUDED.min_val, max_val = EXCLUDED.max_val, enumvals = EXCLUDED.enumvals,
        boot_val = EXCLUDED.boot_val, context = EXCLUDED.context, short_desc = EXCLUDED.short_desc, extra_desc = EXCLUDED.extra_desc,
        check_hook = EXCLUDED.check_hook,
        setting = bgw.kept_value(wanted, setting.unit, setting.setting, 'it was reset to its boot value'),
        pending = bgw.kept_value(wanted, setting.unit, setting.pending, 'the change that waited was dropped');
    PERFORM bgw.reload_owner(wanted.owner);
END;
$$;
COMMENT ON FUNCTION public.bgw_define_setting(text, text, text, text, numeric, numeric, text[], text, text, text, text) IS
'Defines a setting of your workers, or changes the definition of that name; a value that was set is kept while it is valid.
  name        two or more identifiers joined by dots, the worker''s name first by convention: kill_idle.max_idle_time
  boot_val    default value, as bgw_set_config takes it
  vartype     bool, integer, real, string (default), enum.   enumvals  the values of an enum
  unit        us, ms, s, min, h, d;  B, kB, MB, GB, TB.      min_val, max_val  range, in that unit
  context     sighup (default): workers take a change over at once;  postmaster: when the first node joins;  internal: cannot be set
  short_desc, extra_desc   shown in bgw_settings
  check_hook  name of a function (text) RETURNS text.  It gets each new value, in the base unit and valid for the type, and returns the value
              to store, or NULL to refuse it; an error that it raises is passed on.  It gets its own answer again, which it has to accept.
              It runs as the role that sets the value, so only the owner of the setting can set one that has a check hook; others can reset it
Errors: 22023 a value that cannot be, 42602 a name that cannot be or a reserved prefix, 42883 no such check hook,
42P17 the check hook does not return text, 42501 the check hook may not run in this session.
Example: SELECT bgw_define_setting(''rollup.keep'', boot_val => ''30d'', vartype => ''integer'', unit => ''d'', min_val => 1, max_val => 3650);';

CREATE OR REPLACE FUNCTION public.bgw_mark_guc_prefix_reserved(prefix text) RETURNS void
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    wanted text := pg_catalog.lower(bgw_mark_guc_prefix_reserved.prefix COLLATE "C");
    foreign_setting record;
BEGIN
    IF wanted IS NULL OR wanted !~ '^[a-z_][a-z0-9_$]*$' OR wanted = 'bgw' THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_name',
            MESSAGE = pg_catalog.format('invalid configuration parameter prefix "%s"', bgw_mark_guc_prefix_reserved.prefix),
            DETAIL = 'A prefix is one simple identifier, and not "bgw".';
    END IF;
    IF EXISTS (SELECT FROM bgw.reserved_prefix WHERE reserved_prefix.prefix = wanted AND reserved_prefix.owner = bgw.current_owner()) THEN
        RETURN;
    END IF;
    INSERT INTO bgw.reserved_prefix (prefix) VALUES (wanted) ON CONFLICT DO NOTHING;
    FOR foreign_setting IN
        SELECT setting.name, pg_catalog.pg_get_userbyid(setting.owner) AS owner FROM bgw.setting
        WHERE pg_catalog.lower(pg_catalog.split_part(setting.name, '.', 1)) = wanted
          AND NOT EXISTS (SELECT FROM bgw.reserved_prefix WHERE reserved_prefix.prefix = wanted AND reserved_prefix.owner = setting.owner)
        ORDER BY setting.name, setting.owner
    LOOP
        RAISE WARNING USING ERRCODE = 'invalid_name',
            MESSAGE = pg_catalog.format('invalid configuration parameter name "%s"', foreign_setting.name),
            DETAIL = pg_catalog.format('"%s" is now a reserved prefix.  The parameter belongs to role "%s" and is kept.', wanted, foreign_setting.owner);
    END LOOP;
END;
$$;
COMMENT ON FUNCTION public.bgw_mark_guc_prefix_reserved(text) IS
'Reserves the first part of names for the settings of the caller (MarkGUCPrefixReserved): a name below it that is not defined can then be defined or
set by nobody else.  prefix: one identifier.  What others have defined below it already is kept and reported with a WARNING.
A second reservation, by another role, makes both its owners.  DELETE FROM bgw.reserved_prefix lifts one.
It binds everybody, so it takes the owner of the catalog, or a role with INSERT on bgw.reserved_prefix.
Errors: 42602 not an identifier, or "bgw", 42501 the role may not.
Example: SELECT bgw_mark_guc_prefix_reserved(''kill_idle'');';

CREATE OR REPLACE FUNCTION public.bgw_set_config(name text, value text) RETURNS text
LANGUAGE plpgsql
AS $$
DECLARE
    definition bgw.setting := bgw.find_setting(name);
    checked text;
BEGIN
    PERFORM bgw.check_changeable(definition);
    checked := bgw.check_value(definition, bgw_set_config.value);
    PERFORM bgw.store_setting(definition, checked);
    RETURN bgw.show_setting(definition.vartype, definition.unit, checked);
END;
$$;
COMMENT ON FUNCTION public.bgw_set_config(text, text) IS
'Sets a setting when the transaction commits; running workers take it over without a restart (context postmaster: when the first node joins).
Workers that were given a value by bgw_register or bgw_launch keep that.  Returns the value as SHOW would print it.
Errors: 42704 no such setting, 42602 the same below a reserved prefix, 22023 the value is not valid, 22004 it is NULL, 55P02 the setting cannot be changed,
42501 its check hook belongs to another role, 42883 its check hook is gone, and what the check hook raises.
Example: SELECT bgw_set_config(''kill_idle.max_idle_time'', ''10s'');';

CREATE OR REPLACE FUNCTION public.bgw_reset_config(name text) RETURNS text
LANGUAGE plpgsql
AS $$
DECLARE
    definition bgw.setting := bgw.find_setting(name);
BEGIN
    PERFORM bgw.check_changeable(definition);
    PERFORM bgw.store_setting(definition, NULL);
    RETURN bgw.show_setting(definition.vartype, definition.unit, definition.boot_val);
END;
$$;
COMMENT ON FUNCTION public.bgw_reset_config(text) IS
'Sets a setting back to its boot value (context postmaster: when the first node joins).  Returns it as SHOW would print it.
Errors: 42704 no such setting, 42602 the same below a reserved prefix, 55P02 the setting cannot be changed.
Example: SELECT bgw_reset_config(''kill_idle.max_idle_time'');';

CREATE OR REPLACE FUNCTION public.bgw_reset_all_config() RETURNS bigint
LANGUAGE plpgsql
AS $$
DECLARE
    number_reset bigint;
BEGIN
    UPDATE bgw.setting SET
        setting = CASE context WHEN 'postmaster' THEN setting END,
        pending = CASE context WHEN 'postmaster' THEN nullif(boot_val, coalesce(setting, boot_val)) END,
        changed_at = bgw.now()
    WHERE owner = bgw.current_owner() AND context <> 'internal' AND (setting IS NOT NULL OR pending IS NOT NULL);
    GET DIAGNOSTICS number_reset = ROW_COUNT;
    PERFORM bgw.reload_owner(bgw.current_owner());
    RETURN number_reset;
END;
$$;
COMMENT ON FUNCTION public.bgw_reset_all_config() IS
'Sets every setting of yours back to its boot value (context postmaster: when the first node joins), as ALTER SYSTEM RESET ALL.
Returns how many had been set.  Errors: none.
Example: SELECT bgw_reset_all_config();';

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
        PERFORM bgw.reject_unknown_setting(find_setting.name);
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
        UPDATE bgw.setting SET setting = checked, pending = NULL, changed_at = bgw.now()
        WHERE setting.owner = definition.owner AND setting.name = definition.name;
        PERFORM bgw.reload_owner(definition.owner);
    END IF;
END;
$$;
COMMENT ON FUNCTION bgw.store_setting(bgw.setting, text) IS 'Writes a checked value, NULL for the boot value, and has the running workers of its owner reload.';

CREATE OR REPLACE FUNCTION bgw.kept_value(definition bgw.setting, unit text, value text, otherwise text) RETURNS text
LANGUAGE plpgsql
AS $$
BEGIN
    RETURN CASE WHEN value IS NOT NULL
                THEN bgw.check_value(definition, value || CASE WHEN definition.unit <> kept_value.unit AND value !~ '^-' THEN kept_value.unit ELSE '' END) END;
EXCEPTION WHEN data_exception OR raise_exception THEN
    RAISE WARNING '%; %', sqlerrm, otherwise;
    RETURN NULL;
END;
$$;
COMMENT ON FUNCTION bgw.kept_value(bgw.setting, text, text, text) IS 'A value that was set, in the unit of then, if it is valid by a new definition; else NULL, with a warning that says what becomes of it.';

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
