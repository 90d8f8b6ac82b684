/** Worker sets in SQL: processes by set and key, what their launcher is told, and children of a process that ends. */
import type pg from 'pg';
import { afterAll, afterEach, beforeAll } from 'vitest';
import { expect, startController, test, type TestController } from './support/controller.ts';
import { createDatabase, onServer, type TestDatabase } from './support/database.ts';
import { until } from './support/until.ts';

// One database and one node for all of them; each leaves no process behind.
let db: TestDatabase;
let controller: TestController;

beforeAll(async () => {
  db = await createDatabase();
  controller = await startController(db);
});

afterEach(async () => {
  await db.query('SELECT bgw_terminate(id) FROM bgw.process');
  await until(() => db.value('SELECT NOT EXISTS (SELECT FROM bgw.process)'), { what: 'the end of every process' });
});

afterAll(async () => {
  await controller.stop();
  await db.drop();
});

async function shutdown(handle: bigint): Promise<void> {
  await db.query(`CALL bgw_wait_for_shutdown($1, '20 s')`, [handle]);
}

async function isRegistered(handle: bigint): Promise<boolean> {
  return db.value('SELECT EXISTS (SELECT FROM bgw.process WHERE id = $1)', [handle]);
}

/** Runs until it is terminated. */
const SLEEP = `bgw_launch_sql('SELECT pg_sleep(600)', set => $1, key => $2)`;

test('set and key are words of SQL that need no quotes, and are shown', async () => {
  const handle = await db.value<bigint>(`SELECT bgw_launch('hello_world', set => 'apply', key => 'sub1')`);
  expect(await db.value(`SELECT bgw_get_handle('apply', 'sub1')`)).toBe(handle);
  expect(await db.value(`SELECT bgw_get_handle('apply', 'sub2')`)).toBe(null);
  const shown = `SELECT name, worker_set, key FROM bgw_stat_activity WHERE worker_set = 'apply'`;
  expect((await db.query(shown)).rows).toEqual([{ name: 'hello_world', worker_set: 'apply', key: 'sub1' }]);
  const short = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1', set => 'apply', key => 'sub2')`);
  await controller.saw('worker_exited', { handle: String(short) });
  await shutdown(short);
  expect((await db.query('SELECT worker_set, key FROM bgw_run_history WHERE handle = $1', [short])).rows).toEqual([
    { worker_set: 'apply', key: 'sub2' },
  ]);
});

test('a key that the set has is refused with one clear error, and free again after the end', async () => {
  const handle = await db.value<bigint>(`SELECT ${SLEEP}`, ['apply', "o'sub"]);
  for (const launch of [`bgw_launch('hello_world', set => $1, key => $2)`, SLEEP]) {
    await expect(db.query(`SELECT ${launch}`, ['apply', "o'sub"])).rejects.toMatchObject({
      code: '42710',
      message: `worker set "apply" already has a process with key "o'sub"`,
      detail: `It is handle ${handle}, worker "sql".`,
      hint: `bgw_get_handle('apply', 'o''sub') finds it, bgw_terminate_set('apply', 'o''sub') ends it.`,
    });
  }
  await db.query(`SELECT ${SLEEP}, ${SLEEP.replace('$1', `'other'`)}`, ['apply', 'sub2']);
  await controller.saw('worker_started', { handle: String(handle) });
  await db.query(`SELECT bgw_terminate_set('apply', key => $1)`, ["o'sub"]);
  await db.query(`CALL bgw_wait_for_shutdown(bgw_get_handle('apply', $1), '20 s')`, ["o'sub"]);
  expect(await db.value<bigint>(`SELECT ${SLEEP}`, ['apply', "o'sub"])).toBeGreaterThan(handle);
});

test('of eight sessions that launch the same key at once one wins, and no node waits for them', async () => {
  const clients = await Promise.all(Array.from({ length: 8 }, () => db.client()));
  for (const client of clients) await client.query('BEGIN');
  const launches = clients.map((client) => client.query(`SELECT ${SLEEP}`, ['apply', 'one']));
  const first = await Promise.race(
    launches.map(async (launch, index) => {
      await launch;
      return index;
    }),
  );
  // The others wait for the winner, whose transaction is open; the node goes on.
  await until(() =>
    db.value(
      `SELECT count(*) = 7 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'transactionid'`,
    ),
  );
  const other = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1')`);
  await controller.saw('worker_exited', { handle: String(other) });
  await clients[first]?.query('COMMIT');
  const outcomes = await Promise.allSettled(launches);
  expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
  for (const outcome of outcomes)
    if (outcome.status === 'rejected') expect(outcome.reason).toMatchObject({ code: '42710' });
  expect(await db.value(`SELECT count(*)::int FROM bgw.process WHERE worker_set = 'apply'`)).toBe(1);
});

test('a launch that waits for one that is rolled back succeeds', async () => {
  const [first, second] = await Promise.all([db.client(), db.client()]);
  await first.query('BEGIN');
  await first.query(`SELECT ${SLEEP}`, ['apply', 'one']);
  const waiting = second.query<{ handle: bigint }>(`SELECT ${SLEEP} AS handle`, ['apply', 'one']);
  await until(() =>
    db.value(
      `SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'transactionid'`,
    ),
  );
  await first.query('ROLLBACK');
  const { rows } = await waiting;
  expect(await db.value(`SELECT bgw_get_handle('apply', 'one')`)).toBe(rows[0]?.handle);
});

test('what cannot be is refused', async () => {
  const long = 'x'.repeat(64);
  for (const [args, message] of [
    [`set => 'apply'`, 'worker "hello_world" needs both a worker set and a key'],
    [`key => 'one'`, 'worker "hello_world" needs both a worker set and a key'],
    [`set => '', key => 'one'`, 'invalid worker set: ""'],
    [`set => 'apply', key => E'a\\nb'`, 'invalid key: "a\\nb"'],
    [`notify => ''`, 'invalid channel: ""'],
    [`notify => '${long}'`, `invalid channel: "${long}"`],
    [`when_parent_ends => 'mourn'`, 'worker "hello_world": unrecognized when_parent_ends "mourn"'],
    [`when_parent_ends => NULL`, 'worker "hello_world": unrecognized when_parent_ends ""'],
  ] as const)
    await expect(db.query(`SELECT bgw_launch('hello_world', ${args})`), args).rejects.toMatchObject({
      code: '22023',
      message,
    });
  await db.query(`SELECT bgw_launch('hello_world', set => $1, key => $1, notify => $1)`, [long.slice(1)]);
});

test('bgw_signal_set and bgw_terminate_set reach a key, or all of the set', async () => {
  const handles: bigint[] = [];
  for (const key of ['a', 'b', 'c']) handles.push(await db.value<bigint>(`SELECT ${SLEEP}`, ['copy', key]));
  const [a = 0n, ...others] = handles;
  for (const handle of handles) await controller.saw('worker_started', { handle: String(handle) });
  expect(await db.value(`SELECT bgw_signal_set('copy', 'SIGINT', key => 'a')`)).toBe(true);
  await shutdown(a);
  expect(await db.value('SELECT sqlstate FROM bgw_run_history WHERE handle = $1', [a])).toBe('57014');
  for (const handle of others) expect(await isRegistered(handle)).toBe(true);
  expect(await db.value(`CALL bgw_wait_for_shutdown(bgw_get_handle('copy', 'b'), '50 ms')`)).toBe('started');
  await expect(db.query(`SELECT bgw_signal_set('copy', 'SIGKILL')`)).rejects.toMatchObject({ code: '22023' });
  expect(await db.value(`SELECT bgw_terminate_set('copy')`)).toBe(true);
  for (const handle of others) await shutdown(handle);
  const client = await db.client();
  const warnings: (string | undefined)[] = [];
  client.on('notice', ({ message }) => warnings.push(message));
  const { rows } = await client.query(
    `SELECT bgw_terminate_set('copy') AS set, bgw_signal_set('copy', 'SIGHUP', key => 'b') AS key`,
  );
  expect(rows).toEqual([{ set: false, key: false }]);
  expect(warnings).toEqual(['worker set "copy" has no process', 'worker set "copy" has no key "b"']);
});

test('the same set and key of another role is another process', async () => {
  const own = await db.value<bigint>(`SELECT ${SLEEP}`, ['apply', 'one']);
  const role = `${db.name}_other`;
  await onServer(`CREATE ROLE ${role}`);
  await db.query('INSERT INTO bgw.login SELECT oid FROM pg_roles WHERE rolname = $1', [role]);
  await db.query(`SET ROLE ${role}`);
  expect(await db.value(`SELECT bgw_get_handle('apply', 'one')`)).toBe(null);
  const others = await db.value<bigint>(`SELECT ${SLEEP}`, ['apply', 'one']);
  // Who names a process of somebody else as parent has none.
  await db.query(`SET bgw.handle = '${own}'`);
  await db.query(`SELECT ${SLEEP}`, ['apply', 'two']);
  for (const forged of ['x', '-1', '9'.repeat(30), String(own)]) {
    await db.query(`SELECT set_config('bgw.handle', $1, false)`, [forged]);
    await db.query(`SELECT ${SLEEP}`, ['forged', forged]);
  }
  await db.query('RESET ROLE');
  // A superuser sees it, and yet it is no parent.
  await db.query(`SET bgw.handle = '${others}'`);
  await db.query(`SELECT ${SLEEP}`, ['forged', 'by a superuser']);
  expect(await db.value(`SELECT bgw_get_handle('apply', 'one')`)).toBe(own);
  expect(await db.value('SELECT count(parent_id)::int FROM bgw.process')).toBe(0);
  await expect(db.query(`SELECT bgw_get_handle('forged', 'x'), bgw_get_handle('apply', 'two')`)).resolves.toBeDefined();
  expect(others).not.toBe(own);
  await db.query('RESET bgw.handle');
  await db.query('DELETE FROM bgw.process WHERE owner <> bgw.current_owner()');
  await onServer(`DROP ROLE ${role}`);
});

test('bgw_launch takes a database for a worker that names none', async () => {
  await db.query(`SELECT bgw_register('anywhere', 'DO $$ BEGIN RAISE LOG ''in %'', current_database(); END $$')`);
  await db.query(`SELECT bgw_register('here', 'SELECT 1', database => current_database()::text)`);
  const handle = await db.value<bigint>(`SELECT bgw_launch('anywhere', database => 'postgres')`);
  await controller.saw('worker_exited', { handle: String(handle) });
  await until(() => db.value(`SELECT count(*) = 1 FROM bgw_log WHERE message = 'in postgres'`));
  await expect(db.query(`SELECT bgw_launch('here', database => 'postgres')`)).rejects.toMatchObject({
    code: '22023',
    detail: `It was registered for database "${db.name}".`,
  });
  await db.query(`SELECT bgw_register('exactly', 'SELECT 1', mode => 'atomic')`);
  await expect(db.query(`SELECT bgw_launch('exactly', database => 'postgres')`)).rejects.toMatchObject({
    code: '0A000',
  });
});

/** What is heard on a channel from now on, as objects. */
async function listen(database: TestDatabase, channel: string): Promise<Record<string, unknown>[]> {
  const listener: pg.Client = await database.client();
  const heard: Record<string, unknown>[] = [];
  listener.on('notification', ({ payload }) => heard.push(JSON.parse(payload ?? '') as Record<string, unknown>));
  await listener.query(`LISTEN "${channel}"`);
  return heard;
}

test('the launcher is told of start and exit', async () => {
  const heard = await listen(db, 'My Channel');
  const handle = await db.value<bigint>(
    `SELECT bgw_launch_sql('SELECT pg_sleep(600)', name => 'nap', set => 'naps', key => 'a "key"', notify => 'My Channel')`,
  );
  const known = { handle: String(handle), name: 'nap', set: 'naps', key: 'a "key"' };
  const started = await until(() => heard[0]);
  expect(started).toEqual({ ...known, event: 'started', pid: expect.any(Number), os_pid: null });
  expect(await db.value('SELECT pid FROM bgw_get_pid($1)', [handle])).toBe(started['pid']);
  await db.query('SELECT bgw_terminate($1::bigint)', [handle]);
  const stopped = await until(() => heard[1]);
  expect(stopped).toEqual({
    ...known,
    event: 'stopped',
    pid: started['pid'],
    status: 'cancelled',
    exit_code: 1,
    sqlstate: '57P01',
  });
  const silent = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1')`);
  await controller.saw('worker_exited', { handle: String(silent) });
  const last = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1/0', notify => 'My Channel')`);
  const exit = await until(() => heard.find(({ handle: told, event }) => told === String(last) && event === 'stopped'));
  expect(exit).toMatchObject({ sqlstate: '22012' });
  expect(heard.some(({ handle: told }) => told === String(silent))).toBe(false);
});

test('a process that starts again says so, and one that never started, too', async () => {
  const heard = await listen(db, 'told');
  await db.query(`SELECT bgw_register('fails', 'SELECT 1/0', restart_time => '0', failure_limit => 2)`);
  const handle = await db.value<bigint>(`SELECT bgw_launch('fails', notify => 'told')`);
  await controller.saw('worker_exited', { handle: String(handle) });
  // What takes a moment longer is told of as started as well.
  const exits = (): Record<string, unknown>[] => heard.filter(({ event }) => event !== 'started');
  await until(() => exits().length === 2);
  expect(exits().map(({ event, status, exit_code }) => ({ event, status, exit_code }))).toEqual([
    { event: 'restarting', status: 'failed', exit_code: 1 },
    { event: 'stopped', status: 'failed', exit_code: 1 },
  ]);
  await db.query(`SELECT bgw_terminate(bgw_launch_sql('SELECT 1', notify => 'told'))`);
  expect(await until(() => exits()[2])).toMatchObject({ event: 'stopped', status: 'cancelled', pid: null });
});

test('with notifications off on the side of the node a process starts and exits untold', async ({
  db: silent,
  startController: start,
}) => {
  const heard = await listen(silent, 'told');
  await silent.query(`ALTER DATABASE ${silent.name} SET bgw.notify = off`);
  const other = await start();
  const handle = await silent.value<bigint>(`SELECT bgw_launch_sql('SELECT 1', notify => 'told')`);
  await other.saw('worker_exited', { handle: String(handle) });
  await silent.query(`CALL bgw_wait_for_shutdown($1)`, [handle]);
  await silent.query(`NOTIFY told, '{"last": true}'`);
  expect(await until(() => heard.length > 0 && heard)).toEqual([{ last: true }]);
});

/** A SQL worker that launches two children and sleeps; a key of each says what is to become of it. */
async function launchParent(restartTime: string): Promise<bigint> {
  await db.query(`CREATE OR REPLACE PROCEDURE parent() LANGUAGE plpgsql AS $$
    BEGIN
      IF bgw_get_handle('children', 'keep') IS NULL THEN
        PERFORM bgw_launch_sql('SELECT pg_sleep(600)', set => 'children', key => choice, when_parent_ends => choice)
        FROM unnest('{keep,terminate}'::text[]) AS choice;
        COMMIT;
      END IF;
      PERFORM pg_sleep(600);
    END $$`);
  await db.query(`SELECT bgw_register('parent', 'CALL parent()', restart_time => $1)`, [restartTime]);
  const handle = await db.value<bigint>(`SELECT bgw_launch('parent')`);
  for (const key of ['keep', 'terminate']) {
    const child = await until(() => db.value<bigint | null>(`SELECT bgw_get_handle('children', $1)`, [key]));
    await controller.saw('worker_started', { handle: String(child) });
  }
  expect(
    await db.value('SELECT array_agg(DISTINCT parent_id)::text FROM bgw.process WHERE worker_set IS NOT NULL'),
  ).toBe(`{${handle}}`);
  return handle;
}

test('children of a process that is finished are kept or terminated, as they were launched', async () => {
  const parent = await launchParent('-1 s');
  const [keep, terminate] = await Promise.all(
    ['keep', 'terminate'].map((key) => db.value<bigint>(`SELECT bgw_get_handle('children', $1)`, [key])),
  );
  await db.query('SELECT bgw_terminate($1::bigint)', [parent]);
  await shutdown(terminate ?? 0n);
  expect(await db.value('SELECT sqlstate FROM bgw_run_history WHERE handle = $1', [terminate])).toBe('57P01');
  expect(await isRegistered(keep ?? 0n)).toBe(true);
});

test('children of a process that restarts after a crash stay', async () => {
  const parent = await launchParent('0');
  const before = await db.value(
    `SELECT array_agg(id ORDER BY id)::text FROM bgw.process WHERE worker_set = 'children'`,
  );
  await db.query('SELECT pg_terminate_backend(pid) FROM bgw_get_pid($1)', [parent]);
  await until(() =>
    db.value('SELECT restarts = 1 AND pid IS NOT NULL FROM bgw_stat_activity WHERE handle = $1', [parent]),
  );
  expect(await db.value(`SELECT array_agg(id ORDER BY id)::text FROM bgw.process WHERE worker_set = 'children'`)).toBe(
    before,
  );
  expect(
    await db.value(`SELECT count(*)::int FROM bgw_run_history JOIN bgw.process USING (worker_set) WHERE handle = id`),
  ).toBe(0);
});

test('children of a process that was lost with its node, and does not start again, are terminated', async ({
  db: quiet,
}) => {
  const parent = await quiet.value<bigint>(`SELECT bgw_launch_sql('SELECT pg_sleep(600)')`);
  await quiet.query(`SELECT set_config('bgw.handle', $1, false)`, [String(parent)]);
  const child = await quiet.value<bigint>(
    `SELECT bgw_launch_sql('SELECT 1', set => 'children', key => 'one', when_parent_ends => 'terminate')`,
  );
  await quiet.query(
    `SELECT bgw.settle_exits(jsonb_build_array(jsonb_build_object('handle', $1::bigint, 'lost', true)))`,
    [parent],
  );
  expect((await quiet.query('SELECT process_id, signal FROM bgw.signal')).rows).toEqual([
    { process_id: child, signal: 'SIGTERM' },
  ]);
});
