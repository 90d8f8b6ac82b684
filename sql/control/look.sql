-- bgw.look: what there is for a node to do: one statement, each part one look at an index.
-- Called by take_orders, each time that a node turns: mostly there is nothing, or one process to start, so nothing else is called.
-- Next: sql/control/claim_startable.sql.

CREATE OR REPLACE FUNCTION bgw.look(node_id bigint, login oid, since double precision DEFAULT '-infinity', is_poll boolean DEFAULT true,
    OUT others boolean, OUT house boolean, OUT schedules boolean, OUT databases boolean, OUT chores boolean,
    OUT notices boolean, OUT naps boolean, OUT starts boolean, OUT idle boolean, OUT due_at timestamptz)
LANGUAGE plpgsql
AS $$
DECLARE
    present timestamptz := bgw.now();
BEGIN
    SELECT EXISTS (SELECT FROM bgw.node WHERE bgw.node.id <> look.node_id AND (bgw.is_past(node) OR NOT bgw.is_there(node.control_pid, node.control_backend_start))),
           EXISTS (SELECT FROM bgw.duty WHERE duty.name = 'keep_house' AND duty.due_at <= present),
           EXISTS (SELECT FROM bgw.schedule_state WHERE schedule_state.starts_at <= present) OR EXISTS (SELECT FROM bgw.schedule_change),
           -- Of owners that have a login: of the others there may be a million.
           EXISTS (SELECT FROM bgw.login AS known JOIN bgw.worker ON worker.owner = known.owner AND worker.scope = 'every_database'),
           EXISTS (SELECT FROM bgw.signal) OR EXISTS (SELECT FROM bgw.interruption)
               OR EXISTS (SELECT FROM bgw.process WHERE process.node_id IS NULL AND process.stop_requested_at IS NOT NULL)
               OR EXISTS (SELECT FROM bgw.login AS known JOIN bgw.worker ON worker.owner = known.owner AND worker.unregistered
                          JOIN bgw.process ON process.worker_id = worker.id AND process.node_id IS NULL),
           EXISTS (SELECT FROM bgw.process WHERE process.run_id IS NULL AND process.owner = look.login AND NOT process.takes_slot),
           EXISTS (SELECT FROM bgw.process WHERE process.run_id IS NULL AND process.owner = look.login AND process.takes_slot AND process.turn >= since),
           -- Asked by a node that has nothing to do: beside an old snapshot that is a walk over all that was.
           CASE WHEN is_poll THEN (SELECT process.id FROM bgw.process ORDER BY process.id DESC LIMIT 1) IS NULL ELSE false END,
           least((SELECT process.next_start FROM bgw.process WHERE process.next_start IS NOT NULL AND process.next_start > present ORDER BY process.next_start LIMIT 1),
                 (SELECT schedule_state.starts_at FROM bgw.schedule_state WHERE schedule_state.starts_at IS NOT NULL ORDER BY schedule_state.starts_at LIMIT 1))
    INTO others, house, schedules, databases, notices, naps, starts, idle, due_at;
    chores := others OR house OR schedules OR databases;
    -- The poll interval: the longest that a lost notification may delay anything (I10).
    due_at := least(due_at, present + CASE WHEN idle THEN interval '4 s' ELSE interval '2 s' END);
END;
$$;
COMMENT ON FUNCTION bgw.look(bigint, oid, double precision, boolean) IS
'What there is to do for a node of that login, starts of no earlier turn than since.  chores: others, house, schedules or databases; notices: signals,
interruptions, or processes that were stopped before they started; naps, starts: processes that wait.  idle: it is a poll, and no
process is registered.  due_at: when to look again: at the next restart or due time, at the latest in two seconds; in four if it is idle.';
