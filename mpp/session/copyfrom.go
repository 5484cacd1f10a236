package session

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"
	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/trunkline-db/trunkline/mpp/plan"
)

// copyThrough loads in any format: the local server reads the data into a
// temporary table as COPY would, and its rows are placed from there.
func (s *Session) copyThrough(req *request, st *pg.CopyStmt, r *relation) error {
	if err := s.mayInsert(r); err != nil {
		return err
	}
	if err := s.refuseDefaults(st, r); err != nil {
		return err
	}
	if s.link.status == 'I' {
		if err := s.beginImplicit(); err != nil {
			return err
		}
	}
	const temp = "trunkline_copy"
	setup := "CREATE TEMP TABLE " + temp + " (LIKE " + r.name() + " INCLUDING DEFAULTS) ON COMMIT DROP;"
	for i := range r.columns {
		if c := &r.columns[i]; c.identity != "" {
			setup += "ALTER TABLE pg_temp." + temp + " ALTER COLUMN " + ident(c.Name) + " SET DEFAULT " + c.def + ";"
		}
	}
	if _, err := s.local(setup); err != nil {
		return err
	}
	clone := proto.Clone(st).(*pg.CopyStmt)
	clone.Relation.Schemaname, clone.Relation.Relname = "pg_temp", temp
	clone.Options = nil
	for _, o := range st.Options {
		if o.GetDefElem().Defname != "freeze" {
			clone.Options = append(clone.Options, o)
		}
	}
	if len(clone.Attlist) == 0 {
		for i := range r.columns {
			if !r.columns[i].generated {
				clone.Attlist = append(clone.Attlist, &pg.Node{Node: &pg.Node_String_{String_: &pg.String{Sval: r.columns[i].Name}}})
			}
		}
	}
	text, err := plan.Deparse(&pg.Node{Node: &pg.Node_CopyStmt{CopyStmt: clone}})
	if err != nil {
		return err
	}
	if err := s.runLocal(req, text); err != nil {
		pe := *pgError(err)
		pe.Where = strings.ReplaceAll(pe.Where, temp, r.Name)
		pe.Message = strings.ReplaceAll(pe.Message, temp, r.Name)
		return &pe
	}
	s.pending = nil
	var cols []string
	for i := range r.columns {
		if !r.columns[i].generated {
			cols = append(cols, ident(r.columns[i].Name))
		}
	}
	source, err := parseOne("SELECT " + strings.Join(cols, ", ") + " FROM pg_temp." + temp)
	if err != nil {
		return err
	}
	n, err := s.writeRows(req, &rowWriter{s: s, ctx: req.ctx, r: r}, source)
	if err != nil {
		return err
	}
	if _, err := s.local("DROP TABLE pg_temp." + temp); err != nil {
		return err
	}
	s.complete(fmt.Sprintf("COPY %d", n))
	return nil
}

// binaryForm has the local server read a value of one of the types that
// directCopy knows: one in a spelling that only PostgreSQL knows, or a wrong one.
func (s *Session) binaryForm(oid uint32, text []byte) ([]byte, error) {
	typ, err := s.typeName(oid)
	if err != nil {
		return nil, err
	}
	send := map[uint32]string{20: "int8send", 21: "int2send", 23: "int4send", 25: "textsend", 1043: "varcharsend", 2950: "uuid_send"}[oid]
	res, err := s.local("SELECT pg_catalog.encode(pg_catalog." + send + "(" + literal(string(text)) + "::" + typ + "), 'hex')")
	if err != nil {
		return nil, withoutContext(err)
	}
	return hex.DecodeString(string(res.value()))
}

// mayInsert refuses a COPY before its data is asked for. Which columns the user
// may write is left to the segments.
func (s *Session) mayInsert(r *relation) error {
	res, err := s.local("SELECT pg_catalog.has_any_column_privilege(" + fmt.Sprint(r.OID) + ", 'INSERT')")
	if err != nil {
		return err
	}
	if string(res.value()) != "t" {
		return sqlError("42501", "permission denied for table %s", r.Name)
	}
	return nil
}

// refuseDefaults refuses a COPY that has the local server evaluate defaults which it
// cannot.
func (s *Session) refuseDefaults(st *pg.CopyStmt, r *relation) error {
	for i := range r.columns {
		c := &r.columns[i]
		given := len(st.Attlist) == 0 || slices.ContainsFunc(st.Attlist, func(n *pg.Node) bool { return n.GetString_().GetSval() == c.Name })
		if c.def == "" || c.generated || given {
			continue
		}
		def, err := parseOne("SELECT " + c.def)
		if err != nil {
			return err
		}
		if err := s.refuseReading(def, "Give column \""+c.Name+"\" a value, or use INSERT."); err != nil {
			return err
		}
	}
	return nil
}

// directOptions is a COPY FROM STDIN whose lines can be placed by looking at
// the key's fields alone.
type directOptions struct {
	delimiter byte
	null      string
	fields    []int // position of each key column in a line
	columns   int   // fields in a line
}

// directCopy says whether the client's lines can go to the segments as they
// are: text format, and nothing in it that needs the whole table's view.
func (s *Session) directCopy(st *pg.CopyStmt, r *relation) (directOptions, bool) {
	opt := directOptions{delimiter: '\t', null: `\N`}
	if st.Filename != "" || st.IsProgram || st.WhereClause != nil {
		return opt, false
	}
	for _, o := range st.Options {
		switch d := o.GetDefElem(); d.Defname {
		case "format":
			if v, _ := copyOption(st, "format"); v != "text" {
				return opt, false
			}
		case "delimiter":
			v, _ := copyOption(st, "delimiter")
			if len(v) != 1 {
				return opt, false
			}
			opt.delimiter = v[0]
		case "null":
			opt.null, _ = copyOption(st, "null")
		case "freeze":
		default:
			return opt, false
		}
	}
	at := map[string]int{}
	if len(st.Attlist) > 0 {
		for i, c := range st.Attlist {
			at[c.GetString_().GetSval()] = i
		}
		opt.columns = len(st.Attlist)
	} else {
		for i := range r.columns {
			if !r.columns[i].generated {
				at[r.columns[i].Name] = opt.columns
				opt.columns++
			}
		}
	}
	for i := range r.columns {
		// Defaults are the coordinator's to compute: sequences are its.
		if c := &r.columns[i]; !c.generated && c.def != "" {
			if _, ok := at[c.Name]; !ok {
				return opt, false
			}
		}
	}
	if r.Policy.Kind != plan.Hashed {
		return opt, true
	}
	for _, k := range r.Policy.Keys {
		c := &r.columns[k]
		i, ok := at[c.Name]
		if !ok {
			return opt, false
		}
		switch c.oid {
		case 20, 21, 23, 25, 1043, 2950: // what a line shows is what is hashed
			if c.oid == 1043 && c.format != c.bare {
				return opt, false // spaces beyond the limit are cut off
			}
		default:
			return opt, false
		}
		opt.fields = append(opt.fields, i)
	}
	return opt, true
}

// copyDirect streams the client's lines to where they belong.
func (s *Session) copyDirect(req *request, st *pg.CopyStmt, r *relation, opt directOptions) error {
	if err := s.beginWrite(); err != nil {
		return err
	}
	if err := s.mayInsert(r); err != nil {
		return err
	}
	if err := s.beforeDispatch(req.ctx); err != nil {
		return err
	}
	if err := s.markRows(req.ctx, r, nil); err != nil {
		return err
	}
	text, err := plan.Deparse(&pg.Node{Node: &pg.Node_CopyStmt{CopyStmt: st}})
	if err != nil {
		return err
	}
	in, err := s.gang.CopyIn(req.ctx, nil, text)
	if err != nil {
		return err
	}
	p := &linePlacer{opt: opt, r: r, put: in.Write, ask: s.binaryForm, n: s.numSegments()}
	if err := p.open(); err != nil {
		in.Abort(err)
		return err
	}
	s.out.send(&pgproto3.CopyInResponse{OverallFormat: 0, ColumnFormatCodes: make([]uint16, opt.columns)})
	s.out.flush()
	var failed error
	for {
		m, err := s.receive()
		if err != nil {
			in.Abort(err)
			return err
		}
		switch m := m.(type) {
		case *pgproto3.CopyData:
			if failed = p.write(m.Data); failed == nil {
				failed = req.ctx.Err()
			}
			if failed == nil {
				continue
			}
			// The client hears of it at once; what it still sends is passed over.
		case *pgproto3.CopyDone:
			failed = p.end()
		case *pgproto3.CopyFail:
			_ = s.fromClient(m) // as much of it as can be read
			failed = sqlError("57014", "COPY from stdin failed: %s", m.Message)
		case *pgproto3.Flush, *pgproto3.Sync:
			continue
		default:
			failed = sqlError("08P01", "unexpected message type during COPY from stdin")
		}
		break
	}
	if failed != nil {
		in.Abort(failed)
		return p.where(failed)
	}
	n, err := in.Finish(req.ctx)
	if err != nil {
		return p.where(err)
	}
	if r.Policy.Kind == plan.Replicated {
		n /= int64(p.n)
	}
	s.complete(fmt.Sprintf("COPY %d", n))
	return nil
}
