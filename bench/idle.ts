/** What 1,000 workers cost that are launched and sleep: statements, connections, memory and CPU of the controller. */
import { readFileSync } from 'node:fs';
import { type Bench, pause, value } from './support.ts';

export interface Idle {
  workers: number;
  statementsPerSecond: number;
  connections: number;
  /** Megabytes; undefined where /proc is not there. */
  memory: number | undefined;
  /** CPU seconds of the controller per minute. */
  cpu: number | undefined;
}

/** What a tick of /proc/PID/stat is: USER_HZ, 100 on every Linux that Node.js runs on. */
const TICKS_PER_SECOND = 100;

export async function measureIdle({ client, controller }: Bench, workers: number, seconds: number): Promise<Idle> {
  await client.query(
    `SELECT count(bgw_register('idle_' || n, 'SELECT 1', naptime => '1 d')) FROM generate_series(1, $1) AS n`,
    [workers],
  );
  await client.query(`SELECT count(bgw_launch('idle_' || n)) FROM generate_series(1, $1) AS n`, [workers]);
  while (
    Number(await value(client, `SELECT count(*) FROM bgw.process WHERE status = 'started' AND pid IS NULL`)) < workers
  )
    await pause(100);
  // The pool gives its sessions up after half a minute, and a backend counts its last transactions when it has gone.
  await pause(35_000);
  const statements = `SELECT sum(xact_commit) FROM pg_stat_database WHERE datname = current_database()`;
  const own = `SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'bgw%'`;
  const [before, cpuBefore] = [Number(await value(client, statements)), cpuTicks(controller.pid)];
  await pause(seconds * 1000);
  const [after, cpuAfter] = [Number(await value(client, statements)), cpuTicks(controller.pid)];
  const idle: Idle = {
    workers,
    statementsPerSecond: (after - before) / seconds,
    connections: Number(await value(client, own)),
    memory: residentMegabytes(controller.pid),
    cpu:
      cpuBefore === undefined || cpuAfter === undefined
        ? undefined
        : ((cpuAfter - cpuBefore) / TICKS_PER_SECOND / seconds) * 60,
  };
  await client.query(`SELECT count(bgw_unregister('idle_' || n)) FROM generate_series(1, $1) AS n`, [workers]);
  while ((await value<string>(client, 'SELECT count(*) FROM bgw.process')) !== '0') await pause(100);
  return idle;
}

function cpuTicks(pid: number | undefined): number | undefined {
  const fields = readProc(pid, 'stat')?.split(') ')[1]?.split(' ');
  return fields && Number(fields[11]) + Number(fields[12]);
}

function residentMegabytes(pid: number | undefined): number | undefined {
  const kilobytes = readProc(pid, 'status')?.match(/VmRSS:\s+(\d+)/)?.[1];
  return kilobytes === undefined ? undefined : Math.round(Number(kilobytes) / 1024);
}

function readProc(pid: number | undefined, file: string): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8');
  } catch {
    return undefined;
  }
}
