package dispatch

import (
	"context"

	"github.com/jackc/pgx/v5/pgconn"
)

// Result is one segment's answer.
type Result struct {
	Seg    int // content id
	Tag    pgconn.CommandTag
	Fields []pgconn.FieldDescription
	Rows   [][][]byte // nil values are NULL
}

// Param is one parameter of a statement. A nil Value is NULL.
type Param struct {
	OID    uint32 // 0: PostgreSQL infers it
	Format int16  // 0 text, 1 binary
	Value  []byte
}

// Exec runs sql on the segments with those content ids (nil = all) in
// parallel, in the simple protocol, and returns their answers in that order;
// of several statements the last one's. When one fails the others are
// cancelled and the error, an *Error, is the first real cause.
func (g *Gang) Exec(ctx context.Context, segs []int, sql string) ([]Result, error) {
	begin := g.tx.beginSQL()
	return g.exec(ctx, segs, func(m *member) (Result, error) {
		text, prefix := sql, ""
		if g.tx.active && !m.begun {
			prefix = begin + "; "
			text = prefix + sql
		}
		return m.collect(m.conn.Exec(context.Background(), text), prefix)
	})
}

// ExecLocking is Exec for a statement that takes a lock which readers must wait for.
// It is sent when no statement is in the middle of opening its slices, and none is
// opened until it has had time to come to its lock on every segment: or a statement
// could be before it on one segment and behind it on another, a deadlock.
func (g *Gang) ExecLocking(ctx context.Context, segs []int, sql string) ([]Result, error) {
	h, err := g.d.latch.acquire(ctx, committing, g.d.p.LatchShared, nil)
	if err != nil {
		return nil, canceled(ctx)
	}
	defer h.release()
	g.MarkLocked()
	return g.Exec(ctx, segs, sql)
}

// Lock runs sql, LOCK TABLE statements, on every segment: on one first, so that two
// transactions that lock the same wait there for each other and not crosswise.
func (g *Gang) Lock(ctx context.Context, sql string) error {
	ms, err := g.pick(nil)
	if err != nil {
		return err
	}
	for _, segs := range [][]int{{int(ms[0].seg.Content)}, nil} {
		if _, err := g.Exec(ctx, segs, sql); err != nil {
			return err
		}
	}
	return nil
}

// ExecParams is Exec for one statement in the extended protocol.
func (g *Gang) ExecParams(ctx context.Context, segs []int, sql string, params []Param, resultFormats []int16) ([]Result, error) {
	values, oids, formats := split(params)
	begin := g.tx.beginSQL()
	return g.exec(ctx, segs, func(m *member) (Result, error) {
		var b pgconn.Batch
		if g.tx.active && !m.begun {
			b.ExecParams(begin, nil, nil, nil, nil)
		}
		b.ExecParams(sql, values, oids, formats, resultFormats)
		return m.collect(m.conn.ExecBatch(context.Background(), &b), "")
	})
}

// split are parameters as pgconn takes them.
func split(params []Param) (values [][]byte, oids []uint32, formats []int16) {
	values = make([][]byte, len(params))
	oids = make([]uint32, len(params))
	formats = make([]int16, len(params))
	for i, p := range params {
		values[i], oids[i], formats[i] = p.Value, p.OID, p.Format
	}
	return values, oids, formats
}

func (g *Gang) exec(ctx context.Context, segs []int, f func(m *member) (Result, error)) ([]Result, error) {
	if g.busy.Load() {
		return nil, errBusy()
	}
	ms, err := g.pick(segs)
	if err != nil {
		return nil, err
	}
	if err := g.ready(ctx, ms); err != nil {
		return nil, err
	}
	results := make([]Result, len(ms))
	err = g.each(ctx, ms, func(i int, m *member) (err error) {
		results[i], err = f(m)
		return err
	})
	if err != nil {
		return nil, err
	}
	return results, nil
}

// collect reads the answer to the end and keeps its last result.
func (m *member) collect(mrr *pgconn.MultiResultReader, prefix string) (Result, error) {
	res := Result{Seg: int(m.seg.Content)}
	for mrr.NextResult() {
		rr := mrr.ResultReader()
		res.read(rr)
		tag, err := rr.Close()
		if err != nil {
			break // Close below says the same
		}
		res.Tag = tag
	}
	err := mrr.Close()
	m.noteStatus()
	if err != nil {
		return res, m.fail(err, 0, prefix)
	}
	return res, nil
}

// read takes over what is in rr.
func (r *Result) read(rr *pgconn.ResultReader) {
	r.Fields, r.Rows = nil, nil
	if fd := rr.FieldDescriptions(); len(fd) > 0 {
		r.Fields = append([]pgconn.FieldDescription(nil), fd...)
	}
	for rr.NextRow() {
		r.Rows = append(r.Rows, copyRow(rr.Values()))
	}
}

// copyRow copies a row out of the read buffer, all values into one piece.
func copyRow(values [][]byte) [][]byte {
	n := 0
	for _, v := range values {
		n += len(v)
	}
	row := make([][]byte, len(values))
	buf := make([]byte, 0, n)
	for i, v := range values {
		if v != nil {
			start := len(buf)
			buf = append(buf, v...)
			row[i] = buf[start:len(buf):len(buf)]
		}
	}
	return row
}

// noteStatus takes over what the last ReadyForQuery said of the transaction.
func (m *member) noteStatus() {
	if m.conn != nil && !m.conn.IsClosed() {
		m.begun = m.conn.TxStatus() != 'I'
		if m.conn.TxStatus() == 'T' {
			m.why = nil // a savepoint has mended it
		}
	}
}

// SetAll applies settings to the connections that exist; later ones get them
// from GangConfig.Settings.
func (g *Gang) SetAll(ctx context.Context, settings map[string]string) error {
	if g.busy.Load() {
		return errBusy()
	}
	var ms []*member
	for _, m := range g.members {
		switch {
		case m.begun || m.alive():
			ms = append(ms, m)
		case m.conn != nil:
			m.drop()
		}
	}
	return g.each(ctx, ms, func(_ int, m *member) error { return m.set(context.Background(), settings) })
}
