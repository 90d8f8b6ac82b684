/** @reboot: launched when the first controller joins. */
import { expect, test } from './support/controller.ts';
import type { TestDatabase } from './support/database.ts';
import { until } from './support/until.ts';

async function schedule(db: TestDatabase, name: string): Promise<Record<string, unknown>> {
  const { rows } = await db.query('SELECT * FROM bgw_schedules WHERE name = $1', [name]);
  return (rows[0] ?? {}) as Record<string, unknown>;
}

test('@reboot runs when the first controller joins, also one that no controller has seen before', async ({
  db,
  startController,
}) => {
  await db.query(`SELECT bgw_schedule('boot', '@reboot', 'SELECT 1')`);
  await db.query(`SELECT bgw_schedule('paused', '@reboot', 'SELECT 1', active => false)`);
  const first = await startController();
  await until(async () => (await schedule(db, 'boot'))['ran'] === 1n);
  await startController({ nodeName: 'second' });
  await first.stop();
  await db.query(`SELECT bgw_schedule('later', '1 second', 'SELECT 1')`);
  await until(async () => Number((await schedule(db, 'later'))['ran']) >= 1);
  expect(await schedule(db, 'boot')).toMatchObject({ ran: 1n, next_run: null });
  expect(await schedule(db, 'paused')).toMatchObject({ ran: 0n });
});

test('@reboot keeps to valid_from, valid_until, exceptions and jitter', async ({ db, startController }) => {
  const define = async (name: string, argument: string): Promise<unknown> =>
    db.query(`SELECT bgw_schedule('${name}', '@reboot', 'SELECT 1', timezone => 'Asia/Tokyo', ${argument})`);
  await define('early', `valid_from => now() + interval '1 h'`);
  await define('late', `valid_until => now() - interval '1 h'`);
  await define(
    'excepted',
    `exceptions => ARRAY[(now() AT TIME ZONE 'Asia/Tokyo')::date, (now() AT TIME ZONE 'Asia/Tokyo')::date + 1]`,
  );
  await define(
    'between',
    `valid_from => now() - interval '1 h', valid_until => now() + interval '1 h', exceptions => '{2001-01-01}'`,
  );
  await define('jittered', `jitter => '1 day'`);
  await startController();
  await until(async () => (await schedule(db, 'between'))['ran'] === 1n);
  await until(async () => (await db.value('SELECT count(*) FROM bgw.schedule_change')) === 0n);
  expect(await db.value(`SELECT string_agg(DISTINCT name, ' ') FROM bgw_schedule_history`)).toBe('between');
  expect(await schedule(db, 'jittered')).toMatchObject({ next_run: expect.any(Date) });
  await db.query(
    `UPDATE bgw.schedule_state SET starts_at = now() FROM bgw.schedule WHERE schedule.id = schedule_id AND name = 'jittered'`,
  );
  await until(async () => (await schedule(db, 'jittered'))['ran'] === 1n);
});
