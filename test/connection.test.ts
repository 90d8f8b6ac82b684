/** Where the database is: URL and libpq's variables, and that TLS is checked unless told otherwise. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { deserialize, serialize } from 'node:v8';
import pg from 'pg';
import { describe, expect, test } from 'vitest';
import { received, type SentConnection, toSend } from '../src/sdk/channel.ts';
import { connectionConfig, describeTarget } from '../src/connection.ts';
import { findPackageRoot } from '../src/package-root.ts';

describe('a connection', () => {
  test('is read from a URL, and from PG* where the URL says nothing', () => {
    const env = { PGUSER: 'someone', PGPASSWORD: 'from env', PGPORT: '1111', DATABASE_URL: 'postgres://ignored/x' };
    expect(connectionConfig({ url: 'postgresql://db.example:6000/app?connect_timeout=3', env })).toMatchObject({
      host: 'db.example',
      port: 6000,
      user: 'someone',
      password: 'from env',
      database: 'app',
      connectionTimeoutMillis: 3000,
    });
  });

  test('is read from DATABASE_URL with encoded parts', () => {
    const env = {
      DATABASE_URL: 'postgresql://me:p%40ss%2Fword@localhost/my%20db?sslmode=disable&options=-c%20jit%3Doff',
    };
    expect(connectionConfig({ env })).toMatchObject({
      password: 'p@ss/word',
      database: 'my db',
      ssl: false,
      options: '-c jit=off',
    });
  });

  test.each([
    ['postgresql://localhost/a%2Fb%23c%3Fd%40e%2B%25', 'a/b#c?d@e+%'],
    ['postgresql://localhost/a%252Fb', 'a%2Fb'],
    ['postgresql://localhost/?dbname=app', 'app'],
    ['postgresql://me@localhost', 'me'],
  ])('%s names its database as it does to libpq', (url, database) => {
    expect(connectionConfig({ url, env: { PGUSER: 'me' } })).toMatchObject({ database });
  });

  test.each(['0', '-1', '99999999'])('has no time limit with connect_timeout=%s', (seconds) => {
    expect(connectionConfig({ env: { PGCONNECT_TIMEOUT: seconds } })).toMatchObject({ connectionTimeoutMillis: 0 });
  });

  test('of docker-compose.yml takes any password', () => {
    const password = 'p@ss/w:or#d%';
    const compose = readFileSync(join(findPackageRoot(), 'docker-compose.yml'), 'utf8');
    const variables = compose.matchAll(/^ {6}(?<name>PG\w+|DATABASE_URL): (?<value>\S+)/gm);
    const env = Object.fromEntries(
      [...variables].map(({ groups: { name, value } = {} }) => [
        name,
        value?.replace('${POSTGRES_PASSWORD:-postgres}', password),
      ]),
    );
    expect(connectionConfig({ env })).toMatchObject({ host: 'postgres', database: 'postgres', password, ssl: false });
  });

  test('may be a socket directory', () => {
    const fromUrl = connectionConfig({ url: 'postgresql:///app?host=/run/pg', env: {} });
    expect(fromUrl).toMatchObject({ host: '/run/pg', database: 'app', ssl: false });
    expect(connectionConfig({ env: { PGHOST: '/run/pg', PGSSLMODE: 'verify-full' } })).toMatchObject({
      host: '/run/pg',
      ssl: false,
    });
  });

  test('is shown without its password', () => {
    const show = (url: string): string => describeTarget(connectionConfig({ url, env: {} }));
    expect(show('postgresql://me:secret@db.example/app')).toBe('me@db.example:5432/app');
    expect(show('postgresql://me:secret@[::1]:6000/app')).toBe('me@[::1]:6000/app');
  });

  test.each([
    ['PGSERVICE', { PGSERVICE: 'main' }, '0A000'],
    ['a list of hosts', { PGHOST: 'a,b' }, '0A000'],
    ['a port that is none', { PGPORT: 'x' }, '22023'],
    ['a URL of something else', { DATABASE_URL: 'https://me:secret@example' }, '22023'],
    ['a URL that is none', { DATABASE_URL: 'postgresql://me:secret@[/x' }, '22023'],
    ['an unrecognized sslmode', { PGSSLMODE: 'yes' }, '22023'],
    ['a time to connect that is none', { PGCONNECT_TIMEOUT: '10s' }, '22023'],
    ['a certificate that cannot be read', { PGSSLMODE: 'verify-ca', PGSSLROOTCERT: '/nowhere/root.crt' }, '22023'],
  ])('refuses %s', (_what, env, code) => {
    const read = (): unknown => connectionConfig({ env: { PGHOST: 'localhost', ...env } });
    expect(read).toThrow(expect.objectContaining({ code }));
    expect(read).not.toThrow(/secret/);
  });
});

describe('TLS', () => {
  const ssl = (url: string, env: NodeJS.ProcessEnv = {}): unknown => connectionConfig({ url, env }).ssl;

  test.each([
    ['postgresql://localhost/x', false],
    ['postgresql://127.0.0.1/x', false],
    ['postgresql://127.0.0.1.example/x', { rejectUnauthorized: true }],
    ['postgresql://db.example/x', { rejectUnauthorized: true }],
    ['postgresql://10.0.0.1/x', { rejectUnauthorized: true }],
    ['postgresql://db.example/x?sslmode=disable', false],
    ['postgresql://db.example/x?sslmode=require', { rejectUnauthorized: false }],
    [
      'postgresql://db.example/x?sslmode=verify-ca',
      { rejectUnauthorized: true, checkServerIdentity: expect.any(Function) },
    ],
    ['postgresql://localhost/x?sslmode=prefer', false],
    ['postgresql://localhost/x?sslmode=verify-full', { rejectUnauthorized: true }],
  ])('%s', (url, expected) => {
    expect(ssl(url)).toEqual(expected);
  });

  test('arrives in the process of a worker', () => {
    for (const mode of ['verify-ca', 'verify-full', 'require', 'disable']) {
      const connection = connectionConfig({ url: `postgresql://db.example/x?sslmode=${mode}`, env: {} });
      // What a message between processes does to it: one with a function in it is refused.
      expect(received(deserialize(serialize(toSend(connection))) as SentConnection).ssl).toEqual(
        typeof connection.ssl === 'object' && connection.ssl.checkServerIdentity
          ? { ...connection.ssl, checkServerIdentity: expect.any(Function) }
          : connection.ssl,
      );
    }
  });

  test('the key of a certificate reaches a worker although pg, which has connected with it, hides it', () => {
    const connection = { ssl: { cert: 'a certificate', key: 'its key' } };
    void new pg.Client(connection);
    expect(toSend(connection)).toEqual({ ssl: { cert: 'a certificate', key: 'its key' } });
  });

  test('takes sslmode from PGSSLMODE where the URL has none', () => {
    expect(ssl('postgresql://db.example/x', { PGSSLMODE: 'disable' })).toBe(false);
    expect(ssl('postgresql://db.example/x?sslmode=verify-full', { PGSSLMODE: 'disable' })).toEqual({
      rejectUnauthorized: true,
    });
  });

  test('cannot be left to the network', () => {
    expect(() => ssl('postgresql://db.example/x?sslmode=prefer')).toThrow('sslmode "prefer" is not supported');
  });
});
