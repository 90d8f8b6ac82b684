/**
 * wraparound_watch: warns of databases whose oldest transaction ID comes near the wraparound.  A launcher that keeps one
 * child per database, as the autovacuum launcher would.  Try: SELECT bgw_launch('wraparound_watch');
 */
import { defineLibrary, type Guc, type Worker } from '../sdk/index.ts';
import { askServer } from './parts/ask-server.ts';

let naptime: Guc<number>;
let maxAge: Guc<number>;

export default defineLibrary('wraparound_watch', (init) => {
  naptime = init.defineIntVariable('wraparound_watch.naptime', {
    boot: 60,
    min: 1,
    max: 86_400,
    unit: 's',
    description: 'Duration between each look at a database, and for new databases.',
  });
  maxAge = init.defineIntVariable('wraparound_watch.max_age', {
    boot: 500_000_000,
    min: 1,
    max: 2_000_000_000,
    description: 'Age of the oldest transaction ID of a database, in transactions, beyond which it is warned of.',
  });
  init.registerWorker({ name: 'wraparound_watch', function: watchAll, restartTime: 10, maxInstances: 1 });
  init.registerWorker({
    name: 'wraparound_watch_database',
    function: watchDatabase,
    flags: ['backend_database_connection', 'interruptible'],
    restartTime: 10,
    restartTimeMax: 600,
  });
});

/** Keeps a child in each database that it may connect to. */
export async function watchAll(bgw: Worker): Promise<void> {
  const children = bgw.workerSet('wraparound_watch', {
    worker: 'wraparound_watch_database',
    database: (key) => key,
    onLaunchFailed: (key, error) => bgw.ereport('WARNING', `could not watch database "${key}": ${String(error)}`),
  });
  await bgw.mainLoop({ naptime }, async () => {
    await children.watch();
    const { rows } = await askServer(bgw, (spi) =>
      spi.execute<{ name: string }>(
        `SELECT datname AS name FROM pg_catalog.pg_database
         WHERE datallowconn AND pg_catalog.has_database_privilege(oid, 'CONNECT')`,
      ),
    );
    await children.ensure(rows.map(({ name }) => name));
  });
}

/** Looks at the database that it was launched in, until that is dropped. */
export async function watchDatabase(bgw: Worker): Promise<void> {
  let hasWarned = false;
  const look = async (): Promise<void> => {
    const { name, age, oldest } = await sample(bgw);
    // A session that stays would be in the way of DROP DATABASE and CREATE DATABASE ... TEMPLATE.
    await bgw.disconnect();
    const limit = bgw.guc(maxAge);
    if (age > limit && !hasWarned)
      bgw.ereport('WARNING', `database "${name}" has not been frozen for ${age} transactions`, {
        detail: `The limit is ${limit} (wraparound_watch.max_age).  The oldest table is ${oldest}.`,
        hint: 'Execute a database-wide VACUUM in that database.  Old prepared transactions and stale replication slots may keep it from freezing.',
      });
    hasWarned = age > limit;
  };
  try {
    await bgw.mainLoop({ naptime }, look);
  } catch (error) {
    if ((error as { code?: string }).code !== '3D000') throw error; // invalid_catalog_name: it is gone
  }
}

interface Sample {
  name: string;
  /** In transactions. */
  age: number;
  oldest: string;
}

async function sample(bgw: Worker): Promise<Sample> {
  const { rows } = await askServer(bgw, (spi) =>
    spi.execute(
      `SELECT datname AS name, pg_catalog.age(datfrozenxid) AS age,
              (SELECT pg_class.oid::pg_catalog.regclass::text FROM pg_catalog.pg_class WHERE relkind IN ('r', 'm', 't')
               ORDER BY pg_catalog.age(relfrozenxid) DESC LIMIT 1) AS oldest
       FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()`,
    ),
  );
  return rows[0] as Sample;
}
