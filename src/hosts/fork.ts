/** Forks the processes in which code of users runs, with nothing of the controller's environment that is secret. */
import { type ChildProcess, fork, type StdioOptions } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** In a clone the sources run as they are; in the package they are compiled. */
const isSource = import.meta.url.endsWith('.ts');

/** process.title can be as long as the arguments were: room for "bgworker: " and a name of 63 bytes. */
const ROOM_FOR_TITLE = 'bgworker'.padEnd(80, '-');

/** A process for one worker: src/sdk/main.ts. */
export function forkWorkerProcess(): ChildProcess {
  return forkEntry('main', ['ignore', 'pipe', 'pipe', 'ipc']);
}

/** A process for the threads of many: src/sdk/shared-memory-main.ts. What Node.js itself says when it dies stands beside the controller's log. */
export function forkSharedMemoryHost(): ChildProcess {
  return forkEntry('shared-memory-main', ['ignore', 'ignore', 'inherit', 'ipc']);
}

function forkEntry(module: string, stdio: StdioOptions): ChildProcess {
  const entry = new URL(`../sdk/${module}.${isSource ? 'ts' : 'js'}`, import.meta.url);
  return fork(fileURLToPath(entry), [ROOM_FOR_TITLE], {
    execArgv: isSource ? ['--import', 'tsx'] : [],
    env: publicEnvironment(),
    serialization: 'advanced',
    stdio,
    // A Ctrl-C in the terminal is for the controller, which tells its workers.
    detached: true,
  });
}

/**
 * The environment of the controller without what connects it: a worker has the login of its owner only (HARDENING A8).
 * Where the password file is, its sessions have to know as it has ~/.pgpass.
 */
function publicEnvironment(): NodeJS.ProcessEnv {
  return Object.fromEntries(
    Object.entries(process.env).filter(
      ([name]) => name !== 'DATABASE_URL' && !/^(PG(?!PASSFILE$)|BGW_|NODE_CHANNEL)/.test(name),
    ),
  );
}
