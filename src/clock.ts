/** Time and chance, injectable: the only place that asks for either. */
import { performance } from 'node:perf_hooks';
import { setTimeout as delay } from 'node:timers/promises';

export interface Clock {
  /** Milliseconds of a clock that never jumps; for durations and for the lease. */
  monotonic(): number;
  /** Resolves after that many milliseconds, or as soon as the signal is aborted. */
  sleep(milliseconds: number, signal?: AbortSignal): Promise<void>;
  /** At least 0, less than 1. */
  random(): number;
}

/** The longest time that a timer of Node.js takes; a longer one would be over at once. */
export const LONGEST_TIMER: number = 2 ** 31 - 1;

export const systemClock: Clock = {
  monotonic: () => performance.now(),
  async sleep(milliseconds, signal) {
    try {
      for (let left = milliseconds; left > 0; left -= LONGEST_TIMER) {
        await delay(Math.min(left, LONGEST_TIMER), undefined, signal ? { signal } : {});
      }
    } catch (error) {
      if (!signal?.aborted) throw error;
    }
  },
  random: Math.random,
};

/** Full jitter over a delay that doubles from 100 ms to 5 s: many nodes do not come back to a restarted server at once. */
export function backOff(attempt: number, clock: Clock): number {
  return Math.min(5000, 100 * 2 ** attempt) * (0.5 + clock.random() / 2);
}
