package stream

import (
	"context"
	"net"
	"slices"
	"sync"
)

// Group is the motions of one interconnect that are still open. The zero value
// is ready for use.
type Group struct {
	mu     sync.Mutex
	closed bool
	open   map[*life]struct{}
	wg     sync.WaitGroup
}

// Close aborts the motions that are open, refuses new ones, and waits until
// their goroutines have ended.
func (g *Group) Close() {
	g.mu.Lock()
	g.closed = true
	var open []*life
	for l := range g.open {
		open = append(open, l)
	}
	g.mu.Unlock()
	for _, l := range open {
		l.fail(errAborted)
	}
	g.wg.Wait()
}

// life is what a sender and a receiver have in common: how they end.
type life struct {
	ctx    context.Context // ends with the motion, whatever the way
	cancel context.CancelCauseFunc
	group  *Group        // nil when the group was closed before
	done   chan struct{} // closed when the last part has ended
	onFail func()        // called once, after the connections were closed

	mu     sync.Mutex
	left   int // parts that have not ended
	asked  bool
	conns  []net.Conn
	failed error
}

// start enters a motion of n parts into the group. In a closed group it has
// failed from the start.
func (l *life) start(g *Group, n int, onFail func()) {
	l.ctx, l.cancel = context.WithCancelCause(context.Background())
	l.left, l.done, l.onFail = n, make(chan struct{}), onFail
	g.mu.Lock()
	if !g.closed {
		if g.open == nil {
			g.open = map[*life]struct{}{}
		}
		g.open[l] = struct{}{}
		g.wg.Add(1)
		l.group = g
	}
	g.mu.Unlock()
	if n == 0 {
		l.leave()
	} else if l.group == nil {
		l.fail(errAborted)
	}
}

// hold takes a connection to close when the motion fails. False means that it
// has failed, and that the connection has been closed.
func (l *life) hold(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed != nil {
		Reset(c)
		return false
	}
	l.conns = append(l.conns, c)
	return true
}

// release takes back a connection that was held. False means that the motion has
// failed, and that the connection has been closed.
func (l *life) release(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed != nil {
		return false
	}
	l.conns = slices.DeleteFunc(l.conns, func(x net.Conn) bool { return x == c })
	return true
}

// ended is the last thing a part does.
func (l *life) ended() {
	l.mu.Lock()
	l.left--
	last := l.left == 0
	l.mu.Unlock()
	if last {
		l.leave()
	}
}

func (l *life) leave() {
	l.cancel(nil)
	close(l.done)
	if l.group != nil {
		l.group.mu.Lock()
		delete(l.group.open, l)
		l.group.mu.Unlock()
		l.group.wg.Done()
	}
}

// fail ends the motion with err, unless it has ended, by closing all its
// connections without ceremony.
func (l *life) fail(err error) {
	l.mu.Lock()
	if l.failed != nil || l.left == 0 {
		l.mu.Unlock()
		return
	}
	l.failed = err
	conns := l.conns
	l.conns = nil
	l.mu.Unlock()
	l.cancel(err)
	for _, c := range conns {
		Reset(c)
	}
	l.onFail()
}

// err is why the motion has failed, nil when it has not.
func (l *life) err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

// ask says whether the caller is the first to have lost a connection, who asks
// for the cause and fails the motion.
func (l *life) ask() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := !l.asked
	l.asked = true
	return first
}

// asking says whether somebody asks for the cause, who will fail the motion then.
func (l *life) asking() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.asked
}

// Reset closes c so that the other end sees a failure and no TIME_WAIT stays.
func Reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		t.SetLinger(0) //nolint:errcheck // of no use on a closed connection
	}
	c.Close()
}
