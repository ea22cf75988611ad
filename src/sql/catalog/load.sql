WITH trees(kind, owner, tree) AS MATERIALIZED (
  SELECT 'r', ev_class, ev_action::text
    FROM pg_rewrite JOIN pg_class c ON c.oid = ev_class
   WHERE ev_class >= 16384 AND ev_type = '1' AND relkind = 'v'
  UNION ALL
  SELECT 'r', polrelid, polqual::text FROM pg_policy WHERE polqual IS NOT NULL
  UNION ALL
  SELECT 'r', adrelid, adbin::text
    FROM pg_attrdef JOIN pg_attribute ON attrelid = adrelid AND attnum = adnum
   WHERE attgenerated = 'v'
  UNION ALL
  SELECT 'f', oid, proargdefaults::text FROM pg_proc WHERE oid >= 16384 AND proargdefaults IS NOT NULL
  UNION ALL
  SELECT 't', contypid, conbin::text FROM pg_constraint WHERE contypid >= 16384 AND contype = 'c'
), edges(kind, owner, target_kind, target) AS MATERIALIZED (
  SELECT kind, owner, target_kind, split_part(left(piece, 11), ' ', 1)::oid
    FROM trees,
         (VALUES (':funcid ', 'f'), (':opfuncid ', 'f'), (':aggfnoid ', 'f'), (':winfnoid ', 'f'),
                 (':tsmhandler ', 'f'), (':relid ', 'r'), (':resulttype ', 't')) field(name, target_kind),
         string_to_table(tree, name) WITH ORDINALITY part(piece, n)
   WHERE n > 1
  UNION
  -- Lists of columns with their types: those of functions in FROM, and of XMLTABLE and JSON_TABLE.
  SELECT kind, owner, 't', id::oid
    FROM trees, string_to_table(tree, 'coltypes (o ') WITH ORDINALITY part(piece, n),
         string_to_table(split_part(piece, ')', 1), ' ') id
   WHERE n > 1 AND id <> ''
  UNION
  SELECT 'f', aggfnoid, 'f', part
    FROM pg_aggregate, unnest(ARRAY[aggtransfn, aggfinalfn, aggcombinefn, aggserialfn,
      aggdeserialfn, aggmtransfn, aggminvtransfn, aggmfinalfn]::oid[]) part
   WHERE aggfnoid >= 16384
  UNION
  SELECT 'r', inhparent, 'r', inhrelid FROM pg_inherits
  UNION
  SELECT 't', oid, 'f', part
    FROM pg_type, unnest(ARRAY[typinput, typreceive, typmodin]::oid[]) part
   WHERE oid >= 16384 AND part >= 16384
  UNION
  SELECT 't', oid, 't', part FROM pg_type, unnest(ARRAY[typelem, typbasetype]) part
   WHERE oid >= 16384
  UNION
  SELECT 't', t.oid, 't', atttypid
    FROM pg_type t JOIN pg_class c ON c.oid = typrelid JOIN pg_attribute ON attrelid = typrelid
   WHERE typrelid <> 0 AND atttypid >= 16384
  UNION
  SELECT 't', rngtypid, 't', rngsubtype FROM pg_range WHERE rngtypid >= 16384
  UNION
  SELECT 't', rngmultitypid, 't', rngtypid FROM pg_range WHERE rngmultitypid >= 16384
  UNION
  SELECT 't', rngtypid, 'f', part FROM pg_range, unnest(ARRAY[rngcanonical, rngsubdiff]::oid[]) part
   WHERE rngtypid >= 16384 AND part >= 16384
  UNION
  SELECT 'o', oid, 'f', oprcode FROM pg_operator WHERE oid >= 16384
  UNION
  -- Arguments are coerced to domains, and json_populate_record makes rows of a table.
  SELECT 'f', oid, 't', part
    FROM pg_proc, unnest(proargtypes::oid[] || coalesce(proallargtypes, '{}') || prorettype) part
   WHERE oid >= 16384 AND part >= 16384
  UNION
  SELECT 'r', attrelid, 't', atttypid
    FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
   WHERE c.oid >= 16384 AND relkind IN ('r', 'p', 'v', 'm', 'f') AND atttypid >= 16384
  UNION
  SELECT 'c', 0, 'f', castfunc FROM pg_cast WHERE castfunc >= 16384
  UNION
  SELECT 'x', 0, 'f', castfunc FROM pg_cast WHERE castfunc >= 16384 AND castcontext = 'i'
  UNION
  SELECT 'x', 0, 'f', typinput FROM pg_cast JOIN pg_type t ON t.oid = casttarget
   WHERE castmethod = 'i' AND castcontext = 'i' AND typinput >= 16384
  UNION
  SELECT 'x', 0, 'f', part FROM pg_type, unnest(ARRAY[typoutput, typsend]::oid[]) part
   WHERE oid >= 16384 AND part >= 16384
  UNION
  SELECT 'x', 0, 'f', oprcode
    FROM pg_amop JOIN pg_am a ON a.oid = amopmethod JOIN pg_operator o ON o.oid = amopopr
   WHERE amname IN ('btree', 'hash') AND oprcode >= 16384
  UNION
  SELECT 'x', 0, 'f', amproc
    FROM pg_amproc JOIN pg_opfamily f ON f.oid = amprocfamily JOIN pg_am a ON a.oid = opfmethod
   WHERE amname IN ('btree', 'hash') AND amproc >= 16384
  UNION
  -- Other indexes compare by themselves, too. What is written in C for them is not always declared with care.
  SELECT 'x', 0, 'f', part
    FROM pg_opfamily f JOIN pg_am a ON a.oid = opfmethod,
         LATERAL (SELECT amproc::oid FROM pg_amproc WHERE amprocfamily = f.oid
                  UNION SELECT oprcode::oid FROM pg_amop JOIN pg_operator o ON o.oid = amopopr WHERE amopfamily = f.oid)
           AS used(part) JOIN pg_proc p ON p.oid = part
   WHERE amname NOT IN ('btree', 'hash') AND part >= 16384 AND prolang NOT IN (12, 13)
)
SELECT 'e', kind || target_kind, owner::text, target::text, NULL
  FROM edges
 WHERE target <> 0 AND NOT (target_kind = 't' AND target < 16384)
   AND (kind, owner) <> (target_kind, target)
UNION ALL
SELECT 'f', concat(provolatile, proparallel, prokind,
         CASE WHEN pronargs > 0 AND pronargs - pronargdefaults <= 1 AND a.typtype IN ('c', 'd', 'p')
              THEN 'a' ELSE '-' END), p.oid::text, proname, nspname
  FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace
  LEFT JOIN pg_type a ON a.oid = proargtypes[0]
 WHERE p.oid >= 16384 OR p.oid IN (SELECT target FROM edges WHERE target_kind = 'f')
UNION ALL
SELECT DISTINCT 'F', '', '0', proname, 'pg_catalog'
  FROM pg_proc
 WHERE oid < 16384 AND (provolatile = 'v' OR proparallel = 'u'
   OR proname IN (SELECT proname FROM pg_proc WHERE oid >= 16384))
UNION ALL
SELECT 'r', concat(relkind, relpersistence), c.oid::text, relname, nspname
  FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
 WHERE c.oid >= 16384 AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND relpersistence <> 't'
UNION ALL
SELECT 't', typtype::text, t.oid::text, typname, nspname
  FROM pg_type t JOIN pg_namespace n ON n.oid = typnamespace LEFT JOIN pg_class c ON c.oid = typrelid
 WHERE t.oid >= 16384 AND typelem = 0 AND coalesce(relkind, 'c') = 'c'
UNION ALL
SELECT 'o', '', oid::text, oprname, NULL FROM pg_operator WHERE oid >= 16384
UNION ALL
SELECT DISTINCT 'O', '', '0', oprname, NULL FROM pg_operator WHERE oid < 16384
UNION ALL
SELECT DISTINCT 'l', '', owner::text, '', NULL FROM trees WHERE kind = 'r' AND strpos(tree, '{ROWMARKCLAUSE') > 0
UNION ALL
-- What functions may leave in their session, as far as the text of any of them tells.
SELECT DISTINCT 'L', reason, '0', '', NULL
  FROM pg_proc, (VALUES
    ('settings', E'set_config|(^|[;''$"]|\\m(begin|then|else|loop|atomic)\\M)(\\s|--[^\\n]*\\n|/\\*.*?\\*/)*(reset\\s|set\\s+(?!local\\M))'),
    ('temporary_object', E'\\mtemp(orary)?\\M|\\mpg_temp\\M'),
    ('advisory_lock', 'advisory_lock'),
    ('listen', E'\\mlisten\\M'),
    ('hold_cursor', E'\\mwith\\s+hold\\M'),
    ('prepare', E'\\m(prepare|deallocate)\\M')) word(reason, pattern)
 WHERE oid >= 16384 AND prolang NOT IN (12, 13)
   AND concat(prosrc, ' ', pg_get_function_sqlbody(oid)) ~* pattern
