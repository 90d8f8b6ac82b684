/**
 * The process's own signals. The first SIGINT, SIGTERM or SIGHUP asks for an orderly stop, a second one ends the process
 * at once: whoever presses Ctrl-C twice does not want to wait for a worker.
 */
import { constants } from 'node:os';

const STOP_SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** An AbortSignal for the orderly stop; `onStop` is called when it is asked for. */
export function stopOnSignal(onStop: (signal: NodeJS.Signals) => void): AbortSignal {
  const controller = new AbortController();
  for (const name of STOP_SIGNALS) {
    process.on(name, () => {
      if (controller.signal.aborted) process.exit(128 + constants.signals[name]);
      onStop(name);
      controller.abort();
    });
  }
  return controller.signal;
}
