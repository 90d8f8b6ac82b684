/** `bgw migrate`: install pg-bgworker in a database, or upgrade it. */
import type { ClientConfig } from 'pg';
import { describeTarget } from '../connection.ts';
import { migrate, type MigrateResult } from '../migrate.ts';
import { withSession } from './connect.ts';

export interface MigrateCommandOptions {
  connection: ClientConfig;
  /** Install pg_cron's interface, schema cron, as well. */
  withCron?: boolean;
  /** Told one line for each step. */
  say: (line: string) => void;
}

export async function migrateDatabase({
  connection,
  withCron = false,
  say,
}: MigrateCommandOptions): Promise<MigrateResult> {
  const result = await withSession(
    { ...connection, application_name: 'bgw migrate' },
    async (client) => await migrate(client, { withCron, log: say }),
  );
  if (result.applied.length === 0 && result.sqlLayer === 'unchanged')
    say(`${describeTarget(connection)} is up to date`);
  return result;
}
