-- table_stats: samples sizes, bloat hints, cache hits and scans of the largest tables into a history; bgw_table_stats shows how they grow.
-- Waits for no lock: a table that somebody holds exclusively is left out of that look.
-- Try: SELECT bgw_launch('table_stats'); then: SELECT * FROM bgw_table_stats ORDER BY growth_bytes DESC NULLS LAST;

SELECT public.bgw_define_setting('table_stats.naptime', boot_val => '5min', vartype => 'integer', unit => 's', min_val => 1, max_val => 86400,
    short_desc => 'Duration between two samples.');
SELECT public.bgw_define_setting('table_stats.retention', boot_val => '30d', vartype => 'integer', unit => 's', min_val => 1, max_val => 315360000,
    short_desc => 'How long samples are kept.');
SELECT public.bgw_define_setting('table_stats.most_tables', boot_val => '100', vartype => 'integer', min_val => 1, max_val => 10000,
    short_desc => 'How many tables are sampled, the largest first.');
SELECT public.bgw_define_setting('table_stats.exclude_schemas', boot_val => 'bgw', short_desc => 'Schemas to leave out, joined by commas.');

CREATE OR REPLACE PROCEDURE bgw.table_stats()
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp  -- whoever owns the database may have put operators of his before ours
SET lock_timeout = '1s'
AS $$
DECLARE
    sampled_at timestamptz := pg_catalog.clock_timestamp();
BEGIN
    -- The largest by what the last VACUUM or ANALYZE saw: that costs no look at files.
    INSERT INTO bgw.table_sample
    SELECT sampled_at, tables.relid, tables.schemaname, tables.relname, pg_catalog.pg_total_relation_size(tables.relid), pg_catalog.pg_table_size(tables.relid),
           pg_catalog.pg_indexes_size(tables.relid), tables.n_live_tup, tables.n_dead_tup, greatest(tables.last_vacuum, tables.last_autovacuum),
           tables.seq_scan, tables.idx_scan, io.heap_blks_read + coalesce(io.idx_blks_read, 0), io.heap_blks_hit + coalesce(io.idx_blks_hit, 0)
    FROM (SELECT oid FROM pg_catalog.pg_class
          WHERE relkind IN ('r', 'm') AND relpersistence <> 't' AND relnamespace <> ALL (ARRAY['pg_catalog'::regnamespace, 'information_schema'::regnamespace])
            AND NOT bgw.is_listed(relnamespace::regnamespace::text, 'table_stats.exclude_schemas')
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_locks WHERE pg_locks.relation = pg_class.oid AND pg_locks.mode = 'AccessExclusiveLock')
          ORDER BY relpages DESC, oid LIMIT pg_catalog.current_setting('table_stats.most_tables')::integer) AS largest
    JOIN pg_catalog.pg_stat_user_tables AS tables ON tables.relid = largest.oid
    JOIN pg_catalog.pg_statio_user_tables AS io ON io.relid = largest.oid;
    DELETE FROM bgw.table_sample WHERE table_sample.sampled_at < pg_catalog.clock_timestamp() - pg_catalog.current_setting('table_stats.retention')::interval;
EXCEPTION WHEN lock_not_available THEN
    RAISE LOG 'a sample was left out: somebody holds a lock on a table';
END;
$$;
COMMENT ON PROCEDURE bgw.table_stats() IS 'One sample of the worker table_stats.';

SELECT public.bgw_register(
    name => 'table_stats',
    command => 'CALL bgw.table_stats()',
    naptime => 'table_stats.naptime',
    restart_time => '10 s');

CREATE OR REPLACE VIEW public.bgw_table_stats AS
    SELECT newest.schemaname, newest.relname, newest.sampled_at, newest.total_bytes, newest.table_bytes, newest.index_bytes,
           newest.total_bytes - before.total_bytes AS growth_bytes, newest.sampled_at - before.sampled_at AS since,
           newest.live_rows, newest.dead_rows, pg_catalog.round(100.0 * newest.dead_rows / nullif(newest.live_rows + newest.dead_rows, 0), 1) AS dead_percent,
           newest.last_vacuum, newest.seq_scan - before.seq_scan AS seq_scans, newest.idx_scan - before.idx_scan AS idx_scans,
           pg_catalog.round(100.0 * (newest.blocks_hit - before.blocks_hit)
               / nullif(newest.blocks_hit - before.blocks_hit + newest.blocks_read - before.blocks_read, 0), 1) AS hit_percent
    FROM (SELECT DISTINCT ON (relid) * FROM bgw.table_sample ORDER BY relid, sampled_at DESC) AS newest
    LEFT JOIN LATERAL (SELECT * FROM bgw.table_sample AS earlier WHERE earlier.relid = newest.relid AND earlier.sampled_at < newest.sampled_at
                       ORDER BY earlier.sampled_at DESC LIMIT 1) AS before ON true;
COMMENT ON VIEW public.bgw_table_stats IS
'The newest sample of each table by the worker table_stats, and what has changed since the one before: growth_bytes, seq_scans, idx_scans, hit_percent (of blocks, in the cache).
dead_percent: of its rows, a hint of bloat.  All samples: bgw.table_sample.  Seen by members of pg_read_all_stats.
Example: SELECT * FROM bgw_table_stats ORDER BY growth_bytes DESC NULLS LAST LIMIT 10;';
GRANT SELECT ON public.bgw_table_stats TO pg_read_all_stats;
