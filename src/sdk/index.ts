/** The SDK: what a library of workers is written against. */
export {
  type Library,
  defineLibrary,
  type Guc,
  type GucContext,
  type GucOptions,
  type NumberGucOptions,
  type EnumGucOptions,
  type Init,
  type WorkerFunction,
  type WorkerOptions,
} from './library.ts';
export type { GucHooks } from './guc.ts';
export type { Worker } from './worker.ts';
export type { LogFields, LogLevel, SetupOptions } from './worker-context.ts';
export type { Cleanup } from './cleanups.ts';
export type { MainLoopOptions } from './main-loop.ts';
export type { WorkerSignal } from './signals.ts';
export type { Latch, WaitEvents } from './latch.ts';
export { type Cursor, type ExecuteOptions, getValue, type Plan, type Spi, type SpiResult } from './spi.ts';
export type { LockMode } from './locks.ts';
export type { HeldLock, LockOptions, SharedMemory } from './shared-memory.ts';
export type { Segment } from './shared-memory-server.ts';
export type { FieldType, Struct, StructFields } from './struct.ts';
export type { Child, ChildExit, WorkerSet, WorkerSetOptions } from './worker-set.ts';
export { BgwError, type BgwErrorFields } from '../errors.ts';
