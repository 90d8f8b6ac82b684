-- bgw.ring: tell the nodes to look.  A doorbell with a constant payload: a notification says "look", never what.
-- Called by every function of api/.  Keeps I9: a launch commits with the notification queue full, or in a
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
server''s notification queue is half full: the nodes then see the change at their next poll, within two seconds.';

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
