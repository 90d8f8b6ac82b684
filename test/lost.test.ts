/** Connections that a network loses: the node hears of it, the server does not.  What runs behind them is ended, and nothing runs twice. */
import { existsSync, readFileSync } from 'node:fs';
import { systemClock } from '../src/clock.ts';
import { connectionConfig } from '../src/connection.ts';
import { EventQueue } from '../src/events.ts';
import { Roster } from '../src/hosts/roster.ts';
import { SqlHost } from '../src/hosts/sql-host.ts';
import type { StartOrder } from '../src/orders.ts';
import { Pool } from '../src/sessions/pool.ts';
import { expect, nothingLeft, startController, test as controllerTest } from './support/controller.ts';
import type { TestDatabase } from './support/database.ts';
import { type Proxy, startProxy } from './support/proxy.ts';
import { until } from './support/until.ts';

const SLEEP = 'SELECT pg_sleep(600)';
/** The connections of the machine; how a timer that waits to probe, and a connection that is open, are called there. */
const SOCKETS = '/proc/net/tcp';
const KEEPALIVE = '02:';
const ESTABLISHED = '01';

/** What lies between a node with its defaults and the server. */
const test = controllerTest.extend<{ network: Proxy }>({
  network: async ({ db }, use) => {
    const proxy = await startProxy(db.url);
    const node = await startController({ url: proxy.url });
    await use(proxy);
    await node.stop();
    await nothingLeft(db);
  },
});

/** The backends in which it runs. */
const sleepers = (db: TestDatabase): Promise<number[]> =>
  db.value(
    `SELECT coalesce(array_agg(pid), '{}') FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' AND query = $1`,
    [SLEEP],
  );

const sleeper = (db: TestDatabase): Promise<number> =>
  until(async () => (await sleepers(db))[0], { what: 'a backend that sleeps' });

test.for(['session', 'atomic'])(
  'a run whose connection is lost has ended on the server before it is said to have ended (I11), mode %s',
  async (mode, { db, network }) => {
    const handle = await db.value<bigint>('SELECT bgw_launch_sql($1, mode => $2)', [SLEEP, mode]);
    await sleeper(db);
    network.cut('bgw worker');
    const run = `SELECT json_build_object('status', status, 'sqlstate', sqlstate) FROM bgw_run_history WHERE handle = $1`;
    const ended = await until(() => db.value(run, [handle]), { what: 'its end' });
    expect(await sleepers(db)).toEqual([]);
    expect(ended).toEqual({ status: 'failed', sqlstate: '08006' });
  },
);

test('an atomic run that has committed is done, though its connection was lost before the node heard of it (I4)', async ({
  db,
  network,
}) => {
  await db.query('CREATE TABLE did (at timestamptz DEFAULT clock_timestamp())');
  const command = 'INSERT INTO did DEFAULT VALUES; SELECT pg_sleep(0.5)';
  await db.query(`SELECT bgw_register('once', $1, mode => 'atomic', restart_time => '0 s')`, [command]);
  const handle = await db.value<bigint>(`SELECT bgw_launch('once')`);
  const isRunning = `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'bgworker: once' AND wait_event = 'PgSleep')`;
  await until(() => db.value(isRunning), { what: 'its sleep' });
  network.hold('bgw worker');
  await until(() => db.value('SELECT count(*) = 1 FROM did'), { what: 'its commit' });
  network.cut('bgw worker');
  await db.query('CALL bgw_wait_for_shutdown($1)', [handle]);
  const { rows } = await db.query('SELECT status FROM bgw_run_history WHERE handle = $1', [handle]);
  expect(rows).toEqual([{ status: 'done' }]);
  expect(await db.value('SELECT count(*)::int FROM did')).toBe(1);
  expect(await db.value('SELECT count(*)::int FROM bgw.completed_run')).toBe(0);
});

test('a node that gets no answer ends its workers before others may take them over', async ({ db }) => {
  const proxy = await startProxy(db.url);
  const node = await startController({ url: proxy.url });
  await db.query('SELECT bgw_launch_sql($1)', [SLEEP]);
  await sleeper(db);
  const frozenAt = performance.now();
  proxy.freeze();
  await node.saw('lease_ended', undefined, 12_000);
  // Two seconds more than the lease less its margin, for a machine that is busy.
  expect(performance.now() - frozenAt).toBeLessThan(10_000);
  proxy.close();
  await node.stop();
  // Before 14 no server looks for its client while it runs a statement.
  for (const pid of await sleepers(db)) await db.query('SELECT pg_terminate_backend($1)', [pid]);
  await nothingLeft(db);
});

test('a worker that starts again after its connection was lost runs once (I1)', async ({ db, network }) => {
  await db.query(`SELECT bgw_register('w', $1, restart_time => '0 s')`, [SLEEP]);
  await db.query(`SELECT bgw_launch('w')`);
  for (let loss = 0; loss < 3; loss += 1) {
    const pid = await sleeper(db);
    network.cut('bgw worker');
    await until(async () => (await sleeper(db)) !== pid, { what: 'the next attempt' });
    expect(await sleepers(db)).toHaveLength(1);
  }
});

test('a session of a worker that the server does not answer is tried again', async ({ db }) => {
  const proxy = await startProxy(db.url);
  const node = await startController({ url: `${proxy.url}?connect_timeout=1` });
  const unanswered = proxy.muteNext();
  const handle = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1')`);
  await unanswered;
  await db.query('CALL bgw_wait_for_shutdown($1)', [handle]);
  expect(await db.value('SELECT status FROM bgw_run_history WHERE handle = $1', [handle])).toBe('done');
  await node.stop();
});

test('an idle session whose connection is lost is ended', async ({ db, network }) => {
  const run = async (): Promise<number> => {
    const handle = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1')`);
    await db.query('CALL bgw_wait_for_shutdown($1)', [handle]);
    return db.value(`SELECT pid FROM bgw_run_history WHERE handle = $1 AND status = 'done'`, [handle]);
  };
  const pid = await run();
  expect(await run(), 'the session is kept').toBe(pid);
  expect(network.cut('bgw worker')).toBe(1);
  await until(async () => !(await db.value('SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)', [pid])));
  expect(await run()).not.toBe(pid);
});

test('a control session that is lost is ended when the node has another one, and what waits there with it', async ({
  db,
  network,
}) => {
  const control = `SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'bgw control'`;
  const lost = await db.value<number>(control);
  const blocker = await db.client();
  await blocker.query('BEGIN; LOCK TABLE bgw.node IN ACCESS EXCLUSIVE MODE');
  await db.query('NOTIFY bgw');
  await until(() => db.value(`SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $1`, [lost]));
  network.cut('bgw control');
  await until(() => db.value(`SELECT count(*) = 2 FROM (${control}) AS sessions`));
  await blocker.query('COMMIT');
  await until(() => db.value(`SELECT count(*) = 1 AND bool_and(pid <> $1) FROM (${control}) AS sessions`, [lost]));
  await blocker.end();
});

test('a node that is cut off from its server can be stopped', async ({ db }) => {
  const proxy = await startProxy(db.url);
  const node = await startController({ url: proxy.url });
  await db.query('SELECT bgw_launch_sql($1), worker_spi_launch(1)', [SLEEP]);
  await sleeper(db);
  const held = 'SELECT count(*)::int FROM bgw_stat_activity WHERE pid IS NOT NULL';
  await until(async () => (await db.value(held)) === 2, { what: 'sessions of both' });
  proxy.close();
  await node.saw('connection_lost');
  await node.stop();
  for (const pid of await sleepers(db)) await db.query('SELECT pg_terminate_backend($1)', [pid]);
});

test('a run that was lost while the node could not see to its end failed by itself, whatever comes until then', async ({
  db,
}) => {
  const proxy = await startProxy(db.url);
  const clock = systemClock;
  const ignore = (): void => undefined;
  const events = new EventQueue(clock, ignore);
  let answer: (isThere: boolean) => void = ignore;
  const server = {
    serverVersion: 130_000,
    registerSession: async () => '',
    cancelBackend: async () => false,
    terminateBackend: () => new Promise<boolean>((resolve) => (answer = resolve)),
  };
  const connection = connectionConfig({ url: proxy.url, env: {} });
  const pool = new Pool({ connection, server, onClosed: ignore, observe: ignore, slots: 8, clock });
  const context = { clock, events, observe: ignore, server, grace: 5000, startWithin: 5000 };
  const createHost = (order: StartOrder): SqlHost => new SqlHost(order, false, pool, context);
  const roster = new Roster({ clock, events, observe: ignore, maxWorkerProcesses: 8, onDrained: ignore, createHost });
  roster.obey({
    kind: 'start',
    handle: '1',
    run_id: '1',
    name: 'w',
    database: db.name,
    main_arg: null,
    command: SLEEP,
    mode: 'session',
    library_name: null,
    function_name: null,
    flags: [],
    naptime: null,
    timeout: null,
    settings: [],
  });
  await sleeper(db);
  proxy.cut('bgw worker');
  await until(() => answer !== ignore, { what: 'the question whether its backend is there' });
  const stopped = roster.stopAll({ silent: false });
  answer(false);
  await stopped;
  expect(events.batch().at(-1)).toMatchObject({ kind: 'exited', interrupted: false, error: { code: '08006' } });
});

/** In how many seconds each end of the connection between these ports asks whether the other one is there; proc(5). */
function probes(...ports: number[]): number[] {
  const [one, other] = ports.map((port) => `:${port.toString(16).toUpperCase().padStart(4, '0')}`) as [string, string];
  return readFileSync(SOCKETS, 'utf8')
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
    .filter(([, local, remote, state]) => state === ESTABLISHED && hasEnds(`${local} ${remote}`))
    .map(([, , , , , timer = '']) =>
      timer.startsWith(KEEPALIVE) ? Number.parseInt(timer.slice(3), 16) / 100 : Infinity,
    );

  function hasEnds(pair: string): boolean {
    return new RegExp(`${one} .*${other}$|${other} .*${one}$`).test(pair);
  }
}

test.skipIf(!existsSync(SOCKETS))(
  'both ends of a session ask whether the other one is there',
  async ({ db, startController: startWithDefaults }) => {
    await startWithDefaults();
    await db.query('SELECT bgw_launch_sql($1)', [SLEEP]);
    await sleeper(db);
    const sessions = `SELECT application_name AS name, client_port AS port FROM pg_stat_activity
                    WHERE datname = current_database() AND application_name ~ '^(bgw |bgworker: )' ORDER BY application_name`;
    const { rows } = await db.query<{ name: string; port: number }>(sessions);
    expect(rows.map(({ name }) => name)).toEqual(['bgw control', 'bgw doorbell', 'bgworker: sql']);
    const server = Number(new URL(db.url).port);
    // Right after something was sent the timer is that of its answer.
    for (const { name, port } of rows) {
      const areSoon = (): boolean => probes(port, server).every((seconds) => seconds <= 10);
      await until(() => probes(port, server).length > 0 && areSoon(), { what: name });
    }
  },
);

test('what a database has for its sessions closes none of a node', async ({
  db,
  startController: startWithDefaults,
}) => {
  const since14 = (await db.value<number>(`SELECT current_setting('server_version_num')::int`)) >= 140_000;
  if (since14) await db.query(`ALTER DATABASE ${db.name} SET idle_session_timeout = '300ms'`);
  await db.query(`ALTER DATABASE ${db.name} SET tcp_keepalives_idle = '1h'`);
  const controller = await startWithDefaults();
  const run = `SELECT bgw_launch_sql('CREATE TABLE seen AS SELECT current_setting($$tcp_keepalives_idle$$) AS idle')`;
  await db.query('CALL bgw_wait_for_shutdown($1)', [await db.value<bigint>(run)]);
  expect(await db.value('SELECT idle FROM seen')).toBe('10');
  const idle = `SELECT count(*)::int FROM pg_stat_activity
                WHERE datname = current_database() AND clock_timestamp() - state_change > '600ms' AND application_name ~ '^bgw (doorbell|worker)'`;
  await until(async () => (await db.value(idle)) === 2, { what: 'two idle sessions' });
  expect(controller.observations.map(({ kind }) => kind)).not.toContain('doorbell_lost');
});
