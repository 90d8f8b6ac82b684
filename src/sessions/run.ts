/**
 * One run of a command on a session of its owner: mode session as psql would send it, mode atomic in one transaction
 * with its own completion (I4).  The worker's settings and the names of the run are custom GUCs of that session.
 */
import { BgwError } from '../errors.ts';
import { splitStatements } from '../sql-statements.ts';
import type { SettingValue, StartOrder } from '../orders.ts';
import type { OnNotice, Session } from './session.ts';
import type { StatementResult } from './statement.ts';

export interface Run {
  order: StartOrder;
  command: string;
  settings: readonly SettingValue[];
  onNotice: OnNotice;
  /** Whether the process ends with this run. */
  final: boolean;
}

export type RunResult = StatementResult;

const SET_ALL = 'SELECT pg_catalog.count(pg_catalog.set_config(key, value, false)) FROM pg_catalog.json_each_text($1)';

export async function runSession(session: Session, run: Run): Promise<RunResult> {
  try {
    await session.ask(SET_ALL, [configuration(run)]);
  } catch (error) {
    return failed(error);
  }
  return session.run(run.command, run.onNotice);
}

export async function runAtomic(session: Session, run: Run): Promise<RunResult> {
  const { handle, run_id } = run.order;
  try {
    refuseTransactionEnd(run.command);
    await session.ask(SET_ALL, [configuration(run)]);
    await session.ask('BEGIN');
    const transaction = await session.ask('SELECT pg_catalog.txid_current()');
    const result = await session.run(run.command, run.onNotice);
    if (result.error) return result;
    await session.ask('SELECT bgw.complete_run($1, $2, $3, $4, $5, $6)', [
      handle,
      run_id,
      transaction,
      run.final,
      result.commandTag,
      result.rows,
    ]);
    await session.ask('COMMIT');
    return result;
  } catch (error) {
    return failed(error);
  }
}

const ENDS_TRANSACTION = /^(commit|end|abort|rollback(?!\s+(work\s+|transaction\s+)?to\b)|prepare\s+transaction)\b/i;

/** What ended the transaction by itself would have committed before complete_run could refuse it. */
function refuseTransactionEnd(command: string): void {
  // The body of a function, where END is no command.
  if (/\bbegin\s+atomic\b/i.test(command)) return;
  const end = splitStatements(command).find(({ text }) => ENDS_TRANSACTION.test(text));
  if (!end) return;
  throw new BgwError('2D000', {
    message: 'the command of an atomic run would end its transaction',
    detail: `Line ${end.line}: ${end.text.slice(0, 60)}`,
    hint: 'Use mode "session" for commands that commit or roll back by themselves.',
  });
}

function configuration({ order, settings }: Run): string {
  const values: Record<string, string> = {
    application_name: `bgworker: ${order.name}`,
    'bgw.worker_name': order.name,
    'bgw.handle': order.handle,
    'bgw.run_id': order.run_id,
    'bgw.main_arg': order.main_arg ?? '',
  };
  for (const { name, shown } of settings) values[name] = shown;
  return JSON.stringify(values);
}

function failed(error: unknown): RunResult {
  return { commandTag: undefined, rows: undefined, error: error instanceof Error ? error : new Error(String(error)) };
}
