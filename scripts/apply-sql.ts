/**
 * Applies sql/ to a database in development, whatever its migration history says, and sql/cron if it has schema cron:
 * GM_DBURL, which graphile-migrate sets for its afterCurrent and afterReset actions, else DATABASE_URL or PG*.
 */
import { join } from 'node:path';
import pg from 'pg';
import { connectionConfig, describeTarget } from '../src/connection.ts';
import { formatError } from '../src/errors.ts';
import { findPackageRoot } from '../src/package-root.ts';
import { applySqlLayer, readSqlLayer } from '../src/sql-layer.ts';

const config = connectionConfig({ url: process.env['GM_DBURL'], env: process.env });
const root = findPackageRoot();
const client = new pg.Client(config);
try {
  await client.connect();
  await client.query('BEGIN; SET LOCAL search_path = pg_catalog, pg_temp');
  const { rows } = await client.query(`SELECT FROM pg_catalog.pg_class WHERE oid = to_regclass('cron.sql_layer')`);
  const layers = rows.length > 0 ? ['sql', 'sql/cron'] : ['sql'];
  for (const layer of layers) await applySqlLayer(client, readSqlLayer(join(root, layer), layer), { isFirst: false });
  await client.query('COMMIT');
  console.log(`applied ${layers.join(' and ')} to ${describeTarget(config)}`);
} catch (error) {
  console.error(formatError(error));
  process.exitCode = 1;
} finally {
  await client.end();
}
