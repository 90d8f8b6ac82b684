/** A lock of shared memory that is asked for after SIGTERM: whoever waits for it ends in time, and nobody else is ended. */
import { join } from 'node:path';
import { findPackageRoot } from '../src/package-root.ts';
import { expect, spawnController, test } from './support/controller.ts';
import type { TestDatabase } from './support/database.ts';
import { until } from './support/until.ts';

const directory = join(findPackageRoot(), 'test', 'fixtures', 'lock-after-sigterm');

async function start(db: TestDatabase, name: string, arg: unknown = null): Promise<bigint> {
  const handle = await db.value<bigint>('SELECT bgw_launch($1, $2)', [name, JSON.stringify(arg)]);
  await until(() => db.value(`SELECT true FROM bgw_log WHERE handle = $1 AND message = 'ready'`, [handle]));
  return handle;
}

test.for([
  { handles: false, seen: { refused: '57P01', free: '57P01' } },
  { handles: true, seen: { refused: '57P01', free: 'had' } },
])('with a handler for it: $handles', async ({ handles, seen }, { db }) => {
  const node = await spawnController(db, ['--library-dir', directory]);
  const holder = await start(db, 'holder');
  const late = await start(db, 'late', { handles });
  await db.query('SELECT bgw_terminate($1::bigint)', [late]);
  await db.query(`CALL bgw_wait_for_shutdown($1, '20 s')`, [late]);
  const said = await until(() =>
    db.value<string>(`SELECT message FROM bgw_log WHERE handle = $1 AND message LIKE '{%'`, [late]),
  );
  expect(JSON.parse(said)).toEqual(seen);
  expect(await db.value('SELECT exit_code FROM bgw_run_history WHERE handle = $1', [late])).toBe(0);
  expect(await db.value('SELECT restarts FROM bgw_stat_activity WHERE handle = $1', [holder])).toBe(0);
  await node.end('SIGTERM');
});
