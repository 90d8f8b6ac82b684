/** The session that a spare process has at hand: what the worker that takes it over gets, and when it goes. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { connectionConfig } from '../src/connection.ts';
import { Spares } from '../src/hosts/spares.ts';
import { findPackageRoot } from '../src/package-root.ts';
import {
  expect,
  nothingLeft,
  spawnController,
  test as controllerTest,
  type TestController,
} from './support/controller.ts';
import type { TestDatabase } from './support/database.ts';
import { until } from './support/until.ts';

const LIBRARIES = join(findPackageRoot(), 'test', 'fixtures', 'sessions');

const test = controllerTest.extend<{ controller: TestController }>({
  controller: async ({ startController }, use) => {
    await use(await startController({ libraryDirs: [LIBRARIES] }));
  },
});

interface Look {
  pid: number;
  handle: string;
}

/** Launches the worker; what its session was like at its begin, after RESET ALL and after DISCARD ALL. */
async function launchProbe(db: TestDatabase, name?: string): Promise<{ handle: bigint; looks: Look[] }> {
  const handle = await db.value<bigint>(`SELECT bgw_launch('session_probe', to_jsonb($1::text))`, [name]);
  const looks = await until(async () => {
    const { rows } = await db.query('SELECT message FROM bgw_log WHERE handle = $1 ORDER BY id', [handle]);
    return rows.length === 3 ? rows.map(({ message }) => JSON.parse(message) as Look) : undefined;
  });
  return { handle, looks };
}

const SPARE = `FROM pg_stat_activity WHERE application_name = 'bgw spare' AND datname = current_database()`;

/** The backend of the spare, when it has one that waits and is registered. */
async function spareBackend(db: TestDatabase): Promise<number> {
  const sql = `SELECT pid ${SPARE} AND query = 'COMMIT' AND pid IN (SELECT pid FROM bgw.session)`;
  return until(() => db.value<number>(sql), { what: 'the session of a spare' });
}

/** The processes that this one has forked. */
async function children(): Promise<number[]> {
  return (await readFile(`/proc/${process.pid}/task/${process.pid}/children`, 'utf8')).trim().split(' ').map(Number);
}

/** Waits until the process has loaded, and done what it was told. */
async function untilAtRest(pid: number | undefined): Promise<void> {
  let before = '';
  const isAtRest = async (): Promise<boolean> => {
    const ticks = (await readFile(`/proc/${pid}/stat`, 'utf8')).split(' ').slice(13, 15).join(' ');
    const isSame = ticks === before && Number.parseInt(ticks, 10) > 2;
    before = ticks;
    return isSame;
  };
  for (let looks = 0; looks < 8; looks += 1) await until(isAtRest, { what: 'a process at rest' });
}

async function spareHasNone(db: TestDatabase): Promise<void> {
  await until(() => db.value(`SELECT count(*) = 0 ${SPARE}`), { what: 'the end of the session of the spare' });
}

test('the session of a spare is to its worker as one of its own, and registered', async ({ db, controller }) => {
  const own = await launchProbe(db);
  const pid = await spareBackend(db);
  expect(await db.value('SELECT count(*)::int FROM bgw_stat_activity WHERE pid = $1', [pid])).toBe(0);
  const taken = await launchProbe(db);
  for (const look of own.looks) Object.assign(look, { pid, handle: String(taken.handle) });
  expect(taken.looks).toEqual(own.looks);
  expect(taken.looks[0]).toMatchObject({ registered: 1, application_name: 'bgworker: session_probe' });
  expect(await db.value('SELECT pid FROM bgw_stat_activity WHERE handle = $1', [taken.handle])).toBe(pid);
  await db.query('SELECT bgw_terminate($1::bigint)', [taken.handle]);
  await controller.saw('worker_exited', { handle: String(taken.handle) });
  await until(() => db.value('SELECT count(*) = 0 FROM bgw.session WHERE pid = $1', [pid]), { what: 'unregistered' });
});

test('the session of a spare has the name that its worker gives it', async ({ db, controller }) => {
  await launchProbe(db);
  const pid = await spareBackend(db);
  const { handle, looks } = await launchProbe(db, 'a name');
  const expected = { pid, handle: String(handle), application_name: 'a name' };
  expect(looks).toMatchObject([expected, expected, expected]);
  expect(controller.observations.some(({ kind }) => kind === 'worker_exited')).toBe(false);
});

test('a worker whose spare has lost its session opens one', async ({ db, controller }) => {
  await launchProbe(db);
  const pid = await spareBackend(db);
  await db.query('SELECT pg_terminate_backend($1)', [pid]);
  const { looks } = await launchProbe(db);
  expect(looks).toHaveLength(3);
  expect(looks[0]?.pid).not.toBe(pid);
  expect(controller.observations.some(({ kind }) => kind === 'worker_exited')).toBe(false);
});

test('a worker that has lost the session of its spare before it used it opens one', async ({ db, controller }) => {
  await launchProbe(db);
  const pid = await spareBackend(db);
  const handle = String(await db.value<bigint>(`SELECT bgw_launch('late')`));
  await controller.saw('worker_started', { handle });
  await until(() => db.value(`SELECT application_name = 'bgworker: late' FROM pg_stat_activity WHERE pid = $1`, [pid]));
  await db.query('SELECT pg_terminate_backend($1)', [pid]);
  await until(() => db.value('SELECT count(*) = 0 FROM bgw.session WHERE pid = $1', [pid]), { what: 'unregistered' });
  await db.query('SELECT bgw_set_latch($1::bigint)', [handle]);
  const said = await controller.saw('worker_said', { handle });
  expect(said.error.message).toBe('SELECT');
});

test('a worker that may have no session closes that of its spare', async ({ db, controller }) => {
  await launchProbe(db);
  const pid = await spareBackend(db);
  const handle = await db.value<bigint>(`SELECT bgw_launch('no_session')`);
  await controller.saw('worker_started', { handle: String(handle) });
  await spareHasNone(db);
  await until(() => db.value('SELECT count(*) = 0 FROM bgw.session WHERE pid = $1', [pid]), { what: 'unregistered' });
});

test('a spare has no session in another database than its node: DROP DATABASE finds none', async ({
  db,
  controller,
}) => {
  const other = `${db.name}_other`;
  await db.query(`CREATE DATABASE ${other} TEMPLATE template0`);
  const before = await children();
  const handle = await db.value<bigint>(`SELECT bgw_launch('resting', database => $1)`, [other]);
  await controller.saw('worker_started', { handle: String(handle) });
  const forked = async (): Promise<number[]> => (await children()).filter((pid) => !before.includes(pid));
  await until(async () => (await forked()).length === 2, { what: 'the next spare' });
  await untilAtRest((await forked())[1]);
  await db.query('SELECT bgw_terminate($1::bigint)', [handle]);
  await db.query('CALL bgw_wait_for_shutdown($1)', [handle]);
  await db.query(`DROP DATABASE ${other}`);
});

test('the session of a spare ends with a controller that is killed', async ({ db }) => {
  const node = await spawnController(db, ['--library-dir', LIBRARIES]);
  await launchProbe(db);
  await spareBackend(db);
  await node.end('SIGKILL');
  await spareHasNone(db);
  await nothingLeft(db);
});

test('the session of a spare is closed when nobody has needed it', async ({ db }) => {
  const registered: number[] = [];
  const closed: number[] = [];
  const registerSession = (pid: number): Promise<string> => Promise.resolve(String(registered.push(pid)));
  using spares = new Spares({ server: { registerSession }, onClosed: (pid) => closed.push(pid), keepFor: 1000 });
  spares.take(connectionConfig({ url: db.url, env: {} })).kill();
  await until(() => db.value<number>(`SELECT pid ${SPARE}`), { what: 'the session of a spare' });
  await spareHasNone(db);
  await until(() => closed.length === 1);
  expect(closed).toEqual(registered);
});

test('the session of a spare that cannot be registered is closed', async ({ db }) => {
  const closed: number[] = [];
  const registerSession = (): Promise<string> => Promise.reject(new Error('not registered'));
  using spares = new Spares({ server: { registerSession }, onClosed: (pid) => closed.push(pid) });
  spares.take(connectionConfig({ url: db.url, env: {} })).kill();
  await until(() => closed.length === 1, { what: 'the end of its session' });
  await spareHasNone(db);
});
