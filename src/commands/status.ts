/** `bgw status`: what every worker is doing. */
import type { ClientConfig } from 'pg';

export interface StatusOptions {
  connection: ClientConfig;
  watch: boolean;
}

export async function showStatus({ connection }: StatusOptions): Promise<void> {
  await Promise.resolve(connection);
}
