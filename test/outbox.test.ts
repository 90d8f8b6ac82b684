/** The example outbox, used as its README says. */
import { join } from 'node:path';
import { readFile } from 'node:fs/promises';
import { findPackageRoot } from '../src/package-root.ts';
import { expect, test as controllerTest, type TestController } from './support/controller.ts';
import { until } from './support/until.ts';

const example = join(findPackageRoot(), 'examples', 'outbox');

const test = controllerTest.extend<{ controller: TestController }>({
  controller: async ({ startController }, use) => {
    await use(await startController({ libraryDirs: [example] }));
  },
});

test('what is committed into the outbox is sent once; what cannot be sent is set aside', async ({ db, controller }) => {
  const readme = await readFile(join(example, 'README.md'), 'utf8');
  await db.query(/^CREATE TABLE outbox.*;$/m.exec(readme)?.[0] ?? '');
  const heard: unknown[] = [];
  const listener = await db.client();
  listener.on('notification', ({ channel, payload }) => heard.push([channel, payload]));
  await listener.query('LISTEN orders');

  await db.query(
    `INSERT INTO outbox (channel, payload) VALUES ('orders', 'first'), ('orders', repeat('x', 9000)), ('orders', 'second')`,
  );
  const handle = await db.value<bigint>(`SELECT bgw_launch('outbox')`);
  await until(() => heard.length === 2);
  expect((await db.query('SELECT id::int, error FROM outbox')).rows).toEqual([
    { id: 2, error: '22023: payload string too long' },
  ]);

  // A batch of one row: the next follows at once.
  await db.query(`SELECT bgw_set_config('outbox.batch_size', '1')`);
  await db.query(
    `INSERT INTO outbox (channel, payload) SELECT 'orders', n FROM generate_series(3, 5) AS n; NOTIFY outbox`,
  );
  await until(() => heard.length === 5);
  expect(heard).toEqual(['first', 'second', '3', '4', '5'].map((payload) => ['orders', payload]));

  await db.query(`SELECT bgw_signal('outbox', 'SIGUSR1'), bgw_set_config('outbox.batch_size', '20000')`);
  const lines = async (): Promise<unknown[]> =>
    (await db.query(`SELECT message FROM bgw_log WHERE handle = $1 AND message ~ 'rows' ORDER BY id`, [handle])).rows;
  await until(async () => (await lines()).length === 2);
  await db.query(`SELECT bgw_terminate('outbox')`);
  await controller.saw('worker_exited', { handle: String(handle) });
  await until(async () => (await lines()).length === 3);
  expect(await lines()).toEqual(
    expect.arrayContaining(
      ['5 rows sent so far', 'a batch of 20000 rows is too large', '5 rows sent'].map((message) => ({ message })),
    ),
  );
});
