/**
 * Writes what is generated of the documentation: docs/reference/sql.md, from COMMENT ON in the catalog of a migrated
 * database, and the usage block of README.md, from `bgw --help`.  With --check it changes nothing and fails if one of
 * them is not up to date.  The database is that of DATABASE_URL or PG*; without them a private server is made for it.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import pg from 'pg';
import { connectionConfig } from '../src/connection.ts';
import { startEmbedded } from '../src/embedded.ts';
import { migrate } from '../src/migrate.ts';
import { findPackageRoot } from '../src/package-root.ts';
import { readSqlLayer } from '../src/sql-layer.ts';

const root = findPackageRoot();
export const REFERENCE = join(root, 'docs', 'reference', 'sql.md');
const README = join(root, 'README.md');

interface Entry {
  kind: 'FUNCTION' | 'PROCEDURE' | 'VIEW';
  name: string;
  /** Of a function: `bgw_cancel(handle bigint)`; of a view: its name. */
  signature: string;
  comment: string;
}

/** Functions, procedures and views of schema public that sql/ has created: their comments end with their source. */
const ENTRIES = `
  SELECT CASE p.prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END AS kind, p.proname AS name,
         p.proname || '(' || pg_get_function_arguments(p.oid) || ')' ||
           coalesce(' RETURNS ' || CASE p.prokind WHEN 'f' THEN pg_get_function_result(p.oid) END, '') AS signature,
         obj_description(p.oid, 'pg_proc') AS comment
  FROM pg_proc AS p WHERE p.pronamespace = 'public'::regnamespace AND obj_description(p.oid, 'pg_proc') LIKE E'%\\nSource: sql/%'
 UNION ALL
  SELECT 'VIEW', c.relname, c.relname || ' (' || (
           SELECT string_agg(a.attname, ', ' ORDER BY a.attnum) FROM pg_attribute AS a
           WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
             AND (c.relname <> 'bgw_stat_activity' OR a.attname NOT IN (
                    SELECT core.attname FROM pg_attribute AS core WHERE core.attrelid = 'pg_catalog.pg_stat_activity'::regclass))) || ')',
         obj_description(c.oid, 'pg_class')
  FROM pg_class AS c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'v' AND obj_description(c.oid, 'pg_class') LIKE E'%\\nSource: sql/%'`;

/** The whole text of docs/reference/sql.md; the same on every version of the server. */
export async function sqlReference(client: pg.ClientBase): Promise<string> {
  const { rows } = await client.query<Entry>(ENTRIES);
  const order = readSqlLayer(join(root, 'sql')).map(({ path }) => path);
  const entries = rows.toSorted(
    (a, b) =>
      order.indexOf(sourceOf(a)) - order.indexOf(sourceOf(b)) ||
      compare(a.name, b.name) ||
      compare(a.signature, b.signature),
  );
  return [
    '<!-- Generated from COMMENT ON by `npm run reference`. -->',
    '',
    '# SQL reference',
    '',
    'Functions, procedures and views of schema `public`.  The same text is shown by `\\df+` and `\\d+` in psql.',
    'Functions run with the rights of the caller; a role sees and operates what belongs to it or to a role it is a member of.',
    '',
    ...entries.flatMap((entry, index) => section(entry, entries[index - 1]?.name === entry.name)),
  ].join('\n');
}

/** A function of several signatures has one heading. */
function section({ kind, name, signature, comment }: Entry, continues: boolean): string[] {
  const [, body = '', source = ''] = /^(.*)\nSource: (\S+)$/s.exec(comment) ?? [];
  const [, manual = body, example = ''] = /^(.*?)\s*Example: (.*)$/s.exec(body) ?? [];
  return [
    ...(continues ? [] : [`## ${name}`, '']),
    '```text',
    ...wrap(`${kind} ${signature.replace(/([(,] ?)IN /g, '$1')}`),
    '```',
    '',
    ...paragraphs(manual),
    ...(example === '' ? [] : ['```sql', example, '```', '']),
    `Source: [${source}](../../${source})`,
    '',
  ];
}

/** Prose as it is; aligned lists, which begin with two spaces, as they stand in psql. */
function paragraphs(manual: string): string[] {
  const parts: string[] = [];
  let isList = false;
  for (const line of manual.split('\n')) {
    const belongsToList = line.startsWith('  ');
    if (belongsToList !== isList) parts.push(...(belongsToList ? ['', '```text'] : ['```', '']));
    isList = belongsToList;
    parts.push(belongsToList ? line.slice(2) : line.replaceAll('<', '&lt;'));
  }
  return [...parts, ...(isList ? ['```'] : []), ''];
}

function wrap(signature: string): string[] {
  return signature.length <= 110
    ? [signature]
    : signature.replace('(', '(\n    ').replaceAll(', ', ',\n    ').split('\n');
}

function sourceOf({ comment }: Entry): string {
  return /\nSource: (\S+)$/.exec(comment)?.[1] ?? '';
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** `bgw --help`, as the built program prints it. */
export function commandUsage(): string {
  return execFileSync(process.execPath, [join(root, 'dist', 'cli.js'), '--help'], { encoding: 'utf8' }).trimEnd();
}

/** README.md with the usage of now between its two marks. */
export function withUsage(readme: string, usage: string): string {
  return readme.replace(
    /(<!-- cli:begin -->\n).*(<!-- cli:end -->)/s,
    (_all, begin: string, end: string) => `${begin}\`\`\`text\n${usage}\n\`\`\`\n${end}`,
  );
}

async function onMigratedDatabase<Result>(work: (client: pg.Client) => Promise<Result>): Promise<Result> {
  const { env } = process;
  if (env['DATABASE_URL'] || env['PGHOST']) return await withClient(connectionConfig({ env }), work);
  const directory = mkdtempSync(join(tmpdir(), 'bgw-reference-'));
  const server = await startEmbedded({ dataDir: join(directory, 'data'), settings: { fsync: 'off' } });
  try {
    return await withClient({ connectionString: server.url }, async (client) => {
      await migrate(client);
      return await work(client);
    });
  } finally {
    await server.stop();
    rmSync(directory, { recursive: true, force: true });
  }
}

async function withClient<Result>(
  config: pg.ClientConfig,
  work: (client: pg.Client) => Promise<Result>,
): Promise<Result> {
  const client = new pg.Client(config);
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { check: { type: 'boolean', default: false } } });
  const wanted = [
    { path: REFERENCE, text: await onMigratedDatabase(sqlReference) },
    { path: README, text: withUsage(readFileSync(README, 'utf8'), commandUsage()) },
  ];
  for (const { path, text } of wanted) {
    if (read(path) === text) continue;
    if (values.check) {
      console.error(`${path} is not up to date: run "npm run reference"`);
      process.exitCode = 1;
    } else {
      writeFileSync(path, text);
      console.log(`wrote ${path}`);
    }
  }
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) await main();
