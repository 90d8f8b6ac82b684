/**
 * What lies between a node and the server in a test: connections that go through it can be lost as a network loses them, one
 * end hears of it and the other does not.
 */
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { onTestFinished } from 'vitest';

export interface Proxy {
  /** The URL of the server, through this. */
  url: string;
  /** Ends the connections of clients of that application name; the server does not notice. Returns how many there were. */
  cut(applicationName: string): number;
  /** What the server says to clients of that application name does not reach them from now on. */
  hold(applicationName: string): void;
  /** Nothing gets through any more, and nobody hears of it. */
  freeze(): void;
  /** The next connection that is opened gets no answer.  Resolves when it is there. */
  muteNext(): Promise<void>;
  /** Ends every connection on both sides, and takes no new ones. */
  close(): void;
}

/** Closed at the end of the test. */
export async function startProxy(url: string): Promise<Proxy> {
  const server = new URL(url);
  const names = new Map<Socket, string>();
  const ends = new Set<Socket>();
  let muted: (() => void) | undefined;
  let isFrozen = false;
  let held: string | undefined;
  const isOf = (client: Socket, name: string): boolean =>
    names.get(client)?.includes(`application_name\0${name}\0`) ?? false;
  const listener = createServer((client) => {
    if (muted) {
      ends.add(client.on('error', () => undefined));
      muted();
      muted = undefined;
      return;
    }
    const upstream = connect(Number(server.port), server.hostname);
    for (const end of [client, upstream]) {
      ends.add(end);
      end.on('error', () => undefined);
    }
    client.once('data', (startup) => names.set(client, startup.toString('latin1')));
    client.on('data', (data) => isFrozen || upstream.write(data));
    upstream.on('data', (data) => {
      if (!isFrozen && !(held !== undefined && isOf(client, held))) client.write(data);
    });
    client.on('end', () => upstream.end());
    upstream.on('close', () => client.destroy());
  }).listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const location = new URL(url);
  location.hostname = '127.0.0.1';
  location.port = String((listener.address() as AddressInfo).port);
  const close = (): void => {
    for (const end of ends) end.destroy();
    listener.close();
  };
  onTestFinished(close);
  return {
    url: location.href,
    cut: (applicationName) => {
      const found = [...names.keys()].filter((client) => isOf(client, applicationName));
      for (const client of found) {
        names.delete(client);
        client.destroy();
      }
      return found.length;
    },
    hold: (applicationName) => (held = applicationName),
    freeze: () => (isFrozen = true),
    muteNext: () => new Promise((resolve) => (muted = resolve)),
    close,
  };
}
