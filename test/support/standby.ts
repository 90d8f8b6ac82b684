/**
 * Servers that a test may stop, promote and start again, alone or as a primary with a streaming standby.  A standby is made
 * of a copied data directory, so that no program but those of the embedded server is needed.
 */
import { execFileSync } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { startEmbedded, type EmbeddedServer } from '../../src/embedded.ts';
import { migrate } from '../../src/migrate.ts';
import { createDirectory } from './directory.ts';
import { until } from './until.ts';

export interface TestServer {
  /** As `app`: an ordinary role that owns the catalog and may read and signal sessions. */
  url: string;
  superuserUrl: string;
  /** As a superuser: the first column of the first row; undefined if there is no row. */
  value<Value>(sql: string, params?: unknown[]): Promise<Value>;
  /** Another session, of a superuser or of that role. */
  session(user?: 'app' | 'guest'): Promise<pg.Client>;
  stop(): Promise<void>;
  /** Starts it again; as a standby of nobody, if asked. */
  restart(options?: { asStandby?: boolean }): Promise<void>;
}

export interface Pair {
  primary: TestServer;
  standby: TestServer;
  /** Resolves when the standby has what the primary has committed so far. */
  caughtUp(): Promise<void>;
}

/** Where servers are made, each a copy of one stopped cluster that has pg-bgworker and the roles `app` and `guest`. */
export interface Workshop extends AsyncDisposable {
  server(name: string): Promise<TestServer>;
  /** A primary and a standby of it; `setUp` is run there as `app`, and has arrived. */
  pair(name: string, setUp: string): Promise<Pair>;
}

const SETTINGS = { fsync: 'off', full_page_writes: 'off', max_connections: '50' };

export async function openWorkshop(): Promise<Workshop> {
  const root = createDirectory('bgw-standby-');
  const servers: TestServer[] = [];
  const template = join(root, 'template');
  const first = await start(template);
  await install(first.url);
  await first.stop();
  const server = async (name: string, settings: Record<string, string> = {}): Promise<TestServer> => {
    const directory = join(root, name);
    execFileSync('cp', ['-a', template, directory]);
    rmSync(join(directory, 'port'));
    if (settings['primary_conninfo'] !== undefined) writeFileSync(join(directory, 'data', 'standby.signal'), '');
    const created = await createServer(directory, settings);
    servers.push(created);
    return created;
  };
  return {
    server: (name) => server(name),
    pair: async (name, setUp) => {
      const primary = await server(`${name}_primary`);
      const { port, password } = new URL(primary.superuserUrl);
      const source = `host=127.0.0.1 port=${port} user=postgres password=${password}`;
      const standby = await server(`${name}_standby`, { primary_conninfo: source });
      const caughtUp = async (): Promise<void> => {
        const lsn = await primary.value('SELECT pg_current_wal_flush_lsn()');
        await until(() => standby.value('SELECT pg_last_wal_replay_lsn() >= $1', [lsn]), { what: 'the replay' });
      };
      await (await primary.session('app')).query(setUp);
      await caughtUp();
      return { primary, standby, caughtUp };
    },
    [Symbol.asyncDispose]: async () => {
      await Promise.all(servers.map((created) => created.stop()));
      rmSync(root, { recursive: true, force: true });
    },
  };
}

async function createServer(directory: string, settings: Record<string, string> = {}): Promise<TestServer> {
  let server = await start(directory, settings);
  let isRunning = true;
  const clients: pg.Client[] = [];
  let main: Promise<pg.Client> | undefined;
  const session: TestServer['session'] = async (user) => {
    const client = await connect(asUser(server.url, user));
    clients.push(client);
    return client;
  };
  return {
    url: asUser(server.url, 'app'),
    superuserUrl: server.url,
    session,
    value: async <Value>(sql: string, params?: unknown[]) => {
      const client = await (main ??= session());
      const { rows } = await client.query<Record<string, Value>>(sql, params);
      return Object.values(rows?.[0] ?? {})[0] as Value;
    },
    stop: async () => {
      if (!isRunning) return;
      await Promise.all(clients.splice(0).map((client) => client.end().catch(() => undefined)));
      main = undefined;
      await server.stop();
      isRunning = false;
    },
    restart: async ({ asStandby = false } = {}) => {
      if (asStandby) writeFileSync(join(directory, 'data', 'standby.signal'), '');
      server = await start(directory, asStandby ? { primary_conninfo: '' } : {}, server.port);
      isRunning = true;
    },
  };
}

async function start(directory: string, settings: Record<string, string> = {}, port?: number): Promise<EmbeddedServer> {
  return startEmbedded({
    dataDir: join(directory, 'data'),
    settings: { ...SETTINGS, ...settings },
    port,
    binDir: process.env['BGW_TEST_BIN_DIR'] || undefined,
  });
}

function asUser(url: string, user: 'app' | 'guest' | undefined): string {
  const location = new URL(url);
  if (user !== undefined) {
    location.username = user;
    location.password = user;
  }
  return location.href;
}

async function install(url: string): Promise<void> {
  const asSuperuser = await connect(url);
  await asSuperuser.query(`
    CREATE ROLE guest LOGIN PASSWORD 'guest';
    CREATE ROLE app LOGIN PASSWORD 'app' IN ROLE pg_read_all_stats, pg_signal_backend;
    GRANT CREATE ON DATABASE postgres TO app;
    GRANT CREATE ON SCHEMA public TO app`);
  await asSuperuser.end();
  const installer = await connect(asUser(url, 'app'));
  await migrate(installer);
  await installer.end();
}

async function connect(connectionString: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString });
  client.on('error', () => undefined);
  await client.connect();
  return client;
}
