-- bgw.report: what happened on a node -> rows.  One batch, one statement per kind of event.
-- Called by src/catalog.ts together with bgw.take_orders, in one round trip.  Kinds of events: src/orders.ts.
-- Keeps I2, I6: every event carries the run id of its attempt; one of an attempt that is settled changes nothing.
-- Next: sql/control/settle_exits.sql, then sql/views/stat_activity.sql shows it.

CREATE OR REPLACE FUNCTION bgw.report(node_id bigint, epoch integer, events jsonb) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    node bgw.node := bgw.check_node(report.node_id, report.epoch);
BEGIN
    -- Only ends must survive a crash of the server.  A claim in this transaction need not wait for the disk: its commit
    -- record is written before any record of what the worker does, and resume_node ends a run whose claim was lost.
    IF NOT events @? '$[*] ? (@.kind == "exited")' THEN
        PERFORM pg_catalog.set_config('synchronous_commit', 'off', true);
    END IF;
    IF pg_catalog.jsonb_array_length(events) = 0 THEN
        RETURN;
    END IF;
    PERFORM bgw.log_events(node.name, events);

    UPDATE bgw.process SET status = 'started', started_at = bgw.now() - event.age * interval '1 ms', os_pid = event.os_pid
    FROM pg_catalog.jsonb_to_recordset(events) AS event (kind text, handle bigint, run_id bigint, age double precision, os_pid integer)
    WHERE event.kind = 'started' AND process.id = event.handle AND process.run_id = event.run_id;

    -- The newest word about the session of each process.
    UPDATE bgw.process SET pid = newest.pid, backend_start = newest.backend_start
    FROM (SELECT DISTINCT ON (event.handle) event.handle, event.run_id, event.pid, event.backend_start
          FROM ROWS FROM (pg_catalog.jsonb_to_recordset(events) AS (kind text, handle bigint, run_id bigint, pid integer, backend_start timestamptz)) WITH ORDINALITY
               AS event (kind, handle, run_id, pid, backend_start, number)
          WHERE event.kind = 'session' ORDER BY event.handle, event.number DESC) AS newest
    WHERE process.id = newest.handle AND process.run_id = newest.run_id
      AND process.pid IS DISTINCT FROM newest.pid;
    PERFORM bgw.notify_starts(events);

    INSERT INTO bgw.activity AS activity (process_id, state, query)
    SELECT DISTINCT ON (event.handle) event.handle, event.state, event.query
    FROM ROWS FROM (pg_catalog.jsonb_to_recordset(events) AS (kind text, handle bigint, run_id bigint, state text, query text)) WITH ORDINALITY
         AS event (kind, handle, run_id, state, query, number)
    JOIN bgw.process ON process.id = event.handle AND process.run_id = event.run_id
    WHERE event.kind = 'activity' ORDER BY event.handle, event.number DESC
    ON CONFLICT (process_id) DO UPDATE SET state = EXCLUDED.state, query = EXCLUDED.query, reported_at = pg_catalog.clock_timestamp();

    DELETE FROM bgw.session USING pg_catalog.jsonb_to_recordset(events) AS event (kind text, pid integer)
    WHERE event.kind = 'session_closed' AND session.pid = event.pid AND session.node_id = report.node_id;

    PERFORM bgw.settle_exits(pg_catalog.jsonb_path_query_array(events, '$[*] ? (@.kind == "exited")'));
END;
$$;
COMMENT ON FUNCTION bgw.report(bigint, integer, jsonb) IS
'What happened on a node since its last report: an array of events {kind, handle, run_id, age, ...} of the kinds started, session, activity,
exited, log, session_closed.  Errors: WK001 the node was fenced.';

CREATE OR REPLACE FUNCTION bgw.log_events(node_name text, events jsonb) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO bgw.log (logged_at, node, process_id, name, owner, severity, sqlstate, message, detail, hint, context)
    SELECT bgw.now() - event.age * interval '1 ms', node_name, event.handle, coalesce(process.name, event.name), coalesce(process.owner, bgw.current_owner()),
           event.severity, event.sqlstate, event.message, event.detail, event.hint, event.context
    FROM ROWS FROM (pg_catalog.jsonb_to_recordset(events)
         AS (kind text, handle bigint, name text, age double precision, severity text, sqlstate text, message text, detail text, hint text, context text)) WITH ORDINALITY
         AS event (kind, handle, name, age, severity, sqlstate, message, detail, hint, context, number)
    LEFT JOIN bgw.process ON process.id = event.handle
    WHERE event.kind = 'log' ORDER BY event.number;
END;
$$;
COMMENT ON FUNCTION bgw.log_events(text, jsonb) IS 'The log lines among the events of a report -> bgw.log.';
