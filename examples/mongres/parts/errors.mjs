/** Errors by MongoDB's codes. */
export class MongoError extends Error {
  constructor(code, codeName, message) {
    super(message);
    this.code = code;
    this.codeName = codeName;
  }
}

export const badValue = (message) => new MongoError(2, 'BadValue', message);
export const failedToParse = (message) => new MongoError(9, 'FailedToParse', message);
export const typeMismatch = (message) => new MongoError(14, 'TypeMismatch', message);
export const cursorNotFound = (id) => new MongoError(43, 'CursorNotFound', `cursor id ${id} not found`);
export const commandNotFound = (name) => new MongoError(59, 'CommandNotFound', `no such command: '${name}'`);
export const duplicateKey = (namespace, id) =>
  new MongoError(
    11_000,
    'DuplicateKey',
    `E11000 duplicate key error collection: ${namespace} index: _id_ dup key: { _id: ${id} }`,
  );
