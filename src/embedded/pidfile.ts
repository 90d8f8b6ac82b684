/**
 * postmaster.pid: is the server of this data directory up?  A file is left behind when a server is killed, and its
 * process id may belong to something else by now, most of all in a container that was started again.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { realpath } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { BgwError, describeError } from '../errors.ts';

/** A server that has not opened its port after this time is not starting: it replays at most what we wrote ourselves. */
const STARTING_FOR_AT_MOST_MS = 30_000;
const LOOK_AGAIN_MS = 100;
const CANNOT_CONNECT_NOW = '57P03';

/** The port of the server that is running in `dataDir`, waiting for one that is just starting or stopping. */
export async function runningPort(dataDir: string, urlOf: (port: number) => string): Promise<number | undefined> {
  const deadline = Date.now() + STARTING_FOR_AT_MOST_MS;
  while (Date.now() < deadline) {
    const file = readPidFile(dataDir);
    if (file === undefined) return undefined;
    if (!isAlive(file.pid)) break;
    const answer = await ask(urlOf(file.port), dataDir);
    if (answer === 'this server') return file.port;
    if (answer === 'not it' && file.status === 'ready') break;
    await sleep(LOOK_AGAIN_MS);
  }
  forgetProcess(dataDir);
  return undefined;
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return !isZombie(pid);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** A container without an init process keeps the entries of killed orphans for ever. */
function isZombie(pid: number): boolean {
  const stat = `/proc/${pid}/stat`;
  return existsSync(stat) && /\) Z /.test(readFileSync(stat, 'utf8'));
}

/** Lines of the file: process id, data directory, start time, port, socket directory, address, shared memory, status. */
function readPidFile(dataDir: string): { pid: number; port: number; status: string } | undefined {
  try {
    const lines = readFileSync(join(dataDir, 'postmaster.pid'), 'utf8').split('\n');
    return { pid: Math.abs(Number(lines[0])), port: Number(lines[3]), status: lines[7]?.trim() ?? '' };
  } catch {
    return undefined;
  }
}

async function ask(url: string, dataDir: string): Promise<'this server' | 'not yet' | 'not it'> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 5_000 });
  client.on('error', () => undefined);
  try {
    await client.connect();
    const { rows } = await client.query<{ directory: string }>(`SELECT current_setting('data_directory') AS directory`);
    return rows[0]?.directory === (await realpath(dataDir)) ? 'this server' : 'not it';
  } catch (error) {
    const { code, message } = describeError(error);
    if (code === CANNOT_CONNECT_NOW) return 'not yet';
    if (code === 'ECONNREFUSED') return 'not it';
    // Most likely our server after all, with another password or without a free connection: leave its file alone.
    throw new BgwError('55000', {
      message: 'cannot use the private server that is running',
      detail: `${dataDir}: ${message}.`,
      hint: 'Stop that server, or give the user postgres the password in the file beside its data.',
      cause: error,
    });
  } finally {
    await client.end().catch(() => undefined);
  }
}

/**
 * The process of the file is not a server, but PostgreSQL may take it for one (a zombie, or a stranger that has the
 * number now) and refuse to start. Only the process id is replaced, by one that has just ended: by the rest of the file
 * PostgreSQL sees whether sessions of the dead server still use its shared memory.
 */
function forgetProcess(dataDir: string): void {
  const path = join(dataDir, 'postmaster.pid');
  const ended = spawnSync(process.execPath, ['--version']).pid;
  writeFileSync(path, readFileSync(path, 'utf8').replace(/^-?\d+/, String(ended)));
}
