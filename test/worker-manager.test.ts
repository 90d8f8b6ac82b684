/** bgw.workerSet: a manager in TypeScript that launches, watches and ends children by key. */
import { join } from 'node:path';
import { findPackageRoot } from '../src/package-root.ts';
import { afterAll, afterEach, beforeAll } from 'vitest';
import { expect, startController, test, type TestController } from './support/controller.ts';
import { createDatabase, type TestDatabase } from './support/database.ts';
import { until } from './support/until.ts';

interface Manager {
  handle: bigint;
  /** Leaves a command, and wakes the manager. */
  tell(verb: string, key?: string | null, arg?: string | null): Promise<void>;
  /** What it has said so far. */
  said(): Promise<string[]>;
  /** Waits until it has said these lines, in any order and among others. */
  saidAll(...lines: string[]): Promise<void>;
  /** Waits until it has looked once more. */
  lookedAgain(): Promise<void>;
}

// One database and one node for all of them; each leaves no process behind.
let db: TestDatabase;
let controller: TestController;

beforeAll(async () => {
  db = await createDatabase();
  await db.query('CREATE TABLE command (verb text, key text, arg text)');
  controller = await startController(db, { libraryDirs: [join(findPackageRoot(), 'test', 'fixtures', 'sets')] });
});

afterEach(async () => {
  await db.query('SELECT bgw_terminate(id) FROM bgw.process');
  await until(() => db.value('SELECT NOT EXISTS (SELECT FROM bgw.process)'), { what: 'the end of every process' });
});

afterAll(async () => {
  await controller.stop();
  await db.drop();
});

async function startManager(arg: Record<string, unknown> = {}): Promise<Manager> {
  const handle = await db.value<bigint>(`SELECT bgw_launch('manager', $1)`, [JSON.stringify(arg)]);
  await controller.saw('worker_started', { handle: String(handle) });
  const said = async (): Promise<string[]> => {
    const { rows } = await db.query<{ message: string }>(
      `SELECT message FROM bgw_log WHERE handle = $1 AND severity = 'LOG' ORDER BY id`,
      [handle],
    );
    return rows.map(({ message }) => message);
  };
  const looks = async (): Promise<number> => (await said()).filter((line) => line === 'looked').length;
  return {
    handle,
    said,
    tell: async (verb, key = null, argument = null) => {
      await db.query('INSERT INTO command VALUES ($1, $2, $3)', [verb, key, argument]);
      await db.query('SELECT bgw_set_latch($1)', [handle]);
    },
    saidAll: async (...lines) => {
      const isThere = async (): Promise<boolean> => {
        const all = await said();
        return lines.every((line) => all.includes(line));
      };
      await until(isThere, { what: `"${lines.join('", "')}"` });
    },
    lookedAgain: async () => {
      const before = await looks();
      await db.query('SELECT bgw_set_latch($1)', [handle]);
      await until(async () => (await looks()) > before);
    },
  };
}

const children = `SELECT string_agg(key, ' ' ORDER BY key) FROM bgw.process WHERE worker_set = 'managed'`;

test('a manager is called back for each start and each end of its children, woken by notifications', async () => {
  const manager = await startManager();
  await manager.tell('launch', 'a', 'stay');
  await manager.saidAll('launched a');
  await manager.tell('launch', 'b', 'done');
  await manager.saidAll('launched b', 'exit b done');
  await manager.tell('launch', 'c', 'fail');
  await manager.saidAll('launched c', 'error c failed 1 22012 division by zero');
  await manager.tell('launch', 'a', 'stay');
  await manager.saidAll('failed a 42710');
  expect(await db.value('SELECT parent_id FROM bgw.process WHERE worker_set IS NOT NULL')).toBe(manager.handle);
  await manager.tell('terminate', 'a');
  await manager.saidAll('exit a cancelled');
  await manager.lookedAgain();
  const said = await manager.said();
  expect(said.filter((line) => /^(launched|exit|error|failed)/.test(line))).toHaveLength(7);
});

test('with all notifications lost each exit is called back once, at the next look', async () => {
  const manager = await startManager({ naptime: 100 });
  await db.query(
    `CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.notify := NULL; RETURN NEW; END $$`,
  );
  await db.query('CREATE TRIGGER zz_lost BEFORE INSERT ON bgw.process FOR EACH ROW EXECUTE FUNCTION lose()');
  const keys = ['a', 'b', 'c', 'd'];
  for (const key of keys) await manager.tell('launch', key, key < 'c' ? 'done' : 'stay');
  await manager.saidAll('exit a done', 'exit b done', 'launched c', 'launched d');
  expect(await db.value(`SELECT count(notify)::int FROM bgw.process`)).toBe(0);
  await db.query('DROP TRIGGER zz_lost ON bgw.process');
  await db.query(`SELECT bgw_terminate_set('managed')`);
  await manager.saidAll('exit c cancelled', 'exit d cancelled');
  await manager.lookedAgain();
  const said = await manager.said();
  for (const key of keys) expect(said.filter((line) => line.startsWith(`exit ${key}`))).toHaveLength(1);
});

test('keys, signal, waitForExit and ensure work by key', async () => {
  const manager = await startManager();
  await manager.tell('ensure', null, 'a b');
  await until(async () => (await db.value(children)) === 'a b');
  await manager.tell('keys');
  await manager.saidAll('launched a', 'launched b', 'keys a b');
  await manager.tell('ensure', null, 'b c');
  await manager.saidAll('exit a cancelled', 'launched c');
  expect(await db.value(children)).toBe('b c');
  await manager.tell('signal', 'b', 'SIGHUP');
  await manager.tell('signal', 'nobody', 'SIGHUP');
  await manager.saidAll('true', 'false');
  await manager.tell('wait', 'b', '50');
  await manager.saidAll('waited false');
  await manager.tell('wait', 'b', '20000');
  await db.query(`SELECT bgw_terminate_set('managed', key => 'b')`);
  await manager.saidAll('waited true', 'exit b cancelled');
});

test('after a crash the manager finds its children again; when it is finished they end', async () => {
  const manager = await startManager();
  for (const key of ['a', 'b']) await manager.tell('launch', key, 'stay');
  await manager.saidAll('launched a', 'launched b');
  await manager.tell('crash');
  await manager.saidAll('found a', 'found b');
  expect(await db.value(children)).toBe('a b');
  await db.query(`SELECT bgw_terminate_set('managed', key => 'a')`);
  await manager.saidAll('exit a cancelled');
  await manager.lookedAgain();
  expect((await manager.said()).filter((line) => line.startsWith('exit'))).toEqual(['exit a cancelled']);
  await db.query('SELECT bgw_terminate($1::bigint)', [manager.handle]);
  await until(async () => (await db.value(children)) === null, { what: 'the end of the children' });
});

test('children that are to be kept stay when their manager is finished, and the next one finds them', async () => {
  const manager = await startManager({ whenParentEnds: 'keep' });
  await manager.tell('launch', 'a', 'stay');
  await manager.saidAll('launched a');
  await db.query('SELECT bgw_terminate($1::bigint)', [manager.handle]);
  await db.query('CALL bgw_wait_for_shutdown($1)', [manager.handle]);
  expect(await db.value(children)).toBe('a');
  const next = await startManager({ worker: 'nobody' });
  await next.tell('launch', 'b');
  await next.saidAll('found a', 'failed b 42704');
});
