/**
 * The wire protocol: OP_MSG, and OP_QUERY for the first hello of a driver.  A connection that sends what is no message is closed;
 * the others do not notice.
 */
import { createServer } from 'node:net';
import { deserialize, serialize } from 'bson';
import { MongoError } from './errors.mjs';

const OP_REPLY = 1;
const OP_QUERY = 2004;
const OP_MSG = 2013;
const HEADER = 16;
const LONGEST_MESSAGE = 48_000_000;
const CHECKSUM_PRESENT = 1;
const MORE_TO_COME = 2;

/** Types are kept: an int32 stays one, and a date keeps its milliseconds. */
const AS_SENT = { promoteValues: false, promoteBuffers: false, promoteLongs: false };

/** Resolves when it listens. `answer` gets a command and the connection that it came by, and returns the reply. */
export async function listen({ port, host, answer }) {
  const sockets = new Set();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.setNoDelay(true);
    socket.on('close', () => sockets.delete(socket));
    socket.on('error', () => socket.destroy());
    serve(socket, answer);
  });
  await new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, resolve);
  });
  const { address, port: chosen } = server.address();
  return {
    address: `${address.includes(':') ? `[${address}]` : address}:${chosen}`,
    close: () =>
      new Promise((resolve) => {
        server.close(resolve);
        for (const socket of sockets) socket.destroy();
      }),
  };
}

function serve(socket, answer) {
  const connection = { cursors: new Map() };
  let received = Buffer.alloc(0);
  socket.on('data', (chunk) => {
    received = received.length === 0 ? chunk : Buffer.concat([received, chunk]);
    try {
      while (received.length >= 4) {
        const length = received.readInt32LE(0);
        if (length < HEADER || length > LONGEST_MESSAGE) throw new RangeError('no message has this length');
        if (received.length < length) return;
        const message = parse(received.subarray(0, length));
        received = received.subarray(length);
        void reply(socket, message, connection, answer);
      }
    } catch {
      socket.destroy();
    }
  });
}

async function reply(socket, { requestId, opCode, flags, command }, connection, answer) {
  let document;
  try {
    document = await answer(command, connection);
  } catch (error) {
    document = describe(error);
  }
  if (socket.destroyed || (flags & MORE_TO_COME) !== 0) return;
  socket.write(opCode === OP_QUERY ? encodeReply(requestId, document) : encodeMessage(requestId, document));
}

/** An error of the database has no code of MongoDB's. */
function describe(error) {
  const { code, codeName } = error instanceof MongoError ? error : { code: 8, codeName: 'UnknownError' };
  return { ok: 0, errmsg: error.message, code, codeName };
}

function parse(message) {
  const requestId = message.readInt32LE(4);
  const opCode = message.readInt32LE(12);
  if (opCode === OP_MSG) return { requestId, opCode, ...parseMessage(message) };
  if (opCode !== OP_QUERY) throw new RangeError(`unsupported operation ${opCode}`);
  const end = message.indexOf(0, HEADER + 4);
  return { requestId, opCode, flags: 0, command: deserialize(message.subarray(end + 9), AS_SENT) };
}

/** Sections: the command (kind 0), and documents of one of its fields (kind 1). */
function parseMessage(message) {
  const flags = message.readUInt32LE(HEADER);
  const end = message.length - ((flags & CHECKSUM_PRESENT) === 0 ? 0 : 4);
  let command;
  const fields = {};
  for (let at = HEADER + 4; at < end;) {
    const kind = message[at];
    const size = message.readInt32LE(at + 1);
    const last = at + 1 + size;
    if (size < 5 || last > end) throw new RangeError('a section is longer than its message');
    if (kind === 0) command = deserialize(message.subarray(at + 1, last), AS_SENT);
    else if (kind === 1) Object.assign(fields, parseSequence(message.subarray(at + 5, last)));
    else throw new RangeError(`unknown section ${kind}`);
    at = last;
  }
  if (!command) throw new RangeError('a message without a command');
  return { flags, command: { ...command, ...fields } };
}

function parseSequence(bytes) {
  const nameEnd = bytes.indexOf(0);
  const documents = [];
  for (let at = nameEnd + 1; at < bytes.length;) {
    const size = bytes.readInt32LE(at);
    if (size < 5 || at + size > bytes.length) throw new RangeError('a document is longer than its section');
    documents.push(deserialize(bytes.subarray(at, at + size), AS_SENT));
    at += size;
  }
  return { [bytes.toString('utf8', 0, nameEnd)]: documents };
}

function encodeMessage(responseTo, document) {
  const body = serialize(document);
  return Buffer.concat([header(HEADER + 5 + body.length, responseTo, OP_MSG), Buffer.alloc(5), body]);
}

function encodeReply(responseTo, document) {
  const body = serialize(document);
  const fields = Buffer.alloc(20);
  fields.writeInt32LE(1, 16);
  return Buffer.concat([header(HEADER + 20 + body.length, responseTo, OP_REPLY), fields, body]);
}

function header(length, responseTo, opCode) {
  const bytes = Buffer.alloc(HEADER);
  bytes.writeInt32LE(length, 0);
  bytes.writeInt32LE(responseTo, 8);
  bytes.writeInt32LE(opCode, 12);
  return bytes;
}
