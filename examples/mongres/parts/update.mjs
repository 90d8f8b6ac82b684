/** What an update makes of a document: $set, $inc and $unset with dotted paths, or a replacement. */
import { Double, Int32, Long } from 'bson';
import { badValue, failedToParse, MongoError, typeMismatch } from './errors.mjs';

const INT32 = 2n ** 31n;

/** A new document; the one given stays as it is. */
export function applyUpdate(document, update) {
  const operators = Object.keys(update);
  if (!operators.some((name) => name.startsWith('$'))) return replaced(document, update);
  const changed = structuredCopy(document);
  for (const operator of operators) {
    const change = CHANGES[operator];
    if (!change) throw failedToParse(`Unknown modifier: ${operator}`);
    for (const [path, operand] of Object.entries(update[operator])) {
      if (path === '_id' || path.startsWith('_id.'))
        throw new MongoError(66, 'ImmutableField', "the field '_id' cannot be changed");
      change(changed, path.split('.'), operand);
    }
  }
  return changed;
}

function replaced(document, replacement) {
  return { _id: document._id, ...replacement, ...('_id' in document ? { _id: document._id } : {}) };
}

/** Containers are copied; values of BSON are not changed by anybody. */
function structuredCopy(value) {
  if (Array.isArray(value)) return value.map(structuredCopy);
  if (!isDocument(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, structuredCopy(inner)]));
}

const isDocument = (value) => value !== null && typeof value === 'object' && value.constructor === Object;

const CHANGES = {
  $set: (document, path, value) => {
    const { parent, name } = placeOf(document, path, true);
    parent[name] = value;
  },
  $unset: (document, path) => {
    const place = placeOf(document, path, false);
    if (place) delete place.parent[place.name];
  },
  $inc: (document, path, amount) => {
    const { parent, name } = placeOf(document, path, true);
    parent[name] = add(parent[name] ?? new Int32(0), amount, path.join('.'));
  },
};

/** Where the last step of a path is; made on the way, if asked. */
function placeOf(document, path, make) {
  let parent = document;
  for (const step of path.slice(0, -1)) {
    if (!Object.hasOwn(parent, step)) {
      if (!make) return undefined;
      parent[step] = {};
    }
    parent = parent[step];
    if (!isDocument(parent) && !Array.isArray(parent)) {
      if (!make) return undefined;
      throw new MongoError(28, 'PathNotViable', `Cannot create field '${path.at(-1)}' in element {${step}: ...}`);
    }
  }
  const name = path.at(-1);
  if (name === '' || name === '__proto__') throw badValue('the update path contains a field that cannot be');
  return { parent, name };
}

/** An int32 that overflows becomes a long; a double makes a double. */
function add(value, amount, field) {
  const kinds = [value, amount].map((number) => number?._bsontype);
  if (kinds.some((kind) => !['Int32', 'Long', 'Double'].includes(kind)))
    throw typeMismatch(`Cannot apply $inc to the field '${field}', or with an argument, that is not a number`);
  if (kinds.includes('Double')) return new Double(Number(value) + Number(amount));
  const sum = BigInt(value.toString()) + BigInt(amount.toString());
  return kinds.includes('Long') || sum >= INT32 || sum < -INT32 ? Long.fromBigInt(sum) : new Int32(Number(sum));
}
