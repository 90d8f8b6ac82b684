/**
 * Startup options of the sessions of a node.  What is set there survives DISCARD ALL, and comes before the defaults of role and
 * database: an idle session is not closed (57P05), and one whose other end is gone does not stay (HARDENING B8).
 */
import type { ClientConfig } from 'pg';

/** Lost while it was idle, a session is closed after 25 seconds. */
const LASTING = {
  tcp_user_timeout: '10s',
  tcp_keepalives_idle: '10',
  tcp_keepalives_interval: '5',
  tcp_keepalives_count: '3',
};
const SINCE_14 = { idle_session_timeout: '0', client_connection_check_interval: '5s' };

/** The connection of a session that waits, such as that of the doorbell. */
export function lastingConnection(connection: ClientConfig, serverVersion: number): ClientConfig {
  return withOptions(connection, { ...LASTING, ...(serverVersion >= 140_000 ? SINCE_14 : {}) });
}

/** The connection of a session of a worker: what it says, LOG messages too, reaches the controller. */
export function workerConnection(connection: ClientConfig, serverVersion: number): ClientConfig {
  return withOptions(lastingConnection(connection, serverVersion), { client_min_messages: 'log' });
}

function withOptions(connection: ClientConfig, settings: Record<string, string>): ClientConfig {
  const options = Object.entries(settings).map(([name, value]) => `-c ${name}=${value}`);
  return { ...connection, options: [connection.options, ...options].filter(Boolean).join(' ') };
}
