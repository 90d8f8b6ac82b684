/**
 * Applies sql/ to a database in development, whatever its migration history says: GM_DBURL, which graphile-migrate sets
 * for its afterCurrent and afterReset actions, else DATABASE_URL or PG*.
 */
import { join } from 'node:path';
import pg from 'pg';
import { connectionConfig, describeTarget } from '../src/connection.ts';
import { formatError } from '../src/errors.ts';
import { findPackageRoot } from '../src/package-root.ts';
import { applySqlLayer, readSqlLayer } from '../src/sql-layer.ts';

const config = connectionConfig({ url: process.env['GM_DBURL'], env: process.env });
const files = readSqlLayer(join(findPackageRoot(), 'sql'));
const client = new pg.Client(config);
try {
  await client.connect();
  await client.query('BEGIN; SET LOCAL search_path = pg_catalog, pg_temp');
  await applySqlLayer(client, files, { isFirst: false });
  await client.query('COMMIT');
  console.log(`applied sql/ (${files.length} files) to ${describeTarget(config)}`);
} catch (error) {
  console.error(formatError(error));
  process.exitCode = 1;
} finally {
  await client.end();
}
