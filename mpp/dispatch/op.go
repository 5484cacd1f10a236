package dispatch

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// cancelAgain is the pause between cancel requests to a segment: one that
// arrives just before its statement does is lost.
const cancelAgain = 200 * time.Millisecond

// op is one statement under way on some members. It collects their outcomes,
// cancels the rest on the first failure, and everything when ctx ends.
type op struct {
	g      *Gang
	ctx    context.Context
	began  time.Time
	unlink func() bool

	mu       sync.Mutex
	parts    []part
	err      error // the most telling so far
	stopping bool  // cancel requests are being sent
	user     bool  // because the user wants it
	onFail   func(error)
	cancels  sync.WaitGroup
}

// part is one member's share of an op.
type part struct {
	m    *member
	conn *pgconn.PgConn // m's when the op began; m may drop it meanwhile
	done bool
	ch   chan struct{} // closed when done, once cancelling has begun
}

// start begins an op on ms. end must be called.
func (g *Gang) start(ctx context.Context, ms []*member) *op {
	o := &op{g: g, ctx: ctx, began: time.Now(), parts: make([]part, len(ms))}
	for i, m := range ms {
		o.parts[i] = part{m: m, conn: m.conn}
	}
	g.register(o)
	if ctx.Done() != nil {
		o.unlink = context.AfterFunc(ctx, o.cancel)
	}
	return o
}

// cancel cancels the op as the user's wish. One that has failed is ending
// anyway, with its error.
func (o *op) cancel() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return
	}
	o.user = true
	o.stop()
	if o.onFail != nil {
		o.onFail(canceled(o.ctx))
	}
}

// fail ends the op with err, a reason found elsewhere.
func (o *op) fail(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.stopping { // else it is ending anyway
		o.noteLocked(err)
	}
}

// stop starts cancelling the parts that are not done. o.mu is held.
func (o *op) stop() {
	if o.stopping {
		return
	}
	o.stopping = true
	for i := range o.parts {
		p := &o.parts[i]
		if !p.done {
			p.ch = make(chan struct{})
			o.cancels.Add(1)
			go o.cancelPart(p.m, p.conn, p.ch)
		}
	}
}

// cancelPart asks a member's segment to stop until its part is done, and cuts
// the connection when it does not answer.
func (o *op) cancelPart(m *member, conn *pgconn.PgConn, done <-chan struct{}) {
	defer o.cancels.Done()
	if conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), o.g.d.p.CancelTimeout)
	defer cancel()
	for {
		_ = conn.CancelRequest(ctx)
		select {
		case <-done:
			return
		case <-ctx.Done():
			o.g.d.log.Warn("segment does not react to a cancel request; its connection is cut", "seg", m.seg.Content, "pid", m.pid)
			_ = conn.Conn().Close()
			return
		case <-time.After(cancelAgain):
		}
	}
}

// putOff has the first n parts not be cancelled: their executors have nothing to do
// until takeUp.
func (o *op) putOff(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range o.parts[:n] {
		o.parts[i].done = true
	}
}

// takeUp says whether the parts that were put off can begin. When the op is being
// ended they cannot, and are done.
func (o *op) takeUp(n int) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stopping || o.ctx.Err() != nil {
		return false
	}
	for i := range o.parts[:n] {
		o.parts[i].done = false
	}
	return true
}

// finish notes the outcome of part i. For a failure it cancels the others.
func (o *op) finish(i int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	p := &o.parts[i]
	if p.done {
		return
	}
	p.done = true
	if p.ch != nil {
		close(p.ch)
	}
	if err != nil {
		o.noteLocked(err)
	}
}

// noteLocked records a failure and cancels what is not done. o.mu is held.
func (o *op) noteLocked(err error) {
	if o.err == nil || rank(err) > rank(o.err) {
		o.err = err
	}
	o.stop()
	if o.onFail != nil {
		o.onFail(err)
	}
}

// end waits for cancel requests under way, so that none hits a later
// statement, and returns the op's error.
func (o *op) end() error {
	if o.unlink != nil {
		o.unlink()
	}
	o.g.unregister(o)
	o.mu.Lock()
	o.stopping = true // a cancel from now on has nothing to stop
	err, user := o.err, o.user || o.ctx.Err() != nil
	o.mu.Unlock()
	o.cancels.Wait()
	if err != nil && user && rank(err) < 4 {
		return canceled(o.ctx)
	}
	return err
}

// each runs f on every member in parallel as one op.
func (g *Gang) each(ctx context.Context, ms []*member, f func(i int, m *member) error) error {
	o := g.start(ctx, ms)
	parallel(len(ms), func(i int) { o.finish(i, f(i, ms[i])) })
	return o.end()
}
