/**
 * What nothing to do costs, and what napping workers cost: transactions, connections, memory, and the CPU time of the
 * program (with its children) and of the whole server (with the backends that have ended).
 */
import { fork } from 'node:child_process';
import { join } from 'node:path';
import { type Native, startNapping } from './contestants/native.ts';
import { SETTINGS } from './contestants/graphile-worker.ts';
import { PeerProcess } from './peer-process.ts';
import { cpuSeconds, residentMegabytes } from './processes.ts';
import { type Server, Stage } from './server.ts';
import { type Database, pause, root, stopProcess, until, value } from './support.ts';

export interface Idle {
  name: string;
  /**
   * Of the database of the contestant, by others than us; undefined where workers run SELECT 1: a backend counts such
   * transactions only when it next has something else to count.
   */
  transactionsPerSecond: number | undefined;
  connections: number;
  /** Megabytes of the program; undefined: there is none, or no /proc. */
  memory: number | undefined;
  /** CPU seconds per minute: of the program, and of the server, each value of a window of its own. */
  program: number[];
  server: number[];
}

export interface IdleSize {
  windows: number;
  /** Length of a window. */
  seconds: number;
  /** The same where nothing runs: one autovacuum in ten seconds is as much as all that is measured there. */
  quietSeconds: number;
  /** SQL workers that nap for a minute. */
  many: number;
  /** How long they are watched, in seconds. */
  watched: number;
  /** Milliseconds before napping workers are measured: in its first minute V8 compiles what a program does again and again. */
  warmUp: number;
}

/** What is measured: the program, if there is one, and its database. */
interface Subject {
  database: Database;
  pid?: number | undefined;
  /** No worker runs. */
  isQuiet?: boolean;
}

export const ALONE = 'the server alone';
const NAPPING = 50;
const NAPTIME = 1000;
/** From its start on until a program that is compiled ahead is in its stride. */
const UNTIL_STEADY = 4000;
/** What a backend has done it counts after ten seconds at the latest: so long the start is among the transactions, and vacuum passes it over. */
const UNTIL_COUNTED = 12_000;

export async function measureIdle(server: Server, native: Native, size: IdleSize): Promise<Idle[]> {
  const cases: [string, ((stage: Stage) => Promise<Subject>) | undefined][] = [
    [ALONE, async (stage) => ({ database: await stage.database('alone'), isQuiet: true })],
    ['nothing registered: pg-bgworker', ours],
    ['nothing registered: graphile-worker', graphile],
    ['nothing registered: pg-boss', boss],
    [`${NAPPING} workers, nap 1 s: pg-bgworker`, (stage) => oursNapping(stage, NAPPING, '1 s')],
    [`${NAPPING} workers, nap 1 s: native`, native.isBesideUs ? (stage) => nativeNapping(stage, native) : undefined],
    [`${NAPPING} workers, nap 1 s: a plain Node.js pool`, pool],
  ];
  const results: Idle[] = [];
  for (const [name, start] of cases) {
    if (start === undefined) continue;
    await using stage = await Stage.open(server);
    results.push(await measure(stage, name, await start(stage), size));
  }
  await using stage = await Stage.open(server);
  const name = `${size.many} workers, nap 1 min: pg-bgworker`;
  const subject = await oursNapping(stage, size.many, '1 min');
  results.push(
    await measure(stage, name, subject, {
      ...size,
      windows: 1,
      seconds: size.watched,
      warmUp: UNTIL_STEADY,
    }),
  );
  return results;
}

async function measure(
  stage: Stage,
  name: string,
  subject: Subject,
  { windows, seconds: busySeconds, quietSeconds, warmUp }: IdleSize,
): Promise<Idle> {
  const seconds = subject.isQuiet ? quietSeconds : busySeconds;
  if (subject.isQuiet) await settle(subject.database);
  else await pause(subject.pid === undefined ? UNTIL_STEADY : warmUp);
  const database = new URL(subject.database.url).pathname.slice(1);
  const count = (sql: string): Promise<number> => value<number>(stage.client, sql, [database]);
  const transactions = 'SELECT xact_commit::float8 FROM pg_stat_database WHERE datname = $1';
  const backends = `SELECT count(*)::int FROM pg_stat_activity WHERE datname = $1 AND application_name <> 'bench'`;
  const idle: Idle = {
    name,
    transactionsPerSecond: undefined,
    connections: 0,
    memory: undefined,
    program: [],
    server: [],
  };
  const before = await count(transactions);
  for (let window = 0; window < windows; window += 1) {
    const program = cpuOf(subject.pid);
    const server = cpuOf(stage.server.pid);
    for (let second = 0; second < seconds; second += 1) {
      await pause(1000);
      idle.connections = Math.max(idle.connections, await count(backends));
    }
    idle.program.push(((cpuOf(subject.pid) - program) / seconds) * 60);
    idle.server.push(((cpuOf(stage.server.pid) - server) / seconds) * 60);
  }
  if (subject.isQuiet) idle.transactionsPerSecond = ((await count(transactions)) - before) / (windows * seconds);
  idle.memory = subject.pid === undefined ? undefined : residentMegabytes(subject.pid);
  return idle;
}

/** Autovacuum would come for the catalogs of a new database within its first minute, in the time of one contestant or another. */
async function settle({ client }: Database): Promise<void> {
  await pause(UNTIL_COUNTED);
  await client.query('VACUUM (ANALYZE)');
  await pause(UNTIL_COUNTED);
}

const cpuOf = (pid: number | undefined): number => (pid === undefined ? 0 : (cpuSeconds(pid) ?? Number.NaN));

async function ours(stage: Stage): Promise<Subject> {
  const bench = await stage.ours();
  return { database: bench, pid: bench.controller.pid, isQuiet: true };
}

async function oursNapping(stage: Stage, workers: number, naptime: string): Promise<Subject> {
  const subject = await ours(stage);
  const { client } = subject.database;
  const range = 'generate_series(1, $1::int) AS n';
  await client.query(`SELECT count(bgw_register('nap_' || n, 'SELECT 1', naptime => $2)) FROM ${range}`, [
    workers,
    naptime,
  ]);
  await client.query(`SELECT count(bgw_launch('nap_' || n)) FROM ${range}`, [workers]);
  const started = `SELECT count(*)::int FROM bgw.process WHERE status = 'started'`;
  await until(async () => (await value<number>(client, started)) === workers, 500);
  return { ...subject, isQuiet: false };
}

async function graphile(stage: Stage): Promise<Subject> {
  const database = await stage.database('graphile_idle');
  const peer = await PeerProcess.start('graphile-worker', { url: database.url, settings: SETTINGS.default });
  stage.atEnd(() => peer.stop());
  return { database, pid: peer.pid, isQuiet: true };
}

async function boss(stage: Stage): Promise<Subject> {
  const database = await stage.database('pgboss_idle');
  const peer = await PeerProcess.start('pg-boss', { url: database.url, role: 'idle' });
  stage.atEnd(() => peer.stop());
  return { database, pid: peer.pid, isQuiet: true };
}

async function nativeNapping(stage: Stage, { url }: Native): Promise<Subject> {
  const database = await stage.open(url);
  stage.atEnd(await startNapping(database, NAPPING, NAPTIME));
  return { database };
}

async function pool(stage: Stage): Promise<Subject> {
  const database = await stage.database('pool');
  const program = join(root, 'bench', 'programs', 'pool.mjs');
  const child = fork(program, [database.url, String(NAPPING), String(NAPTIME)], { execArgv: [] });
  stage.atEnd(() => stopProcess(child));
  return { database, pid: child.pid };
}
