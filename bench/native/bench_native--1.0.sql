-- Dynamic background workers in C, by PostgreSQL's own interface.  bench:peers measures them beside ours.

CREATE FUNCTION bench_native.launch(command text, naptime integer DEFAULT 0) RETURNS void
LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'bench_native_launch';
COMMENT ON FUNCTION bench_native.launch(text, integer) IS
'Registers a background worker that runs the command once, or again and again with naptime (milliseconds) in between.
The command has at most 119 bytes.  Errors: 53400 when max_worker_processes are there.';

CREATE FUNCTION bench_native.wait() RETURNS void
LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'bench_native_wait';
COMMENT ON FUNCTION bench_native.wait() IS 'Waits until the worker that this session launched last has ended.';
