/**
 * The committed migrations as graphile-migrate writes them: files NNNNNN-name.sql, each with a header that holds its
 * own hash and that of the file before it.  An edited, missing or reordered file breaks the chain.
 */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { BgwError } from './errors.ts';

export interface Migration {
  id: number;
  /** The file name. */
  name: string;
  hash: string;
  body: string;
}

/** Line 1 and 2 of a committed migration; further `--! Key: value` lines may follow, then an empty one. */
const HEADER = /^--! Previous: (?<previous>\S+)\n--! Hash: (?<hash>\S+)\n(?:--! [^\n]*\n)*\n/;

/** Reads all committed migrations in order. Throws WK302 if a file is not what its header says. */
export function readMigrations(directory: string): Migration[] {
  let previous: string | undefined;
  return migrationNames(directory).map((name, index) => {
    const id = Number(name.slice(0, 6));
    if (id !== index + 1) throw broken(name, `Migration number ${index + 1} is missing.`);
    const { headers, body } = parseMigration(name, readFileSync(join(directory, name), 'utf8'));
    if (headers.previous !== previous) throw broken(name, 'It does not follow the migration before it.');
    const hash = migrationHash(body, previous);
    if (headers.hash !== hash) throw broken(name, `Its header says ${headers.hash}, its text has ${hash}.`);
    previous = hash;
    return { id, name, hash, body };
  });
}

export function migrationNames(directory: string): string[] {
  return readdirSync(directory)
    .filter((name) => /^\d{6}.*\.sql$/.test(name))
    .toSorted();
}

export function parseMigration(
  name: string,
  text: string,
): { headers: { previous: string | undefined; hash: string }; body: string } {
  const match = HEADER.exec(text);
  if (match === null) throw broken(name, 'It has no header with "Previous" and "Hash" and an empty line after it.');
  const { previous, hash } = match.groups as { previous: string; hash: string };
  return {
    headers: { previous: previous === '-' ? undefined : previous, hash },
    body: `${text.slice(match[0].length).trim()}\n`,
  };
}

/** graphile-migrate's calculateHash: its `commit` and `migrate` must agree with us. */
export function migrationHash(body: string, previous: string | undefined): string {
  const chained = `${`${previous ?? ''}\n${body.trim()}`.trim()}\n`;
  return `sha1:${createHash('sha1').update(chained).digest('hex')}`;
}

function broken(name: string, detail: string): BgwError {
  return new BgwError('WK302', {
    message: `migration "${name}" is not as it was committed`,
    detail,
    hint: 'Restore the file.  While a migration is still being written, "npm run hash-migrations" renews its header.',
  });
}
