/** A worker whose first own statement says when it ran. */
import { defineLibrary } from '../../dist/index.js';

export default defineLibrary('first_statement', (init) => {
  init.registerWorker({ name: 'first_statement', function: main, restartTime: null });
});

export async function main(bgw, { id }) {
  const sql = 'INSERT INTO bench.seen VALUES ($1, clock_timestamp())';
  await bgw.transaction((spi) => spi.execute(sql, [id]));
}
