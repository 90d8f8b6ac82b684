-- bgw.is_live: which controllers are alive, as everybody sees it.  Who may be taken over is decided in sql/control/fence_node.sql.
-- The lease is written by sql/control/check_node.sql and, for a node at rest, by sql/control/take_orders.sql (decision 14).

CREATE OR REPLACE FUNCTION bgw.lease() RETURNS interval
LANGUAGE sql IMMUTABLE
AS $$ SELECT interval '15 s' $$;
COMMENT ON FUNCTION bgw.lease() IS 'How long a node that is not heard of keeps its workers: long enough for a restart of the server, short enough to be taken over from.';

CREATE OR REPLACE FUNCTION bgw.lease_at_rest() RETURNS interval
LANGUAGE sql IMMUTABLE
AS $$ SELECT interval '90 s' $$;
COMMENT ON FUNCTION bgw.lease_at_rest() IS
'The lease of a node that looks and writes nothing, because no process is registered: it has no workers to be taken over.  Longer than a minute, since keep_house renews it.';

CREATE OR REPLACE FUNCTION bgw.is_resting(node bgw.node) RETURNS boolean
LANGUAGE sql  -- inlined
AS $$ SELECT node.lease_until > bgw.now() + bgw.lease() AND node.lease_until <= bgw.now() + bgw.lease_at_rest() $$;
COMMENT ON FUNCTION bgw.is_resting(bgw.node) IS 'Whether a node had no process registered when it looked last, and so a longer lease: bgw.lease_at_rest.';

CREATE OR REPLACE FUNCTION bgw.has_control_session(node bgw.node) RETURNS boolean
LANGUAGE sql STABLE
AS $$
    -- Whoever may not see when others started goes by the pid alone.
    SELECT EXISTS (SELECT FROM pg_catalog.pg_stat_activity AS live
                   WHERE live.pid = node.control_pid AND coalesce(live.backend_start = node.control_backend_start, true))
$$;
COMMENT ON FUNCTION bgw.has_control_session(bgw.node) IS 'Whether the control session of a node is there.';

CREATE OR REPLACE FUNCTION bgw.is_live(node bgw.node) RETURNS boolean
LANGUAGE sql
AS $$
    -- The sessions of a primary are not on its standby.
    SELECT NOT node.fenced AND node.lease_until > bgw.now()
       AND (NOT bgw.is_resting(node) OR bgw.has_control_session(node) OR pg_catalog.pg_is_in_recovery())
$$;
COMMENT ON FUNCTION bgw.is_live(bgw.node) IS 'Whether a controller is alive: by its lease, and while that is the one of a node at rest, by its control session as well.';

CREATE OR REPLACE FUNCTION bgw.has_live_node() RETURNS boolean
LANGUAGE sql STABLE
AS $$ SELECT EXISTS (SELECT FROM bgw.node WHERE bgw.is_live(node)) $$;
COMMENT ON FUNCTION bgw.has_live_node() IS 'Whether any controller is alive.';
