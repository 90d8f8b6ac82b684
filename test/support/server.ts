/**
 * One PostgreSQL for the whole run, and in it bgw_template: a database with pg-bgworker installed, which every test
 * clones.  The embedded server by default; BGW_TEST_BIN_DIR names other server programs (such as those of the oldest
 * supported version), BGW_TEST_URL a server that is running, as a superuser.
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import type { TestProject } from 'vitest/node';
import { startEmbedded, type EmbeddedServer } from '../../src/embedded.ts';
import { formatError } from '../../src/errors.ts';
import { migrate } from '../../src/migrate.ts';
import { createDirectory } from './directory.ts';

declare module 'vitest' {
  interface ProvidedContext {
    serverUrl: string;
    /** Why there is no template, in the words of the failed migration. */
    templateError: string | undefined;
  }
}

export const TEMPLATE = 'bgw_template';

const SETTINGS = {
  // Nothing here is worth keeping; a commit must not wait for the disk.
  fsync: 'off',
  full_page_writes: 'off',
  // Its directory is in memory, if there is room.
  max_wal_size: '128MB',
  max_connections: '300',
  // Two-phase commit is part of what a launch must stand.
  max_prepared_transactions: '10',
};

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const given = process.env['BGW_TEST_URL'];
  const server =
    given === undefined ? await startTemporary() : { url: given, stop: async (): Promise<void> => undefined };
  try {
    project.provide('serverUrl', server.url);
    project.provide('templateError', await createTemplate(server.url));
  } catch (error) {
    await server.stop();
    throw error;
  }
  return () => server.stop();
}

async function startTemporary(): Promise<Pick<EmbeddedServer, 'url' | 'stop'>> {
  const directory = createDirectory('bgw-test-');
  const server = await startEmbedded({
    dataDir: join(directory, 'data'),
    settings: SETTINGS,
    binDir: process.env['BGW_TEST_BIN_DIR'] || undefined,
  });
  return {
    url: server.url,
    stop: async () => {
      await server.stop();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

/** A schema that cannot be installed fails the tests that need it, and leaves the others to say something of use. */
async function createTemplate(serverUrl: string): Promise<string | undefined> {
  await withClient(serverUrl, async (client) => {
    await client.query(`DROP DATABASE IF EXISTS ${TEMPLATE}`);
    await client.query(`CREATE DATABASE ${TEMPLATE} TEMPLATE template0`);
  });
  const url = new URL(serverUrl);
  url.pathname = TEMPLATE;
  try {
    await withClient(url.href, (client) => migrate(client));
    return undefined;
  } catch (error) {
    return formatError(error);
  }
}

async function withClient(url: string, work: (client: pg.Client) => Promise<unknown>): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    await work(client);
  } finally {
    await client.end();
  }
}
