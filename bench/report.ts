/** Where results are shown: between two comments of a file of the repository. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { findPackageRoot } from '../src/package-root.ts';

export function writeBetween(file: string, mark: string, report: string): void {
  const path = join(findPackageRoot(), file);
  const text = readFileSync(path, 'utf8').replace(
    new RegExp(`(<!-- ${mark}:begin -->)[\\s\\S]*(<!-- ${mark}:end -->)`),
    (_all, begin: string, end: string) => `${begin}\n\n${report}\n${end}`,
  );
  writeFileSync(path, text);
}
