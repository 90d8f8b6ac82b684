/**
 * How a signal reaches what a worker is doing: the statement in progress is cancelled on the server, and the next interrupt
 * check throws.  PostgreSQL counterpart: die, StatementCancelHandler, ProcDiePending, CHECK_FOR_INTERRUPTS.
 */
import { BgwError, describeError } from '../errors.ts';

/** A cancel can arrive before the statement does, or between two: it is sent again until the transactions have ended. */
const CANCEL_AGAIN = 500;

export class Interrupts {
  readonly #cancelOnServer: () => void;
  /** What the next check throws. */
  #termination: BgwError | undefined;
  #cancelTimer: NodeJS.Timeout | undefined;
  #transactions = 0;

  constructor(cancelOnServer: () => void) {
    this.#cancelOnServer = cancelOnServer;
  }

  cancel(): void {
    if (this.#transactions > 0) this.#cancelOnServer();
  }

  terminate(message: string): void {
    if (this.#termination) return;
    this.#termination = new BgwError('57P01', { severity: 'FATAL', message });
    this.cancel();
    this.#cancelTimer = setInterval(() => this.cancel(), CANCEL_AGAIN);
  }

  get isInTransaction(): boolean {
    return this.#transactions > 0;
  }

  /** The worker goes on, to finish: nothing is refused any longer. Whether its session is not to be used for that. */
  clear(): boolean {
    clearInterval(this.#cancelTimer);
    const wasTerminated = this.#termination !== undefined;
    this.#termination = undefined;
    return wasTerminated || this.#transactions > 0;
  }

  check(): void {
    if (this.#termination) throw this.#termination;
  }

  isTermination(error: unknown): boolean {
    return error !== undefined && error === this.#termination;
  }

  async inTransaction<Result>(work: () => Promise<Result>): Promise<Result> {
    this.check();
    this.#transactions += 1;
    try {
      return await work();
    } catch (error) {
      // query_canceled: the cancel was ours
      throw this.#termination && describeError(error).code === '57014' ? this.#termination : error;
    } finally {
      this.#transactions -= 1;
    }
  }
}
