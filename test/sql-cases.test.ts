/** Runs every test/sql/*.cases.sql: one SELECT with the columns case, got, want; each row must agree. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { test } from './support/database.ts';

const directory = join(import.meta.dirname, 'sql');

for (const file of readdirSync(directory)
  .filter((name) => name.endsWith('.cases.sql'))
  .toSorted()) {
  test(`every case of ${file} gets what it wants`, async ({ db }) => {
    const { rows } = await db.query(readFileSync(join(directory, file), 'utf8'));
    expect(rows.length).toBeGreaterThan(0);
    expect(Object.keys(rows[0])).toEqual(['case', 'got', 'want']);
    expect(rows.map((row) => ({ case: row.case, is: row.got }))).toEqual(
      rows.map((row) => ({ case: row.case, is: row.want })),
    );
  });
}
