-- What is gone, with the version that retired it; and the one view that is made anew each time.

-- Its first columns are those of the server's own pg_stat_activity, which differ between major versions.
DROP VIEW IF EXISTS public.bgw_stat_activity;
