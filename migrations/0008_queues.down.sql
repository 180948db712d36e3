-- Undoes migration 8: the settings of single nodes are forgotten; those of whole queues stay in `queues`, which nobody reads.

DROP FUNCTION @schema@.scale(text, int, text);
DROP FUNCTION @schema@.resume(text, text);
DROP FUNCTION @schema@.pause(text, text);
DROP FUNCTION @schema@.check_queue_node(text, text, text);
DROP TABLE @schema@.queue_nodes;
