package session

import (
	"context"
	"sync"
	"time"
)

// lineLimit bounds the wait in a line: whoever is in front may wait for the lock of
// somebody who does nothing at all, and the timeouts of statements and locks, which
// are the segments', do not run meanwhile.
const lineLimit = 2 * time.Second

// lines are where statements that change rows of one table on several segments
// wait for each other. Each segment locks rows in an order of its own, so two of
// them that change the same rows side by side would wait crosswise, again and
// again. The zero value is ready; any goroutine may use it.
type lines struct {
	mu  sync.Mutex
	all map[lineOf]*line
}

// lineOf names a table.
type lineOf struct {
	database string
	oid      uint32
}

type line struct {
	turn chan struct{} // holds one token while somebody has his turn
	in   int           // how many are in it, with the one whose turn it is
}

// formed says whether anybody is in the line.
func (l *lines) formed(of lineOf) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all[of] != nil
}

// wait waits for the caller's turn, which lasts until leave is called, once. When
// ctx or lineLimit ends first there is no turn, and leave does nothing.
func (l *lines) wait(ctx context.Context, of lineOf) (leave func()) {
	l.mu.Lock()
	here := l.all[of]
	if here == nil {
		if here = (&line{turn: make(chan struct{}, 1)}); l.all == nil {
			l.all = map[lineOf]*line{}
		}
		l.all[of] = here
	}
	here.in++
	l.mu.Unlock()
	out := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if here.in--; here.in == 0 {
			delete(l.all, of)
		}
	}
	t := time.NewTimer(lineLimit)
	defer t.Stop()
	select {
	case here.turn <- struct{}{}:
		return func() {
			<-here.turn
			out()
		}
	case <-ctx.Done():
	case <-t.C:
	}
	out()
	return func() {}
}
