/**
 * Where the servers of tests keep their data: in memory, where there is room.  Each test has a database, and so creates some
 * four hundred files and deletes them; ext4 passes over every file deleted in the last minute before it makes another one.
 */
import { mkdtempSync, statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const MEMORY = '/dev/shm';
/** Bytes; a run of all tests was seen to take 0.5 GB. */
const ENOUGH = 4 * 1024 ** 3;

/** A new directory, to be removed by the caller. */
export function createDirectory(prefix: string): string {
  return mkdtempSync(join(hasRoom() ? MEMORY : tmpdir(), prefix));
}

function hasRoom(): boolean {
  try {
    const { bavail, bsize } = statfsSync(MEMORY);
    return bavail * bsize > ENOUGH && process.availableMemory() > ENOUGH;
  } catch {
    return false; // not Linux
  }
}
