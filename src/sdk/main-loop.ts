/**
 * The main loop of a worker: a turn, a nap on the latch, until SIGTERM or the death of the controller.
 * PostgreSQL counterpart: the loop and the sigsetjmp block of PostgresMain, which each background worker has to write again.
 */
import { backOff, systemClock } from '../clock.ts';
import { BgwError, describeError, sqlstateOf } from '../errors.ts';
import type { Settings } from './guc.ts';
import type { Guc } from './library.ts';
import type { Worker } from './worker.ts';

export interface MainLoopOptions {
  /** How long to sleep between two runs: milliseconds, or a setting with a unit of time. The latch ends it. */
  naptime: number | Guc<number>;
  /**
   * The error of this turn in a row ends the worker with exit code 1. Default 10; Infinity: none does.  The next turn comes
   * after a back-off, which the latch does not end: 100 ms, doubling up to 5 s, with jitter; or after the nap, if that is longer.
   */
  maxErrors?: number;
}

export interface MainLoopContext {
  worker: Pick<Worker, 'checkForInterrupts' | 'reportActivity' | 'shutdownRequested' | 'latch'>;
  settings: Settings;
  shutdown: AbortSignal;
  /** Whether this is the error that SIGTERM has ended the turn with. */
  isTermination: (error: unknown) => boolean;
  /** Whether its session was lost by this error. */
  isLoss: (error: unknown) => boolean;
  logError: (error: unknown) => void;
}

/** As many as 20 seconds' worth of back-off. */
const MAX_ERRORS = 10;
const MILLISECONDS: Record<string, number> = { us: 0.001, ms: 1, s: 1000, min: 60_000, h: 3_600_000, d: 86_400_000 };

export async function runMainLoop(
  { naptime, maxErrors = MAX_ERRORS }: MainLoopOptions,
  work: () => Promise<void> | void,
  context: MainLoopContext,
): Promise<void> {
  const { worker, shutdown } = context;
  if (!(maxErrors >= 1)) throw invalid('maxErrors', maxErrors, '1 .. Infinity');
  let errors = 0;
  while (!worker.shutdownRequested) {
    errors = (await takeTurn(work, context, errors + 1 < maxErrors)) ? 0 : errors + 1;
    const pause = errors === 0 ? 0 : backOff(errors - 1, systemClock);
    await systemClock.sleep(pause, shutdown);
    if (shutdown.aborted) return;
    const nap = Math.max(0, milliseconds(naptime, context.settings) - pause);
    if ((await worker.latch.wait({ timeout: nap })).postmasterDeath) return;
  }
}

/** Whether it ended without an error; throws one after which there is no other turn. */
async function takeTurn(
  work: () => Promise<void> | void,
  { worker, shutdown, isTermination, isLoss, logError }: MainLoopContext,
  mayFail: boolean,
): Promise<boolean> {
  try {
    worker.checkForInterrupts();
    worker.reportActivity('active');
    await work();
    return true;
  } catch (error) {
    if (isTermination(error)) return true;
    if (shutdown.aborted || !mayFail || isLoss(error) || isFatal(error)) throw error;
    logError(error);
    return false;
  } finally {
    worker.reportActivity('idle');
  }
}

/**
 * 57P: somebody wants the session, or the worker, to end. A connection to somewhere else that fails is an ERROR, and so
 * is what the server calls it in another language (lc_messages).
 */
function isFatal(error: unknown): boolean {
  const described = describeError(error);
  return /^(FATAL|PANIC)$/.test(described.severity) || (sqlstateOf(described)?.startsWith('57P') ?? false);
}

function milliseconds(naptime: number | Guc<number>, settings: Settings): number {
  const time =
    typeof naptime === 'number'
      ? naptime
      : Number(settings.value(naptime)) * (MILLISECONDS[settings.unit(naptime) ?? 'ms'] ?? 1);
  if (time >= 0) return time;
  throw invalid('naptime', time, '0 .. Infinity ms');
}

function invalid(name: string, value: unknown, range: string): BgwError {
  return new BgwError('22023', {
    message: `${String(value)} is outside the valid range for ${name} (${range})`,
  });
}
