/**
 * Documents in PostgreSQL: canonical Extended JSON in jsonb, so that every type survives.  Values reach SQL as parameters only;
 * how they compare stands in functions of schema mongres.
 */
import { EJSON } from 'bson';
import { badValue, failedToParse } from './errors.mjs';

/** Run when the worker starts. */
export async function install(spi) {
  for (const statement of INSTALL) await spi.execute(statement);
}

const INSTALL = [
  'CREATE SCHEMA IF NOT EXISTS mongres',
  `CREATE TABLE IF NOT EXISTS mongres.document (
     namespace text COLLATE "C" NOT NULL, id jsonb NOT NULL, number bigint GENERATED ALWAYS AS IDENTITY UNIQUE, body jsonb NOT NULL,
     PRIMARY KEY (namespace, id))`,
  `CREATE OR REPLACE FUNCTION mongres.number(value jsonb) RETURNS numeric LANGUAGE sql IMMUTABLE AS $$
     SELECT CASE WHEN jsonb_typeof(value) <> 'object' THEN NULL
                 WHEN coalesce(value ->> '$numberDouble', value ->> '$numberDecimal') ~ 'Infinity' THEN
                   CASE WHEN coalesce(value ->> '$numberDouble', value ->> '$numberDecimal') ~ '^-' THEN -1e1000 ELSE 1e1000 END::numeric
                 ELSE coalesce(value ->> '$numberInt', value ->> '$numberLong', value ->> '$numberDouble', value ->> '$numberDecimal')::numeric END $$`,
  // MongoDB's order of types, as far as they are known here; what is not there is null.
  `CREATE OR REPLACE FUNCTION mongres.rank(value jsonb) RETURNS integer LANGUAGE sql IMMUTABLE AS $$
     SELECT CASE WHEN value IS NULL OR value = 'null' THEN 1 WHEN mongres.number(value) IS NOT NULL THEN 2 WHEN jsonb_typeof(value) = 'string' THEN 3
                 WHEN jsonb_typeof(value) = 'array' THEN 5 WHEN jsonb_typeof(value) = 'boolean' THEN 8 WHEN value ? '$oid' THEN 7 WHEN value ? '$date' THEN 9
                 WHEN value ? '$binary' THEN 6 ELSE 4 END $$`,
  `CREATE OR REPLACE FUNCTION mongres.scalar(value jsonb) RETURNS text LANGUAGE sql IMMUTABLE AS $$
     SELECT CASE WHEN value ? '$oid' AND jsonb_typeof(value) = 'object' THEN value ->> '$oid' ELSE value #>> '{}' END $$`,
  `CREATE OR REPLACE FUNCTION mongres.moment(value jsonb) RETURNS numeric LANGUAGE sql IMMUTABLE AS $$
     SELECT CASE WHEN jsonb_typeof(value) = 'object' AND value ? '$date' THEN mongres.number(value -> '$date') END $$`,
  // -1, 0 or 1; NULL: of different types, which no operator but $in and $eq looks across.
  `CREATE OR REPLACE FUNCTION mongres.compare(a jsonb, b jsonb) RETURNS integer LANGUAGE sql IMMUTABLE AS $$
     SELECT CASE WHEN mongres.rank(a) <> mongres.rank(b) THEN NULL
                 WHEN mongres.rank(a) = 1 THEN 0
                 WHEN mongres.rank(a) = 2 THEN sign(mongres.number(a) - mongres.number(b))::integer
                 WHEN mongres.rank(a) = 9 THEN sign(mongres.moment(a) - mongres.moment(b))::integer
                 WHEN a = b THEN 0
                 WHEN mongres.scalar(a) COLLATE "C" < mongres.scalar(b) THEN -1 ELSE 1 END $$`,
  `CREATE OR REPLACE FUNCTION mongres.compares(value jsonb, operator text, operand jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
     SELECT CASE operator WHEN '$eq' THEN mongres.compare(value, operand) = 0 WHEN '$gt' THEN mongres.compare(value, operand) > 0
                          WHEN '$gte' THEN mongres.compare(value, operand) >= 0 WHEN '$lt' THEN mongres.compare(value, operand) < 0
                          WHEN '$lte' THEN mongres.compare(value, operand) <= 0 END $$`,
  // An array matches as a whole, or by one of its elements.
  `CREATE OR REPLACE FUNCTION mongres.matches(value jsonb, operator text, operand jsonb) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
   BEGIN
     IF operator = '$in' THEN
       RETURN EXISTS (SELECT FROM jsonb_array_elements(operand) AS every (wanted) WHERE mongres.matches(value, '$eq', wanted));
     END IF;
     RETURN coalesce(mongres.compares(value, operator, operand), false)
       OR jsonb_typeof(value) = 'array' AND EXISTS (SELECT FROM jsonb_array_elements(value) AS every (element) WHERE mongres.compares(element, operator, operand));
   END $$`,
];

const OPERATORS = new Set(['$eq', '$gt', '$gte', '$lt', '$lte', '$in']);

/** A filter as a condition on mongres.document; `values` are its parameters and those before it. */
export function conditionOf(namespace, filter, values = []) {
  const parameter = (value) => `$${values.push(value)}`;
  const conditions = [`namespace = ${parameter(namespace)}`];
  for (const [field, wanted] of Object.entries(filter)) {
    if (field.startsWith('$')) throw badValue(`unknown top level operator: ${field}`);
    for (const [operator, operand] of operatorsOf(wanted)) {
      if (operator === '$in' && !Array.isArray(operand)) throw badValue('$in needs an array');
      const at = `body #> ${parameter(field.split('.'))}::text[]`;
      conditions.push(`mongres.matches(${at}, ${parameter(operator)}, ${parameter(toJson(operand))}::jsonb)`);
    }
  }
  return { where: conditions.join(' AND '), values };
}

/** What a field has to be: a value, or operators and their operands. */
function operatorsOf(wanted) {
  const isDocument = wanted !== null && typeof wanted === 'object' && wanted.constructor === Object;
  const names = isDocument ? Object.keys(wanted) : [];
  if (!names.some((name) => name.startsWith('$'))) return [['$eq', wanted]];
  const unknown = names.find((name) => !OPERATORS.has(name));
  if (unknown !== undefined) throw badValue(`unknown operator: ${unknown}`);
  return Object.entries(wanted);
}

export function orderOf(sort, values) {
  const keys = Object.entries(sort).flatMap(([field, direction]) => {
    const order = { 1: 'ASC', '-1': 'DESC' }[String(direction)];
    if (!order) throw badValue('$sort key ordering must be 1 or -1');
    const at = `body #> $${values.push(field.split('.'))}::text[]`;
    return [
      `mongres.rank(${at}) ${order}`,
      `mongres.number(${at}) ${order}`,
      `mongres.moment(${at}) ${order}`,
      `mongres.scalar(${at}) COLLATE "C" ${order}`,
    ];
  });
  return [...keys, 'number'].join(', ');
}

export async function insertDocument(spi, namespace, document) {
  const { processed } = await spi.execute(
    'INSERT INTO mongres.document (namespace, id, body) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING',
    [namespace, toJson(document._id), toJson(document)],
  );
  return processed === 1;
}

export async function replaceDocument(spi, number, document) {
  await spi.execute('UPDATE mongres.document SET body = $2 WHERE number = $1', [number, toJson(document)]);
}

/** Documents by their numbers, in the order of these. */
export async function readDocuments(spi, numbers) {
  const { rows } = await spi.execute(
    `SELECT body::text FROM unnest($1::bigint[]) WITH ORDINALITY AS wanted (number, position) JOIN mongres.document USING (number) ORDER BY position`,
    [numbers],
  );
  return rows.map(({ body }) => EJSON.parse(body, { relaxed: false }));
}

export async function findNumbers(spi, { where, values }, { order = 'number', limit = 0, skip = 0 } = {}) {
  const bounds = `${limit > 0 ? ` LIMIT ${limit}` : ''}${skip > 0 ? ` OFFSET ${skip}` : ''}`;
  const { rows } = await spi.execute(
    `SELECT number FROM mongres.document WHERE ${where} ORDER BY ${order}${bounds}`,
    values,
  );
  return rows.map(({ number }) => number);
}

/** Canonical Extended JSON. What looks like it, but is a field of the document, would come back as something else. */
export function toJson(value) {
  checkFields(value);
  const json = EJSON.stringify(value, { relaxed: false });
  if (json.includes(String.raw`\u0000`)) throw badValue('a string with the character U+0000 cannot be stored');
  return json;
}

function checkFields(value) {
  if (Array.isArray(value)) value.forEach(checkFields);
  else if (value !== null && typeof value === 'object' && value.constructor === Object) {
    for (const [name, inner] of Object.entries(value)) {
      if (name.startsWith('$')) throw failedToParse(`the dollar ($) prefixed field '${name}' is not valid for storage`);
      checkFields(inner);
    }
  }
}
