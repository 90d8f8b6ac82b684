-- bgw.report: what happened on a node -> rows.  One batch: a list of events of each kind.
-- Called by src/catalog.ts together with bgw.take_orders, in one round trip.  Kinds of events: src/orders.ts.
-- Keeps I2, I6: every event carries the run id of its attempt; one of an attempt that is settled changes nothing.
-- Next: sql/control/settle_exits.sql, then sql/views/stat_activity.sql shows it.

CREATE OR REPLACE FUNCTION bgw.report(node_id bigint, epoch integer, events jsonb) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    node bgw.node := bgw.check_node(report.node_id, report.epoch);
BEGIN
    IF pg_catalog.jsonb_typeof(events) <> 'object' THEN
        RAISE EXCEPTION USING ERRCODE = 'WK001',
            MESSAGE = pg_catalog.format('node "%s" is of an older version than the schema', node.name),
            HINT = 'Stop it, and start the version that ran "bgw migrate".';
    END IF;
    -- Only ends must survive a crash of the server.  A claim in this transaction need not wait for the disk: its commit
    -- record is written before any record of what the worker does, and resume_node ends a run whose claim was lost.
    IF NOT events ? 'exited' THEN
        PERFORM pg_catalog.set_config('synchronous_commit', 'off', true);
    END IF;
    IF events ? 'log' THEN
        PERFORM bgw.log_events(node.name, events -> 'log');
    END IF;
    -- Most reports tell of ends alone.
    IF events ?| '{started,session,activity,session_closed,returned}' THEN
        PERFORM bgw.report_changes(node.id, events);
    END IF;
    IF events ? 'exited' AND NOT bgw.settle_plain_exits(events -> 'exited') THEN
        PERFORM bgw.settle_exits(bgw.decide_runs(events -> 'exited'));
    END IF;
END;
$$;
COMMENT ON FUNCTION bgw.report(bigint, integer, jsonb) IS
'What happened on a node since its last report: lists of events {handle, run_id, age, ...} by their kinds: started, session, activity, returned,
exited, log, session_closed.  Errors: WK001 the node was fenced, or is of an older version.';

CREATE OR REPLACE FUNCTION bgw.report_changes(node_id bigint, events jsonb) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    event record;
BEGIN
    -- One by one: each is a look at a primary key, whatever the planner believes of the tables.
    FOR event IN SELECT * FROM pg_catalog.jsonb_to_recordset(events -> 'started') AS told (handle bigint, run_id bigint, age double precision, os_pid integer) LOOP
        UPDATE bgw.process SET status = 'started', started_at = bgw.now() - event.age * interval '1 ms', os_pid = event.os_pid
        WHERE process.id = event.handle AND process.run_id = event.run_id;
    END LOOP;
    FOR event IN SELECT * FROM pg_catalog.jsonb_to_recordset(events -> 'session') AS told (handle bigint, run_id bigint, pid integer, backend_start timestamptz) LOOP
        UPDATE bgw.process SET pid = event.pid, backend_start = event.backend_start
        WHERE process.id = event.handle AND process.run_id = event.run_id AND process.pid IS DISTINCT FROM event.pid;
    END LOOP;
    PERFORM bgw.notify_starts(events -> 'started');
    FOR event IN SELECT * FROM pg_catalog.jsonb_to_recordset(events -> 'activity') AS told (handle bigint, run_id bigint, state text, query text) LOOP
        INSERT INTO bgw.activity AS activity (process_id, state, query)
        SELECT process.id, event.state, event.query FROM bgw.process WHERE process.id = event.handle AND process.run_id = event.run_id
        ON CONFLICT (process_id) DO UPDATE SET state = EXCLUDED.state, query = EXCLUDED.query, reported_at = pg_catalog.clock_timestamp();
    END LOOP;
    FOR event IN SELECT * FROM pg_catalog.jsonb_to_recordset(events -> 'session_closed') AS told (pid integer) LOOP
        DELETE FROM bgw.session WHERE session.pid = event.pid AND session.node_id = report_changes.node_id;
    END LOOP;
    FOR event IN SELECT * FROM pg_catalog.jsonb_to_recordset(events -> 'returned') AS told (handle bigint, run_id bigint) LOOP
        UPDATE bgw.process SET run_id = NULL, node_id = NULL, epoch = NULL, claimed_at = NULL, restart_requested = false
        WHERE process.id = event.handle AND process.run_id = event.run_id;
    END LOOP;
END;
$$;
COMMENT ON FUNCTION bgw.report_changes(bigint, jsonb) IS 'What a report tells of processes and sessions that go on.';

CREATE OR REPLACE FUNCTION bgw.log_events(node_name text, events jsonb) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO bgw.log (logged_at, node, process_id, name, owner, severity, sqlstate, message, detail, hint, context)
    SELECT bgw.now() - event.age * interval '1 ms', node_name, event.handle, coalesce(process.name, event.name), coalesce(process.owner, bgw.current_owner()),
           event.severity, event.sqlstate, event.message, event.detail, event.hint, event.context
    FROM ROWS FROM (pg_catalog.jsonb_to_recordset(events)
         AS (handle bigint, name text, age double precision, severity text, sqlstate text, message text, detail text, hint text, context text)) WITH ORDINALITY
         AS event (handle, name, age, severity, sqlstate, message, detail, hint, context, number)
    -- = ANY: as in deliver_signals.
    LEFT JOIN bgw.process ON process.id = ANY (ARRAY[event.handle])
    ORDER BY event.number;
END;
$$;
COMMENT ON FUNCTION bgw.log_events(text, jsonb) IS 'The log lines of a report -> bgw.log.';
