/** The end of a forked process, beside what it said last. */
import { fork, type StdioOptions } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { workerProcess } from '../src/hosts/worker-process.ts';
import { findPackageRoot } from '../src/package-root.ts';
import type { ToController, ToWorker } from '../src/sdk/channel.ts';
import { expect, test } from './support/controller.ts';

const fixtures = join(findPackageRoot(), 'test', 'fixtures', 'ending');
/** Of every process of a worker: see fork.ts. */
const STDIO: StdioOptions = ['ignore', 'pipe', 'pipe', 'ipc'];

function createDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'bgw-ending-'));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  return directory;
}

function forkFixture(name: string): ReturnType<typeof fork> {
  return fork(join(fixtures, name), { stdio: STDIO, serialization: 'advanced', execArgv: [] });
}

/** Holds this process up until the other one is a zombie with all of its threads: nobody has asked for its exit yet. */
function blockUntilDead(pid: number): void {
  const isZombie = (): boolean => /^\d+ \(.*\) Z/.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  while (!isZombie() || readdirSync(`/proc/${pid}/task`).length > 1);
}

test.skipIf(process.platform !== 'linux')('the last word of a process is heard before its end is seen', async () => {
  const directory = createDirectory();
  const start = (name: string): { pid: number; file: string; heard: string[] } & Started => {
    const file = join(directory, name);
    const child = forkFixture('last-word.mjs');
    const running = workerProcess(child);
    const heard: string[] = [];
    const ready = new Promise<void>((resolve) =>
      running.onMessage(({ kind }) => {
        heard.push(kind);
        resolve();
      }),
    );
    running.send({ file } as unknown as ToWorker);
    return { pid: child.pid as number, file, heard, running, ready };
  };
  const [first, second] = [start('first'), start('second')];
  await Promise.all([first.ready, second.ready]);
  // The exits of both are collected in the turn of the event loop in which the word of the first is heard.
  first.running.onMessage(() => {
    writeFileSync(second.file, '');
    blockUntilDead(second.pid);
  });
  writeFileSync(first.file, '');
  blockUntilDead(first.pid);
  expect(await second.running.ended).toEqual({ code: 1, how: undefined });
  expect(second.heard).toEqual(['started', 'failed']);
});

interface Started {
  running: ReturnType<typeof workerProcess>;
  ready: Promise<void>;
}

test('a process that leaves its channel to another one has ended', async () => {
  const running = workerProcess(forkFixture('heir.mjs'));
  const said = new Promise<ToController>((resolve) => running.onMessage(resolve));
  expect(await running.ended).toEqual({ code: 0, how: undefined });
  const { error } = (await said) as Extract<ToController, { kind: 'log' }>;
  process.kill(Number(error.message)); // it was still there
});
