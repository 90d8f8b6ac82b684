-- bgw_auth_counter: what the TypeScript worker src/workers/auth-counter.ts has counted.

CREATE OR REPLACE VIEW public.bgw_auth_counter AS
    SELECT auth_count.username, auth_count.database, auth_count.succeeded, auth_count.failed, auth_count.last_success, auth_count.last_failure FROM bgw.auth_count;
COMMENT ON VIEW public.bgw_auth_counter IS
'Logins that succeeded and failed since the worker auth_counter was first launched, by user and database.  last_success, last_failure: when the worker last saw one.
Seen by members of pg_read_all_stats.  Needs log_connections, and csvlog or jsonlog.
Example: SELECT * FROM bgw_auth_counter ORDER BY failed DESC;';
GRANT SELECT ON public.bgw_auth_counter TO pg_read_all_stats;
