/** hello_signal: says which signal it processed. Try: SELECT bgw_launch('hello_signal'), then bgw_signal(handle, 'SIGHUP'). */
import { defineLibrary, type Worker } from '../sdk/index.ts';

export default defineLibrary('hello_signal', (init) => {
  init.registerWorker({
    name: 'hello_signal',
    function: main,
    flags: [],
    startTime: 'postmaster_start',
    restartTime: 10,
  });
});

export async function main(bgw: Worker): Promise<void> {
  bgw.on('SIGHUP', () => bgw.log('hello signal: processed SIGHUP'));
  bgw.on('SIGTERM', () => bgw.log('hello signal: processed SIGTERM'));
  await bgw.mainLoop({ naptime: 1000 }, async () => {});
}
