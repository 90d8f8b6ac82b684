/** What is refused of a transaction, and of its subtransactions. */
import { BgwError } from '../errors.ts';

/** For who goes on in a transaction that has ended, or is ending. */
export function noTransaction(kind: 'transaction' | 'subtransaction' = 'transaction'): BgwError {
  return new BgwError('25P01', {
    message: `there is no ${kind} in progress`,
    detail: `The ${kind} that this was part of has ended.`,
    hint: `Await everything that runs inside ${kind === 'transaction' ? 'bgw.transaction' : 'spi.subtransaction'}.`,
  });
}

export function beside(): BgwError {
  return new BgwError('2D000', {
    message: 'a subtransaction is in progress',
    detail: 'What is run beside it would be part of it, and rolled back with it.',
    hint: 'Wait for spi.subtransaction before running anything else in its transaction.',
  });
}

export function overlapping(): BgwError {
  return new BgwError('2D000', {
    message: 'a subtransaction ended before one that began inside of it',
    hint: 'Wait for one spi.subtransaction before beginning the next.',
  });
}
