-- hello_world: the smallest worker: says hello every ten seconds.  What it RAISEs is in bgw_log and in the server's log.
-- Try: SELECT bgw_launch('hello_world');

SELECT public.bgw_register(
    name => 'hello_world',
    command => $$DO 'BEGIN RAISE LOG ''Hello World!''; END'$$,
    naptime => '10 s',
    restart_time => '-1',                       -- never
    start_time => 'recovery_finished');
