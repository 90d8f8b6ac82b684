/** What the call costs that launches something: milliseconds of one, and calls per second of two clients. */
import type { Caller } from './contestants/contestant.ts';
import { compared, type Sample } from './result.ts';
import { median } from './support.ts';

export interface Calls {
  /** Milliseconds of a call of one client: the median of each round. */
  one: Sample[];
  /** Calls per second of two clients; without those that are paced. */
  two: Sample[];
}

/** One for each round, in turns; before each turn, what the one before has called for is done. */
export async function measureCalls(callers: readonly Caller[], rounds: number, seconds: number): Promise<Calls> {
  const one = compared(callers, rounds);
  const two = compared(
    callers.filter(({ isPaced }) => !isPaced),
    rounds,
  );
  for (let round = 0; round < rounds; round += 1) {
    for (const caller of callers) {
      const single = await caller.call(1, seconds);
      await caller.settle();
      sampleOf(one, caller)?.push(median(single));
      if (caller.isPaced) continue;
      const both = await caller.call(2, seconds);
      await caller.settle();
      sampleOf(two, caller)?.push(both.length / seconds);
    }
  }
  return { one, two };

  function sampleOf(samples: readonly Sample[], { name }: Caller): number[] | undefined {
    return samples.find((sample) => sample.name === name)?.rounds.find((values) => values.length === 0);
  }
}
