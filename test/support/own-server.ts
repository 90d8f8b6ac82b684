/** A server of a test's own, with pg-bgworker: for what would disturb the tests of others, or needs settings at its start. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { startEmbedded } from '../../src/embedded.ts';
import { migrate } from '../../src/migrate.ts';
import { createDirectory } from './directory.ts';

export interface OwnServer {
  url: string;
  /** A session of a superuser. */
  client: pg.Client;
  stop(): Promise<void>;
}

export async function startOwnServer(settings: Record<string, string> = {}): Promise<OwnServer> {
  const directory = createDirectory('bgw-test-own-');
  const server = await startEmbedded({
    dataDir: join(directory, 'data'),
    settings: { fsync: 'off', ...settings },
    binDir: process.env['BGW_TEST_BIN_DIR'] || undefined,
  });
  const client = new pg.Client({ connectionString: server.url });
  await client.connect();
  await migrate(client);
  return {
    url: server.url,
    client,
    stop: async () => {
      await client.end();
      await server.stop();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}
