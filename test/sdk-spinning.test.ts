/** A worker that never waits for anything is ended like any other. */
import { join } from 'node:path';
import { findPackageRoot } from '../src/package-root.ts';
import { expect, nothingLeft, spawnController, test } from './support/controller.ts';
import type { TestDatabase } from './support/database.ts';
import { until } from './support/until.ts';

const libraryDirs = [join(findPackageRoot(), 'test', 'fixtures', 'spinning')];

/** Starts one, and waits until it spins. */
async function spin(db: TestDatabase, name: string): Promise<bigint> {
  const handle = await db.value<bigint>('SELECT bgw_launch($1)', [name]);
  await until(() => db.value(`SELECT true FROM bgw_log WHERE handle = $1 AND message = 'spins'`, [handle]));
  return handle;
}

test('SIGTERM arrives', async ({ db, startController }) => {
  const controller = await startController({ libraryDirs });
  for (const name of ['napless', 'restless', 'turnless']) {
    const handle = await spin(db, name);
    await db.query('SELECT bgw_terminate($1::bigint)', [handle]);
    await controller.saw('worker_exited', { handle: String(handle) });
  }
  expect(controller.observations.filter(({ kind }) => kind === 'worker_killed')).toEqual([]);
});

test('the end of the controller arrives', async ({ db }) => {
  const node = await spawnController(db, ['--library-dir', ...libraryDirs]);
  const handle = await spin(db, 'turnless');
  const osPid = await db.value<number>('SELECT os_pid FROM bgw_stat_activity WHERE handle = $1', [handle]);
  try {
    await node.end('SIGKILL');
    await until(() => !isAlive(osPid), { what: `the end of process ${osPid}` });
  } finally {
    if (isAlive(osPid)) process.kill(osPid, 'SIGKILL');
  }
  await nothingLeft(db);
});

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}
