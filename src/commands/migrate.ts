/** `bgw migrate`: install pg-bgworker in a database, or upgrade it. */
import type { ClientConfig } from 'pg';
import { describeTarget } from '../connection.ts';
import { migrate, type MigrateResult } from '../migrate.ts';
import { withSession } from './connect.ts';

export interface MigrateCommandOptions {
  connection: ClientConfig;
  /** Told one line for each step. */
  say: (line: string) => void;
}

export async function migrateDatabase({ connection, say }: MigrateCommandOptions): Promise<MigrateResult> {
  const result = await withSession(
    { ...connection, application_name: 'bgw migrate' },
    async (client) => await migrate(client, { log: say }),
  );
  if (result.applied.length === 0 && result.sqlLayer === 'unchanged')
    say(`${describeTarget(connection)} is up to date`);
  return result;
}
