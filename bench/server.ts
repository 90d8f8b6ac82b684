/**
 * The one PostgreSQL on which everybody is measured: Debian's 15 where it is installed, because pg_cron and native
 * background workers can be had for it; else the embedded one.  fsync and synchronous_commit are on.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { startEmbedded } from '../src/embedded.ts';
import { type Bench, type Database, openDatabase, startController, stopProcess, value } from './support.ts';

const DEBIAN = '/usr/lib/postgresql/15/bin';
const PG_CRON = '/usr/share/postgresql/15/extension/pg_cron.control';

export interface Server {
  url: string;
  version: string;
  /** Its programs; undefined: the embedded ones. */
  binDir: string | undefined;
  hasPgCron: boolean;
  /** The server can read it. */
  directory: string;
  /** The process id of the postmaster. */
  pid: number;
  stop(): Promise<void>;
}

const SETTINGS = { max_connections: '200', max_worker_processes: '128' };
const CRON_SETTINGS = {
  shared_preload_libraries: 'pg_cron',
  'cron.max_running_jobs': '32',
  'cron.use_background_workers': 'on',
};

export async function startServer(): Promise<Server> {
  const directory = mkdtempSync(join(tmpdir(), 'bgw-bench-'));
  const dataDir = join(directory, 'data');
  const binDir = existsSync(DEBIAN) ? DEBIAN : undefined;
  const hasPgCron = binDir !== undefined && existsSync(PG_CRON);
  const settings = { ...SETTINGS, ...(hasPgCron ? CRON_SETTINGS : {}) };
  const server = await startEmbedded({ dataDir, binDir, settings });
  const stop = async (): Promise<void> => {
    await server.stop();
    rmSync(directory, { recursive: true, force: true });
  };
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.once(signal, () => void stop().finally(() => process.exit(1)));
  const database = await openDatabase(server.url);
  const version = await value<string>(database.client, 'SHOW server_version');
  await database.close();
  const pid = Number(readFileSync(join(dataDir, 'postmaster.pid'), 'utf8').split('\n')[0]);
  return { url: server.url, version, binDir, hasPgCron, directory, pid, stop };
}

/** What one measurement has started; it ends in the opposite order. */
export class Stage implements AsyncDisposable {
  readonly server: Server;
  /** In the database postgres, where nothing is measured but pg_cron. */
  readonly client: pg.Client;
  readonly #ends: (() => Promise<unknown>)[] = [];

  private constructor(server: Server, client: pg.Client) {
    this.server = server;
    this.client = client;
    this.atEnd(() => client.end());
  }

  static async open(server: Server): Promise<Stage> {
    const client = new pg.Client({ connectionString: server.url });
    await client.connect();
    return new Stage(server, client);
  }

  /** A new database: a NOTIFY wakes those who listen in the same one, so each contestant has its own. */
  async database(name: string): Promise<Database> {
    await this.client.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
    await this.client.query(`CREATE DATABASE ${name}`);
    this.atEnd(() => this.client.query(`DROP DATABASE ${name} WITH (FORCE)`));
    const url = new URL(this.server.url);
    url.pathname = `/${name}`;
    return this.open(url.href);
  }

  /** A database that is there. */
  async open(url: string): Promise<Database> {
    const database = await openDatabase(url);
    this.atEnd(() => database.close());
    return database;
  }

  /** A database of ours with a node that serves it. */
  async ours(): Promise<Bench> {
    const database = await this.database('ours');
    const controller = await startController(database);
    const stop = (): Promise<void> => stopProcess(controller);
    this.atEnd(stop);
    return { ...database, controller, stop };
  }

  atEnd(end: () => Promise<unknown>): void {
    this.#ends.push(end);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const end of this.#ends.splice(0).toReversed()) await end();
  }
}
