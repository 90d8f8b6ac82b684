/** `bgw status`: the nodes, and what every worker is doing; the views of sql/views, for people without psql. */
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { notInstalled } from '../errors.ts';
import { withGuardedSession } from './connect.ts';
import { formatTable } from './result-table.ts';

export interface StatusOptions {
  connection: pg.ClientConfig;
  watch: boolean;
}

const NODES =
  'SELECT node, login, status, joined_at::timestamptz(0), max_worker_processes FROM public.bgw_nodes ORDER BY node_id';
const WORKERS = `
  SELECT handle, name, status, node, coalesce(pid, os_pid) AS pid, state, restarts, next_start::timestamptz(0), waiting_for,
         left(split_part(last_error, E'\\n', 1), 60) AS last_error
  FROM public.bgw_stat_activity ORDER BY status = 'stopped', name, handle`;
const ON_STANDBY = `
  SELECT name, status, controller_pid, pid, state, waiting_for FROM public.bgw_stat_standby ORDER BY name`;
const REFRESH_EVERY = 2000;
const CLEAR_SCREEN = '\u001B[H\u001B[2J';

/** With `watch`, shows it again every two seconds until the process is interrupted, or nobody reads it any more. */
export async function showStatus({ connection, watch }: StatusOptions): Promise<void> {
  await withGuardedSession({ ...connection, application_name: 'bgw status' }, async (client) => {
    const { rows } = await client.query<{ missing: boolean }>(
      `SELECT pg_catalog.to_regclass('public.bgw_nodes') IS NULL AS missing`,
    );
    if (rows[0]?.missing) throw notInstalled();
    let isRead = true;
    process.stdout.once('error', () => (isRead = false));
    for (;;) {
      const text = await describeServer(client);
      process.stdout.write(watch ? `${CLEAR_SCREEN}${new Date().toISOString()}\n\n${text}` : text);
      if (!watch) return;
      await sleep(REFRESH_EVERY);
      if (!isRead) return;
    }
  });
}

async function describeServer(client: pg.Client): Promise<string> {
  const recorded = (await table(client, NODES)) + (await table(client, WORKERS));
  const { rows } = await client.query<{ standby: boolean }>('SELECT pg_catalog.pg_is_in_recovery() AS standby');
  if (!rows[0]?.standby) return recorded;
  const here = await table(client, ON_STANDBY);
  return `This server is a standby.  What runs here:\n\n${here}What the primary has recorded, as far as it is replayed:\n\n${recorded}`;
}

async function table(client: pg.Client, text: string): Promise<string> {
  const asText = { getTypeParser: () => (value: string) => value } as pg.CustomTypesConfig;
  const { fields, rows } = await client.query<(string | null)[]>({ text, rowMode: 'array', types: asText });
  return formatTable(
    fields,
    rows.map((row) => row.map(printable)),
  );
}

/** What a worker has put into its name or error moves no cursor of the terminal. */
function printable(value: string | null): string | null {
  return value && value.replaceAll(/\p{Cc}/gu, ' ');
}
