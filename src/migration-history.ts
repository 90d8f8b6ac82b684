/**
 * The migrations that a database has, and whether they are those of this program.  Called by src/migrate.ts, in its
 * transaction and under its search_path.
 */
import type { ClientBase } from 'pg';
import { BgwError } from './errors.ts';
import type { Migration } from './migration-files.ts';

export type HistoryRow = Pick<Migration, 'id' | 'name' | 'hash'>;

/** Asks for the table first: the first migration makes it, and the schema it stands in. */
export async function readHistory(client: ClientBase, schema: string): Promise<HistoryRow[]> {
  if (!(await hasHistory(client, schema))) return [];
  const history = await client.query<HistoryRow>(`SELECT id, name, hash FROM ${schema}.migration ORDER BY id`);
  return history.rows;
}

/** Errors: 42501 it is another role's. */
export async function hasHistory(client: ClientBase, schema: string): Promise<boolean> {
  const { rows } = await client.query<{ owner: string; allowed: boolean; login: string }>(
    `SELECT pg_get_userbyid(relowner) AS owner, has_table_privilege(pg_class.oid, 'SELECT') AS allowed, current_user AS login
       FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
      WHERE nspname = $1 AND relname = 'migration'`,
    [schema],
  );
  const [table] = rows;
  if (table && !table.allowed) {
    throw new BgwError('42501', {
      message: `schema "${schema}" belongs to role "${table.owner}"`,
      detail: `Role "${table.login}" may not upgrade it.`,
      hint: `Run "bgw migrate" as role "${table.owner}".`,
    });
  }
  return table !== undefined;
}

/** Throws WK301 for a newer schema and WK302 for a different history. */
export function checkHistory(history: HistoryRow[], migrations: Migration[]): void {
  for (const [index, row] of history.entries()) {
    const file = migrations[index];
    if (file === undefined) {
      throw new BgwError('WK301', {
        message: 'the schema in the database is newer than this program',
        detail: `The database has migration "${row.name}"; the last one known here is "${migrations.at(-1)?.name}".`,
        hint: 'Update pg-bgworker to the version that made this schema, or a later one.',
      });
    }
    if (file.id !== row.id || file.hash !== row.hash) {
      throw new BgwError('WK302', {
        message: `migration "${row.name}" in the database differs from this program's`,
        detail: `The database has ${row.hash}, the file "${file.name}" has ${file.hash}.`,
        hint: 'Use a released version of pg-bgworker.  In development, start with an empty database.',
      });
    }
  }
}
