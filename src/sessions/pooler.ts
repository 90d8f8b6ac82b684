/** Behind a pooler the backend that the protocol names is not the one that answers: nothing could be cancelled there. */
import type pg from 'pg';
import { BgwError } from '../errors.ts';

/** Returns the pid of the backend, which has answered as `pid`. Errors: WK203 it is another one than the protocol names. */
export function checkBackend(client: pg.Client, pid: number | undefined): number {
  const { processID } = client as pg.Client & { processID: number | null };
  if (pid !== undefined && pid === processID) return pid;
  throw new BgwError('WK203', {
    message: 'cannot work through a connection pooler',
    detail: `The protocol names backend ${processID}, the server answers as ${pid}.`,
    hint: 'Point the controller at the server itself.  Clients that launch workers may use the pooler.',
  });
}
