/**
 * `bgw up`: everything on one machine with nothing installed but Node.js: a private PostgreSQL in .bgw/, the schema, and
 * one node.  Stops in the opposite order.
 */
import { join, relative } from 'node:path';
import { connectionConfig } from '../connection.ts';
import { startEmbedded } from '../embedded.ts';
import { STATE_DIRECTORY } from './connect.ts';
import { migrateDatabase } from './migrate.ts';
import { runController, type RunOptions } from './run.ts';

export interface UpOptions extends Omit<RunOptions, 'connection' | 'onReady'> {
  /** The port of the private server; absent: the one of the last time, else any free one. */
  port?: number | undefined;
  /** Told one line for each step. */
  say: (line: string) => void;
}

export async function up({ port, say, ...options }: UpOptions, signal: AbortSignal): Promise<void> {
  const stateDir = join(process.cwd(), STATE_DIRECTORY);
  const server = await startEmbedded({
    dataDir: join(stateDir, 'data'),
    port,
    log: (step) => say(`${step} in ${relative(process.cwd(), stateDir)}/ ...`),
  });
  try {
    const connection = connectionConfig({ url: server.url, env: {} });
    if (!signal.aborted) await migrateDatabase({ connection, say });
    if (!signal.aborted) {
      const onReady = (): void => say(welcome(server.url));
      await runController({ ...options, connection, onReady }, signal);
    }
  } finally {
    say('stopping PostgreSQL');
    await server.stop();
  }
}

function welcome(url: string): string {
  return [
    '',
    'pg-bgworker is running.  In another terminal:',
    '',
    `  psql '${url}'`,
    `  npx bgw sql "SELECT * FROM bgw_stat_activity"`,
    '',
    'Ctrl-C stops it.',
  ].join('\n');
}
