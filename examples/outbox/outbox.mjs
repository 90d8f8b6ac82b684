/**
 * Sends what applications put into the table `outbox` as notifications, each once; what cannot be sent is set aside with its
 * error.  Shows most of the SDK: settings with hooks, signals, a channel, cursors, plans, subtransactions, cleanup.
 */
import { BgwError, defineLibrary } from 'pg-bgworker';

let naptime;
let batchSize;

export default defineLibrary('outbox', (init) => {
  naptime = init.defineIntVariable('outbox.naptime', {
    boot: 60,
    min: 1,
    unit: 's',
    description: 'How often to look without being told.',
  });
  batchSize = init.defineIntVariable('outbox.batch_size', {
    boot: 100,
    min: 1,
    description: 'Rows per transaction.',
    check: (size) => {
      if (size <= 10_000) return;
      throw new BgwError('22023', {
        message: `a batch of ${size} rows is too large`,
        detail: 'All of its rows are locked until it ends.',
        hint: 'Set outbox.batch_size to 10000 or less.',
      });
    },
  });
  init.markGucPrefixReserved('outbox');
  init.registerWorker({ name: 'outbox', function: main, restartTime: 10, maxInstances: 1 });
});

export async function main(bgw) {
  const sent = { rows: 0 };
  bgw.setup({
    activity: 'looking at the outbox',
    signals: { SIGUSR1: () => bgw.log(`${sent.rows} rows sent so far`) },
    onExit: () => bgw.log(`${sent.rows} rows sent`),
  });
  const plans = await bgw.transaction(async (spi) => ({
    notify: await spi.prepare('SELECT pg_notify($1, $2)'),
    remove: await spi.prepare('DELETE FROM outbox WHERE id = $1'),
    setAside: await spi.prepare('UPDATE outbox SET error = $2 WHERE id = $1'),
  }));
  await bgw.listen('outbox');
  await bgw.mainLoop({ naptime }, async () => {
    const size = bgw.guc(batchSize);
    const batch = await bgw.transaction((spi) => sendBatch(spi, plans, size));
    sent.rows += batch.sent;
    if (batch.seen === size) bgw.latch.set(); // there may be more
  });
}

async function sendBatch(spi, plans, size) {
  const batch = { seen: 0, sent: 0 };
  const rows = await spi.openCursor(
    'SELECT id, channel, payload FROM outbox WHERE error IS NULL ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED',
    [size],
    { values: 'exact' },
  );
  for await (const { id, channel, payload } of rows) {
    batch.seen += 1;
    try {
      await spi.subtransaction(async () => {
        await spi.executePlan(plans.notify, [channel, payload]);
        await spi.executePlan(plans.remove, [id]);
      });
      batch.sent += 1;
    } catch (error) {
      await spi.executePlan(plans.setAside, [id, `${error.code}: ${error.message}`]);
    }
  }
  return batch;
}
