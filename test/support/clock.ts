/** A clock that stands still until it is told how much time has passed. */
import type { Clock } from '../../src/clock.ts';

export function fakeClock(): { clock: Clock; pass: (milliseconds: number) => void } {
  let now = 0;
  return {
    clock: { monotonic: () => now, sleep: () => Promise.resolve(), random: () => 0 },
    pass: (milliseconds) => void (now += milliseconds),
  };
}
