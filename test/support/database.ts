/**
 * A database of its own for each test: a clone of the template of test/support/server.ts, dropped at the end.
 *
 *   import { expect, test } from './support/database.ts';
 *   test('a rolled-back launch never starts', async ({ db }) => {
 *     expect(await db.value('SELECT count(*) FROM bgw.process')).toBe(0n);
 *   });
 *
 * bigint columns arrive as bigint, so that a handle is never rounded.
 */
import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { inject, test as base, type TestAPI } from 'vitest';
import { TEMPLATE } from './server.ts';

export { expect } from 'vitest';

/** The application name of sessions of unprivileged roles, which the tests of kill_idle leave alone. */
export const SPARED = 'bgw_test_spared';

export interface TestDatabase {
  url: string;
  name: string;
  /** Runs a statement on the database's one main session. */
  // oxlint-disable-next-line typescript/no-explicit-any -- rows are untyped unless told, as with pg's own query
  query<Row extends pg.QueryResultRow = any>(sql: string, params?: unknown[]): Promise<pg.QueryResult<Row>>;
  /** The first column of the first row; undefined if there is no row. */
  value<Value>(sql: string, params?: unknown[]): Promise<Value>;
  /** Another session, closed when the database is dropped. */
  client(options?: pg.ClientConfig): Promise<pg.Client>;
  drop(): Promise<void>;
}

export interface DatabaseOptions {
  /** `template0` for a database without pg-bgworker. */
  template?: string;
}

export async function createDatabase({ template = TEMPLATE }: DatabaseOptions = {}): Promise<TestDatabase> {
  const templateError = inject('templateError');
  if (template === TEMPLATE && templateError !== undefined)
    throw new Error(`the schema was not installed\n${templateError}`);
  const name = `bgw_test_${randomBytes(6).toString('hex')}`;
  await onServer(`CREATE DATABASE ${name} TEMPLATE ${template}`);
  const location = new URL(inject('serverUrl'));
  location.pathname = name;
  const url = location.href;

  const clients: pg.Client[] = [];
  const client = async (options: pg.ClientConfig = {}): Promise<pg.Client> => {
    const created = createClient(url, options);
    await created.connect();
    clients.push(created);
    return created;
  };
  let main: Promise<pg.Client> | undefined;
  const query: TestDatabase['query'] = async <Row extends pg.QueryResultRow>(sql: string, params?: unknown[]) => {
    const session = await (main ??= client());
    return session.query<Row>(sql, params);
  };
  return {
    url,
    name,
    query,
    value: async <Value>(sql: string, params?: unknown[]) => {
      const { rows } = await query(sql, params);
      return Object.values(rows[0] ?? {})[0] as Value;
    },
    client,
    drop: async () => {
      await Promise.all(clients.map((session) => session.end().catch(() => undefined)));
      await onServer(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
    },
  };
}

/** A statement for the whole server, such as CREATE ROLE, outside of any test database. */
export async function onServer(sql: string): Promise<void> {
  const session = createClient(inject('serverUrl'));
  await session.connect();
  try {
    await session.query(sql);
  } finally {
    await session.end();
  }
}

export const test: TestAPI<{ db: TestDatabase }> = base.extend<{ db: TestDatabase }>({
  db: async ({}, use) => {
    const db = await createDatabase();
    await use(db);
    await db.drop();
  },
});

function createClient(url: string, options: pg.ClientConfig = {}): pg.Client {
  const types = new pg.TypeOverrides();
  types.setTypeParser(pg.types.builtins.INT8, BigInt);
  const session = new pg.Client({ connectionString: url, types, ...options });
  // A test that has its session terminated sees it in its next statement; without a listener Node.js would exit.
  session.on('error', () => undefined);
  return session;
}
