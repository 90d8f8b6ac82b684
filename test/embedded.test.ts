/** The private server: it comes back after every kind of end, and belongs to whoever started it. */
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { expect, test as base } from 'vitest';
import { findEmbedded, startEmbedded, type EmbeddedServer } from '../src/embedded.ts';
import { until } from './support/until.ts';

const test = base.extend<{ stateDir: string; start: (port?: number) => Promise<EmbeddedServer> }>({
  stateDir: async ({}, use) => {
    const directory = mkdtempSync(join(tmpdir(), 'bgw-embedded-'));
    await use(directory);
    rmSync(directory, { recursive: true, force: true });
  },
  start: async ({ stateDir }, use) => {
    const started: EmbeddedServer[] = [];
    await use(async (port) => {
      const server = await startEmbedded({ dataDir: join(stateDir, 'data'), port, settings: { fsync: 'off' } });
      started.push(server);
      return server;
    });
    await Promise.all(started.map((server) => server.stop()));
  },
});

async function ask<Value>(url: string, sql: string): Promise<Value> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    const { rows } = await client.query<{ value: Value }>(`SELECT ${sql} AS value`);
    return rows[0]?.value as Value;
  } finally {
    await client.end();
  }
}

function postmasterPid(stateDir: string): number {
  return Number(readFileSync(join(stateDir, 'data', 'postmaster.pid'), 'utf8').split('\n')[0]);
}

/** Pretends that a process started the server: this one's own id stands in the file otherwise. */
function setOwner(stateDir: string, pid: number | undefined): void {
  writeFileSync(join(stateDir, 'owner'), `${pid}\n`);
}

test('a server keeps its data, its password and its port from one start to the next', async ({ start }) => {
  const first = await start();
  await ask(first.url, `set_config('x.y', '1', false)`);
  expect(await ask(first.url, `current_setting('fsync')`)).toBe('off');
  expect(await ask(first.url, `current_setting('server_encoding')`)).toBe('UTF8');
  expect(await ask(first.url, `upper('é')`)).toBe('É');
  await first.stop();
  const second = await start();
  expect(second.url).toBe(first.url);
});

test('a server is closed to whoever has no password, and to the network', async ({ start, stateDir }) => {
  const { url } = await start();
  const wrong = new URL(url);
  wrong.password = 'guess';
  await expect(ask(wrong.href, '1')).rejects.toMatchObject({ code: '28P01' });
  expect(await ask(url, `current_setting('listen_addresses')`)).toBe('127.0.0.1');
  expect(statSync(join(stateDir, 'password')).mode & 0o777).toBe(0o600);
  expect(statSync(join(stateDir, 'data')).mode & 0o777).toBe(0o700);
});

test('a port that was taken meanwhile is replaced by a free one', async ({ start }) => {
  const first = await start();
  await first.stop();
  const squatter = createServer();
  await new Promise<void>((resolve) => squatter.listen(first.port, '127.0.0.1', resolve));
  const second = await start();
  expect(second.port).not.toBe(first.port);
  squatter.close();
});

test('a port that was asked for and is taken is an error that says so', async ({ start }) => {
  const squatter = createServer();
  const port = await new Promise<number>((resolve) =>
    squatter.listen(0, '127.0.0.1', () => resolve((squatter.address() as AddressInfo).port)),
  );
  await expect(start(port)).rejects.toMatchObject({
    message: `could not start PostgreSQL on port ${port}`,
    detail: expect.stringContaining('Address already in use'),
  });
  squatter.close();
});

test('a server that was killed is started again', async ({ start, stateDir }) => {
  const first = await start();
  process.kill(postmasterPid(stateDir), 'SIGKILL');
  await until(
    async () =>
      await ask(first.url, '1').then(
        () => false,
        () => true,
      ),
  );
  const second = await start();
  expect(await ask(second.url, '1')).toBe(1);
});

test('a process that has the old number of a killed server is not taken for it', async ({ start, stateDir }) => {
  const first = await start();
  const pid = postmasterPid(stateDir);
  process.kill(pid, 'SIGKILL');
  await until(
    async () =>
      await ask(first.url, '1').then(
        () => false,
        () => true,
      ),
  );
  const stranger = spawn('sleep', ['60']);
  const pidFile = join(stateDir, 'data', 'postmaster.pid');
  writeFileSync(pidFile, readFileSync(pidFile, 'utf8').replace(String(pid), String(stranger.pid)));
  try {
    const second = await start();
    expect(await ask(second.url, '1')).toBe(1);
  } finally {
    stranger.kill();
  }
});

test('a server that another process runs is used, and not stopped', async ({ start, stateDir }) => {
  const first = await start();
  const other = spawn('sleep', ['60']);
  setOwner(stateDir, other.pid);
  const second = await start();
  expect(second.url).toBe(first.url);
  await second.stop();
  expect(await ask(first.url, '1')).toBe(1);
  other.kill();
});

test('a server that a killed process has left over is used, and stopped', async ({ start, stateDir }) => {
  const first = await start();
  const other = spawn('true');
  await new Promise((resolve) => other.once('close', resolve));
  setOwner(stateDir, other.pid);
  const second = await start();
  expect(second.url).toBe(first.url);
  await second.stop();
  expect(existsSync(join(stateDir, 'data', 'postmaster.pid'))).toBe(false);
});

test('a server that does not let us in is left as it is', async ({ start, stateDir }) => {
  const { url } = await start();
  const passwordFile = join(stateDir, 'password');
  const password = readFileSync(passwordFile, 'utf8');
  const pidFile = readFileSync(join(stateDir, 'data', 'postmaster.pid'), 'utf8');
  writeFileSync(passwordFile, 'another');
  await expect(start()).rejects.toMatchObject({ code: '55000', detail: expect.stringContaining('password') });
  writeFileSync(passwordFile, password);
  expect(readFileSync(join(stateDir, 'data', 'postmaster.pid'), 'utf8')).toBe(pidFile);
  expect(await ask(url, '1')).toBe(1);
});

test('a running server is found by its directory, a stopped one is not', async ({ start, stateDir }) => {
  expect(findEmbedded(stateDir)).toBeUndefined();
  const server = await start();
  expect(findEmbedded(stateDir)).toBe(server.url);
  await server.stop();
  expect(findEmbedded(stateDir)).toBeUndefined();
});

test('a cluster of another major version is refused', async ({ start, stateDir }) => {
  const server = await start();
  await server.stop();
  writeFileSync(join(stateDir, 'data', 'PG_VERSION'), '12\n');
  await expect(start()).rejects.toMatchObject({ code: '55000', detail: expect.stringContaining('version 12') });
});
