/** One-shot jobs per second, all queued beforehand.  That each ran exactly once is checked by each contestant. */
import { type Queue, type Work, WORKS } from './contestants/contestant.ts';
import { compared, type Sample } from './result.ts';

/** Fewer than that would measure how a worker wakes. */
const FEWEST_JOBS = 200;

export interface ThroughputSize {
  /** Rounds whose rates are thrown away: V8 compiles what a program does again and again, plans and caches get warm. */
  warmUp: number;
  rounds: number;
  jobs: number;
}

/** Jobs per second by kind of work. */
export async function measureThroughput(
  queues: readonly Queue[],
  { warmUp, rounds, jobs }: ThroughputSize,
): Promise<Record<Work, Sample[]>> {
  const samples = (work: Work): Sample[] =>
    compared(
      queues.filter(({ works }) => works.includes(work)),
      rounds,
    );
  const result: Record<Work, Sample[]> = { 'SELECT 1': samples('SELECT 1'), INSERT: samples('INSERT') };
  for (let round = -warmUp; round < rounds; round += 1)
    for (const work of WORKS)
      for (const { name, works, share = 1, drain } of queues) {
        if (!works.includes(work)) continue;
        const rate = await drain(work, Math.max(FEWEST_JOBS, jobs * share));
        if (round >= 0) result[work].find((sample) => sample.name === name)?.rounds[round]?.push(rate);
      }
  return result;
}
