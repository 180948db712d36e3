-- Deletes from the history what the leader's configuration and the living nodes' queues do not keep, some pages of it: 1
-- when there is more to do.
--   $1 how long cancelled jobs are kept, in ms  $2 the same for discarded ones (each null: until their day is dropped)
--   $3 how many pages
SELECT @schema@._prune_history(jsonb_strip_nulls(jsonb_build_object('cancelled_ms', $1::bigint, 'discarded_ms', $2::bigint,
                                                                   'queues', @schema@._queues_retention())), $3::int)
