/** Waits for state that has no event of its own. Tests never sleep for a fixed time. */
import { setTimeout as sleep } from 'node:timers/promises';
import { inspect } from 'node:util';

const LOOK_AGAIN_MS = 20;

/** Asks again until the answer is truthy, and returns it. Fails after `deadline` ms with the last answer; `what` may be worded then. */
export async function until<Value>(
  ask: () => Value | Promise<Value>,
  { deadline = 10_000, what = 'the condition' }: { deadline?: number; what?: string | (() => string) } = {},
): Promise<NonNullable<Value>> {
  const end = performance.now() + deadline;
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    if (performance.now() > end) {
      const wanted = typeof what === 'string' ? what : what();
      throw new Error(`${wanted} did not come true in ${deadline} ms: ${inspect(answer)}`);
    }
    await sleep(LOOK_AGAIN_MS);
  }
}
