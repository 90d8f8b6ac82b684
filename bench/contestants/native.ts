/**
 * Background workers of PostgreSQL itself: bench/native, a tiny extension in C, and pg_background.  bench/native is built for
 * the server where a compiler and the server's headers are there; on a server that was given both are extensions.
 */
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Server, Stage } from '../server.ts';
import { type Database, pause, root, until, value } from '../support.ts';
import {
  type Caller,
  checkEffects,
  createEffect,
  createSeen,
  type Launcher,
  nextId,
  perSecond,
  type Queue,
  seenAfter,
  serverTime,
  sqlCall,
  WORKS,
} from './contestant.ts';

const NATIVE = 'bench_native';
const PG_BACKGROUND = 'pg_background';
/** Sessions that launch a worker, wait for it, and launch the next. */
const SESSIONS = 8;

/** The SQL that launches a command and, in the same session, waits for its end. */
interface Kind {
  name: string;
  launch(command: string): string;
  /** Of the last one launched; `launched` is what the launching statement returned. */
  wait(launched: string): string;
  /** Runs so many commands, each of them given by an SQL expression of n. */
  loop(command: string, from: number, to: number): string;
}

const KINDS: Record<string, Kind> = {
  [NATIVE]: {
    name: 'native background worker',
    launch: (command) => `SELECT ${NATIVE}.launch('${command}')`,
    wait: () => `SELECT ${NATIVE}.wait()`,
    loop: (command, from, to) =>
      `SELECT ${NATIVE}.launch(${command}), ${NATIVE}.wait() FROM generate_series(${from}, ${to}) AS n`,
  },
  [PG_BACKGROUND]: {
    name: 'pg_background',
    launch: (command) => `SELECT pg_background_launch('${command}')`,
    wait: (launched) => `SELECT * FROM pg_background_result(${launched}) AS (result text)`,
    loop: (command, from, to) => `SELECT count(*) FROM generate_series(${from}, ${to}) AS n,
      LATERAL (SELECT * FROM pg_background_result(pg_background_launch(${command})) AS (result ${typeOf(command)})) AS result`,
  },
};

/** Of the one column that the command returns: a command without rows returns its tag. */
const typeOf = (command: string): string => (command.startsWith(`'SELECT`) ? 'integer' : 'text');

export interface Native {
  url: string;
  kinds: readonly Kind[];
  /** Whether bench/native is in the server that all others use. */
  isBesideUs: boolean;
}

/** What native workers there are: in the server that was given, or in a database of ours; says why one is not. */
export async function findNative(
  stage: Stage,
  given: string | undefined,
  skip: (what: string, why: string) => void,
): Promise<Native> {
  const database = given === undefined ? await stage.database('native') : await stage.open(given);
  const kinds: Kind[] = [];
  for (const [extension, kind] of Object.entries(KINDS)) {
    const isBuilt = extension === NATIVE && given === undefined;
    const why = isBuilt ? await buildNative(database, stage.server) : await createExtension(database, extension);
    if (why === undefined) kinds.push(kind);
    else skip(kind.name, why);
  }
  const isBesideUs = given === undefined && kinds.some(({ name }) => name === KINDS[NATIVE]?.name);
  return { url: database.url, kinds, isBesideUs };
}

async function createExtension({ client }: Database, name: string): Promise<string | undefined> {
  const available = await value<boolean>(
    client,
    'SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = $1)',
    [name],
  );
  if (!available) return `extension ${name} is not installed on the server; --native-url gives one that has it`;
  await client.query(`CREATE EXTENSION IF NOT EXISTS ${name} CASCADE`);
  return undefined;
}

/** Built beside the data directory: the system is left as it is. Undefined, or why it cannot be. */
async function buildNative({ client }: Database, { binDir, directory }: Server): Promise<string | undefined> {
  const pgConfig = join(binDir ?? '', 'pg_config');
  if (binDir === undefined || !existsSync(pgConfig)) return 'there is no pg_config of the server';
  const source = join(directory, 'native');
  cpSync(join(root, 'bench', 'native'), source, { recursive: true });
  const made = spawnSync('make', ['-s', '-C', source, `PG_CONFIG=${pgConfig}`], { encoding: 'utf8' });
  if (made.status !== 0) return `make failed: ${(made.error?.message ?? made.stderr).trim().split('\n').at(-1)}`;
  const sql = readFileSync(join(source, `${NATIVE}--1.0.sql`), 'utf8').replaceAll(
    'MODULE_PATHNAME',
    join(source, NATIVE),
  );
  await client.query(`CREATE SCHEMA ${NATIVE}; ${sql}`);
  return undefined;
}

export async function nativeLaunchers(database: Database, kinds: readonly Kind[]): Promise<Launcher[]> {
  const { client } = database;
  await createSeen(database);
  return kinds.map(({ name, launch, wait }) => ({
    name,
    launch: async () => {
      const id = nextId();
      const from = await serverTime(client);
      const launched = await value<string>(client, launch(`INSERT INTO bench.seen VALUES (${id}, clock_timestamp())`));
      await client.query(wait(launched));
      return seenAfter(client, from, id);
    },
  }));
}

/** Each call is followed by a wait: there are only so many slots for background workers. */
export const nativeCallers = (database: Database, kinds: readonly Kind[]): Caller[] =>
  kinds
    .filter(({ name }) => name !== PG_BACKGROUND)
    .map(({ name, launch, wait }) => ({
      name,
      isPaced: true,
      call: sqlCall(database, launch('SELECT 1'), wait('')),
      settle: async () => undefined,
    }));

export const nativeQueues = (database: Database, kinds: readonly Kind[]): Queue[] =>
  kinds.map(({ name, loop }) => ({
    name,
    works: WORKS,
    share: 0.05,
    drain: async (work, jobs) => {
      await createEffect(database);
      await database.client.query('TRUNCATE bench.effect');
      const command = work === 'SELECT 1' ? `'SELECT 1'` : `'INSERT INTO bench.effect VALUES (' || n || ')'`;
      const sessions = await Promise.all(Array.from({ length: SESSIONS }, () => database.connect()));
      const end = (session: number): number => Math.round((session * jobs) / SESSIONS);
      const rate = await perSecond(jobs, () =>
        Promise.all(sessions.map((session, i) => session.query(loop(command, end(i) + 1, end(i + 1))))),
      );
      await Promise.all(sessions.map((session) => session.end()));
      await checkEffects(database, work, jobs);
      return rate;
    },
  }));

/** Workers that run SELECT 1 again and again, until `stop`. */
export async function startNapping(
  { client }: Database,
  workers: number,
  naptime: number,
): Promise<() => Promise<void>> {
  await client.query(`SELECT ${NATIVE}.launch('SELECT 1', $2::int) FROM generate_series(1, $1::int)`, [
    workers,
    naptime,
  ]);
  await pause(naptime);
  const running = `FROM pg_stat_activity WHERE backend_type = '${NATIVE}'`;
  return async () => {
    await client.query(`SELECT pg_terminate_backend(pid) ${running}`);
    await until(async () => (await value<string>(client, `SELECT count(*) ${running}`)) === '0');
  };
}
