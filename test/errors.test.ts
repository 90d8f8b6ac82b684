/**
 * Every error that a user can meet is in docs/errors.md: the SQLSTATEs of class WK, which are ours, and PostgreSQL's own
 * that we raise.  A number of ours is never reused, so a retired one stays listed in both tables.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { OWN_SQLSTATES } from '../src/errors.ts';
import { findPackageRoot } from '../src/package-root.ts';

const root = findPackageRoot();
const manual = readFileSync(join(root, 'docs', 'errors.md'), 'utf8');
const sql = textsBelow('sql', '.sql');
const source = textsBelow('src', '.ts');

/** Codes in the first column of the tables of docs/errors.md, with the condition name of PostgreSQL's own. */
const listed = [...manual.matchAll(/^\| `(?<code>[0-9A-Z]{5})` \|(?: `(?<condition>[a-z_]+)` \|)?/gm)].map(
  ({ groups }) => groups as { code: string; condition?: string },
);

function textsBelow(directory: string, extension: string): { path: string; text: string }[] {
  return readdirSync(join(root, directory), { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith(extension))
    .map((path) => ({ path: `${directory}/${path}`, text: readFileSync(join(root, directory, path), 'utf8') }));
}

function matches(files: { text: string }[], pattern: RegExp): string[] {
  return [
    ...new Set(files.flatMap(({ text }) => [...text.matchAll(pattern)].map(([, found = '']) => found))),
  ].toSorted();
}

function own(codes: string[]): string[] {
  return codes.filter((code) => code.startsWith('WK')).toSorted();
}

const raisedInSql = matches(sql, /ERRCODE = '(WK\d{3})'/g);
const thrownInSource = matches(source, /new BgwError\([^'({]*'(WK\d{3})'/g);

describe('SQLSTATEs of class WK', () => {
  const table = Object.keys(OWN_SQLSTATES).toSorted();

  test('the table in src/errors.ts has each that is raised, and no other', () => {
    expect([...new Set([...raisedInSql, ...thrownInSource])].toSorted()).toEqual(table);
  });

  test('docs/errors.md has each of the table, once', () => {
    expect(own(listed.map(({ code }) => code))).toEqual(table);
  });

  test.each(table)('docs/errors.md says where %s is raised', (code) => {
    const line = manual.split('\n').find((text) => text.startsWith(`| \`${code}\``)) ?? '';
    const raisedBy = [...sql, ...source]
      .filter(({ text }) => new RegExp(`(ERRCODE = |new BgwError\\([^'({]*)'${code}'`).test(text))
      .map(({ path }) => path);
    expect(raisedBy.filter((path) => !line.includes(`(../${path})`))).toEqual([]);
  });

  test('every code that is compared with is one of the table', () => {
    expect(matches([...sql, ...source], /\b(WK\d{3})\b/g)).toEqual(table);
  });
});

describe("PostgreSQL's own SQLSTATEs", () => {
  const theirs = listed.filter(({ code }) => !code.startsWith('WK'));

  test('docs/errors.md has the name of every condition that sql/ raises', () => {
    const raised = matches(sql, /ERRCODE = '([a-z_]+)'/g);
    expect(raised.filter((condition) => !theirs.some((row) => row.condition === condition))).toEqual([]);
  });

  test('docs/errors.md has every code that src/ throws', () => {
    const thrown = matches(source, /new BgwError\([^'({]*'([0-9A-Z]{5})'/g).filter((code) => !code.startsWith('WK'));
    expect(thrown.filter((code) => !theirs.some((row) => row.code === code))).toEqual([]);
  });

  test('docs/errors.md has no code twice', () => {
    const codes = theirs.map(({ code }) => code);
    expect(codes).toEqual([...new Set(codes)]);
  });
});
