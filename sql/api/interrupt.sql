-- bgw_interrupt_database: make room for CREATE DATABASE ... TEMPLATE, ALTER DATABASE ... RENAME or SET TABLESPACE, DROP DATABASE.
-- PostgreSQL counterpart: BGWORKER_INTERRUPTIBLE, where the server ends such workers by itself.
-- Next: sql/control/interrupt_databases.sql on every node.

CREATE OR REPLACE FUNCTION public.bgw_interrupt_database(name text) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    owner oid := (SELECT datdba FROM pg_catalog.pg_database WHERE datname = bgw_interrupt_database.name);
BEGIN
    IF owner IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_catalog_name',
            MESSAGE = pg_catalog.format('database "%s" does not exist', bgw_interrupt_database.name);
    ELSIF NOT pg_catalog.pg_has_role(owner, 'USAGE') THEN
        RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
            MESSAGE = pg_catalog.format('must be owner of database %s', bgw_interrupt_database.name);
    ELSIF bgw_interrupt_database.name = pg_catalog.current_database() THEN
        RAISE EXCEPTION USING ERRCODE = 'object_in_use',
            MESSAGE = pg_catalog.format('database "%s" cannot be interrupted: it is the one that the controllers work from', bgw_interrupt_database.name),
            HINT = 'Stop the controllers.';
    END IF;
    INSERT INTO bgw.interruption (database) VALUES (bgw_interrupt_database.name);
    PERFORM bgw.ring();
END;
$$;
COMMENT ON FUNCTION public.bgw_interrupt_database(text) IS
'Makes the controllers leave a database when the transaction commits, so that DROP DATABASE, CREATE DATABASE ... TEMPLATE and ALTER DATABASE ... RENAME are
not blocked by them: idle sessions are closed, workers with the flag interruptible are ended.  For ten seconds none of them is started there;
then those that restart come back.  Workers without the flag go on.  Call it by itself, then the command.
Errors: 3D000 no such database, 42501 it is not yours, 55006 it is the database of this catalog.
Example: SELECT bgw_interrupt_database(''old_shop'');';
