--! Previous: sha1:0b1a3091d5749f24f5d0584e43206aafd90bc1d0
--! Hash: sha1:3758c8b30b4f284e6317d7885662fb5671e96c8e

-- Whoever waits for a process asks whether a controller is alive: of a node at rest that is whether its control session is there.
GRANT SELECT (control_pid, control_backend_start) ON bgw.node TO PUBLIC;
