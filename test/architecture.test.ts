/**
 * What depends on what.  MAY_IMPORT is the table of ARCHITECTURE.md, in its order: a module imports from the layers that
 * its line names and from its own, never the other way round.  A new module needs a line here first.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { describe, expect, test } from 'vitest';
import { findPackageRoot } from '../src/package-root.ts';
import { splitStatements } from '../src/sql-statements.ts';

const root = findPackageRoot();

/** A layer is a folder, or the modules of src/ that its line names. Top first. */
const MAY_IMPORT: Record<string, string[]> = {
  cli: ['commands', 'package-root', 'errors'],
  commands: [
    'controller',
    'libraries',
    'catalog',
    'log',
    'migrate',
    'embedded',
    'connection',
    'sql-statements',
    'observation',
    'sdk',
    'errors',
    'clock',
  ],
  controller: [
    'node',
    'libraries',
    'hosts',
    'doorbell',
    'sessions',
    'events',
    'orders',
    'observation',
    'errors',
    'clock',
    'vigil',
    'frontier',
    'alarm',
  ],
  node: ['standby', 'catalog', 'libraries', 'lease', 'sessions', 'orders', 'observation', 'errors', 'clock'],
  standby: ['catalog', 'orders', 'observation', 'errors', 'clock'],
  libraries: ['hosts', 'sdk', 'orders', 'observation', 'errors'],
  hosts: ['sessions', 'sdk', 'events', 'orders', 'observation', 'errors', 'clock', 'alarm'],
  doorbell: ['observation', 'errors', 'clock'],
  lease: ['clock'],
  vigil: ['clock'],
  frontier: ['clock'],
  catalog: ['sessions', 'sdk', 'orders', 'errors', 'clock'],
  sessions: ['orders', 'sql-statements', 'observation', 'errors', 'clock'],
  events: ['log', 'orders', 'observation', 'errors', 'clock'],
  log: ['observation', 'errors'],
  orders: ['observation', 'errors', 'clock'],
  observation: ['errors'],
  migrate: ['package-root', 'sql-statements', 'errors'],
  embedded: ['errors'],
  connection: ['errors'],
  index: ['sdk'],
  workers: ['sdk'],
  sdk: ['errors', 'clock'],
  'sql-statements': [],
  'package-root': [],
  errors: [],
  alarm: ['clock'],
  clock: [],
};

/** Files of a layer that is not simply the folder or the file of its name. */
const LAYER_OF: Record<string, string> = {
  'migration-files': 'migrate',
  'migration-history': 'migrate',
  'sql-layer': 'migrate',
};

interface Module {
  /** Below src/, without .ts. */
  name: string;
  text: string;
  imports: string[];
}

const modules: Module[] = filesBelow('src', '.ts').map((path) => {
  const text = readFileSync(join(root, path), 'utf8');
  const imports = [...text.matchAll(/\b(?:from|import) '(?<target>\.[^']+)'/g)].map(({ groups }) =>
    moduleName(join(dirname(path), groups?.['target'] ?? '')),
  );
  return { name: moduleName(path), text, imports };
});

function filesBelow(directory: string, extension: string): string[] {
  return readdirSync(join(root, directory), { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith(extension))
    .map((path) => join(directory, path))
    .toSorted();
}

function moduleName(path: string): string {
  return relative('src', path).replace(/\.ts$/, '');
}

function layerOf(name: string): string {
  return LAYER_OF[name] ?? name.split('/')[0] ?? name;
}

describe('src/', () => {
  test.each(modules)('$name imports only what its layer may', ({ name, imports }) => {
    const layer = layerOf(name);
    expect(Object.keys(MAY_IMPORT)).toContain(layer);
    const allowed = [layer, ...(MAY_IMPORT[layer] ?? [])];
    expect(imports.filter((target) => !allowed.includes(layerOf(target)))).toEqual([]);
  });

  test('dependence goes one way', () => {
    const order = Object.keys(MAY_IMPORT);
    const upward = order.flatMap((layer, place) =>
      (MAY_IMPORT[layer] ?? []).filter((below) => order.indexOf(below) <= place).map((below) => `${layer} -> ${below}`),
    );
    expect(upward).toEqual([]);
  });

  test('every layer exists, and imports what its line names', () => {
    const used = (layer: string): string[] =>
      modules
        .filter(({ name }) => layerOf(name) === layer)
        .flatMap(({ imports }) => imports.map((target) => layerOf(target)));
    const unused = Object.entries(MAY_IMPORT).flatMap(([layer, below]) =>
      below.filter((target) => !used(layer).includes(target)).map((target) => `${layer} -> ${target}`),
    );
    expect(unused).toEqual([]);
    expect(Object.keys(MAY_IMPORT).filter((layer) => !modules.some(({ name }) => layerOf(name) === layer))).toEqual([]);
  });

  test('ARCHITECTURE.md has the same table', () => {
    const text = readFileSync(join(root, 'ARCHITECTURE.md'), 'utf8');
    const rows = [...text.matchAll(/^\| `(?<layer>[a-z-]+)` \| (?<below>[^|]*) \|/gm)].map(({ groups }) => [
      groups?.['layer'],
      [...(groups?.['below'] ?? '').matchAll(/`([a-z-]+)`/g)].map(([, below]) => below),
    ]);
    expect(rows).toEqual(Object.entries(MAY_IMPORT));
  });

  test('workers know the SDK as a user does: by its index', () => {
    const others = modules
      .filter(({ name }) => name.startsWith('workers/'))
      .flatMap(({ imports }) =>
        imports.filter((target) => target !== 'sdk/index' && !target.startsWith('workers/parts/')),
      );
    expect(others).toEqual([]);
  });

  /** Where SQL text may stand, and why. */
  const WITH_SQL = [
    'catalog', // the calls of sql/control
    'doorbell', // LISTEN
    /^sessions\//, // reset, identity
    /^sdk\/spi/, // transactions of a TypeScript worker
    'sdk/worker-set', // launches on behalf of a worker, as its user would
    /^workers\//, // workers are written as a user's are
    'migrate',
    'migration-history', // its first part
    'sql-layer', // its second half
    'embedded/pidfile', // which server answers at that port
    'commands/connect', // SET
    'commands/sql',
    'commands/status', // views only
    'commands/import-pg-cron', // from the tables of pg_cron to the views of sql/cron
  ];
  const SQL_TEXT =
    /['`]\s*(SELECT|INSERT INTO|UPDATE|DELETE FROM|WITH|BEGIN|COMMIT|ROLLBACK|SET|DISCARD|LISTEN|NOTIFY|CALL|CREATE|DROP|ALTER|LOCK)\b/;

  test('SQL text stands in few modules', () => {
    const allowed = ({ name }: Module): boolean =>
      WITH_SQL.some((place) => (typeof place === 'string' ? place === name : place.test(name)));
    const others = modules.filter((module) => !allowed(module) && SQL_TEXT.test(withoutComments(module.text)));
    expect(others.map(({ name }) => name)).toEqual([]);
  });

  test('commands/status reads views only', () => {
    const { text = '' } = modules.find(({ name }) => name === 'commands/status') ?? {};
    const sources = [...text.matchAll(/\b(?:FROM|JOIN) (?<source>[\w.]+)/g)].map(({ groups }) => groups?.['source']);
    expect([...new Set(sources)]).toEqual(['public.bgw_nodes', 'public.bgw_stat_activity', 'public.bgw_stat_standby']);
  });

  test('no file has more than 300 lines', () => {
    const long = modules.filter(({ text }) => text.trimEnd().split('\n').length > 300);
    expect(long.map(({ name }) => name)).toEqual([]);
  });
});

function withoutComments(text: string): string {
  return text.replace(/\/\*.*?\*\//gs, '').replace(/(^|\s)\/\/[^\n]*/g, '$1');
}

describe('sql/', () => {
  /** What calls what, by folder. doorbell.sql is its own. */
  const MAY_CALL: Record<string, string[]> = {
    workers: ['api'],
    api: ['doorbell', 'compute', 'lookup'],
    control: ['doorbell', 'compute', 'lookup'],
    views: ['compute', 'lookup'],
    cron: ['api', 'compute', 'lookup'],
    lookup: ['compute'],
    compute: [],
    doorbell: [],
  };
  /** The rest, each by name: nothing is added here without a reason. */
  const EXCEPTIONS: Record<string, string[]> = {
    // As if the owner of the library had called them.
    'control/define_library.sql': [
      'public.bgw_define_setting',
      'public.bgw_mark_guc_prefix_reserved',
      'public.bgw_register',
    ],
    // The first node does for autostart workers what their registration does.
    'control/join_node.sql': ['bgw.autostart'],
  };
  /** units.sql is one table of units and PostgreSQL's number syntax; the limit of its functions is in sql-guards.test.ts. */
  const LONG = ['compute/units.sql'];

  const files = filesBelow('sql', '.sql').map((path) => {
    const statements = splitStatements(readFileSync(join(root, path), 'utf8'));
    const created = statements.flatMap(
      ({ text }) => /^CREATE OR REPLACE (?:FUNCTION|PROCEDURE) (\w+\.\w+)/.exec(text)?.[1] ?? [],
    );
    const code = statements
      .filter(({ text }) => !/^(COMMENT|GRANT|REVOKE|DROP)/.test(text))
      .map(({ text }) => codeOf(text))
      .join('\n');
    return { path: relative('sql', path), folder: relative('sql', path).replace(/[/.].*/, ''), created, code };
  });
  const homes = new Map(
    files.flatMap(({ folder, path, created }) => created.map((name) => [name, { folder, path }] as const)),
  );

  /** Without comments and without the texts of messages, hints and commands of workers. */
  function codeOf(text: string): string {
    return text.replace(/--[^\n]*/g, '').replace(/'(?:[^']|'')*'/g, "''");
  }

  test.each(files)('$path calls only what its folder may', ({ path, folder, code }) => {
    const allowed = MAY_CALL[folder] ?? [];
    const called = [...new Set([...code.matchAll(/\b(?:bgw|public)\.\w+(?=\()/g)].map(([name]) => name))];
    const others = called.filter((name) => {
      const home = homes.get(name);
      return home !== undefined && home.folder !== folder && !allowed.includes(home.folder);
    });
    expect(others.toSorted()).toEqual(EXCEPTIONS[path] ?? []);
  });

  test('compute touches no table of ours: rows come to it as arguments', () => {
    const compute = files.filter(({ folder }) => folder === 'compute');
    expect(
      compute.filter(({ code }) => /\b(FROM|JOIN|INTO|UPDATE) bgw\.\w+(?![\w(])/.test(code)).map(({ path }) => path),
    ).toEqual([]);
  });

  test('nothing reads a view: they are for users', () => {
    const views = /\bbgw_(stat_activity|run_history|log|settings|nodes)\b/;
    const readers = files.filter(
      ({ path, code }) => path !== 'retired.sql' && views.test(code.replace(/CREATE OR REPLACE VIEW public\.\w+/g, '')),
    );
    expect(readers.map(({ path }) => path)).toEqual([]);
  });

  test('no file has more than 300 lines', () => {
    const long = filesBelow('sql', '.sql').filter(
      (path) => readFileSync(join(root, path), 'utf8').trimEnd().split('\n').length > 300,
    );
    expect(long.map((path) => relative('sql', path))).toEqual(LONG);
  });
});
