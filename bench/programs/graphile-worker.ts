/** One worker process of graphile-worker, with the settings that the parent gives. */
import { Logger, run, type RunnerOptions, type TaskList } from 'graphile-worker';
import { options, reply, serve } from './channel.ts';

const taskList: TaskList = {
  probe: async (payload, { query }) => {
    const { id } = payload as { id: number };
    await query('INSERT INTO bench.seen VALUES ($1, clock_timestamp())', [id]);
    reply({ ran: id });
  },
  select: async (_payload, { query }) => void (await query('SELECT 1')),
  insert: async (payload, { query }) => {
    await query('INSERT INTO bench.effect VALUES ($1)', [(payload as { n: number }).n]);
  },
  tick: async (payload, { query }) => {
    await query('INSERT INTO bench.start (name) VALUES ($1)', [(payload as { name: string }).name]);
  },
};

const runner = await run({
  connectionString: options.url,
  taskList,
  noHandleSignals: true,
  crontab: (options['crontab'] as string | undefined) ?? '',
  logger: new Logger(() => () => undefined),
  preset: { worker: options['settings'] as NonNullable<GraphileConfig.Preset['worker']> },
} satisfies RunnerOptions);

serve({}, () => runner.stop());
