-- What is gone, with the version that retired it; and the one view that is made anew each time.

-- Its first columns are those of the server's own pg_stat_activity, which differ between major versions.
DROP VIEW IF EXISTS public.bgw_stat_activity;
-- What it stands on got columns.
DROP FUNCTION IF EXISTS bgw.stat_workers();

-- Got more arguments; beside the new one an old one would make calls ambiguous.
DROP FUNCTION IF EXISTS public.bgw_register(text, text, text, interval, boolean, text, text, jsonb, text, text, interval, integer, text, text[], text, boolean);
