/**
 * Opens the control session of a node: settings of its own, whatever role and database have (HARDENING A2, B8), and on a server
 * and in a database where a node can work.  Called by src/catalog.ts.
 */
import pg from 'pg';
import { BgwError, explainConnection, notInstalled } from '../errors.ts';
import { endClient } from './end.ts';
import { LASTING, LASTING_SINCE_14, probingConnection } from './lasting.ts';
import { checkBackend } from './pooler.ts';

/** A control call that takes longer is stuck: on a lock, or on a server that does not answer. */
const STATEMENT_TIMEOUT = 10_000;

/**
 * What a role or database default must not change for the control session.  Every statement of sql/control looks up a
 * bounded batch by an index; a plan that was cached while the queue was empty must do so as well when it is long.
 */
const CONTROL_SETTINGS = {
  ...LASTING,
  ...LASTING_SINCE_14,
  search_path: '',
  timezone: 'UTC', // of the partitions of the history, too
  datestyle: 'ISO, MDY', // the start of a backend goes to the node and comes back as text
  intervalstyle: 'postgres',
  statement_timeout: String(STATEMENT_TIMEOUT),
  lock_timeout: '5s',
  idle_in_transaction_session_timeout: '10s',
  transaction_timeout: '0', // since PostgreSQL 17
  default_transaction_read_only: 'off',
  default_transaction_isolation: 'read committed',
  jit: 'off',
  enable_seqscan: 'off',
  enable_hashjoin: 'off',
  enable_mergejoin: 'off',
  enable_bitmapscan: 'off',
  plan_cache_mode: 'force_generic_plan',
};
/** Those that this server has; under a search_path that may still be anybody's, so that no operator is left to it. */
const SET_SETTINGS = `
  SELECT pg_catalog.set_config(wanted.name, wanted.setting, false)
  FROM pg_catalog.json_each_text($1) AS wanted (name, setting)
  JOIN pg_catalog.pg_settings ON pg_settings.name OPERATOR(pg_catalog.=) wanted.name`;

/** What a control session has found. */
export interface Server {
  version: number;
  standby: boolean;
  migrated: boolean;
  login: string;
  /** Whether the login may write the catalog; null where there is none. */
  allowed: boolean | null;
  owner: string | null;
}

/** Errors: WK203 behind a pooler, 0A000 the server is too old, WK303 no schema, 42501 it is another role's. */
export async function openControlSession(connection: pg.ClientConfig): Promise<{ client: pg.Client; server: Server }> {
  const client = new pg.Client({
    ...probingConnection(connection),
    application_name: 'bgw control',
    pipeline: true, // calls of workers that open and end sessions do not wait for the loop's
    query_timeout: STATEMENT_TIMEOUT + 5000,
  });
  client.on('error', () => undefined); // the query in flight, or the next one, says so
  try {
    await client.connect().catch((error: unknown) => {
      throw explainConnection(error);
    });
    // First of all: what is set through a pooler is set for whoever gets that backend next.
    const { rows: answers } = await client.query<{ pid: number }>('SELECT pg_catalog.pg_backend_pid() AS pid');
    checkBackend(client, answers[0]?.pid);
    await client.query('SET ROLE NONE'); // whoever owns the database may have set another one for it
    await client.query(SET_SETTINGS, [CONTROL_SETTINGS]);
    const { rows } = await client.query<Server>(
      `SELECT pg_catalog.current_setting('server_version_num')::int AS version,
              pg_catalog.pg_is_in_recovery() AS standby, installed.oid IS NOT NULL AS migrated, current_user AS login,
              pg_catalog.has_table_privilege(installed.oid, 'INSERT, UPDATE, DELETE') AS allowed,
              (SELECT pg_catalog.pg_get_userbyid(relowner) FROM pg_catalog.pg_class WHERE pg_class.oid OPERATOR(pg_catalog.=) installed.oid) AS owner
       FROM (SELECT pg_catalog.to_regclass('bgw.node') AS oid) AS installed`,
    );
    const [server] = rows as [Server];
    checkServer(server);
    return { client, server };
  } catch (error) {
    await endClient(client);
    throw error;
  }
}

function checkServer(server: Server): void {
  if (server.version < 130_000) {
    throw new BgwError('0A000', {
      message: 'PostgreSQL 13 or later is required',
      detail: `The server is ${Math.floor(server.version / 10_000)}.`,
    });
  }
  if (!server.migrated) throw notInstalled();
  if (!server.allowed) {
    throw new BgwError('42501', {
      message: `role "${server.login}" cannot run a controller in this database`,
      detail: `The catalog belongs to role "${server.owner}".`,
      hint: 'Log in as that role, or as a member of it.',
    });
  }
}
