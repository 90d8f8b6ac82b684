/**
 * Brings a database to this program's schema in one transaction: lock, verify the history, run pending migrations, run
 * the sql/ layer unless it is unchanged.  Then the same for schema cron, where it is asked for or there.  Any number of
 * these may run at the same time (I15): one does the work, the others wait for it and find nothing to do.
 * Called by: src/commands/migrate.ts, `bgw up`, tests.
 *
 * The history stands in bgw.migration and not in graphile-migrate's own table, whose name is fixed: a user's project
 * that uses graphile-migrate in the same database would take our migrations for its own.
 */
import { resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ClientBase } from 'pg';
import { BgwError, describeError } from './errors.ts';
import { migrationNames, readMigrations, type Migration } from './migration-files.ts';
import { checkHistory, hasHistory, readHistory } from './migration-history.ts';
import { findPackageRoot } from './package-root.ts';
import { applySqlLayer, hashSqlLayer, readSqlLayer, type SqlFile } from './sql-layer.ts';

export interface MigrateOptions {
  /** Told what is applied, and what is waited for. */
  log?: (line: string) => void;
  /** Install schema cron, pg_cron's interface, as well. Once it is installed it is upgraded without being asked for. */
  withCron?: boolean;
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

/** What has a history, and a layer of re-creatable objects, of its own. */
interface Part {
  /** The schema that holds its tables migration and sql_layer. */
  schema: 'bgw' | 'cron';
  migrations: Migration[];
  files: SqlFile[];
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
  const { log = (): void => undefined, patienceMs = PATIENCE_MS, withCron = false } = options;
  const bgw = readPart('bgw', options.migrationsDir ?? 'migrations/committed', options.sqlDir ?? 'sql');
  const cron = readPart('cron', 'migrations/cron', 'sql/cron');
  await checkServer(client);

  const deadline = performance.now() + patienceMs;
  for (;;) {
    let hasApplied = false;
    const told = (line: string): void => {
      hasApplied = true;
      log(line);
    };
    try {
      return await inTransaction(client, async () => {
        await lock(client);
        const hasCron = await checkCron(client, withCron);
        const result = await applyPart(client, bgw, told);
        return hasCron ? merge(result, await applyPart(client, cron, told)) : result;
      });
    } catch (error) {
      if (hasApplied) log('rolled back: nothing has changed');
      const { code } = describeError(error);
      if (code !== LOCK_NOT_AVAILABLE && code !== DEADLOCK_DETECTED) throw error;
      if (performance.now() > deadline) throw stillLocked(error);
      log('waiting for a lock that another session holds');
      await sleep(PAUSE_MS);
    }
  }
}

/** For a controller: it calls what the newest migration and its functions have. Throws WK304 if the database lacks it. */
export function checkNotOlder(newest: number): void {
  const names = migrationNames(resolve(findPackageRoot(), 'migrations/committed'));
  if (newest >= names.length) return;
  throw new BgwError('WK304', {
    message: 'the schema in the database is older than this program',
    detail: `The last migration of the database is "${names[newest - 1]}"; of this program, "${names.at(-1)}".`,
    hint: 'Run: bgw migrate',
  });
}

/** Directories are relative to the package; tests give absolute ones. */
function readPart(schema: Part['schema'], migrationsDir: string, sqlDir: string): Part {
  const root = findPackageRoot();
  return {
    schema,
    migrations: readMigrations(resolve(root, migrationsDir)),
    files: readSqlLayer(resolve(root, sqlDir), schema === 'bgw' ? 'sql' : `sql/${schema}`),
  };
}

async function applyPart(client: ClientBase, part: Part, log: (line: string) => void): Promise<MigrateResult> {
  const applied = await applyMigrations(client, part, log);
  return { applied, sqlLayer: await refreshSqlLayer(client, part, log) };
}

function merge(one: MigrateResult, other: MigrateResult): MigrateResult {
  const isUnchanged = one.sqlLayer === 'unchanged' && other.sqlLayer === 'unchanged';
  return { applied: [...one.applied, ...other.applied], sqlLayer: isUnchanged ? 'unchanged' : 'applied' };
}

/**
 * Whether schema cron is to be installed or upgraded. Throws 42P06 if it is wanted and somebody else's is there.
 * Asks the catalogs: to_regclass throws where the role may not use the schema, as with the real pg_cron.
 */
async function checkCron(client: ClientBase, isWanted: boolean): Promise<boolean> {
  const { rows } = await client.query<{ ours: boolean; extension: boolean; taken: boolean }>(
    `SELECT EXISTS (SELECT FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
                    WHERE nspname = 'cron' AND relname = 'sql_layer') AS ours,
            EXISTS (SELECT FROM pg_namespace WHERE nspname = 'cron') AS taken,
            EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_cron') AS extension`,
  );
  const { ours = false, extension = false, taken = false } = rows[0] ?? {};
  if (!isWanted || ours || !(extension || taken)) return isWanted || ours;
  throw new BgwError('42P06', {
    message: extension ? 'extension "pg_cron" is installed in this database' : 'schema "cron" already exists',
    detail: extension ? 'Its schema has the name of ours.' : 'It was not made by pg-bgworker.',
    hint: extension
      ? 'Install into another database and run "bgw import pg_cron" there, or drop the extension first; its jobs go with it.'
      : 'Drop or rename it, and run "bgw migrate --with-cron" again.',
  });
}

/** Under a search_path that may still be anybody's, so that no operator is left to it. */
async function checkServer(client: ClientBase): Promise<void> {
  const { rows } = await client.query<{ version: string; number: number; standby: boolean }>(
    `SELECT pg_catalog.current_setting('server_version') AS version,
            pg_catalog.current_setting('server_version_num')::int AS number,
            pg_catalog.pg_is_in_recovery() AS standby`,
  );
  const [server] = rows;
  if (server !== undefined && server.number < OLDEST_SERVER * 10_000) {
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
       SET LOCAL idle_in_transaction_session_timeout = 0;
       SET LOCAL search_path = pg_catalog, pg_temp;
       SET LOCAL standard_conforming_strings = on;
       SET LOCAL client_min_messages = warning;
       SELECT set_config(name, '0', true) FROM pg_settings WHERE name = 'transaction_timeout'`, // since PostgreSQL 17
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

/** Any role can hold the number: only where there is no table yet, which no other role can lock. */
async function lock(client: ClientBase): Promise<void> {
  if (!(await hasHistory(client, 'bgw'))) await client.query(`SELECT pg_advisory_xact_lock(${LOCK_KEY})`);
  // It may have come while the number was waited for.
  if (await hasHistory(client, 'bgw')) await client.query('LOCK TABLE bgw.migration IN SHARE ROW EXCLUSIVE MODE');
}

async function applyMigrations(
  client: ClientBase,
  { schema, migrations }: Part,
  log: (line: string) => void,
): Promise<string[]> {
  const directory = schema === 'bgw' ? 'migrations/committed' : `migrations/${schema}`;
  const history = await readHistory(client, schema);
  checkHistory(history, migrations);
  const pending = migrations.slice(history.length);
  for (const { id, name, hash, body } of pending) {
    await client.query(body).catch((error: unknown) => {
      throw explain(error, `${directory}/${name}`);
    });
    await client.query(`INSERT INTO ${schema}.migration (id, name, hash) VALUES ($1, $2, $3)`, [id, name, hash]);
    log(`applied ${directory}/${name}`);
  }
  return pending.map(({ name }) => name);
}

async function refreshSqlLayer(
  client: ClientBase,
  { schema, files }: Part,
  log: (line: string) => void,
): Promise<MigrateResult['sqlLayer']> {
  const { rows } = await client.query<{ major: number; hash: string | null }>(
    `SELECT current_setting('server_version_num')::int / 10000 AS major, (SELECT hash FROM ${schema}.sql_layer) AS hash`,
  );
  const { major = 0, hash: stored = null } = rows[0] ?? {};
  const hash = hashSqlLayer(files, major);
  if (hash === stored) return 'unchanged';

  await applySqlLayer(client, files, { isFirst: stored === null });
  // It has no key: DELETE is refused where a publication is FOR ALL TABLES.
  await client.query(`TRUNCATE ${schema}.sql_layer`);
  await client.query(`INSERT INTO ${schema}.sql_layer (hash) VALUES ($1)`, [hash]);
  log(`applied ${schema === 'bgw' ? 'sql' : `sql/${schema}`}/ (${files.length} files)`);
  return 'applied';
}

function explain(error: unknown, where: string): unknown {
  const { code, message, detail, hint } = describeError(error);
  if (code !== '42P06' && code !== '42501') return error;
  return new BgwError(code, {
    message,
    detail: code === '42P06' ? 'It was there before pg-bgworker was installed.' : detail,
    hint:
      code === '42P06'
        ? 'Drop or rename it, and run "bgw migrate" again.'
        : (hint ?? 'Migrate as a role that may create schemas in this database, such as its owner.'),
    where,
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
