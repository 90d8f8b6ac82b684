/** The workers that ship, each doing what it is for. */
import type pg from 'pg';
import { expect, test as controllerTest } from './support/controller.ts';
import { onServer, SPARED, type TestDatabase } from './support/database.ts';
import { until } from './support/until.ts';

/** Sessions of a role of its own: kill_idle leaves superusers alone, and the other tests are superusers. */
const test = controllerTest.extend<{
  guest: (options?: pg.ClientConfig) => Promise<{ client: pg.Client; pid: number; role: string }>;
}>({
  guest: async ({ db }, use) => {
    const role = `${db.name}_guest`;
    await onServer(`CREATE ROLE ${role} LOGIN PASSWORD 'guest'`);
    const url = new URL(db.url);
    await use(async (options = {}) => {
      const login = {
        host: url.hostname,
        port: Number(url.port),
        user: role,
        password: 'guest',
        database: db.name,
        connectionString: '',
      };
      const client = await db.client({ ...login, ...options });
      const { rows } = await client.query('SELECT pg_backend_pid() AS pid');
      return { client, pid: rows[0].pid, role };
    });
    await until(async () => {
      await db.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1', [role]);
      return (await db.value('SELECT count(*)::int FROM pg_stat_activity WHERE usename = $1', [role])) === 0;
    });
    await onServer(`DROP ROLE ${role}`);
  },
});

/** kill_idle sees every session of the server: it must leave those of other tests alone, also of roles that come later. */
async function killOnly(db: TestDatabase, role: string): Promise<void> {
  await db.query(
    `SELECT bgw_set_config('kill_idle.exclude_users', coalesce(string_agg(rolname, ','), '')) FROM pg_roles WHERE rolname <> $1`,
    [role],
  );
  await db.query(`SELECT bgw_set_config('kill_idle.exclude_applications', $1)`, [`${SPARED}, backup`]);
  await db.query(`SELECT bgw_set_config('kill_idle.max_idle_time', '1s')`);
}

async function isConnected(db: TestDatabase, pid: number): Promise<boolean> {
  return db.value('SELECT count(*) > 0 FROM pg_stat_activity WHERE pid = $1', [pid]);
}

function logged(db: TestDatabase, pattern: string): Promise<unknown> {
  return until(() => db.value('SELECT message FROM bgw_log WHERE message ~ $1 ORDER BY id LIMIT 1', [pattern]), {
    what: `a log line like ${pattern}`,
  });
}

test('kill_idle disconnects an idle session of another user, and says whom', async ({ db, controller, guest }) => {
  const { pid, role } = await guest();
  await killOnly(db, role);
  await db.query(`SELECT bgw_launch('kill_idle')`);
  await controller.saw('worker_said', {}, 15_000);
  await until(async () => !(await isConnected(db, pid)));
  expect(await logged(db, '^Disconnected')).toBe(
    `Disconnected idle connection: PID ${pid} ${db.name}/${role}/127.0.0.1`,
  );
});

test('kill_idle leaves alone who is busy, listens, is excluded or belongs to a controller', async ({
  db,
  controller,
  guest,
}) => {
  const victim = await guest();
  await killOnly(db, victim.role);
  const listener = await guest();
  await listener.client.query('LISTEN something');
  const excluded = await guest({ application_name: 'backup' });
  const busy = await guest();
  const sleeping = busy.client.query('SELECT pg_sleep(600)').catch(() => undefined);
  const inTransaction = await guest();
  await inTransaction.client.query('BEGIN');
  await db.query(`SELECT bgw_launch('kill_idle')`);
  await until(async () => !(await isConnected(db, victim.pid)), { deadline: 15_000 });
  // The victim was the first that the others could have been: one more look, and they are still there.
  await logged(db, '^Disconnected');
  for (const spared of [listener, excluded, busy, inTransaction]) expect(await isConnected(db, spared.pid)).toBe(true);
  expect(controller.observations.some(({ kind }) => kind === 'connection_lost')).toBe(false);
  await busy.client.end();
  await sleeping;
});

test('kill_idle only logs in a dry run, and excludes users', async ({ db, controller, guest }) => {
  const { pid, role } = await guest();
  await killOnly(db, role);
  await db.query(`SELECT bgw_set_config('kill_idle.dry_run', 'on')`);
  const handle = await db.value<bigint>(`SELECT bgw_launch('kill_idle')`);
  expect(await logged(db, 'idle connection')).toBe(
    `Would disconnect idle connection: PID ${pid} ${db.name}/${role}/127.0.0.1`,
  );
  expect(await isConnected(db, pid)).toBe(true);
  await db.query(`SELECT bgw_set_config('kill_idle.exclude_users', $1)`, [`somebody, ${role}`]);
  await db.query(`SELECT bgw_set_config('kill_idle.dry_run', 'off')`);
  await db.query('SELECT bgw_restart($1::bigint)', [handle]);
  await until(() => controller.observations.filter(({ kind }) => kind === 'worker_started').length === 2);
  expect(await isConnected(db, pid)).toBe(true);
});

test('hello_world says hello', async ({ db, controller }) => {
  await db.query(`SELECT bgw_launch('hello_world')`);
  expect(await controller.saw('worker_said')).toMatchObject({
    severity: 'LOG',
    name: 'hello_world',
    error: { message: 'Hello World!' },
  });
  expect(await logged(db, 'Hello')).toBe('Hello World!');
});

test('count_relations counts the relations of the database', async ({ db, controller }) => {
  await db.query(`SELECT bgw_launch('count_relations')`);
  await controller.saw('worker_said');
  expect(await logged(db, 'relations')).toMatch(/^Currently \d+ relations in database$/);
});

test('hello_notify tells its channel about a long statement', async ({ db, controller }) => {
  const listener = await db.client();
  const heard: string[] = [];
  listener.on('notification', ({ payload }) => heard.push(payload ?? ''));
  await listener.query('LISTEN slow');
  await db.query(
    `SELECT bgw_set_config('hello_notify.nap_time', '1s'), bgw_set_config('hello_notify.channel_name', 'slow')`,
  );
  const long = await db.client();
  const sleeping = long.query('SELECT pg_sleep(60) AS long_one').catch(() => undefined);
  await db.query(`SELECT bgw_launch('hello_notify')`);
  await until(() => heard.some((payload) => payload.includes('long_one')));
  const report = heard
    .map((payload) => JSON.parse(payload) as Record<string, unknown>)
    .find(({ database }) => database === db.name);
  expect(report).toMatchObject({ database: db.name, state: 'active', query: 'SELECT pg_sleep(60) AS long_one' });
  expect(controller.observations.some(({ kind }) => kind === 'connection_lost')).toBe(false);
  await long.end();
  await sleeping;
});

test('hello_notify sends to the database of its setting', async ({ db, startController }) => {
  await db.query(`SELECT bgw_set_config('hello_notify.database', 'postgres')`);
  const controller = await startController();
  const handle = await db.value<bigint>(`SELECT bgw_launch('hello_notify')`);
  await controller.saw('worker_started', { handle: String(handle) });
  await until(() => db.value(`SELECT count(*) > 0 FROM bgw.session WHERE database = 'postgres'`));
});

test('hello_signal says which signal it processed', async ({ db, controller }) => {
  const handle = await db.value<bigint>(`SELECT bgw_launch('hello_signal')`);
  await controller.saw('worker_started', { handle: String(handle) });
  await db.query(`SELECT bgw_signal($1::bigint, 'SIGHUP')`, [handle]);
  expect(await logged(db, 'SIGHUP')).toBe('hello signal: processed SIGHUP');
  await db.query('SELECT bgw_terminate($1::bigint)', [handle]);
  expect(await logged(db, 'SIGTERM')).toBe('hello signal: processed SIGTERM');
  await db.query('CALL bgw_wait_for_shutdown($1)', [handle]);
  expect(await db.value('SELECT exit_code FROM bgw_run_history WHERE handle = $1', [handle])).toBe(0);
});

test('worker_spi keeps totals, one schema for each launch', async ({ db, controller }) => {
  await db.query(`SELECT bgw_set_config('worker_spi.naptime', '1s')`);
  await db.query('SELECT worker_spi_launch(1), worker_spi_launch(2)');
  await logged(db, 'initialized with schema1.counted');
  await logged(db, 'initialized with schema2.counted');
  await db.query(`INSERT INTO schema1.counted VALUES ('delta', 3), ('delta', 4)`);
  expect(await logged(db, 'count in schema1')).toBe('count in schema1.counted is now 7');
  await db.query(`INSERT INTO schema1.counted VALUES ('delta', -2)`);
  expect(await logged(db, 'is now 5')).toBe('count in schema1.counted is now 5');
  expect((await db.query('SELECT type, value FROM schema1.counted')).rows).toEqual([{ type: 'total', value: 5 }]);
  expect((await db.query('SELECT type, value FROM schema2.counted')).rows).toEqual([{ type: 'total', value: 0 }]);
  expect(controller.observations.some(({ kind }) => kind === 'worker_exited')).toBe(false);
});

test('worker_spi without a number is an error that says how to launch it', async ({ db, controller }) => {
  const handle = await db.value<bigint>(`SELECT bgw_launch('worker_spi')`);
  const { error } = await controller.saw('worker_exited', { handle: String(handle) });
  expect(error).toMatchObject({ code: '22023', hint: 'Launch it with worker_spi_launch(i).' });
});

test('--preload-library worker_spi starts worker_spi.total_workers static ones', async ({ db, startController }) => {
  const first = await startController();
  await db.query(`SELECT bgw_set_config('worker_spi.total_workers', '3')`);
  await first.stop();
  await startController({ preloadLibraries: ['worker_spi'] });
  for (const i of [1, 2, 3]) await logged(db, `initialized with schema${i}.counted`);
  expect(
    await db.value(
      `SELECT count(*)::int FROM bgw_stat_activity WHERE name ~ '^worker_spi worker' AND status = 'started'`,
    ),
  ).toBe(3);
});
