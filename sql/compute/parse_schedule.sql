-- bgw.parse_schedule: the text of a schedule -> the form that bgw.next_run (compute/cron.sql) reads, or one clear error.
-- Called by: api/next_run.sql, and whatever stores a schedule.
-- The grammar is pg_cron's, which is Vixie cron's: five fields, "$" for the last day of a month, "N seconds", "@daily" and
-- its like; and any interval.  What cron takes and then never or wrongly fires is refused here: a range that runs backwards,
-- a sixth field, a date that no year has.
-- Pure, and free of EXCEPTION blocks: a parallel worker may not start a subtransaction.

CREATE OR REPLACE FUNCTION bgw.parse_schedule(schedule text) RETURNS bit varying[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    words text[];
BEGIN
    IF schedule IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'schedule must not be null';
    END IF;
    IF pg_catalog.length(schedule) > 1000 THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('invalid schedule "%s": it is too long', bgw.shorten(schedule)),
            DETAIL = 'A schedule has at most 1000 characters.',
            HINT = bgw.schedule_hint();
    END IF;
    -- COLLATE "C": only ASCII letters have two cases (a Turkish locale would break FRI).
    words := pg_catalog.array_remove(pg_catalog.string_to_array(
        pg_catalog.translate(pg_catalog.lower(schedule COLLATE "C"), E'\t\n\x0B\f\r', '     '), ' '), '');

    IF words[1] IN ('@reboot', '@restart') AND pg_catalog.cardinality(words) = 1 THEN
        RETURN '{}';
    ELSIF words[1] LIKE '@%' THEN
        RETURN bgw.parse_cron(schedule, bgw.expand_nickname(schedule, words));
    ELSIF '*' <> ALL (words) AND pg_catalog.array_to_string(words, ' ') ~ '^(every( |$)|[-+]?[0-9.]+ ?[a-z]|[0-9]+:)' THEN
        RETURN ARRAY[bgw.parse_interval(schedule, words)::bit(64)::bit varying];
    END IF;
    RETURN bgw.parse_cron(schedule, words);
END;
$$;
COMMENT ON FUNCTION bgw.parse_schedule(text) IS
'Reads a schedule; the result is for bgw.next_run and may be stored.  Case does not matter; tabs, line ends and several spaces part words as one space does.
Cron: minute (0-59), hour (0-23), day of month (1-31, $ = the last), month (1-12, jan-dec), day of week (0-7, 0 and 7 = Sunday, sun-sat).  A field is *, a number, a range a-b,
*/n or a-b/n, or a list of these.  When neither day of month nor day of week starts with *, a day that matches one of them is enough; otherwise it must match both (so */2 in one of them narrows the other).
Interval: "10 seconds", "every 90 minutes", "2 hours", "1 day 12 hours", "90s", "01:30:00": whole seconds, at least one, at most 36500 days; months and years have no fixed length and are refused.
@yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly; @reboot, @restart.
Result: {} for @reboot; {seconds as bit(64)} for an interval; for cron {minutes, hours, days, months twice, weekdays six times, flags}, one bit for each value; flags: a day must match both fields, the hour or
the minute starts with *, the last day.
Errors: 22004 null, 22023 everything else that is not a schedule, or a date that no year has; the message names the field, DETAIL says what it may be.
Example: SELECT bgw.parse_schedule(''*/5 9-17 * * mon-fri'');';

CREATE OR REPLACE FUNCTION bgw.shorten(value text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT pg_catalog.left(line, 60) || CASE WHEN pg_catalog.length(line) > 60 THEN '...' ELSE '' END
    FROM pg_catalog.regexp_replace(value, '[[:cntrl:]]', ' ', 'g') AS line
$$;
COMMENT ON FUNCTION bgw.shorten(text) IS 'A value as an error message shows it: one line of at most 60 characters.';

CREATE OR REPLACE FUNCTION bgw.schedule_hint() RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT 'Give five fields (minute, hour, day of month, month, day of week) such as "30 3 * * mon-fri", an interval such as "90 seconds", or @daily.'::text $$;
COMMENT ON FUNCTION bgw.schedule_hint() IS 'What a schedule looks like.';

CREATE OR REPLACE FUNCTION bgw.expand_nickname(schedule text, words text[]) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    fields text[] := CASE pg_catalog.array_to_string(words, ' ')
        WHEN '@yearly' THEN '{0,0,1,1,*}'
        WHEN '@annually' THEN '{0,0,1,1,*}'
        WHEN '@monthly' THEN '{0,0,1,*,*}'
        WHEN '@weekly' THEN '{0,0,*,*,0}'
        WHEN '@daily' THEN '{0,0,*,*,*}'
        WHEN '@midnight' THEN '{0,0,*,*,*}'
        WHEN '@hourly' THEN '{0,*,*,*,*}'
    END;
BEGIN
    IF fields IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('invalid schedule "%s": unrecognized nickname', bgw.shorten(schedule)),
            HINT = 'Available nicknames: @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly, @reboot, @restart.';
    END IF;
    RETURN fields;
END;
$$;
COMMENT ON FUNCTION bgw.expand_nickname(text, text[]) IS 'The five fields that @daily and its like stand for.  Error: 22023 no such nickname.';

CREATE OR REPLACE FUNCTION bgw.parse_interval(schedule text, words text[]) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    -- A number and its unit are two words or one.
    body text := pg_catalog.regexp_replace(pg_catalog.array_to_string(words, ' '), '^every ?', '');
    part text[];
    seconds numeric := 0;
    unit_seconds integer;
BEGIN
    IF body !~ '^([0-9]{1,12}([.][0-9]{1,6})? ?[a-z]+( |$))*([0-9]{1,9}:[0-5][0-9](:[0-5][0-9])?)?$' OR body = '' THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('invalid schedule "%s": invalid interval', bgw.shorten(schedule)),
            DETAIL = 'An interval is a number and a unit (seconds, minutes, hours, days, weeks), once or several times.',
            HINT = 'Write it as in "90 seconds" or "every 1 hour 30 minutes".';
    END IF;
    FOR part IN SELECT pg_catalog.regexp_matches(body, '([0-9.]+) ?([a-z]+)', 'g') LOOP
        unit_seconds := CASE
            WHEN part[2] IN ('s', 'sec', 'secs', 'second', 'seconds') THEN 1
            WHEN part[2] IN ('m', 'min', 'mins', 'minute', 'minutes') THEN 60
            WHEN part[2] IN ('h', 'hr', 'hrs', 'hour', 'hours') THEN 3600
            WHEN part[2] IN ('d', 'day', 'days') THEN 86400
            WHEN part[2] IN ('w', 'week', 'weeks') THEN 604800
        END;
        IF unit_seconds IS NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
                MESSAGE = pg_catalog.format('invalid schedule "%s": unrecognized unit "%s" of the interval', bgw.shorten(schedule), bgw.shorten(part[2])),
                DETAIL = 'The units are seconds, minutes, hours, days and weeks.  A month or a year has no fixed length.',
                HINT = 'For months and years use cron: "0 0 1 * *" is the first day of every month.';
        END IF;
        seconds := seconds + part[1]::numeric * unit_seconds;
    END LOOP;
    part := pg_catalog.regexp_match(body, '([0-9]+):([0-9]+):?([0-9]*)$');
    IF part IS NOT NULL THEN
        seconds := seconds + part[1]::bigint * 3600 + part[2]::integer * 60 + coalesce(nullif(part[3], ''), '0')::integer;
    END IF;
    IF seconds NOT BETWEEN 1 AND 3153600000 OR seconds <> pg_catalog.trunc(seconds) THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('invalid schedule "%s": interval out of range', bgw.shorten(schedule)),
            DETAIL = 'An interval is a whole number of seconds, from 1 second to 36500 days.',
            HINT = 'For work that never stops, register a worker with a naptime.';
    END IF;
    RETURN seconds;
END;
$$;
COMMENT ON FUNCTION bgw.parse_interval(text, text[]) IS 'Seconds of an interval, given as lower-case words.  Error: 22023.';

CREATE OR REPLACE FUNCTION bgw.parse_cron(schedule text, fields text[]) RETURNS bit varying[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    minutes bit varying;
    hours bit varying;
    days bit varying;
    months bit varying;
    weekdays bit varying;
    parsed bit varying[];
BEGIN
    IF pg_catalog.cardinality(fields) <> 5 THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('invalid schedule "%s": number of fields is %s', bgw.shorten(schedule), pg_catalog.cardinality(fields)),
            DETAIL = 'A cron schedule has five fields: minute, hour, day of month, month, day of week.',
            HINT = CASE WHEN pg_catalog.cardinality(fields) > 5
                THEN 'There is no field for seconds or years.  For less than a minute give an interval such as "10 seconds".'
                ELSE bgw.schedule_hint() END;
    END IF;
    minutes := bgw.parse_field(schedule, 'minute', fields[1], 0, 59, '{}', 'The minute is a number from 0 to 59.');
    hours := bgw.parse_field(schedule, 'hour', fields[2], 0, 23, '{}', 'The hour is a number from 0 to 23.');
    days := bgw.parse_field(schedule, 'day of month', fields[3], 1, 31, pg_catalog.array_fill(NULL::text, '{31}') || '{$}'::text[],
        'The day of month is a number from 1 to 31, or $ for the last day.');
    months := bgw.parse_field(schedule, 'month', fields[4], 1, 12, '{jan,feb,mar,apr,may,jun,jul,aug,sep,oct,nov,dec}',
        'The month is a number from 1 to 12, or a name from jan to dec.');
    weekdays := bgw.parse_field(schedule, 'day of week', fields[5], 0, 7, '{sun,mon,tue,wed,thu,fri,sat}',
        'The day of week is a number from 0 to 7, where 0 and 7 are Sunday, or a name from sun to sat.');
    weekdays := (substring(weekdays FROM 1 FOR 1) | substring(weekdays FROM 8)) || substring(weekdays FROM 2 FOR 6);

    parsed := ARRAY[
        minutes, hours, substring(days FROM 1 FOR 31), months || months,
        weekdays || weekdays || weekdays || weekdays || weekdays || weekdays,
        CASE WHEN fields[3] LIKE '*%' OR fields[5] LIKE '*%' THEN B'1' ELSE B'0' END
            || CASE WHEN fields[1] LIKE '*%' OR fields[2] LIKE '*%' THEN B'1' ELSE B'0' END
            || substring(days FROM 32)];
    IF bgw.next_wall_time(parsed, timestamp '2000-01-01 00:00') IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = pg_catalog.format('invalid schedule "%s": no year has such a date', bgw.shorten(schedule)),
            DETAIL = pg_catalog.format('Day of month "%s" never comes in month "%s" with day of week "%s".',
                bgw.shorten(fields[3]), bgw.shorten(fields[4]), bgw.shorten(fields[5])),
            HINT = 'For the last day of a month write $ as the day of month.';
    END IF;
    RETURN parsed;
END;
$$;
COMMENT ON FUNCTION bgw.parse_cron(text, text[]) IS 'Reads the five fields of a cron schedule, given in lower case.  Errors: 22023.';

CREATE OR REPLACE FUNCTION bgw.parse_field(schedule text, name text, field text, low integer, high integer, names text[], allowed text) RETURNS bit varying
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    -- One bit for each number, and for a name beyond them ("$").
    bits bit varying := pg_catalog.repeat('0', greatest(high - low + 1, pg_catalog.cardinality(names)))::bit varying;
    item text;
    span text[];
    step integer;
    bounds integer[];
BEGIN
    FOREACH item IN ARRAY pg_catalog.string_to_array(field, ',') LOOP
        span := pg_catalog.regexp_match(item, '^([^/]*)(/(.*))?$');
        step := CASE WHEN span[2] IS NULL THEN 1 ELSE bgw.parse_number(span[3], 1, 999999999, '{}') END;
        bounds := CASE WHEN span[1] = '*' THEN ARRAY[low, high] ELSE
            ARRAY(SELECT bgw.parse_number(bound, low, high, names) FROM pg_catalog.unnest(pg_catalog.string_to_array(span[1], '-')) AS bound) END;
        IF step IS NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
                MESSAGE = pg_catalog.format('invalid schedule "%s": invalid step "%s" of the %s', bgw.shorten(schedule), bgw.shorten(span[3]), name),
                DETAIL = 'A step is a number from 1 to 999999999.',
                HINT = bgw.schedule_hint();
        ELSIF pg_catalog.cardinality(bounds) NOT BETWEEN 1 AND 2 OR pg_catalog.array_position(bounds, NULL) IS NOT NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
                MESSAGE = pg_catalog.format('invalid schedule "%s": invalid %s "%s"', bgw.shorten(schedule), name, bgw.shorten(coalesce(nullif(item, ''), field))),
                DETAIL = allowed,
                HINT = bgw.schedule_hint();
        ELSIF bounds[1] > bounds[2] THEN
            RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
                MESSAGE = pg_catalog.format('invalid schedule "%s": invalid %s range "%s"', bgw.shorten(schedule), name, bgw.shorten(item)),
                DETAIL = 'A range must not end before it starts.',
                HINT = 'Give two ranges in a list, such as "22-23,0-3" for the hours from 22 to 3.  Sunday at the end of a range is 7.';
        ELSIF pg_catalog.cardinality(bounds) = 1 AND span[2] IS NOT NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
                MESSAGE = pg_catalog.format('invalid schedule "%s": invalid %s "%s"', bgw.shorten(schedule), name, bgw.shorten(item)),
                DETAIL = 'Only * or a range has a step.',
                HINT = 'Give a range before the step, such as "1-5/2".';
        END IF;
        FOR value IN bounds[1]..coalesce(bounds[2], bounds[1]) BY step LOOP
            bits := pg_catalog.set_bit(bits, value - low, 1);
        END LOOP;
    END LOOP;
    RETURN bits;
END;
$$;
COMMENT ON FUNCTION bgw.parse_field(text, text, text, integer, integer, text[], text) IS
'Reads one field of a cron schedule: a bit for each value from low on.  names: for the values from low on.  allowed: the DETAIL of an error.  Errors: 22023.';

CREATE OR REPLACE FUNCTION bgw.parse_number(word text, low integer, high integer, names text[]) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT coalesce(
        (SELECT number FROM (SELECT CASE WHEN word ~ '^0*[0-9]{1,9}$' THEN word::integer END AS number) AS digits WHERE number BETWEEN low AND high),
        pg_catalog.array_position(names, word) + low - 1)
$$;
COMMENT ON FUNCTION bgw.parse_number(text, integer, integer, text[]) IS 'The number from low to high, or the name, that a word of a schedule is; NULL if it is none.';
