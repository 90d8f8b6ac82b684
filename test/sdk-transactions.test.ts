/** How transactions of a worker end, while something inside of them goes on that nobody waits for. */
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach } from 'vitest';
import { findPackageRoot } from '../src/package-root.ts';
import { expect, startController, test, type TestController } from './support/controller.ts';
import { createDatabase, type TestDatabase } from './support/database.ts';
import { until } from './support/until.ts';

const directory = join(findPackageRoot(), 'test', 'fixtures', 'transactions');
let db: TestDatabase;
let controller: TestController;

beforeAll(async () => {
  db = await createDatabase();
  await db.query('CREATE TABLE taken (run int, xid bigint DEFAULT txid_current())');
  controller = await startController(db, { libraryDirs: [directory] });
});

beforeEach(async () => {
  await db.query('TRUNCATE taken');
});

afterAll(async () => {
  await controller.stop();
  await db.drop();
});

/** Runs one scenario of transactions.mjs and returns what it saw. */
async function seen(scenario: string): Promise<Record<string, unknown>> {
  const handle = await db.value<bigint>(`SELECT bgw_launch('transactions', to_jsonb($1::text))`, [scenario]);
  await controller.saw('worker_exited', { handle: String(handle) }, 20_000);
  const said = await until(
    () => db.value<string>(`SELECT message FROM bgw_log WHERE handle = $1 AND message LIKE '{%'`, [handle]),
    { what: `the word of ${scenario}` },
  );
  return JSON.parse(said) as Record<string, unknown>;
}

/** Rows that are there, and how many transactions of a run have left some. */
async function left(): Promise<{ rows: bigint; most: bigint }> {
  const { rows } = await db.query<{ rows: bigint; most: bigint }>(
    `SELECT coalesce(sum(rows), 0)::bigint AS rows, coalesce(max(transactions), 0) AS most
     FROM (SELECT count(*) AS rows, count(DISTINCT xid) AS transactions FROM taken GROUP BY run) AS run`,
  );
  return rows[0] as { rows: bigint; most: bigint };
}

test.each(['rolledBack', 'rolledBackNested'])(
  'nothing of a transaction stays that was rolled back: %s',
  async (way) => {
    expect(await seen(way)).toEqual({ codes: ['25P01'] });
    expect(await left()).toEqual({ rows: 0n, most: 0n });
  },
);

test.each(['committed', 'committedSubtransactions'])('nothing runs behind a COMMIT: %s', async (way) => {
  expect(await seen(way)).toEqual({ codes: ['25P01'] });
  expect((await left()).most).toBeLessThanOrEqual(1n);
});

test('what was begun inside of a transaction that was committed has one of its own', async () => {
  expect(await seen('afterwards')).toEqual({ later: 'done' });
  expect(await left()).toEqual({ rows: 1n, most: 1n });
});

test('what is run beside a subtransaction is refused, rather than undone with it', async () => {
  expect(await seen('beside')).toEqual({ codes: ['2D000', '2D000', '2D000', 'inside', 'no'], behind: '25P01' });
  const { rows } = await db.query('SELECT run FROM taken');
  expect(rows).toEqual([{ run: 7 }]);
});

test('COPY FROM STDIN is refused, and the worker goes on', async () => {
  expect(await seen('copies')).toEqual({ codes: ['0A000', '0A000', '0A000', '0A000', 'no'] });
  const { rows } = await db.query('SELECT run FROM taken ORDER BY run');
  expect(rows).toEqual([{ run: 1 }, { run: 3 }]);
});

test('a channel that cannot be listened to is refused, and is not in the way of later sessions', async () => {
  expect(await seen('channels')).toEqual({
    refused: [...Array.from({ length: 6 }, () => '22023'), '22021'],
    before: [],
    after: [{ channel: 'x'.repeat(63) }],
  });
});

const idleTimeout = `SET LOCAL idle_in_transaction_session_timeout TO '10ms'`;
const endings = [
  { by: 'pg_terminate_backend', first: 'SELECT 1', next: 'SELECT 2', sqlstate: '57P01' },
  { by: 'pg_terminate_backend, before its COMMIT', first: 'SELECT 1', next: null, sqlstate: '57P01' },
  { by: 'a timeout', first: idleTimeout, next: 'SELECT 2', sqlstate: '25P03' },
];

test.each(endings)('a session that ends between two statements says why: by $by', async ({ first, next, sqlstate }) => {
  const handle = await db.value<bigint>(`SELECT bgw_launch('pausing', $1)`, [JSON.stringify({ first, next })]);
  await until(() => db.value(`SELECT true FROM bgw_log WHERE handle = $1 AND message = 'pauses'`, [handle]));
  const backend = `application_name = 'bgworker: pausing' AND datname = current_database()`;
  if (sqlstate === '57P01') await db.query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE ${backend}`);
  await until(() => db.value(`SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE ${backend})`));
  await db.query('SELECT bgw_set_latch($1)', [handle]);
  await db.query(`CALL bgw_wait_for_shutdown($1, '20 s')`, [handle]);
  const { rows } = await db.query('SELECT exit_code, sqlstate FROM bgw_run_history WHERE handle = $1', [handle]);
  expect(rows).toEqual([{ exit_code: 1, sqlstate }]);
});
