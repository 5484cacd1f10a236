package dispatch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"
)

// copyBuffer is how much of a segment's data is collected before it is sent.
const copyBuffer = 64 << 10

// CopyIn is a COPY … FROM STDIN under way on some segments. One goroutine at a
// time may use it.
type CopyIn struct {
	g     *Gang
	o     *op
	parts []*copyPart
	bySeg map[int]*copyPart
	wg    sync.WaitGroup
	stop  chan struct{} // closed on failure, cancel or Abort
	once  sync.Once
	cause error // why stop was closed; set before
	tags  []pgconn.CommandTag
	ended bool
}

// copyPart feeds one segment. buf belongs to the writer, what is in full to
// the segment's goroutine.
type copyPart struct {
	c     *CopyIn
	seg   int
	buf   []byte
	full  chan []byte
	free  chan []byte
	cur   []byte        // being read
	whole []byte        // cur's buffer
	errCh chan struct{} // closed when the segment has sent an error
	once  sync.Once
	tag   pgconn.CommandTag
}

// CopyIn starts sql, a COPY … FROM STDIN, on the segments with those content
// ids (nil = all). The end of ctx cancels it. On success Finish or Abort must
// be called. A failure of the statement itself shows in Write or Finish.
func (g *Gang) CopyIn(ctx context.Context, segs []int, sql string) (*CopyIn, error) {
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
	begin := g.tx.beginSQL()
	c := &CopyIn{g: g, bySeg: make(map[int]*copyPart, len(ms)), stop: make(chan struct{})}
	c.o = g.start(ctx, ms)
	c.o.mu.Lock()
	c.o.onFail = c.halt
	if c.o.user {
		c.halt(canceled(ctx)) // ctx had ended before
	}
	c.o.mu.Unlock()
	g.busy.Store(true)
	for i, m := range ms {
		p := &copyPart{c: c, seg: int(m.seg.Content), full: make(chan []byte, 2), free: make(chan []byte, 4), errCh: make(chan struct{})}
		c.parts = append(c.parts, p)
		c.bySeg[p.seg] = p
		text, prefix := sql, ""
		if g.tx.active && !m.begun {
			prefix = begin + "; "
			text = prefix + sql
		}
		c.wg.Go(func() { c.o.finish(i, p.run(m, text, prefix)) })
	}
	return c, nil
}

// halt makes all parts end. It is the op's onFail.
func (c *CopyIn) halt(err error) {
	c.once.Do(func() {
		if err == nil {
			err = errors.New("the copy was aborted")
		}
		c.cause = err
		close(c.stop)
	})
}

func (p *copyPart) run(m *member, sql, prefix string) error {
	// pgconn waits for its reader before it reports the server's error: the
	// reader must hear of it too.
	m.onError = func() { p.once.Do(func() { close(p.errCh) }) }
	defer func() { m.onError = nil }()
	tag, err := m.conn.CopyFrom(context.Background(), p, sql)
	m.noteStatus()
	if err != nil {
		return m.fail(err, 0, prefix)
	}
	p.tag = tag
	return nil
}

// Read gives pgconn the segment's data. The data ends when Finish has closed
// full; when the copy has failed elsewhere the error makes pgconn send
// CopyFail.
func (p *copyPart) Read(b []byte) (int, error) {
	for len(p.cur) == 0 {
		if p.whole != nil {
			p.free <- p.whole[:0]
			p.whole = nil
		}
		select {
		case <-p.c.stop:
			return 0, errors.New("the statement has failed or was canceled")
		default:
		}
		select {
		case <-p.errCh:
			return 0, io.EOF
		case <-p.c.stop:
		case b, ok := <-p.full:
			if !ok {
				return 0, io.EOF
			}
			p.cur, p.whole = b, b
		}
	}
	n := copy(b, p.cur)
	p.cur = p.cur[n:]
	return n, nil
}

// Write hands data, a part of the COPY stream, to one segment. It is copied,
// and collected before it is sent; the pieces need not end at rows. An error
// is the copy's: call Finish or Abort.
func (c *CopyIn) Write(seg int, data []byte) error {
	p := c.bySeg[seg]
	if p == nil {
		return newError("XX000", fmt.Sprintf("seg%d does not take part in this COPY", seg), nil)
	}
	for len(data) > 0 {
		if p.buf == nil {
			select {
			case p.buf = <-p.free:
			default:
				p.buf = make([]byte, 0, copyBuffer)
			}
		}
		n := min(len(data), cap(p.buf)-len(p.buf))
		p.buf = append(p.buf, data[:n]...)
		data = data[n:]
		if len(p.buf) == cap(p.buf) {
			if err := p.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *copyPart) flush() error {
	if len(p.buf) == 0 {
		return nil
	}
	select {
	case p.full <- p.buf:
		p.buf = nil
		return nil
	case <-p.c.stop:
		return p.c.cause
	case <-p.errCh:
		<-p.c.stop // follows at once
		return p.c.cause
	}
}

// Finish sends what is left, ends the copy on all segments and returns how
// many rows they took. The end of ctx cancels it.
func (c *CopyIn) Finish(ctx context.Context) (int64, error) {
	if ctx.Done() != nil {
		defer context.AfterFunc(ctx, c.o.cancel)()
	}
	for _, p := range c.parts {
		if p.flush() != nil {
			break // end tells
		}
	}
	if err := c.end(); err != nil {
		return 0, err
	}
	var n int64
	for _, p := range c.parts {
		n += p.tag.RowsAffected()
		c.tags = append(c.tags, p.tag)
	}
	return n, nil
}

// Tags are the segments' outcomes after Finish, in the order of the segments.
func (c *CopyIn) Tags() []pgconn.CommandTag { return c.tags }

// Abort makes the copy fail on all segments and waits for them.
func (c *CopyIn) Abort(err error) {
	c.halt(err)
	_ = c.end()
}

func (c *CopyIn) end() error {
	if c.ended {
		return errors.New("the copy has ended already")
	}
	c.ended = true
	for _, p := range c.parts {
		close(p.full)
	}
	c.wg.Wait()
	err := c.o.end()
	c.g.busy.Store(false)
	return err
}
