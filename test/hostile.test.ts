/** What an ordinary role, or the owner of the database, does to others: nothing that lends rights, and nothing that lasts (HARDENING A). */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type pg from 'pg';
import { describe, inject } from 'vitest';
import { migrate } from '../src/migrate.ts';
import { findPackageRoot } from '../src/package-root.ts';
import { expect, nothingLeft, startController, test as controllerTest } from './support/controller.ts';
import { onServer, SPARED } from './support/database.ts';
import { until } from './support/until.ts';

/** A role without any rights of its own, connected. */
const test = controllerTest.extend<{ mallory: pg.Client }>({
  mallory: async ({ db }, use) => {
    const name = `${db.name}_mallory`;
    await onServer(`CREATE ROLE ${name} LOGIN PASSWORD 'mallory'`);
    const { hostname: host, port } = new URL(db.url);
    const client = await db.client({
      host,
      port: Number(port),
      user: name,
      password: 'mallory',
      database: db.name,
      connectionString: '',
      application_name: SPARED,
    });
    await use(client);
    await client.end();
    await db.query(`DROP OWNED BY ${name} CASCADE`);
    await onServer(`DROP ROLE ${name}`);
  },
});

test('a role that is set for the database is not that of the node, whose login it could go back to (I7)', async ({
  ordinary: { db, role },
}) => {
  await db.query(`ALTER DATABASE ${db.name} SET role = ${role}`);
  const url = new URL(inject('serverUrl'));
  url.pathname = db.name;
  const controller = await startController({ url: url.href });
  const superuser = await db.client({ connectionString: url.href });
  await superuser.query('SET ROLE NONE; CREATE TABLE ran_as (who text, login text)');
  expect((await superuser.query('SELECT login = session_user AS own FROM bgw_nodes')).rows).toEqual([{ own: true }]);
  await db.query(`SELECT bgw_launch_sql('RESET ROLE; CREATE ROLE bgw_never_made')`);
  for (const command of ['INSERT INTO ran_as VALUES (current_user, session_user)', 'RESET ROLE; TABLE ran_as']) {
    const { rows } = await superuser.query('SELECT bgw_launch_sql($1) AS handle', [command]);
    await controller.saw('worker_exited', { handle: String(rows[0].handle), exitCode: 0 });
  }
  expect((await superuser.query('SELECT count(*)::int AS n FROM ran_as WHERE who = login')).rows).toEqual([{ n: 1 }]);
  expect(await db.value('SELECT waiting_for FROM bgw_stat_activity WHERE handle IS NOT NULL')).toBe(
    `a controller that logs in as "${role}"`,
  );
  await superuser.end();
  await controller.stop();
  await db.query(`ALTER DATABASE ${db.name} RESET role`);
  await nothingLeft(db);
});

test('bgw migrate takes no operator from whoever comes first in the search_path of its database', async ({ db }) => {
  await db.query(`CREATE SCHEMA trap; CREATE TABLE trap.sprung (who text);
    CREATE FUNCTION trap.spring(integer, integer) RETURNS integer LANGUAGE plpgsql AS
      $$ BEGIN INSERT INTO trap.sprung VALUES (current_user); RETURN $1 OPERATOR(pg_catalog./) $2; END $$;
    CREATE OPERATOR trap./ (LEFTARG = integer, RIGHTARG = integer, FUNCTION = trap.spring);
    ALTER DATABASE ${db.name} SET search_path = trap, pg_catalog`);
  await migrate(await db.client());
  expect(await db.value('SELECT count(*)::int FROM trap.sprung')).toBe(0);
});

test('nor does bgw status', async ({ db }) => {
  await db.query(`CREATE SCHEMA trap; CREATE TABLE trap.sprung (who text);
    CREATE FUNCTION trap.spring(text, text) RETURNS boolean LANGUAGE plpgsql AS
      $$ BEGIN INSERT INTO trap.sprung VALUES (current_user); RETURN $1 OPERATOR(pg_catalog.=) $2; END $$;
    CREATE OPERATOR trap.= (LEFTARG = text, RIGHTARG = text, FUNCTION = trap.spring);
    ALTER DATABASE ${db.name} SET search_path = trap, pg_catalog`);
  const program = join(findPackageRoot(), 'dist', 'cli.js');
  const { stdout } = await promisify(execFile)(process.execPath, [program, 'status', '--url', db.url]);
  expect(stdout).toContain('hello_world');
  expect(await db.value('SELECT count(*)::int FROM trap.sprung')).toBe(0);
});

describe('a role without a login', () => {
  test('has no process, so none that all nodes would look at', async ({ db, mallory }) => {
    await mallory.query(`SELECT bgw_register('w', 'SELECT 1', autostart => true)`);
    for (const columns of [
      `(name, command, mode) VALUES ('by hand', 'SELECT 1', 'session')`,
      `(worker_id) SELECT id FROM bgw.worker`,
    ])
      await expect(mallory.query(`INSERT INTO bgw.process ${columns}`)).rejects.toMatchObject({ code: '42501' });
    expect(await db.value('SELECT count(*)::int FROM bgw.process')).toBe(0);
  });

  test('gives no node anything to do by what it registers', async ({ db, mallory, controller }) => {
    await mallory.query(`SELECT bgw_register('w', 'SELECT 1', autostart => true, scope => 'every_database'),
      bgw_define_setting('mallory.late', '1', context => 'postmaster'), bgw_set_config('mallory.late', '2'),
      bgw_register('gone', 'SELECT 1'), bgw_unregister('gone')`);
    const node = 'SELECT node_id, login::regrole::oid AS login FROM bgw_nodes';
    const look = `SELECT seen.databases, seen.notices FROM (${node}) AS node CROSS JOIN LATERAL bgw.look(node_id, login) AS seen`;
    await until(async () => !(await db.value(`SELECT EXISTS (SELECT FROM bgw.signal)`)));
    expect((await db.query(look)).rows).toEqual([{ databases: false, notices: false }]);
    await controller.stop();
    const next = await startController(db);
    expect(await db.value(`SELECT pending FROM bgw.setting WHERE name = 'mallory.late'`)).toBe('2');
    await next.stop();
  });

  test('has its autostart workers and its settings start when the first controller logs in as it', async ({
    db,
    mallory,
    controller,
  }) => {
    const name = `${db.name}_mallory`;
    await mallory.query(`SELECT bgw_register('w', 'SELECT 1', autostart => true),
      bgw_define_setting('mallory.late', '1', context => 'postmaster'), bgw_set_config('mallory.late', '2')`);
    await db.query(`GRANT ${(await db.query('SELECT current_user::text AS me')).rows[0].me} TO ${name}`);
    const url = new URL(db.url);
    url.username = name;
    url.password = 'mallory';
    const own = await startController({ url: url.href });
    await own.saw('worker_exited', { name: 'w', exitCode: 0 });
    expect(await db.value(`SELECT setting FROM bgw.setting WHERE name = 'mallory.late'`)).toBe('2');
    expect(controller.observations.filter(({ kind }) => kind === 'worker_started')).toEqual([]);
    await own.stop();
  });
});

test('a node takes a thousand signals, and ends a thousand that wait, in one turn, the newest of others among them', async ({
  db,
}) => {
  const { node_id, epoch } = (await db.query(`SELECT * FROM bgw.join_node('real', '{}', 8)`)).rows[0];
  const turn = async (): Promise<{ wake_ms: number; orders: { handle: string; signal: string }[][] }> =>
    (await db.query('SELECT bgw.take_orders($1, $2, 0) AS answer', [node_id, epoch])).rows[0].answer;
  const counts = async (): Promise<unknown> =>
    (
      await db.query(
        'SELECT (SELECT count(*)::int FROM bgw.signal) AS signals, (SELECT count(*)::int FROM bgw.process) AS processes',
      )
    ).rows;
  const running = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1')`);
  await db.query('SELECT bgw.take_orders($1, $2, 1)', [node_id, epoch]);
  await db.query(`SELECT bgw_terminate(bgw_launch_sql('SELECT 1')) FROM generate_series(1, 3000)`);
  await db.query('SELECT bgw_signal($1::bigint, $2)', [running, 'SIGHUP']);
  const { wake_ms, orders } = await turn();
  expect(wake_ms).toBe(1);
  expect(orders.flat().filter(({ signal }) => signal === 'SIGHUP')).toMatchObject([{ handle: String(running) }]);
  expect(await counts()).toEqual([{ signals: 1901, processes: 2001 }]);
  await until(async () => (await turn()).wake_ms > 1);
  expect(await counts()).toEqual([{ signals: 0, processes: 1 }]);
});

test('a type named oid makes nobody the owner of the jobs of others', async ({ db, mallory }) => {
  const name = `${db.name}_mallory`;
  await migrate(await db.client(), { withCron: true });
  await db.query(`GRANT USAGE ON SCHEMA cron TO ${name}; CREATE SCHEMA trap AUTHORIZATION ${name}`);
  await db.query(`SELECT cron.schedule('nightly', '0 3 * * *', 'SELECT 1')`);
  const owner = await db.value<number>('SELECT owner FROM cron.entry');
  await mallory.query(`CREATE TYPE trap.oid AS (value text);
    CREATE FUNCTION trap.there(regrole) RETURNS trap.oid LANGUAGE sql AS $$ SELECT ROW('')::trap.oid $$;
    CREATE FUNCTION trap.back(trap.oid) RETURNS pg_catalog.oid LANGUAGE sql AS 'SELECT ${owner}::pg_catalog.oid';
    CREATE CAST (regrole AS trap.oid) WITH FUNCTION trap.there;
    CREATE CAST (trap.oid AS pg_catalog.oid) WITH FUNCTION trap.back AS ASSIGNMENT;
    SET search_path = trap, pg_catalog`);
  expect((await mallory.query('SELECT bgw.current_owner() = $1::pg_catalog.oid AS forged', [owner])).rows).toEqual([
    { forged: false },
  ]);
  expect((await mallory.query('SELECT command FROM cron.entry')).rows).toEqual([]);
  expect((await mallory.query(`UPDATE cron.entry SET command = 'forged'`)).rowCount).toBe(0);
});

/** Every operator of two operands that can be made, in a schema that comes before pg_catalog. */
const TRAP = `
  CREATE SCHEMA trap; CREATE TABLE trap.sprung (who text);
  DO $do$
  DECLARE
    made record;
  BEGIN
    FOR made IN SELECT oprname, oprleft::regtype AS "left", oprright::regtype AS "right", oprresult::regtype AS result, oid FROM pg_operator
                WHERE oprnamespace = 'pg_catalog'::regnamespace AND oprleft <> 0 AND (SELECT typtype <> 'p' FROM pg_type WHERE oid = oprleft)
                  AND (SELECT typtype <> 'p' FROM pg_type WHERE oid = oprright) AND (SELECT typtype <> 'p' FROM pg_type WHERE oid = oprresult)
    LOOP
      EXECUTE format('CREATE FUNCTION trap.spring_%s(%s, %s) RETURNS %s LANGUAGE plpgsql AS $$ BEGIN INSERT INTO trap.sprung VALUES (%L); RETURN $1 OPERATOR(pg_catalog.%s) $2; END $$;
        CREATE OPERATOR trap.%5$s (LEFTARG = %2$s, RIGHTARG = %3$s, FUNCTION = trap.spring_%1$s)', made.oid, made."left", made."right", made.result, made.oprname, made.oprname);
    END LOOP;
  END $do$`;

test('the workers that ship take no operator from whoever comes first in the search_path of their database', async ({
  db,
  startController: start,
}) => {
  await db.query(TRAP);
  await db.query(`ALTER DATABASE ${db.name} SET search_path = trap, pg_catalog, public`);
  const controller = await start();
  const names = [
    'count_relations',
    'disk_guard',
    'hello_notify',
    'kill_idle',
    'reindex_invalid',
    'standby_watch',
    'table_stats',
  ];
  for (const setting of [
    'disk_guard.naptime',
    'reindex_invalid.naptime',
    'standby_watch.naptime',
    'wraparound_watch.naptime',
    'table_stats.naptime',
  ])
    await db.query('SELECT bgw_set_config($1, $2)', [setting, '1s']);
  await db.query(
    `SELECT bgw_set_config('hello_notify.nap_time', '1s'), bgw_set_config('kill_idle.dry_run', 'on'), bgw_set_config('wraparound_watch.max_age', '1')`,
  );
  const handles = await db.value<bigint[]>('SELECT array_agg(bgw_launch(name)) FROM unnest($1::text[]) AS name', [
    names,
  ]);
  const child = await db.value<bigint>(`SELECT bgw_launch('wraparound_watch_database')`);
  for (const name of ['disk_guard', 'reindex_invalid', 'standby_watch'])
    await until(
      () => db.value(`SELECT count(*) > 0 FROM bgw_stat_activity WHERE name = $1 AND query = 'COMMIT'`, [name]),
      { what: `a look of ${name}` },
    );
  await until(() =>
    db.value(`SELECT count(*) > 0 FROM bgw_log WHERE name ~ '^wraparound_watch' AND message ~ 'has not been frozen'`),
  );
  await until(() => db.value(`SELECT count(*) > 0 FROM bgw.table_sample`));
  await until(() =>
    db.value(`SELECT count(*) >= 2 FROM bgw_log WHERE name = 'count_relations' AND message ~ '^Currently'`),
  );
  await db.query(`CREATE SEQUENCE public.runs`);
  await db.query(
    `SELECT bgw_register('atomic', $$SELECT pg_catalog.nextval('public.runs')$$, naptime => '10 ms', mode => 'atomic'), bgw_launch('atomic')`,
  );
  await until(() => db.value('SELECT last_value > 2 FROM public.runs'));
  const handle = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT', mode => 'atomic')`);
  await controller.saw('worker_exited', { handle: String(handle), exitCode: 0 });
  expect((await db.query('SELECT DISTINCT who FROM trap.sprung')).rows).toEqual([]);
  const ended = 'SELECT name, message FROM bgw_run_history WHERE handle = ANY ($1) AND status <> $2';
  expect((await db.query(ended, [[...handles, child], 'done'])).rows).toEqual([]);
});

test('default privileges on tables do not show the history of others', async ({ db, startController: start }) => {
  const reader = `${db.name}_reader`;
  await onServer(`CREATE ROLE ${reader}`);
  await db.query(`ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO ${reader};
    GRANT SELECT ON bgw.run_default, bgw.tick_default TO ${reader}`);
  const controller = await start();
  const handle = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1')`);
  await controller.saw('worker_exited', { handle: String(handle) });
  await until(() => db.value('SELECT count(*) = 1 FROM bgw_run_history'));
  const { rows: partitions } = await db.query<{ name: string }>(
    `SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent IN ('bgw.run'::regclass, 'bgw.tick'::regclass)`,
  );
  expect(partitions.length).toBe(8);
  await db.query(`INSERT INTO bgw.tick_default VALUES (1, '-infinity', 'launched')`);
  await db.query(`SET ROLE ${reader}`);
  for (const { name } of partitions) expect((await db.query(`SELECT * FROM ${name}`)).rows, name).toEqual([]);
  await db.query('RESET ROLE');
  await db.query(`ALTER DEFAULT PRIVILEGES REVOKE SELECT ON TABLES FROM ${reader}; DROP OWNED BY ${reader}`);
  await onServer(`DROP ROLE ${reader}`);
});

test('schedules that take long to evaluate do not keep a node from everything else', async ({ db }) => {
  const days = (years: number): string =>
    `(SELECT array_agg(day::date) FROM generate_series(now() - interval '1 day', now() + interval '${years} years', '1 day') AS day)`;
  await expect(
    db.query(`SELECT bgw_schedule('slow', '* * * * *', 'SELECT 1', exceptions => ${days(11)})`),
  ).rejects.toMatchObject({ code: '22023', detail: 'exceptions has at most 3660 days.' });
  await db.query(`SELECT bgw_schedule('slow ' || i, '* * * * *', 'SELECT 1') FROM generate_series(1, 40) AS i`);
  await db.query(`ALTER TABLE bgw.schedule DISABLE TRIGGER USER; UPDATE bgw.schedule SET exceptions = ${days(10)};
    ALTER TABLE bgw.schedule ENABLE TRIGGER USER`);
  const { node_id, epoch } = (await db.query(`SELECT * FROM bgw.join_node('real', '{}', 8)`)).rows[0];
  const left = 'SELECT count(*)::int FROM bgw.schedule_change';
  const { answer } = (await db.query('SELECT bgw.take_orders($1, $2, 8) AS answer', [node_id, epoch])).rows[0];
  expect(answer.wake_ms).toBe(10);
  expect(await db.value<number>(left)).toBeGreaterThan(0);
  expect(await db.value<number>(left)).toBeLessThan(40);
});

test('an advisory lock, which any role can take, keeps nobody from an upgrade', async ({ db, mallory }) => {
  await mallory.query('SELECT pg_advisory_lock(27698309060454759)');
  expect((await migrate(await db.client(), { patienceMs: 0 })).applied).toEqual([]);
});

test('an open transaction that deletes from cron.job_run_details keeps no other one waiting', async ({ db }) => {
  await migrate(await db.client(), { withCron: true });
  await db.query(`SELECT cron.schedule('nightly', '0 3 * * *', 'SELECT 1')`);
  await db.query(`INSERT INTO bgw.run (id, process_id, name, owner, status, queued_at, finished_at, schedule_id)
    SELECT i, i, 'nightly', entry.owner, 'done', now(), now(), entry.schedule_id FROM cron.entry, generate_series(1, 2) AS i`);
  await db.query(`INSERT INTO cron.deleted_run VALUES (now() - interval '10 days', 1)`);
  const remove = 'DELETE FROM cron.job_run_details WHERE runid = $1';
  await db.query('BEGIN');
  expect((await db.query(remove, [1])).rowCount).toBe(1);
  const other = await db.client();
  await other.query(`SET lock_timeout = '1s'`);
  expect((await other.query(remove, [2])).rowCount).toBe(1);
  await db.query('COMMIT');
});

test('what a node could not be told is refused: a command or an argument of more than 16 MB', async ({ db }) => {
  await db.query(`SELECT bgw_register('w', 'SELECT 1')`);
  const [command, argument] = [`repeat(' ', 17000000) || 'SELECT 1'`, `to_jsonb(repeat('x', 17000000))`];
  for (const call of [
    `bgw_launch_sql(${command})`,
    `bgw_launch_sql('SELECT 1', main_arg => ${argument})`,
    `bgw_launch('w', main_arg => ${argument})`,
    `bgw_register('x', ${command})`,
    `bgw_register('x', 'SELECT 1', main_arg => ${argument})`,
    `bgw_schedule('x', '@daily', ${command})`,
    `bgw_schedule('x', '@daily', worker => 'w', main_arg => ${argument})`,
  ])
    await expect(db.query(`SELECT ${call}`), call).rejects.toMatchObject({
      code: '22023',
      detail: 'Each has at most 16 MB.',
    });
  await db.query(`SELECT bgw_launch_sql('SELECT 1', main_arg => to_jsonb(repeat('x', 16000000)))`);
});

test('a node claims a few large arguments at a time, which one answer of the server can hold', async ({ db }) => {
  const { node_id, epoch } = (await db.query(`SELECT * FROM bgw.join_node('real', '{}', 8)`)).rows[0];
  const turn = async (): Promise<{ wake_ms: number; orders: unknown[][] }> =>
    (await db.query('SELECT bgw.take_orders($1, $2, 8) AS answer', [node_id, epoch])).rows[0].answer;
  const large = `(SELECT to_jsonb(string_agg(md5(n::text), '')) FROM generate_series(1, 4000) AS n)`;
  await db.query(
    `SELECT bgw_launch_sql('SELECT 1', main_arg => large.value) FROM (SELECT ${large}) AS large (value), generate_series(1, 5)`,
  );
  for (const claimed of [2, 2, 1]) {
    const { wake_ms, orders } = await turn();
    expect({ wake_ms, claimed: orders.flat().length }).toEqual({ wake_ms: 10, claimed });
  }
  expect((await turn()).orders.flat()).toEqual([]);
});
