/** Ends and outages of nodes: what is left on the server, and what becomes of the workers. */
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { startEmbedded } from '../src/embedded.ts';
import { migrate } from '../src/migrate.ts';
import { expect, nothingLeft, ownBackends, spawnController, startController, test } from './support/controller.ts';
import { createDatabase, onServer, type TestDatabase } from './support/database.ts';
import { until } from './support/until.ts';

const SLEEP = 'SELECT pg_sleep(600)';

async function launch(db: TestDatabase, call: string): Promise<bigint> {
  const handle = await db.value<bigint>(`SELECT ${call}`);
  await db.query('CALL bgw_wait_for_startup($1)', [handle]);
  return handle;
}

function statusOf(db: TestDatabase, handle: bigint): Promise<string> {
  return db.value('SELECT status FROM bgw_run_history WHERE handle = $1 ORDER BY run_id DESC LIMIT 1', [handle]);
}

async function sleepers(db: TestDatabase): Promise<number> {
  return db.value(`SELECT count(*)::int FROM pg_stat_activity WHERE datname = current_database() AND query = $1`, [
    SLEEP,
  ]);
}

function isAlive(osPid: number): boolean {
  return existsSync(`/proc/${osPid}`);
}

test('SIGTERM ends the workers and leaves nothing on the server', async ({ db }) => {
  const node = await spawnController(db);
  const oneShot = await launch(db, `bgw_launch_sql('${SLEEP}')`);
  const napping = await launch(db, `bgw_launch('kill_idle')`);
  const process_ = await launch(db, `bgw_launch('hello_signal')`);
  const osPid = await db.value<number>('SELECT os_pid FROM bgw_stat_activity WHERE handle = $1', [process_]);

  expect(await node.end('SIGTERM')).toBe(0);

  await nothingLeft(db);
  expect(await sleepers(db)).toBe(0);
  expect(isAlive(osPid)).toBe(false);
  expect(await statusOf(db, oneShot)).toBe('cancelled');
  expect(await db.value('SELECT count(*)::int FROM bgw_nodes')).toBe(0);
  const { rows } = await db.query(
    'SELECT handle, status FROM bgw_stat_activity WHERE handle IS NOT NULL ORDER BY handle',
  );
  expect(rows).toEqual([napping, process_].map((handle) => ({ handle, status: 'not_yet_started' })));
});

test('what had no session to begin in when its node stopped runs on the next one', async ({ ordinary: { db } }) => {
  const limit = (connections: number): Promise<void> =>
    onServer(`ALTER DATABASE ${db.name} CONNECTION LIMIT ${connections}`);
  const first = await startController(db);
  await limit(1);
  const waiting = [
    await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1', name => 'turned away')`),
    await db.value<bigint>(`SELECT bgw_launch('hello_world')`),
  ];
  for (const handle of waiting) await first.saw('session_awaited', { handle: String(handle) });
  await first.stop();
  await limit(-1);
  const second = await startController(db);
  for (const handle of waiting) await second.saw('worker_started', { handle: String(handle) });
  await db.query('CALL bgw_wait_for_shutdown($1)', [waiting[0]]);
  expect(await statusOf(db, waiting[0] ?? 0n)).toBe('done');
  await second.stop();
});

test('workers that restart come back under their handles with the next controller', async ({ db, startController }) => {
  const first = await startController();
  const handle = await launch(db, `bgw_launch('kill_idle')`);
  await first.stop();
  const second = await startController();
  await second.saw('worker_started', { handle: String(handle) });
});

test('a controller that was killed is fenced by the next one: its statements end, its processes are settled', async ({
  db,
}) => {
  const node = await spawnController(db, ['--node-name', 'first']);
  const oneShot = await launch(db, `bgw_launch_sql('${SLEEP}')`);
  const napping = await launch(db, `bgw_launch('kill_idle')`);
  const process_ = await launch(db, `bgw_launch('hello_signal')`);
  const osPid = await db.value<number>('SELECT os_pid FROM bgw_stat_activity WHERE handle = $1', [process_]);

  await node.end('SIGKILL');
  await until(() => !isAlive(osPid), { what: 'the end of the orphaned process', deadline: 3000 });

  const next = await spawnController(db, ['--node-name', 'second']);
  await until(async () => (await sleepers(db)) === 0, { what: 'the end of the statement' });
  await until(async () => (await statusOf(db, oneShot)) === 'lost');
  for (const handle of [napping, process_]) {
    await until(() =>
      db.value(`SELECT node = 'second' AND status = 'started' FROM bgw_stat_activity WHERE handle = $1`, [handle]),
    );
  }
  expect(await db.value('SELECT array_agg(node) FROM bgw_nodes')).toEqual(['second']);
  await next.end('SIGTERM');
});

test('a controller whose sessions are all terminated comes back, says so once, and its napping workers go on', async ({
  db,
  controller,
}) => {
  await db.query('CREATE TABLE tick (at timestamptz DEFAULT clock_timestamp())');
  await db.query(`SELECT bgw_register('ticker', 'INSERT INTO tick DEFAULT VALUES', naptime => '50 ms')`);
  const handle = await launch(db, `bgw_launch('ticker')`);
  const victims = await db.client();
  await victims.query(
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE datname = current_database() AND application_name IN ('bgw control', 'bgw doorbell')`,
  );
  await controller.saw('node_resumed');
  const ticks = await db.value<bigint>('SELECT count(*) FROM tick');
  await until(async () => (await db.value<bigint>('SELECT count(*) FROM tick')) > ticks + 3n);
  expect(await db.value('SELECT status FROM bgw_get_pid($1)', [handle])).toBe('started');
  expect(controller.observations.filter(({ kind }) => kind === 'connection_lost')).toHaveLength(1);
  const next = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1')`);
  await controller.saw('worker_exited', { handle: String(next) });
});

test('a restart of the server costs a controller nothing but what ran at that moment', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'bgw-restart-'));
  const dataDir = join(directory, 'data');
  const binDir = process.env['BGW_TEST_BIN_DIR'] || undefined;
  const settings = { fsync: 'off' };
  const server = await startEmbedded({ dataDir, settings, binDir });
  const connect = async (): Promise<pg.Client> => {
    const client = new pg.Client({ connectionString: server.url });
    client.on('error', () => undefined);
    await client.connect();
    return client;
  };
  const before = await connect();
  await migrate(before);
  const database = { url: server.url } as TestDatabase;
  const node = await spawnController(database);
  await before.query(`SELECT bgw_launch('kill_idle'), bgw_launch_sql('${SLEEP}')`);
  await until(async () => (await before.query(`SELECT FROM bgw.process WHERE status = 'started'`)).rowCount === 2);

  await server.stop();
  const again = await startEmbedded({ dataDir, port: server.port, settings, binDir });
  await node.said(/is connected again/, 20_000);

  const after = await connect();
  const { rows } = await after.query(`SELECT name, status FROM bgw_stat_activity WHERE handle IS NOT NULL`);
  expect(rows).toEqual([{ name: 'kill_idle', status: 'started' }]);
  await until(
    async () =>
      (await after.query(`SELECT FROM bgw_run_history WHERE status = 'failed' AND sqlstate = '57P01'`)).rowCount === 1,
  );
  expect(node.lines.filter((line) => /connection to the server was lost/.test(String(line['msg'])))).toEqual([
    expect.objectContaining({ detail: expect.stringMatching(/./) }),
  ]);
  expect(await node.end('SIGTERM')).toBe(0);
  await Promise.all([before.end().catch(() => undefined), after.end()]);
  await again.stop();
  await rm(directory, { recursive: true, force: true });
});

test('two controllers never run a process twice, and one takes over what the other leaves (I1, I2)', async ({
  db,
  startController,
}) => {
  const [first, second] = await Promise.all([
    startController({ nodeName: 'first' }),
    startController({ nodeName: 'second' }),
  ]);
  await db.query('CREATE TABLE effect (n int)');
  await db.query(
    `SELECT bgw_register('nap_' || n, 'SELECT 1', naptime => '1 h', restart_time => '1 s') FROM generate_series(1, 20) n`,
  );
  await db.query(`SELECT bgw_launch('nap_' || n) FROM generate_series(1, 20) n`);
  await db.query(`SELECT bgw_launch_sql(format('INSERT INTO effect VALUES (%s)', n)) FROM generate_series(1, 50) n`);
  await until(async () => (await db.value('SELECT count(*)::int FROM bgw_run_history')) === 50);
  expect((await db.query('SELECT count(*)::int, count(DISTINCT n)::int AS distinct FROM effect')).rows).toEqual([
    { count: 50, distinct: 50 },
  ]);
  await until(
    async () => (await db.value(`SELECT count(*)::int FROM bgw_stat_activity WHERE status = 'started'`)) === 20,
  );
  const started = [...first.observations, ...second.observations].filter(({ kind }) => kind === 'worker_started');
  expect(started).toHaveLength(70);
  await first.stop();
  await until(
    async () =>
      (await db.value(`SELECT count(*)::int FROM bgw_stat_activity WHERE status = 'started' AND node = 'second'`)) ===
      20,
  );
});

test('a stale epoch is refused with WK001 and changes nothing (I6)', async ({ db }) => {
  const { rows } = await db.query(`SELECT * FROM bgw.join_node('old', '{}', 8)`);
  const { node_id: node, epoch } = rows[0];
  const handle = await db.value<bigint>(`SELECT bgw_launch('hello_world')`);
  await db.query('SELECT bgw.take_orders($1, $2, 8)', [node, epoch]);
  await db.query('UPDATE bgw.node SET epoch = epoch + 1, fenced = true WHERE id = $1', [node]);
  const before = await db.query('SELECT * FROM bgw.process');
  const exited = JSON.stringify({ exited: [{ handle: String(handle), run_id: '1', exit_code: 0 }] });
  for (const call of [
    'SELECT bgw.take_orders($1, $2, 8)',
    `SELECT bgw.report($1, $2, '${exited}')`,
    `SELECT bgw.resume_node($1, $2, '{}')`,
    `SELECT bgw.register_session($1, $2, pg_backend_pid(), 'x')`,
    'SELECT bgw.leave_node($1, $2)',
  ]) {
    await expect(db.query(call, [node, epoch])).rejects.toMatchObject({ code: 'WK001' });
  }
  expect((await db.query('SELECT * FROM bgw.process')).rows).toEqual(before.rows);
});

test('a node of before an upgrade is refused with WK001, and loses nothing', async ({ db }) => {
  const { rows } = await db.query(`SELECT * FROM bgw.join_node('old', '{}', 8)`);
  const { node_id: node, epoch } = rows[0];
  const handle = await db.value<bigint>(`SELECT bgw_launch('hello_world')`);
  await db.query('SELECT bgw.take_orders($1, $2, 8)', [node, epoch]);
  const before = await db.query('SELECT * FROM bgw.process');
  const exited = JSON.stringify([{ kind: 'exited', handle: String(handle), run_id: '1', exit_code: 0 }]);
  await expect(db.query('SELECT bgw.report($1, $2, $3)', [node, epoch, exited])).rejects.toMatchObject({
    code: 'WK001',
    message: 'node "old" is of an older version than the schema',
  });
  expect((await db.query('SELECT * FROM bgw.process')).rows).toEqual(before.rows);
});

test('a fencing ends exactly the registered sessions', async ({ db, startController }) => {
  const innocent = await db.client({ application_name: 'bgw worker' });
  const victim = await db.client();
  const pidOf = async (client: pg.Client): Promise<number> =>
    (await client.query('SELECT pg_backend_pid() AS pid')).rows[0].pid;
  const [innocentPid, victimPid] = [await pidOf(innocent), await pidOf(victim)];
  const { rows } = await db.query(`SELECT * FROM bgw.join_node('old', '{}', 8)`);
  await db.query(`SELECT bgw.register_session($1, $2, $3, 'x')`, [rows[0].node_id, rows[0].epoch, victimPid]);
  await db.query(`UPDATE bgw.node SET lease_until = now() - interval '1 s'`);
  await startController();
  await until(async () => (await db.value('SELECT count(*)::int FROM bgw_nodes')) === 1);
  const alive = 'SELECT count(*)::int FROM pg_stat_activity WHERE pid = $1';
  expect(await db.value(alive, [victimPid])).toBe(0);
  expect(await db.value(alive, [innocentPid])).toBe(1);
  await innocent.end();
});

test('a node that was taken over while alive stops its workers and joins again', async ({ db, controller }) => {
  const handle = await launch(db, `bgw_launch('kill_idle')`);
  await db.query('UPDATE bgw.node SET epoch = epoch + 1, fenced = true');
  await controller.saw('node_fenced');
  await until(() => controller.observations.filter(({ kind }) => kind === 'node_joined').length === 2);
  await until(async () => (await db.value('SELECT status FROM bgw_get_pid($1)', [handle])) === 'started');
  expect(await ownBackends(db)).toContain('bgw control');
});

test('a claim whose answer never reached the node is given back when it resumes (I2)', async ({ db }) => {
  const { rows } = await db.query(`SELECT * FROM bgw.join_node('node', '{}', 8)`);
  const { node_id: node, epoch } = rows[0];
  const handle = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1')`);
  await db.query('SELECT bgw.take_orders($1, $2, 8)', [node, epoch]);
  expect(await db.value('SELECT run_id IS NOT NULL FROM bgw.process WHERE id = $1', [handle])).toBe(true);
  await db.query(`SELECT bgw.resume_node($1, $2, '{}')`, [node, epoch]);
  expect(await db.value('SELECT run_id IS NULL FROM bgw.process WHERE id = $1', [handle])).toBe(true);
});

test('a controller that was killed is taken over by one that runs, within seconds (I1, I8)', async ({
  db,
  startController,
}) => {
  const first = await spawnController(db, ['--node-name', 'first']);
  const oneShot = await launch(db, `bgw_launch_sql('${SLEEP}')`);
  const napping = await launch(db, `bgw_launch('kill_idle')`);
  const survivor = await startController({ nodeName: 'survivor' });
  await first.end('SIGKILL');
  // Two seconds that its control session is gone, and two polls.
  await survivor.saw('worker_started', { handle: String(napping) }, 15_000);
  expect(await sleepers(db)).toBe(0);
  expect(await statusOf(db, oneShot)).toBe('lost');
  expect(survivor.observations.filter(({ kind }) => kind === 'worker_started')).toHaveLength(1);
  expect(await db.value('SELECT array_agg(node) FROM bgw_nodes')).toEqual(['survivor']);
});

test('a controller that was frozen and taken over stops its workers when it goes on, and joins again (I1, I6)', async ({
  db,
  startController,
}) => {
  await db.query('CREATE TABLE tick (run_id text, at timestamptz DEFAULT clock_timestamp())');
  await db.query(
    `SELECT bgw_register('ticker', $$INSERT INTO tick VALUES (current_setting('bgw.run_id'))$$, naptime => '20 ms', restart_time => '0')`,
  );
  const frozen = await spawnController(db, ['--node-name', 'frozen']);
  const ticker = await launch(db, `bgw_launch('ticker')`);
  const process_ = await launch(db, `bgw_launch('hello_signal')`);
  const osPid = await db.value<number>('SELECT os_pid FROM bgw_stat_activity WHERE handle = $1', [process_]);
  const oneShot = await launch(db, `bgw_launch_sql('${SLEEP}')`);
  await until(() => db.value('SELECT count(*) > 3 FROM tick'));

  frozen.child.kill('SIGSTOP');
  const next = await startController({ nodeName: 'next' });
  await until(async () => {
    // More than once: what the frozen node had sent before it froze may renew its lease.
    await db.query(`UPDATE bgw.node SET lease_until = now() - interval '1 s' WHERE name = 'frozen'`);
    return db.value(`SELECT NOT EXISTS (SELECT FROM bgw.node WHERE name = 'frozen')`);
  });
  await next.saw('worker_started', { handle: String(ticker) });
  await until(async () => (await statusOf(db, oneShot)) === 'lost');
  expect(await sleepers(db)).toBe(0);

  frozen.child.kill('SIGCONT');
  await frozen.said(/was taken over by another one/);
  await until(() => frozen.lines.filter((line) => /joined at epoch/.test(String(line['msg']))).length === 2);
  await until(() => !isAlive(osPid), { what: 'the end of the process of the frozen node' });
  const more = await db.value<bigint>('SELECT count(*) FROM tick');
  await until(async () => (await db.value<bigint>('SELECT count(*) FROM tick')) > more + 5n);
  const { rows } = await db.query('SELECT run_id FROM tick ORDER BY at');
  const runs = rows.map(({ run_id }) => run_id as string);
  expect(new Set(runs).size).toBe(2);
  expect(runs, 'the runs do not overlap').toEqual(runs.toSorted((a, b) => Number(a) - Number(b)));
  expect(await frozen.end('SIGTERM')).toBe(0);
});

test('a controller of a copy of a database leaves the sessions of the original alone', async ({ db, controller }) => {
  const handle = await launch(db, `bgw_launch_sql('${SLEEP}')`);
  await until(async () => (await sleepers(db)) === 1);
  const copy = await createDatabase();
  for (const table of ['node', 'session']) {
    const rows = await db.value(`SELECT json_agg(t) FROM bgw.${table} AS t`);
    await copy.query(
      `INSERT INTO bgw.${table} OVERRIDING SYSTEM VALUE SELECT * FROM json_populate_recordset(NULL::bgw.${table}, $1)`,
      [JSON.stringify(rows)],
    );
  }
  await copy.query(`UPDATE bgw.node SET lease_until = now() - interval '1 s'`);
  const second = await startController(copy);
  expect(await copy.value('SELECT count(*)::int FROM bgw_nodes')).toBe(1);
  await second.stop();
  await copy.drop();
  expect(await sleepers(db)).toBe(1);
  expect(controller.observations.map(({ kind }) => kind)).not.toContain('connection_lost');
  expect(await db.value('SELECT status FROM bgw_get_pid($1)', [handle])).toBe('started');
});
