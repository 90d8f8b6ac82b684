/**
 * bgw.parse_setting and bgw.show_setting against the machinery they imitate: every text is given to set_config() on
 * a parameter of the server's own and to ours with that parameter's type, unit and limits.
 * The message texts are those of PostgreSQL 18; on other versions value, acceptance and SQLSTATE are compared.
 */
import * as fc from 'fast-check';
import pg from 'pg';
import { expect } from 'vitest';
import { test } from './support/database.ts';
import { until } from './support/until.ts';

/** What one side made of one text: a value, or an error. */
interface Answer {
  setting?: string;
  shown?: string;
  code?: string;
  message?: string;
  hint?: string;
}

interface Comparison {
  input: string;
  ours: Answer;
  theirs: Answer;
}

// A setting of 1.79769e+308 stands for the largest double, which its six digits miss: hence no limit instead.
// SHOW is asked about the text of pg_settings.setting, because that text is all that show_setting gets.  PostgreSQL
// itself does not read every such text again (2.22507e-308 is below the smallest normal double): then nothing is shown.
const COMPARE = `
  CREATE SCHEMA units_test;
  CREATE FUNCTION units_test.ours(p pg_settings, input text) RETURNS jsonb LANGUAGE plpgsql AS $$
  DECLARE
    answer text;
    message text; hint text; code text;
  BEGIN
    answer := bgw.parse_setting(p.name, p.vartype, p.unit, p.min_val, nullif(p.max_val, '1.79769e+308'), p.enumvals, input);
    RETURN jsonb_build_object('setting', answer, 'shown', bgw.show_setting(p.vartype, p.unit, answer));
  EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT, code = RETURNED_SQLSTATE;
    RETURN jsonb_build_object('code', code, 'message', message, 'hint', hint);
  END $$;
  CREATE FUNCTION units_test.theirs(parameter text, input text) RETURNS jsonb LANGUAGE plpgsql AS $$
  DECLARE
    answer text;
    message text; hint text; code text;
  BEGIN
    PERFORM set_config(parameter, input, true);
    SELECT setting INTO STRICT answer FROM pg_settings WHERE name = parameter;
    BEGIN
      RETURN jsonb_build_object('setting', answer, 'shown', set_config(parameter, answer, true));
    EXCEPTION WHEN invalid_parameter_value THEN
      RETURN jsonb_build_object('setting', answer);
    END;
  EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT, code = RETURNED_SQLSTATE;
    RETURN jsonb_build_object('code', code, 'message', message, 'hint', hint);
  END $$;
`;

const INTEGERS = [
  'deadlock_timeout', // ms, 1 .. 2147483647
  'log_min_duration_sample', // ms, -1 .. 2147483647
  'work_mem', // kB, 64 .. 2147483647
  'log_temp_files', // kB, -1 .. 2147483647
  'log_parameter_max_length_on_error', // B, -1 .. 1073741823
  'default_statistics_target', // no unit, 1 .. 10000
  'geqo_pool_size', // no unit, 0 .. 2147483647
];
// The kernel has a say in this one's value (and none on a Unix socket): only its errors are compared.
const ERRORS_ONLY = 'tcp_keepalives_idle'; // s, 0 .. 2147483647
const REALS = [
  'vacuum_cost_delay', // ms, 0 .. 100
  'geqo_seed', // no unit, 0 .. 1
  'seq_page_cost', // no unit, 0 .. the largest double
];
const BOOLEANS = ['enable_seqscan'];
const ENUMS = ['bytea_output', 'log_statement'];

// Words are parted by single spaces; the texts with a space of their own follow as a list.
const NUMBERS = [
  ...'0 -0 +0 00 1 -1 +7 --1 +-1 10 60 64 99 100 101 1000 1024 1440 3600 10000 65536 86400 3600000 86400000'.split(' '),
  ...'1048576 2147483647 2147483648 -2147483648 -2147483649 2147483647.4 2147483647.5 9223372036854775807'.split(' '),
  ...'9223372036854775808 -9223372036854775809 010 -010 08 019 0777 0o17 0b11 0x 0x10 0X1F -0x10 0xg'.split(' '),
  ...'0x7fffffff 0x80000000 0xffffffffffffffffff 0777777777777777777777777 0x1.8 0x.8 0x1p3 0x1.8p-1'.split(' '),
  ...'0x1e5 0x1.p1 0x1p 0x1.fffffffffffff8p0 0x1p-1022 0x1p1023 0x1p1024 0x1p99999999999 0x0p99999999999'.split(' '),
  ...'010.5 010e1 .5 -.5 +.5 . - + 1. 1..2 1.2.3 0.5 1.5 2.5 -0.5 -0.4 0.001 0.0004 30.1 0.1 0.3333333333'.split(' '),
  ...'1.0000005 0.00001 0.0001 123456.5 1234565 999999.5 12.345678 99.99999 1e1 1E1 1e+1 1e-1 1e 1e+ e1'.split(' '),
  ...'1e3 1e9 1e10 1e-10 1e308 1.7976931348623157e308 1.7976931348623159e308 1e309 1e-307 -1e400'.split(' '),
  ...'2.2250738585072014e-308 1e-320 1e-400 0e999999999999 1e99999999999999999999'.split(' '),
  ...'1e-99999999999999999999 1e0000000000000000000001 inf -inf INF Infinity infinit nan NaN -nan nan(1)'.split(' '),
  ...'abc NULL 1_000 1,000 १ １０ ٣ ½'.split(' '),
  ...['', '- 1', '0.'.padEnd(400, '0') + '1', '1'.padEnd(300, '0'), '1'.padEnd(400, '0'), '0'.repeat(500) + '9'],
  `1${'0'.repeat(320)}e-320`,
];
const RIGHT_UNITS = 'us ms s min h d B kB MB GB TB'.split(' ');
const WRONG_UNITS = [...'S MS Min KB kb Mb PB m mins minutes s1 % µs e x 8kB 1'.split(' '), 's s', '\u00a0', '\u2003s'];
const UNITS = [...RIGHT_UNITS, ...WRONG_UNITS];
const SPACED = ['{}', ' {}', '{} ', '\t\n\v\f\r {} \t\n\v\f\r', '\u00a0{}'];
const WORDS = [
  ...'t T tr tru true TRUE truex f fa fal fals false y ye yes YES n no NO o O on ON onn of off OFF offf 1 0'.split(' '),
  ...'2 01 00 -1 none None NONE ddl dDl mod all ALL al alle hex HEX escape Escape hex,escape'.split(' '),
  ...'ｏｎ оn İ ſ yeſ K null NULL % %s _ " \' \\ { a"b 🙂'.split(' '),
  ...['', ' ', ' on', 'on ', '\ton', ' all', 'a, b'],
];

const numbersWithUnits = [
  ...NUMBERS.flatMap((number) => SPACED.map((spaced) => spaced.replace('{}', number))),
  ...NUMBERS.flatMap((number) => RIGHT_UNITS.map((unit) => number + unit)),
  ...['0', '1', '1.5', '-1', '0x10', '08', '1e1', 'inf', '64'].flatMap((number) =>
    UNITS.flatMap((unit) => [`${number}${unit}`, `${number} ${unit}`, ` ${number}\t${unit}\n`]),
  ),
];

const anyNumber = fc.oneof(
  fc.integer().map(String),
  fc.integer({ min: 0, max: 5000 }).map(String),
  fc.double({ noNaN: true }).map(String),
  fc.double({ min: 0, max: 200, noNaN: true }).map(String),
  fc.double({ min: 0, max: 200, noNaN: true }).map((number) => number.toFixed(3)),
  fc.nat().map((number) => `0x${number.toString(16)}`),
  fc
    .tuple(fc.nat(), fc.nat(), fc.integer({ min: -40, max: 40 }))
    .map(([whole, part, power]) => `0x${whole.toString(16)}.${part.toString(16)}p${power}`),
  fc.nat({ max: 100_000 }).map((number) => `0${number.toString(8)}`),
  fc.string({ unit: fc.constantFrom(...'0123456789.eExXpP+- abfin'), maxLength: 12 }),
);
const anyText = fc.oneof(
  {
    weight: 6,
    arbitrary: fc
      .tuple(anyNumber, fc.constantFrom('', '', ' ', '\n'), fc.constantFrom('', ...UNITS))
      .map((parts) => parts.join('')),
  },
  { weight: 1, arbitrary: fc.string({ unit: 'grapheme', maxLength: 12 }) },
  { weight: 1, arbitrary: fc.constantFrom(...WORDS) },
);
// A fixed seed: a failure names its text, and the same run can be had again.
const randomTexts = fc.sample(anyText, { numRuns: 800, seed: 20240601 }).filter((text) => !text.includes('\0'));

const CASES: [parameter: string, inputs: string[]][] = [
  ...[...INTEGERS, ERRORS_ONLY, ...REALS].map((parameter): [string, string[]] => [
    parameter,
    [...numbersWithUnits, ...WORDS, ...randomTexts],
  ]),
  ...[...BOOLEANS, ...ENUMS].map((parameter): [string, string[]] => [
    parameter,
    [...WORDS, ...NUMBERS, ...randomTexts],
  ]),
];

for (const [parameter, inputs] of CASES) {
  test(`a setting like ${parameter} takes and shows what PostgreSQL takes and shows`, async ({ db }) => {
    const texts = [...new Set(inputs)];
    await db.query(COMPARE);
    const exact = (await db.query(`SELECT current_setting('server_version_num')::integer / 10000 = 18 AS exact`))
      .rows[0].exact as boolean;
    const { rows } = await db.query(
      `SELECT input, units_test.ours(parameter, input) AS ours, units_test.theirs($1, input) AS theirs
       FROM pg_settings AS parameter, unnest($2::text[]) AS input
       WHERE parameter.name = $1`,
      [parameter, texts],
    );
    expect(rows).toHaveLength(texts.length);
    const differing = (rows as Comparison[]).filter(({ ours, theirs }) =>
      differs(ours, theirs, { exact, errorsOnly: parameter === ERRORS_ONLY }),
    );
    expect(differing).toEqual([]);
  });
}

/** In the units of which a session can set no parameter, or none that reads back. They have no effect in the test server. */
const SERVER_WIDE = ['checkpoint_warning', 'log_rotation_age', 'max_slot_wal_keep_size']; // s, min, MB with -1
const SERVER_WIDE_TEXTS = [
  ...'-1 0 1 59 60 90 1440 3600 86400 0x10 010 1e3 2.5 3.5 1.5min 1.5h 0.5d 2d 36h 1500ms 90s 30.1GB 1TB 2048kB'.split(
    ' ',
  ),
  ...'1.5TB 1048576B 700kB 1h 25d -5 99999999999 5KB 5 abc'.split(' '),
  ...[' 7 s ', '8\tMB', '9 min '],
];

test(`settings like ${SERVER_WIDE.join(', ')} take and show what PostgreSQL takes and shows`, async ({ db }) => {
  await db.query(COMPARE);
  const exact = await db.value<boolean>(`SELECT current_setting('server_version_num')::integer / 10000 = 18`);
  const reload = async (): Promise<void> => {
    const before = await db.value('SELECT pg_conf_load_time()::text');
    await db.query('SELECT pg_reload_conf()');
    await until(() => db.value('SELECT pg_conf_load_time()::text <> $1', [before]));
  };
  const theirs = async (parameter: string, text: string): Promise<Answer> => {
    try {
      await db.query(`ALTER SYSTEM SET ${parameter} = ${pg.escapeLiteral(text)}`);
      return {};
    } catch (error) {
      const { code = '', message, hint = '' } = error as pg.DatabaseError;
      return { code, message, hint };
    }
  };
  try {
    for (const text of SERVER_WIDE_TEXTS) {
      const answers = new Map<string, Answer>();
      for (const parameter of SERVER_WIDE) answers.set(parameter, await theirs(parameter, text));
      if ([...answers.values()].some(({ code }) => code === undefined)) await reload();
      const { rows } = await db.query<{ name: string; ours: Answer; setting: string; shown: string }>(
        `SELECT name, units_test.ours(parameter, $2) AS ours, setting, current_setting(name) AS shown
         FROM pg_settings AS parameter WHERE name = ANY ($1)`,
        [SERVER_WIDE, text],
      );
      for (const { name, ours, setting, shown } of rows) {
        const answer = answers.get(name)?.code === undefined ? { setting, shown } : (answers.get(name) ?? {});
        if (differs(ours, answer, { exact, errorsOnly: false })) expect({ name, text, ...ours }).toEqual(answer);
      }
      expect(rows).toHaveLength(SERVER_WIDE.length);
    }
  } finally {
    for (const parameter of SERVER_WIDE) await db.query(`ALTER SYSTEM RESET ${parameter}`);
    await reload();
  }
});

test('what is shown is read as the same value, in every unit', async ({ db }) => {
  const { rows } = await db.query(
    `SELECT vartype, unit, value, bgw.show_setting(vartype, unit, value) AS shown
     FROM unnest($1::text[]) AS unit, unnest($2::text[]) AS given, (VALUES ('integer'), ('real')) AS type (vartype),
          bgw.parse_setting('a.b', vartype, unit, NULL, NULL, NULL, given) AS value
     WHERE bgw.parse_setting('a.b', vartype, unit, NULL, NULL, NULL, bgw.show_setting(vartype, unit, value)) <> value`,
    [RIGHT_UNITS, '-2147483648 -90 -1 0 1 7 59 60 999 1000 1024 1440 3600 86400 90000 123456'.split(' ')],
  );
  expect(rows).toEqual([]);
});

test('a null value is refused', async ({ db }) => {
  await expect(
    db.query(`SELECT bgw.parse_setting('a.b', 'string', NULL, NULL, NULL, NULL, NULL)`),
  ).rejects.toMatchObject({
    code: '22004',
    message: 'null value not allowed for parameter "a.b"',
  });
});

test('a type that does not exist is refused', async ({ db }) => {
  await expect(db.query(`SELECT bgw.parse_setting('a.b', 'float', NULL, NULL, NULL, NULL, '1')`)).rejects.toMatchObject(
    {
      code: '22023',
      message: 'unrecognized type "float" for parameter "a.b"',
    },
  );
});

test('a limit is told with its unit, as PostgreSQL 18 tells it', async ({ db }) => {
  await expect(
    db.query(`SELECT bgw.parse_setting('kill_idle.max_idle_time', 'integer', 's', '1', '3600', NULL, '2h')`),
  ).rejects.toMatchObject({
    code: '22023',
    message: '7200 s is outside the valid range for parameter "kill_idle.max_idle_time" (1 s .. 3600 s)',
  });
});

function differs(
  ours: Answer,
  theirs: Answer,
  { exact, errorsOnly }: { exact: boolean; errorsOnly: boolean },
): boolean {
  if (ours.code !== theirs.code) return true;
  if (theirs.code !== undefined) return exact && (ours.message !== theirs.message || ours.hint !== theirs.hint);
  if (errorsOnly) return false;
  return ours.setting !== theirs.setting || (theirs.shown !== undefined && ours.shown !== theirs.shown);
}
