-- bgw.define_library: what the init of a TypeScript library defines, as if its owner had called bgw_define_setting and bgw_register.
-- Called by src/catalog.ts when a node joins.  PostgreSQL counterpart: _PG_init.

CREATE OR REPLACE FUNCTION bgw.define_library(settings jsonb, workers jsonb) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM public.bgw_define_setting(
        name => setting.name, boot_val => setting.boot_val, vartype => setting.vartype, unit => setting.unit, min_val => setting.min_val,
        max_val => setting.max_val, enumvals => setting.enumvals, context => setting.context, short_desc => setting.short_desc)
    FROM pg_catalog.jsonb_populate_recordset(NULL::bgw.setting, settings) AS setting;

    PERFORM public.bgw_register(
        name => worker.name, type => worker.type, library_name => worker.library_name, function_name => worker.function_name, main_arg => worker.main_arg,
        restart_time => coalesce(worker.restart_time, interval '-1 s'), start_time => worker.start_time, flags => worker.flags,
        autostart => worker.autostart, max_instances => worker.max_instances)
    FROM pg_catalog.jsonb_populate_recordset(NULL::bgw.worker, workers) AS worker;
END;
$$;
COMMENT ON FUNCTION bgw.define_library(jsonb, jsonb) IS 'Settings and workers of one library, all or none.  Errors: those of bgw_define_setting and bgw_register.';
