SET allow_system_table_mods = on;
SET client_min_messages = warning;
SET check_function_bodies = off;

-- Where a statement runs.
CREATE FUNCTION pg_catalog.gp_execution_segment() RETURNS integer
  LANGUAGE sql STABLE PARALLEL SAFE AS 'SELECT {{.Content}}';
CREATE FUNCTION pg_catalog.gp_execution_dbid() RETURNS integer
  LANGUAGE sql STABLE PARALLEL SAFE AS 'SELECT {{.Dbid}}';

-- The cluster's instances; filled on the coordinator only, as in Greenplum.
CREATE FUNCTION pg_catalog.gp_read_segment_configuration() RETURNS SETOF text[]
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT string_to_array(line, '|')
  FROM string_to_table(pg_read_file({{lit .ConfigurationFile}}), E'\n') AS line
  WHERE line <> ''
$f$;
CREATE VIEW pg_catalog.gp_segment_configuration AS
  SELECT f[1]::smallint AS dbid, f[2]::smallint AS content,
         f[3]::"char" AS role, f[4]::"char" AS preferred_role,
         f[5]::"char" AS mode, f[6]::"char" AS status,
         f[7]::integer AS port, f[8] AS hostname, f[9] AS address, f[10] AS datadir
  FROM pg_catalog.gp_read_segment_configuration() AS f{{if not .Coordinator}} WHERE false{{end}};
GRANT SELECT ON pg_catalog.gp_segment_configuration TO PUBLIC;

CREATE VIEW pg_catalog.gp_id AS
  SELECT 'Greenplum'::name AS gpname, (SELECT count(*) FROM pg_catalog.gp_read_segment_configuration() AS f WHERE f[2] <> '-1' AND f[3] = 'p')::smallint AS numsegments,
         {{.Dbid}}::smallint AS dbid, ({{.Content}})::smallint AS content;
GRANT SELECT ON pg_catalog.gp_id TO PUBLIC;

CREATE VIEW pg_catalog.gp_stat_replication AS
  SELECT pg_catalog.gp_execution_segment() AS gp_segment_id, r.* FROM pg_catalog.pg_stat_replication r;
GRANT SELECT ON pg_catalog.gp_stat_replication TO PUBLIC;

-- Where rows go. Filled on the coordinator only.
CREATE TABLE pg_catalog.gp_distribution_policy (
  localoid oid PRIMARY KEY, policytype "char" NOT NULL, numsegments integer NOT NULL,
  distkey int2vector NOT NULL, distclass oidvector NOT NULL);
GRANT SELECT ON pg_catalog.gp_distribution_policy TO PUBLIC;

-- Functions with EXECUTE ON other than ANY: c coordinator, s all segments, i initplan.
CREATE TABLE pg_catalog.gp_function_location (funcoid oid PRIMARY KEY, location "char" NOT NULL);
GRANT SELECT ON pg_catalog.gp_function_location TO PUBLIC;

CREATE FUNCTION pg_catalog.gp_check_owner(owner oid, what text) RETURNS void
  LANGUAGE plpgsql STABLE AS $f$
BEGIN
  IF NOT pg_catalog.pg_has_role(session_user, owner, 'USAGE') THEN
    RAISE EXCEPTION 'must be owner of %', what USING ERRCODE = '42501';
  END IF;
END $f$;

CREATE FUNCTION pg_catalog.gp_set_policy(rel oid, kind "char", segments integer, keys int2vector) RETURNS void
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  PERFORM gp_check_owner(c.relowner, 'table ' || c.relname) FROM pg_class c WHERE c.oid = rel;
  INSERT INTO gp_distribution_policy
  SELECT rel, kind, segments, keys,
         COALESCE((SELECT string_agg(COALESCE((
             SELECT o.oid FROM pg_opclass o JOIN pg_am m ON m.oid = o.opcmethod
             WHERE m.amname = 'hash' AND o.opcdefault AND o.opcintype = a.atttypid LIMIT 1), 0)::text, ' ' ORDER BY k.ord)
           FROM unnest(keys::int2[]) WITH ORDINALITY AS k(att, ord)
           JOIN pg_attribute a ON a.attrelid = rel AND a.attnum = k.att), '')::oidvector
  ON CONFLICT (localoid) DO UPDATE SET policytype = EXCLUDED.policytype,
    numsegments = EXCLUDED.numsegments, distkey = EXCLUDED.distkey, distclass = EXCLUDED.distclass;
  PERFORM gp_label_policies(rel);
END $f$;

CREATE FUNCTION pg_catalog.gp_set_function_location(func oid, loc "char") RETURNS void
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  PERFORM gp_check_owner(p.proowner, 'function ' || p.proname) FROM pg_proc p WHERE p.oid = func;
  DELETE FROM gp_function_location WHERE funcoid = func;
  IF loc <> 'a' THEN
    INSERT INTO gp_function_location VALUES (func, loc);
  END IF;
END $f$;

-- Segments fire no triggers (session_replication_role), but for those that check
-- unique and exclusion constraints which are deferrable.
-- Says whether there were any that did not.
CREATE FUNCTION pg_catalog.gp_enforce_deferrable() RETURNS boolean
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE t record; any_found boolean := false;
BEGIN
  FOR t IN SELECT c.oid::regclass AS rel, tgname FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid
           WHERE tgfoid = 'unique_key_recheck'::regproc AND tgenabled <> 'A'
             AND (relpersistence <> 't' OR relnamespace = pg_my_temp_schema()) LOOP
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', t.rel, t.tgname);
    any_found := true;
  END LOOP;
  RETURN any_found;
END $f$;

-- True, and tells the dispatcher that the statement has its snapshot.
CREATE FUNCTION pg_catalog.gp_snapshot_taken() RETURNS boolean
  LANGUAGE plpgsql AS $f$
BEGIN
  RAISE INFO 'the snapshot is taken' USING ERRCODE = 'TL001';
  RETURN true;
END $f$;

-- Waits until nobody has locked a table against all others, or it is gone.
CREATE FUNCTION pg_catalog.gp_await_definition(rel oid) RETURNS void
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE t text := (SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname)
                   FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = rel AND c.relkind IN ('r', 'p', 'v'));
BEGIN
  IF t IS NOT NULL THEN EXECUTE 'LOCK TABLE ONLY ' || t || ' IN ACCESS SHARE MODE'; END IF;
EXCEPTION WHEN undefined_table THEN NULL;
END $f$;

-- Rows about objects that a DROP has removed. Says how many went.
CREATE FUNCTION pg_catalog.gp_forget_dropped() RETURNS void
  LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  DELETE FROM gp_distribution_policy p WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = p.localoid);
  DELETE FROM gp_function_location l WHERE NOT EXISTS (SELECT FROM pg_proc p WHERE p.oid = l.funcoid);
$f$;

CREATE FUNCTION pg_catalog.pg_get_table_distributedby(rel oid) RETURNS text
  LANGUAGE sql STABLE SET search_path = pg_catalog AS $f$
  SELECT CASE WHEN p.policytype = 'r' THEN 'DISTRIBUTED REPLICATED'
              WHEN p.distkey = ''::int2vector THEN 'DISTRIBUTED RANDOMLY'
              ELSE 'DISTRIBUTED BY (' || (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY k.ord)
                FROM unnest(p.distkey::int2[]) WITH ORDINALITY AS k(att, ord)
                JOIN pg_attribute a ON a.attrelid = rel AND a.attnum = k.att) || ')' END
  FROM gp_distribution_policy p WHERE p.localoid = rel
$f$;

-- Policies stand in security labels as well, for pg_dump, which writes those of
-- all providers and knows nothing of DISTRIBUTED. PostgreSQL drops a label with
-- its table. Without a table: the labels of all, after columns were renamed.
CREATE FUNCTION pg_catalog.gp_label_policies(rel oid DEFAULT NULL) RETURNS void
  LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET allow_system_table_mods = on AS $f$
  DELETE FROM pg_seclabel l USING gp_distribution_policy p
    WHERE l.classoid = 'pg_class'::regclass AND l.objoid = p.localoid AND l.objsubid = 0 AND l.provider = 'greenplum'
      AND (rel IS NULL OR p.localoid = rel) AND l.label <> pg_get_table_distributedby(p.localoid);
  INSERT INTO pg_seclabel (objoid, classoid, objsubid, provider, label)
    SELECT p.localoid, 'pg_class'::regclass, 0, 'greenplum', pg_get_table_distributedby(p.localoid) FROM gp_distribution_policy p
    WHERE (rel IS NULL OR p.localoid = rel)
      AND NOT EXISTS (SELECT FROM pg_seclabel l WHERE l.classoid = 'pg_class'::regclass AND l.objoid = p.localoid AND l.objsubid = 0 AND l.provider = 'greenplum');
$f$;

-- What the planner wants to know of a relation, in one round trip; null when
-- the name resolves to nothing.
CREATE FUNCTION pg_catalog.gp_relation(nsp text, rel text) RETURNS json
  LANGUAGE plpgsql STABLE AS $f$
DECLARE
  -- Whether the user may use the schema is asked where the table is read: the
  -- tables of a view may be in one that he may not.
  o oid := CASE WHEN nsp IN ('', 'pg_temp') THEN pg_catalog.to_regclass(CASE WHEN nsp = '' THEN '' ELSE 'pg_temp.' END || pg_catalog.quote_ident(rel))
    ELSE (SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = nsp AND c.relname = rel) END;
BEGIN
  IF o IS NULL THEN RETURN NULL; END IF;
  RETURN (SELECT pg_catalog.json_build_object(
    'oid', c.oid::bigint, 'schema', n.nspname, 'name', c.relname, 'kind', c.relkind, 'temp', c.relpersistence = 't',
    'owner', pg_catalog.pg_get_userbyid(c.relowner), 'children', c.relkind = 'p' OR c.relhassubclass AND EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhparent = c.oid AND i.inhseqno > 0),
    'readable', pg_catalog.has_table_privilege(c.oid, 'SELECT'), 'allowed', pg_catalog.has_any_column_privilege(c.oid, 'SELECT'),
    'pk', (SELECT i.indkey::text FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate),
    'secured', c.relrowsecurity,
    'below', CASE WHEN c.relkind = 'r' AND c.relhassubclass THEN (
        WITH RECURSIVE below(oid) AS (SELECT i.inhrelid FROM pg_catalog.pg_inherits i WHERE i.inhparent = c.oid
          UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN below b ON i.inhparent = b.oid)
        SELECT pg_catalog.json_build_object('temp', pg_catalog.bool_or(k.relpersistence = 't'), 'keys', pg_catalog.json_agg(DISTINCT a.attname))
        FROM below b JOIN pg_catalog.pg_class k ON k.oid = b.oid LEFT JOIN pg_catalog.gp_distribution_policy d ON d.localoid = b.oid
        LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = b.oid AND a.attnum = ANY (d.distkey)) END,
    'policy', p.policytype, 'keys', p.distkey::text, 'segments', p.numsegments,
    'view', CASE WHEN c.relkind = 'v' AND n.nspname NOT IN ('pg_catalog', 'information_schema') THEN pg_catalog.pg_get_viewdef(c.oid) END,
    'cols', (SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
        'n', a.attname, 'num', a.attnum, 't', a.atttypid::bigint, 'b', CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE a.atttypid END::bigint,
        'tt', t.typtype, 'bin', t.typsend <> 0, 'f', pg_catalog.format_type(a.atttypid, a.atttypmod), 'f0', pg_catalog.format_type(a.atttypid, NULL),
        'c', CASE WHEN a.attcollation <> t.typcollation THEN (SELECT pg_catalog.quote_ident(cn.nspname) || '.' || pg_catalog.quote_ident(co.collname)
               FROM pg_catalog.pg_collation co JOIN pg_catalog.pg_namespace cn ON cn.oid = co.collnamespace WHERE co.oid = a.attcollation) END,
        'nn', a.attnotnull, 'g', a.attgenerated, 'i', a.attidentity,
        'd', CASE WHEN a.atthasdef THEN pg_catalog.pg_get_expr(d.adbin, d.adrelid)
                  WHEN a.attidentity <> '' THEN 'pg_catalog.nextval(' || pg_catalog.quote_literal(pg_catalog.pg_get_serial_sequence(
                    pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname), a.attname)) || ')'
                  WHEN t.typtype = 'd' THEN t.typdefault END) ORDER BY a.attnum)
      FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
      LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
      WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped))
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_catalog.gp_distribution_policy p ON p.localoid = c.oid
    WHERE c.oid = o);
END $f$;

-- What the planner wants to know of all functions of a name.
CREATE FUNCTION pg_catalog.gp_function(nsp text, func text) RETURNS json
  LANGUAGE sql STABLE AS $f$
  SELECT CASE WHEN count(*) = 0 THEN NULL ELSE pg_catalog.json_build_object(
    'builtin', pg_catalog.bool_and(p.oid < 16384),
    'volatile', pg_catalog.bool_or(p.provolatile = 'v'),
    'stable', pg_catalog.bool_or(p.provolatile = 's'),
    'aggregate', pg_catalog.bool_or(p.prokind = 'a'), 'window', pg_catalog.bool_or(p.prokind = 'w'),
    'srf', pg_catalog.bool_or(p.proretset), 'location', COALESCE(pg_catalog.max(l.location::text), 'a')) END
  FROM pg_catalog.pg_proc p LEFT JOIN pg_catalog.gp_function_location l ON l.funcoid = p.oid
  WHERE p.proname = func AND (nsp = '' OR p.pronamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = nsp))
$f$;

-- The user's functions, aggregates and views with their text, and the
-- distributed tables: from both the QD sees which tables a function may read.
CREATE FUNCTION pg_catalog.gp_function_sources() RETURNS json
  LANGUAGE sql STABLE AS $f$
  SELECT pg_catalog.json_build_object(
    'texts', COALESCE((SELECT pg_catalog.json_object_agg(f.name, f.src) FROM (
        SELECT t.name, pg_catalog.string_agg(t.src, E'\n') AS src FROM (
          SELECT p.proname AS name, CASE WHEN l.lanname IN ('c', 'internal') THEN ''
              ELSE COALESCE(pg_catalog.pg_get_function_sqlbody(p.oid), p.prosrc) END AS src
            FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang
            WHERE p.oid >= 16384 AND p.prokind <> 'a' AND p.pronamespace <> 'pg_catalog'::regnamespace
          UNION ALL
          SELECT p.proname, pg_catalog.concat_ws(' ', a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn)
            FROM pg_catalog.pg_aggregate a JOIN pg_catalog.pg_proc p ON p.oid = a.aggfnoid
            WHERE p.oid >= 16384 AND p.pronamespace <> 'pg_catalog'::regnamespace
          UNION ALL
          SELECT c.relname, pg_catalog.pg_get_viewdef(c.oid) FROM pg_catalog.pg_class c
            WHERE c.relkind = 'v' AND c.oid >= 16384 AND c.relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)) t
        GROUP BY t.name) f), '{}'),
    'tables', COALESCE((SELECT pg_catalog.json_agg(pg_catalog.json_build_object('oid', c.oid::bigint, 'schema', n.nspname, 'name', c.relname,
          'plain', c.relkind = 'r' AND NOT c.relispartition,
          'parents', (SELECT pg_catalog.json_agg(i.inhparent::bigint) FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid)))
        FROM pg_catalog.gp_distribution_policy d JOIN pg_catalog.pg_class c ON c.oid = d.localoid
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace), '[]'))
$f$;

-- The user's functions that a statement may call without naming them: by
-- operators (by their names), and by casts and domains (under the name "").
CREATE FUNCTION pg_catalog.gp_hidden_calls() RETURNS json
  LANGUAGE sql STABLE AS $f$
  SELECT COALESCE(pg_catalog.json_object_agg(h.op, h.funcs), '{}') FROM (
    SELECT h.op, pg_catalog.json_agg(DISTINCT p.proname) AS funcs
    FROM (SELECT o.oprname::text AS op, o.oprcode::oid AS func FROM pg_catalog.pg_operator o WHERE o.oid >= 16384
          UNION ALL SELECT '', c.castfunc FROM pg_catalog.pg_cast c WHERE c.oid >= 16384
          UNION ALL SELECT '', d.refobjid FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_depend d ON d.classid = 'pg_constraint'::regclass AND d.objid = k.oid
            WHERE k.contypid <> 0 AND d.refclassid = 'pg_proc'::regclass) h
    JOIN pg_catalog.pg_proc p ON p.oid = h.func JOIN pg_catalog.pg_language l ON l.oid = p.prolang
    WHERE p.oid >= 16384 AND l.lanname NOT IN ('c', 'internal') AND p.pronamespace <> 'pg_catalog'::regnamespace GROUP BY h.op) h
$f$;

-- The coordinator's copy of a distributed table stays empty, whatever a
-- function tries.
CREATE FUNCTION pg_catalog.gp_refuse_write() RETURNS trigger LANGUAGE plpgsql AS $f$
BEGIN
  RAISE EXCEPTION 'a function on the coordinator cannot change the distributed table "%"', TG_TABLE_NAME
    USING ERRCODE = '0A000', HINT = 'Send the statement from the client.';
END $f$;
CREATE FUNCTION pg_catalog.gp_protect(rel oid) RETURNS void
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET allow_system_table_mods = on AS $f$
BEGIN
  PERFORM gp_check_owner(c.relowner, 'table ' || c.relname) FROM pg_class c WHERE c.oid = rel;
  IF EXISTS (SELECT FROM pg_trigger WHERE tgrelid = rel AND tgname = 'gp_refuse_write') THEN RETURN; END IF;
  EXECUTE format('CREATE TRIGGER gp_refuse_write BEFORE INSERT OR UPDATE OR DELETE ON %s FOR EACH STATEMENT EXECUTE FUNCTION pg_catalog.gp_refuse_write()', rel::regclass);
  -- Internal triggers are nobody's business: \d and pg_dump leave them out.
  UPDATE pg_trigger SET tgisinternal = true WHERE tgrelid = rel AND tgname = 'gp_refuse_write';
  -- See gp_fill.
  UPDATE pg_class SET relhassubclass = true WHERE oid = rel AND relkind = 'r' AND NOT relispartition;
END $f$;

-- When this server has last begun to serve, in microseconds of the epoch: its
-- checkpointer starts anew after every crash, even where the postmaster goes on.
CREATE FUNCTION pg_catalog.gp_server_era() RETURNS bigint
  LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT (extract(epoch FROM backend_start) * 1000000)::bigint FROM pg_stat_activity WHERE backend_type = 'checkpointer'
$f$;

-- The QD ends the coordinator's part of a transaction whose other part failed.
CREATE FUNCTION pg_catalog.gp_fail() RETURNS void LANGUAGE plpgsql AS $f$
BEGIN
  RAISE EXCEPTION 'a statement of this transaction failed on a segment' USING ERRCODE = '25P02';
END $f$;

-- Parameters: PostgreSQL knows them with a prefix.
CREATE FUNCTION pg_catalog.gp_parameter_name(name text) RETURNS text
  LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $f$
  SELECT CASE WHEN pg_catalog.lower(name) = ANY (ARRAY[{{.Names}}]) THEN 'trunkline.' || pg_catalog.lower(name) ELSE name END
$f$;
CREATE FUNCTION pg_catalog.gp_current_setting(text) RETURNS text
  LANGUAGE sql STABLE STRICT PARALLEL SAFE AS 'SELECT pg_catalog.current_setting(pg_catalog.gp_parameter_name($1))';
CREATE FUNCTION pg_catalog.gp_current_setting(text, boolean) RETURNS text
  LANGUAGE sql STABLE STRICT PARALLEL SAFE AS 'SELECT pg_catalog.current_setting(pg_catalog.gp_parameter_name($1), $2)';
CREATE FUNCTION pg_catalog.gp_set_config(text, text, boolean) RETURNS text
  LANGUAGE sql VOLATILE AS 'SELECT pg_catalog.set_config(pg_catalog.gp_parameter_name($1), $2, $3)';

CREATE VIEW pg_catalog.gp_pg_settings AS
  SELECT * FROM pg_catalog.pg_settings
  UNION ALL
  SELECT v.name, s.setting, v.unit, v.category, v.short_desc, NULL, v.context, v.vartype,
         CASE WHEN s.setting IS DISTINCT FROM v.boot_val THEN 'configuration file' ELSE 'default' END,
         v.min_val, v.max_val, v.enumvals::text[], v.boot_val, s.setting, NULL, NULL::integer, false
  FROM (VALUES {{range $i, $p := .Parameters}}{{if $i}},
    {{end}}({{lit .Name}}, {{.Unit}}, {{lit .Category}}, {{lit .Short}}, {{lit .Context}}, {{lit .Type}}, {{.Min}}, {{.Max}}, {{.Enum}}, {{lit .Default}}){{end}})
    AS v(name, unit, category, short_desc, context, vartype, min_val, max_val, enumvals, boot_val),
    LATERAL (SELECT COALESCE(pg_catalog.current_setting('trunkline.' || v.name, true), v.boot_val) AS setting) s;
GRANT SELECT ON pg_catalog.gp_pg_settings TO PUBLIC;

-- A function that is STABLE cannot lock by itself.
CREATE FUNCTION pg_catalog.gp_lock_to_read(tab text) RETURNS void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  EXECUTE 'LOCK TABLE ' || tab || ' IN ACCESS SHARE MODE';
END $f$;
REVOKE ALL ON FUNCTION pg_catalog.gp_lock_to_read(text) FROM PUBLIC;
-- The rows that a pass of the executor lets a slice read with the rights of a
-- view's owner; see package execute. STABLE, so that it sees what the slice
-- sees.
CREATE FUNCTION pg_catalog.gp_owner_rows(pass text) RETURNS SETOF record
  LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  p json;
  name text;
  t pg_class;
  reader pg_authid;
BEGIN
  IF pass ~ '^[A-Z0-9]{20,64}$' THEN
    p := pg_read_file('trunkline/reads/' || pass, 0, 1000000, true);
  END IF;
  IF p IS NULL OR (p->>'pid')::integer <> pg_backend_pid() THEN
    RAISE EXCEPTION 'gp_owner_rows() is for executors only' USING ERRCODE = '42501';
  END IF;
  -- What is locked stays what it is: a view in its place would run functions.
  name := format('%I.%I', p->>'schema', p->>'table');
  PERFORM gp_lock_to_read(name);
  SELECT c.* INTO STRICT t FROM pg_class c WHERE c.oid = name::regclass;
  SELECT a.* INTO reader FROM pg_authid a WHERE a.rolname = p->>'owner';
  IF t.relkind NOT IN ('r', 'p') OR reader.oid IS NULL
    OR NOT (CASE WHEN p->'columns' IS NULL THEN has_any_column_privilege(reader.oid, t.oid, 'SELECT')
      ELSE (SELECT bool_and(has_column_privilege(reader.oid, t.oid, c, 'SELECT')) FROM json_array_elements_text(p->'columns') c) END) THEN
    RAISE EXCEPTION 'permission denied for table %', p->>'table' USING ERRCODE = '42501';
  END IF;
  IF p->'filtered' IS NULL AND t.relrowsecurity AND NOT reader.rolsuper AND NOT reader.rolbypassrls
    AND (t.relforcerowsecurity OR NOT pg_has_role(reader.oid, t.relowner, 'USAGE')) THEN
    RAISE EXCEPTION 'the row-level security of table % has changed', p->>'table' USING ERRCODE = '40001', HINT = 'Try again.';
  END IF;
  RETURN QUERY EXECUTE p->>'sql';
END $f$;

-- EXPLAIN ANALYZE of a distributed statement: from now on this session's server
-- says how it has run each statement, until it is called with NULL. INFO is sent
-- whatever client_min_messages is, and is not logged.
CREATE FUNCTION pg_catalog.gp_explain_slices(options text[]) RETURNS void
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  o text;
BEGIN
  LOAD 'auto_explain';
  IF options IS NULL THEN
    PERFORM set_config('auto_explain.log_min_duration', '-1', false);
    RETURN;
  END IF;
  FOREACH o IN ARRAY ARRAY['buffers', 'wal', 'timing', 'verbose', 'settings'] LOOP
    PERFORM set_config('auto_explain.log_' || o, CASE WHEN o = ANY (options) THEN 'on' ELSE 'off' END, false);
  END LOOP;
  PERFORM set_config('auto_explain.log_format', CASE WHEN 'json' = ANY (options) THEN 'json' ELSE 'text' END, false);
  PERFORM set_config('auto_explain.log_analyze', 'on', false);
  PERFORM set_config('auto_explain.log_nested_statements', 'off', false);
  PERFORM set_config('auto_explain.log_triggers', 'off', false);
  PERFORM set_config('auto_explain.sample_rate', '1', false);
  PERFORM set_config('auto_explain.log_level', 'info', false);
  PERFORM set_config('auto_explain.log_min_duration', '0', false);
END $f$;

-- The row source: a slice's rows, read from the QD or QE over a local socket.
-- dblink streams them into a tuplestore. The variants differ in the rows
-- PostgreSQL's planner is told to expect.
CREATE FUNCTION pg_catalog.gp_motion_recv(text, text) RETURNS SETOF record
  LANGUAGE c STRICT PARALLEL RESTRICTED ROWS 1000 AS '$libdir/dblink', 'dblink_record';
{{range .RowCounts}}CREATE FUNCTION pg_catalog.gp_motion_recv_{{.Exp}}(text, text) RETURNS SETOF record
  LANGUAGE c STRICT PARALLEL RESTRICTED ROWS {{.Rows}} AS '$libdir/dblink', 'dblink_record';
{{end}}
CREATE FUNCTION pg_catalog.gp_motion_connect_u(text, text) RETURNS text
  LANGUAGE c STRICT PARALLEL RESTRICTED SECURITY DEFINER AS '$libdir/dblink', 'dblink_connect';
REVOKE ALL ON FUNCTION pg_catalog.gp_motion_connect_u(text, text) FROM PUBLIC;
CREATE FUNCTION pg_catalog.gp_motion_disconnect_u(text) RETURNS text
  LANGUAGE c STRICT PARALLEL RESTRICTED SECURITY DEFINER AS '$libdir/dblink', 'dblink_disconnect';
REVOKE ALL ON FUNCTION pg_catalog.gp_motion_disconnect_u(text) FROM PUBLIC;
-- An older connection goes: a second cancellation can hit dblink while it
-- clears up after the first, and leaves the connection busy for good.
CREATE FUNCTION pg_catalog.gp_motion_connect() RETURNS void
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  BEGIN
    PERFORM gp_motion_disconnect_u('gp_motion');
  EXCEPTION WHEN connection_does_not_exist THEN
    NULL;
  END;
  PERFORM gp_motion_connect_u('gp_motion', {{lit (printf "host=%s port=%d user=%s dbname=motion connect_timeout=10" .RowsDir .Port .Superuser)}});
END $f$;
-- pg_dump leaves alone what stands in pg_init_privs.
INSERT INTO pg_catalog.pg_init_privs (objoid, classoid, objsubid, privtype, initprivs)
  SELECT oid, 'pg_proc'::regclass, 0, 'i', proacl FROM pg_catalog.pg_proc WHERE proname IN ('gp_motion_connect_u', 'gp_motion_disconnect_u');

{{if .Coordinator -}}
-- Cancelling and ending sessions. One that is at work on the segments has a
-- process here that is idle, which a signal does not wake: so the session server
-- is told, by a connection that only the superuser's functions can make. Who may
-- have it told is decided as in PostgreSQL; the answer is whether there is such a
-- session.
CREATE FUNCTION pg_catalog.gp_tell_session(verb text, pid integer) RETURNS boolean
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  RETURN (SELECT answer FROM gp_motion_recv({{lit (printf "host=%s port=%d user=%s dbname=orders connect_timeout=10" .RowsDir .Port .Superuser)}},
    verb || ' ' || gp_tell_session.pid) AS t(answer boolean));
EXCEPTION WHEN sqlclient_unable_to_establish_sqlconnection THEN
  RETURN false; -- as in a server that no sessions are led to
END $f$;
REVOKE ALL ON FUNCTION pg_catalog.gp_tell_session(text, integer) FROM PUBLIC;
CREATE FUNCTION pg_catalog.gp_tell_other(verb text, pid integer) RETURNS boolean
  LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT gp_tell_session($1, $2) FROM pg_stat_get_activity($2) a JOIN pg_roles r ON r.oid = a.usesysid WHERE NOT r.rolsuper
$f$;
REVOKE ALL ON FUNCTION pg_catalog.gp_tell_other(text, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pg_catalog.gp_tell_other(text, integer) TO pg_signal_backend;
CREATE FUNCTION pg_catalog.gp_tell_own(verb text, pid integer) RETURNS boolean
  LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT gp_tell_session($1, $2) FROM pg_stat_get_activity($2) a JOIN pg_roles r ON r.oid = a.usesysid
  WHERE NOT r.rolsuper AND pg_has_role(session_user, r.oid, 'USAGE')
$f$;
CREATE FUNCTION pg_catalog.gp_signal_session(verb text, pid integer) RETURNS boolean
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  known boolean;
BEGIN
  IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
    known := gp_tell_session(verb, pid);
  ELSIF pg_has_role('pg_signal_backend', 'USAGE') THEN
    known := gp_tell_other(verb, pid);
  ELSIF (SELECT pg_has_role(usesysid, 'USAGE') FROM pg_stat_get_activity(gp_signal_session.pid)) THEN
    known := gp_tell_own(verb, pid);
  END IF;
  RETURN COALESCE(known, false);
END $f$;
INSERT INTO pg_catalog.pg_init_privs (objoid, classoid, objsubid, privtype, initprivs)
  SELECT oid, 'pg_proc'::regclass, 0, 'i', proacl FROM pg_catalog.pg_proc WHERE proname IN ('gp_tell_session', 'gp_tell_other');
-- PostgreSQL's own get other names: calls of their oids would not look here. A
-- session is cancelled by one of the two only, for a second signal may meet the
-- statement after the one that is meant.
ALTER FUNCTION pg_catalog.pg_cancel_backend(integer) RENAME TO gp_cancel_backend;
ALTER FUNCTION pg_catalog.pg_terminate_backend(integer, bigint) RENAME TO gp_terminate_backend;
CREATE FUNCTION pg_catalog.pg_cancel_backend(integer) RETURNS boolean
  LANGUAGE plpgsql STRICT PARALLEL RESTRICTED AS $f$
BEGIN
  RETURN pg_catalog.gp_signal_session('cancel', $1) OR pg_catalog.gp_cancel_backend($1);
END $f$;
CREATE FUNCTION pg_catalog.pg_terminate_backend(pid integer, timeout bigint DEFAULT 0) RETURNS boolean
  LANGUAGE plpgsql STRICT PARALLEL RESTRICTED AS $f$
DECLARE
  known boolean := CASE WHEN timeout >= 0 THEN pg_catalog.gp_signal_session('terminate', pid) END; -- else an error
BEGIN
  -- A session that was told may have ended already.
  RETURN known AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_get_activity(pid)) OR pg_catalog.gp_terminate_backend(pid, timeout)
    OR known AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_get_activity(pid));
END $f$;

-- A function on the coordinator reads the coordinator's copy of a table. For
-- the time of a statement the copy gets the table's rows, read from a row
-- source, by a temporary table that inherits from it. ALTER TABLE ... INHERIT
-- would make sessions that do so wait for each other: instead pg_inherits is
-- told directly, with a sequence number that PostgreSQL itself does not use.
-- Planners of other sessions do not see it, nor would they use a temporary
-- table that is not theirs. It goes with the transaction, unless it is to be
-- lasting.
CREATE FUNCTION pg_catalog.gp_fill(rel oid, token text, lasting boolean) RETURNS oid
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET allow_system_table_mods = on SET lock_timeout = '10s' AS $f$
DECLARE
  child oid;
  name text := 'pg_temp.gp_rows_' || rel || '_' || left(md5(token), 8);
  columns text := (SELECT string_agg(format('c%s %s%s', a.attnum, format_type(a.atttypid, a.atttypmod),
        CASE WHEN a.attcollation <> t.typcollation THEN ' COLLATE ' || a.attcollation::regcollation ELSE '' END), ', ' ORDER BY a.attnum)
      FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid WHERE a.attrelid = rel AND a.attnum > 0 AND NOT a.attisdropped);
BEGIN
  IF token !~ '^[0-9a-f]{32}$' THEN RAISE EXCEPTION 'not a row source' USING ERRCODE = '22023'; END IF;
  EXECUTE format('CREATE TEMPORARY TABLE %s (LIKE %s) ON COMMIT %s', name, rel::regclass, CASE WHEN lasting THEN 'PRESERVE ROWS' ELSE 'DROP' END);
  child := name::regclass;
  -- No token that this function asks for is one of a query of the user's.
  EXECUTE format('INSERT INTO %s SELECT %s FROM pg_catalog.gp_motion_recv(''gp_motion'', %L) AS t(%s)', name,
    CASE WHEN columns <> '' THEN '*' ELSE '' END, 'rows ' || rel || ' ' || token, COALESCE(columns, 'c0 boolean'));
  INSERT INTO pg_inherits (inhrelid, inhparent, inhseqno, inhdetachpending) VALUES (child, rel, 0, false);
  IF NOT (SELECT relhassubclass FROM pg_class WHERE oid = rel) THEN
    UPDATE pg_class SET relhassubclass = true WHERE oid = rel;
  END IF;
  RETURN child;
END $f$;

-- Whether gp_fill's rows need none of the users' code, which would run with
-- its rights: constraints of domains.
CREATE FUNCTION pg_catalog.gp_can_fill(rel oid) RETURNS boolean
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT NOT EXISTS (SELECT FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_type e ON e.oid = t.typelem
      WHERE a.attrelid = rel AND a.attnum > 0 AND NOT a.attisdropped AND COALESCE(e.oid, t.oid) >= 16384 AND COALESCE(e.typtype, t.typtype) NOT IN ('e', 'b'))
    OR NOT EXISTS (SELECT FROM pg_constraint k JOIN pg_depend d ON d.classid = 'pg_constraint'::regclass AND d.objid = k.oid
      WHERE k.contypid <> 0 AND d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass))
$f$;

-- Takes the rows away again; a table that an open cursor still reads goes with
-- the transaction.
CREATE FUNCTION pg_catalog.gp_unfill(children oid[]) RETURNS void
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET allow_system_table_mods = on AS $f$
DECLARE
  child oid;
BEGIN
  FOR child IN SELECT i.inhrelid FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
      WHERE i.inhrelid = ANY (children) AND i.inhseqno = 0 AND c.relnamespace = pg_my_temp_schema() LOOP
    BEGIN
      EXECUTE 'DROP TABLE ' || child::regclass;
    EXCEPTION WHEN object_in_use THEN
      DELETE FROM pg_inherits WHERE inhrelid = child;
    END;
  END LOOP;
END $f$;

-- How often this backend's transaction has scanned the coordinator's copies of
-- distributed tables, and gp_fill's tables: by a table's oid, those that were.
CREATE FUNCTION pg_catalog.gp_scans() RETURNS json
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT COALESCE(json_object_agg(s.rel, s.n), '{}') FROM (
    SELECT o.rel, sum(pg_stat_get_xact_numscans(o.oid)) AS n
    FROM (SELECT localoid AS rel, localoid AS oid FROM gp_distribution_policy
          UNION ALL SELECT i.indrelid, i.indexrelid FROM pg_index i JOIN gp_distribution_policy d ON d.localoid = i.indrelid
          UNION ALL SELECT oid, oid FROM pg_class WHERE relnamespace = pg_my_temp_schema() AND relname LIKE 'gp\_rows\_%') o
    WHERE pg_stat_get_xact_numscans(o.oid) > 0 GROUP BY o.rel) s
$f$;
CREATE FUNCTION pg_catalog.gp_count_scans() RETURNS void
  LANGUAGE sql SECURITY DEFINER AS $f$ SELECT pg_catalog.set_config('track_counts', 'on', true) $f$;

-- Before functions run: what gp_watched will want to know, and which of the
-- tables that they may read the user may read. Parallel workers would count
-- scans where nobody sees them.
CREATE FUNCTION pg_catalog.gp_watch(tables oid[]) RETURNS json
  LANGUAGE plpgsql AS $f$
DECLARE
  workers text := pg_catalog.current_setting('max_parallel_workers_per_gather');
BEGIN
  IF pg_catalog.current_setting('track_counts') = 'off' THEN PERFORM pg_catalog.gp_count_scans(); END IF;
  IF workers <> '0' THEN PERFORM pg_catalog.set_config('max_parallel_workers_per_gather', '0', true); END IF;
  RETURN pg_catalog.json_build_object('scans', pg_catalog.gp_scans(), 'workers', workers,
    'readonly', pg_catalog.current_setting('transaction_read_only')::boolean,
    'readable', COALESCE((SELECT pg_catalog.json_agg(c.oid::bigint) FROM pg_catalog.pg_class c WHERE c.oid = ANY (tables)
      AND pg_catalog.has_table_privilege(c.oid, 'SELECT') AND pg_catalog.has_schema_privilege(c.relnamespace, 'USAGE')
      AND (pg_catalog.current_setting('is_superuser') = 'on' OR pg_catalog.gp_can_fill(c.oid))), '[]'));
END $f$;

-- After functions ran: refuses the answer when one of them has read a copy that
-- was empty. One that was filled is never read without what fills it.
CREATE FUNCTION pg_catalog.gp_watched(before json) RETURNS void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  read text := (WITH more AS (SELECT k.key::oid AS oid FROM json_each_text(gp_scans()) k
      WHERE k.value::bigint > COALESCE((before->'scans'->>k.key)::bigint, 0))
    SELECT string_agg(d.localoid::regclass::text, ', ' ORDER BY d.localoid) FROM gp_distribution_policy d JOIN more m ON m.oid = d.localoid
    WHERE NOT EXISTS (SELECT FROM more JOIN pg_class c ON c.oid = more.oid
      WHERE c.relnamespace = pg_my_temp_schema() AND c.relname LIKE 'gp\_rows\_' || d.localoid || '\_%'));
BEGIN
  IF before->>'workers' <> current_setting('max_parallel_workers_per_gather') THEN
    PERFORM set_config('max_parallel_workers_per_gather', before->>'workers', true);
  END IF;
  IF read IS NOT NULL THEN
    RAISE EXCEPTION 'a function on the coordinator read %, whose rows are on the segments', read
      USING ERRCODE = '0A000', DETAIL = 'It saw an empty table.', HINT = CASE WHEN (before->>'readonly')::boolean
        THEN 'Call it in a transaction that is not read-only.'
        ELSE 'Name the table in the function''s text, where a comment will do: a partitioned one without its schema, and not after ONLY. '
          'The user of the session needs the right to SELECT from it.' END;
  END IF;
END $f$;
{{end}}
INSERT INTO pg_catalog.pg_init_privs (objoid, classoid, objsubid, privtype, initprivs)
  SELECT oid, 'pg_proc'::regclass, 0, 'i', proacl FROM pg_catalog.pg_proc WHERE proname = 'gp_lock_to_read';
INSERT INTO pg_catalog.pg_init_privs (objoid, classoid, objsubid, privtype, initprivs)
  SELECT oid, 'pg_class'::regclass, 0, 'i', relacl FROM pg_catalog.pg_class
  WHERE relname IN ('gp_id', 'gp_segment_configuration', 'gp_stat_replication', 'gp_distribution_policy', 'gp_function_location', 'gp_pg_settings')
    AND relnamespace = 'pg_catalog'::regnamespace AND relacl IS NOT NULL;
RESET check_function_bodies;
RESET client_min_messages;
RESET allow_system_table_mods;
