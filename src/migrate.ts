/**
 * Brings a database to this program's schema in one transaction: lock, verify the history, run pending migrations, run
 * the sql/ layer unless it is unchanged.  Any number of these may run at the same time (I15): one does the work, the
 * others wait for it and find nothing to do.
 * Called by: src/commands/migrate.ts, `bgw up`, tests.
 *
 * The history stands in bgw.migration and not in graphile-migrate's own table, whose name is fixed: a user's project
 * that uses graphile-migrate in the same database would take our migrations for its own.
 */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ClientBase } from 'pg';
import { BgwError, describeError } from './errors.ts';
import { readMigrations, type Migration } from './migration-files.ts';
import { findPackageRoot } from './package-root.ts';
import { applySqlLayer, hashSqlLayer, readSqlLayer } from './sql-layer.ts';

export interface MigrateOptions {
  /** Told what is applied, and what is waited for. */
  log?: (line: string) => void;
  /** Other files than this package's own, for tests. */
  migrationsDir?: string;
  sqlDir?: string;
  /** How long others may hold what is needed before this gives up. */
  patienceMs?: number;
}

export interface MigrateResult {
  /** File names of the migrations that were applied now. */
  applied: string[];
  sqlLayer: 'applied' | 'unchanged';
}

const OLDEST_SERVER = 13;
/** Any number that others are unlikely to use: the bytes of "bgw mig". */
const LOCK_KEY = '27698309060454759';
/** While a lock is waited for, everybody who comes after us on that table waits as well: ask for short times only. */
const LOCK_TIMEOUT_MS = 3_000;
const PAUSE_MS = 500;
/** A running upgrade takes seconds; a transaction that holds our tables for minutes needs its owner's attention. */
const PATIENCE_MS = 120_000;
const LOCK_NOT_AVAILABLE = '55P03';
const DEADLOCK_DETECTED = '40P01';

/** Applies what is missing. Throws WK301 for a newer schema and WK302 for a different history; then nothing changed. */
export async function migrate(client: ClientBase, options: MigrateOptions = {}): Promise<MigrateResult> {
  const { log = (): void => undefined, patienceMs = PATIENCE_MS } = options;
  const root = findPackageRoot();
  const migrations = readMigrations(options.migrationsDir ?? join(root, 'migrations', 'committed'));
  const files = readSqlLayer(options.sqlDir ?? join(root, 'sql'));
  await checkServer(client);

  const deadline = performance.now() + patienceMs;
  for (;;) {
    try {
      return await inTransaction(client, async () => {
        await lock(client);
        const applied = await applyMigrations(client, migrations, log);
        const sqlLayer = await refreshSqlLayer(client, files, log);
        return { applied, sqlLayer };
      });
    } catch (error) {
      const { code } = describeError(error);
      if (code !== LOCK_NOT_AVAILABLE && code !== DEADLOCK_DETECTED) throw error;
      if (performance.now() > deadline) throw stillLocked(error);
      log('waiting for a lock that another session holds');
      await sleep(PAUSE_MS);
    }
  }
}

async function checkServer(client: ClientBase): Promise<void> {
  const { rows } = await client.query<{ version: string; major: number; standby: boolean }>(
    `SELECT pg_catalog.current_setting('server_version') AS version,
            pg_catalog.current_setting('server_version_num')::int / 10000 AS major,
            pg_catalog.pg_is_in_recovery() AS standby`,
  );
  const [server] = rows;
  if (server !== undefined && server.major < OLDEST_SERVER) {
    throw new BgwError('0A000', {
      message: `PostgreSQL ${server.version} is not supported`,
      detail: `pg-bgworker needs PostgreSQL ${OLDEST_SERVER} or later.`,
    });
  }
  if (server?.standby) {
    throw new BgwError('25006', {
      message: 'cannot migrate a standby server',
      hint: 'Connect to the primary server.',
    });
  }
}

/**
 * READ COMMITTED, so that what another migration committed while we waited for the lock is seen.  With this search_path
 * whatever a file does not qualify is looked for in pg_catalog only, and cannot be created at all.
 */
async function inTransaction<T>(client: ClientBase, work: () => Promise<T>): Promise<T> {
  await client.query('BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE');
  try {
    await client.query(
      `SET LOCAL lock_timeout = ${LOCK_TIMEOUT_MS};
       SET LOCAL statement_timeout = 0;
       SET LOCAL search_path = pg_catalog, pg_temp;
       SET LOCAL standard_conforming_strings = on;
       SET LOCAL client_min_messages = warning`,
    );
    const result = await work();
    await client.query('COMMIT');
    return result;
  } catch (error) {
    // The first error is the one to report; if the session is lost, the server rolls back by itself.
    await client.query('ROLLBACK').catch(() => undefined);
    throw error;
  }
}

async function lock(client: ClientBase): Promise<void> {
  await client.query(`SELECT pg_advisory_xact_lock(${LOCK_KEY})`);
}

async function applyMigrations(
  client: ClientBase,
  migrations: Migration[],
  log: (line: string) => void,
): Promise<string[]> {
  const history = await readHistory(client);
  checkHistory(history, migrations);
  const pending = migrations.slice(history.length);
  for (const { id, name, hash, body } of pending) {
    await client.query(body).catch((error: unknown) => {
      throw explain(error, name);
    });
    await client.query('INSERT INTO bgw.migration (id, name, hash) VALUES ($1, $2, $3)', [id, name, hash]);
    log(`applied migrations/committed/${name}`);
  }
  return pending.map(({ name }) => name);
}

type HistoryRow = Pick<Migration, 'id' | 'name' | 'hash'>;

/** Asks for the table first: the first migration makes it, and the schema it stands in. */
async function readHistory(client: ClientBase): Promise<HistoryRow[]> {
  const { rows } = await client.query<{ exists: boolean }>(`SELECT to_regclass('bgw.migration') IS NOT NULL AS exists`);
  if (!rows[0]?.exists) return [];
  const history = await client.query<HistoryRow>('SELECT id, name, hash FROM bgw.migration ORDER BY id');
  return history.rows;
}

function checkHistory(history: HistoryRow[], migrations: Migration[]): void {
  for (const [index, row] of history.entries()) {
    const file = migrations[index];
    if (file === undefined) {
      throw new BgwError('WK301', {
        message: 'the schema in the database is newer than this program',
        detail: `The database has migration "${row.name}"; the last one known here is "${migrations.at(-1)?.name}".`,
        hint: 'Update pg-bgworker to the version that made this schema, or a later one.',
      });
    }
    if (file.id !== row.id || file.hash !== row.hash) {
      throw new BgwError('WK302', {
        message: `migration "${row.name}" in the database differs from this program's`,
        detail: `The database has ${row.hash}, the file "${file.name}" has ${file.hash}.`,
        hint: 'Use a released version of pg-bgworker.  In development, start with an empty database.',
      });
    }
  }
}

async function refreshSqlLayer(
  client: ClientBase,
  files: ReturnType<typeof readSqlLayer>,
  log: (line: string) => void,
): Promise<MigrateResult['sqlLayer']> {
  const { rows } = await client.query<{ major: number; hash: string | null }>(
    `SELECT current_setting('server_version_num')::int / 10000 AS major, (SELECT hash FROM bgw.sql_layer) AS hash`,
  );
  const { major = 0, hash: stored = null } = rows[0] ?? {};
  const hash = hashSqlLayer(files, major);
  if (hash === stored) return 'unchanged';

  await applySqlLayer(client, files, { isFirst: stored === null });
  await client.query('DELETE FROM bgw.sql_layer');
  await client.query('INSERT INTO bgw.sql_layer (hash) VALUES ($1)', [hash]);
  log(`applied sql/ (${files.length} files)`);
  return 'applied';
}

function explain(error: unknown, name: string): unknown {
  const { code, message, detail, hint } = describeError(error);
  if (code !== '42P06' && code !== '42501') return error;
  return new BgwError(code, {
    message,
    detail: code === '42P06' ? 'It was there before pg-bgworker was installed.' : detail,
    hint:
      code === '42P06'
        ? 'Drop or rename it, and run "bgw migrate" again.'
        : (hint ?? 'Migrate as a role that may create schemas in this database, such as its owner.'),
    where: `migrations/committed/${name}`,
    cause: error,
  });
}

function stillLocked(cause: unknown): BgwError {
  return new BgwError(LOCK_NOT_AVAILABLE, {
    message: 'could not migrate: another session holds a lock that is needed',
    detail: describeError(cause).message,
    hint: "SELECT * FROM pg_stat_activity WHERE state = 'idle in transaction' may show who holds it.",
    cause,
  });
}
