/**
 * One run of a command on a session of its owner: mode session as psql would send it, mode atomic in one transaction
 * with the word that it has committed (I4).  The worker's settings and the names of the run are custom GUCs of that session.
 * Next: sql/control/complete_run.sql for mode atomic.
 */
import { BgwError } from '../errors.ts';
import { splitStatements } from '../sql-statements.ts';
import type { SettingValue, StartOrder } from '../orders.ts';
import { type Bracketed, failure, type Outcome, type Session } from './session.ts';
import type { OnNotice } from './wire.ts';

export interface Run {
  order: StartOrder;
  command: string;
  settings: readonly SettingValue[];
  onNotice: OnNotice;
  /** Whether the process ends with this run. */
  final: boolean;
  /** One of many short ones: what comes before and after a plain command goes in one statement with it. */
  isOneOfMany: boolean;
}

export interface RunResult extends Outcome {
  /** An atomic run whose session was lost: whether it has committed is not known. */
  undecided?: boolean;
}

export async function runSession(session: Session, run: Run): Promise<RunResult> {
  return session.run(bracketedOf(run));
}

export async function runAtomic(session: Session, run: Run): Promise<RunResult> {
  const refused = transactionEnd(run.command);
  if (refused) return failure(refused);
  // A local setting ends with its transaction.
  const before = ['BEGIN', `SET LOCAL bgw.transaction = '${run.order.run_id}'`];
  const result = await session.run({ ...bracketedOf(run), before, after: [completion(run), 'COMMIT'] });
  if (!result.error) return result;
  return { ...result, error: refusalOf(result.error, run), undecided: !isOfTransaction(result.error) };
}

/** Whether the server has said that it rolled back: not of a lost connection, or of a backend that ended, maybe in its commit. */
function isOfTransaction(error: Error): boolean {
  return (error as { severity?: string }).severity === 'ERROR';
}

/**
 * That the run has committed, told by its own transaction.  A plain INSERT, since DISCARD ALL drops every plan: in a function
 * it would cost twice as much.  NULL, which is refused, if the transaction is not the one that was begun.
 */
function completion({ order: { handle, run_id }, final }: Run): string {
  if (!final) return `SELECT bgw.complete_run(${handle}, ${run_id})`;
  const isSame = `CASE WHEN pg_catalog.current_setting('bgw.transaction', true) OPERATOR(pg_catalog.=) '${run_id}' THEN ${run_id} END`;
  return `INSERT INTO bgw.completed_run (run_id) VALUES (${isSame})`;
}

/** What a refusal of that INSERT means; other errors are those of the command, or of its commit. */
function refusalOf(error: Error, { order: { run_id } }: Run): Error {
  switch (error.message.includes('completed_run') && (error as { code?: string }).code) {
    case '23502':
      return new BgwError('2D000', {
        message: 'the command of an atomic run ended its transaction',
        hint: 'Use mode "session" for commands that commit or roll back by themselves.',
      });
    case '23505':
      return new BgwError('WK002', {
        message: `run ${run_id} is no longer this node's`,
        detail: 'It was taken over; its effects are rolled back.',
      });
    case '42501':
      return new BgwError('42501', {
        message: 'the command of an atomic run left another role behind, which may not say that the run is done',
        hint: 'End it with RESET ROLE.',
      });
    default:
      return error;
  }
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

/** The parameters by which a command knows its run. */
function namesOf({ name, handle, run_id, main_arg }: StartOrder): Record<string, string> {
  return {
    application_name: `bgworker: ${name}`,
    'bgw.worker_name': name,
    'bgw.handle': handle,
    'bgw.run_id': run_id,
    'bgw.main_arg': main_arg ?? '',
  };
}

/** Those of them that are the same for most runs of its worker, so that a session is opened with them. */
export function lastingNames({ name }: StartOrder): Record<string, string> {
  return { 'bgw.worker_name': name, 'bgw.main_arg': '' };
}

function bracketedOf({ order, command, settings, onNotice, isOneOfMany }: Run): Bracketed {
  return {
    before: [],
    names: namesOf(order),
    settings,
    command: { text: command, onNotice },
    after: [],
    isOneOfMany,
  };
}
