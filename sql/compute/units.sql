-- bgw.parse_setting and bgw.show_setting: the text of a setting -> its value in the base unit -> what SHOW prints.
-- Called by: whatever in sql/api and sql/views takes or shows a setting (grep parse_setting, show_setting).
-- PostgreSQL counterpart: guc.c, parse_and_validate_value and ShowGUCOption; messages and hints are those of version 18.
-- Pure, and free of EXCEPTION blocks: a parallel worker may not start a subtransaction.  No backslash stands in a
-- plain literal, so that the bodies mean the same when standard_conforming_strings is off.
-- test/units.test.ts holds every answer equal to that of the server it runs on.

CREATE OR REPLACE FUNCTION bgw.parse_setting(
    name text, vartype text, unit text, min_val text, max_val text, enumvals text[], value text
)
RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
BEGIN
    IF value IS NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'null_value_not_allowed',
            MESSAGE = format('null value not allowed for parameter "%s"', name);
    END IF;

    CASE vartype
        WHEN 'bool' THEN
            RETURN bgw.parse_boolean(name, value);
        WHEN 'integer' THEN
            RETURN bgw.parse_integer(name, unit, coalesce(min_val, '-2147483648')::integer,
                                     coalesce(max_val, '2147483647')::integer, value);
        WHEN 'real' THEN
            RETURN bgw.parse_real(name, unit, coalesce(min_val, '-1.7976931348623157e308')::float8,
                                  coalesce(max_val, '1.7976931348623157e308')::float8, value);
        WHEN 'enum' THEN
            RETURN bgw.parse_enum(name, enumvals, value);
        WHEN 'string' THEN
            RETURN value;
        ELSE
            RAISE EXCEPTION USING
                ERRCODE = 'invalid_parameter_value',
                MESSAGE = format('unrecognized type "%s" for parameter "%s"', vartype, name),
                HINT = 'Available values: bool, integer, real, string, enum.';
    END CASE;
END;
$$;

COMMENT ON FUNCTION bgw.parse_setting(text, text, text, text, text, text[], text) IS
'Reads the text of a setting as PostgreSQL reads the text of a configuration parameter.
name: used in messages.  vartype: bool, integer, real, string or enum.
unit: the base unit, one of us, ms, s, min, h, d, B, kB, MB, GB, TB, or NULL for none.
min_val, max_val: limits in the base unit, NULL for the limits of the type.  enumvals: labels of an enum.
value: for instance 10s, 0.5 h, 1e3, 0x10, on.  A number without a unit is in the base unit.
Result: the value in the base unit as pg_settings.setting shows it (a real has six significant digits).
Errors: 22023 not a value of this type, wrong unit (with a HINT), or outside the limits; 22004 null value;
22P02 or 22003 when a limit itself is not a number of the type.
Example: SELECT bgw.parse_setting(''kill_idle.max_idle_time'', ''integer'', ''s'', ''1'', ''3600'', NULL, ''0.5h'');  -- 1800';

CREATE OR REPLACE FUNCTION bgw.parse_value(definition bgw.setting, value text) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
BEGIN
    RETURN bgw.parse_setting(definition.name, definition.vartype, definition.unit, definition.min_val::text,
                             definition.max_val::text, definition.enumvals, value);
END;
$$;
COMMENT ON FUNCTION bgw.parse_value(bgw.setting, text) IS
'Reads the text of a setting by its definition.  definition: a row of bgw.setting.  value: the text.
Result: the value in the base unit.  Errors: those of bgw.parse_setting.
Example: SELECT bgw.parse_value(definition, ''10s'') FROM bgw.setting AS definition WHERE unit = ''s'';';

-- parse_bool: any prefix that decides, in any case, but no spaces; "o" alone decides nothing.
CREATE OR REPLACE FUNCTION bgw.parse_boolean(name text, value text)
RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    -- COLLATE "C": as pg_strcasecmp, only ASCII letters have two cases (a Turkish locale would break ON and IN).
    word text := lower(value COLLATE "C");
BEGIN
    IF word IN ('t', 'tr', 'tru', 'true', 'y', 'ye', 'yes', 'on', '1') THEN
        RETURN 'on';
    ELSIF word IN ('f', 'fa', 'fal', 'fals', 'false', 'n', 'no', 'of', 'off', '0') THEN
        RETURN 'off';
    END IF;
    RAISE EXCEPTION USING
        ERRCODE = 'invalid_parameter_value',
        MESSAGE = format('parameter "%s" requires a Boolean value', name);
END;
$$;

COMMENT ON FUNCTION bgw.parse_boolean(text, text) IS
'Reads a Boolean setting.  name: used in the message.  value: true, yes, on, 1, false, no, off, 0 or a prefix that decides.
Result: on or off.  Errors: 22023 anything else.
Example: SELECT bgw.parse_boolean(''kill_idle.enabled'', ''TR'');  -- on';

CREATE OR REPLACE FUNCTION bgw.parse_enum(name text, enumvals text[], value text)
RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    label text;
BEGIN
    FOREACH label IN ARRAY coalesce(enumvals, '{}') LOOP
        IF lower(label COLLATE "C") = lower(value COLLATE "C") THEN
            RETURN label;
        END IF;
    END LOOP;
    RAISE EXCEPTION USING
        ERRCODE = 'invalid_parameter_value',
        MESSAGE = format('invalid value for parameter "%s": "%s"', name, value),
        HINT = format('Available values: %s.', array_to_string(enumvals, ', '));
END;
$$;

COMMENT ON FUNCTION bgw.parse_enum(text, text[], text) IS
'Finds the label of an enum setting, whatever its case.  name: used in the message.  enumvals: the labels.  value: the text.
Result: the label as it is written in enumvals.  Errors: 22023 no such label, with a HINT that lists them.
Example: SELECT bgw.parse_enum(''kill_idle.mode'', ''{cancel,terminate}'', ''Cancel'');  -- cancel';

-- parse_int: the number may have a fraction and an exponent; rounding (half to even) comes after the unit.
CREATE OR REPLACE FUNCTION bgw.parse_integer(name text, unit text, min_val integer, max_val integer, value text)
RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    number float8;
    rest text;
    hint text;
BEGIN
    SELECT scanned.number, scanned.rest INTO number, rest FROM bgw.scan_integer(value) AS scanned;
    SELECT converted.base_number, converted.hint INTO number, hint
    FROM bgw.convert_to_base_unit(number, rest, unit) AS converted;

    number := round(number);
    IF number NOT BETWEEN -2147483648 AND 2147483647 THEN
        number := NULL;
        hint := 'Value exceeds integer range.';
    END IF;
    IF number IS NULL THEN
        PERFORM bgw.reject_number(name, value, hint);
    ELSIF number NOT BETWEEN min_val AND max_val THEN
        PERFORM bgw.reject_out_of_range(name, unit, number::integer::text, min_val::text, max_val::text);
    END IF;
    RETURN number::integer::text;
END;
$$;

COMMENT ON FUNCTION bgw.parse_integer(text, text, integer, integer, text) IS
'Reads an integer setting: decimal, 0x hexadecimal, 0 octal, with a fraction or an exponent, then perhaps a unit.
name: used in messages.  unit: the base unit or NULL.  min_val, max_val: limits in the base unit.  value: the text.
Result: the integer in the base unit.  Errors: 22023 not a number, wrong unit, over 4 bytes, or outside the limits.
Example: SELECT bgw.parse_integer(''kill_idle.max_idle_time'', ''s'', 1, 3600, ''1.5min'');  -- 90';

CREATE OR REPLACE FUNCTION bgw.parse_real(name text, unit text, min_val float8, max_val float8, value text)
RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    number float8;
    rest text;
    hint text;
BEGIN
    SELECT scanned.number, scanned.rest INTO number, rest FROM bgw.scan_real(value) AS scanned;
    SELECT converted.base_number, converted.hint INTO number, hint
    FROM bgw.convert_to_base_unit(number, rest, unit) AS converted;

    IF number IS NULL THEN
        PERFORM bgw.reject_number(name, value, hint);
    ELSIF number NOT BETWEEN min_val AND max_val THEN
        PERFORM bgw.reject_out_of_range(name, unit, bgw.print_real(number),
                                        bgw.print_real(min_val), bgw.print_real(max_val));
    END IF;
    RETURN bgw.print_real(number);
END;
$$;

COMMENT ON FUNCTION bgw.parse_real(text, text, float8, float8, text) IS
'Reads a real setting: what strtod accepts (not NaN), then perhaps a unit.
name: used in messages.  unit: the base unit or NULL.  min_val, max_val: limits in the base unit.  value: the text.
Result: the number in the base unit, six significant digits.  Errors: 22023 not a number, wrong unit, or outside the limits.
Example: SELECT bgw.parse_real(''kill_idle.delay'', ''ms'', 0, 100, ''500us'');  -- 0.5';

CREATE OR REPLACE FUNCTION bgw.reject_number(name text, value text, hint text)
RETURNS void
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    message text := format('invalid value for parameter "%s": "%s"', name, value);
BEGIN
    IF hint IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = message;
    END IF;
    RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = message, HINT = hint;
END;
$$;

COMMENT ON FUNCTION bgw.reject_number(text, text, text) IS
'Raises the error for a text that is not a number.  name: the setting.  value: the text.  hint: the HINT, or NULL for none.
Result: none.  Errors: 22023 always.
Example: SELECT bgw.reject_number(''kill_idle.max_idle_time'', ''abc'', NULL);';

CREATE OR REPLACE FUNCTION bgw.reject_out_of_range(name text, unit text, number text, min_val text, max_val text)
RETURNS void
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    suffix text := coalesce(' ' || unit, '');
BEGIN
    RAISE EXCEPTION USING
        ERRCODE = 'invalid_parameter_value',
        MESSAGE = format('%s is outside the valid range for parameter "%s" (%s .. %s)',
                         number || suffix, name, min_val || suffix, max_val || suffix);
END;
$$;

COMMENT ON FUNCTION bgw.reject_out_of_range(text, text, text, text, text) IS
'Raises the error for a number outside its limits, in the words of PostgreSQL 18.
name: the setting.  unit: the base unit or NULL.  number, min_val, max_val: printed, in the base unit.
Result: none.  Errors: 22023 always.
Example: SELECT bgw.reject_out_of_range(''kill_idle.max_idle_time'', ''s'', ''7200'', ''1'', ''3600'');';

-- strtol with base 0, then strtod where guc.c says so.  Hence three surprises that are PostgreSQL's own:
-- "08" is the number 0 followed by the unit "8"; ".5" is a number but " .5" and "-.5" are not; "0x1.8" is 1.5.
CREATE OR REPLACE FUNCTION bgw.scan_integer(value text, OUT number float8, OUT rest text)
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    trimmed text := ltrim(value, E' \t\n\x0B\f\r');
    found text := substring(trimmed FROM '^[-+]?(?:0[xX][0-9a-fA-F]+|0[0-7]*)');
    digits text;
    magnitude numeric;
BEGIN
    IF found IS NOT NULL AND substr(trimmed, length(found) + 1, 1) NOT IN ('.', 'e', 'E') THEN
        digits := ltrim(found, '+-');
        magnitude := CASE WHEN digits ~ '^0[xX]' THEN bgw.read_digits(substr(digits, 3), 16)
                          ELSE bgw.read_digits(digits, 8) END;
        -- What overflows a long is read again as a real: an octal number becomes a decimal one.
        IF magnitude <= 9223372036854775807 THEN
            number := (left(translate(found, '+', ''), 1) = '-')::integer * -2 + 1;
            number := number * magnitude::float8;
            rest := substr(trimmed, length(found) + 1);
            RETURN;
        END IF;
    END IF;
    IF trimmed ~ '^[-+]?[0-9]' OR left(value, 1) = '.' THEN
        SELECT scanned.number, scanned.rest INTO number, rest FROM bgw.scan_real(value) AS scanned;
    END IF;
END;
$$;

COMMENT ON FUNCTION bgw.scan_integer(text) IS
'Reads the number at the start of a text by the rules for integer settings (C''s strtol with base 0, else strtod).
value: the text.  Result: number, NULL when there is none or it exceeds a double; rest, the text after it.  Errors: none.
Example: SELECT * FROM bgw.scan_integer(''0x10 s'');  -- 16, " s"';

CREATE OR REPLACE FUNCTION bgw.scan_real(value text, OUT number float8, OUT rest text)
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    trimmed text := ltrim(value, E' \t\n\x0B\f\r');
    sign text := substring(trimmed FROM '^[-+]');
    body text := substr(trimmed, length(coalesce(sign, '')) + 1);
    found text;
BEGIN
    found := substring(body FROM '^0[xX](?:[0-9a-fA-F]+[.]?[0-9a-fA-F]*|[.][0-9a-fA-F]+)(?:[pP][-+]?[0-9]+)?');
    IF found IS NOT NULL THEN
        number := bgw.read_hexadecimal(found);
    ELSE
        found := substring(body FROM '^(?:[0-9]+[.]?[0-9]*|[.][0-9]+)(?:[eE][-+]?[0-9]+)?');
        IF found IS NOT NULL THEN
            number := bgw.read_decimal(found);
        ELSE
            found := substring(body FROM '^[iI][nN][fF](?:[iI][nN][iI][tT][yY])?');
            number := CASE WHEN found IS NOT NULL THEN 'Infinity'::float8 END;
        END IF;
    END IF;
    IF sign = '-' THEN
        number := - number;
    END IF;
    rest := substr(body, length(found) + 1);
END;
$$;

COMMENT ON FUNCTION bgw.scan_real(text) IS
'Reads the number at the start of a text as C''s strtod does: decimal, hexadecimal, exponent, infinity.
value: the text.  Result: number, NULL when there is none, it is NaN or it exceeds a double; rest, the text after it.
Errors: none.  Example: SELECT * FROM bgw.scan_real(''1e3ms'');  -- 1000, "ms"';

-- The size is judged on the digits, before the cast, because the cast raises where strtod only says ERANGE.
CREATE OR REPLACE FUNCTION bgw.read_decimal(digits text)
RETURNS float8
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    mantissa text := substring(digits FROM '^[0-9.]+');
    exponent text := coalesce(substring(digits FROM '[eE][+]?(-?[0-9]+)$'), '0');
    whole text := split_part(mantissa, '.', 1);
    significant text := ltrim(translate(mantissa, '.', ''), '0');
    shift numeric;
BEGIN
    IF significant = '' THEN
        RETURN 0;
    END IF;
    -- An exponent of more than nine digits decides alone.
    exponent := regexp_replace(exponent, '^(-?)0+([0-9])', E'\\1\\2');
    IF length(ltrim(exponent, '-')) > 9 THEN
        RETURN NULL;
    END IF;
    -- The number is 0.significant times ten to the power of shift.
    shift := exponent::numeric + length(whole)
             - (length(translate(mantissa, '.', '')) - length(significant));
    -- Largest double plus half a step; smallest normal double (strtod reports ERANGE for subnormal ones, too).
    IF shift > 309 OR (shift = 309 AND significant COLLATE "C" >= '17976931348623158079372897140530')
       OR shift < -307 OR (shift = -307 AND significant COLLATE "C" < '22250738585072012') THEN
        RETURN NULL;
    END IF;
    RETURN ('0.' || significant || 'e' || shift)::float8;
END;
$$;

COMMENT ON FUNCTION bgw.read_decimal(text) IS
'Reads an unsigned decimal number.  digits: digits with perhaps a point and an exponent, and nothing else.
Result: the number, NULL when its size exceeds that of a normal double.  Errors: none.
Example: SELECT bgw.read_decimal(''1.5e3'');  -- 1500';

-- Exact: m * 2^-k is written as the decimal m * 5^k e-k, so that rounding happens once, in read_decimal.
CREATE OR REPLACE FUNCTION bgw.read_hexadecimal(digits text)
RETURNS float8
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    mantissa text := substring(digits FROM '^0[xX]([0-9a-fA-F.]+)');
    exponent text := coalesce(substring(digits FROM '[pP][+]?(-?[0-9]+)$'), '0');
    significant text := ltrim(translate(mantissa, '.', ''), '0');
    magnitude numeric := bgw.read_digits(left(significant, 300), 16);
    power_of_two numeric;
BEGIN
    exponent := regexp_replace(exponent, '^(-?)0+([0-9])', E'\\1\\2');
    IF significant = '' THEN
        RETURN 0;
    ELSIF length(ltrim(exponent, '-')) > 9 THEN
        RETURN NULL;
    END IF;
    -- 300 digits are 1200 bits; what is dropped after them counts only as zeros.
    power_of_two := exponent::numeric - 4 * length(split_part(mantissa, '.', 2))
                    + 4 * greatest(length(significant) - 300, 0);
    IF power_of_two NOT BETWEEN -3000 AND 3000 THEN
        RETURN NULL;
    ELSIF power_of_two >= 0 THEN
        RETURN bgw.read_decimal(trunc(magnitude * power(2::numeric, power_of_two))::text);
    END IF;
    RETURN bgw.read_decimal(trunc(magnitude * power(5::numeric, - power_of_two))::text || 'e' || power_of_two);
END;
$$;

COMMENT ON FUNCTION bgw.read_hexadecimal(text) IS
'Reads an unsigned hexadecimal number.  digits: 0x, digits with perhaps a point and a p exponent, and nothing else.
Result: the number, NULL when its size exceeds that of a normal double.  Errors: none.
Example: SELECT bgw.read_hexadecimal(''0x1.8p1'');  -- 3';

CREATE OR REPLACE FUNCTION bgw.read_digits(digits text, base integer)
RETURNS numeric
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    significant text := ltrim(lower(digits COLLATE "C"), '0');
    total numeric := 0;
BEGIN
    -- 300 digits exceed every caller's limit; without a bound the loop would cost the square of the length.
    FOR i IN 1 .. least(length(significant), 300) LOOP
        total := total * base + strpos('0123456789abcdef', substr(significant, i, 1)) - 1;
    END LOOP;
    RETURN total;
END;
$$;

COMMENT ON FUNCTION bgw.read_digits(text, integer) IS
'Reads an unsigned integer.  digits: digits of the base, of which the first 300 significant ones count.  base: 2 to 16.
Result: the integer.  Errors: none.
Example: SELECT bgw.read_digits(''1f'', 16);  -- 31';

-- A fraction such as 30.1GB is rounded to a multiple of the next smaller unit, as in convert_to_base_unit of guc.c.
-- Where a double would overflow the C code goes on with infinity; SQL would raise, hence the two guards.
CREATE OR REPLACE FUNCTION bgw.convert_to_base_unit(
    number float8, unit_text text, base_unit text, OUT base_number float8, OUT hint text
)
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    largest CONSTANT float8 := 1.7976931348623157e308;
    given_unit text := btrim(unit_text, E' \t\n\x0B\f\r');
    multiplier float8;
    step float8;
BEGIN
    IF number IS NULL OR given_unit = '' OR base_unit IS NULL THEN
        base_number := CASE WHEN given_unit = '' THEN number END;
        RETURN;
    END IF;
    SELECT conversion.multiplier, conversion.step INTO multiplier, step
    FROM bgw.unit_conversion(base_unit) AS conversion
    WHERE conversion.unit = given_unit;
    IF multiplier IS NULL THEN
        hint := CASE WHEN base_unit IN ('B', 'kB', 'MB', 'GB', 'TB')
                     THEN 'Valid units for this parameter are "B", "kB", "MB", "GB", and "TB".'
                     ELSE 'Valid units for this parameter are "us", "ms", "s", "min", "h", and "d".' END;
        RETURN;
    END IF;

    base_number := CASE WHEN multiplier > 1 AND abs(number) > largest / multiplier
                        THEN sign(number) * 'Infinity'::float8
                        ELSE number * multiplier END;
    IF step IS NOT NULL THEN
        base_number := CASE WHEN step < 1 AND abs(base_number) > largest * step
                            THEN sign(base_number) * 'Infinity'::float8
                            ELSE round(base_number / step) * step END;
    END IF;
END;
$$;

COMMENT ON FUNCTION bgw.convert_to_base_unit(float8, text, text) IS
'Converts a number with a unit to the base unit.  number: may be NULL.  unit_text: what follows it, spaces included.
base_unit: the unit of the result, NULL when the setting has none.
Result: base_number, NULL when the unit is wrong or number is NULL; hint, the units that are right.  Errors: none.
Example: SELECT base_number FROM bgw.convert_to_base_unit(0.5, ''h'', ''s'');  -- 1800';

CREATE OR REPLACE FUNCTION bgw.unit_conversion(base_unit text)
RETURNS TABLE (unit text, multiplier float8, step float8)
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    WITH known (kind, unit, size) AS (
        VALUES ('time', 'd', 86400000000::float8),
               ('time', 'h', 3600000000),
               ('time', 'min', 60000000),
               ('time', 's', 1000000),
               ('time', 'ms', 1000),
               ('time', 'us', 1),
               ('memory', 'TB', 1099511627776),
               ('memory', 'GB', 1073741824),
               ('memory', 'MB', 1048576),
               ('memory', 'kB', 1024),
               ('memory', 'B', 1)
    )
    SELECT known.unit,
           known.size / base.size,
           lead(known.size) OVER (ORDER BY known.size DESC) / base.size
    FROM known
    JOIN known AS base ON base.kind = known.kind
    WHERE base.unit = base_unit
    ORDER BY known.size DESC;
$$;

COMMENT ON FUNCTION bgw.unit_conversion(text) IS
'Lists the units that convert to a base unit, largest first.  base_unit: us, ms, s, min, h, d, B, kB, MB, GB or TB.
Result: unit; multiplier, how many base units it is; step, the multiplier of the next smaller unit.  No rows for another base.
Errors: none.  Example: SELECT * FROM bgw.unit_conversion(''s'');';

-- printf("%g"), which pg_settings, SHOW and the messages use.  to_char is called with a fixed picture that no locale
-- changes, and it rounds the double itself (a numeric in between would round twice), hence IMMUTABLE.
CREATE OR REPLACE FUNCTION bgw.print_real(number float8)
RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    scientific text;
    exponent integer;
BEGIN
    IF number = 0 OR abs(number) = 'Infinity' THEN
        RETURN number::text;
    END IF;
    scientific := ltrim(to_char(number, '9.99999EEEE'));
    exponent := split_part(scientific, 'e', 2)::integer;
    IF exponent BETWEEN -4 AND 5 THEN
        RETURN trim_scale(scientific::numeric)::text;
    END IF;
    RETURN trim_scale(split_part(scientific, 'e', 1)::numeric)::text || 'e' || split_part(scientific, 'e', 2);
END;
$$;

COMMENT ON FUNCTION bgw.print_real(float8) IS
'Prints a number with six significant digits, as C''s %g and as pg_settings.setting.  number: not NaN.
Result: the text.  Errors: none.
Example: SELECT bgw.print_real(1234567);  -- 1.23457e+06';

CREATE OR REPLACE FUNCTION bgw.show_setting(vartype text, unit text, setting text)
RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    conversion record;
    quotient float8;
BEGIN
    IF setting IS NULL OR unit IS NULL OR vartype NOT IN ('integer', 'real') OR setting::float8 <= 0 THEN
        RETURN setting;
    END IF;
    FOR conversion IN SELECT listed.unit, listed.multiplier FROM bgw.unit_conversion(unit) AS listed LOOP
        quotient := setting::float8 / conversion.multiplier;
        -- A real needs only to print as an integer: guc.c allows 1e-8.  Nothing fits: the smallest unit.
        EXIT WHEN CASE vartype WHEN 'integer' THEN round(quotient) = quotient
                               ELSE abs(round(quotient) / quotient - 1) <= 1e-8 END;
    END LOOP;
    RETURN CASE vartype WHEN 'integer' THEN quotient::bigint::text ELSE bgw.print_real(quotient) END
           || conversion.unit;
END;
$$;

COMMENT ON FUNCTION bgw.show_setting(text, text, text) IS
'Prints a setting as SHOW does, with the largest unit that divides it evenly.
vartype: bool, integer, real, string or enum.  unit: the base unit or NULL.
setting: the value in the base unit, as bgw.parse_setting returns it; zero and negative numbers get no unit.
Result: the text, NULL for a NULL setting.  Errors: 22P02 a setting that is not a number.
Example: SELECT bgw.show_setting(''integer'', ''s'', ''3600'');  -- 1h';
