/**
 * mongres: a worker that is a server.  It listens on a port, speaks as much of the MongoDB wire protocol as the official driver
 * needs for everyday work, and keeps documents as jsonb in mongres.document.  Commands of all clients are worked off one at a
 * time, each in one transaction.  What it does not know it refuses, with MongoDB's codes.
 * Try: see README.md beside this file.
 */
import { defineLibrary, BgwError } from 'pg-bgworker';
import { runCommand } from './parts/commands.mjs';
import { listen } from './parts/server.mjs';
import { install } from './parts/store.mjs';

let port;
let listenAddress;

export default defineLibrary('mongres', (init) => {
  port = init.defineIntVariable('mongres.port', {
    boot: 27_017,
    min: 0,
    max: 65_535,
    context: 'postmaster',
    description: 'Port to listen on; 0: any that is free, which is logged.',
  });
  listenAddress = init.defineStringVariable('mongres.listen_address', {
    boot: 'localhost',
    context: 'postmaster',
    description: 'Address to listen on.',
  });
  init.registerWorker({ name: 'mongres', function: main, restartTime: 10, restartTimeMax: 600, maxInstances: 1 });
});

export async function main(bgw) {
  await bgw.transaction(install);
  let queue = Promise.resolve();
  const server = await listen({
    port: bgw.guc(port),
    host: bgw.guc(listenAddress),
    answer: (command, connection) => {
      const answered = queue.then(() => runCommand(bgw, command, connection));
      queue = answered.catch(() => undefined);
      return answered;
    },
  }).catch((error) => {
    throw new BgwError('08001', {
      message: `mongres cannot listen: ${error.message}`,
      hint: 'See mongres.port and mongres.listen_address.',
    });
  });
  bgw.onExit(() => server.close());
  bgw.log(`listening on ${server.address}`);
  bgw.reportActivity('idle', `listening on ${server.address}`);
  while (!bgw.shutdownRequested) if ((await bgw.latch.wait()).postmasterDeath) return;
}
