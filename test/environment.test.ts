/** Databases and servers that are set up unlike ours: encodings, settings of the database, event triggers, publications. */
import { once } from 'node:events';
import { rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer } from 'node:net';
import { join } from 'node:path';
import pg from 'pg';
import { onTestFinished, vi } from 'vitest';
import { migrate } from '../src/migrate.ts';
import { findPackageRoot } from '../src/package-root.ts';
import { startController, test } from './support/controller.ts';
import { createDatabase, expect, onServer } from './support/database.ts';
import { createDirectory } from './support/directory.ts';
import { until } from './support/until.ts';

async function migrateDatabase(url: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    await migrate(client);
  } finally {
    await client.end();
  }
}

/** Something between a node and the server, that hears what is said and may change what is answered. */
async function relay(url: string, hear: (data: Buffer) => void, answer: (data: Buffer) => Buffer): Promise<string> {
  const location = new URL(url);
  const { hostname, port } = location;
  const listener = createServer((client) => {
    const server = connect(Number(port), hostname).on('error', () => client.destroy());
    server.on('data', (data) => client.write(answer(data))).on('close', () => client.destroy());
    client.on('error', () => undefined).on('close', () => server.destroy());
    client.on('data', (data) => (hear(data), server.write(data)));
  }).listen(0, '127.0.0.1');
  onTestFinished(() => void listener.close());
  await once(listener, 'listening');
  location.hostname = '127.0.0.1';
  location.port = String((listener.address() as AddressInfo).port);
  return location.href;
}

test('what a worker says reaches a catalog whose encoding does not have it', async ({ db }) => {
  const latin = await createDatabase({ template: `template0 ENCODING 'LATIN1' LOCALE 'C'` });
  await migrateDatabase(latin.url);
  const node = await startController(latin);
  try {
    // In a database that has it.
    const handle = await latin.value<bigint>(`SELECT bgw_launch_sql($1, database => $2)`, [
      `DO $$ BEGIN RAISE WARNING '%', chr(233); RAISE EXCEPTION 'costs 5 %', chr(8364) || chr(128024); END $$`,
      db.name,
    ]);
    await latin.query('CALL bgw_wait_for_shutdown($1)', [handle]);
    expect(await latin.value('SELECT message FROM bgw_run_history WHERE handle = $1', [handle])).toBe(
      'costs 5 \\u{20ac}\\u{1f418}',
    );
    expect(node.observations.filter(({ kind }) => kind === 'connection_lost')).toEqual([]);
  } finally {
    await node.stop();
    await latin.drop();
  }
});

test('what no node could be told is refused in a SQL_ASCII database', async () => {
  const ascii = await createDatabase({ template: `template0 ENCODING 'SQL_ASCII' LOCALE 'C'` });
  await migrateDatabase(ascii.url);
  const node = await startController(ascii);
  const bytes = (text: string): string => `convert_from('${text}', 'SQL_ASCII')`;
  try {
    await ascii.query(`SELECT bgw_define_setting('ascii.word', boot_val => 'a')`);
    for (const call of [
      `bgw_launch_sql('SELECT 1 -- ' || ${bytes('\\xe9')})`,
      `bgw_launch('hello_world', notify => ${bytes('\\xe9')})`,
      `bgw_register(${bytes('\\xe9')}, 'SELECT 1')`,
      `bgw_set_config('ascii.word', ${bytes('\\xe9')})`,
      `bgw_schedule(${bytes('\\xe9')}, '1 day', 'SELECT 1')`,
    ])
      await expect(ascii.query(`SELECT ${call}`), call).rejects.toMatchObject({ code: '22021' });
    const handle = await ascii.value<bigint>(`SELECT bgw_launch_sql('SELECT 1 -- ' || ${bytes('\\xc3a9')})`);
    await node.saw('worker_exited', { handle: String(handle), exitCode: 0 });
    expect(await ascii.value(`SELECT count(*)::int FROM bgw_log WHERE severity <> 'LOG'`)).toBe(0);
  } finally {
    await node.stop();
    await ascii.drop();
  }
});

test('an event trigger that refuses DDL stops no node', async ({ db, startController: start }) => {
  const day = await db.value<string>(`SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYYMMDD')`);
  await db.query(`
    CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'the schema is frozen'; END $$;
    CREATE EVENT TRIGGER refusal ON ddl_command_start EXECUTE FUNCTION refuse()`);
  const node = await start();
  const handle = await db.value<bigint>(`SELECT bgw_launch_sql('SELECT 1')`);
  await node.saw('worker_exited', { handle: String(handle), exitCode: 0 });
  const said = 'SELECT severity, sqlstate, message FROM bgw_log WHERE handle IS NULL ORDER BY id';
  const refused = { severity: 'WARNING', sqlstate: 'P0001' };
  expect((await db.query(said)).rows).toEqual([
    { ...refused, message: 'could not renew the partitions of bgw.run: the schema is frozen' },
    { ...refused, message: 'could not renew the partitions of bgw.tick: the schema is frozen' },
  ]);
  await db.query('DROP EVENT TRIGGER refusal');
  await db.query(`UPDATE bgw.duty SET due_at = '-infinity'`);
  await until(() => db.value(`SELECT to_regclass('bgw.tick_${day}') IS NOT NULL`));
});

test('a transaction_timeout of the database ends neither a migration nor the control session', async ({ skip }) => {
  const db = await createDatabase({ template: 'template0' });
  try {
    skip((await db.value<number>(`SELECT current_setting('server_version_num')::int`)) < 170_000, 'PostgreSQL 17');
    await onServer(`ALTER DATABASE ${db.name} SET transaction_timeout = '100ms'`);
    await migrateDatabase(db.url);
    const other = await db.client();
    await other.query('SET transaction_timeout = 0; BEGIN; LOCK TABLE bgw.node IN SHARE MODE');
    const started = startController(db);
    started.catch(() => undefined); // it is awaited below
    await until(() =>
      db.value(
        `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'bgw control' AND wait_event_type = 'Lock' AND now() - query_start > '300 ms')`,
      ),
    );
    await other.query('COMMIT');
    await (await started).stop();
  } finally {
    await db.drop();
  }
});

test('an upgrade works where everything is published', async ({ db }) => {
  await db.query(`UPDATE bgw.sql_layer SET hash = 'older'`);
  await db.query('CREATE PUBLICATION everything FOR ALL TABLES');
  await migrateDatabase(db.url);
  expect(await db.value(`SELECT count(*)::int FROM bgw.sql_layer WHERE hash <> 'older'`)).toBe(1);
});

test('kill_idle spares whom it should where backslashes are escapes', async ({ db }) => {
  await onServer(`ALTER DATABASE ${db.name} SET standard_conforming_strings = off`);
  const session = await db.client();
  await session.query(`SET kill_idle.exclude_users = 'root , app'`);
  const { rows } = await session.query(`SELECT bgw.is_listed('app', 'kill_idle.exclude_users') AS listed`);
  expect(rows).toEqual([{ listed: true }]);
});

test('what the server logs of statements is not said by workers', async ({ db, startController: start }) => {
  await onServer(`ALTER DATABASE ${db.name} SET session_preload_libraries = 'auto_explain'`);
  for (const setting of ['log_min_duration_statement', 'auto_explain.log_min_duration'])
    await onServer(`ALTER DATABASE ${db.name} SET ${setting} = 0`);
  const node = await start();
  await db.query(`SELECT worker_spi_launch(1)`);
  await node.saw('worker_said', { name: 'worker_spi' });
  const command = `DO $$ BEGIN PERFORM count(*) FROM pg_class; RAISE LOG 'it is done'; END $$`;
  const handle = await db.value<bigint>('SELECT bgw_launch_sql($1)', [command]);
  await db.query('CALL bgw_wait_for_shutdown($1)', [handle]);
  await until(() => db.value(`SELECT EXISTS (SELECT FROM schema1.counted)`).catch(() => false));
  expect((await db.query('SELECT name, message FROM bgw_log ORDER BY name')).rows).toEqual([
    { name: 'sql', message: 'it is done' },
    { name: 'worker_spi', message: 'worker_spi initialized with schema1.counted' },
  ]);
});

test('a pooler is refused before anything is set in a session that others will have', async ({ db }) => {
  let said = '';
  const url = await relay(
    db.url,
    (data) => (said += data.toString('latin1')),
    (data) => {
      const key = data.indexOf('K\0\0\0\f', 0, 'latin1');
      if (key >= 0) data.writeInt32BE(-1, key + 5);
      return data;
    },
  );
  await expect(startController({ url })).rejects.toMatchObject({ code: 'WK203' });
  expect(said).toMatch(/pg_backend_pid/);
  expect(said).not.toMatch(/set_config/);
});

/** As with lc_messages of German: the first field of an error, in a frame that gets longer by a letter, and that of a warning. */
function inGerman(data: Buffer): Buffer {
  const at = data.indexOf('SERROR\0V');
  if (at < 5) return Buffer.from(data.toString('latin1').replaceAll('SWARNING\0V', 'SWARNUNG\0V'), 'latin1');
  const changed = Buffer.concat([data.subarray(0, at), Buffer.from('SFEHLER'), data.subarray(at + 'SERROR'.length)]);
  changed.writeInt32BE(data.readInt32BE(at - 4) + 1, at - 4);
  return changed;
}

test('messages of the server in another language mean the same to a worker in TypeScript', async ({ db }) => {
  const url = await relay(db.url, () => undefined, inGerman);
  const root = findPackageRoot();
  const node = await startController(
    { url },
    { libraryDirs: ['libraries', 'spi'].map((name) => join(root, 'test/fixtures', name)) },
  );
  try {
    await db.query(`SELECT bgw_launch('probe_errors'), bgw_launch('spi', '"notices"')`);
    const said = `SELECT EXISTS (SELECT FROM bgw_log WHERE (severity, message) = ($1, $2))`;
    for (const line of [
      ['LOG', '"went on"'],
      ['ERROR', 'division by zero'],
      ['WARNING', 'careful'],
    ])
      await until(() => db.value(said, line), { what: line.join(' ') });
  } finally {
    await node.stop();
  }
});

test('the password may stand in a file that PGPASSFILE names, for workers in TypeScript too', async ({ db }) => {
  const url = new URL(db.url);
  const directory = createDirectory('bgw-test-password-');
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  const file = join(directory, 'pgpass');
  writeFileSync(file, `*:*:*:${url.username}:${url.password}\n`, { mode: 0o600 });
  url.password = '';
  vi.stubEnv('PGPASSFILE', file);
  onTestFinished(() => void vi.unstubAllEnvs());
  const node = await startController({ url: url.href });
  try {
    await db.query('SELECT worker_spi_launch(1)');
    await until(() => db.value(`SELECT EXISTS (SELECT FROM bgw_log WHERE message ~ '^worker_spi initialized')`));
  } finally {
    await node.stop();
  }
});
