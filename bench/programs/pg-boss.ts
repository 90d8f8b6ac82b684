/** One process of pg-boss: a worker of its queues, or a sender. */
import pg from 'pg';
import { type Job, PgBoss, type WorkOptions } from 'pg-boss';
import { options, reply, serve } from './channel.ts';

interface Data {
  id: number;
}

const QUEUES = ['probe', 'select', 'insert'];
const role = options['role'] as 'worker' | 'sender' | 'idle';
const notify = options['notify'] === true;
/** Jobs of a batch run on a pool of the size of the floor's. */
const pool = new pg.Pool({ connectionString: options.url, max: 8 });
const boss = new PgBoss({ connectionString: options.url, useListenNotify: notify, supervise: role !== 'sender' });
pool.on('error', () => undefined);
boss.on('error', (error: unknown) => process.stderr.write(`pg-boss: ${String(error)}\n`));
await boss.start();
for (const queue of QUEUES) await boss.createQueue(queue, { notify });

const WORK: Record<string, (data: Data) => Promise<unknown>> = {
  probe: async ({ id }) => {
    await pool.query('INSERT INTO bench.seen VALUES ($1, clock_timestamp())', [id]);
    reply({ ran: id });
  },
  select: () => pool.query('SELECT 1'),
  insert: ({ id }) => pool.query('INSERT INTO bench.effect VALUES ($1)', [id]),
};
const workers = (options['workers'] as number | undefined) ?? 1;
/** One with nothing to do has one queue. */
const worked = { worker: QUEUES, idle: ['probe'], sender: [] }[role];
for (const queue of worked)
  for (let i = 0; i < workers; i += 1)
    await boss.work(queue, (options['work'] ?? {}) as WorkOptions, async (jobs: Job<Data>[]) => {
      await Promise.all(jobs.map(async ({ data }) => WORK[queue]?.(data)));
    });

/** From the server's clock to the send, on a connection that is warm. */
async function launch(id: number): Promise<string> {
  const { rows } = await pool.query<{ now: string }>('SELECT clock_timestamp()::text AS now');
  await boss.send('probe', { id });
  return rows[0]?.now ?? '';
}

async function call({ clients, seconds }: { clients: number; seconds: number }): Promise<number[]> {
  const samples: number[] = [];
  const deadline = performance.now() + seconds * 1000;
  const callInTurn = async (): Promise<void> => {
    for (let from = performance.now(); from < deadline; from = performance.now()) {
      await boss.send('select', { id: 0 });
      samples.push(performance.now() - from);
    }
  };
  await Promise.all(Array.from({ length: clients }, callInTurn));
  return samples;
}

/** All of them in one statement, so that none is seen before the last. */
const insert = ({ queue, jobs }: { queue: string; jobs: number }): Promise<unknown> =>
  boss.insert(
    queue,
    Array.from({ length: jobs }, (_, id) => ({ data: { id } })),
  );

serve({ launch, call, insert }, async () => {
  await boss.stop({ graceful: false });
  await pool.end();
});
