/** examples/mongres: a worker that is a server, used through the official MongoDB driver. */
import { once } from 'node:events';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import { Binary, type Collection, Decimal128, Double, Int32, Long, MongoClient, ObjectId } from 'mongodb';
import { afterAll, beforeAll } from 'vitest';
import { findPackageRoot } from '../src/package-root.ts';
import { expect, startController, test, type TestController } from './support/controller.ts';
import { createDatabase, type TestDatabase } from './support/database.ts';
import { until } from './support/until.ts';

let db: TestDatabase;
let controller: TestController;
let handle: bigint;
let client: MongoClient;
let port: number;

async function portOf(process: bigint): Promise<number> {
  const line = await until(() =>
    db.value<string>(
      `SELECT message FROM bgw_log WHERE handle = $1 AND message ~ '^listening on' ORDER BY id DESC LIMIT 1`,
      [process],
    ),
  );
  return Number(/:(\d+)$/.exec(line)?.[1]);
}

const connect = (): Promise<MongoClient> =>
  new MongoClient(`mongodb://127.0.0.1:${port}/?directConnection=true`, { serverSelectionTimeoutMS: 3000 }).connect();

const people = (name: string): Collection => client.db('app').collection(name);

beforeAll(async () => {
  db = await createDatabase();
  // Known before the library is loaded: a setting of context postmaster.
  await db.query(
    `SELECT bgw_define_setting('mongres.port', boot_val => '27017', vartype => 'integer', min_val => 0, max_val => 65535, context => 'postmaster',
       short_desc => 'Port to listen on; 0: any that is free, which is logged.'),
     bgw_define_setting('mongres.listen_address', boot_val => 'localhost', context => 'postmaster', short_desc => 'Address to listen on.'),
     bgw_set_config('mongres.port', '0'), bgw_set_config('mongres.listen_address', '127.0.0.1')`,
  );
  controller = await startController(db, { libraryDirs: [join(findPackageRoot(), 'examples', 'mongres')] });
  handle = await db.value<bigint>(`SELECT bgw_launch('mongres')`);
  port = await portOf(handle);
  client = await connect();
});

afterAll(async () => {
  await client.close();
  await controller.stop();
  await db.drop();
});

test('inserts, finds, updates, deletes and counts', async () => {
  const collection = people('crud');
  await collection.insertOne({ name: 'Ann', age: 30, address: { city: 'Oslo' } });
  const { insertedCount } = await collection.insertMany([
    { name: 'Bob', age: 40, tags: ['a', 'b'] },
    { name: 'Cid', age: 5 },
  ]);
  expect(insertedCount).toBe(2);
  const names = async (filter: object): Promise<string[]> =>
    (await collection.find(filter).sort({ name: 1 }).toArray()).map(({ name }) => name as string);
  expect(await names({})).toEqual(['Ann', 'Bob', 'Cid']);
  expect(await names({ age: { $gt: 5, $lte: 40 } })).toEqual(['Ann', 'Bob']);
  expect(await names({ age: { $lt: 30 } })).toEqual(['Cid']);
  expect(await names({ 'address.city': 'Oslo' })).toEqual(['Ann']);
  expect(await names({ tags: 'b' })).toEqual(['Bob']);
  expect(await names({ age: { $in: [5, 30] } })).toEqual(['Ann', 'Cid']);
  expect(await names({ address: null })).toEqual(['Bob', 'Cid']);
  // By number, not by text; a string is no number.
  expect((await collection.find().sort({ age: -1 }).skip(1).limit(1).toArray())[0]?.['name']).toBe('Ann');
  expect(await names({ age: { $gt: '4' } })).toEqual([]);

  expect(
    await collection.updateOne({ name: 'Ann' }, { $set: { 'address.zip': '0150' }, $inc: { age: 1 } }),
  ).toMatchObject({ matchedCount: 1 });
  expect(await collection.findOne({ name: 'Ann' })).toMatchObject({ age: 31, address: { city: 'Oslo', zip: '0150' } });
  expect(
    await collection.updateMany({ age: { $gt: 0 } }, { $unset: { tags: '' }, $set: { seen: true } }),
  ).toMatchObject({ matchedCount: 3 });
  expect(await collection.countDocuments({ seen: true })).toBe(3);
  expect(await collection.countDocuments({ tags: { $in: ['a'] } })).toBe(0);
  const upserted = await collection.updateOne({ name: 'Dee', age: { $gt: 1 } }, { $set: { age: 2 } }, { upsert: true });
  expect(upserted.upsertedId).toBeInstanceOf(ObjectId);
  expect(await collection.replaceOne({ name: 'Dee' }, { name: 'Eve' })).toMatchObject({ matchedCount: 1 });
  expect(await collection.findOne({ name: 'Eve' })).toEqual({ _id: upserted.upsertedId, name: 'Eve' });
  expect(await collection.estimatedDocumentCount()).toBe(4);
  expect(await collection.deleteOne({ seen: true })).toMatchObject({ deletedCount: 1 });
  expect(await collection.deleteMany({})).toMatchObject({ deletedCount: 3 });
  expect(await collection.countDocuments()).toBe(0);
});

test('every type comes back as it was, and a cursor goes beyond its first batch', async () => {
  const collection = people('types');
  const document = {
    _id: 'key',
    int: new Int32(7),
    long: Long.fromString('9007199254740993'),
    double: new Double(1.5),
    decimal: Decimal128.fromString('1.10'),
    date: new Date('2026-01-02T03:04:05.678Z'),
    binary: new Binary(Buffer.from([0, 255])),
    oid: new ObjectId(),
    nothing: null,
    list: [1, 'two', { three: true }],
    'naïve ☃': `'; DROP TABLE mongres.document; -- "`,
  };
  await collection.insertOne(document as never);
  const found = await collection.findOne({ _id: 'key' as never }, { promoteValues: false });
  expect(JSON.stringify(found)).toBe(JSON.stringify({ ...found, ...document, list: found?.['list'] }));
  expect(await collection.countDocuments({ long: Long.fromString('9007199254740992') })).toBe(0);
  expect(await collection.countDocuments({ date: { $gt: new Date('2026-01-02T03:04:05.677Z') } })).toBe(1);

  const many = people('many');
  await many.insertMany(Array.from({ length: 250 }, (_, n) => ({ n })));
  expect((await many.find().sort({ n: 1 }).batchSize(100).toArray()).map(({ n }) => n as number)).toEqual(
    Array.from({ length: 250 }, (_, n) => n),
  );
  const cursor = many.find().batchSize(2);
  await cursor.next();
  await cursor.close();
});

test('what cannot be is refused by MongoDB codes, each write for itself', async () => {
  const collection = people('refused');
  await collection.insertOne({ _id: 1 as never });
  await expect(collection.insertOne({ _id: 1 as never })).rejects.toMatchObject({ code: 11_000 });
  await expect(
    collection.insertMany([{ _id: 2 }, { _id: 1 }, { _id: 3 }] as never[], { ordered: false }),
  ).rejects.toMatchObject({ code: 11_000, insertedCount: 2 });
  await expect(collection.insertMany([{ _id: 4 }, { _id: 1 }, { _id: 5 }] as never[])).rejects.toMatchObject({
    insertedCount: 1,
  });
  expect(await collection.countDocuments()).toBe(4);
  await expect(collection.findOne({ n: { $regex: 'x' } })).rejects.toMatchObject({ code: 2 });
  await expect(collection.findOne({ $where: 'x' })).rejects.toMatchObject({ code: 2 });
  await expect(collection.updateOne({}, { $rename: { a: 'b' } })).rejects.toMatchObject({ code: 9 });
  await expect(collection.updateOne({}, { $inc: { _id: 1 } })).rejects.toMatchObject({ code: 66 });
  await expect(collection.insertOne({ text: 'a\0b' })).rejects.toMatchObject({ code: 2 });
  await expect(client.db('app').command({ explode: 1 })).rejects.toMatchObject({ code: 59 });
  await expect(collection.aggregate([{ $lookup: {} }]).toArray()).rejects.toMatchObject({ code: 9 });
  expect(await client.db('app').command({ ping: 1 })).toMatchObject({ ok: 1 });
});

test('garbage closes its own connection and nobody else is disturbed', async () => {
  const huge = Buffer.alloc(16);
  huge.writeInt32LE(2_000_000_000, 0);
  const truncated = Buffer.alloc(30);
  truncated.writeInt32LE(30, 0);
  truncated.writeInt32LE(2013, 12);
  truncated.writeInt32LE(900, 21);
  for (const bytes of [Buffer.from('GET / HTTP/1.1\r\n\r\n'), huge, truncated]) {
    const socket = createConnection(port, '127.0.0.1');
    socket.on('error', () => undefined);
    socket.write(bytes);
    await once(socket, 'close');
  }
  expect(await client.db('app').command({ ping: 1 })).toMatchObject({ ok: 1 });
});

test('a lost session is an error of one command; a restart keeps the documents; termination closes the port', async () => {
  const collection = people('lasting');
  await collection.insertOne({ n: 1 });
  const pid = await until(() => db.value<number>('SELECT pid FROM bgw_stat_activity WHERE handle = $1', [handle]));
  await db
    .query('SELECT pg_terminate_backend($1, 5000)', [pid])
    .catch(() => db.query('SELECT pg_terminate_backend($1)', [pid]));
  await until(() =>
    collection.countDocuments().then(
      (count) => count === 1,
      () => false,
    ),
  );

  await client.close();
  await db.query('SELECT bgw_restart($1::bigint)', [handle]);
  const before = port;
  await until(async () => (port = await portOf(handle)) !== before);
  client = await connect();
  expect(await people('lasting').countDocuments()).toBe(1);
  await client.close();
  await db.query('SELECT bgw_terminate($1::bigint)', [handle]);
  await db.query('CALL bgw_wait_for_shutdown($1)', [handle]);
  const socket = createConnection(port, '127.0.0.1');
  const [error] = (await once(socket, 'error')) as [NodeJS.ErrnoException];
  expect(error.code).toBe('ECONNREFUSED');
});
