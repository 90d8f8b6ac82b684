/** Where results are shown: between two comments of a file of the repository. */
import { readFileSync, writeFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { join } from 'node:path';
import { root } from './support.ts';

export function writeBetween(file: string, mark: string, report: string): void {
  const path = join(root, file);
  const text = readFileSync(path, 'utf8').replace(
    new RegExp(`(<!-- ${mark}:begin -->)[\\s\\S]*(<!-- ${mark}:end -->)`),
    (_all, begin: string, end: string) => `${begin}\n\n${report}\n${end}`,
  );
  writeFileSync(path, text);
}

export function machine(serverVersion: string): string {
  const [cpu] = cpus();
  const memory = Math.round(totalmem() / 2 ** 30);
  return `PostgreSQL ${serverVersion}, Node.js ${process.versions.node}, ${cpus().length} x ${cpu?.model.trim()}, ${memory} GB; fsync and synchronous_commit on; loopback`;
}

/** Of the programs that bench/node_modules has. */
export function peerVersions(): string {
  const { dependencies } = JSON.parse(readFileSync(join(root, 'bench', 'package.json'), 'utf8')) as {
    dependencies: Record<string, string>;
  };
  const peers = ['graphile-worker', 'pg-boss'].map((name) => `${name} ${dependencies[name]}`);
  return `${peers.join(' and ')} on Node.js ${dependencies['node']}`;
}
