-- The states' names, and whether all of these are among them.
--   $1 states, separated by commas
SELECT string_agg(s.state::text, ', '), string_to_array($1, ',') <@ array_agg(s.state::text)
  FROM unnest(enum_range(NULL::@schema@.job_state)) s (state)
