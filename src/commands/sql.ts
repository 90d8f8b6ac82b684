/**
 * `bgw sql`: runs statements and prints what psql would print, for machines that have no psql.
 * Each statement is sent by itself, so that VACUUM or a CALL that commits works; the first error ends the run.
 */
import type { Readable, Writable } from 'node:stream';
import { text as readAll } from 'node:stream/consumers';
import type pg from 'pg';
import { describeError, formatError } from '../errors.ts';
import { lineAt, splitStatements } from '../sql-statements.ts';
import { withSession } from './connect.ts';
import { formatTable } from './result-table.ts';

export interface SqlOptions {
  connection: pg.ClientConfig;
  /** The statements; read from `input` if absent. */
  sql?: string | undefined;
  input: Readable;
  output: Writable;
  errors: Writable;
}

/** Returns the exit code: 0, or 1 after an error of a statement. Throws if there is no connection. */
export async function runSql({ connection, sql, input, output, errors }: SqlOptions): Promise<number> {
  const text = sql ?? (await readAll(input));
  return await withSession({ ...connection, application_name: 'bgw sql' }, async (client) => {
    client.on('notice', (notice) => errors.write(formatNotice(notice)));
    client.on('notification', (message) => output.write(describeNotification(message)));
    // Of COPY TO STDOUT psql prints the rows and nothing else.
    let isCopied = false;
    connectionOf(client).on('copyOutResponse', () => (isCopied = true));
    connectionOf(client).on('copyData', ({ chunk }: { chunk: Buffer }) => output.write(chunk));
    for (const statement of splitStatements(text)) {
      isCopied = false;
      try {
        const printed = await execute(client, statement.text);
        if (!isCopied) output.write(printed);
      } catch (error) {
        errors.write(`${formatStatementError(error, statement.text)}\n`);
        return 1;
      }
    }
    return 0;
  });
}

/** Values stay in the server's own text form. */
const asText = { getTypeParser: () => (value: string) => value } as pg.CustomTypesConfig;

async function execute(client: pg.Client, text: string): Promise<string> {
  const tag = commandTag(client);
  const result = await client.query<(string | null)[]>({ text, rowMode: 'array', types: asText });
  const table = result.fields.length > 0 ? formatTable(result.fields, result.rows) : '';
  return /^(INSERT|UPDATE|DELETE|MERGE)/.test(result.command) || table === '' ? `${table}${await tag}\n` : table;
}

/** pg keeps the first word of a tag only; the message has all of `CREATE TABLE`. An empty query has none. */
function commandTag(client: pg.Client): Promise<string> {
  return new Promise((resolve) => {
    connectionOf(client).once('commandComplete', ({ text }: { text: string }) => resolve(text));
  });
}

function connectionOf(client: pg.Client): NodeJS.EventEmitter {
  return (client as unknown as { connection: NodeJS.EventEmitter }).connection;
}

/** As in psql, the context is shown for errors only. */
function formatNotice(notice: object): string {
  const { severity, message, detail, hint } = describeError(notice);
  return `${formatError({ severity, message, detail, hint })}\n`;
}

function describeNotification({ channel, payload, processId }: pg.Notification): string {
  const withPayload = payload ? ` with payload "${payload}"` : '';
  return `Asynchronous notification "${channel}"${withPayload} received from server process with PID ${processId}.\n`;
}

/** As formatError, with the line that the server points at below the message. */
function formatStatementError(error: unknown, statement: string): string {
  const [message = '', ...rest] = formatError(error).split('\n');
  return [message, ...pointAt(error, statement), ...rest].join('\n');
}

function pointAt(error: unknown, statement: string): string[] {
  const { position } = error as { position?: string };
  if (position === undefined || describeError(error).code === undefined) return [];
  // The server counts characters, JavaScript UTF-16 units.
  const before = Array.from(statement)
    .slice(0, Number(position) - 1)
    .join('');
  const label = `LINE ${lineAt(statement, before.length)}: `;
  const start = before.lastIndexOf('\n') + 1;
  const line = statement.slice(start).split('\n')[0] ?? '';
  return [`${label}${line}`, `${' '.repeat(label.length + before.length - start)}^`];
}
