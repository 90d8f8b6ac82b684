/**
 * bgw migrate: what it installs, what it refuses, and that it leaves others alone.
 * Small schemas of their own in a temporary directory stand for versions of this program.
 */
import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Client } from 'pg';
import { afterEach, describe } from 'vitest';
import { migrate, type MigrateResult } from '../src/migrate.ts';
import { migrationHash } from '../src/migration-files.ts';
import { startController } from './support/controller.ts';
import { createDatabase, expect, onServer, test as base, type TestDatabase } from './support/database.ts';
import { until } from './support/until.ts';

const CATALOG = `
CREATE SCHEMA bgw;
CREATE TABLE bgw.migration (id integer PRIMARY KEY, name text, hash text, applied_at timestamptz DEFAULT now());
CREATE TABLE bgw.sql_layer (hash text, applied_at timestamptz DEFAULT now());
`;
const LAUNCH = `
-- A comment; with a semicolon.
CREATE OR REPLACE FUNCTION public.bgw_launch(name text) RETURNS text LANGUAGE sql AS $$ SELECT 'launched; ' || name $$;
COMMENT ON FUNCTION public.bgw_launch(text) IS 'Launches the owner''s worker.';
`;

interface Version {
  migrations?: string[];
  sql?: Record<string, string>;
}

const directories: string[] = [];

afterEach(() => {
  for (const directory of directories.splice(0)) rmSync(directory, { recursive: true, force: true });
});

function temporaryDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'bgw-install-'));
  directories.push(directory);
  return directory;
}

/** Writes a version of the program's files and returns the options of migrate that name them. */
function version({ migrations = [CATALOG], sql = { 'launch.sql': LAUNCH } }: Version = {}): {
  migrationsDir: string;
  sqlDir: string;
} {
  const root = temporaryDirectory();
  const [migrationsDir, sqlDir] = [join(root, 'migrations'), join(root, 'sql')];
  mkdirSync(migrationsDir);
  mkdirSync(sqlDir);
  let previous: string | undefined;
  for (const [index, body] of migrations.entries()) {
    const hash = migrationHash(body, previous);
    const header = `--! Previous: ${previous ?? '-'}\n--! Hash: ${hash}\n`;
    writeFileSync(join(migrationsDir, `00000${index + 1}-step.sql`), `${header}\n${body.trim()}\n`);
    previous = hash;
  }
  const names = Object.keys(sql);
  writeFileSync(join(sqlDir, 'install.sql'), names.map((name) => `\\ir ${name}  -- a file\n`).join(''));
  for (const name of names) writeFileSync(join(sqlDir, name), sql[name] ?? '');
  return { migrationsDir, sqlDir };
}

const test = base.extend<{ empty: TestDatabase }>({
  empty: async ({}, use) => {
    const database = await createDatabase({ template: 'template0' });
    await use(database);
    await database.drop();
  },
});

async function install(database: TestDatabase, files = version()): Promise<MigrateResult> {
  return await migrate(await database.client(), files);
}

describe('installing', () => {
  test('gives a database the catalog and the functions, with the source in their comments', async ({ empty }) => {
    expect(await install(empty)).toEqual({ applied: ['000001-step.sql'], sqlLayer: 'applied' });
    expect(await empty.value(`SELECT public.bgw_launch('a')`)).toBe('launched; a');
    expect(await empty.value(`SELECT obj_description('public.bgw_launch'::regproc)`)).toBe(
      `Launches the owner's worker.\nSource: sql/launch.sql`,
    );
    expect(await empty.value('SELECT count(*) FROM bgw.migration')).toBe(1n);
  });

  test('stops at a function of the same name that somebody else has made, and changes nothing', async ({ empty }) => {
    await empty.query(`CREATE FUNCTION public.bgw_launch(name text) RETURNS text LANGUAGE sql AS 'SELECT NULL'`);
    await expect(install(empty)).rejects.toMatchObject({
      code: '42723',
      message: 'function "bgw_launch" already exists with same argument types',
      hint: expect.stringContaining('Drop or rename it'),
      where: 'sql/launch.sql:3',
    });
    expect(await empty.value(`SELECT to_regnamespace('bgw')`)).toBeNull();
  });

  test('does not adopt a schema that is there already', async ({ empty }) => {
    await empty.query('CREATE SCHEMA bgw');
    await expect(install(empty)).rejects.toMatchObject({
      code: '42P06',
      hint: expect.stringContaining('Drop or rename'),
    });
  });

  test('never drops what an earlier version could not have made', async ({ empty }) => {
    await empty.query('CREATE FUNCTION public.bgw_old() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$');
    const files = version({
      sql: { 'retired.sql': 'DROP FUNCTION IF EXISTS public.bgw_old();', 'launch.sql': LAUNCH },
    });
    await install(empty, files);
    expect(await empty.value('SELECT public.bgw_old()')).toBe(1);
  });

  test('says in which file and line an error is', async ({ empty }) => {
    const broken = `${LAUNCH}\nCOMMENT ON FUNCTION public.bgw_launch(text) IS\n  no string;`;
    await expect(install(empty, version({ sql: { 'launch.sql': broken } }))).rejects.toMatchObject({
      code: '42601',
      where: 'sql/launch.sql:7',
    });
  });

  test('refuses an object without a schema', async ({ empty }) => {
    const files = version({ sql: { 'a.sql': 'CREATE OR REPLACE VIEW unqualified AS SELECT 1 AS one;' } });
    await expect(install(empty, files)).rejects.toMatchObject({ code: '42501' });
  });

  test('succeeds in several sessions at once (I15)', async ({ empty }) => {
    const files = version();
    const results = await Promise.all(Array.from({ length: 6 }, () => install(empty, files)));
    expect(results.filter(({ sqlLayer }) => sqlLayer === 'applied')).toHaveLength(1);
    expect(results.filter(({ applied }) => applied.length > 0)).toHaveLength(1);
  });

  test('needs no more than a role that may create schemas and functions', async ({ empty }) => {
    const role = `${empty.name}_installer`;
    await onServer(`CREATE ROLE ${role}`);
    try {
      await empty.query(`GRANT CREATE ON DATABASE ${empty.name} TO ${role}; GRANT CREATE ON SCHEMA public TO ${role}`);
      const session = await empty.client();
      await session.query(`SET ROLE ${role}`);
      expect(await migrate(session, version())).toMatchObject({ sqlLayer: 'applied' });
      await session.query('RESET ROLE');
      await session.query(`DROP OWNED BY ${role} CASCADE`);
    } finally {
      await onServer(`DROP ROLE ${role}`);
    }
  });
});

describe('a role that owns its database and nothing else', () => {
  async function asOwner(empty: TestDatabase, work: (session: Client) => Promise<void>): Promise<void> {
    const role = `${empty.name}_owner`;
    await onServer(`CREATE ROLE ${role}; ALTER DATABASE ${empty.name} OWNER TO ${role}`);
    try {
      await empty.query('GRANT CREATE ON SCHEMA public TO public');
      const session = await empty.client();
      await session.query(`SET ROLE ${role}`);
      await work(session);
      await session.query(
        `RESET ROLE; ALTER DATABASE ${empty.name} OWNER TO CURRENT_USER; DROP OWNED BY ${role} CASCADE`,
      );
    } finally {
      await onServer(`DROP ROLE ${role}`);
    }
  }

  test('installs beside a pg_cron that it may not use', async ({ empty }) => {
    await empty.query('CREATE SCHEMA cron');
    await asOwner(empty, async (session) => {
      expect(await migrate(session)).toMatchObject({ sqlLayer: 'applied' });
      await expect(migrate(session, { withCron: true })).rejects.toMatchObject({ code: '42P06' });
    });
  });

  test('is told whose schema it may not upgrade', async ({ empty }) => {
    await install(empty);
    const owner = await empty.value<string>('SELECT current_user');
    await asOwner(empty, async (session) => {
      await expect(migrate(session, version())).rejects.toMatchObject({
        code: '42501',
        message: `schema "bgw" belongs to role "${owner}"`,
        hint: `Run "bgw migrate" as role "${owner}".`,
      });
    });
  });

  test('is told that it may not create in schema public, and that nothing has changed', async ({ empty }) => {
    const said: string[] = [];
    await asOwner(empty, async (session) => {
      await empty.query('REVOKE CREATE ON SCHEMA public FROM public; ALTER SCHEMA public OWNER TO CURRENT_USER');
      await expect(migrate(session, { ...version(), log: (line) => said.push(line) })).rejects.toMatchObject({
        code: '42501',
        hint: expect.stringContaining('CREATE on schema public'),
      });
    });
    expect(said).toEqual(['applied migrations/committed/000001-step.sql', 'rolled back: nothing has changed']);
  });
});

test('a role that may not install is told what it needs', async ({ empty }) => {
  const session = await empty.client();
  await session.query('SET ROLE pg_monitor');
  await expect(migrate(session, version())).rejects.toMatchObject({
    code: '42501',
    message: `permission denied for database ${empty.name}`,
    hint: expect.stringContaining('may create schemas'),
  });
});

describe('upgrading', () => {
  test('skips a sql layer that has not changed', async ({ empty }) => {
    await install(empty);
    const before = await empty.value(`SELECT xmin::text FROM pg_proc WHERE proname = 'bgw_launch'`);
    expect(await install(empty)).toEqual({ applied: [], sqlLayer: 'unchanged' });
    expect(await empty.value(`SELECT xmin::text FROM pg_proc WHERE proname = 'bgw_launch'`)).toBe(before);
  });

  test('applies pending migrations, drops what is retired and replaces the rest', async ({ empty }) => {
    await install(empty);
    const next = version({
      migrations: [CATALOG, 'CREATE TABLE bgw.worker (id int);'],
      sql: {
        'retired.sql': 'DROP FUNCTION IF EXISTS public.bgw_launch(text);',
        'launch.sql': LAUNCH.replaceAll('bgw_launch(text)', 'bgw_launch(name)').replaceAll('name text', 'name name'),
      },
    });
    expect(await install(empty, next)).toEqual({ applied: ['000002-step.sql'], sqlLayer: 'applied' });
    expect(await empty.value(`SELECT 'public.bgw_launch'::regproc::regprocedure::text`)).toBe('bgw_launch(name)');
    expect(await empty.value(`SELECT to_regclass('bgw.worker') IS NOT NULL`)).toBe(true);
  });

  test('refuses to replace a function of another role', async ({ empty }) => {
    await install(empty);
    await empty.query(`
      CREATE FUNCTION public.bgw_cancel() RETURNS int LANGUAGE sql AS 'SELECT 1';
      ALTER FUNCTION public.bgw_cancel() OWNER TO pg_monitor`);
    const cancel = `CREATE OR REPLACE FUNCTION public.bgw_cancel() RETURNS int LANGUAGE sql AS 'SELECT 2';`;
    await expect(
      install(empty, version({ sql: { 'launch.sql': LAUNCH, 'cancel.sql': cancel } })),
    ).rejects.toMatchObject({
      code: '42501',
      message: 'function public.bgw_cancel() belongs to role "pg_monitor"',
      hint: expect.any(String),
    });
    expect(await empty.value('SELECT public.bgw_cancel()')).toBe(1);
  });

  test('waits for a session that holds a lock, and tells so', async ({ empty }) => {
    await install(empty);
    const holder = await empty.client();
    await holder.query('BEGIN; LOCK TABLE bgw.sql_layer');
    const said: string[] = [];
    const migrating = migrate(await empty.client(), { ...version({ sql: {} }), log: (line) => said.push(line) });
    await until(() => said.length > 0);
    await holder.query('COMMIT');
    expect(await migrating).toMatchObject({ sqlLayer: 'applied' });
    expect(said[0]).toBe('waiting for a lock that another session holds');
  });

  test('gives up when the lock is held for too long, and says why', async ({ empty }) => {
    await install(empty);
    const holder = await empty.client();
    await holder.query('BEGIN; LOCK TABLE bgw.sql_layer');
    await expect(migrate(await empty.client(), { ...version({ sql: {} }), patienceMs: 0 })).rejects.toMatchObject({
      code: '55P03',
      message: 'could not migrate: another session holds a lock that is needed',
    });
  });
});

describe('the history', () => {
  test('of a newer program is refused (WK301)', async ({ empty }) => {
    await install(empty, version({ migrations: [CATALOG, 'SELECT 1;'] }));
    await expect(install(empty)).rejects.toMatchObject({ code: 'WK301', detail: expect.stringContaining('000002') });
  });

  test('that was edited in the files is refused (WK302)', async ({ empty }) => {
    await install(empty);
    await expect(install(empty, version({ migrations: [`${CATALOG}SELECT 1;`] }))).rejects.toMatchObject({
      code: 'WK302',
    });
  });

  test('is not run from a file whose header does not fit its text (WK302)', async ({ empty }) => {
    const files = version();
    writeFileSync(join(files.migrationsDir, '000001-step.sql'), `--! Previous: -\n--! Hash: sha1:unset\n\n${CATALOG}`);
    await expect(install(empty, files)).rejects.toMatchObject({
      code: 'WK302',
      hint: expect.stringContaining('hash-'),
    });
  });

  test('has the hashes of graphile-migrate', () => {
    const { calculateHash } = createRequire(import.meta.url)('graphile-migrate/dist/hash.js') as {
      calculateHash: (body: string, previous: string | null) => string;
    };
    for (const body of [CATALOG, 'SELECT 1;', '\n\n  x  \n']) {
      expect(migrationHash(body, undefined)).toBe(calculateHash(body, null));
      expect(migrationHash(body, 'sha1:abc')).toBe(calculateHash(body, 'sha1:abc'));
    }
  });
});

test('a controller does not start on a schema that is older than it (WK304)', async ({ db }) => {
  await db.query('DELETE FROM bgw.migration WHERE id > 13');
  await expect(startController(db)).rejects.toMatchObject({
    code: 'WK304',
    detail: expect.stringContaining('"000013-fewer-indexes.sql"'),
    hint: 'Run: bgw migrate',
  });
  expect(await db.value('SELECT count(*) FROM bgw.node')).toBe(0n);
});

test('the schema of this program is installed and up to date in the template', async ({ db }) => {
  expect(await migrate(await db.client())).toEqual({ applied: [], sqlLayer: 'unchanged' });
});

test("a user's own graphile-migrate project works in the same database, before and after", async ({ empty }) => {
  const project = version({ migrations: ['CREATE TABLE public.theirs (id int);'] });
  const graphileMigrate = await userProject(project.migrationsDir, empty.url);
  await graphileMigrate();
  await migrate(await empty.client());
  expect(await empty.value(`SELECT to_regclass('public.theirs') IS NOT NULL`)).toBe(true);

  const registration = `SELECT bgw_register(name => 'rollup', command => $$CALL rollup()$$, naptime => '10 s', restart_time => '5 s', autostart => true);
    SELECT bgw_define_setting('rollup.keep', boot_val => '30d', vartype => 'integer', unit => 'd');`;
  const bodies = ['CREATE TABLE public.theirs (id int);', `CREATE TABLE public.more (id int); ${registration}`];
  await (
    await userProject(version({ migrations: bodies }).migrationsDir, empty.url)
  )();
  expect(await empty.value('SELECT count(*) FROM graphile_migrate.migrations')).toBe(2n);
  expect(await empty.value(`SELECT to_regclass('public.more') IS NOT NULL`)).toBe(true);
  expect((await empty.query(`SELECT status, settings FROM bgw_stat_activity WHERE name = 'rollup'`)).rows).toEqual([
    { status: 'not_yet_started', settings: { 'rollup.keep': '30d' } },
  ]);
  expect(await migrate(await empty.client())).toEqual({ applied: [], sqlLayer: 'unchanged' });
});

/** A project whose migrations/committed is `committed`, and its `graphile-migrate migrate`. */
async function userProject(committed: string, url: string): Promise<() => Promise<unknown>> {
  const { rename } = await import('node:fs/promises');
  const root = temporaryDirectory();
  mkdirSync(join(root, 'migrations'));
  await rename(committed, join(root, 'migrations', 'committed'));
  writeFileSync(join(root, '.gmrc'), '{}');
  const program = createRequire(import.meta.url).resolve('graphile-migrate/dist/cli.js');
  const env = { ...process.env, DATABASE_URL: url };
  return () => promisify(execFile)(process.execPath, [program, 'migrate'], { cwd: root, env });
}
