/**
 * Real PostgreSQL always: test/support/server.ts starts one server for the whole run, every test has a database of
 * its own. Three files run at a time: the tests wait more than they compute, but a node with its workers is several
 * processes, and on a small machine more files at once only make each other's deadlines tight.
 */
import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/support/server.ts'],
    pool: 'forks',
    maxWorkers: 3,
    // Where the machine is shared it may stall for longer than a deadline: there a test has a second try, which the report
    // names.  At home the first failure counts.
    retry: process.env['CI'] ? 1 : 0,
    testTimeout: 30_000,
    hookTimeout: 60_000,
  },
});
