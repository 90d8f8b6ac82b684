/**
 * pg, as the process of a worker loads it: it starts anew for each worker, so milliseconds count (bench/NOTES.md).
 * Required rather than imported, which would have Node.js parse each of its modules for names.
 */
import { createRequire } from 'node:module';
import type Pg from 'pg';

const pg: typeof Pg = loadPg();
export default pg;

/**
 * pg wants to know whether it runs at Cloudflare: it asks `navigator`, and where there is none, as in Node.js 20, it makes
 * a Response, for which Node.js loads its whole HTTP client.  So there is one while pg is loaded.
 */
function loadPg(): typeof Pg {
  const isLacking = !('navigator' in globalThis);
  if (isLacking)
    Object.defineProperty(globalThis, 'navigator', { value: { userAgent: 'Node.js' }, configurable: true });
  try {
    return createRequire(import.meta.url)('pg') as typeof Pg;
  } finally {
    if (isLacking) Reflect.deleteProperty(globalThis, 'navigator');
  }
}
