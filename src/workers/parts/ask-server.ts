/**
 * A transaction of a worker that ships: it finds types, functions and operators in pg_catalog alone.  Whoever owns the database
 * sets its search_path, and what he puts before pg_catalog would run with the rights of the worker.
 */
import type { Spi, Worker } from '../../sdk/index.ts';

export async function askServer<Result>(bgw: Worker, work: (spi: Spi) => Promise<Result>): Promise<Result> {
  return bgw.transaction(async (spi) => {
    await spi.execute('SET LOCAL search_path TO pg_catalog, pg_temp');
    return work(spi);
  });
}
