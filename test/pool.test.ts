/** How long sessions of workers are kept, and when another one is opened (src/sessions/pool.ts). */
import { onTestFinished, vi } from 'vitest';
import { connectionConfig } from '../src/connection.ts';
import { Pool } from '../src/sessions/pool.ts';
import type { Session } from '../src/sessions/session.ts';
import { fakeClock } from './support/clock.ts';
import { expect, test, type TestDatabase } from './support/database.ts';
import { startProxy } from './support/proxy.ts';
import { until } from './support/until.ts';

function createPool(
  db: Pick<TestDatabase, 'url' | 'name'>,
  onRegistered?: () => Promise<unknown>,
): {
  acquire: (isUrgent: boolean) => Promise<Session>;
  pool: Pool;
  closed: number[];
  pass: (milliseconds: number) => void;
} {
  const { clock, pass } = fakeClock();
  const closed: number[] = [];
  const pool = new Pool({
    connection: connectionConfig({ url: db.url, env: {} }),
    server: {
      serverVersion: 130_000,
      registerSession: async () => {
        await onRegistered?.();
        return '';
      },
      cancelBackend: async () => false,
      terminateBackend: async () => false,
    },
    onClosed: (pid) => void closed.push(pid),
    observe: () => undefined,
    slots: 8,
    clock,
  });
  onTestFinished(() => pool.abandon());
  const opening = { settings: [], names: {} };
  return { acquire: (isUrgent) => pool.acquire(db.name, { isUrgent, opening }), pool, closed, pass };
}

/** Returns what ends the last timer of at least that many milliseconds before its time, and says how long it was. */
function lastTimer(atLeast: number): () => number {
  const original = globalThis.setTimeout;
  let last: { callback: () => void; milliseconds: number } | undefined;
  const spy = vi.spyOn(globalThis, 'setTimeout').mockImplementation((callback: () => void, milliseconds = 0) => {
    if (milliseconds >= atLeast) last = { callback, milliseconds };
    return original(callback, milliseconds);
  });
  onTestFinished(() => spy.mockRestore());
  return () => {
    const timer = last;
    last = undefined;
    timer?.callback();
    return timer?.milliseconds ?? 0;
  };
}

test('a session that is idle for half a minute is closed, one that was used meanwhile is not', async ({ db }) => {
  const endTimer = lastTimer(5000);
  const { acquire, pool, closed, pass } = createPool(db);
  const [one, two] = [await acquire(true), await acquire(true)];
  await pool.release(one);
  pass(10_000);
  await pool.release(two);
  pass(20_000);
  expect(endTimer()).toBe(30_000);
  await until(() => closed.length > 0, { what: 'the end of the first' });
  expect(closed).toEqual([one.backend.pid]);

  expect(await acquire(true)).toBe(two);
  pass(10_000);
  expect(endTimer(), 'when the second would have been due').toBe(10_000);
  await pool.release(two);
  pass(29_000);
  expect(await acquire(true), 'not yet').toBe(two);
  await pool.release(two);
  pass(30_000);
  expect(endTimer()).toBe(30_000);
  await until(() => closed.length > 1, { what: 'the end of the second' });
  expect(await acquire(true)).not.toBe(two);
});

test('napping workers share sessions for a while before another one is opened', async ({ db }) => {
  const { acquire, pool } = createPool(db);
  const [one] = [await acquire(false), await acquire(false)];
  const third = acquire(false);
  await pool.release(one);
  expect(await third, 'one that came back').toBe(one);
  const since = performance.now();
  const fourth = await acquire(false);
  expect(fourth).not.toBe(one);
  // 50 ms; those who are in a hurry wait 10.
  expect(performance.now() - since).toBeGreaterThan(30);
});

test("a session that is lost while it is registered is nobody's", async ({ db }) => {
  const proxy = await startProxy(db.url);
  let losses = 0;
  const { acquire, closed } = createPool({ url: proxy.url, name: db.name }, async () => {
    if (losses > 0) return;
    losses += proxy.cut('bgw worker');
    // Answers that come after the news of it.
    for (let answers = 0; answers < 3; answers += 1) await db.query('SELECT');
  });
  await expect(acquire(true)).rejects.toMatchObject({ code: '08006' });
  expect(losses).toBe(1);
  await until(() => closed.length === 1, { what: 'its end' });
  expect((await acquire(true)).alive).toBe(true);
});
