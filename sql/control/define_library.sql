-- bgw.define_library: what the init of a TypeScript library defines, as if its owner had called bgw_define_setting and bgw_register.
-- Called by src/catalog.ts when a node joins.  PostgreSQL counterpart: _PG_init.
-- Every argument is given, with its type: where anybody may create functions in public (before PostgreSQL 15), one with
-- fewer arguments would otherwise be preferred, and run on the control session.

CREATE OR REPLACE FUNCTION bgw.define_library(settings jsonb, workers jsonb, prefixes jsonb) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    -- First: another owner may have reserved the prefix for the same library.
    PERFORM public.bgw_mark_guc_prefix_reserved(given.prefix) FROM pg_catalog.jsonb_array_elements_text(prefixes) AS given (prefix);

    -- A check hook in SQL is user text: a library has none (HARDENING A2).
    PERFORM public.bgw_define_setting(
        name => setting.name, boot_val => setting.boot_val, vartype => setting.vartype, unit => setting.unit, min_val => setting.min_val,
        max_val => setting.max_val, enumvals => setting.enumvals, context => setting.context, short_desc => setting.short_desc,
        extra_desc => setting.extra_desc, check_hook => NULL::text)
    FROM pg_catalog.jsonb_populate_recordset(NULL::bgw.setting, settings) AS setting;

    PERFORM public.bgw_register(
        name => worker.name, command => NULL::text, naptime => NULL::text, restart_time => coalesce(worker.restart_time, interval '-1 s'),
        autostart => worker.autostart, library_name => worker.library_name, function_name => worker.function_name, main_arg => worker.main_arg,
        database => NULL::text, mode => 'session'::text, timeout => NULL::interval, max_instances => worker.max_instances,
        start_time => worker.start_time, flags => worker.flags, type => worker.type, enabled => true,
        restart_time_max => worker.restart_time_max, failure_limit => worker.failure_limit, failure_window => coalesce(worker.failure_window, interval '10 min'),
        healthy_time => coalesce(worker.healthy_time, interval '1 min'), scope => 'one'::text, settings => NULL::jsonb)
    FROM pg_catalog.jsonb_populate_recordset(NULL::bgw.worker, workers) AS worker;
END;
$$;
COMMENT ON FUNCTION bgw.define_library(jsonb, jsonb, jsonb) IS
'Settings, workers and reserved prefixes (an array of text) of one library, all or none.
Errors: those of bgw_define_setting, bgw_register and bgw_mark_guc_prefix_reserved.';
