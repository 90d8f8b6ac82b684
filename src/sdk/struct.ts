/** Typed arrays over one segment of shared memory: where each field of a struct lies, and its view. */
import { BgwError } from '../errors.ts';

/** What a field is an array of: Int32Array, BigInt64Array, Float64Array, Uint8Array, ... */
export interface FieldType {
  readonly BYTES_PER_ELEMENT: number;
  readonly prototype: ArrayBufferView;
  new (buffer: SharedArrayBuffer, offset: number, length: number): ArrayBufferView;
}

/** The fields of a struct, in order: a typed array of one element, or of as many as are given. */
export type StructFields = Readonly<Record<string, FieldType | readonly [FieldType, number]>>;

type ViewOf<Type> = Type extends { prototype: infer View } ? View : never;

/** A struct in shared memory: each field is a typed array, for Atomics to work on. */
export type Struct<Fields extends StructFields> = {
  readonly [Name in keyof Fields]: ViewOf<Fields[Name] extends readonly [infer Type, number] ? Type : Fields[Name]>;
};

/** MAXALIGN: every type may begin at a multiple of it. */
const ALIGNMENT = 8;

/** The size of a struct, and what makes its views. Errors: 22023 a field that cannot be. */
export function layOut<Fields extends StructFields>(
  fields: Fields,
): { bytes: number; view: (buffer: SharedArrayBuffer) => Struct<Fields> } {
  let bytes = 0;
  const places = Object.entries(fields).map(([name, field]) => {
    const [type, length] = Array.isArray(field) ? (field as readonly [FieldType, number]) : [field as FieldType, 1];
    if (typeof type?.BYTES_PER_ELEMENT !== 'number' || !Number.isSafeInteger(length) || length <= 0) {
      throw new BgwError('22023', {
        message: `invalid field "${name}" of a struct in shared memory`,
        hint: 'Give a typed array such as Int32Array, or one and its length: [Int32Array, 16].',
      });
    }
    const offset = bytes;
    bytes += Math.ceil((type.BYTES_PER_ELEMENT * length) / ALIGNMENT) * ALIGNMENT;
    return { name, type, offset, length };
  });
  return {
    bytes,
    view: (buffer) =>
      Object.fromEntries(
        places.map(({ name, type: Type, offset, length }) => [name, new Type(buffer, offset, length)]),
      ) as Struct<Fields>,
  };
}
