-- bgw_schedules, bgw_schedule_history: what is launched by the clock, and what became of each due time.
-- Written by sql/api/schedule.sql and sql/control/tick_schedules.sql.  Each stands on a function that runs as the reader.

CREATE OR REPLACE FUNCTION bgw.read_schedules(
    OUT schedule bgw.schedule, OUT state bgw.schedule_state, OUT worker bgw.worker, OUT backlog bigint, OUT running bigint, OUT waiting_for text
) RETURNS SETOF record
LANGUAGE sql STABLE
AS $$
    SELECT definition, state, worker, here.backlog, here.running, bgw.schedule_obstacle(definition, state, worker, here.first_waiting)
    FROM bgw.schedule AS definition
    LEFT JOIN bgw.schedule_state AS state ON state.schedule_id = definition.id
    LEFT JOIN bgw.worker ON worker.id = definition.worker_id AND NOT worker.unregistered
    LEFT JOIN LATERAL (
        SELECT count(*) FILTER (WHERE process.run_id IS NULL) AS backlog, count(process.run_id) AS running, min(process.id) FILTER (WHERE process.run_id IS NULL) AS first_waiting
        FROM bgw.process WHERE process.schedule_id = definition.id) AS here ON true
    WHERE NOT definition.unscheduled
$$;
COMMENT ON FUNCTION bgw.read_schedules() IS 'Schedules that the reader may see, with what nodes know of them.';

CREATE OR REPLACE FUNCTION bgw.schedule_obstacle(schedule bgw.schedule, state bgw.schedule_state, worker bgw.worker, first_waiting bigint) RETURNS text
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN CASE
        WHEN pg_catalog.pg_get_userbyid(schedule.owner) ~ '^unknown [(]OID=' THEN pg_catalog.format('role with OID %s does not exist', schedule.owner)
        WHEN worker.id IS NULL THEN coalesce((SELECT pg_catalog.format('worker "%s" is unregistered', gone.name) FROM bgw.worker AS gone WHERE gone.id = schedule.worker_id),
                                             'its worker does not exist')
        WHEN first_waiting IS NOT NULL THEN (SELECT obstacle FROM bgw.process CROSS JOIN LATERAL bgw.obstacle(process, worker) WHERE process.id = first_waiting)
        WHEN NOT schedule.active THEN 'bgw_resume'
        WHEN NOT worker.enabled THEN 'worker is not enabled'
        WHEN worker.scope <> 'one' THEN pg_catalog.format('worker "%s" runs in every database', worker.name)
        WHEN worker.max_instances <= (SELECT count(*) FROM bgw.process WHERE process.worker_id = worker.id AND process.schedule_id IS DISTINCT FROM schedule.id)
            THEN pg_catalog.format('the end of another process of worker "%s": max_instances is %s', worker.name, worker.max_instances)
        WHEN state.error IS NOT NULL THEN state.error
        WHEN NOT (SELECT bgw.has_live_node()) THEN 'a controller: none is running'
        WHEN state.schedule_id IS NULL THEN 'its turn'
        WHEN state.due_at IS NOT NULL THEN 'its next due time'
        WHEN schedule.parsed = '{}' THEN 'the first controller to join'
        ELSE 'nothing: it has no due time any more'
    END;
END;
$$;
COMMENT ON FUNCTION bgw.schedule_obstacle(bgw.schedule, bgw.schedule_state, bgw.worker, bigint) IS 'Why nothing of a schedule is running.';

CREATE OR REPLACE VIEW public.bgw_schedules AS
    SELECT (row.schedule).name, pg_catalog.pg_get_userbyid((row.schedule).owner) AS owner,
           coalesce((row.schedule).schedule, 'at ' || (row.schedule).at) AS schedule, (row.schedule).timezone, (row.worker).name AS worker, (row.worker).command,
           bgw.database_of((row.worker).database, (row.schedule).owner, (row.worker).settings) AS database, (row.schedule).active,
           (row.state).last_started_at AS last_run, (row.state).last_finished_at, (row.state).last_status,
           CASE WHEN (row.schedule).active THEN (row.state).starts_at END AS next_run, row.running, row.backlog,
           coalesce((row.state).ran, 0) AS ran, coalesce((row.state).coalesced, 0) AS coalesced, coalesce((row.state).skipped, 0) AS skipped,
           coalesce((row.state).missed, 0) AS missed, coalesce((row.state).failed, 0) AS failed,
           CASE WHEN row.running = 0 THEN row.waiting_for END AS waiting_for,
           (row.schedule).on_overlap, (row.schedule).on_missed, (row.schedule).jitter, (row.worker).timeout, (row.worker).failure_limit - 1 AS retries,
           (row.schedule).valid_from, (row.schedule).valid_until, (row.schedule).exceptions, (row.schedule).priority, (row.schedule).main_arg, (row.schedule).id AS schedule_id
    FROM bgw.read_schedules() AS row;
COMMENT ON VIEW public.bgw_schedules IS
'Every schedule.  last_run, last_status: of the last run that began, and ended.  next_run: when it starts next, with its jitter.  running, backlog: processes that run, and that wait.
Counters since it was made: ran (finished), failed of these; due times that were coalesced (into a run that waited), skipped (an earlier run was there, or its worker cannot be launched), missed (nobody was there).
waiting_for: why nothing of it is running.  on_overlap, on_missed: the arguments overlap and missed of bgw_schedule.
Example: SELECT name, schedule, last_status, next_run, waiting_for FROM bgw_schedules;';
GRANT SELECT ON public.bgw_schedules TO PUBLIC;

CREATE OR REPLACE FUNCTION bgw.read_ticks() RETURNS SETOF bgw.tick
LANGUAGE sql STABLE
AS $$ SELECT * FROM bgw.tick $$;
COMMENT ON FUNCTION bgw.read_ticks() IS 'Due times that the reader may see.';

CREATE OR REPLACE VIEW public.bgw_schedule_history AS
    SELECT (row.schedule).name, pg_catalog.pg_get_userbyid((row.schedule).owner) AS owner, tick.due_at, tick.outcome, tick.process_id AS handle, tick.recorded_at
    FROM bgw.read_ticks() AS tick JOIN bgw.read_schedules() AS row ON (row.schedule).id = tick.schedule_id;
COMMENT ON VIEW public.bgw_schedule_history IS
'One row per due time of the last seven days, some 1,000 per schedule that is there.  outcome: launched (handle says as what; bgw_run_history how it went), coalesced into a run that waited already,
skipped since an earlier run was there or its worker could not be launched, missed since nobody was there in time.
Example: SELECT due_at, outcome FROM bgw_schedule_history WHERE name = ''nightly'' ORDER BY due_at DESC LIMIT 10;';
GRANT SELECT ON public.bgw_schedule_history TO PUBLIC;
