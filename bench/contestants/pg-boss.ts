/** pg-boss: its notify mode, its default polling, and batches of 500. */
import { PeerProcess } from '../peer-process.ts';
import type { Stage } from '../server.ts';
import { type Database, isEmpty, until } from '../support.ts';
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
  type Work,
  WORKS,
} from './contestant.ts';

/** Its shortest polling, without a pause while batches are full. */
const BATCHES = { batchSize: 500, pollingIntervalSeconds: 0.5, burstWhenBatchFull: true };

interface Boss {
  database: Database;
  worker: PeerProcess;
  sender: PeerProcess;
}

async function startBoss(stage: Stage, name: string, notify: boolean, settings: object): Promise<Boss> {
  const database = await stage.database(`pgboss_${name}`);
  const { url } = database;
  await createSeen(database);
  await createEffect(database);
  const start = async (options: object): Promise<PeerProcess> => {
    const peer = await PeerProcess.start('pg-boss', { url, notify, ...options });
    stage.atEnd(() => peer.stop());
    return peer;
  };
  // One after the other: the first makes the schema.
  const worker = await start({ role: 'worker', ...settings });
  return { database, worker, sender: await start({ role: 'sender' }) };
}

export async function bossLaunchers(stage: Stage, every: number): Promise<Launcher[]> {
  const launcher = async (name: string, notify: boolean): Promise<Launcher> => {
    const { database, worker, sender } = await startBoss(stage, name, notify, { work: {} });
    const launch = async (): Promise<number> => {
      const id = nextId();
      const ran = worker.ran(id);
      const from = await sender.ask<string>('launch', id);
      await ran;
      return seenAfter(database.client, from, id);
    };
    return { name: `pg-boss, ${name}`, launch };
  };
  return [await launcher('notify', true), { ...(await launcher('polling', false)), every }];
}

export async function bossCaller(stage: Stage): Promise<Caller> {
  const { database, sender } = await startBoss(stage, 'call', true, { work: BATCHES });
  return {
    name: 'pg-boss send',
    call: (clients, seconds) => sender.ask('call', { clients, seconds }),
    settle: () => allDone(database, 'select'),
  };
}

export async function bossQueue(stage: Stage, workers: number): Promise<Queue> {
  const boss = await startBoss(stage, `batch_${workers}`, true, { work: BATCHES, workers });
  const name = `pg-boss, batches of 500, ${workers === 1 ? '1 worker' : `${workers} workers`}`;
  return { name, works: WORKS, drain: (work, jobs) => drain(boss, work, jobs) };
}

async function drain({ database, sender }: Boss, work: Work, jobs: number): Promise<number> {
  await database.client.query('TRUNCATE bench.effect');
  const queue = work === 'SELECT 1' ? 'select' : 'insert';
  await sender.ask('insert', { queue, jobs });
  const rate = await perSecond(jobs, () => allDone(database, queue));
  await checkEffects(database, work, jobs);
  return rate;
}

const allDone = ({ client }: Database, queue: string): Promise<void> =>
  until(() => isEmpty(client, `SELECT FROM pgboss.job WHERE name = '${queue}' AND state < 'completed' LIMIT 1`), 10);
