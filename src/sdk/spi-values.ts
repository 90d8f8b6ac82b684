/** How values of the server become values of TypeScript. PostgreSQL counterpart: SPI_getbinval, DatumGetXXX. */
import type { CustomTypesConfig } from 'pg';
import pg from './pg.ts';
import type { ExecuteOptions } from './spi.ts';

const { builtins } = pg.types;

/** Types of arrays, by pg_type.oid: pg has no names for them. */
const TEXT_ARRAY = 1009;
const INT8_ARRAY = 1016;
const TIME_ARRAYS = [1115, 1182, 1185];

/** NULL, or an array in an array. */
type Texts = (string | null | Texts)[];

const textsOf = pg.types.getTypeParser(TEXT_ARRAY as never) as (text: string) => Texts;

const EXACT = new pg.TypeOverrides();
EXACT.setTypeParser(builtins.INT8, BigInt);
EXACT.setTypeParser(INT8_ARRAY, (text) => bigintsOf(textsOf(text)));
for (const type of [builtins.TIMESTAMPTZ, builtins.TIMESTAMP, builtins.DATE]) EXACT.setTypeParser(type, String);
for (const type of TIME_ARRAYS) EXACT.setTypeParser(type, textsOf);

/** For one statement. */
export function typesOf({ values }: Pick<ExecuteOptions, 'values'>): { types?: CustomTypesConfig } {
  return values === 'exact' ? { types: EXACT } : {};
}

function bigintsOf(texts: Texts): unknown[] {
  return texts.map((text) => {
    if (text === null) return null;
    return Array.isArray(text) ? bigintsOf(text) : BigInt(text);
  });
}
