-- Whether what jobq made calls functions and operators of PostgreSQL's and its own alone.
WITH
@bound@
SELECT 'fail', b.what, b.remedy FROM bound b ORDER BY b.what
