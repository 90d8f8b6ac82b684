/** bgw.transaction and its spi, as a worker uses them: statements, plans, cursors, values, subtransactions, how transactions end. */
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach } from 'vitest';
import { findPackageRoot } from '../src/package-root.ts';
import { expect, startController, test, type TestController } from './support/controller.ts';
import { createDatabase, type TestDatabase } from './support/database.ts';
import { until } from './support/until.ts';

let db: TestDatabase;
let controller: TestController;

beforeAll(async () => {
  db = await createDatabase();
  await db.query(`CREATE TABLE item (n int); CREATE SEQUENCE bumps;
    CREATE FUNCTION bump() RETURNS bigint LANGUAGE sql VOLATILE AS $$ SELECT nextval('bumps') $$`);
  controller = await startController(db, { libraryDirs: [join(findPackageRoot(), 'test', 'fixtures', 'spi')] });
});

beforeEach(async () => {
  await db.query('TRUNCATE item');
});

afterAll(async () => {
  await controller.stop();
  await db.drop();
});

/** Runs one scenario of test/fixtures/spi/spi.mjs; returns what it saw, and the items that were committed. */
async function seen(scenario: string): Promise<Record<string, unknown> & { items: number[] }> {
  const handle = await db.value<bigint>(`SELECT bgw_launch('spi', to_jsonb($1::text))`, [scenario]);
  await controller.saw('worker_exited', { handle: String(handle) });
  const said = await until(
    () =>
      db.value<string>(`SELECT message FROM bgw_log WHERE handle = $1 AND message LIKE '{%' ORDER BY id DESC LIMIT 1`, [
        handle,
      ]),
    { what: `the word of ${scenario}` },
  );
  const { rows } = await db.query<{ n: number }>('SELECT n FROM item ORDER BY n');
  return { ...(JSON.parse(said) as Record<string, unknown>), items: rows.map(({ n }) => n) };
}

test('readOnly refuses to write, cannot be switched off, and is over with its statement', async () => {
  expect(await seen('readOnly')).toEqual({
    seen: [{ n: 0 }],
    refused: '25006',
    smuggled: '25001',
    several: '42601',
    items: [10],
  });
});

test('statements that are run without waiting for each other do not come between each other', async () => {
  expect(await seen('together')).toEqual({
    read: [1, 2, 3, 4, 5],
    failed: ['25006', '25P02', '25P02'],
    items: [1, 2, 4],
  });
});

test('limit: so many rows are computed and no more', async () => {
  expect(await seen('limit')).toMatchObject({ rows: [5, 6, 7], processed: 3, computed: 3 });
});

test('a plan outlives DEALLOCATE ALL, takes a limit, and is parsed when it is prepared', async () => {
  expect(await seen('plans')).toMatchObject({ sums: [2, 3, 4], limited: 5, malformed: '42601', two: '42601' });
});

test('cursors fetch, move, are read with for await, and close', async () => {
  expect(await seen('cursors')).toMatchObject({
    first: [{ n: 1 }, { n: 2 }],
    moved: 996,
    rest: [{ n: 999 }, { n: 1000 }],
    closed: '34000',
    sum: 5_000_050_000,
    counted: [[{ n: 1 }], [], 0, [{ n: 2 }]],
    invalid: ['22023', '22023', '22023'],
    left: [],
  });
});

test('values arrive as usual or exact; a misspelt column is an error', async () => {
  const common = { numeric: '1.10', list: [1, null], json: { a: [1] }, nothing: null, yes: true };
  expect(await seen('values')).toMatchObject({
    usual: { big: '9007199254740993', bigs: [['9007199254740993', null]], at: true, times: true, ...common },
    exact: {
      big: '9007199254740993n',
      bigs: ['9007199254740993n', null],
      at: '2026-01-02 03:04:05.678901+00',
      times: ['2026-01-02 03:04:05.678901+00'],
      ...common,
    },
    byName: '1.10',
    byNumber: '1.10',
    misspelt: '42703',
    beyond: '42703',
  });
});

test('what statements RAISE is in the log with its severity, SQLSTATE and hint', async () => {
  // A default of the database hides none of them.
  await db.query(`ALTER DATABASE ${db.name} SET client_min_messages TO error`);
  await seen('notices');
  const { rows } = await db.query(
    `SELECT severity, sqlstate, message, hint FROM bgw_log WHERE name = 'spi' AND severity <> 'ERROR' AND message !~ '^({|background)' ORDER BY id DESC LIMIT 3`,
  );
  expect(rows).toEqual([
    { severity: 'LOG', sqlstate: null, message: 'noted', hint: null },
    { severity: 'NOTICE', sqlstate: null, message: 'by the way', hint: null },
    { severity: 'WARNING', sqlstate: '01234', message: 'careful', hint: 'slowly' },
  ]);
});

test('the statement timestamp advances within a transaction', async () => {
  expect(await seen('timestamps')).toMatchObject({ sameTransaction: true, advances: true });
});

test('a subtransaction rolls back itself alone, nests, and keeps the error', async () => {
  expect(await seen('subtransactions')).toEqual({
    inner: ['22012'],
    outer: { code: 'XX123', detail: 'd', hint: 'h', where: 'string' },
    over: '3B001',
    items: [1, 4],
  });
});

test('a transaction says how it ends, takes nothing afterwards, and does not pass for committed', async () => {
  expect(await seen('ends')).toEqual({
    ends: ['second true', 'first true', 'third false', 'fourth true'],
    after: '25P01',
    swallowed: '25P02',
    ended: '2D000',
    overlapping: '2D000',
    goesOn: [{ one: 1 }],
    items: [20],
  });
});

test('transactions of one worker follow each other', async () => {
  expect(await seen('concurrent')).toMatchObject({ order: ['a begins', 'a ends', 'b begins', 'b ends'] });
});

test('a lost session rolls back, is reported, and the next transaction has another', async () => {
  expect(await seen('lost')).toMatchObject({
    lost: expect.stringContaining('terminat'),
    committed: [false],
    again: [{ n: 0 }],
  });
});

test('bgw.command runs what cannot run in a transaction', async () => {
  expect(await seen('command')).toEqual({ inside: '25001', several: '42601', items: [] });
});

test('a plan whose statement is gone, or has another result now, is parsed again', async () => {
  expect(await seen('stalePlans')).toMatchObject({
    seen: [{ a: 1 }, { a: 1 }, '26000', { a: 1 }, '0A000', { a: 1, b: 2 }],
  });
});

test('a channel is listened to after a transaction that was rolled back, and after DISCARD ALL', async () => {
  expect(await seen('channels')).toMatchObject({ heard: [1, 1, 'payload'] });
});
