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

-- Not of a row of bgw.node: of that not everybody may read every column.
CREATE OR REPLACE FUNCTION bgw.is_resting(lease_until timestamptz) RETURNS boolean
LANGUAGE sql  -- inlined
AS $$ SELECT lease_until > bgw.now() + bgw.lease() AND lease_until <= bgw.now() + bgw.lease_at_rest() $$;
COMMENT ON FUNCTION bgw.is_resting(timestamptz) IS 'Whether a node had no process registered when it looked last, and so a longer lease: bgw.lease_at_rest.';

CREATE OR REPLACE FUNCTION bgw.is_there(pid integer, backend_start timestamptz) RETURNS boolean
LANGUAGE sql STABLE
AS $$
    -- Whoever may not see when others started goes by the pid alone.
    SELECT EXISTS (SELECT FROM pg_catalog.pg_stat_activity AS live WHERE live.pid = is_there.pid AND coalesce(live.backend_start = is_there.backend_start, true))
$$;
COMMENT ON FUNCTION bgw.is_there(integer, timestamptz) IS 'Whether a session is there.';

CREATE OR REPLACE FUNCTION bgw.is_live(fenced boolean, lease_until timestamptz, control_pid integer, control_backend_start timestamptz) RETURNS boolean
LANGUAGE sql
AS $$
    -- The sessions of a primary are not on its standby.
    SELECT NOT fenced AND lease_until > bgw.now()
       AND (NOT bgw.is_resting(lease_until) OR bgw.is_there(control_pid, control_backend_start) OR pg_catalog.pg_is_in_recovery())
$$;
COMMENT ON FUNCTION bgw.is_live(boolean, timestamptz, integer, timestamptz) IS
'Whether a controller is alive: by its lease, and while that is the one of a node at rest, by its control session as well.';

CREATE OR REPLACE FUNCTION bgw.has_live_node() RETURNS boolean
LANGUAGE sql STABLE
AS $$ SELECT EXISTS (SELECT FROM bgw.node WHERE bgw.is_live(node.fenced, node.lease_until, node.control_pid, node.control_backend_start)) $$;
COMMENT ON FUNCTION bgw.has_live_node() IS 'Whether any controller is alive.';

CREATE OR REPLACE FUNCTION bgw.live_nodes() RETURNS SETOF bigint
LANGUAGE sql STABLE
AS $$ SELECT node.id FROM bgw.node WHERE bgw.is_live(node.fenced, node.lease_until, node.control_pid, node.control_backend_start) $$;
COMMENT ON FUNCTION bgw.live_nodes() IS 'The controllers that are alive.';
