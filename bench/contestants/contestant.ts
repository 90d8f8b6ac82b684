/** What somebody who is measured can be asked to do.  Each contestant has a module with the parts that it can play. */
import type pg from 'pg';
import { type Database, value } from '../support.ts';

/** Latency: from the launching statement to the launched one's first own statement, both on the server's clock. */
export interface Launcher {
  name: string;
  /** Only each so many-th turn, because one launch takes long. */
  every?: number;
  /** Milliseconds of one launch. */
  launch(): Promise<number>;
}

/** The call itself. */
export interface Caller {
  name: string;
  /** Milliseconds of each call that so many clients make one after the other in that time. */
  call(clients: number, seconds: number): Promise<number[]>;
  /** Resolves when what was called for has been done. */
  settle(): Promise<void>;
  /** Whether something not measured stands between two calls, so that calls per second say nothing. */
  isPaced?: boolean;
}

export const WORKS = ['SELECT 1', 'INSERT'] as const;
export type Work = (typeof WORKS)[number];

/** One-shot jobs, all queued beforehand. */
export interface Queue {
  name: string;
  works: readonly Work[];
  /** The share of the jobs that it gets, where all of them would take minutes. */
  share?: number;
  /** Jobs per second, from the commit that queued them to the last one's end. */
  drain(work: Work, jobs: number): Promise<number>;
}

/** Where first statements say when they ran: unlogged, so that it adds little to what is measured. */
export async function createSeen({ client }: Database): Promise<void> {
  await client.query('CREATE UNLOGGED TABLE IF NOT EXISTS bench.seen (id bigint PRIMARY KEY, at timestamptz)');
}

/** Where INSERT jobs have their effect. */
export async function createEffect({ client }: Database): Promise<void> {
  await client.query('CREATE TABLE IF NOT EXISTS bench.effect (n int)');
}

export const SEE = 'INSERT INTO bench.seen VALUES ($1, clock_timestamp())';

export const serverTime = (client: pg.Client): Promise<string> =>
  value<string>(client, 'SELECT clock_timestamp()::text');

/** Milliseconds from then to when `id` was seen. */
export async function seenAfter(client: pg.Client, from: string, id: number | string): Promise<number> {
  const sql = `SELECT 1000 * date_part('epoch', at - $1::timestamptz) FROM bench.seen WHERE id = $2`;
  const milliseconds = await value<number | undefined>(client, sql, [from, id]);
  if (milliseconds === undefined) throw new Error(`job ${id} did not run its statement`);
  return milliseconds;
}

/** Ids of jobs, never the same twice in a run of the program; negative, because workers of ours use their handle. */
let lastId = 0;
export function nextId(): number {
  lastId -= 1;
  return lastId;
}

/** Calls of a statement; `pace` is another one after each call, which is not measured. */
export function sqlCall(database: Database, sql: string, pace?: string): Caller['call'] {
  return async (clients, seconds) => {
    const connections = await Promise.all(Array.from({ length: clients }, () => database.connect()));
    const samples: number[] = [];
    const deadline = performance.now() + seconds * 1000;
    const callInTurn = async (client: pg.Client): Promise<void> => {
      for (let from = performance.now(); from < deadline; from = performance.now()) {
        await client.query(sql);
        samples.push(performance.now() - from);
        if (pace !== undefined) await client.query(pace);
      }
    };
    await Promise.all(connections.map(callInTurn));
    await Promise.all(connections.map((client) => client.end()));
    return samples;
  };
}

/** Resolves to jobs per second; `work` resolves at their end. */
export async function perSecond(jobs: number, work: () => Promise<unknown>): Promise<number> {
  const from = performance.now();
  await work();
  return (1000 * jobs) / (performance.now() - from);
}

export async function checkEffects({ client }: Database, work: Work, jobs: number): Promise<void> {
  if (work === 'SELECT 1') return;
  const sql = 'SELECT count(*)::int AS effects, count(DISTINCT n)::int AS jobs FROM bench.effect';
  const { rows } = await client.query<{ effects: number; jobs: number }>(sql);
  const [counted] = rows;
  if (counted?.effects !== jobs || counted.jobs !== jobs)
    throw new Error(`${jobs} jobs had ${counted?.effects} effects of ${counted?.jobs}`);
}
