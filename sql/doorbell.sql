-- bgw.ring: tell the nodes to look.  A doorbell with a constant payload: a notification says "look", never what.
-- Called by the functions of api/; for a launch when it commits, by the trigger launch_rings, and only if some node is not awake:
-- commits that notify wait for each other.  Keeps I9: a launch commits with the notification queue full, or in a
-- two-phase commit after SET bgw.notify = off.  A ring that is lost costs one poll interval (I10).
-- Next: src/doorbell.ts on every node, then src/controller.ts.

CREATE OR REPLACE FUNCTION bgw.ring() RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF bgw.may_notify() THEN
        PERFORM pg_catalog.pg_notify('bgw', '');
    END IF;
END;
$$;
COMMENT ON FUNCTION bgw.ring() IS
'Wakes the nodes when the transaction commits.  Does nothing where SET bgw.notify = off (needed before PREPARE TRANSACTION) or while the
server''s notification queue is half full: the nodes then see the change at their next poll, within two seconds, or four if no process is registered.';

CREATE OR REPLACE FUNCTION bgw.may_notify() RETURNS boolean
LANGUAGE plpgsql
AS $$
BEGIN
    -- A NOTIFY into a full queue would abort the transaction that commits it, hence the half.
    RETURN coalesce(pg_catalog.current_setting('bgw.notify', true), '') NOT IN ('off', 'false', '0', 'no')
        AND pg_catalog.pg_notification_queue_usage() < 0.5;
END;
$$;
COMMENT ON FUNCTION bgw.may_notify() IS 'Whether this transaction may send notifications: bgw.notify is not off, and the queue of the server not half full.';

CREATE OR REPLACE FUNCTION bgw.ring_unless_awake() RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    -- After SET CONSTRAINTS ALL IMMEDIATE the transaction may launch more.
    PERFORM pg_catalog.set_config('bgw.doorbell', '', true);
    IF NOT bgw.nodes_are_awake() THEN
        PERFORM bgw.ring();
    END IF;
END;
$$;
COMMENT ON FUNCTION bgw.ring_unless_awake() IS 'bgw.ring, for a transaction that is about to commit a launch.  Called by the trigger launch_rings.';

CREATE OR REPLACE FUNCTION bgw.nodes_are_awake() RETURNS boolean
LANGUAGE plpgsql
AS $$
DECLARE
    now timestamptz := bgw.now();
BEGIN
    -- Farther off than a node ever promises: the clock was set back.
    RETURN (SELECT coalesce(pg_catalog.bool_and(coalesce(node.awake_until > now AND node.awake_until <= now + bgw.awake(), false)), false)
            FROM bgw.node WHERE NOT node.fenced AND node.lease_until > now);
END;
$$;
COMMENT ON FUNCTION bgw.nodes_are_awake() IS
'Whether there are nodes, and every one has said that it looks by itself: bgw.stay_awake.  A node that is not, of whatever login, is rung.';

CREATE OR REPLACE FUNCTION bgw.awake() RETURNS interval
LANGUAGE sql IMMUTABLE
AS $$ SELECT interval '500 ms' $$;
COMMENT ON FUNCTION bgw.awake() IS 'How long a node that several backends ring looks by itself; prolonged while they go on.';
