/**
 * The documents say what is so: links resolve, the walk through the nine files can be walked, SQL of the README runs,
 * and what is generated is up to date.
 */
import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describe } from 'vitest';
import { commandUsage, REFERENCE, sqlReference, withUsage } from '../scripts/sql-reference.ts';
import { loadLibraries } from '../src/libraries.ts';
import { migrate } from '../src/migrate.ts';
import { findPackageRoot } from '../src/package-root.ts';
import { expect, test } from './support/database.ts';

const root = findPackageRoot();
const documents = [
  ...readdirSync(root).filter((name) => name.endsWith('.md')),
  ...readdirSync(join(root, 'docs'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.md'))
    .map((name) => join('docs', name)),
].toSorted();

function read(path: string): string {
  return readFileSync(join(root, path), 'utf8');
}

/** The text of a document without its blocks of code. */
function prose(path: string): string {
  return read(path).replace(/^```.*?^```/gms, '');
}

function blocks(path: string, language: string): string[] {
  const pattern = new RegExp(`^\`\`\`${language}\\n(?<text>.*?)^\`\`\``, 'gms');
  return [...read(path).matchAll(pattern)].map(({ groups }) => groups?.['text'] ?? '');
}

/** GitHub's name of a heading. */
function anchorsOf(path: string): string[] {
  return [...prose(path).matchAll(/^#+ (?<heading>.*)$/gm)].map(({ groups }) =>
    (groups?.['heading'] ?? '')
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-'),
  );
}

describe('a link', () => {
  test.each(documents)('of %s leads somewhere', (document) => {
    const targets = [...prose(document).matchAll(/\]\((?<target>[^)\s]+)\)/g)]
      .map(({ groups }) => groups?.['target'] ?? '')
      .filter((target) => !/^[a-z]+:/.test(target));
    const broken = targets.filter((target) => {
      const [path = '', anchor] = target.split('#');
      const file = path === '' ? document : join(dirname(document), path);
      return !existsSync(join(root, file)) || (anchor !== undefined && !anchorsOf(file).includes(anchor));
    });
    expect(broken).toEqual([]);
  });
});

describe('ARCHITECTURE.md', () => {
  const text = read('ARCHITECTURE.md');
  /** What section 4 says will be there one day. */
  const PLANNED = ['src/scheduler.ts'];

  test('names only files that exist', () => {
    const paths = [...text.matchAll(/\b(?:src|sql|test|migrations|docs)\/[\w./-]*\w/g)].map(([path]) => path);
    expect(paths.length).toBeGreaterThan(30);
    expect(paths.filter((path) => !existsSync(join(root, path)) && !PLANNED.includes(path))).toEqual([]);
    expect(PLANNED.filter((path) => existsSync(join(root, path)))).toEqual([]);
  });

  const walk = [...text.matchAll(/^\d\. \[(?<path>[^\]]+)\]/gm)].map(({ groups }) => groups?.['path'] ?? '');

  test('walks through nine files', () => {
    expect(walk).toHaveLength(9);
  });

  test.each(walk.slice(0, -1).map((path, index) => ({ path, next: walk[index + 1] ?? '' })))(
    '$path names $next as the next file',
    ({ path, next }) => {
      expect(header(path)).toMatch(new RegExp(`Next: .*${next.replaceAll('.', '\\.')}`));
    },
  );

  /** The comment at the head of a file, as one line. */
  function header(path: string): string {
    const lines = read(path).split('\n');
    const end = lines.findIndex((line) => !/^(--|\/\*\*| \*)/.test(line));
    return lines
      .slice(0, end)
      .map((line) => line.replace(/^(--|\/\*\*| \*\/?) ?/, ''))
      .join(' ');
  }
});

describe('README.md', () => {
  test('has SQL that runs, twice', async ({ db }) => {
    const examples = blocks('README.md', 'sql');
    expect(examples.length).toBeGreaterThan(0);
    for (const example of [...examples, ...examples]) await db.query(example);
    expect(await db.value("SELECT waiting_for FROM bgw_stat_activity WHERE name = 'trim_visits'")).toBe(
      'a controller: none is running',
    );
  });

  test('has a worker library that compiles as it says, and loads', async () => {
    const [library = ''] = blocks('README.md', 'ts');
    const options = /npx tsc (?<options>[^`]*)`/.exec(read('README.md'))?.groups?.['options'] ?? '';
    const project = mkdtempSync(join(tmpdir(), 'bgw-readme-'));
    try {
      mkdirSync(join(project, 'workers'));
      mkdirSync(join(project, 'node_modules'));
      symlinkSync(root, join(project, 'node_modules', 'pg-bgworker'));
      writeFileSync(join(project, 'package.json'), '{ "type": "module" }');
      writeFileSync(join(project, 'workers', 'old_transactions.ts'), library);
      const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
      const compiler = spawnSync(process.execPath, [tsc, ...options.split(' ')], { cwd: project, encoding: 'utf8' });
      expect(compiler).toMatchObject({ status: 0, stdout: '' });
      const found = await loadLibraries({
        directories: [join(project, 'workers')],
        preload: [],
        settings: [],
        observe: () => undefined,
      });
      expect(found.find(({ name }) => name === 'old_transactions')).toMatchObject({
        settings: [{ name: 'old_transactions.max_age', unit: 's' }],
        workers: [{ name: 'old_transactions', function_name: 'main', restart_time: '10 s' }],
      });
    } finally {
      rmSync(project, { recursive: true, force: true });
    }
  });

  test('names only functions and views that exist', async ({ db }) => {
    const names = new Set([...read('README.md').matchAll(/\bbgw_[a-z_]*[a-z]\b/g)].map(([name]) => name));
    const { rows } = await db.query<{ name: string }>(
      `SELECT proname AS name FROM pg_proc WHERE pronamespace = 'public'::regnamespace
        UNION SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace`,
    );
    const known = new Set(rows.map(({ name }) => name));
    expect([...names].filter((name) => !known.has(name))).toEqual([]);
    expect([...known].filter((name) => name.startsWith('bgw_') && !names.has(name))).toEqual([]);
  });

  test('has the usage that bgw --help prints', () => {
    const readme = read('README.md');
    const usage = commandUsage();
    expect(readme).toContain(usage);
    expect(withUsage(readme, usage)).toBe(readme);
  });
});

test('docs/removal.md removes everything, also after a DROP SCHEMA alone, and it can be installed again', async ({
  db,
}) => {
  const [removal = ''] = blocks('docs/removal.md', 'sql');
  for (const before of ['SELECT 1', 'DROP SCHEMA bgw CASCADE']) {
    await db.query(before);
    await db.query(removal);
    expect((await db.query(OURS)).rows).toEqual([]);
    expect(await migrate(await db.client())).toMatchObject({ sqlLayer: 'applied' });
  }
});

/** What is there that a new database has not. */
const OURS = `
  SELECT 'schema' AS kind, nspname AS name FROM pg_namespace WHERE nspname !~ '^(pg_|information_schema$|public$)'
  UNION ALL SELECT 'function', proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
  UNION ALL SELECT 'relation', relname FROM pg_class WHERE relnamespace = 'public'::regnamespace
  UNION ALL SELECT 'type', typname FROM pg_type WHERE typnamespace = 'public'::regnamespace`;

describe('docs/reference/sql.md', () => {
  test('is up to date: "npm run reference" writes it', async ({ db }) => {
    const client = await db.client();
    expect(readFileSync(REFERENCE, 'utf8')).toBe(await sqlReference(client));
  });

  test('describes every function and view of schema public', async ({ db }) => {
    const described = new Set([...read('docs/reference/sql.md').matchAll(/^## (\w+)$/gm)].map(([, name]) => name));
    const { rows } = await db.query<{ name: string }>(
      `SELECT proname AS name FROM pg_proc WHERE pronamespace = 'public'::regnamespace
        UNION SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace`,
    );
    expect(rows.map(({ name }) => name).filter((name) => !described.has(name))).toEqual([]);
  });
});
