-- Drops one partition that is out of its time; the answer says whether more is left to drop: 1, or
-- -1 for what is locked by now.
--   $1 how long completed jobs are kept, in ms  $2 the same for cancelled and discarded ones
SELECT @schema@._drop_partitions($1 * interval '1 millisecond', $2 * interval '1 millisecond')
