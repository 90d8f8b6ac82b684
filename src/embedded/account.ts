/**
 * The account that a private server runs as. PostgreSQL refuses to run as root, so where we are root the programs are
 * started as an unprivileged user; everywhere else as ourselves.
 */
import { execFileSync, spawn } from 'node:child_process';
import { chownSync, statSync } from 'node:fs';
import { BgwError } from '../errors.ts';

/** Runs server programs under one account, all in the same directory. */
export interface Account {
  run(program: string, args: string[]): Promise<{ code: number | null; output: string }>;
  /** Makes a file or directory belong to the account. */
  own(path: string): void;
}

interface Identity {
  uid?: number;
  gid?: number;
  /** What stands before the program: setpriv, where the account could not reach its files otherwise. */
  prefix: string[];
}

/** Chooses the account for a server in `stateDir`: the owner of `dataDir` if it exists, else one that can be used. */
export async function serverAccount(programs: string, stateDir: string, dataDir: string): Promise<Account> {
  if (process.getuid?.() !== 0) return account({ prefix: [] }, stateDir);
  const user = ownerOf(dataDir) ?? lookUp('postgres') ?? lookUp('nobody');
  if (user === undefined) {
    throw new BgwError('42704', {
      message: 'there is no unprivileged user to run the server as',
      hint: 'Create one ("useradd postgres"), or run this as a user other than root.',
    });
  }
  const { uid, gid } = user;
  for (const identity of [{ uid, gid, prefix: [] }, { prefix: reachingEverything(uid, gid) }]) {
    const candidate = account(identity, stateDir);
    if (await canReach(candidate, programs, stateDir)) {
      return { ...candidate, own: (path): void => chownSync(path, uid, gid) };
    }
  }
  throw new BgwError('42501', {
    message: `user ${uid} cannot reach the files of the private server`,
    detail: `PostgreSQL refuses to run as root, and user ${uid} cannot enter ${stateDir} or ${programs}.`,
    hint: 'Move the project out of a private home directory, or run this as a user other than root.',
  });
}

function account(identity: Identity, directory: string): Account {
  return {
    run: async (program, args) => run([...identity.prefix, program, ...args], identity, directory),
    own: (): void => undefined,
  };
}

/**
 * In a clone under /root, say. The capability lasts for the programs started and gives no other right of root; without
 * the secure bit access(2), by which the programs look for each other, would disregard it.
 */
function reachingEverything(uid: number, gid: number): string[] {
  const capability = ['--inh-caps=+dac_override', '--ambient-caps=+dac_override', '--securebits=+no_setuid_fixup'];
  return ['setpriv', `--reuid=${uid}`, `--regid=${gid}`, '--clear-groups', ...capability, '--'];
}

async function canReach({ run: execute }: Account, programs: string, stateDir: string): Promise<boolean> {
  const script = 'cd "$1" && [ -x "$2/postgres" ] && "$2/postgres" --version';
  const { code } = await execute('/bin/sh', ['-c', script, 'sh', stateDir, programs]);
  return code === 0;
}

function run(
  [program = '', ...args]: string[],
  { uid, gid }: Identity,
  cwd: string,
): Promise<{ code: number | null; output: string }> {
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(PG|LC_|LANG)/.test(name)));
  return new Promise((resolve) => {
    const child = spawn(program, args, {
      cwd,
      env: { ...env, LC_ALL: 'C' },
      stdio: ['ignore', 'pipe', 'pipe'],
      // A Ctrl-C at the terminal is ours to handle; initdb and pg_ctl finish what they do.
      detached: true,
      ...(uid === undefined ? {} : { uid }),
      ...(gid === undefined ? {} : { gid }),
    });
    let output = '';
    child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
    child.stderr.on('data', (chunk: Buffer) => (output += chunk.toString()));
    child.on('error', (error) => resolve({ code: null, output: error.message }));
    child.on('close', (code) => resolve({ code, output: output.trim() }));
  });
}

function ownerOf(path: string): { uid: number; gid: number } | undefined {
  const { uid, gid } = statSync(path, { throwIfNoEntry: false }) ?? { uid: 0, gid: 0 };
  return uid === 0 ? undefined : { uid, gid };
}

function lookUp(user: string): { uid: number; gid: number } | undefined {
  try {
    const id = (flag: string): number =>
      Number(execFileSync('id', [flag, user], { stdio: ['ignore', 'pipe', 'ignore'] }));
    return { uid: id('-u'), gid: id('-g') };
  } catch {
    return undefined;
  }
}
