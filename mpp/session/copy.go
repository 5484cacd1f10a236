package session

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/mpp/cdbhash"
	"github.com/trunkline-db/trunkline/mpp/dispatch"
	"github.com/trunkline-db/trunkline/mpp/plan"
)

// runCopy runs COPY.
func (s *Session) runCopy(req *request, st *pg.CopyStmt) error {
	simple := *req
	simple.portal = nil
	req = &simple
	switch format, _ := copyOption(st, "format"); format {
	case "", "text", "csv", "binary":
	default:
		return s.runLocal(req, req.text) // which refuses it
	}
	if st.Query != nil {
		return s.copyQuery(req, st)
	}
	r, err := s.relation(st.Relation.Schemaname, st.Relation.Relname)
	if err != nil {
		return err
	}
	if r == nil || r.Policy == nil {
		return s.runLocal(req, req.text)
	}
	if !st.IsFrom {
		return s.copyTo(req, st, r)
	}
	if opts, ok := s.directCopy(st, r); ok {
		return s.copyDirect(req, st, r, opts)
	}
	return s.copyThrough(req, st, r)
}

// copyQuery runs COPY (query) TO on the local server, over its sources.
func (s *Session) copyQuery(req *request, st *pg.CopyStmt) error {
	if st.Query.GetSelectStmt() == nil {
		return s.runLocalWrite(req)
	}
	sql, slices, q, err := s.topOf(st.Query, nil)
	if err != nil {
		return err
	}
	if q.Kind == plan.Local && q.Top == "" {
		return s.runLocal(req, req.text)
	}
	clone := proto.Clone(st).(*pg.CopyStmt)
	if clone.Query, err = parseOne(sql); err != nil {
		return err
	}
	text, err := plan.Deparse(&pg.Node{Node: &pg.Node_CopyStmt{CopyStmt: clone}})
	if err != nil {
		return err
	}
	if len(slices) == 0 {
		return s.runLocal(req, text)
	}
	set, err := s.openSources(req.ctx, slices, nil)
	if err != nil {
		return err
	}
	err = s.runLocal(req, text)
	if cerr := set.close(); cerr != nil {
		return cerr
	}
	return err
}

func copyOption(st *pg.CopyStmt, name string) (string, bool) {
	for _, o := range st.Options {
		d := o.GetDefElem()
		if d.Defname != name {
			continue
		}
		if d.Arg == nil {
			return "true", true
		}
		if v := d.Arg.GetString_(); v != nil {
			return v.Sval, true
		}
		return settingValue([]*pg.Node{d.Arg}), true
	}
	return "", false
}

func truth(v string) bool {
	switch strings.ToLower(v) {
	case "off", "false", "0", "no":
		return false
	}
	return true
}

// copyTo sends a table: the local server says what comes before the rows, the
// segments send them in the client's format.
func (s *Session) copyTo(req *request, st *pg.CopyStmt, r *relation) error {
	format, _ := copyOption(st, "format")
	if st.IsProgram || st.Filename != "" || format == "binary" {
		var cols []string
		for _, c := range st.Attlist {
			cols = append(cols, ident(c.GetString_().GetSval()))
		}
		if len(cols) == 0 {
			for i := range r.columns {
				if !r.columns[i].generated {
					cols = append(cols, ident(r.columns[i].Name))
				}
			}
		}
		query, err := parseOne("SELECT " + strings.Join(cols, ", ") + " FROM " + r.name())
		if err != nil {
			return err
		}
		clone := proto.Clone(st).(*pg.CopyStmt)
		clone.Relation, clone.Attlist, clone.Query = nil, nil, query
		return s.copyQuery(req, clone)
	}
	// The local server's copy of the table is empty: its answer is the
	// beginning of ours, and it checks the statement and the rights.
	s.unnamedLost = true
	s.link.send(&pgproto3.Query{String: req.text})
	if err := s.link.flush(); err != nil {
		return err
	}
	var failed error
	for done := false; !done; {
		m, err := s.link.receive()
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *pgproto3.CopyOutResponse, *pgproto3.CopyData:
			s.out.send(m)
		case *pgproto3.ErrorResponse:
			failed = pgconn.ErrorResponseToPgError(m)
		case *pgproto3.ReadyForQuery:
			done = true
		}
	}
	if failed != nil {
		return failed
	}
	clone := proto.Clone(st).(*pg.CopyStmt)
	clone.Options = nil
	for _, o := range st.Options {
		if o.GetDefElem().Defname != "header" {
			clone.Options = append(clone.Options, o)
		}
	}
	text, err := plan.Deparse(&pg.Node{Node: &pg.Node_CopyStmt{CopyStmt: clone}})
	if err != nil {
		return err
	}
	var segs []int
	if r.Policy.Kind == plan.Replicated {
		segs = []int{0}
	}
	if _, err := s.interconnect(); err != nil {
		return err
	}
	if err := s.beforeDispatch(req.ctx); err != nil {
		return err
	}
	s.command++
	run, err := s.gang.Open(req.ctx, s.command, []dispatch.Slice{{Index: 1, SQL: text, Copy: true, Segments: segs}},
		&dispatch.Run{Slice: 1, Receivers: []motion.Peer{s.self()}})
	if err != nil {
		return err
	}
	rows := 0
	rerr := s.receive(run, s.command, 1, false, func(line []byte) error {
		rows++
		s.out.send(copyBody(line))
		return s.out.err
	})
	if ferr := s.finishRunning(run); ferr != nil || rerr != nil {
		if req.ctx.Err() != nil {
			return req.ctx.Err()
		}
		return betterError(ferr, rerr)
	}
	s.out.send(&pgproto3.CopyDone{})
	s.complete(fmt.Sprintf("COPY %d", rows))
	return nil
}

// copyThrough loads in any format: the local server reads the data into a
// temporary table as COPY would, and its rows are placed from there.
func (s *Session) copyThrough(req *request, st *pg.CopyStmt, r *relation) error {
	if _, err := s.local("SELECT pg_catalog.has_table_privilege(" + fmt.Sprint(r.OID) + ", 'INSERT')"); err != nil {
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
	if enc := s.link.params["client_encoding"]; enc != "UTF8" && enc != "SQL_ASCII" {
		return opt, false
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
	res, err := s.local("SELECT pg_catalog.has_table_privilege(" + fmt.Sprint(r.OID) + ", 'INSERT')")
	if err != nil {
		return err
	}
	if string(res.value()) != "t" {
		return sqlError("42501", "permission denied for table %s", r.Name)
	}
	if err := s.beforeDispatch(req.ctx); err != nil {
		return err
	}
	if err := s.markWrite(req.ctx, r, nil); err != nil {
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
	p := &linePlacer{opt: opt, r: r, in: in, n: s.numSegments()}
	if err := p.open(); err != nil {
		in.Abort(err)
		return err
	}
	s.out.send(&pgproto3.CopyInResponse{OverallFormat: 0, ColumnFormatCodes: make([]uint16, opt.columns)})
	s.out.flush()
	var failed error
	for {
		m, err := s.client.Backend.Receive()
		if err != nil {
			in.Abort(err)
			return err
		}
		switch m := m.(type) {
		case *pgproto3.CopyData:
			if failed == nil {
				failed = p.write(m.Data)
			}
			if failed == nil {
				failed = req.ctx.Err()
			}
			continue
		case *pgproto3.CopyDone:
			if failed == nil {
				failed = p.end()
			}
		case *pgproto3.CopyFail:
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
		return failed
	}
	n, err := in.Finish(req.ctx)
	if err != nil {
		return err
	}
	if r.Policy.Kind == plan.Replicated {
		n /= int64(p.n)
	}
	s.complete(fmt.Sprintf("COPY %d", n))
	return nil
}

// linePlacer cuts COPY's text format into lines and places each.
type linePlacer struct {
	opt    directOptions
	r      *relation
	in     *dispatch.CopyIn
	n      int
	next   int
	rest   []byte // an incomplete line
	hasher *cdbhash.Hasher
	oids   []uint32
	keys   [][]byte
	bin    [][]byte
	buf    []byte
	ended  bool
}

func (p *linePlacer) open() error {
	if p.r.Policy.Kind != plan.Hashed {
		return nil
	}
	for _, k := range p.r.Policy.Keys {
		p.oids = append(p.oids, p.r.columns[k].hashType())
	}
	p.keys, p.bin = make([][]byte, len(p.oids)), make([][]byte, len(p.oids))
	var err error
	p.hasher, err = cdbhash.NewHasher(p.oids)
	return err
}

// write takes what the client sent: any cut of the stream.
func (p *linePlacer) write(data []byte) error {
	if p.r.Policy.Kind == plan.Replicated {
		for seg := range p.n {
			if err := p.in.Write(seg, data); err != nil {
				return err
			}
		}
		return nil
	}
	if len(p.rest) > 0 {
		data = append(p.rest, data...)
	}
	for {
		end := lineEnd(data)
		if end < 0 {
			break
		}
		if err := p.line(data[:end+1]); err != nil {
			return err
		}
		data = data[end+1:]
	}
	p.rest = append(p.rest[:0:0], data...)
	return nil
}

func (p *linePlacer) end() error {
	if len(p.rest) == 0 || p.r.Policy.Kind == plan.Replicated {
		return nil
	}
	return p.line(append(p.rest, '\n'))
}

// lineEnd finds the newline that ends the first line; one behind a backslash
// is data.
func lineEnd(b []byte) int {
	for from := 0; ; {
		i := bytes.IndexByte(b[from:], '\n')
		if i < 0 {
			return -1
		}
		i += from
		slashes := 0
		for j := i - 1; j >= 0 && b[j] == '\\'; j-- {
			slashes++
		}
		if slashes%2 == 0 {
			return i
		}
		from = i + 1
	}
}

func (p *linePlacer) line(line []byte) error {
	if p.ended {
		return nil
	}
	body := line[:len(line)-1]
	if n := len(body); n > 0 && body[n-1] == '\r' {
		body = body[:n-1]
	}
	if len(body) == 2 && body[0] == '\\' && body[1] == '.' {
		p.ended = true
		return nil
	}
	if p.hasher == nil {
		p.next = (p.next + 1) % p.n
		return p.in.Write(p.next, line)
	}
	clear(p.keys)
	for at, rest := 0, body; ; at++ {
		i := fieldEnd(rest, p.opt.delimiter)
		f := rest[:i]
		for k, want := range p.opt.fields {
			if want == at && string(f) != p.opt.null {
				p.keys[k] = f
			}
		}
		if i == len(rest) {
			break
		}
		rest = rest[i+1:]
	}
	for k, f := range p.keys {
		if f == nil {
			p.bin[k] = nil
			continue
		}
		p.buf = unescape(p.buf[:0], f)
		v, ok := cdbhash.FromText(p.oids[k], p.buf, p.bin[k][:0])
		if !ok {
			// Not a value of the type: any segment will say so.
			v = append(p.bin[k][:0], make([]byte, 8)[:keyWidth(p.oids[k])]...)
		}
		p.bin[k] = v
	}
	seg, err := p.hasher.Segment(p.bin, p.n)
	if err != nil {
		return err
	}
	return p.in.Write(seg, line)
}

func keyWidth(oid uint32) int {
	switch oid {
	case 20:
		return 8
	case 21:
		return 2
	case 23:
		return 4
	}
	return 0
}

// fieldEnd finds the delimiter that ends the first field; one behind a
// backslash is data.
func fieldEnd(b []byte, delimiter byte) int {
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case delimiter:
			return i
		}
	}
	return len(b)
}

// unescape undoes the backslashes of COPY's text format.
func unescape(dst, f []byte) []byte {
	for i := 0; i < len(f); i++ {
		c := f[i]
		if c != '\\' || i+1 == len(f) {
			dst = append(dst, c)
			continue
		}
		i++
		switch f[i] {
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'v':
			dst = append(dst, '\v')
		case 'x':
			v, n := digits(f[i+1:], 16, 2)
			if n == 0 {
				dst = append(dst, 'x')
			} else {
				dst = append(dst, v)
				i += n
			}
		case '0', '1', '2', '3', '4', '5', '6', '7':
			v, n := digits(f[i:], 8, 3)
			dst = append(dst, v)
			i += n - 1
		default:
			dst = append(dst, f[i])
		}
	}
	return dst
}

func digits(b []byte, base, limit int) (v byte, n int) {
	for n < limit && n < len(b) {
		d := strings.IndexByte("0123456789abcdef", b[n]|0x20)
		if b[n] <= '9' {
			d = int(b[n]) - '0'
		}
		if d < 0 || d >= base {
			break
		}
		v = v*byte(base) + byte(d)
		n++
	}
	return v, n
}
