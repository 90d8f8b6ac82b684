/** Forks the process in which code of users runs: src/sdk/main.ts, with nothing of the controller's environment that is secret. */
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** In a clone the sources run as they are; in the package they are compiled. */
const isSource = import.meta.url.endsWith('.ts');
const ENTRY = fileURLToPath(new URL(isSource ? '../sdk/main.ts' : '../sdk/main.js', import.meta.url));

/** process.title can be as long as the arguments were: room for "bgworker: " and a name of 63 bytes. */
const ROOM_FOR_TITLE = 'bgworker'.padEnd(80, '-');

export function forkWorkerProcess(): ChildProcess {
  return fork(ENTRY, [ROOM_FOR_TITLE], {
    execArgv: isSource ? ['--import', 'tsx'] : [],
    env: publicEnvironment(),
    serialization: 'advanced',
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    // A Ctrl-C in the terminal is for the controller, which tells its workers.
    detached: true,
  });
}

/** The environment of the controller without what connects it: a worker has the login of its owner only (HARDENING A8). */
function publicEnvironment(): NodeJS.ProcessEnv {
  return Object.fromEntries(
    Object.entries(process.env).filter(([name]) => name !== 'DATABASE_URL' && !/^(PG|BGW_|NODE_CHANNEL)/.test(name)),
  );
}
