/**
 * The re-creatable half of a schema: every file that sql/install.sql names, in its order, in the caller's transaction.
 * Called by: src/migrate.ts; by `npm run sql` in development.
 *
 * An object of ours never silently replaces somebody else's: the first time, CREATE OR REPLACE runs as CREATE, so that
 * a foreign public.bgw_launch stops the install; later, what is about to be replaced must belong to the installing role.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ClientBase } from 'pg';
import { BgwError, describeError } from './errors.ts';
import { lineAt, splitStatements, type Statement } from './sql-statements.ts';

export interface SqlFile {
  /** As in the last line of the comments: `sql/api/launch.sql`. */
  path: string;
  text: string;
}

/** DROPs of what is gone. Run on upgrades only: on the first install nothing of that name can be ours. */
const RETIRED = 'sql/retired.sql';
const REPLACEABLE = /^CREATE\s+OR\s+REPLACE\s+(?<kind>FUNCTION|PROCEDURE|VIEW)\s+(?<schema>\w+)\.(?<name>\w+)/i;
const COMMENT_TARGET = /^COMMENT\s+ON\s+(?:FUNCTION|PROCEDURE|VIEW)\s/i;

/** The files of `directory` that its install.sql names with `\ir`, in order; `prefix` is what the directory is called. */
export function readSqlLayer(directory: string, prefix = 'sql'): SqlFile[] {
  const install = readFileSync(join(directory, 'install.sql'), 'utf8');
  return [...install.matchAll(/^\\ir\s+(\S+)/gm)].map(([, path = '']) => ({
    path: `${prefix}/${path}`,
    text: readFileSync(join(directory, path), 'utf8'),
  }));
}

/** Views are expanded by the server when they are created, so the layer is applied again on a new major version. */
export function hashSqlLayer(files: SqlFile[], serverMajor: number): string {
  const hash = createHash('sha256').update(`PostgreSQL ${serverMajor}\n`);
  for (const { path, text } of files) hash.update(`${path}\n${text}\n`);
  return `sha256:${hash.digest('hex')}`;
}

/** Runs the files. Expects search_path to be without any schema of ours. */
export async function applySqlLayer(
  client: ClientBase,
  files: SqlFile[],
  { isFirst }: { isFirst: boolean },
): Promise<void> {
  if (!isFirst) await checkOwners(client, files);
  await client.query('SET LOCAL check_function_bodies = off');
  for (const file of files) {
    if (!isFirst || file.path !== RETIRED) await runFile(client, file, isFirst);
  }
}

async function runFile(client: ClientBase, { path, text }: SqlFile, isFirst: boolean): Promise<void> {
  const statements = splitStatements(text);
  const adapted = statements.map((statement) => adapt(statement, path, isFirst));
  try {
    // One round trip a file; an empty query is answered as well.
    await client.query(adapted.join(';\n'));
  } catch (error) {
    throw explain(error, path, statementAt(adapted, statements, position(error)));
  }
}

function adapt({ text }: Statement, path: string, isFirst: boolean): string {
  if (COMMENT_TARGET.test(text)) return withSource(text, path);
  return isFirst && REPLACEABLE.test(text) ? text.replace(/^CREATE\s+OR\s+REPLACE/i, 'CREATE') : text;
}

/** `\df+ bgw_launch` then ends with the file to read. */
function withSource(comment: string, path: string): string {
  return comment.replace(/'$/, `\nSource: ${path}'`);
}

/** By name, not by signature: a foreign function of the same name with other arguments could be called in our place. */
async function checkOwners(client: ClientBase, files: SqlFile[]): Promise<void> {
  const names = files
    .flatMap(({ text }) => splitStatements(text))
    .map(({ text }) => REPLACEABLE.exec(text)?.groups)
    .map((target) => `${target?.['schema']}.${target?.['name']}`);
  const { rows } = await client.query<{ object: string; owner: string; installer: string }>(
    `SELECT object.identity AS object, owner.rolname AS owner, current_user AS installer
       FROM (SELECT 'function ' || p.oid::regprocedure AS identity, p.proowner AS owner,
                    p.pronamespace AS namespace, p.proname AS name
               FROM pg_proc AS p
              UNION ALL
             SELECT 'view ' || c.oid::regclass, c.relowner, c.relnamespace, c.relname
               FROM pg_class AS c
              WHERE c.relkind IN ('r', 'v', 'm', 'f', 'p')) AS object
       JOIN pg_namespace AS n ON n.oid = object.namespace
       JOIN pg_roles AS owner ON owner.oid = object.owner
      WHERE n.nspname || '.' || object.name = ANY ($1) AND owner.rolname <> current_user
      LIMIT 1`,
    [names],
  );
  const [foreign] = rows;
  if (foreign === undefined) return;
  throw new BgwError('42501', {
    message: `${foreign.object} belongs to role "${foreign.owner}"`,
    detail: `Role "${foreign.installer}" is upgrading and would replace it.`,
    hint: `If role "${foreign.owner}" installed pg-bgworker, upgrade as that role.  Else drop or rename the object.`,
  });
}

function position(error: unknown): number {
  return Number((error as { position?: string }).position ?? 1);
}

/** The statement that character `at` (from 1) of the joined text belongs to. */
function statementAt(adapted: string[], statements: Statement[], at: number): { line: number } | undefined {
  let end = 0;
  const index = adapted.findIndex((text) => (end += text.length + 2) >= at);
  const statement = statements[index];
  const text = adapted[index];
  if (statement === undefined || text === undefined) return undefined;
  return { line: statement.line + lineAt(text, at - 1 - (end - text.length - 2)) - 1 };
}

function explain(error: unknown, path: string, place: { line: number } | undefined): unknown {
  const { code, message, detail, hint, context } = describeError(error);
  // A lost connection says nothing about the file.
  if (code === undefined || !/^[0-9A-Z]{5}$/.test(code)) return error;
  const exists = code === '42723' || code === '42P07';
  return new BgwError(code, {
    message,
    detail: exists ? 'It was there before pg-bgworker was installed.' : detail,
    hint: exists ? 'Drop or rename it, and run "bgw migrate" again.' : (hint ?? hintFor(code)),
    where: [context, `${path}${place === undefined ? '' : `:${place.line}`}`].filter(Boolean).join('\n'),
    cause: error,
  });
}

/** From PostgreSQL 15 on only the owner of the database, and superusers, may create in schema public. */
function hintFor(code: string): string | undefined {
  return code === '42501'
    ? 'Migrate as the owner of the database, or as a role with CREATE on schema public.'
    : undefined;
}
