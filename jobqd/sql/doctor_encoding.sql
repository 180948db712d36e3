-- Whether the database holds any text: jobq's args and results are UTF-8.
SELECT CASE current_setting('server_encoding') WHEN 'UTF8' THEN 'ok' ELSE 'fail' END,
       CASE current_setting('server_encoding') WHEN 'UTF8' THEN 'the database''s encoding is UTF8'
            ELSE format('the database''s encoding is %s, and jobq needs UTF8: jobs with other letters fail here, or fail to end',
                        current_setting('server_encoding')) END,
       CASE current_setting('server_encoding') WHEN 'UTF8' THEN NULL
            ELSE format('CREATE DATABASE %I TEMPLATE template0 ENCODING ''UTF8'' LC_COLLATE ''C'' LC_CTYPE ''C''',
                        current_database() || '_utf8') END
