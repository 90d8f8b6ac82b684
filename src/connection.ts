/**
 * Where the database is: a connection URL, or libpq's environment variables, as psql would read them.
 * Differs from libpq in one thing on purpose: TLS to a host that is not this machine is verify-full unless sslmode says
 * otherwise.  The password comes from the URL, PGPASSWORD or the password file (through pg), never from argv of a child
 * and never into a log: describeTarget is the text to show.
 */
import { existsSync, readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { userInfo } from 'node:os';
import { isAbsolute } from 'node:path';
import type { ClientConfig } from 'pg';
import { parse } from 'pg-connection-string';
import { BgwError, describeError } from './errors.ts';

export interface ConnectionSource {
  /** A postgres:// or postgresql:// URL; replaces DATABASE_URL. */
  url?: string | undefined;
  env: NodeJS.ProcessEnv;
}

/** The options of one connection by libpq's names: what URL parameters and PG* variables have in common. */
type Parameters = Partial<Record<ParameterName, string>>;
type ParameterName = (typeof PARAMETERS)[number][0];

const PARAMETERS = [
  ['host', 'PGHOST'],
  ['port', 'PGPORT'],
  ['user', 'PGUSER'],
  ['password', 'PGPASSWORD'],
  ['database', 'PGDATABASE'],
  ['options', 'PGOPTIONS'],
  ['connect_timeout', 'PGCONNECT_TIMEOUT'],
  ['sslmode', 'PGSSLMODE'],
  ['sslrootcert', 'PGSSLROOTCERT'],
  ['sslcert', 'PGSSLCERT'],
  ['sslkey', 'PGSSLKEY'],
] as const;

/** Where libpq's packages put the server's socket: Debian and Red Hat, then the compiled-in default. */
const SOCKET_DIRECTORIES = ['/var/run/postgresql', '/tmp'];

/** Reads a connection from `url`, else DATABASE_URL, else PG*. What a URL leaves out is taken from PG*. */
export function connectionConfig({ url, env }: ConnectionSource): ClientConfig {
  if (env['PGSERVICE']) {
    throw new BgwError('0A000', {
      message: 'connection service files are not supported',
      detail: 'PGSERVICE is set.',
      hint: 'Give the connection as a URL, in DATABASE_URL, or in PGHOST, PGPORT, PGUSER and PGDATABASE.',
    });
  }
  const text = url ?? (env['DATABASE_URL'] || undefined);
  const given: Parameters = { ...fromEnvironment(env), ...(text === undefined ? {} : fromUrl(text)) };
  const port = portOf(given);
  const host = hostOf(given, port);
  const user = given.user ?? userInfo().username;
  return {
    host,
    port,
    user,
    database: given.database ?? user,
    ssl: tls(given, host),
    ...(given.password === undefined ? {} : { password: given.password }),
    ...(given.options === undefined ? {} : { options: given.options }),
    ...(given.connect_timeout === undefined ? {} : { connectionTimeoutMillis: timeoutOf(given.connect_timeout) }),
  };
}

/** `user@host:port/database`, for logs and messages: everything but the password. */
export function describeTarget({ user, host, port, database }: ClientConfig): string {
  const shownHost = host !== undefined && (isAbsolute(host) || host.includes(':')) ? `[${host}]` : host;
  return `${user}@${shownHost}:${port}/${database}`;
}

function fromEnvironment(env: NodeJS.ProcessEnv): Parameters {
  return pick((_name, variable) => env[variable]);
}

function fromUrl(url: string): Parameters {
  if (!/^postgres(ql)?:\/\//.test(url)) throw invalidUrl('It does not start with "postgresql://".');
  try {
    const parsed = parse(withoutTlsFiles(url));
    const asked = new URLSearchParams(url.split('?')[1] ?? '');
    return pick((name) => (name === 'database' ? databaseOf(url, asked) : (asked.get(name) ?? parsed[name])));
  } catch (error) {
    throw invalidUrl('It cannot be parsed as a URL.', error);
  }
}

/** As libpq reads it; pg-connection-string leaves a slash, and other signs that mean something in a URL, encoded. */
function databaseOf(url: string, asked: URLSearchParams): string | undefined {
  const path = /^[^:]*:\/\/[^/?#]*\/([^?#]*)/.exec(url)?.[1];
  return asked.get('dbname') ?? asked.get('database') ?? (path && decodeURIComponent(path));
}

/** pg-connection-string would read the certificates, and warn about modes that are decided here. */
function withoutTlsFiles(url: string): string {
  return url.replace(/[?&](ssl[a-z]*|uselibpqcompat)=[^&]*/g, '').replace(/^([^?&]*)&/, '$1?');
}

function pick(valueOf: (name: ParameterName, variable: string) => unknown): Parameters {
  const found: Parameters = {};
  for (const [name, variable] of PARAMETERS) {
    const value = valueOf(name, variable);
    if (typeof value === 'string' && value !== '') found[name] = value;
  }
  return found;
}

function portOf({ port = '5432' }: Parameters): number {
  const number = Number(port);
  if (Number.isInteger(number) && number > 0 && number < 65_536) return number;
  throw new BgwError('22023', { message: `invalid port number: "${port}"` });
}

/** In milliseconds.  As in libpq 0, and what is less, is no limit; and what a timer cannot hold is none either. */
function timeoutOf(connectTimeout: string): number {
  if (!/^\s*[+-]?\d+\s*$/.test(connectTimeout)) {
    throw new BgwError('22023', {
      message: `invalid integer value "${connectTimeout}" for connection option "connect_timeout"`,
      hint: 'It is a number of seconds.',
    });
  }
  const milliseconds = Number(connectTimeout) * 1000;
  return milliseconds > 0 && milliseconds < 2 ** 31 ? milliseconds : 0;
}

function hostOf({ host }: Parameters, port: number): string {
  if (host?.includes(',')) {
    throw new BgwError('0A000', {
      message: 'a list of hosts is not supported',
      hint: 'Name one host, or an address that follows the primary server.',
    });
  }
  return host ?? SOCKET_DIRECTORIES.find((directory) => existsSync(`${directory}/.s.PGSQL.${port}`)) ?? 'localhost';
}

function isLocal(host: string): boolean {
  return isAbsolute(host) || host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
}

function tls(given: Parameters, host: string): ClientConfig['ssl'] {
  const mode = given.sslmode ?? (isLocal(host) ? 'disable' : 'verify-full');
  // A server on a socket speaks no TLS; libpq ignores sslmode there as well.
  if (isAbsolute(host)) return false;
  switch (mode) {
    case 'disable':
      return false;
    case 'allow':
    case 'prefer':
      if (isLocal(host)) return false;
      throw new BgwError('0A000', {
        message: `sslmode "${mode}" is not supported for host "${host}"`,
        detail: 'Whoever is between here and the server could turn encryption off.',
        hint: 'Use verify-full, verify-ca or require; or disable, to go without encryption.',
      });
    case 'require':
      // As in libpq: a root certificate that is given is checked.
      return { ...certificates(given), ...(given.sslrootcert ? anyName : { rejectUnauthorized: false }) };
    case 'verify-ca':
      return { ...certificates(given), ...anyName };
    case 'verify-full':
      return { ...certificates(given), rejectUnauthorized: true };
    default:
      throw new BgwError('22023', {
        message: `unrecognized sslmode: "${mode}"`,
        hint: 'Use verify-full, verify-ca, require or disable.',
      });
  }
}

const anyName = { rejectUnauthorized: true, checkServerIdentity: (): undefined => undefined };

/** sslrootcert=system, and none at all, both mean the certificates that Node.js trusts. */
function certificates({ sslrootcert, sslcert, sslkey }: Parameters): { ca?: string; cert?: string; key?: string } {
  return {
    ...(sslrootcert === undefined || sslrootcert === 'system' ? {} : { ca: readOption('sslrootcert', sslrootcert) }),
    ...(sslcert === undefined ? {} : { cert: readOption('sslcert', sslcert) }),
    ...(sslkey === undefined ? {} : { key: readOption('sslkey', sslkey) }),
  };
}

function readOption(name: string, path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new BgwError('22023', {
      message: `could not read file "${path}" of connection option "${name}": ${describeError(error).message}`,
      cause: error,
    });
  }
}

/** The URL itself is not shown: it holds the password. */
function invalidUrl(detail: string, cause?: unknown): BgwError {
  return new BgwError('22023', {
    message: 'invalid connection URL',
    detail,
    hint: 'Write it as postgresql://user:password@host:5432/database.',
    cause,
  });
}
