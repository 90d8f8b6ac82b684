/** The latch of a worker. PostgreSQL counterpart: MyLatch, SetLatch, WaitLatch, ResetLatch. */

import { once } from 'node:events';
import { setImmediate } from 'node:timers/promises';
import { systemClock } from '../clock.ts';

/** What was true when a wait ended, as WL_LATCH_SET, WL_TIMEOUT and WL_POSTMASTER_DEATH; more than one can be. */
export interface WaitEvents {
  latchSet: boolean;
  /** The time is over, and nothing else is true. */
  timeout: boolean;
  /** The controller is gone: the worker is ended within a second. */
  postmasterDeath: boolean;
}

export class Latch {
  readonly #onWait: () => void;
  readonly #waiters = new Set<AbortController>();
  #isSet = false;
  #isOrphaned = false;

  /** @internal `onWait` is called before and after each wait: a worker processes there what has come. */
  constructor(onWait: () => void = () => undefined) {
    this.#onWait = onWait;
  }

  /** Wakes the worker: the wait in progress ends, or else the next one does at once. */
  set(): void {
    this.#isSet = true;
    this.#wake();
  }

  /** @internal Marks that the controller is gone: every wait ends at once from now on. */
  orphan(): void {
    this.#isOrphaned = true;
    this.#wake();
  }

  /**
   * Waits until the latch is set, at most `timeout` milliseconds (default: for ever), and resets it.  Says what was true.
   * Signals arrive in every wait, also in one that is over at once.
   */
  async wait({ timeout }: { timeout?: number } = {}): Promise<WaitEvents> {
    this.#onWait();
    const isOver = this.#isSet || this.#isOrphaned || (timeout !== undefined && timeout <= 0);
    // A signal, and the end of the controller, are events: without a turn of the event loop they never arrive.
    const woken = isOver ? await setImmediate(false) : await this.#sleep(timeout);
    const postmasterDeath = this.#isOrphaned;
    const latchSet = this.#isSet || (woken && !postmasterDeath);
    this.#isSet = false;
    this.#onWait();
    return { latchSet, timeout: !latchSet && !postmasterDeath, postmasterDeath };
  }

  /** Whether it was woken before the time was over. */
  async #sleep(timeout: number | undefined): Promise<boolean> {
    const waiter = new AbortController();
    this.#waiters.add(waiter);
    if (timeout === undefined) await once(waiter.signal, 'abort');
    else await systemClock.sleep(timeout, waiter.signal);
    this.#waiters.delete(waiter);
    return waiter.signal.aborted;
  }

  #wake(): void {
    for (const waiter of this.#waiters) waiter.abort();
  }
}
