-- bgw_settings: settings of workers, like pg_settings.  Written by sql/api/settings.sql.

CREATE OR REPLACE FUNCTION bgw.read_settings() RETURNS SETOF bgw.setting
LANGUAGE sql STABLE
AS $$ SELECT * FROM bgw.setting $$;
COMMENT ON FUNCTION bgw.read_settings() IS 'Settings that the reader may see.';

CREATE OR REPLACE VIEW public.bgw_settings AS
    SELECT setting.name, coalesce(setting.setting, setting.boot_val) AS setting, setting.unit, 'Customized Options'::text AS category, setting.short_desc,
           setting.extra_desc, setting.context, setting.vartype,
           CASE WHEN setting.setting IS NULL THEN 'default' ELSE 'catalog' END AS source, setting.min_val::text, setting.max_val::text, setting.enumvals,
           setting.boot_val, setting.boot_val AS reset_val, setting.pending IS NOT NULL AS pending_restart,
           setting.check_hook, pg_catalog.pg_get_userbyid(setting.owner) AS owner
    FROM bgw.read_settings() AS setting;
COMMENT ON VIEW public.bgw_settings IS
'Settings of workers, with the columns of pg_settings (but sourcefile and sourceline), then check_hook and owner.
setting: in the base unit.  source: default, or catalog (bgw_set_config).  reset_val: what bgw_reset_config goes back to.
pending_restart: changed, and taken over when the first controller starts.  What single workers were given by bgw_register or bgw_launch
stands in column settings of bgw_stat_activity.
Example: SELECT name, setting, unit, min_val, max_val FROM bgw_settings;';
GRANT SELECT ON public.bgw_settings TO PUBLIC;
