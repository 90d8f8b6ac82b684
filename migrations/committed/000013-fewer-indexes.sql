--! Previous: sha1:2b501e5cf1aa4e9b9f2b2add1c5866720b0dd88a
--! Hash: sha1:0b1a3091d5749f24f5d0584e43206aafd90bc1d0

-- Each launch or claim wrote an entry; those who looked there are few: a fencing, an end of a node, a signal by name.
DROP INDEX bgw.process_of_node, bgw.process_has_name;
