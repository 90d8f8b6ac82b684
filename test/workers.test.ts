/** The workers that ship, each doing what it is for. */
import type pg from 'pg';
import { expect, nothingLeft, startController, test as controllerTest } from './support/controller.ts';
import { createDatabase, onServer, SPARED, type TestDatabase } from './support/database.ts';
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

/** Sessions of controllers that tests in other files run as roles of their own. */
const CONTROLLERS = ['bgw control', 'bgw doorbell', 'bgw worker'];

/** kill_idle sees every session of the server: it must leave those of other tests alone, also of roles that come later. */
async function killOnly(db: TestDatabase, role: string, applications = CONTROLLERS): Promise<void> {
  await db.query(
    `SELECT bgw_set_config('kill_idle.exclude_users', coalesce(string_agg(rolname, ','), '')) FROM pg_roles WHERE rolname <> $1`,
    [role],
  );
  await db.query(`SELECT bgw_set_config('kill_idle.exclude_applications', $1)`, [
    `${SPARED}, backup, ${applications.join(', ')}`,
  ]);
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

test('kill_idle leaves superusers alone', async ({ db, controller, guest }) => {
  const { pid } = await guest();
  const superuser = await db.client();
  const { rows } = await superuser.query('SELECT pg_backend_pid() AS pid');
  await db.query(
    `SELECT bgw_set_config('kill_idle.dry_run', 'on'), bgw_set_config('kill_idle.max_idle_time', '1s'), bgw_launch('kill_idle')`,
  );
  // It was idle before the guest was found idle, and is so still.
  const said = `SELECT message FROM bgw_log WHERE message ~ $1`;
  await until(() => db.value(said, [`PID ${pid} `]), { deadline: 15_000 });
  await until(() =>
    db.value(`SELECT clock_timestamp() > state_change + interval '2.5 s' FROM pg_stat_activity WHERE pid = $1`, [
      rows[0].pid,
    ]),
  );
  expect(await db.value(said, [`PID ${rows[0].pid} `])).toBeUndefined();
  expect(controller.observations.some(({ kind }) => kind === 'worker_exited')).toBe(false);
});

test('kill_idle of a controller that is no superuser leaves the sessions of that controller alone', async ({
  ordinary: { db, role },
}) => {
  const controller = await startController(db);
  // A pooled session that idles from now on, and a TypeScript worker with a session of its own.
  const used = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1')`);
  await controller.saw('worker_exited', { handle: String(used) });
  await db.query('SELECT worker_spi_launch(1)');
  await until(() => db.value(`SELECT count(*) > 0 FROM bgw_log WHERE message ~ 'initialized'`));
  const url = new URL(db.url);
  const victim = await db.client({
    host: url.hostname,
    port: Number(url.port),
    user: role,
    password: 'app',
    database: db.name,
    connectionString: '',
  });
  const { rows } = await victim.query('SELECT pg_backend_pid() AS pid');
  await killOnly(db, role, []);
  await db.query(`SELECT bgw_launch('kill_idle')`);
  await until(() => db.value(`SELECT count(*) > 0 FROM bgw_log WHERE message ~ 'Disconnected.* PID ${rows[0].pid} '`), {
    deadline: 15_000,
  });
  await until(() =>
    db.value(`SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database()
              AND application_name ~ '^bgw' AND state = 'idle' AND clock_timestamp() > state_change + interval '2.5 s'`),
  );
  const { rows: said } = await db.query(`SELECT message FROM bgw_log WHERE message ~ '^Disconnected'`);
  expect(said).toHaveLength(1);
  for (const kind of ['connection_lost', 'doorbell_lost', 'worker_exited'] as const)
    expect(
      controller.observations.filter((seen) => seen.kind === kind && !('exitCode' in seen && seen.exitCode === 0)),
    ).toEqual([]);
  await controller.stop();
  await nothingLeft(db);
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

test('kill_idle takes a shorter idle time over while it runs', async ({ db, controller, guest }) => {
  const { pid, role } = await guest();
  await killOnly(db, role);
  await db.query(`SELECT bgw_set_config('kill_idle.max_idle_time', '1h')`);
  const handle = await db.value<bigint>(`SELECT bgw_launch('kill_idle')`);
  await controller.saw('worker_started', { handle: String(handle) });
  expect(await isConnected(db, pid)).toBe(true);
  await db.query(`SELECT bgw_set_config('kill_idle.max_idle_time', '1s')`);
  await until(async () => !(await isConnected(db, pid)), { deadline: 15_000 });
  expect(controller.observations.filter(({ kind }) => kind === 'worker_started')).toHaveLength(1);
});

test('kill_idle spares an excluded user and a session of a controller while it disconnects another', async ({
  db,
  controller,
  guest,
}) => {
  const excluded = await guest();
  const other = `${db.name}_other`;
  await onServer(`CREATE ROLE ${other} LOGIN PASSWORD 'guest'`);
  const registered = await guest({ user: other });
  await db.query(
    `INSERT INTO bgw.session (pid, backend_start, node_id, epoch, owner, database)
     SELECT pid, backend_start, (SELECT id FROM bgw.node), 1, bgw.current_owner(), datname FROM pg_stat_activity WHERE pid = $1`,
    [registered.pid],
  );
  const victim = await guest({ user: other });
  await killOnly(db, other);
  await db.query(`SELECT bgw_launch('kill_idle')`);
  await until(async () => !(await isConnected(db, victim.pid)), { deadline: 15_000 });
  await logged(db, '^Disconnected');
  for (const spared of [excluded, registered]) expect(await isConnected(db, spared.pid)).toBe(true);
  const { rows } = await db.query(`SELECT message FROM bgw_log WHERE message ~ '^Disconnected'`);
  expect(rows).toEqual([{ message: `Disconnected idle connection: PID ${victim.pid} ${db.name}/${other}/127.0.0.1` }]);
  expect(controller.observations.some(({ kind }) => kind === 'connection_lost')).toBe(false);
  await registered.client.end();
  await until(async () => !(await isConnected(db, registered.pid)));
  await onServer(`DROP ROLE ${other}`);
});

test('hello_world says hello again when its latch is set', async ({ db, controller }) => {
  const handle = await db.value<bigint>(`SELECT bgw_launch('hello_world')`);
  await logged(db, 'Hello');
  await db.query('SELECT bgw_set_latch($1)', [handle]);
  await until(() =>
    db.value(`SELECT count(*) = 2 FROM bgw_log WHERE message = 'Hello World!' AND name = 'hello_world'`),
  );
  expect(controller.observations.filter(({ kind }) => kind === 'worker_started')).toHaveLength(1);
});

test('count_relations counts what pg_class has, and sees a new table in the next second', async ({
  db,
  controller,
}) => {
  await db.query(`SELECT bgw_launch('count_relations')`);
  await controller.saw('worker_said');
  await db.query('CREATE TABLE one_more (n int)');
  await until(() =>
    db.value(
      `SELECT message = format('Currently %s relations in database', (SELECT count(*) FROM pg_class)) FROM bgw_log
       WHERE name = 'count_relations' ORDER BY id DESC LIMIT 1`,
    ),
  );
});

test('hello_notify speaks on the channel hello_notify by default, of the fields of a statement, and changes it live', async ({
  db,
  controller,
}) => {
  const listener = await db.client();
  const heard: { channel: string; report: Record<string, unknown> }[] = [];
  listener.on('notification', ({ channel, payload }) => heard.push({ channel, report: JSON.parse(payload ?? 'null') }));
  await listener.query('LISTEN hello_notify');
  await listener.query('LISTEN elsewhere');
  const long = await db.client();
  const { rows } = await long.query('SELECT pg_backend_pid() AS pid, current_user::text AS username');
  const sleeping = long.query('SELECT pg_sleep(60)').catch(() => undefined);
  await db.query(`SELECT bgw_set_config('hello_notify.nap_time', '1s'), bgw_launch('hello_notify')`);
  const about = (channel: string): unknown =>
    heard.find((one) => one.channel === channel && one.report['pid'] === rows[0].pid)?.report;
  expect(await until(() => about('hello_notify'))).toEqual({
    ...rows[0],
    database: db.name,
    state: 'active',
    query: 'SELECT pg_sleep(60)',
  });
  await db.query(`SELECT bgw_set_config('hello_notify.channel_name', 'elsewhere')`);
  await until(() => about('elsewhere'));
  expect(controller.observations.filter(({ kind }) => kind === 'worker_started')).toHaveLength(1);
  await long.end();
  await sleeping;
});

test('hello_notify is heard in the database that its setting names, which needs no pg-bgworker', async ({
  db,
  startController,
}) => {
  const elsewhere = await createDatabase({ template: 'template0' });
  await db.query(`SELECT bgw_set_config('hello_notify.database', $1), bgw_set_config('hello_notify.nap_time', '1s')`, [
    elsewhere.name,
  ]);
  const controller = await startController();
  const listener = await elsewhere.client();
  const heard: string[] = [];
  listener.on('notification', ({ payload }) => heard.push(payload ?? ''));
  await listener.query('LISTEN hello_notify');
  const long = await db.client();
  const sleeping = long.query('SELECT pg_sleep(60) AS told_elsewhere').catch(() => undefined);
  const handle = await db.value<bigint>(`SELECT bgw_launch('hello_notify')`);
  await until(() => heard.some((payload) => payload.includes('told_elsewhere')));
  expect(controller.observations.some(({ kind }) => kind === 'worker_exited')).toBe(false);
  await db.query('SELECT bgw_terminate($1::bigint)', [handle]);
  await db.query('CALL bgw_wait_for_shutdown($1)', [handle]);
  await long.end();
  await sleeping;
  await elsewhere.drop();
});

test('hello_notify for a database that does not exist waits, and says so', async ({ db, startController }) => {
  await db.query(`SELECT bgw_set_config('hello_notify.database', 'bgw_no_such_database')`);
  const controller = await startController();
  const handle = await db.value<bigint>(`SELECT bgw_launch('hello_notify')`);
  const next = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1')`);
  await controller.saw('worker_exited', { handle: String(next) });
  expect(await db.value('SELECT waiting_for FROM bgw_stat_activity WHERE handle = $1', [handle])).toBe(
    'database "bgw_no_such_database" does not exist or accepts no connections',
  );
});

test('worker_spi takes a shorter nap time over while it runs, and keeps its total over a new launch', async ({
  db,
  controller,
}) => {
  const first = await db.value<bigint>('SELECT worker_spi_launch(1)');
  await logged(db, 'initialized with schema1.counted');
  await db.query(`INSERT INTO schema1.counted VALUES ('delta', 40)`);
  await db.query(`SELECT bgw_set_config('worker_spi.naptime', '1s')`);
  expect(await logged(db, 'count in schema1')).toBe('count in schema1.counted is now 40');
  await db.query('SELECT bgw_terminate($1::bigint)', [first]);
  await db.query('CALL bgw_wait_for_shutdown($1)', [first]);
  await db.query(`INSERT INTO schema1.counted VALUES ('delta', 2)`);
  const second = await db.value<bigint>('SELECT worker_spi_launch(1)');
  await controller.saw('worker_started', { handle: String(second) });
  expect(await logged(db, 'is now 42')).toBe('count in schema1.counted is now 42');
});

test('worker_spi refuses what is no whole number', async ({ db, controller }) => {
  for (const arg of ['"1; DROP SCHEMA public CASCADE"', '1.5', '[1]', '{}', 'true']) {
    const handle = await db.value<bigint>(`SELECT bgw_launch('worker_spi', $1)`, [arg]);
    const { exitCode, error } = await controller.saw('worker_exited', { handle: String(handle) });
    expect({ arg, exitCode, code: error?.code }).toEqual({ arg, exitCode: 1, code: '22023' });
  }
  expect(await db.value(`SELECT count(*)::int FROM pg_namespace WHERE nspname ~ '^schema'`)).toBe(0);
});
