/**
 * Renews the headers of the committed migrations, for the time before a first release when they are still edited.
 * With --check it changes nothing and fails if a header is not right.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { migrationHash, migrationNames, parseMigration, readMigrations } from '../src/migration-files.ts';
import { findPackageRoot } from '../src/package-root.ts';

const { values, positionals } = parseArgs({
  options: { check: { type: 'boolean', default: false } },
  allowPositionals: true,
});
const own = ['committed', 'cron'].map((name) => join(findPackageRoot(), 'migrations', name));

for (const directory of positionals.length > 0 ? positionals : own) {
  if (values.check) readMigrations(directory);
  else renewHeaders(directory);
}

function renewHeaders(directory: string): void {
  let previous: string | undefined;
  for (const name of migrationNames(directory)) {
    const path = join(directory, name);
    const text = readFileSync(path, 'utf8');
    const hash = migrationHash(parseMigration(name, text).body, previous);
    const renewed = text
      .replace(/^--! Previous: .*$/m, `--! Previous: ${previous ?? '-'}`)
      .replace(/^--! Hash: .*$/m, `--! Hash: ${hash}`);
    if (renewed !== text) {
      writeFileSync(path, renewed);
      console.log(`${name} ${hash}`);
    }
    previous = hash;
  }
}
