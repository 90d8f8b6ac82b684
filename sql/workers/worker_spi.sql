-- worker_spi_launch: the launcher of the TypeScript worker src/workers/worker-spi.ts, as in the module of that name.

CREATE OR REPLACE FUNCTION public.worker_spi_launch(i integer) RETURNS bigint
LANGUAGE sql
AS $$ SELECT public.bgw_launch('worker_spi', pg_catalog.to_jsonb(i)) $$;
COMMENT ON FUNCTION public.worker_spi_launch(integer) IS
'Starts the worker that keeps the totals of schema<i>.counted.  Returns its handle.  Errors: 42704 no controller has loaded the library worker_spi yet.
Example: SELECT worker_spi_launch(1);';
