-- The two policies of a schedule in words, and the next due time of one.  No table: values in, value out.
-- Called by api/schedule.sql when a schedule is defined and by control/tick_schedules.sql when it is due.

CREATE OR REPLACE FUNCTION bgw.overlap_limit(on_overlap text) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT pg_catalog.substring(on_overlap, '^parallel ([1-9][0-9]{0,3})$')::integer $$;
COMMENT ON FUNCTION bgw.overlap_limit(text) IS 'The N of "parallel N"; NULL for the other policies.';

CREATE OR REPLACE FUNCTION bgw.missed_limit(on_missed text) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT pg_catalog.substring(on_missed, '^run all up to ([1-9][0-9]{0,3})$')::integer $$;
COMMENT ON FUNCTION bgw.missed_limit(text) IS 'The N of "run all up to N"; NULL for the other policies.';

CREATE OR REPLACE FUNCTION bgw.next_due(schedule bgw.schedule, after timestamptz) RETURNS timestamptz
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    due timestamptz := CASE WHEN schedule.at > after THEN schedule.at END;
    start timestamptz := greatest(after, schedule.valid_from - interval '1 us');
BEGIN
    IF schedule.at IS NULL THEN
        due := bgw.next_run(schedule.parsed, start, schedule.timezone);
        -- Whole days are left out at a time.
        WHILE (due AT TIME ZONE schedule.timezone)::date = ANY (schedule.exceptions) LOOP
            due := bgw.next_run(schedule.parsed, greatest(due, bgw.day_after(due, schedule.timezone) - interval '1 us'), schedule.timezone);
        END LOOP;
    END IF;
    RETURN CASE WHEN due <= schedule.valid_until THEN due WHEN schedule.valid_until IS NULL THEN due END;
END;
$$;
COMMENT ON FUNCTION bgw.next_due(bgw.schedule, timestamptz) IS
'The first due time of a schedule after that time, within its valid_from and valid_until and not on a day of its exceptions.  NULL: none.';

CREATE OR REPLACE FUNCTION bgw.day_after(moment timestamptz, timezone text) RETURNS timestamptz
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    day timestamp := pg_catalog.date_trunc('day', moment AT TIME ZONE timezone) + interval '1 day';
    midnight timestamptz := day AT TIME ZONE timezone;
    -- Of a midnight that is shown twice PostgreSQL takes the later one; this is the one by the clock of the day before.
    earlier timestamptz := (day - bgw.utc_offset(midnight - interval '1 day', timezone)) AT TIME ZONE 'UTC';
BEGIN
    RETURN CASE WHEN earlier < midnight AND earlier AT TIME ZONE timezone >= day THEN earlier ELSE midnight END;
END;
$$;
COMMENT ON FUNCTION bgw.day_after(timestamptz, text) IS 'When the clock of a zone shows the next day for the first time.  Error: 22023 unrecognized time zone.';

CREATE OR REPLACE FUNCTION bgw.may_be_due(schedule bgw.schedule, moment timestamptz) RETURNS boolean
LANGUAGE sql STABLE
AS $$
    SELECT coalesce(moment >= schedule.valid_from, true) AND coalesce(moment <= schedule.valid_until, true)
       AND (moment AT TIME ZONE schedule.timezone)::date <> ALL (schedule.exceptions)
$$;
COMMENT ON FUNCTION bgw.may_be_due(bgw.schedule, timestamptz) IS 'Whether a moment lies within valid_from and valid_until of a schedule, and not on a day of its exceptions.';
