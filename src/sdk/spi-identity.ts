/**
 * What a session of a worker has from its start, its name and its handle, for one that was opened before there was the
 * worker (prepared-session.ts).  RESET and DISCARD take it back: then it is set again.
 */
import type { Client } from 'pg';

export interface Identity {
  applicationName: string;
  handle: string;
}

/** Of a session that is nobody's yet. */
export const SPARE_NAME = 'bgw spare';

const identities = new WeakMap<Client, Identity>();

/** The session is that worker's, and goes by that name, from now on. */
export async function identify(client: Client, identity: Identity): Promise<void> {
  if (identities.get(client)?.applicationName === identity.applicationName) return;
  identities.set(client, identity);
  const applicationName = client.escapeLiteral(identity.applicationName);
  await client.query(
    `SET application_name TO ${applicationName}; SET bgw.handle TO ${client.escapeLiteral(identity.handle)}`,
  );
}

/** After a command of this tag. What the worker itself has set stays. */
export async function identifyAgain(client: Client, tag: string): Promise<void> {
  const identity = identities.get(client);
  if (!identity || (tag !== 'RESET' && tag !== 'DISCARD')) return;
  await client.query(
    `SELECT pg_catalog.set_config(given.name, given.value, false)
     FROM (VALUES ('application_name', $1, '${SPARE_NAME}'), ('bgw.handle', $2, '')) AS given (name, value, unset)
     WHERE coalesce(pg_catalog.current_setting(given.name, true), '') = given.unset`,
    [identity.applicationName, identity.handle],
  );
}
