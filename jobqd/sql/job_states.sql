-- The states' names, and whether one is among them.
--   $1 a state
SELECT string_agg(s.state::text, ', '), coalesce(bool_or(s.state::text = $1), false)
  FROM unnest(enum_range(NULL::@schema@.job_state)) s (state)
