-- bgw.keep_house: partitions of the history ahead of time, old ones dropped, the log trimmed.  Called by take_orders.
-- One node does it for all when it is due; a lock that somebody holds puts it off, it never waits for one.
-- History is bounded by default: 7 days, 1,000 runs per worker and some 100,000 of bgw_launch_sql, some 1,000 due times per schedule; the log by 10,000 lines.

CREATE OR REPLACE FUNCTION bgw.keep_house() RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    UPDATE bgw.duty SET due_at = bgw.now() + interval '1 min'
    WHERE duty.name = (SELECT due.name FROM bgw.duty AS due WHERE due.name = 'keep_house' AND due.due_at <= bgw.now() FOR UPDATE SKIP LOCKED);
    IF FOUND THEN
        PERFORM bgw.partition_by_day('run', 'finished_at', (bgw.now() AT TIME ZONE 'UTC')::date);
        PERFORM bgw.partition_by_day('tick', 'due_at', (bgw.now() AT TIME ZONE 'UTC')::date);
        PERFORM bgw.trim();
        IF bgw.trim_runs() + bgw.trim_one_shots() > 0 THEN
            UPDATE bgw.duty SET due_at = bgw.now() + interval '1 s' WHERE duty.name = 'keep_house';
        END IF;
    END IF;
END;
$$;
COMMENT ON FUNCTION bgw.keep_house() IS 'Once a minute, and every second while there is more to delete than one turn may take: bounds the history and the log.  Does nothing when it is not due.';

CREATE OR REPLACE FUNCTION bgw.trim_runs() RETURNS bigint
LANGUAGE plpgsql
AS $$
DECLARE
    deleted bigint;
BEGIN
    -- Who has run among the last hundred: who runs more often is looked at more often, however many workers there are.
    DELETE FROM bgw.run USING (
        SELECT oldest.worker_id, oldest.finished_at
        FROM (SELECT DISTINCT newest.worker_id FROM (SELECT recent.worker_id FROM bgw.run AS recent ORDER BY recent.finished_at DESC LIMIT 100) AS newest
              WHERE newest.worker_id IS NOT NULL
              -- One-shots may have filled that hundred: some more, whichever.
              UNION (SELECT worker.id FROM bgw.login JOIN bgw.worker ON worker.owner = login.owner ORDER BY pg_catalog.random() LIMIT 20)) AS busy
        CROSS JOIN LATERAL (SELECT older.finished_at FROM bgw.run AS older WHERE older.worker_id = busy.worker_id
                            ORDER BY older.finished_at DESC OFFSET 1000 LIMIT 1) AS surplus
        CROSS JOIN LATERAL (SELECT older.worker_id, older.finished_at FROM bgw.run AS older
                            WHERE older.worker_id = busy.worker_id AND older.finished_at <= surplus.finished_at ORDER BY older.finished_at LIMIT 2000) AS oldest
        LIMIT 10000) AS surplus
    WHERE run.worker_id = surplus.worker_id AND run.finished_at = surplus.finished_at;
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted / 2000;
END;
$$;
COMMENT ON FUNCTION bgw.trim_runs() IS 'Deletes runs beyond the newest 1,000 of a worker, at most 10,000 in one turn.  Returns 0 if all that was found is deleted.';

CREATE OR REPLACE FUNCTION bgw.trim_one_shots() RETURNS bigint
LANGUAGE plpgsql
AS $$
DECLARE
    milestones timestamptz[] := ARRAY(SELECT run.finished_at FROM bgw.run WHERE run.worker_id IS NULL AND run.id % 1000 = 0 ORDER BY run.finished_at DESC OFFSET 100);
    surplus integer := pg_catalog.cardinality(milestones);
BEGIN
    -- Between two milestones lie about a thousand.  What was deleted is older than the oldest that is left, so it is not walked again, which
    -- an old snapshot would make slow.
    DELETE FROM bgw.run WHERE run.worker_id IS NULL AND run.finished_at >= milestones[surplus] AND run.finished_at < milestones[greatest(surplus - 25, 1)];
    RETURN greatest(surplus - 26, 0);
END;
$$;
COMMENT ON FUNCTION bgw.trim_one_shots() IS
'Deletes runs of bgw_launch_sql beyond some 100,000, about 25,000 in one turn, found by the index of every thousandth.  Returns 0 if all that was found is deleted.';

CREATE OR REPLACE FUNCTION bgw.trim() RETURNS void
LANGUAGE sql
AS $$
    -- A hundred schedules at a time, whichever: one turn stays short, however many there are.
    DELETE FROM bgw.tick USING (
        SELECT busy.schedule_id, surplus.due_at
        FROM (SELECT state.schedule_id FROM bgw.schedule_state AS state WHERE state.last_due_at > bgw.now() - interval '5 min' ORDER BY pg_catalog.random() LIMIT 100) AS busy
        CROSS JOIN LATERAL (SELECT older.due_at FROM bgw.tick AS older WHERE older.schedule_id = busy.schedule_id
                            ORDER BY older.due_at DESC OFFSET 1000 LIMIT 1) AS surplus) AS bound
    WHERE tick.schedule_id = bound.schedule_id AND tick.due_at <= bound.due_at;
    DELETE FROM bgw.log WHERE log.id <= (SELECT max(newest.id) - 10000 FROM bgw.log AS newest);
    -- By then the session of a run that was voided is long gone.
    DELETE FROM bgw.completed_run WHERE completed_run.voided_at < bgw.now() - interval '1 day';
    DELETE FROM bgw.schedule WHERE schedule.id IN (SELECT gone.id FROM bgw.schedule AS gone WHERE gone.unscheduled FOR UPDATE SKIP LOCKED);
    DELETE FROM bgw.schedule_state WHERE NOT EXISTS (SELECT FROM bgw.schedule WHERE schedule.id = schedule_state.schedule_id);
    DELETE FROM bgw.interruption WHERE interruption.requested_at < bgw.now() - bgw.interruption_time();
    DELETE FROM bgw.worker_database WHERE NOT EXISTS (SELECT FROM bgw.worker WHERE worker.id = worker_database.worker_id AND worker.scope = 'every_database');
    -- Users may hold locks on rows of bgw.worker: those are left for the next time.
    DELETE FROM bgw.worker WHERE worker.id IN (
        SELECT forgotten.id FROM bgw.worker AS forgotten
        WHERE forgotten.unregistered AND NOT EXISTS (SELECT FROM bgw.process WHERE process.worker_id = forgotten.id)
          -- Registered again, it is launched again.
          AND NOT EXISTS (SELECT FROM bgw.schedule WHERE schedule.worker_id = forgotten.id AND NOT schedule.unscheduled)
        LIMIT 10000 FOR UPDATE SKIP LOCKED);
$$;
COMMENT ON FUNCTION bgw.trim() IS
'Deletes what is beyond the bounds: due times of a schedule, log lines, atomic runs voided a day ago, unregistered workers that no schedule names.';

CREATE OR REPLACE FUNCTION bgw.partition_by_day(parent text, key text, today date) RETURNS void
LANGUAGE plpgsql
SET lock_timeout = '100ms'
SET timezone = 'UTC'
AS $$
DECLARE
    day date;
    old_partition regclass;
    problem text;
BEGIN
    IF pg_catalog.to_regclass(pg_catalog.format('bgw.%s_%s', parent, pg_catalog.to_char(today + 2, 'YYYYMMDD'))) IS NOT NULL THEN
        RETURN;  -- it was the last to be made, together with all that follows
    END IF;
    FOREACH day IN ARRAY ARRAY[today, today + 1, today + 2] LOOP
        PERFORM bgw.make_partition(parent, key, day);
    END LOOP;
    FOR old_partition IN
        SELECT inhrelid FROM pg_catalog.pg_inherits JOIN pg_catalog.pg_class ON pg_class.oid = inhrelid
        WHERE inhparent = pg_catalog.format('bgw.%I', parent)::regclass AND relname ~ '_[0-9]{8}$' AND pg_catalog.to_date(pg_catalog.right(relname, 8), 'YYYYMMDD') < today - 7
    LOOP
        EXECUTE pg_catalog.format('DROP TABLE %s', old_partition);
    END LOOP;
    EXECUTE pg_catalog.format('DELETE FROM bgw.%I WHERE %I < $1', parent || '_default', key) USING today - 7;
EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
    RETURN;  -- Somebody is reading; in a minute it is tried again, and until then the default partition takes what comes.
WHEN OTHERS THEN
    -- An event trigger that refuses DDL, say: nothing for which the workers are to stop.
    problem := pg_catalog.format('could not renew the partitions of bgw.%s: %s', parent, SQLERRM);
    INSERT INTO bgw.log (severity, sqlstate, message, detail)
    SELECT 'WARNING', SQLSTATE, problem, 'It is tried again each minute; until then the default partition takes what comes.'
    WHERE NOT EXISTS (SELECT FROM bgw.log AS earlier WHERE earlier.message = problem AND earlier.logged_at > bgw.now() - interval '1 hour');
END;
$$;
COMMENT ON FUNCTION bgw.partition_by_day(text, text, date) IS
'Makes the partitions of a history for today and the next two days, and drops those older than seven days.  What keeps it from that is a WARNING in
bgw.log, once an hour.';

CREATE OR REPLACE FUNCTION bgw.make_partition(parent text, key text, day date) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    partition text := parent || pg_catalog.to_char(day, '_YYYYMMDD');
    owner name := (SELECT pg_catalog.pg_get_userbyid(relowner) FROM pg_catalog.pg_class WHERE oid = pg_catalog.format('bgw.%I', parent)::regclass);
    is_taken boolean;
BEGIN
    EXECUTE pg_catalog.format('SELECT EXISTS (SELECT FROM bgw.%1$I WHERE %2$I >= $1 AND %2$I < $1 + 1)', parent || '_default', key) INTO is_taken USING day;
    IF is_taken OR pg_catalog.to_regclass(pg_catalog.format('bgw.%I', partition)) IS NOT NULL THEN
        RETURN;
    END IF;
    EXECUTE pg_catalog.format('CREATE TABLE bgw.%I PARTITION OF bgw.%I FOR VALUES FROM (%L) TO (%L)', partition, parent, day::timestamptz, (day + 1)::timestamptz);
    -- Through the history its policies hold; whoever has default privileges on new tables would read around them.
    EXECUTE pg_catalog.format('ALTER TABLE bgw.%I ENABLE ROW LEVEL SECURITY', partition);
    -- By a node that is a member of the owner, who alone upgrades it.
    IF owner <> current_user AND pg_catalog.pg_has_role(owner, 'MEMBER') THEN
        EXECUTE pg_catalog.format('ALTER TABLE bgw.%I OWNER TO %I', partition, owner);
    END IF;
EXCEPTION WHEN invalid_object_definition OR insufficient_privilege THEN
    RETURN;  -- Days of another time zone, of before, are in the way, or it cannot be the owner's: the default partition takes what comes.
END;
$$;
COMMENT ON FUNCTION bgw.make_partition(text, text, date) IS
'Makes the partition of a history for one day, unless the default partition has rows of it, or another one overlaps with it.';
