-- What is gone, with the version that retired it; and the views that are made anew each time.

-- Its first columns are those of the server's own pg_stat_activity, which differ between major versions.
DROP VIEW IF EXISTS public.bgw_stat_activity;
-- Columns that come in between cannot be added otherwise.
DROP VIEW IF EXISTS public.bgw_settings;
DROP FUNCTION IF EXISTS bgw.stat_workers();
-- One that has returned a value cannot return rows.
DROP FUNCTION IF EXISTS bgw.obstacle(bgw.process, bgw.worker);
DROP FUNCTION IF EXISTS bgw.own_settings(oid, text, text, jsonb);

-- After 0.1.0: gone, or with more arguments now.
DROP FUNCTION IF EXISTS bgw.drop_invalid_value(text);
DROP FUNCTION IF EXISTS public.bgw_register(text, text, text, interval, boolean, text, text, jsonb, text, text, interval, integer, text, text[], text, boolean);
DROP FUNCTION IF EXISTS public.bgw_launch(text, jsonb);
DROP FUNCTION IF EXISTS public.bgw_launch(text, jsonb, jsonb);
DROP FUNCTION IF EXISTS public.bgw_launch_sql(text, text, text, text, interval, jsonb);
DROP FUNCTION IF EXISTS public.bgw_define_setting(text, text, text, text, numeric, numeric, text[], text, text);
DROP FUNCTION IF EXISTS bgw.define_library(jsonb, jsonb);
DROP FUNCTION IF EXISTS bgw.nap_of(bgw.worker);
DROP FUNCTION IF EXISTS bgw.database_of(text, oid);
DROP FUNCTION IF EXISTS bgw.own_settings(oid, text, text);
DROP FUNCTION IF EXISTS bgw.settings_for(jsonb);
-- Returned jsonb: json is made and read in a fraction of the time.
DROP FUNCTION IF EXISTS bgw.settings_of(oid);
DROP FUNCTION IF EXISTS bgw.claim_startable(bgw.node, boolean, integer);
DROP FUNCTION IF EXISTS bgw.take_orders(bigint, integer, integer);
DROP FUNCTION IF EXISTS bgw.take_orders(bigint, integer, integer, boolean);
DROP FUNCTION IF EXISTS bgw.look(bigint, oid);
-- Returned fewer columns.
DROP FUNCTION IF EXISTS bgw.look(bigint, oid, double precision, boolean);
DROP FUNCTION IF EXISTS bgw.nodes_are_awake();
DROP FUNCTION IF EXISTS bgw.next_wakeup_ms();
-- Returned nothing.
DROP FUNCTION IF EXISTS bgw.ring_unless_awake();
-- Counted in the history.
DROP FUNCTION IF EXISTS bgw.gave_up(bigint, timestamptz, integer, interval);
DROP FUNCTION IF EXISTS bgw.note_schedule(bgw.schedule);
-- Returned one value each, or none.
DROP FUNCTION IF EXISTS bgw.deliver_signals(bigint);
DROP FUNCTION IF EXISTS bgw.settle_stopped();
-- Did not know in which unit the value was set.
DROP FUNCTION IF EXISTS bgw.kept_value(bgw.setting, text, text);
