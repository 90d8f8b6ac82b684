/**
 * What keeps sql/ re-creatable: only statements that can be run again, one home for every function, a manual page for
 * each.  And what keeps migrations/ inside one transaction.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { migrationNames } from '../src/migration-files.ts';
import { findPackageRoot } from '../src/package-root.ts';
import { readSqlLayer } from '../src/sql-layer.ts';
import { splitStatements, type Statement } from '../src/sql-statements.ts';

const root = findPackageRoot();
const files = [...readSqlLayer(join(root, 'sql')), ...readSqlLayer(join(root, 'sql', 'cron'), 'sql/cron')].map(
  ({ path, text }) => ({ path, statements: splitStatements(text) }),
);

const EVERYWHERE = [/^CREATE OR REPLACE (FUNCTION|PROCEDURE|VIEW) \w+\.\w+/, /^COMMENT ON /, /^GRANT /, /^REVOKE /];
const RETIRED_ONLY = [/^DROP (FUNCTION|PROCEDURE|VIEW) IF EXISTS \w+\.\w+/];
/** A worker's file also defines the worker: both are upserts by name. */
const WORKERS_ONLY = [/^SELECT public\.bgw_register\(/, /^SELECT public\.bgw_define_setting\(/];
/** CREATE OR REPLACE TRIGGER came with PostgreSQL 14. */
const TRIGGERS_ONLY = [
  /^DROP TRIGGER IF EXISTS \w+ ON cron\.\w+$/,
  /^CREATE TRIGGER \w+ INSTEAD OF [A-Z ]+ ON cron\.\w+/,
];
const TRANSACTION_CONTROL = /^(BEGIN|COMMIT|END|ROLLBACK|ABORT|START TRANSACTION|SAVEPOINT|RELEASE)\b/i;
const ROUTINE = /^CREATE OR REPLACE (?:FUNCTION|PROCEDURE) (?<name>\w+\.\w+)/;
const MAX_LINES = 80;

function allowedIn(path: string): RegExp[] {
  if (path === 'sql/retired.sql') return RETIRED_ONLY;
  if (path === 'sql/cron/triggers.sql') return [...EVERYWHERE, ...TRIGGERS_ONLY];
  return path.startsWith('sql/workers/') ? [...EVERYWHERE, ...WORKERS_ONLY] : EVERYWHERE;
}

function routines(statements: Statement[]): { name: string; statement: Statement }[] {
  return statements.flatMap((statement) => {
    const name = ROUTINE.exec(statement.text)?.groups?.['name'];
    return name === undefined ? [] : [{ name, statement }];
  });
}

describe('sql/', () => {
  test('holds no file that no install.sql names', () => {
    const present = readdirSync(join(root, 'sql'), { recursive: true, encoding: 'utf8' })
      .filter((path) => path.endsWith('.sql') && !path.endsWith('install.sql'))
      .map((path) => `sql/${path}`);
    expect(present.toSorted()).toEqual(files.map(({ path }) => path).toSorted());
  });

  test.each(files)('$path holds only statements that can be run again', ({ path, statements }) => {
    const foreign = statements.filter(({ text }) => !allowedIn(path).some((form) => form.test(text)));
    expect(foreign.map(({ text, line }) => `${path}:${line} ${text.split('\n')[0]}`)).toEqual([]);
  });

  test.each(files)('$path means the same whatever standard_conforming_strings is', ({ statements }) => {
    // Comments are written once, by migrate, which sets it.
    const literals = statements
      .filter(({ text }) => !text.startsWith('COMMENT'))
      .flatMap(({ text }) => text.replaceAll(/--.*|\bE'(?:[^'\\]|\\.|'')*'|"[^"]*"/g, '').match(/'[^']*'/g) ?? []);
    expect(literals.filter((literal) => literal.includes('\\'))).toEqual([]);
  });

  test.each(files)('$path has a comment on everything that it creates', ({ path, statements }) => {
    const commented = statements.map(({ text }) => /^COMMENT ON \w+ (?<name>\w+\.\w+)/.exec(text)?.groups?.['name']);
    const created = statements.flatMap(({ text }) => /^CREATE OR REPLACE \w+ (\w+\.\w+)/.exec(text)?.[1] ?? []);
    expect(created.filter((name) => !commented.includes(name)).map((name) => `${path}: ${name}`)).toEqual([]);
  });

  test.each(files)('$path has no comment that its source cannot be appended to', ({ statements }) => {
    const comments = statements.filter(({ text }) => text.startsWith('COMMENT ON '));
    expect(comments.filter(({ text }) => !text.endsWith("'")).map(({ text }) => text)).toEqual([]);
  });

  test('defines each function in one file only', () => {
    const homes = new Map<string, Set<string>>();
    for (const { path, statements } of files) {
      for (const { name } of routines(statements)) homes.set(name, (homes.get(name) ?? new Set()).add(path));
    }
    expect([...homes].filter(([, paths]) => paths.size > 1)).toEqual([]);
  });

  test(`has no function of more than ${MAX_LINES} lines`, () => {
    const long = files.flatMap(({ path, statements }) =>
      routines(statements)
        .map(({ name, statement }) => ({ name, lines: statement.text.split('\n').length, path }))
        .filter(({ lines }) => lines > MAX_LINES),
    );
    expect(long).toEqual([]);
  });

  test('gives every SECURITY DEFINER function a search_path of its own', () => {
    const definers = files
      .flatMap(({ statements }) => routines(statements))
      .filter(({ statement }) => /\bSECURITY\s+DEFINER\b/.test(statement.text));
    expect(
      definers
        .filter(({ statement }) => !/\bSET search_path = pg_catalog, pg_temp\b/.test(statement.text))
        .map(({ name }) => name),
    ).toEqual([]);
  });
});

test('no migration ends the transaction that bgw migrate runs it in', () => {
  const statements = ['committed', 'cron']
    .map((name) => join(root, 'migrations', name))
    .flatMap((directory) => migrationNames(directory).map((name) => readFileSync(join(directory, name), 'utf8')))
    .flatMap(splitStatements);
  expect(statements.map(({ text }) => text).filter((text) => TRANSACTION_CONTROL.test(text))).toEqual([]);
});

describe('the statement splitter', () => {
  const texts = (sql: string): string[] => splitStatements(sql).map(({ text }) => text);

  test.each([
    ['SELECT 1; SELECT 2', ['SELECT 1', 'SELECT 2']],
    ["SELECT ';''' ; SELECT 2;", ["SELECT ';'''", 'SELECT 2']],
    [String.raw`SELECT E'\';' ; SELECT 2`, [String.raw`SELECT E'\';'`, 'SELECT 2']],
    [String.raw`SELECT '\'; SELECT 2`, [String.raw`SELECT '\'`, 'SELECT 2']],
    ['SELECT 1 AS ";" ; SELECT 2', ['SELECT 1 AS ";"', 'SELECT 2']],
    ['DO $$ ; $$; DO $a$ $$ ; $$ $a$', ['DO $$ ; $$', 'DO $a$ $$ ; $$ $a$']],
    ['SELECT a$b$ FROM x; SELECT $1', ['SELECT a$b$ FROM x', 'SELECT $1']],
    ['/* a; /* b; */ c; */ SELECT 1 /* ; */ + 1 -- ;\n; -- end', ['SELECT 1 /* ; */ + 1']],
    ["SELECT name'x;' ; ;;", ["SELECT name'x;'"]],
    ['', []],
    ["SELECT 'open; ", ["SELECT 'open; "]],
  ])('splits %j', (sql, expected) => {
    expect(texts(sql)).toEqual(expected);
  });

  test('tells where a statement begins', () => {
    expect(splitStatements('-- a\n\nSELECT 1;\n  SELECT 2')).toEqual([
      { text: 'SELECT 1', offset: 6, line: 3 },
      { text: 'SELECT 2', offset: 18, line: 4 },
    ]);
  });
});
