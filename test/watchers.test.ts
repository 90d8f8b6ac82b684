/** Workers that look at the whole server, each on servers of their own: auth_counter at its log, standby_watch at its standbys. */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { migrate } from '../src/migrate.ts';
import { startController, type TestController } from './support/controller.ts';
import { type OwnServer, startOwnServer } from './support/own-server.ts';
import { openWorkshop, type Workshop } from './support/standby.ts';
import { until } from './support/until.ts';

// Servers of other versions, which BGW_TEST_BIN_DIR may name, have no jsonlog before 15.
const FORMATS = process.env['BGW_TEST_BIN_DIR'] ? ['csvlog'] : ['csvlog', 'jsonlog'];

describe.each(FORMATS)('auth_counter on %s', (format) => {
  let server: OwnServer;
  let client: pg.Client;
  let controller: TestController;

  beforeAll(async () => {
    server = await startOwnServer({
      logging_collector: 'on',
      log_destination: `stderr,${format}`,
      log_connections: 'on',
      log_statement: 'all',
    });
    ({ client } = server);
    await client.query(`CREATE ROLE "al""ice" LOGIN PASSWORD 'right'`);
    controller = await startController({ url: server.url });
  });

  afterAll(async () => {
    await controller.stop();
    await server.stop();
  });

  async function login(user: string, password: string, database = 'postgres'): Promise<string | undefined> {
    const { port, hostname } = new URL(server.url);
    const guest = new pg.Client({ host: hostname, port: Number(port), user, password, database });
    try {
      await guest.connect();
      await guest.query(`SELECT 'a "quoted"\nline, with connection authorized: user=nobody'`);
      await guest.end();
      return undefined;
    } catch (error) {
      return (error as { code?: string }).code;
    }
  }

  const counts = `SELECT string_agg(format('%s@%s %s/%s', username, database, succeeded, failed), ', ' ORDER BY username, database)
                  FROM bgw_auth_counter WHERE username IN ('al"ice', 'nobody')`;

  async function counted(): Promise<string> {
    const { rows } = await client.query<{ counts: string }>(`SELECT (${counts}) AS counts`);
    return rows[0]?.counts ?? '';
  }

  test('counts logins by user and database, over a rotation and a restart, each once', async () => {
    await client.query(`SELECT bgw_set_config('auth_counter.naptime', '1s')`);
    const { rows } = await client.query(`SELECT bgw_launch('auth_counter') AS handle`);
    const handle = String(rows[0].handle);
    await controller.saw('worker_started', { handle });
    await until(async () => (await client.query('SELECT FROM bgw.auth_count_position')).rowCount === 1);

    expect(await login('al"ice', 'right')).toBe(undefined);
    expect(await login('al"ice', 'wrong')).toBe('28P01');
    expect(await login('al"ice', 'right', 'nowhere')).toBe('3D000');
    expect(await login('nobody', 'x')).toBe('28P01');
    await until(async () => (await counted()) === 'al"ice@nowhere 0/1, al"ice@postgres 1/1, nobody@postgres 0/1');

    // Between two files, and while it does not run.
    await client.query(`CALL bgw_wait_for_startup($1)`, [handle]);
    expect(await login('al"ice', 'right')).toBe(undefined);
    await client.query('SELECT pg_rotate_logfile()');
    await client.query('SELECT bgw_restart($1::bigint)', [handle]);
    expect(await login('al"ice', 'right')).toBe(undefined);
    await until(async () => (await counted()) === 'al"ice@nowhere 0/1, al"ice@postgres 3/1, nobody@postgres 0/1');
    const { rows: seen } = await client.query(
      `SELECT bool_and((failed > 0) = (last_failure IS NOT NULL)) AS dated FROM bgw_auth_counter`,
    );
    expect(seen[0].dated).toBe(true);
  });

  test('says which right or setting is missing', async () => {
    await client.query(`CREATE ROLE monk LOGIN PASSWORD 'monk'`);
    await client.query('CREATE DATABASE cell OWNER monk');
    const url = new URL(server.url);
    url.pathname = 'cell';
    url.username = 'monk';
    url.password = 'monk';
    const monk = new pg.Client({ connectionString: url.href });
    await monk.connect();
    await migrate(monk);
    const cell = await startController({ url: url.href });
    await monk.query(`SELECT bgw_launch('auth_counter')`);
    await until(async () => {
      const { rows } = await monk.query(
        `SELECT last_sqlstate, last_error FROM bgw_stat_activity WHERE name = 'auth_counter'`,
      );
      return rows[0]?.last_sqlstate === '42501' && /GRANT pg_monitor/.test(rows[0].last_error);
    });
    await monk.query(`SELECT bgw_terminate('auth_counter')`);
    await cell.stop();
    await monk.end();
  });
});

interface Posted {
  event: string;
  node: string;
  standby: string;
}

/** A server that takes alerts, after so many that it refuses. */
async function openWebhook({ failures = 0 } = {}): Promise<{ posted: Posted[]; url: string }> {
  const posted: Posted[] = [];
  let left = failures;
  const receiver = createServer((request: IncomingMessage, response: ServerResponse) => {
    let body = '';
    request.on('data', (chunk: Buffer) => (body += chunk.toString()));
    request.on('end', () => {
      left -= 1;
      if (left >= 0) response.statusCode = 500;
      else posted.push(JSON.parse(body) as Posted);
      response.end();
    });
  });
  await new Promise<void>((resolve) => receiver.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => void receiver.close());
  return { posted, url: `http://127.0.0.1:${(receiver.address() as AddressInfo).port}/hook` };
}

describe('standby_watch', () => {
  let workshop: Workshop;

  beforeAll(async () => {
    workshop = await openWorkshop();
  });

  afterAll(async () => {
    await workshop[Symbol.asyncDispose]();
  });

  test('tells of a standby that lags, catches up and is gone: log, NOTIFY and a webhook that fails at first', async () => {
    const { primary, standby } = await workshop.pair('watch', 'SELECT 1');
    await primary.value('GRANT pg_monitor TO app');
    const { posted, url } = await openWebhook({ failures: 1 });
    const app = await primary.session('app');
    const heard: string[] = [];
    app.on('notification', ({ payload }) => heard.push((JSON.parse(payload ?? '') as { event: string }).event));
    await app.query('LISTEN standby_watch');
    const controller = await startController({ url: primary.url });
    await app.query(`SELECT bgw_set_config('standby_watch.naptime', '1s')`);
    await app.query(`SELECT bgw_set_config('standby_watch.webhook_url', $1)`, [url]);
    await app.query(`SELECT bgw_set_config('standby_watch.max_lag_bytes', '64kB')`);
    const { rows } = await app.query(`SELECT bgw_launch('standby_watch') AS handle`);
    await controller.saw('worker_started', { handle: String(rows[0].handle) });

    await standby.value('SELECT pg_wal_replay_pause()');
    await app.query('CREATE TABLE filler AS SELECT repeat(md5(n::text), 10) FROM generate_series(1, 2000) AS n');
    await until(() => heard.includes('lagging'));
    await standby.value('SELECT pg_wal_replay_resume()');
    await until(() => heard.includes('recovered'));
    await standby.stop();
    await until(() => heard.includes('gone'));
    await until(() => posted.length === 3);
    expect(posted.map(({ event, node }) => `${event} ${node}`)).toEqual([
      'lagging primary',
      'recovered primary',
      'gone primary',
    ]);
    expect(heard).toEqual(['lagging', 'recovered', 'gone']);
    const said = `SELECT array_agg(severity || ' ' || message ORDER BY id) AS said FROM bgw_log WHERE name = 'standby_watch'`;
    const lines = await until(async () => {
      const { rows: found } = await app.query<{ said: string[] }>(said);
      return found[0]?.said.length === 3 && found[0].said;
    });
    expect(lines).toEqual([
      expect.stringMatching(/^WARNING standby ".*" lags: \d+ bytes/),
      expect.stringMatching(/^LOG standby ".*" has caught up: \d+ bytes/),
      expect.stringMatching(/^WARNING standby ".*" is gone$/),
    ]);
    await controller.stop();
  });

  test('on a standby it watches the replay, and the webhook hears of it', async () => {
    const { primary, standby, caughtUp } = await workshop.pair('replay', 'SELECT 1');
    const { posted, url } = await openWebhook();
    const onPrimary = await startController({ url: primary.url });
    const app = await primary.session('app');
    await app.query(
      `SELECT bgw_set_config('standby_watch.naptime', '1s'), bgw_set_config('standby_watch.max_lag_bytes', '64kB')`,
    );
    await app.query(`SELECT bgw_set_config('standby_watch.webhook_url', $1)`, [url]);
    // A definition of one's own: the library's is not started by itself.
    await app.query(
      `SELECT bgw_register('replay_watch', library_name => 'standby_watch', function_name => 'main', start_time => 'consistent_state', autostart => true)`,
    );
    await onPrimary.stop();
    await caughtUp();
    const onStandby = await startController({ url: standby.url });
    await onStandby.saw('worker_started', { name: 'replay_watch' });
    await standby.value('SELECT pg_wal_replay_pause()');
    await app.query('CREATE TABLE filler AS SELECT repeat(md5(n::text), 10) FROM generate_series(1, 2000) AS n');
    await until(() => posted.length === 1);
    await standby.value('SELECT pg_wal_replay_resume()');
    await until(() => posted.length === 2);
    expect(posted.map(({ event, node }) => `${event} ${node}`)).toEqual(['lagging standby', 'recovered standby']);
    await onStandby.stop();
  });
});
