/** The latch of a worker. PostgreSQL counterpart: MyLatch, SetLatch, WaitLatch, ResetLatch. */

import { systemClock } from '../clock.ts';

/** Why a wait ended: the latch was set, the time is over, or the controller is gone. */
export type WakeReason = 'latch_set' | 'timeout' | 'postmaster_death';

export class Latch {
  #isSet = false;
  #isOrphaned = false;
  #wake: (() => void) | undefined;

  /** Wakes the worker: the wait in progress ends, or else the next one does at once. */
  set(): void {
    this.#isSet = true;
    this.#wake?.();
  }

  /** Marks that the controller is gone: every wait ends at once from now on. */
  orphan(): void {
    this.#isOrphaned = true;
    this.#wake?.();
  }

  /** Waits until the latch is set, at most `timeout` milliseconds (default: for ever), and resets it. */
  async wait({ timeout }: { timeout?: number } = {}): Promise<WakeReason> {
    if (!this.#isSet && !this.#isOrphaned) {
      await new Promise<void>((resolve) => {
        const timer = new AbortController();
        this.#wake = () => {
          timer.abort();
          resolve();
        };
        if (timeout !== undefined) void systemClock.sleep(timeout, timer.signal).then(resolve);
      });
      this.#wake = undefined;
    }
    if (this.#isOrphaned) return 'postmaster_death';
    const reason = this.#isSet ? 'latch_set' : 'timeout';
    this.#isSet = false;
    return reason;
  }
}
