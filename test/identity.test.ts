/** Whose rows and whose SQL: a second role sees and changes its own, and runs nothing in identity mode self (HARDENING A). */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type pg from 'pg';
import { findPackageRoot } from '../src/package-root.ts';
import { expect, test as controllerTest } from './support/controller.ts';
import { onServer, SPARED } from './support/database.ts';
import { until } from './support/until.ts';

interface Role {
  name: string;
  client: pg.Client;
}

/** A role without any rights of its own, connected. */
const test = controllerTest.extend<{ alice: Role }>({
  alice: async ({ db }, use) => {
    const name = `${db.name}_alice`;
    await onServer(`CREATE ROLE ${name} LOGIN PASSWORD 'alice'`);
    const url = new URL(db.url);
    const client = await db.client({
      host: url.hostname,
      port: Number(url.port),
      user: name,
      password: 'alice',
      database: db.name,
      connectionString: '',
      application_name: SPARED,
    });
    await use({ name, client });
    await client.end();
    await db.query(`DROP OWNED BY ${name} CASCADE`);
    await onServer(`DROP ROLE ${name}`);
  },
});

const RELATIONS = [
  'worker',
  'process',
  'signal',
  'activity',
  'run',
  'log',
  'setting',
  'node',
  'session',
  'login',
  'duty',
  'migration',
  'sql_layer',
];

async function countOf(client: pg.Client, relation: string): Promise<number> {
  const { rows } = await client.query(`SELECT count(*)::int AS n FROM ${relation}`);
  return rows[0].n;
}

test('a role registers workers and sees its own rows only', async ({ db, alice, controller }) => {
  const handle = await db.value<bigint>(`SELECT bgw_launch_sql($$DO 'BEGIN RAISE LOG ''secret''; END'$$)`);
  await controller.saw('worker_exited', { handle: String(handle) });
  await db.query(`SELECT bgw_launch('hello_signal')`);
  await until(() => db.value('SELECT count(*) > 0 FROM bgw.activity'));
  await alice.client.query(`SELECT bgw_register('mine', 'SELECT 1'), bgw_define_setting('mine.setting', '1')`);
  const seen = (await alice.client.query('SELECT name FROM bgw_stat_activity UNION ALL SELECT name FROM bgw_settings'))
    .rows;
  expect(seen).toEqual([{ name: 'mine' }, { name: 'mine.setting' }]);
  for (const view of [
    'bgw_run_history',
    'bgw_log',
    'bgw.process',
    'bgw.signal',
    'bgw.activity',
    'bgw.run',
    'bgw.log',
  ]) {
    expect(await countOf(alice.client, view), view).toBe(0);
  }
  expect(await db.value(`SELECT count(*)::int FROM bgw_log WHERE message = 'secret'`)).toBe(1);
});

test('a launch by a role that no node logs in as is an error that names the missing login', async ({ db, alice }) => {
  await alice.client.query(`SELECT bgw_register('mine', 'SELECT 1')`);
  for (const call of [`bgw_launch('mine')`, `bgw_launch_sql('SELECT 1')`]) {
    await expect(alice.client.query(`SELECT ${call}`)).rejects.toMatchObject({
      code: 'WK201',
      detail: expect.stringContaining(`It would need the login "bgw$${alice.name}".`),
    });
  }
  expect(await db.value('SELECT count(*)::int FROM bgw.process')).toBe(0);
});

test('rows that such a role inserts by hand are not run, and stop nobody', async ({ db, alice, controller }) => {
  await alice.client.query('CREATE TEMPORARY TABLE x (n int)');
  await alice.client.query(`INSERT INTO bgw.worker (name, command, autostart) VALUES ('mine', 'SELECT 1', true)`);
  await alice.client.query(`INSERT INTO bgw.process (name, command, mode) VALUES ('by hand', 'SELECT 1', 'session')`);
  const good = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1')`);
  await controller.saw('worker_exited', { handle: String(good) });
  const { rows } = await alice.client.query('SELECT name, status, waiting_for FROM bgw_stat_activity ORDER BY name');
  const waiting = { status: 'not_yet_started', waiting_for: `there is no login for role "${alice.name}"` };
  expect(rows).toEqual([
    { name: 'by hand', ...waiting },
    { name: 'mine', ...waiting },
  ]);
});

test('a role cannot write rows of others, columns of nodes, or another owner', async ({ db, alice }) => {
  await db.query(`SELECT bgw_launch('hello_world')`);
  const denied = [
    `INSERT INTO bgw.worker (name, command, owner) VALUES ('x', 'SELECT 1', 10)`,
    `INSERT INTO bgw.process (name, command, mode, owner) VALUES ('x', 'SELECT 1', 'session', 10)`,
    `INSERT INTO bgw.process (name, command, mode, status) VALUES ('x', 'SELECT 1', 'session', 'started')`,
    `INSERT INTO bgw.process (worker_id) SELECT 1`,
    `INSERT INTO bgw.signal (process_id, signal) SELECT 1, 'SIGTERM'`,
    `INSERT INTO bgw.run (id) VALUES (1)`,
    `INSERT INTO bgw.log (severity, message) VALUES ('LOG', 'forged')`,
    `UPDATE bgw.process SET status = 'started'`,
    `UPDATE bgw.worker SET owner = 10`,
    `UPDATE bgw.node SET fenced = true`,
    `DELETE FROM bgw.worker`,
    `DELETE FROM bgw.process`,
    `INSERT INTO bgw.login (owner) SELECT oid FROM pg_roles WHERE rolname = current_user`,
  ];
  for (const statement of denied)
    await expect(alice.client.query(statement), statement).rejects.toMatchObject({ code: '42501' });
  expect((await alice.client.query(`UPDATE bgw.worker SET enabled = false`)).rowCount).toBe(0);
  expect((await alice.client.query(`UPDATE bgw.setting SET setting = '1'`)).rowCount).toBe(0);
});

test('a role cannot lock a table that nodes need', async ({ alice }) => {
  for (const relation of RELATIONS) {
    for (const mode of ['ACCESS EXCLUSIVE', 'EXCLUSIVE', 'SHARE ROW EXCLUSIVE', 'SHARE', 'SHARE UPDATE EXCLUSIVE']) {
      await alice.client.query('BEGIN');
      await expect(
        alice.client.query(`LOCK TABLE bgw.${relation} IN ${mode} MODE`),
        `${relation} ${mode}`,
      ).rejects.toMatchObject({ code: '42501' });
      await alice.client.query('ROLLBACK');
    }
  }
});

test('the functions of nodes do nothing for such a role', async ({ db, alice }) => {
  const { rows } = await db.query(`SELECT * FROM bgw.join_node('real', '{}', 8)`);
  const { node_id: node, epoch } = rows[0];
  await db.query(`SELECT bgw_launch('hello_world')`);
  await db.query('SELECT bgw.take_orders($1, $2, 8)', [node, epoch]);
  const state = async (): Promise<unknown> =>
    (
      await db.query(
        'SELECT (SELECT json_agg(p) FROM bgw.process p), (SELECT json_agg(n) FROM bgw.node n), (SELECT json_agg(w) FROM bgw.worker w)',
      )
    ).rows;
  const before = await state();
  for (const call of [
    `bgw.join_node('x', '{}', 8)`,
    `bgw.resume_node(${node}, ${epoch}, '{}')`,
    `bgw.leave_node(${node}, ${epoch})`,
    `bgw.register_session(${node}, ${epoch}, pg_backend_pid(), 'x')`,
    `bgw.report(${node}, ${epoch}, '[{"kind":"exited","handle":1,"run_id":1,"exit_code":0}]')`,
    `bgw.take_orders(${node}, ${epoch}, 8)`,
    `bgw.fence_dead_nodes(0)`,
    `bgw.fence_node(${node})`,
    `bgw.complete_run(1, 1, txid_current(), true, NULL, 1)`,
    `bgw.settle_exits('[{"handle":1,"run_id":1,"exit_code":0}]')`,
    `bgw.settle_processes_of(${node})`,
    `bgw.deliver_signals(${node})`,
    `bgw.keep_house()`,
    `bgw.trim()`,
    `bgw.partition_history('2030-01-01')`,
  ]) {
    await alice.client
      .query(`SELECT ${call}`)
      .catch((error: unknown) => expect(error, call).toMatchObject({ code: expect.stringMatching(/^(42501|WK002)$/) }));
  }
  expect(await state()).toEqual(before);
});

test('a member of the owner operates its workers; a name that two roles have needs the role', async ({ db, alice }) => {
  const bob = `${db.name}_bob`;
  await onServer(`CREATE ROLE ${bob}`);
  await db.query(`GRANT ${bob} TO ${alice.name}`);
  await alice.client.query(`SET ROLE ${bob}`);
  await alice.client.query(`SELECT bgw_register('shared', 'SELECT 1')`);
  await alice.client.query('RESET ROLE');
  expect((await alice.client.query(`SELECT name FROM bgw_stat_activity`)).rows).toEqual([{ name: 'shared' }]);
  await alice.client.query(`SELECT bgw_unregister('shared')`);
  expect((await alice.client.query(`SELECT name FROM bgw_stat_activity`)).rows).toEqual([]);
  await db.query(`SELECT bgw_register('twice', 'SELECT 1')`);
  for (const role of [alice.name, bob]) {
    await alice.client.query(`SET ROLE ${role}`);
    await alice.client.query(`SELECT bgw_register('hers', 'SELECT 1')`);
  }
  await alice.client.query('RESET ROLE');
  // Her own comes first; for a superuser who owns neither it is ambiguous.
  await alice.client.query(`SELECT bgw_unregister('hers')`);
  await alice.client.query(`SELECT bgw_register('hers', 'SELECT 1')`);
  await expect(db.query(`SELECT bgw_unregister('hers')`)).rejects.toMatchObject({
    code: 'WK101',
    detail: expect.stringContaining(alice.name),
  });
  await alice.client.query(`SET ROLE ${bob}`);
  await alice.client.query(`SELECT bgw_unregister('hers')`);
  await alice.client.query('RESET ROLE');
  await db.query(`DELETE FROM bgw.worker WHERE unregistered`);
  await onServer(`DROP ROLE ${bob}`);
});

function titleOf(osPid: number | undefined): string {
  return readFileSync(`/proc/${osPid}/cmdline`, 'utf8').replaceAll('\0', '').trim();
}

const HOSTILE_NAMES = [
  `it's`,
  '"; DROP TABLE bgw.process; --',
  '%s %n \\',
  '$$ $1 :name',
  'naïve ☃ 工作',
  '{"kind":"exited"}',
  'x'.repeat(63),
];

for (const name of HOSTILE_NAMES) {
  test(`a worker may be called ${name}`, async ({ db, startController }) => {
    const controller = await startController({
      libraryDirs: [join(findPackageRoot(), 'test', 'fixtures', 'libraries')],
    });
    await db.query('SELECT bgw_register($1, $2)', [name, 'SELECT pg_sleep(600)']);
    const handle = await db.value<bigint>('SELECT bgw_launch($1)', [name]);
    await db.query('CALL bgw_wait_for_startup($1)', [handle]);
    await until(() =>
      db.value('SELECT count(*) = 1 FROM bgw_stat_activity WHERE name = $1 AND pid IS NOT NULL', [name]),
    );
    expect(await db.value('SELECT bgw_terminate($1::text)', [name])).toBe(true);
    await db.query('CALL bgw_wait_for_shutdown($1)', [handle]);
    expect(await db.value('SELECT name FROM bgw_run_history')).toBe(name);

    const typescript = `${name.slice(0, 50)} ts`;
    await db.query(`SELECT bgw_register($1, library_name => 'waiter', function_name => 'main')`, [typescript]);
    await db.query('SELECT bgw_launch($1)', [typescript]);
    const { osPid } = await controller.saw('worker_started', { name: typescript });
    expect(titleOf(osPid)).toBe(`bgworker: ${typescript}`);
  });
}

test('a name has 1 to 63 bytes and no control characters', async ({ db }) => {
  for (const name of ['', 'x'.repeat(64), 'é'.repeat(32), 'two\nlines', 'tab\there', 'escape\u001B[31m']) {
    await expect(db.query('SELECT bgw_register($1, $2)', [name, 'SELECT 1']), name).rejects.toMatchObject({
      code: '22023',
    });
  }
});

test('what a worker says cannot forge a line of the log (I14)', async ({ db, controller }) => {
  const message = 'first line\nsecond line';
  await db.query(`SELECT bgw_launch_sql($1)`, [`DO $$ BEGIN RAISE LOG E'first line\\nsecond line'; END $$`]);
  await controller.saw('worker_said');
  await until(() => db.value('SELECT count(*) = 1 FROM bgw_log WHERE message = $1', [message]));
});
