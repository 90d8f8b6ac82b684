-- bgw.notify_launcher: tells the launcher of a process, on the channel given at launch, that it started or exited.
-- Called by report and settle_exits, in the transaction that records it.  PostgreSQL counterpart: bgw_notify_pid, ReportBackgroundWorkerPID.
-- NOTIFY asks for no privilege: a payload names the process and its end, never an argument or a message.  It may be lost, as any ring (I10).

CREATE OR REPLACE FUNCTION bgw.notify_launcher(process bgw.process, event text, details jsonb) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    -- Names, sets and keys have at most 63 bytes, so it is far from the limit of 8000.
    IF bgw.may_notify() THEN
        PERFORM pg_catalog.pg_notify(process.notify, (pg_catalog.jsonb_build_object('handle', process.id::text, 'name', process.name,
            'set', process.worker_set, 'key', process.key, 'event', notify_launcher.event) || details)::text);
    END IF;
END;
$$;
COMMENT ON FUNCTION bgw.notify_launcher(bgw.process, text, jsonb) IS
'Sends {handle, name, set, key, event, ...details} on the channel of the process.  event: started, restarting or stopped.';

CREATE OR REPLACE FUNCTION bgw.notify_starts(events jsonb) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    -- Mostly nobody asked: say so after one look at an index.
    IF events IS NULL OR NOT EXISTS (SELECT FROM bgw.process WHERE process.notify IS NOT NULL) THEN
        RETURN;
    END IF;
    PERFORM bgw.notify_launcher(process, 'started', pg_catalog.jsonb_build_object('pid', process.pid, 'os_pid', process.os_pid))
    FROM pg_catalog.jsonb_to_recordset(events) AS event (handle bigint, run_id bigint)
    JOIN bgw.process ON process.id = ANY (ARRAY[event.handle]) AND process.run_id = event.run_id
    WHERE process.notify IS NOT NULL;
END;
$$;
COMMENT ON FUNCTION bgw.notify_starts(jsonb) IS 'The starts of a report -> notifications to those who launched them.';
