/**
 * From the launching statement to the launched one's first own statement, both times taken on the server's clock.
 * In turns, so that what else the machine does meets all alike.
 */
import type { Launcher } from './contestants/contestant.ts';
import { compared, type Sample } from './result.ts';

/** Turns whose times are thrown away: connections, plans and code get warm. */
const WARM_UP = 20;

/** Milliseconds per launch. */
export async function measureLatency(launchers: readonly Launcher[], turns: number, rounds: number): Promise<Sample[]> {
  const samples = compared(launchers, rounds);
  for (let turn = -Math.min(WARM_UP, turns); turn < turns; turn += 1) {
    for (const [i, { every = 1, launch }] of launchers.entries()) {
      if (turn % every !== 0) continue;
      const milliseconds = await launch();
      if (turn >= 0) samples[i]?.rounds[Math.floor((turn * rounds) / turns)]?.push(milliseconds);
    }
  }
  return samples;
}
