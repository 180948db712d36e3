-- Whose the schema is, where that is a role that we are a member of: what a step makes is to be its own, too.
WITH RECURSIVE
@strangers@
SELECT quote_ident(pg_get_userbyid(o.owner)) FROM owned o WHERE o.owner NOT IN (SELECT me.oid FROM me)
