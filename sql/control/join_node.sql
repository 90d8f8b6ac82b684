-- bgw.join_node, resume_node, leave_node, register_session: a controller comes, comes back, goes, and opens sessions.
-- Called by src/catalog.ts on the control session of the node.  Keeps I8, I17.

CREATE OR REPLACE FUNCTION bgw.join_node(name text, libraries text[], max_worker_processes integer,
                                         OUT node_id bigint, OUT epoch integer, OUT lease_ms integer)
LANGUAGE plpgsql
AS $$
DECLARE
    first_node boolean;
    starting oid[];
BEGIN
    -- A node at rest that has lost its control session has another one within moments, or is gone (bgw.is_live).
    FOR attempt IN 1 .. 20 LOOP
        EXIT WHEN NOT EXISTS (SELECT FROM bgw.node WHERE NOT node.fenced AND bgw.is_resting(node.lease_until) AND node.timeline = bgw.timeline()
                              AND NOT bgw.is_there(node.control_pid, node.control_backend_start));
        PERFORM pg_catalog.pg_sleep(0.1), pg_catalog.pg_stat_clear_snapshot();
    END LOOP;
    -- Two controllers that start at once must not both think that they are the first.
    LOCK TABLE bgw.node IN SHARE ROW EXCLUSIVE MODE;
    -- Before the question who is first: on a promoted server, nodes of the old primary are dead whatever their lease says.
    PERFORM bgw.fence_dead_nodes(NULL);
    first_node := NOT bgw.has_live_node();
    INSERT INTO bgw.login (owner) VALUES (bgw.current_owner()) ON CONFLICT DO NOTHING;
    -- Of owners without a login there may be a million rows, and nothing of them runs.  One that gets his later starts then.
    starting := CASE WHEN first_node THEN ARRAY(SELECT login.owner FROM bgw.login) WHEN FOUND THEN ARRAY[bgw.current_owner()] ELSE '{}' END;
    INSERT INTO bgw.node AS node (name, login, control_pid, control_backend_start, lease_until, libraries, max_worker_processes, timeline)
    SELECT join_node.name, bgw.current_owner(), pg_catalog.pg_backend_pid(), activity.backend_start, bgw.now() + bgw.lease(),
           join_node.libraries, join_node.max_worker_processes, bgw.timeline()
    FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) AS activity
    RETURNING node.id, node.epoch INTO node_id, epoch;
    lease_ms := pg_catalog.date_part('epoch', bgw.lease()) * 1000;
    IF starting <> '{}' THEN
        UPDATE bgw.setting SET setting = nullif(setting.pending, setting.boot_val), pending = NULL
        FROM (SELECT set_before.owner, set_before.name FROM bgw.setting AS set_before WHERE set_before.owner = ANY (starting) AND set_before.pending IS NOT NULL FOR NO KEY UPDATE SKIP LOCKED) AS changed
        WHERE setting.owner = changed.owner AND setting.name = changed.name;
        PERFORM bgw.autostart(worker.id) FROM bgw.worker
        WHERE worker.owner = ANY (starting) AND worker.autostart AND worker.enabled AND NOT worker.unregistered;
    END IF;
    IF first_node THEN
        DELETE FROM bgw.worker_database;
        PERFORM bgw.tick_at_restart();
    END IF;
END;
$$;
COMMENT ON FUNCTION bgw.join_node(text, text[], integer) IS
'A controller joins: its id and epoch, which every later call carries, and the length of its lease in milliseconds.
The first node to join registers the autostart workers and takes over settings of context postmaster, as a server start does; so does the first of its login, for that owner.';

CREATE OR REPLACE FUNCTION bgw.resume_node(node_id bigint, epoch integer, running bigint[]) RETURNS text[]
LANGUAGE plpgsql
AS $$
DECLARE
    node bgw.node := bgw.check_node(resume_node.node_id, resume_node.epoch);
BEGIN
    IF node.timeline IS DISTINCT FROM bgw.timeline() THEN
        RAISE EXCEPTION USING ERRCODE = 'WK001',
            MESSAGE = pg_catalog.format('node %s has joined another server', node.id),
            DETAIL = pg_catalog.format('Timeline %s, now %s.', node.timeline, bgw.timeline());
    END IF;
    -- Of a connection that was lost the server may not know yet: a call that waits there would claim for nobody.
    IF EXISTS (SELECT FROM pg_catalog.pg_stat_activity AS live WHERE live.pid = node.control_pid AND live.pid <> pg_catalog.pg_backend_pid()
               AND live.backend_start = node.control_backend_start) THEN
        PERFORM pg_catalog.pg_terminate_backend(node.control_pid);
    END IF;
    UPDATE bgw.node SET control_pid = pg_catalog.pg_backend_pid(), control_gone_since = NULL,
        control_backend_start = (SELECT activity.backend_start FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) AS activity)
    WHERE bgw.node.id = resume_node.node_id;
    DELETE FROM bgw.session WHERE session.node_id = resume_node.node_id
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_activity AS live WHERE live.pid = session.pid);
    -- What the node was given in an answer that never reached it.
    UPDATE bgw.process SET run_id = NULL, node_id = NULL, epoch = NULL, claimed_at = NULL
    WHERE process.node_id = resume_node.node_id AND process.status = 'not_yet_started' AND process.run_id <> ALL (running);
    INSERT INTO bgw.signal (process_id, signal)
    SELECT process.id, CASE WHEN process.stop_requested_at IS NOT NULL OR process.restart_requested THEN 'SIGTERM' ELSE 'SIGHUP' END
    FROM bgw.process WHERE process.node_id = resume_node.node_id;
    RETURN ARRAY(SELECT process.run_id::text FROM bgw.process WHERE process.node_id = resume_node.node_id);
END;
$$;
COMMENT ON FUNCTION bgw.resume_node(bigint, integer, bigint[]) IS
'A node has a new control session; the one of before is ended, if it is still there.  running: the run ids it knows; what it was given and never heard of waits again, and signals it may have
missed are sent again.  Returns the run ids that are this node''s: after a crash of the server a claim that was not flushed is not among them,
and what the node runs under it must end.  Errors: WK001 the node was fenced, or the server is another one.';

CREATE OR REPLACE FUNCTION bgw.leave_node(node_id bigint, epoch integer) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM bgw.check_node(leave_node.node_id, leave_node.epoch);
    PERFORM bgw.settle_processes_of(leave_node.node_id);
    DELETE FROM bgw.session WHERE session.node_id = leave_node.node_id;
    DELETE FROM bgw.node WHERE bgw.node.id = leave_node.node_id;
END;
$$;
COMMENT ON FUNCTION bgw.leave_node(bigint, integer) IS 'A node that has stopped all its workers goes.  Errors: WK001 the node was fenced.';

CREATE OR REPLACE FUNCTION bgw.register_session(node_id bigint, epoch integer, pid integer, database text) RETURNS timestamptz
LANGUAGE plpgsql
AS $$
DECLARE
    started timestamptz;
BEGIN
    PERFORM bgw.check_node(register_session.node_id, register_session.epoch);
    started := bgw.backend_start(register_session.pid);
    INSERT INTO bgw.session (pid, backend_start, node_id, epoch, owner, database)
    VALUES (register_session.pid, started, register_session.node_id, register_session.epoch, bgw.current_owner(), register_session.database);
    RETURN started;
END;
$$;
COMMENT ON FUNCTION bgw.register_session(bigint, integer, integer, text) IS
'A session of a node, before it runs any user text: exactly the registered ones are terminated when the node is fenced.
Errors: WK001 the node was fenced, WK202 the session cannot be seen.';

CREATE OR REPLACE FUNCTION bgw.backend_start(pid integer) RETURNS timestamptz
LANGUAGE plpgsql
AS $$
DECLARE
    started timestamptz;
BEGIN
    SELECT live.backend_start INTO started FROM pg_catalog.pg_stat_activity AS live WHERE live.pid = backend_start.pid;
    IF started IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'WK202',
            MESSAGE = pg_catalog.format('session %s cannot be registered', backend_start.pid),
            DETAIL = 'The server shows no start time for it: it is gone, or the role of the controller may not see it.';
    END IF;
    RETURN started;
END;
$$;
COMMENT ON FUNCTION bgw.backend_start(integer) IS
'When a session of a node was opened: with the pid, its identity.  All that can be asked on a standby.  Errors: WK202 the session cannot be seen.';

CREATE OR REPLACE FUNCTION bgw.timeline() RETURNS text
LANGUAGE sql
AS $$
    SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN 'recovery' ELSE pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8) END
        || '/' || (SELECT pg_database.oid FROM pg_catalog.pg_database WHERE pg_database.datname = pg_catalog.current_database())
$$;
COMMENT ON FUNCTION bgw.timeline() IS
'The timeline of the server, so that a promotion ends the epochs of before (I17), and the database: a copy of one has rows of nodes whose sessions belong to the original.';
