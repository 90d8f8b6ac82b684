/** The command line, run as a user runs it: what it prints, where, and the exit code. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { describe } from 'vitest';
import { findPackageRoot } from '../src/package-root.ts';
import { startController } from './support/controller.ts';
import { createDatabase, expect, test } from './support/database.ts';
import { until } from './support/until.ts';

const program = join(findPackageRoot(), 'dist', 'cli.js');

interface Outcome {
  code: number | null;
  out: string;
  err: string;
}

function bgw(
  args: string[],
  { env = {}, input = '' }: { env?: NodeJS.ProcessEnv; input?: string } = {},
): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [program, ...args], { env: { PATH: process.env['PATH'], ...env } });
    const outcome: Outcome = { code: null, out: '', err: '' };
    child.stdout.on('data', (chunk: Buffer) => (outcome.out += chunk.toString()));
    child.stderr.on('data', (chunk: Buffer) => (outcome.err += chunk.toString()));
    child.on('error', reject);
    child.on('close', (code) => resolve({ ...outcome, code }));
    child.stdin.end(input);
  });
}

describe('bgw sql', () => {
  test('prints what psql prints', async ({ db }) => {
    const sql = `
      SELECT 1 AS one, 'a' || chr(10) || 'bcd' AS two, NULL AS nothing, 2.50 AS "the number";
      CREATE TEMPORARY TABLE t (a int);
      INSERT INTO t VALUES (1), (20) RETURNING a, '→' AS arrow;
      SELECT a FROM t WHERE false;
      VACUUM t;
      COPY (SELECT i, 'x' FROM generate_series(1, 2) AS i) TO STDOUT;`;
    expect(await bgw(['sql', sql, '--url', db.url])).toEqual({
      code: 0,
      err: '',
      out: [
        ' one | two | nothing | the number ',
        '-----+-----+---------+------------',
        '   1 | a  +|         |       2.50',
        '     | bcd |         | ',
        '(1 row)',
        '',
        'CREATE TABLE',
        ' a  | arrow ',
        '----+-------',
        '  1 | →',
        ' 20 | →',
        '(2 rows)',
        '',
        'INSERT 0 2',
        ' a ',
        '---',
        '(0 rows)',
        '',
        'VACUUM',
        '1\tx',
        '2\tx',
        '',
      ].join('\n'),
    });
  });

  test('prints an error with its place, DETAIL and HINT, does not go on, and exits with 1', async ({ db }) => {
    const sql = `DO $$ BEGIN RAISE NOTICE 'look'; RAISE 'no' USING DETAIL = 'Why.', HINT = 'Do this.', ERRCODE = '22023'; END $$; SELECT 1`;
    const outcome = await bgw(['sql'], { input: sql, env: { DATABASE_URL: db.url } });
    expect(outcome).toMatchObject({ code: 1, out: '' });
    expect(outcome.err).toBe(
      'NOTICE:  look\nERROR:  no\nDETAIL:  Why.\nHINT:  Do this.\nCONTEXT:  PL/pgSQL function inline_code_block line 1 at RAISE\n',
    );
    expect((await bgw(['sql', "SELECT '🙂',\n  nope", '--url', db.url])).err).toBe(
      'ERROR:  column "nope" does not exist\nLINE 2:   nope\n          ^\n',
    );
  });
});

describe('a wrong command line', () => {
  test.each([
    [['sql', '--nope'], "bgw: unknown option '--nope'\n"],
    [['up', '--max-worker-processes', 'many'], /^bgw: option '--max-worker-processes <n>' .* is invalid\. .*\n$/],
    [['fly'], "bgw: unknown command 'fly'\n"],
  ])('%j gets one line and exit code 2', async (args, message) => {
    const outcome = await bgw(args);
    expect(outcome).toMatchObject({
      code: 2,
      out: '',
      err: typeof message === 'string' ? message : expect.stringMatching(message),
    });
  });

  test('an option is also read from the environment', async () => {
    const outcome = await bgw(['run'], { env: { BGW_MAX_WORKER_PROCESSES: '-1' } });
    expect(outcome).toMatchObject({ code: 2, err: expect.stringContaining("from env 'BGW_MAX_WORKER_PROCESSES'") });
  });
});

test('a node whose name is empty, as an environment variable may be, has that of its host', async ({ db }) => {
  const node = await startController(db, { nodeName: '' });
  expect(await db.value('SELECT node FROM bgw_nodes')).toBe(hostname());
  await node.stop();
});

describe('a database that cannot be reached', () => {
  test('is named without its password', async () => {
    const url = 'postgresql://me:secret@127.0.0.1:1/mine';
    const { code, err } = await bgw(['migrate', '--url', url]);
    expect(code).toBe(1);
    expect(err).toMatch(/^ERROR: {2}could not connect to me@127\.0\.0\.1:1\/mine: .*\nHINT: {2}.*\n$/);
    expect(err).not.toContain('secret');
  });

  test.for(['status', 'run'])('bgw %s says at once that there is no password, or no TLS', async (command, { db }) => {
    const url = new URL(db.url);
    url.password = '';
    expect(await bgw([command, '--url', url.href])).toMatchObject({
      code: 1,
      err: expect.stringMatching(/^ERROR: {2}.*no password supplied\nHINT: {2}.*PGPASSWORD.*\n$/),
    });
    expect(await bgw([command, '--url', `${db.url}?sslmode=verify-full`])).toMatchObject({
      code: 1,
      err: expect.stringMatching(/^ERROR: {2}.*The server does not support SSL connections\nHINT: {2}.*sslmode.*\n$/),
    });
  });

  test('and does not answer is given up after ten seconds', async () => {
    const silent = createServer().listen(0, '127.0.0.1');
    await once(silent, 'listening');
    try {
      const { port } = silent.address() as AddressInfo;
      expect(await bgw(['sql', 'SELECT 1', '--url', `postgresql://me@127.0.0.1:${port}/mine`])).toMatchObject({
        code: 1,
        err: expect.stringMatching(/^ERROR: {2}could not connect to .*: timeout expired\n/),
      });
    } finally {
      silent.close();
    }
  });

  test('is not looked for with options that are not understood', async () => {
    expect(await bgw(['migrate', '--url', 'mysql://me:secret@h/d'])).toMatchObject({
      code: 1,
      err: expect.stringMatching(/^ERROR: {2}invalid connection URL\n(?!.*secret)/),
    });
    expect(await bgw(['migrate'], { env: { PGSERVICE: 'x' } })).toMatchObject({
      code: 1,
      err: expect.stringMatching(/PGSERVICE/),
    });
  });
});

test('bgw migrate says that a database is up to date', async ({ db }) => {
  const outcome = await bgw(['migrate', '--url', db.url]);
  expect(outcome).toMatchObject({
    code: 0,
    err: '',
    out: expect.stringMatching(/^postgres@.*\/bgw_test_\w+ is up to date\n$/),
  });
});

describe('output that nobody reads any more', () => {
  /** Starts the program and closes the end of its standard output that is read. Resolves to its exit code. */
  function unread(args: string[]): { exited: Promise<number | null>; kill: (signal: NodeJS.Signals) => void } {
    const child = spawn(process.execPath, [program, ...args], { env: { PATH: process.env['PATH'] }, stdio: 'pipe' });
    child.stdout.destroy();
    child.stderr.resume();
    return {
      exited: once(child, 'exit').then(([code]) => code as number | null),
      kill: (signal) => child.kill(signal),
    };
  }

  test('does not undo a migration', async () => {
    const empty = await createDatabase({ template: 'template0' });
    try {
      expect(await unread(['migrate', '--url', empty.url]).exited).toBe(0);
      expect(await empty.value('SELECT count(*) FROM bgw_nodes')).toBe(0n);
    } finally {
      await empty.drop();
    }
  });

  test('does not keep a node from stopping in order', async ({ db }) => {
    const node = unread(['run', '--url', db.url]);
    await until(() => db.value<boolean>("SELECT EXISTS (SELECT FROM bgw_nodes WHERE status = 'running')"));
    node.kill('SIGTERM');
    expect(await node.exited).toBe(0);
    expect(await db.value('SELECT count(*) FROM bgw_nodes')).toBe(0n);
  });

  test('ends bgw status --watch', async ({ db }) => {
    expect(await unread(['status', '--watch', '--url', db.url]).exited).toBe(0);
  });
});
