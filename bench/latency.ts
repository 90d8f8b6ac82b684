/**
 * From the launching statement to the launched one's first own statement, both times taken on the server's clock.
 * In turns, so that what else the machine does meets all alike, each turn in another order: who comes after its twin finds the
 * session of the caller and its own program warm, and a process that ends is in the way of who comes next.  What takes long
 * comes last.
 */
import type { Launcher } from './contestants/contestant.ts';
import { compared, type Sample } from './result.ts';

/** Turns whose times are thrown away: connections, plans and code get warm. */
const WARM_UP = 20;

/** Milliseconds per launch. */
export async function measureLatency(launchers: readonly Launcher[], turns: number, rounds: number): Promise<Sample[]> {
  const samples = compared(launchers, rounds);
  const entries = [...launchers.entries()];
  const often = entries.filter(([, { every }]) => every === undefined);
  const seldom = entries.filter(([, { every }]) => every !== undefined);
  for (let turn = -Math.min(WARM_UP, turns); turn < turns; turn += 1) {
    const present = seldom.filter(([, { every = 1 }]) => turn % every === 0);
    for (const [i, { launch }] of [...shuffled(often), ...present]) {
      const milliseconds = await launch();
      if (turn >= 0) samples[i]?.rounds[Math.floor((turn * rounds) / turns)]?.push(milliseconds);
    }
  }
  return samples;
}

function shuffled<Item>(items: readonly Item[]): Item[] {
  const places = items.map((item) => ({ item, place: Math.random() }));
  return places.toSorted((one, other) => one.place - other.place).map(({ item }) => item);
}
