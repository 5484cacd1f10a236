package session

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/trunkline-db/trunkline/guc"
	"github.com/trunkline-db/trunkline/mpp/catalog"
	"github.com/trunkline-db/trunkline/mpp/cdbhash"
)

// unsent are parameters that a segment must not take over: those of the
// client's own connection, and those that are set in other ways; not in this list
// are the prefixes of Greenplum's, and of what EXPLAIN ANALYZE asks for on its own.
const unsent = "'client_encoding','session_replication_role'," + idleNames + "," +
	"'transaction_isolation','transaction_read_only','transaction_deferrable'"

// printing are the parameters that decide how values are written as text. An
// instance's own postgresql.conf has no say in them: rows are read, and hashed,
// as the session has them.
const printing = "'DateStyle','IntervalStyle','TimeZone','extra_float_digits','bytea_output'"

// defaultIsolation is asked for once, rather than for each statement whose
// transaction the session makes more isolated.
const defaultIsolation = "default_transaction_isolation"

// The session's own waits end with these, too.
const (
	lockTimeout      = "lock_timeout"
	statementTimeout = "statement_timeout"
	// waitPrefix marks them among the session's settings, in milliseconds.
	waitPrefix = "wait:"
)

// settings are the parameters this session has that a fresh one would not
// have, those that values are printed by, those of its motions, and those that it
// needs itself; the gang's connections take them over.
func (s *Session) settings() (map[string]string, error) {
	res, err := s.local(motionSettings(s.motionParams) + " UNION ALL SELECT name, pg_catalog.current_setting(name) FROM pg_catalog.pg_settings WHERE (source IN ('client', 'session') OR name IN (" + printing + ",'" + defaultIsolation + "')) " +
		"AND context IN ('user', 'superuser') AND name NOT LIKE 'trunkline.%' AND name NOT LIKE 'auto_explain.%' AND name NOT IN (" + unsent + ") " +
		"UNION ALL SELECT '" + idlePrefix + "' || name, setting FROM pg_catalog.pg_settings WHERE name IN (" + idleNames + ") " +
		"UNION ALL SELECT '" + waitPrefix + "' || name, setting FROM pg_catalog.pg_settings WHERE name IN ('" + lockTimeout + "','" + statementTimeout + "') " +
		"UNION ALL SELECT 'role', pg_catalog.current_setting('role') WHERE pg_catalog.current_setting('role') <> 'none' " +
		"UNION ALL SELECT 'session_authorization', session_user WHERE session_user <> " + catalog.Literal(s.client.User))
	if err != nil {
		return nil, err
	}
	m := make(map[string]string, len(res.rows)+1)
	m[encodingParameter] = "UTF8" // whatever the role's or the database's is
	motions := make(map[string]string, len(guc.Motions()))
	s.waits = map[string]time.Duration{}
	for _, r := range res.rows {
		if name, ok := strings.CutPrefix(string(r[0]), gucPrefix); ok {
			motions[name] = string(r[1])
		} else if name, ok := strings.CutPrefix(string(r[0]), idlePrefix); ok {
			s.idle.note(name, string(r[1]))
		} else if name, ok := strings.CutPrefix(string(r[0]), waitPrefix); ok {
			n, _ := strconv.Atoi(string(r[1]))
			s.waits[name] = time.Duration(n) * time.Millisecond
		} else {
			m[string(r[0])] = string(r[1])
		}
	}
	if err := s.sensible(motions); err != nil {
		return nil, err
	}
	if err := s.tune(motions); err != nil {
		return nil, err
	}
	maps.Copy(m, passedOn(motions))
	return m, nil
}

// sends says which types' values the segments write so that their hash is
// known; see plan.Options.
func (s *Session) sends() func(typeOID uint32) bool {
	var now *cdbhash.Settings
	return func(oid uint32) bool {
		if (cdbhash.Settings{}).Reads(oid) {
			return true
		}
		if now == nil {
			now = s.printed()
		}
		return now.Reads(oid)
	}
}

// printed are the settings by which the segments will print values. A function
// may have changed the session's unnoticed.
func (s *Session) printed() *cdbhash.Settings {
	now := &cdbhash.Settings{}
	res, err := s.local("SELECT name, pg_catalog.current_setting(name) FROM pg_catalog.pg_settings WHERE name IN (" + printing + ")")
	if err != nil {
		return now
	}
	for _, r := range res.rows {
		name, value := string(r[0]), string(r[1])
		switch name {
		case "DateStyle":
			now.DateStyle = value
		case "TimeZone":
			now.TimeZone = value
		case "extra_float_digits":
			now.ExtraFloatDigits, _ = strconv.Atoi(value)
		}
		if s.applied != nil && s.applied[name] != value {
			s.settingsDirty = true
		}
	}
	return now
}

// settingsChanged notes that parameters may have other values now, and names
// another meaning.
func (s *Session) settingsChanged() {
	s.settingsDirty = true
	s.encoding.stale = s.encoding.kept
	if s.link.status != 'I' || s.txn.implicit {
		s.txn.settings = true
	}
	s.path++
	s.cache.reset(s.cache.tick)
}

// gangSettings is what a new connection of the gang starts with. Several may
// be made at the same time, while the link has other things to do: what is
// needed was asked for before.
func (s *Session) gangSettings(context.Context) (map[string]string, error) { return s.applied, nil }

// syncSettings brings live segment connections up to date after a statement
// that may have changed parameters.
func (s *Session) syncSettings(ctx context.Context) error {
	reloads := s.srv.reloads.Load()
	if !s.settingsDirty && s.applied != nil && s.reloads == reloads {
		return nil
	}
	before := s.applied
	now, err := s.settings()
	if err != nil {
		return err
	}
	s.applied = now
	if s.given == nil {
		s.given = map[string]string{}
	}
	maps.Copy(s.given, now)
	s.settingsDirty, s.reloads = false, reloads
	if before == nil {
		return nil // no connection was made yet: each will start with these
	}
	if s.link.status == 'T' {
		s.txn.settings = true
	}
	if s.settingsLost {
		before = s.given // a transaction may have reset some of them in vain
	}
	reset, set := settingsDiff(before, now, s.settingsLost)
	s.settingsLost = false
	if reset != "" {
		if _, err := s.gang.Exec(ctx, nil, reset); err != nil {
			s.settingsDirty, s.settingsLost = true, true
			return err
		}
	}
	if len(set) == 0 {
		return nil
	}
	if err := s.gang.SetAll(ctx, set); err != nil {
		s.settingsDirty, s.settingsLost = true, true
		return err
	}
	return nil
}

// settingsDiff says what to reset and what to set on a connection that has
// the parameters before; all of them when it may have lost some. The roles are
// reset first, because a role may not be allowed to set what is set.
func settingsDiff(before, now map[string]string, lost bool) (reset string, set map[string]string) {
	set = map[string]string{}
	for _, name := range []string{"role", "session_authorization"} {
		if _, was := before[name]; (was || lost) && (lost || before[name] != now[name]) {
			reset += "RESET " + name + ";"
			if now[name] != "" {
				set[name] = now[name]
			}
		}
	}
	for name, value := range now {
		if old, ok := before[name]; lost || !ok || old != value {
			set[name] = value
		}
	}
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if _, ok := now[name]; !ok && name != "role" && name != "session_authorization" {
			reset += "RESET " + catalog.Ident(name) + ";"
		}
	}
	return reset, set
}

// runSet runs SET and RESET.
func (s *Session) runSet(req *request, st *pg.VariableSetStmt) error {
	if strings.EqualFold(st.Name, encodingParameter) {
		return s.setEncoding(st)
	}
	if strings.EqualFold(st.Name, "transaction snapshot") {
		e := sqlError("0A000", "SET TRANSACTION SNAPSHOT is not supported in a cluster")
		e.Detail = "An exported snapshot is one of the coordinator's alone."
		e.Hint = "Let pg_dump run one job; pg_restore may run several."
		return e
	}
	switch name := strings.ToLower(st.Name); name {
	case "transaction", "transaction_read_only", "transaction_isolation":
		return s.runSetTransaction(req)
	case "standard_conforming_strings":
		if v := strings.ToLower(settingValue(st.Args)); st.Kind == pg.VariableSetKind_VAR_SET_VALUE && v != "on" && v != "true" && v != "yes" && v != "1" {
			return sqlError("0A000", "%s cannot be off in a cluster: statements are read with it on", name)
		}
	}
	p, ok := guc.Lookup(st.Name)
	if !ok || st.Name == "" {
		defer s.settingsChanged()
		return s.runLocal(req, req.text)
	}
	if err := settable(p); err != nil {
		return err
	}
	sql := "RESET " + gucPrefix + p.Name
	tag := "RESET"
	if st.Kind == pg.VariableSetKind_VAR_SET_VALUE || st.Kind == pg.VariableSetKind_VAR_SET_DEFAULT {
		tag = "SET"
	}
	if st.Kind == pg.VariableSetKind_VAR_SET_VALUE {
		value, err := p.Parse(settingValue(st.Args))
		if err != nil {
			return err
		}
		sql = "SET " + gucPrefix + p.Name + " TO " + catalog.Literal(value)
		if st.IsLocal {
			sql = "SET LOCAL " + gucPrefix + p.Name + " TO " + catalog.Literal(value)
		}
	}
	if _, err := s.local(sql); err != nil {
		return err
	}
	s.settingsChanged()
	s.complete(tag)
	return nil
}

// runSetTransaction runs SET TRANSACTION. Segments whose part of it has begun have had
// their modes with that.
func (s *Session) runSetTransaction(req *request) error {
	defer s.settingsChanged()
	if err := s.runLocal(req, req.text); err != nil || !s.gang.InTransaction() {
		return err
	}
	if err := s.settleSources(); err != nil {
		return err
	}
	s.gang.MarkLocked() // it does not begin anew
	_, err := s.gang.Exec(req.ctx, nil, req.text)
	return err
}

// settable says whether a parameter may be set in a session.
func settable(p *guc.Parameter) error {
	if p.Context <= guc.Backend {
		return guc.ErrCannotSet(p.Name, p.Context)
	}
	return nil
}

// checkSetting is what set_config does with constants.
func checkSetting(name, value string) (string, error) {
	p, ok := guc.Lookup(name)
	if !ok {
		return value, nil
	}
	if err := settable(p); err != nil {
		return "", err
	}
	return p.Parse(value)
}

// settingValue is SET's value as text.
func settingValue(args []*pg.Node) string {
	var parts []string
	for _, a := range args {
		if tc := a.GetTypeCast(); tc != nil {
			a = tc.Arg
		}
		c := a.GetAConst()
		switch v := c.GetVal().(type) {
		case *pg.A_Const_Ival:
			parts = append(parts, strconv.Itoa(int(v.Ival.GetIval())))
		case *pg.A_Const_Fval:
			parts = append(parts, v.Fval.GetFval())
		case *pg.A_Const_Sval:
			parts = append(parts, v.Sval.GetSval())
		case *pg.A_Const_Boolval:
			parts = append(parts, strconv.FormatBool(v.Boolval.GetBoolval()))
		}
	}
	return strings.Join(parts, ", ")
}

// showSQL is a SHOW of one of Greenplum's parameters, or of all, in terms the
// local server understands; "" for its own.
func (s *Session) showSQL(st *pg.VariableShowStmt) string {
	if strings.EqualFold(st.Name, "all") {
		return "SELECT name, setting, short_desc AS description FROM pg_catalog.gp_pg_settings ORDER BY 1"
	}
	if strings.EqualFold(st.Name, encodingParameter) {
		return "SELECT pg_catalog.current_setting('" + encodingParameter + "') AS " + encodingParameter
	}
	if p, ok := guc.Lookup(st.Name); ok {
		if value, ok := s.motionParams[p.Name]; ok && p.Context <= guc.Backend {
			return "SELECT " + catalog.Literal(value) + " AS " + catalog.Ident(p.Name) // though RESET ALL has brought another
		}
		return "SELECT COALESCE(pg_catalog.current_setting(" + catalog.Literal(gucPrefix+p.Name) + ", true), " +
			catalog.Literal(p.Default) + ") AS " + catalog.Ident(p.Name)
	}
	return ""
}

// runShow runs SHOW.
func (s *Session) runShow(req *request, st *pg.VariableShowStmt) error {
	sql := s.showSQL(st)
	if sql == "" {
		return s.runLocal(req, req.text)
	}
	res, err := s.local(sql)
	if err != nil {
		return err
	}
	if p, ok := guc.Lookup(st.Name); ok {
		value := string(res.rows[0][0])
		if canonical, err := p.Parse(value); err == nil { // ALTER ROLE keeps it as it was written
			value = canonical
		}
		res.rows[0][0] = []byte(p.Show(value))
	}
	if req.describe {
		s.out.send(&pgproto3.RowDescription{Fields: res.fields})
	}
	for _, row := range res.rows {
		if name := strings.ToLower(st.Name); name == encodingParameter {
			row[0] = []byte(s.encoding.name)
		} else if name == "all" && string(row[0]) == encodingParameter {
			row[1] = []byte(s.encoding.name)
		}
		s.out.send(&pgproto3.DataRow{Values: row})
	}
	s.complete("SHOW")
	return nil
}
