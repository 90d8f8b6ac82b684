/**
 * A server with Debian's pg_cron for PostgreSQL 15, and schema cron beside it: database postgres has the real one,
 * database dropin has ours.
 */
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { startEmbedded } from '../../src/embedded.ts';
import { migrate } from '../../src/migrate.ts';

export const hasPgCron: boolean = existsSync('/usr/share/postgresql/15/extension/pg_cron.control');

/** Jobs of either, but for their numbers. */
export const JOBS = `SELECT schedule, command, nodename, nodeport, database, username, active, jobname FROM cron.job ORDER BY jobid`;

export interface PgCronServer {
  /** Superusers, in database postgres and database dropin. */
  real: pg.Client;
  ours: pg.Client;
  /** The connection URL of a database. */
  url(database: string): string;
  stop(): Promise<void>;
}

/** Roles alice and Bob may have jobs in both, carol and staff may not; nobody may connect to database other. */
export async function startPgCron(): Promise<PgCronServer> {
  const directory = mkdtempSync(join(tmpdir(), 'bgw-pg-cron-'));
  const server = await startEmbedded({
    dataDir: join(directory, 'data'),
    binDir: '/usr/lib/postgresql/15/bin',
    settings: { fsync: 'off', shared_preload_libraries: 'pg_cron', 'cron.database_name': 'postgres' },
  });
  const url = (database: string): string => server.url.replace(/[^/]*$/, database);
  const connect = async (database: string): Promise<pg.Client> => {
    const client = new pg.Client(url(database));
    await client.connect();
    return client;
  };
  const real = await connect('postgres');
  await real.query('CREATE EXTENSION pg_cron');
  await real.query('CREATE DATABASE dropin');
  const ours = await connect('dropin');
  await migrate(ours, { withCron: true });
  await real.query('CREATE ROLE alice LOGIN; CREATE ROLE "Bob" LOGIN; CREATE ROLE carol LOGIN; CREATE ROLE staff');
  await real.query('CREATE DATABASE other');
  await real.query('REVOKE CONNECT ON DATABASE other FROM PUBLIC');
  await ours.query(`INSERT INTO bgw.login (owner) SELECT oid FROM pg_roles WHERE rolname IN ('alice', 'Bob')`);
  for (const client of [real, ours]) await client.query('GRANT USAGE ON SCHEMA cron TO alice, "Bob"');
  return {
    real,
    ours,
    url,
    stop: async () => {
      await Promise.all([real.end(), ours.end()]);
      await server.stop();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}
