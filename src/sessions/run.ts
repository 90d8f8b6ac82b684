/**
 * One run of a command on a session of its owner: mode session as psql would send it, mode atomic in one transaction
 * with its own completion (I4).  The worker's settings and the names of the run are custom GUCs of that session.
 */
import { BgwError } from '../errors.ts';
import { splitStatements } from '../sql-statements.ts';
import type { SettingValue, StartOrder } from '../orders.ts';
import type { Bracketed, Session } from './session.ts';
import type { OnNotice, Reply } from './wire.ts';

export interface Run {
  order: StartOrder;
  command: string;
  settings: readonly SettingValue[];
  onNotice: OnNotice;
  /** Whether the process ends with this run. */
  final: boolean;
}

export type RunResult = Pick<Reply, 'commandTag' | 'rows' | 'error'>;

export async function runSession(session: Session, run: Run): Promise<RunResult> {
  const replies = await session.run(bracketed(run), { isLast: true });
  return resultOf(replies);
}

export async function runAtomic(session: Session, run: Run): Promise<RunResult> {
  const { handle, run_id } = run.order;
  const refused = transactionEnd(run.command);
  if (refused) return { commandTag: undefined, rows: undefined, error: refused };
  const { before, ...rest } = bracketed(run);
  const begin = { text: 'BEGIN; SELECT pg_catalog.txid_current()', valued: true };
  const replies = await session.run({ before: [...before, begin], ...rest }, { isLast: false });
  const result = resultOf(replies);
  if (result.error) return result;
  const { commandTag, rows } = result;
  const values = [handle, run_id, replies.at(-2)?.value, run.final, commandTag && literal(commandTag), rows];
  const complete = `SELECT bgw.complete_run(${values.map((value) => value ?? 'NULL').join(', ')})`;
  const error = (await session.finish([{ text: complete }, { text: 'COMMIT' }])).find((reply) => reply.error)?.error;
  return { commandTag, rows, error };
}

const ENDS_TRANSACTION = /^(commit|end|abort|rollback(?!\s+(work\s+|transaction\s+)?to\b)|prepare\s+transaction)\b/i;
/** Spares most commands the splitting. */
const MAY_END_TRANSACTION = /\b(commit|end|abort|rollback|prepare)\b/i;

/** The error of a command that ends the transaction: it would have committed before complete_run could refuse it. */
function transactionEnd(command: string): BgwError | undefined {
  // The body of a function, where END is no command.
  if (!MAY_END_TRANSACTION.test(command) || /\bbegin\s+atomic\b/i.test(command)) return undefined;
  const end = splitStatements(command).find(({ text }) => ENDS_TRANSACTION.test(text));
  if (!end) return undefined;
  return new BgwError('2D000', {
    message: 'the command of an atomic run would end its transaction',
    detail: `Line ${end.line}: ${end.text.slice(0, 60)}`,
    hint: 'Use mode "session" for commands that commit or roll back by themselves.',
  });
}

/** The settings of the worker and the names of the run, and then its command. */
function bracketed({ order, settings, command, onNotice }: Run): Bracketed {
  const names = JSON.stringify({
    application_name: `bgworker: ${order.name}`,
    'bgw.worker_name': order.name,
    'bgw.handle': order.handle,
    'bgw.run_id': order.run_id,
    'bgw.main_arg': order.main_arg ?? '',
  });
  const configuration = configurationOf(settings);
  const values = `${configuration}${names.slice(1)}`;
  const text = `SELECT pg_catalog.count(pg_catalog.set_config(key, value, false)) FROM pg_catalog.json_each_text(${literal(values)})`;
  return { before: [{ text }], configuration, command: { text: command, onNotice } };
}

/** By the list that orders of one batch share. */
const configurations = new WeakMap<readonly SettingValue[], string>();

/** The beginning of a JSON object. */
function configurationOf(settings: readonly SettingValue[]): string {
  let text = configurations.get(settings);
  if (text === undefined) {
    text = `{${settings.map(({ name, shown }) => `${JSON.stringify(name)}:${JSON.stringify(shown)},`).join('')}`;
    configurations.set(settings, text);
  }
  return text;
}

/** Whatever standard_conforming_strings is in that session. */
function literal(text: string): string {
  return `E'${text.replaceAll(/['\\]/g, '$&$&')}'`;
}

/** The first error ends a run. */
function resultOf(replies: readonly Reply[]): RunResult {
  const { commandTag, rows } = replies.at(-1) ?? {};
  return { commandTag, rows, error: replies.find((reply) => reply.error)?.error };
}
