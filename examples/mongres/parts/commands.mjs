/** The commands: each a function of the command, in one transaction.  What is not here is refused with CommandNotFound. */
import { Long, ObjectId } from 'bson';
import { badValue, commandNotFound, cursorNotFound, duplicateKey, failedToParse, MongoError } from './errors.mjs';
import { conditionOf, findNumbers, insertDocument, orderOf, readDocuments, replaceDocument } from './store.mjs';
import { applyUpdate } from './update.mjs';

/** Documents of a first batch whose size the client has not said, as in MongoDB. */
const FIRST_BATCH = 101;

let lastCursor = 0;

export async function runCommand(bgw, command, connection) {
  const [name = ''] = Object.keys(command);
  const run = COMMANDS[name.toLowerCase()];
  if (!run || !Object.hasOwn(COMMANDS, name.toLowerCase())) throw commandNotFound(name);
  const database = String(command.$db ?? 'admin');
  const context = { connection, namespace: `${database}.${typeof command[name] === 'string' ? command[name] : ''}` };
  bgw.reportActivity('active', `${name} ${context.namespace}`);
  try {
    return { ...(await run(bgw, command, context)), ok: 1 };
  } finally {
    bgw.reportActivity('idle');
  }
}

const COMMANDS = {
  hello,
  ismaster: hello,
  ping: () => ({}),
  endsessions: () => ({}),
  buildinfo: () => ({
    version: '7.0.0',
    versionArray: [7, 0, 0, 0],
    modules: ['pg-bgworker'],
    maxBsonObjectSize: 16_777_216,
  }),
  insert,
  find,
  getmore: getMore,
  killcursors: killCursors,
  update,
  delete: remove,
  count,
  aggregate,
};

function hello(_bgw, command) {
  return {
    helloOk: true,
    ...('hello' in command ? { isWritablePrimary: true } : { ismaster: true }),
    maxBsonObjectSize: 16_777_216,
    maxMessageSizeBytes: 48_000_000,
    maxWriteBatchSize: 100_000,
    localTime: new Date(),
    minWireVersion: 0,
    maxWireVersion: 21,
    readOnly: false,
  };
}

/** Of several writes each counts for itself; after a failed one the rest follows only if they are unordered. */
async function writeEach(bgw, items, ordered, write) {
  return bgw.transaction(async (spi) => {
    const writeErrors = [];
    for (const [index, item] of items.entries()) {
      try {
        await spi.subtransaction(() => write(spi, item, index));
      } catch (error) {
        if (!(error instanceof MongoError)) throw error;
        writeErrors.push({ index, code: error.code, errmsg: error.message });
        if (ordered) break;
      }
    }
    return writeErrors.length > 0 ? { writeErrors } : {};
  });
}

async function insert(bgw, { documents = [], ordered = true }, { namespace }) {
  let n = 0;
  const errors = await writeEach(bgw, documents, ordered, async (spi, given) => {
    const document = { _id: given._id ?? new ObjectId(), ...given };
    if (!(await insertDocument(spi, namespace, document))) throw duplicateKey(namespace, String(document._id));
    n += 1;
  });
  return { n, ...errors };
}

async function find(bgw, command, { namespace, connection }) {
  const { filter = {}, sort = {}, batchSize, singleBatch = false } = command;
  if (command.projection && Object.keys(command.projection).length > 0) throw badValue('projection is not supported');
  const limit = integer(command.limit, 'limit');
  const condition = conditionOf(namespace, filter);
  const order = orderOf(sort, condition.values);
  return bgw.transaction(async (spi) => {
    const options = { order, limit: Math.abs(limit), skip: integer(command.skip, 'skip') };
    const numbers = await findNumbers(spi, condition, options);
    const size = batchSize === undefined ? FIRST_BATCH : integer(batchSize, 'batchSize');
    const firstBatch = await readDocuments(spi, numbers.splice(0, limit < 0 ? Math.abs(limit) : size));
    const id = singleBatch || limit < 0 || numbers.length === 0 ? 0 : (lastCursor += 1);
    if (id > 0) connection.cursors.set(id, { numbers, namespace });
    return { cursor: { id: Long.fromNumber(id), ns: namespace, firstBatch } };
  });
}

/** A cursor is a list of what is still to be read; it ends with its connection at the latest. */
async function getMore(bgw, command, { connection }) {
  const id = Number(command.getMore);
  const cursor = connection.cursors.get(id);
  if (!cursor) throw cursorNotFound(id);
  const size = command.batchSize === undefined ? FIRST_BATCH : integer(command.batchSize, 'batchSize');
  const nextBatch = await bgw.transaction((spi) => readDocuments(spi, cursor.numbers.splice(0, size || FIRST_BATCH)));
  const isOver = cursor.numbers.length === 0;
  if (isOver) connection.cursors.delete(id);
  return { cursor: { id: Long.fromNumber(isOver ? 0 : id), ns: cursor.namespace, nextBatch } };
}

function killCursors(_bgw, { cursors = [] }, { connection }) {
  const killed = cursors.filter((id) => connection.cursors.delete(Number(id)));
  return {
    cursorsKilled: killed,
    cursorsNotFound: cursors.filter((id) => !killed.includes(id)),
    cursorsAlive: [],
    cursorsUnknown: [],
  };
}

async function update(bgw, { updates = [], ordered = true }, { namespace }) {
  let n = 0;
  let nModified = 0;
  const upserted = [];
  const errors = await writeEach(
    bgw,
    updates,
    ordered,
    async (spi, { q = {}, u, multi = false, upsert = false }, index) => {
      if (Array.isArray(u)) throw failedToParse('an update by a pipeline is not supported');
      const numbers = await findNumbers(spi, conditionOf(namespace, q), { limit: multi ? 0 : 1 });
      for (const number of numbers) {
        const [document] = await readDocuments(spi, [number]);
        await replaceDocument(spi, number, applyUpdate(document, u));
      }
      n += numbers.length;
      nModified += numbers.length;
      if (numbers.length > 0 || !upsert) return;
      const document = { ...applyUpdate(equalities(q), u) };
      document._id ??= new ObjectId();
      if (!(await insertDocument(spi, namespace, document))) throw duplicateKey(namespace, String(document._id));
      n += 1;
      upserted.push({ index, _id: document._id });
    },
  );
  return { n, nModified, ...(upserted.length > 0 ? { upserted } : {}), ...errors };
}

/** What a filter says of a document that it would match. */
function equalities(filter) {
  const known = Object.entries(filter).filter(
    ([, wanted]) => !Object.keys(wanted ?? {}).some((name) => name.startsWith('$')),
  );
  return applyUpdate('_id' in filter ? { _id: filter._id } : {}, {
    $set: Object.fromEntries(known.filter(([name]) => name !== '_id')),
  });
}

async function remove(bgw, { deletes = [], ordered = true }, { namespace }) {
  let n = 0;
  const errors = await writeEach(bgw, deletes, ordered, async (spi, { q = {}, limit }) => {
    const numbers = await findNumbers(spi, conditionOf(namespace, q), { limit: integer(limit, 'limit') });
    const { processed } = await spi.execute('DELETE FROM mongres.document WHERE number = ANY ($1::bigint[])', [
      numbers,
    ]);
    n += processed;
  });
  return { n, ...errors };
}

async function count(bgw, { query = {}, skip, limit }, { namespace }) {
  const options = { skip: integer(skip, 'skip'), limit: integer(limit, 'limit') };
  return bgw.transaction(async (spi) => ({
    n: (await findNumbers(spi, conditionOf(namespace, query), options)).length,
  }));
}

/** The one pipeline that countDocuments of a driver sends: $match, $skip, $limit, and a $group that counts. */
async function aggregate(bgw, { pipeline = [] }, { namespace }) {
  const stages = Object.assign({}, ...pipeline);
  const { $match = {}, $skip, $limit, $group } = stages;
  const counts = $group && Object.keys($group).join() === '_id,n' && Number($group.n?.$sum) === 1;
  if (!counts || Object.keys(stages).some((name) => !['$match', '$skip', '$limit', '$group'].includes(name)))
    throw failedToParse('of aggregations only the count of countDocuments is supported');
  const { n } = await count(bgw, { query: $match, skip: $skip, limit: $limit }, { namespace });
  return { cursor: { id: Long.ZERO, ns: namespace, firstBatch: n > 0 ? [{ _id: $group._id, n }] : [] } };
}

function integer(value, name) {
  const number = Number(value ?? 0);
  if (Number.isSafeInteger(number) && (number >= 0 || name === 'limit')) return number;
  throw badValue(`${name} must be a non-negative integer`);
}
