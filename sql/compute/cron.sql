-- bgw.next_run: when a schedule is due next.  Called by: api/next_run.sql, and whatever launches what is due.
-- The parsed form comes from compute/parse_schedule.sql.  The rules for changes of the clock, and why they are so, stand in
-- docs/decisions/0008-cron-and-clocks.md.
-- Fields are searched from the month down, never minute by minute.  A zone is a row of segments with one offset each; near a
-- change of the offset next_run goes through them one by one.

CREATE OR REPLACE FUNCTION bgw.next_run(parsed bit varying[], after timestamptz, timezone text) RETURNS timestamptz
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    follows_clock boolean;
    -- The segment: from, up to, its offset, the offset after it.
    segment_start timestamptz;
    segment_end timestamptz;
    utc_offset interval;
    next_offset interval;
    seen timestamp := '-infinity';
    wall timestamp;
BEGIN
    IF NOT pg_catalog.isfinite(after) OR parsed = '{}' THEN
        RETURN NULL;
    ELSIF pg_catalog.cardinality(parsed) = 1 THEN
        RETURN bgw.next_tick(parsed[1]::bit(64)::bigint, after);
    END IF;
    follows_clock := pg_catalog.get_bit(parsed[6], 1) = 1;
    -- A clock is set back by 24 hours at most: further back nothing was shown that it shows again.
    segment_start := CASE WHEN follows_clock THEN after ELSE after - interval '24 hours' END;
    utc_offset := bgw.utc_offset(segment_start, timezone);

    -- Most calls return from the first turn, or after one leap.  100 turns are more than 30 years of summers and winters.
    FOR turn IN 1..100 LOOP
        -- No zone changed its offset twice within four days.
        segment_end := greatest(segment_start, after) + interval '36 hours';
        next_offset := bgw.utc_offset(segment_end, timezone);
        IF next_offset <> utc_offset THEN
            segment_end := bgw.offset_change(segment_start, segment_end, timezone);
        END IF;
        IF wall IS NULL THEN
            wall := bgw.next_wall_time(parsed, pg_catalog.date_trunc('minute', greatest(seen,
                (greatest(after, segment_start - interval '1 us') AT TIME ZONE 'UTC') + utc_offset)) + interval '1 minute');
        END IF;

        IF (wall - utc_offset) AT TIME ZONE 'UTC' < segment_end THEN
            RETURN (wall - utc_offset) AT TIME ZONE 'UTC';
        ELSIF next_offset = utc_offset THEN
            segment_start := greatest(segment_end, (wall - interval '1 day') AT TIME ZONE timezone);
            utc_offset := bgw.utc_offset(segment_start, timezone);
        ELSE
            IF NOT follows_clock THEN
                IF wall < (segment_end AT TIME ZONE 'UTC') + next_offset AND segment_end > after THEN
                    RETURN segment_end;
                END IF;
                seen := (segment_end AT TIME ZONE 'UTC') + utc_offset - interval '1 us';
            END IF;
            segment_start := segment_end;
            utc_offset := next_offset;
            wall := NULL;
        END IF;
    END LOOP;
    RETURN NULL;
END;
$$;
COMMENT ON FUNCTION bgw.next_run(bit varying[], timestamptz, text) IS
'The first time strictly later than after at which a schedule is due; NULL for @reboot, for a time that the clock of the zone never shows, and if after is infinite.  parsed: from bgw.parse_schedule.
Cron schedules go by the clock on the wall of the time zone, as Vixie cron''s do.  Fixed times (neither minute nor hour starts with *): when the clock is set forward over one, or several, the schedule is due once,
at the first moment after the gap; when the clock is set back, times that it has shown already are not due again.  If minute or hour starts with *, the schedule is due whenever the clock shows a
time that matches: not in a gap, and in a repeated hour twice, so that "0 * * * *" is due in every real hour.
Intervals are absolute time, in steps from Monday 2001-01-01 00:00 UTC, whatever the time zone: they do not drift, and "1 day" is midnight UTC.
Error: 22023 unrecognized time zone.
Example: SELECT bgw.next_run(bgw.parse_schedule(''30 3 * * *''), now(), ''Europe/Berlin'');';

CREATE OR REPLACE FUNCTION bgw.next_tick(seconds bigint, after timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE STRICT PARALLEL SAFE
AS $$
    -- Whole seconds first: a double cannot tell the last microsecond before a tick from the tick itself.
    SELECT timestamptz '2001-01-01 00:00:00+00' + interval '1 second'
        * (seconds * (pg_catalog.floor((pg_catalog.date_part('epoch', pg_catalog.date_trunc('second', after)) - 978307200) / seconds) + 1))
$$;
COMMENT ON FUNCTION bgw.next_tick(bigint, timestamptz) IS
'The first time later than after that is a whole number of steps from Monday 2001-01-01 00:00 UTC.';

CREATE OR REPLACE FUNCTION bgw.utc_offset(moment timestamptz, timezone text) RETURNS interval
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT (moment AT TIME ZONE timezone) - (moment AT TIME ZONE 'UTC')
$$;
COMMENT ON FUNCTION bgw.utc_offset(timestamptz, text) IS 'How far the clock of a zone is ahead of UTC at a moment.  Error: 22023 unrecognized time zone.';

CREATE OR REPLACE FUNCTION bgw.offset_change(earliest timestamptz, latest timestamptz, timezone text) RETURNS timestamptz
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    -- Zones change at whole seconds.
    before timestamptz := pg_catalog.date_trunc('second', earliest);
    middle timestamptz;
    utc_offset interval := bgw.utc_offset(before, timezone);
BEGIN
    WHILE latest > before + interval '1 second' LOOP
        middle := before + pg_catalog.date_trunc('second', (latest - before) / 2);
        IF bgw.utc_offset(middle, timezone) = utc_offset THEN
            before := middle;
        ELSE
            latest := middle;
        END IF;
    END LOOP;
    RETURN latest;
END;
$$;
COMMENT ON FUNCTION bgw.offset_change(timestamptz, timestamptz, text) IS
'The first moment with the offset that a zone has at latest and has not at earliest, by bisection: there must be one change between the two.';

CREATE OR REPLACE FUNCTION bgw.next_wall_time(parsed bit varying[], earliest timestamp) RETURNS timestamp
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    month timestamp := pg_catalog.date_trunc('month', earliest);
    day integer := pg_catalog.date_part('day', earliest);
    hour integer := pg_catalog.date_part('hour', earliest);
    minute integer := pg_catalog.date_part('minute', earliest);
    first_hour integer := position(B'1' IN parsed[2]) - 1;
    first_minute integer := position(B'1' IN parsed[1]) - 1;
    days bit varying;
    steps integer;
BEGIN
    -- position() in what is left of a field: 1 is the value itself, 0 none.
    steps := CASE WHEN pg_catalog.get_bit(parsed[2], hour) = 1 THEN position(B'1' IN substring(parsed[1] FROM minute + 1)) ELSE 0 END;
    IF steps > 0 THEN
        minute := minute + steps - 1;
    ELSE
        minute := first_minute;
        steps := position(B'1' IN substring(parsed[2] FROM hour + 2));
        IF steps > 0 THEN
            hour := hour + steps;
        ELSE
            hour := first_hour;
            day := day + 1;
        END IF;
    END IF;

    -- After 400 years, 4800 months, the calendar repeats itself.
    FOR turn IN 0..4800 LOOP
        steps := position(B'1' IN substring(parsed[4] FROM pg_catalog.date_part('month', month)::integer)) - 1;
        IF steps = 0 THEN
            days := bgw.days_of_month(parsed, month);
            steps := position(B'1' IN substring(days FROM day));
            IF steps > 0 THEN
                IF turn > 0 OR steps > 1 THEN
                    hour := first_hour;
                    minute := first_minute;
                END IF;
                RETURN month + pg_catalog.make_interval(days => day + steps - 2, hours => hour, mins => minute);
            END IF;
            steps := 1;
        END IF;
        month := month + pg_catalog.make_interval(months => steps);
        day := 1;
    END LOOP;
    RETURN NULL;
END;
$$;
COMMENT ON FUNCTION bgw.next_wall_time(bit varying[], timestamp) IS
'The first minute, not before earliest (a whole minute), that matches the five fields of a cron schedule on a clock that is never set; NULL if no year has one.';

CREATE OR REPLACE FUNCTION bgw.days_of_month(parsed bit varying[], month timestamp) RETURNS bit varying
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    length integer := pg_catalog.date_part('day', month + interval '1 month' - interval '1 day');
    days bit varying := substring(parsed[3] FROM 1 FOR length);
    weekdays bit varying := substring(parsed[5] FROM pg_catalog.date_part('dow', month)::integer + 1 FOR length);
BEGIN
    IF pg_catalog.get_bit(parsed[6], 2) = 1 THEN
        days := pg_catalog.set_bit(days, length - 1, 1);
    END IF;
    RETURN CASE WHEN pg_catalog.get_bit(parsed[6], 0) = 1 THEN days & weekdays ELSE days | weekdays END;
END;
$$;
COMMENT ON FUNCTION bgw.days_of_month(bit varying[], timestamp) IS 'The days of a month on which a cron schedule is due, one bit for each.  month: its first day.';
