/** Ends a connection, politely if it answers: of one that is half dead nobody may wait for ever. */
import type { Duplex } from 'node:stream';
import type pg from 'pg';

/** A server that is there takes a goodbye at once. */
const POLITE_FOR = 2000;

/** Resolves when the connection is closed. Never rejects. */
export async function endClient(client: pg.Client): Promise<void> {
  const timer = setTimeout(() => streamOf(client).destroy(), POLITE_FOR);
  await client.end().catch(() => undefined);
  clearTimeout(timer);
}

export function streamOf(client: pg.Client): Duplex {
  return (client as pg.Client & { connection: { stream: Duplex } }).connection.stream;
}
