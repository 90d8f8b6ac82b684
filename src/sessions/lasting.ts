/**
 * How the sessions of a node are opened, so that they last while they are idle, and not longer than their other end is there
 * (HARDENING B8).  Startup options survive DISCARD ALL, and come before the defaults of role and database (57P05).
 */
import type { ClientConfig } from 'pg';

/** The node asks after ten seconds of silence whether the server is there, and after ten more takes it for lost. */
const PROBING = { keepAlive: true, keepAliveInitialDelayMillis: 10_000 };
/** What has not answered by then is tried again, unless connect_timeout says otherwise. */
const ANSWERING = { connectionTimeoutMillis: 10_000 };

/** The server asks as well: an idle session whose node is gone is closed after 25 seconds. */
export const LASTING = {
  tcp_user_timeout: '10s',
  tcp_keepalives_idle: '10',
  tcp_keepalives_interval: '5',
  tcp_keepalives_count: '3',
};
export const LASTING_SINCE_14 = { idle_session_timeout: '0', client_connection_check_interval: '5s' };
/** A worker runs as who has logged in: under a role that is set for its database RESET ROLE would give that one's text more (HARDENING A1). */
const OWN_ROLE = { role: 'none' };

/** A connection that notices when there is nobody at its other end. */
export function probingConnection(connection: ClientConfig): ClientConfig {
  return { ...ANSWERING, ...connection, ...PROBING };
}

/** The connection of a session that waits, such as that of the doorbell. */
export function lastingConnection(connection: ClientConfig, serverVersion: number): ClientConfig {
  const settings = { ...OWN_ROLE, ...LASTING, ...(serverVersion >= 140_000 ? LASTING_SINCE_14 : {}) };
  return withOptions(probingConnection(connection), settings);
}

/** The connection of a session of a worker: what it says, LOG messages too, reaches the controller. */
export function workerConnection(connection: ClientConfig, serverVersion: number): ClientConfig {
  return withOptions(lastingConnection(connection, serverVersion), { client_min_messages: 'log' });
}

function withOptions(connection: ClientConfig, settings: Record<string, string>): ClientConfig {
  const options = Object.entries(settings).map(([name, value]) => `-c ${name}=${value}`);
  return { ...connection, options: [connection.options, ...options].filter(Boolean).join(' ') };
}
