/**
 * worker_spi: keeps a total in schemaN.counted: rows of type delta are summed up into the one of type total.
 * Dynamic: SELECT worker_spi_launch(1).  Static: --preload-library worker_spi starts worker_spi.total_workers of them.
 */
import { BgwError, defineLibrary, type Guc, type Spi, type Worker } from '../sdk/index.ts';

let naptime: Guc<number>;

export default defineLibrary('worker_spi', (init) => {
  naptime = init.defineIntVariable('worker_spi.naptime', {
    boot: 10,
    min: 1,
    max: 3600,
    unit: 's',
    description: 'Duration between each check.',
  });
  const totalWorkers = init.defineIntVariable('worker_spi.total_workers', {
    boot: 2,
    min: 1,
    max: 100,
    context: 'postmaster',
    description: 'Number of workers that start with the controller.',
  });
  const worker = { function: main, type: 'worker_spi', startTime: 'recovery_finished', restartTime: null } as const;
  init.registerWorker({ ...worker, name: 'worker_spi' });
  if (!init.preloaded) return;
  for (let i = 1; i <= init.current(totalWorkers); i++) {
    init.registerWorker({ ...worker, name: `worker_spi worker ${i}`, mainArg: i, autostart: true });
  }
});

export async function main(bgw: Worker, arg: unknown): Promise<void> {
  if (typeof arg !== 'number' || !Number.isInteger(arg))
    throw new BgwError('22023', {
      message: 'main_arg of worker_spi must be an integer',
      hint: 'Launch it with worker_spi_launch(i).',
    });
  const schema = `schema${arg}`;
  await bgw.transaction((spi) => initialize(spi, schema));
  bgw.log(`worker_spi initialized with ${schema}.counted`);
  await bgw.mainLoop({ naptime }, async () => {
    const { rows } = await bgw.transaction((spi) =>
      spi.execute<{ value: string }>(
        `WITH deleted AS (DELETE FROM ${schema}.counted WHERE type = 'delta' RETURNING value),
              total AS (SELECT coalesce(sum(value), 0) AS sum FROM deleted)
         UPDATE ${schema}.counted SET value = counted.value + total.sum
         FROM total WHERE type = 'total' AND total.sum <> 0 RETURNING counted.value`,
      ),
    );
    if (rows[0]) bgw.log(`count in ${schema}.counted is now ${rows[0].value}`);
  });
}

async function initialize(spi: Spi, schema: string): Promise<void> {
  const { rows } = await spi.execute<{ found: boolean }>('SELECT pg_catalog.to_regclass($1) IS NOT NULL AS found', [
    `${schema}.counted`,
  ]);
  if (rows[0]?.found) return;
  await spi.execute(`CREATE SCHEMA ${schema}`);
  await spi.execute(`CREATE TABLE ${schema}.counted (type text CHECK (type IN ('total', 'delta')), value integer)`);
  await spi.execute(`CREATE UNIQUE INDEX counted_unique_total ON ${schema}.counted (type) WHERE type = 'total'`);
  await spi.execute(`INSERT INTO ${schema}.counted VALUES ('total', 0)`);
}
