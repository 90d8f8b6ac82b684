-- bgw_nodes: the controllers of this database.  Written by sql/control/join_node.sql.  Everybody may see them.

CREATE OR REPLACE VIEW public.bgw_nodes AS
    SELECT node.id AS node_id, node.name AS node, pg_catalog.pg_get_userbyid(node.login) AS login,
           CASE WHEN node.fenced THEN 'fenced' WHEN NOT bgw.is_live(node.fenced, node.lease_until, node.control_pid, node.control_backend_start) THEN 'lease over' ELSE 'running' END AS status,
           node.joined_at, node.lease_until, node.max_worker_processes, node.libraries
    FROM bgw.node;
COMMENT ON VIEW public.bgw_nodes IS
'The controllers of this database.  login: the role whose workers it runs.  status: running, lease over (not heard of), fenced (being taken over).
lease_until: 15 seconds after it was last heard of; 90 while no process is registered, and then the control session has to be there as well.
Example: SELECT * FROM bgw_nodes;';
GRANT SELECT ON public.bgw_nodes TO PUBLIC;
