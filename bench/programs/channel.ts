/** The side of a peer's process that speaks to bench/peer-process.ts: requests by name, answers, and jobs that ran. */

/** What the parent asks for; `argument` belongs to the request. */
export interface Request {
  id: number;
  name: string;
  argument: unknown;
}

export type Reply = { answer: number; result: unknown } | { ran: number } | { ready: true };

/** Options that the parent gave, as JSON. */
export const options = JSON.parse(process.argv[2] ?? '{}') as Record<string, unknown> & { url: string };

export function reply(message: Reply): void {
  process.send?.(message);
}

/** Answers requests from now on, and ends at SIGTERM, or with its parent. */
export function serve(
  requests: Record<string, (argument: never) => Promise<unknown>>,
  stop: () => Promise<unknown>,
): void {
  process.on('message', ({ id, name, argument }: Request) => {
    const handle = requests[name];
    if (handle === undefined) throw new Error(`no request ${name}`);
    void handle(argument as never).then((result) => reply({ answer: id, result }));
  });
  const end = (): void => void stop().then(() => process.exit(0));
  process.once('SIGTERM', end);
  // The parent has died.
  process.once('disconnect', end);
  reply({ ready: true });
}
