-- bgw_next_run, bgw_schedule_preview, bgw_schedule_validate: ask a schedule before it is used.
-- They touch no table.  Next: sql/compute/parse_schedule.sql, sql/compute/cron.sql.

CREATE OR REPLACE FUNCTION public.bgw_next_run(schedule text, after timestamptz DEFAULT bgw.now(), timezone text DEFAULT 'UTC') RETURNS timestamptz
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    PERFORM bgw.check_timezone(timezone);
    RETURN bgw.next_run(bgw.parse_schedule(schedule), after, timezone);
END;
$$;
COMMENT ON FUNCTION public.bgw_next_run(text, timestamptz, text) IS
'The first time strictly later than after at which a schedule is due; NULL for @reboot and if after is NULL or infinite.
schedule: cron ("30 3 * * mon-fri", "0 0 $ * *" = last day of the month), an interval ("10 seconds", "every 90 minutes", "2 hours"), @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly,
@reboot or @restart.  When neither day of month nor day of week starts with *, a day that matches one of them is enough.
timezone: a full IANA name; the default is UTC, whatever zone the session is in.
Fixed times (neither minute nor hour starts with *): one that a change of the clock skips is due once, right after the gap; one that the clock shows twice is due the first time.
Schedules whose minute or hour starts with * are due whenever the clock shows a time that matches, so in every real hour.
Intervals are absolute time, in steps from Monday 2001-01-01 00:00 UTC: they do not drift.
Errors: 22023 a malformed schedule or an unrecognized time zone, 22004 a null one.
Example: SELECT bgw_next_run(''0 9 * * mon-fri'', now(), ''Europe/Berlin'');';

CREATE OR REPLACE FUNCTION public.bgw_schedule_preview(schedule text, timezone text DEFAULT 'UTC', after timestamptz DEFAULT bgw.now(), n integer DEFAULT 10)
RETURNS SETOF timestamptz
LANGUAGE plpgsql STABLE ROWS 10
AS $$
DECLARE
    parsed bit varying[] := bgw.parse_schedule(schedule);
BEGIN
    PERFORM bgw.check_timezone(timezone);
    IF n < 0 THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'n must not be negative';
    END IF;
    FOR turn IN 1..coalesce(n, 0) LOOP
        after := bgw.next_run(parsed, after, timezone);
        EXIT WHEN after IS NULL;
        RETURN NEXT after;
    END LOOP;
END;
$$;
COMMENT ON FUNCTION public.bgw_schedule_preview(text, text, timestamptz, integer) IS
'The next n times at which a schedule is due, each as bgw_next_run tells it; none for @reboot.
after: the times are strictly later; default now.  n: default 10.  timezone: a full IANA name, default UTC.
Errors: 22023 a malformed schedule, an unrecognized time zone or a negative n; 22004 a null schedule or time zone.
Example: SELECT * FROM bgw_schedule_preview(''30 2 * * *'', ''America/New_York'', ''2026-03-07'', 3);';

CREATE OR REPLACE FUNCTION public.bgw_schedule_validate(schedule text, timezone text DEFAULT 'UTC') RETURNS boolean
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    parsed bit varying[] := bgw.parse_schedule(schedule);
BEGIN
    PERFORM bgw.check_timezone(timezone);
    IF parsed <> '{}' AND bgw.next_run(parsed, bgw.now(), timezone) IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('invalid schedule "%s": it is never due in time zone "%s"', bgw.shorten(schedule), timezone),
            DETAIL = 'The clock of the time zone is set forward over every time that matches.',
            HINT = 'Give numbers instead of * as minute and hour: such times are due right after the gap.';
    END IF;
    RETURN true;
END;
$$;
COMMENT ON FUNCTION public.bgw_schedule_validate(text, text) IS
'True for a schedule that can be used, otherwise an error that says what is wrong.  timezone: a full IANA name, default UTC.
Errors: 22023 a malformed schedule, a date that no year has, an unrecognized time zone; 22004 a null one.
Example: SELECT bgw_schedule_validate(''*/15 9-17 * * mon-fri'');';

CREATE OR REPLACE FUNCTION bgw.check_timezone(timezone text) RETURNS void
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    IF timezone IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'time zone must not be null';
    END IF;
    BEGIN
        PERFORM timestamptz '2001-01-01 00:00:00+00' AT TIME ZONE timezone;
        -- PostgreSQL also takes abbreviations, which have no slash, and POSIX rules, which have a digit: a fixed offset, and a
        -- trap for a misspelt name.  pg_timezone_names reads 1,200 files (20 ms), so the common names go without it.
        IF timezone ~ '^[A-Za-z_]+(/[A-Za-z_-]+)+$' OR pg_catalog.upper(timezone) IN ('UTC', 'GMT') THEN
            RETURN;
        ELSIF pg_catalog.lower(timezone) IN (SELECT pg_catalog.lower(name) FROM pg_catalog.pg_timezone_names)
            AND pg_catalog.upper(timezone) NOT IN (SELECT abbrev FROM pg_catalog.pg_timezone_abbrevs) THEN
            RETURN;
        END IF;
    EXCEPTION WHEN invalid_parameter_value THEN
        NULL; -- not recognized: said below
    END;
    RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
        MESSAGE = pg_catalog.format('unrecognized time zone "%s"', bgw.shorten(timezone)),
        DETAIL = 'A time zone is given by its full IANA name; an abbreviation such as CET stands for one offset all year.',
        HINT = 'Use a name such as "Europe/Berlin" or "UTC".  SELECT name FROM pg_timezone_names lists them.';
END;
$$;
COMMENT ON FUNCTION bgw.check_timezone(text) IS 'Raises an error unless the server knows the time zone by its full name.  Errors: 22023, 22004 null.';
