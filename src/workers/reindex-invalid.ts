/**
 * reindex_invalid: finds invalid indexes, which a failed CREATE or REINDEX INDEX CONCURRENTLY leaves behind, and rebuilds them
 * CONCURRENTLY, one at a time.  What such a REINDEX leaves beside a good index (_ccnew, _ccold) is dropped, as the manual says.
 * Left alone: indexes of others, of large tables, and of tables at which somebody works (that may be the very build).
 * Try: SELECT bgw_set_config('reindex_invalid.dry_run', 'on'), bgw_launch('reindex_invalid');
 */
import { defineLibrary, type Guc, type Spi, type Worker } from '../sdk/index.ts';
import { askServer } from './parts/ask-server.ts';

/** Milliseconds until an index whose rebuild failed has another turn. */
const RETRY_AFTER = 3_600_000;

let naptime: Guc<number>;
let maxSize: Guc<number>;
let lockTimeout: Guc<number>;
let dryRun: Guc<boolean>;

export default defineLibrary('reindex_invalid', (init) => {
  naptime = init.defineIntVariable('reindex_invalid.naptime', {
    boot: 3600,
    min: 1,
    max: 86_400,
    unit: 's',
    description: 'Duration between two looks.',
  });
  maxSize = init.defineIntVariable('reindex_invalid.max_size', {
    boot: 10 * 1024,
    min: 0,
    max: 2_147_483_647,
    unit: 'MB',
    description: 'Size of a table above which its indexes are left alone.',
  });
  lockTimeout = init.defineIntVariable('reindex_invalid.lock_timeout', {
    boot: 5000,
    min: 1,
    max: 2_147_483_647,
    unit: 'ms',
    description: 'How long a rebuild waits for each lock.',
  });
  dryRun = init.defineBoolVariable('reindex_invalid.dry_run', {
    boot: false,
    description: 'Only log what would be done.',
  });
  init.registerWorker({
    name: 'reindex_invalid',
    function: main,
    restartTime: 10,
    restartTimeMax: 600,
    maxInstances: 1,
  });
});

interface InvalidIndex {
  /** Quoted, with its schema. */
  name: string;
  isLeftover: boolean;
}

export async function main(bgw: Worker): Promise<void> {
  /** When an index has its next turn; it is said once what became of it. */
  const later = new Map<string, number>();
  await bgw.mainLoop({ naptime }, async () => {
    const found = await askServer(bgw, (spi) => findInvalid(spi, bgw.guc(maxSize)));
    for (const { name, isLeftover } of found) {
      if (bgw.shutdownRequested) return;
      if ((later.get(name) ?? 0) > performance.now()) continue;
      later.set(name, performance.now() + RETRY_AFTER);
      const statement = isLeftover ? `DROP INDEX CONCURRENTLY ${name}` : `REINDEX INDEX CONCURRENTLY ${name}`;
      if (bgw.guc(dryRun)) bgw.log(`would run: ${statement}`);
      else if (await attempt(bgw, statement)) later.delete(name);
    }
  });
}

/** One that fails does not stop the others. A lost session ends the worker, by its next statement. */
async function attempt(bgw: Worker, statement: string): Promise<boolean> {
  try {
    await bgw.command(`SET lock_timeout TO ${bgw.guc(lockTimeout)}`);
    await bgw.command(statement);
    bgw.log(`done: ${statement}`);
    return true;
  } catch (error) {
    const { message, code, detail, hint } = error as Error & { code?: string; detail?: string; hint?: string };
    bgw.ereport('WARNING', `failed: ${statement}: ${message}`, { code, detail, hint });
    return false;
  }
}

async function findInvalid(spi: Spi, maxMegabytes: number): Promise<InvalidIndex[]> {
  const { rows } = await spi.execute<InvalidIndex>(
    `SELECT format('%I.%I', schema.nspname, class.relname) AS name,
            class.relname ~ '_cc(new|old)[0-9]*$' AND EXISTS (
              SELECT FROM pg_catalog.pg_index AS good JOIN pg_catalog.pg_class AS original ON original.oid = good.indexrelid
              WHERE good.indrelid = index.indrelid AND good.indisvalid
                AND starts_with(class.relname, regexp_replace(original.relname, '(.{0,50}).*', '\\1'))) AS "isLeftover"
     FROM pg_catalog.pg_index AS index
     JOIN pg_catalog.pg_class AS class ON class.oid = index.indexrelid AND class.relkind = 'i' AND class.relpersistence <> 't'
     JOIN pg_catalog.pg_namespace AS schema ON schema.oid = class.relnamespace AND schema.nspname NOT IN ('pg_catalog', 'pg_toast')
     WHERE NOT index.indisvalid AND pg_has_role(class.relowner, 'USAGE')
       AND pg_relation_size(index.indrelid) <= $1 * 1048576::bigint
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_locks WHERE relation = index.indrelid AND pid <> pg_backend_pid()
                       AND mode IN ('ShareUpdateExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock'))
     ORDER BY 2 DESC, 1`,
    [maxMegabytes],
  );
  return rows;
}
