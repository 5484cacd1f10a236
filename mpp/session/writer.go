package session

import (
	"context"
	"strings"
	"time"

	"github.com/trunkline-db/trunkline/mpp/catalog"
	"github.com/trunkline-db/trunkline/mpp/cdbhash"
	"github.com/trunkline-db/trunkline/mpp/dispatch"
	"github.com/trunkline-db/trunkline/mpp/plan"
	"github.com/trunkline-db/trunkline/mpp/rowsource"
)

// rowWriter places rows on segments: as binary COPY when nothing more is asked
// than that they are stored, else as INSERT statements with literals.
type rowWriter struct {
	s   *Session
	ctx context.Context
	r   *relation

	// text: rows come as text, the key's columns once more in binary form
	// after them.
	text bool
	// template is the INSERT with rowsMark; "" to COPY.
	template string
	params   []dispatch.Param
	formats  []int16            // of what RETURNING yields
	emit     func(row [][]byte) // RETURNING's rows

	width   int   // columns stored
	keyAt   []int // where the key's columns are in a row
	hasher  *cdbhash.Hasher
	keys    [][]byte
	n       int // segments
	next    int // for random placement
	copy    *dispatch.CopyIn
	head    []bool // COPY's header was written to the segment
	batches []batch
	total   int64
	buf     []byte
	begun   time.Time // of COPY
	bytes   []int64   // given to COPY, by segment
}

// batch is the rows of one segment that wait to be sent: they are sent when
// the source is done, because until then the local server or the gang may be
// busy with it.
type batch struct {
	full rowsource.Spool // each the rows of a statement of full size
	sql  strings.Builder
	rows int
}

// batchBytes bounds an INSERT statement's rows: long enough that its own cost
// does not matter.
const batchBytes = 256 << 10

// open readies the writer for its first row.
func (w *rowWriter) open() error {
	w.n = w.r.Policy.NumSegments
	if w.n == 0 {
		w.n = w.s.numSegments()
	}
	stored := map[int]int{}
	w.width, w.keyAt = 0, nil
	for i := range w.r.columns {
		if !w.r.columns[i].generated {
			stored[i] = w.width
			w.width++
		}
	}
	if w.r.Policy.Kind == plan.Hashed {
		oids := make([]uint32, len(w.r.Policy.Keys))
		for i, k := range w.r.Policy.Keys {
			oids[i] = w.r.columns[k].hashType()
			w.keyAt = append(w.keyAt, stored[k])
		}
		var err error
		if w.hasher, err = cdbhash.NewHasher(oids); err != nil {
			return err
		}
		w.keys = make([][]byte, len(oids))
	}
	w.s.rng = w.s.rng*1664525 + 1013904223
	w.next = int(w.s.rng>>8) % w.n
	w.batches = make([]batch, w.n)
	w.head = make([]bool, w.n)
	w.bytes = make([]int64, w.n)
	if a := w.s.analyzing(); a != nil && a.op == "" {
		a.op, a.r = "Insert", w.r
	}
	return nil
}

// start makes ready for rows from a source that is about to be read.
func (w *rowWriter) start() error {
	if w.template != "" {
		return nil
	}
	return w.openCopy()
}

// hashType is the type under which a key column is hashed.
func (c *column) hashType() uint32 {
	if c.base == oidAnyEnum {
		return 25 // by label: the numbers differ between instances
	}
	return c.base
}

// allBinary says whether rows can come as binary values whose key is hashed as
// it is.
func (w *rowWriter) allBinary() bool {
	for i := range w.r.columns {
		if c := &w.r.columns[i]; !c.generated && !c.binary {
			return false
		}
	}
	for _, k := range w.r.Policy.Keys {
		if w.r.columns[k].shrinks() {
			return false
		}
	}
	return true
}

// segment places a row.
func (w *rowWriter) segment(row []byte) (int, error) {
	if w.hasher == nil {
		w.next = (w.next + 1) % w.n
		return w.next, nil
	}
	rest := row[2:]
	if w.text {
		for range w.width {
			_, rest = field(rest)
		}
		for i := range w.keys {
			w.keys[i], rest = field(rest)
		}
		return w.hasher.Segment(w.keys, w.n)
	}
	for at := range w.width {
		var v []byte
		v, rest = field(rest)
		for i, k := range w.keyAt {
			if k == at {
				w.keys[i] = v
			}
		}
	}
	return w.hasher.Segment(w.keys, w.n)
}

// add takes one row (a DataRow body), which is the caller's again on return.
func (w *rowWriter) add(row []byte) error {
	if w.r.Policy.Kind == plan.Replicated {
		for seg := range w.n {
			if err := w.put(seg, row); err != nil {
				return err
			}
		}
		return nil
	}
	seg, err := w.segment(row)
	if err != nil {
		return err
	}
	return w.put(seg, row)
}

func (w *rowWriter) put(seg int, row []byte) error {
	if w.template != "" {
		return w.putLiteral(seg, row)
	}
	if w.text {
		w.buf = appendCopyText(w.buf[:0], row[2:], w.width)
		row = w.buf
	} else if !w.head[seg] {
		w.head[seg] = true
		if err := w.copy.Write(seg, []byte("PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00")); err != nil {
			return err
		}
	}
	w.bytes[seg] += int64(len(row))
	return w.copy.Write(seg, row)
}

// openCopy starts COPY on every segment. It comes before the source is read,
// because it may need the local server.
func (w *rowWriter) openCopy() error {
	if err := w.s.beforeDispatch(w.ctx); err != nil {
		return err
	}
	if err := w.s.markRows(w.ctx, w.r, nil); err != nil {
		return err
	}
	if w.begun = time.Now(); w.s.analyzing() != nil {
		w.s.analyzing().begin()
	}
	c, err := w.s.gang.CopyIn(w.ctx, nil, w.copySQL())
	w.copy = c
	return err
}

// copySQL is the COPY that takes the rows.
func (w *rowWriter) copySQL() string {
	var cols []string
	for i := range w.r.columns {
		if !w.r.columns[i].generated {
			cols = append(cols, catalog.Ident(w.r.columns[i].Name))
		}
	}
	format := "binary"
	if w.text {
		format = "text"
	}
	list := ""
	if len(cols) > 0 {
		list = " (" + strings.Join(cols, ", ") + ")"
	}
	return "COPY " + w.r.name() + list + " FROM STDIN (FORMAT " + format + ")"
}

// markRows says that segments are about to change rows of r.
func (s *Session) markRows(ctx context.Context, r *relation, segs []int) error {
	s.txn.changed.note(r)
	return s.mark(ctx, r, segs)
}

// markWrite says that segments are about to change r, or something else if it is nil,
// in whatever way.
func (s *Session) markWrite(ctx context.Context, r *relation, segs []int) error {
	s.txn.changed.other = true
	return s.mark(ctx, r, segs)
}

// mark is markWrite for what changed knows of.
func (s *Session) mark(ctx context.Context, r *relation, segs []int) error {
	if !s.gang.InTransaction() {
		if err := s.gang.Begin(ctx, ""); err != nil {
			return err
		}
	}
	s.gang.MarkWrite(segs)
	if r != nil && r.Temp {
		s.gang.MarkNoPrepare(segs)
	}
	return nil
}

// putLiteral adds a row to the segment's INSERT.
func (w *rowWriter) putLiteral(seg int, row []byte) error {
	b := &w.batches[seg]
	b.next()
	rest := row[2:]
	for i := range w.width {
		if i > 0 {
			b.sql.WriteString(", ")
		}
		var v []byte
		if v, rest = field(rest); v == nil {
			b.sql.WriteString("NULL")
		} else {
			b.sql.WriteString(catalog.Literal(string(v)))
		}
	}
	return b.end()
}

// next begins a row.
func (b *batch) next() {
	if b.rows > 0 {
		b.sql.WriteString(", ")
	}
	b.rows++
	b.sql.WriteByte('(')
}

// end ends a row.
func (b *batch) end() error {
	b.sql.WriteByte(')')
	if b.sql.Len() >= batchBytes {
		return b.cut()
	}
	return nil
}

func (b *batch) cut() error {
	if b.rows == 0 {
		return nil
	}
	rows := b.sql.String()
	b.sql.Reset()
	b.rows = 0
	return b.full.Add([]byte(rows))
}

// statement is the INSERT of rows, a list of them in parentheses.
func (w *rowWriter) statement(rows []byte) string {
	source := "VALUES " + string(rows)
	if w.width == 0 { // which VALUES cannot say
		source = "SELECT FROM (VALUES " + strings.ReplaceAll(string(rows), "()", "(NULL)") + ") AS v"
	}
	return strings.Replace(w.template, "VALUES ('"+rowsMark+"')", source, 1)
}

// send runs a segment's INSERTs.
func (w *rowWriter) send(seg int) error {
	b := &w.batches[seg]
	if err := b.cut(); err != nil {
		return err
	}
	return b.full.Replay(func(rows []byte) error {
		sql := w.statement(rows)
		var res []dispatch.Result
		var err error
		done := w.s.segmentsWrite("Insert", sql)
		if w.params != nil || len(w.formats) > 0 {
			res, err = w.s.gang.ExecParams(w.ctx, []int{seg}, sql, w.params, w.formats)
		} else {
			res, err = w.s.gang.Exec(w.ctx, []int{seg}, sql)
		}
		if done(res); err != nil {
			return err
		}
		for _, r := range res {
			if w.r.Policy.Kind == plan.Replicated && r.Seg != 0 {
				continue
			}
			w.total += r.Tag.RowsAffected()
			if w.emit != nil {
				for _, row := range r.Rows {
					w.emit(row)
				}
			}
		}
		return nil
	})
}

// finish sends what is left and returns the number of rows written.
func (w *rowWriter) finish() (int64, error) {
	defer w.free()
	if w.template != "" {
		var segs []int
		for seg := range w.batches {
			if w.batches[seg].rows > 0 || w.batches[seg].full.Len() > 0 {
				segs = append(segs, seg)
			}
		}
		if len(segs) == 0 {
			return 0, nil
		}
		if err := w.s.beforeDispatch(w.ctx); err != nil {
			return 0, err
		}
		if err := w.s.markRows(w.ctx, w.r, segs); err != nil {
			return 0, err
		}
		for _, seg := range segs {
			if err := w.send(seg); err != nil {
				return 0, err
			}
		}
		return w.total, nil
	}
	if w.copy == nil {
		return 0, nil
	}
	if !w.text {
		for seg := range w.n {
			if w.head[seg] {
				if err := w.copy.Write(seg, []byte{0xff, 0xff}); err != nil {
					return 0, err
				}
			} else if err := w.copy.Write(seg, []byte("PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff")); err != nil {
				return 0, err
			}
		}
	}
	n, err := w.copy.Finish(w.ctx)
	if a := w.s.analyzing(); a != nil && err == nil {
		a.copied(w)
	}
	if err != nil && strings.HasPrefix(pgError(err).Where, "COPY ") {
		err = withoutContext(err) // the COPY is not the client's
	}
	if w.r.Policy.Kind == plan.Replicated {
		n /= int64(w.n)
	}
	return n, err
}

func (w *rowWriter) abort(err error) {
	w.free()
	if w.copy != nil {
		w.copy.Abort(err)
	}
}

// free drops the rows that were kept.
func (w *rowWriter) free() {
	for seg := range w.batches {
		w.batches[seg].full.Close()
	}
}

// appendCopyText appends a row in COPY's text format.
func appendCopyText(dst, rest []byte, width int) []byte {
	for i := range width {
		if i > 0 {
			dst = append(dst, '\t')
		}
		var v []byte
		if v, rest = field(rest); v == nil {
			dst = append(dst, '\\', 'N')
			continue
		}
		for _, c := range v {
			switch c {
			case '\\':
				dst = append(dst, '\\', '\\')
			case '\n':
				dst = append(dst, '\\', 'n')
			case '\r':
				dst = append(dst, '\\', 'r')
			case '\t':
				dst = append(dst, '\\', 't')
			default:
				dst = append(dst, c)
			}
		}
	}
	return append(dst, '\n')
}
