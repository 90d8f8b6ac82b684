/** One session for a command: which database the command line and the environment mean, and a clear error if it fails. */
import pg from 'pg';
import { connectionConfig, describeTarget } from '../connection.ts';
import { findEmbedded } from '../embedded.ts';
import { BgwError, describeError, explainConnection } from '../errors.ts';

/** Where `bgw up` keeps its private server, below the current directory. */
export const STATE_DIRECTORY = '.bgw';

/** As long as the sessions of a node wait, unless connect_timeout says otherwise. */
const ANSWERING = { connectionTimeoutMillis: 10_000 };

/** --url, else DATABASE_URL, else PG*, else the private server of this directory, else libpq's defaults. */
export function chooseDatabase(url: string | undefined): pg.ClientConfig {
  const { env } = process;
  const isGiven = [url, env['DATABASE_URL'], env['PGHOST'], env['PGPORT'], env['PGDATABASE'], env['PGSERVICE']].some(
    Boolean,
  );
  return connectionConfig({ url: isGiven ? url : findEmbedded(STATE_DIRECTORY), env });
}

/** Connects, does the work and closes the session whatever happens. */
export async function withSession<T>(config: pg.ClientConfig, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ ...ANSWERING, ...config });
  // A lost connection also rejects the query in progress, which is where it is reported.
  client.on('error', () => undefined);
  try {
    await client.connect();
  } catch (error) {
    // A server that asks for a password that there is not would keep the connection, and us, for a minute.
    void client.end().catch(() => undefined);
    throw couldNotConnect(config, explainConnection(error));
  }
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

/** For statements of ours: whoever owns the database may have put operators of his own before those of pg_catalog. */
export async function withGuardedSession<T>(
  config: pg.ClientConfig,
  work: (client: pg.Client) => Promise<T>,
): Promise<T> {
  return withSession(config, async (client) => {
    await client.query('SET search_path TO pg_catalog, pg_temp');
    return work(client);
  });
}

function couldNotConnect(config: pg.ClientConfig, cause: unknown): BgwError {
  const { code, message, detail, hint } = describeError(cause);
  const isFromServer = code !== undefined && /^[0-9A-Z]{5}$/.test(code);
  return new BgwError(isFromServer ? code : '08001', {
    message: `could not connect to ${describeTarget(config)}: ${message}`,
    detail,
    hint: isFromServer ? hint : 'Name the database with --url, DATABASE_URL or PGHOST; "bgw up" starts a private one.',
    cause,
  });
}
