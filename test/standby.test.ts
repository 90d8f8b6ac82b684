/** Start times: what runs on a hot standby, what becomes of it at a promotion and after a demotion, and what runs without a server. */
import { join } from 'node:path';
import { pino } from 'pino';
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest';
import { runController } from '../src/commands/run.ts';
import { showStatus } from '../src/commands/status.ts';
import { connectionConfig } from '../src/connection.ts';
import type { Observation } from '../src/observation.ts';
import { findPackageRoot } from '../src/package-root.ts';
import { type ControllerOptions, startController, type TestController } from './support/controller.ts';
import { openWorkshop, type TestServer, type Workshop } from './support/standby.ts';
import { until } from './support/until.ts';

const WORKERS = `
  SELECT bgw_define_setting('beat.naptime', boot_val => '100ms', vartype => 'integer', unit => 'ms', min_val => 10);
  SELECT bgw_register('beat', $$DO 'BEGIN RAISE LOG ''recovery: %, nap: %'', pg_is_in_recovery(), current_setting(''beat.naptime''); END'$$,
                      naptime => 'beat.naptime', autostart => true, start_time => 'consistent_state');
  SELECT bgw_register('sleeper', 'SELECT pg_sleep(600)', autostart => true, start_time => 'consistent_state');
  SELECT bgw_register('writer', 'CREATE TABLE written ()', autostart => true, restart_time => '1 s', start_time => 'consistent_state');
  SELECT bgw_register('tidy', 'SELECT 1', naptime => '1 s', mode => 'atomic', autostart => true, start_time => 'consistent_state');
  SELECT bgw_register('late', 'SELECT 1', naptime => '1 s', autostart => true);
  SELECT bgw_register('off', 'SELECT 1', naptime => '1 s', autostart => true, enabled => false, start_time => 'consistent_state');
  SELECT bgw_register('kill_idle', 'CALL bgw.kill_idle()', naptime => '100 ms', restart_time => '10 s', autostart => true, start_time => 'consistent_state');
  SELECT bgw_set_config('kill_idle.max_idle_time', '1s');
  SELECT bgw_define_setting('early.word', 'booted');
  SELECT bgw_set_config('early.word', 'replicated');
  SELECT bgw_register('early', library_name => 'early', function_name => 'main', flags => '{}', autostart => true, start_time => 'postmaster_start');
`;

const EARLY = {
  libraryDirs: [join(findPackageRoot(), 'test', 'fixtures', 'early')],
  preloadLibraries: ['early'],
};

const running: TestController[] = [];

async function run(server: TestServer, options?: ControllerOptions): Promise<TestController> {
  const controller = await startController(server, options);
  running.push(controller);
  return controller;
}

async function stopControllers(): Promise<void> {
  await Promise.all(running.splice(0).map((controller) => controller.stop()));
}

let workshop: Workshop;

beforeAll(async () => {
  workshop = await openWorkshop();
});
afterEach(stopControllers);
afterAll(() => workshop[Symbol.asyncDispose]());

function said(controller: TestController, name: string): string[] {
  return controller.observations.flatMap((seen) =>
    seen.kind === 'worker_said' && seen.name === name ? [seen.error.message] : [],
  );
}

function started(controller: TestController): string[] {
  const names = controller.observations.flatMap((seen) => (seen.kind === 'worker_started' ? [seen.name] : []));
  return [...new Set(names)].toSorted();
}

function exits(controller: TestController, name: string): number {
  return controller.observations.filter((seen) => seen.kind === 'worker_exited' && seen.name === name).length;
}

async function standbyStatus(server: TestServer): Promise<Record<string, unknown>> {
  return server.value(`SELECT jsonb_object_agg(name, status ORDER BY name) FROM bgw_stat_standby`);
}

async function sleepers(server: TestServer): Promise<number> {
  return server.value(`SELECT count(*)::int FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)'`);
}

/** What `bgw status` prints. */
async function printedStatus(server: TestServer): Promise<string> {
  const written = vi.spyOn(process.stdout, 'write').mockReturnValue(true);
  try {
    await showStatus({ connection: connectionConfig({ url: server.url, env: {} }), watch: false });
    return written.mock.calls.map(([text]) => text).join('');
  } finally {
    written.mockRestore();
  }
}

test('a standby runs the consistent_state workers of the replicated catalog, read-only', async () => {
  const { primary, standby } = await workshop.pair('first', WORKERS);
  const controller = await run(standby, EARLY);
  await controller.saw('standby_entered');
  await controller.saw('worker_exited', { name: 'writer', exitCode: 1 });
  await controller.saw('worker_started', { name: 'sleeper' });

  // Every reload, log line and refusal comes from the controller: nothing can be written.
  await until(() => said(controller, 'beat').includes('recovery: t, nap: 100ms'));
  const refused = await controller.saw('worker_refused', { name: 'tidy' });
  expect(refused.error).toMatchObject({ code: '25006', message: 'worker "tidy" cannot run on a standby' });
  const failure = await controller.saw('worker_exited', { name: 'writer' });
  expect(failure.error).toMatchObject({ code: '25006' });
  await until(() => exits(controller, 'writer') >= 2, { what: 'a second failure, after the restart time' });
  await controller.saw('worker_exited', { name: 'early_failing' });
  await until(() => said(controller, 'early').includes('replicated, without a handle'));
  expect(started(controller)).toEqual(['beat', 'early', 'early_failing', 'kill_idle', 'sleeper', 'writer']);
  expect(
    controller.observations.filter((seen) => seen.kind === 'worker_started' && seen.name === 'early'),
  ).toHaveLength(1);

  // kill_idle ends a guest and nobody of the node.
  const own = await standby.session('app');
  await own.query(`SET application_name = 'bgw worker'`);
  const guest = await standby.session('guest');
  const ended = new Promise((resolve) => guest.once('end', resolve));
  await guest.query('SELECT 1');
  await ended;
  await own.query(`SET application_name = 'alive'`);
  expect(controller.observations.some(({ kind }) => kind === 'connection_lost')).toBe(false);

  expect(await standbyStatus(standby)).toMatchObject({
    beat: 'started',
    early: 'started',
    kill_idle: 'started',
    sleeper: 'started',
    tidy: 'not_yet_started',
  });
  const printed = await printedStatus(standby);
  expect(printed).toMatch(/^This server is a standby/);
  expect(printed).toMatch(/sleeper +\| started +\| +\d+ \| +\d+ \| active/);
  for (const view of ['stat_activity', 'run_history', 'log', 'settings', 'nodes'])
    expect(await standby.value(`SELECT count(*)::int FROM bgw_${view}`)).toBeGreaterThanOrEqual(0);

  // What changes on the primary arrives.
  await primary.value(`SELECT bgw_set_config('beat.naptime', '50ms')`);
  await primary.value(`UPDATE bgw.worker SET enabled = false WHERE name = 'sleeper'`);
  await controller.saw('worker_signalled', { name: 'beat', signal: 'SIGHUP' });
  await until(() => said(controller, 'beat').includes('recovery: t, nap: 50ms'));
  await controller.saw('worker_exited', { name: 'sleeper' });
  expect(await sleepers(standby)).toBe(0);
  await stopControllers();
  expect(await standby.value(`SELECT count(*)::int FROM pg_stat_activity WHERE application_name ~ '^bgw'`)).toBe(0);
});

test('of two controllers on a standby one runs a worker, the other takes it over', async () => {
  const { standby } = await workshop.pair(
    'shared',
    `SELECT bgw_register('sleeper', 'SELECT pg_sleep(600)', autostart => true, start_time => 'consistent_state')`,
  );
  const first = await run(standby);
  await first.saw('worker_started', { name: 'sleeper' });
  const second = await run(standby);
  const refused = await second.saw('worker_refused', { name: 'sleeper' });
  expect(refused.error.code).toBe('55P03');
  expect(await sleepers(standby)).toBe(1);
  await first.stop();
  await until(async () => (await sleepers(standby)) === 1, { what: 'the sleeper of the second' });
  await second.saw('worker_started', { name: 'sleeper' });
});

test('after a promotion the controller is a node, after a demotion it serves a standby again', async () => {
  const { primary, standby, caughtUp } = await workshop.pair('promoted', WORKERS);
  const old = await run(primary, { nodeName: 'old' });
  await old.saw('worker_started', { name: 'late' });
  await old.saw('worker_started', { name: 'sleeper' });
  const controller = await run(standby, { nodeName: 'new' });
  await controller.saw('worker_started', { name: 'sleeper' });
  // A session of the old primary whose pid and start time are, by chance, those of an innocent one here.
  const innocent = await standby.session();
  const { rows } = await innocent.query(
    'SELECT pid, backend_start::text AS start FROM pg_stat_activity WHERE pid = pg_backend_pid()',
  );
  await primary.value(
    `INSERT INTO bgw.session (pid, backend_start, node_id, epoch, owner, database) SELECT $1, $2, id, epoch, login, 'postgres' FROM bgw.node`,
    [rows[0].pid, rows[0].start],
  );
  await until(() => primary.value(`SELECT count(*) = 5 FROM bgw_stat_activity WHERE status = 'started'`), {
    what: 'all the workers',
  });
  await caughtUp();
  expect(await standby.value('SELECT count(*)::int FROM bgw.node WHERE lease_until > clock_timestamp()')).toBe(1);
  expect(started(controller)).not.toContain('late');

  await standby.value('SELECT pg_promote()');
  await controller.saw('standby_promoted');
  await controller.saw('node_joined', { node: 'new' });
  await controller.saw('worker_started', { name: 'late' }, 3000);
  await controller.saw('worker_started', { name: 'tidy' });
  await until(() => said(controller, 'beat').some((line) => line.startsWith('recovery: f')));
  expect(await standby.value(`SELECT string_agg(node, ', ') FROM bgw_nodes`)).toBe('new');
  await until(async () => (await sleepers(standby)) === 1, { what: 'one sleeper, claimed by the new node' });
  expect(
    await standby.value(`SELECT count(*)::int FROM bgw_stat_activity WHERE handle IS NOT NULL AND node <> 'new'`),
  ).toBe(0);
  expect((await innocent.query('SELECT 1 AS alive')).rows).toEqual([{ alive: 1 }]);
  const handle = await standby.value<string>(`SELECT bgw_launch('hello_world')`);
  await controller.saw('worker_started', { handle });

  const entered = () => controller.observations.filter(({ kind }) => kind === 'standby_entered').length;
  await standby.stop();
  await standby.restart({ asStandby: true });
  await until(() => entered() === 2, { what: 'a standby again' });
  await until(async () => (await sleepers(standby)) === 1, { what: 'a sleeper on the standby' });
  expect(await standbyStatus(standby)).toMatchObject({ sleeper: 'started' });
});

test('postmaster_start runs while the server is away, and goes on under its handle', async () => {
  const server = await workshop.server('away');
  const app = await server.session('app');
  await app.query(`SELECT bgw_define_setting('early.word', 'booted'), bgw_set_config('early.word', 'reached')`);
  await server.stop();
  const observations: Observation[] = [];
  const stop = new AbortController();
  const connection = connectionConfig({ url: server.url, env: {} });
  const log = pino({ level: 'silent' });
  const controller = runController(
    { ...EARLY, connection, log, observe: (seen) => observations.push(seen) },
    stop.signal,
  );
  const lines = (): string[] =>
    observations.flatMap((seen) => (seen.kind === 'worker_said' ? [seen.error.message] : []));
  await until(() => lines().includes('booted, without a handle'));
  await until(() => observations.some(({ kind }) => kind === 'server_awaited'));

  await server.restart();
  const handle = await until(() =>
    server.value<string>(`SELECT handle FROM bgw_stat_activity WHERE name = 'early' AND status = 'started'`),
  );
  await until(() => lines().includes(`reached, handle ${handle}`));
  expect(observations.filter((seen) => seen.kind === 'worker_started' && seen.name === 'early')).toHaveLength(1);
  expect(await server.value(`SELECT count(*)::int FROM bgw.process WHERE name ~ '^early'`)).toBe(1);
  expect(await server.value(`SELECT message FROM bgw_run_history WHERE name = 'early_failing'`)).toBe('too early');

  // There is one: another node ends what it has started.
  const other = await run(server, { ...EARLY, nodeName: 'other' });
  await other.saw('worker_killed', { name: 'early' });
  await other.saw('worker_exited', { name: 'early' });
  await other.stop();
  stop.abort();
  await controller;
});

test('a controller without such workers does not wait for a server', async () => {
  const connection = connectionConfig({ url: 'postgresql://postgres@127.0.0.1:1/postgres', env: {} });
  const waiting = runController(
    { connection, libraryDirs: [], preloadLibraries: [], log: pino({ level: 'silent' }) },
    new AbortController().signal,
  );
  await expect(waiting).rejects.toMatchObject({ code: 'ECONNREFUSED' });
});
