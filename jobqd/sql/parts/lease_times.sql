-- When node `n` renewed its lease and when that ends, as finite times: an UPDATE by hand may have set others.
SELECT CASE WHEN f.fine THEN n.renewed_at ELSE '2000-01-01' END AS renewed_at,
               CASE WHEN f.fine THEN n.expires_at ELSE '2000-01-01 00:01' END AS expires_at
          FROM (SELECT isfinite(n.renewed_at) AND isfinite(n.expires_at) AND n.renewed_at < '100000-01-01' AS fine) f
