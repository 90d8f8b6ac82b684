/** The public surface of the package. */
export * from './sdk/index.ts';
