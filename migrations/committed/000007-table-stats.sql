--! Previous: sha1:5c750dc467a9bd0d0c2e53ecfa00fbe9334e45b6
--! Hash: sha1:c838924018ba779d89354cd2a5c678e8e1fc566b

-- What the worker table_stats has sampled.

CREATE TABLE bgw.table_sample (
    sampled_at timestamptz NOT NULL,
    relid oid NOT NULL,
    schemaname text NOT NULL,
    relname text NOT NULL,
    total_bytes bigint,
    table_bytes bigint,
    index_bytes bigint,
    live_rows bigint,
    dead_rows bigint,
    last_vacuum timestamptz,
    seq_scan bigint,
    idx_scan bigint,
    blocks_read bigint,
    blocks_hit bigint,
    PRIMARY KEY (relid, sampled_at)
);
CREATE INDEX table_sample_by_time ON bgw.table_sample (sampled_at);
COMMENT ON TABLE bgw.table_sample IS 'Sizes and counters of tables, a row a table and look.  Written by the worker table_stats, which deletes what is older than table_stats.retention.';
